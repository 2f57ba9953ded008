"""Order of updates, shared fakes, averaging, pickling, Lightning's callbacks, synchronisation, old checkpoints."""

from __future__ import annotations

import copy
import math
import pickle
import traceback
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import BatchSizeFinder, EMAWeightAveraging
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR
from torch.utils._python_dispatch import TorchDispatchMode

import ganzoo
from ganzoo.callbacks.checkpoints import Checkpoints
from ganzoo.callbacks.diagnostics import Diagnostics
from ganzoo.checkpoint.sealed import CheckpointError, read
from ganzoo.core.pixels import scaled
from ganzoo.core.strategy import GANStrategy
from ganzoo.core.types import full_precision
from ganzoo.data import Digits
from ganzoo.optim.adam import FusedAdam
from ganzoo.optim.game import ExtraAdam
from ganzoo.testing import BATCH, NoiseImages, fit, sources
from tests.variants import small

TINY = {"image_size": 8, "channels": 1, "width": 4}
BEFORE = Path(__file__).parents[1] / "data" / "gan-before-0.2.pt"  # written by the code of November 2026


def make(name="DCGAN", **more):
    torch.manual_seed(0)
    return getattr(ganzoo, name)(**small(name), **more)


# Order of updates


class Turns(Callback):
    """Records the order of player updates, batch by batch."""

    def __init__(self):
        self.batches = []

    def on_train_start(self, trainer, model):
        for letter, optimizer in zip("dg", trainer.optimizers, strict=True):
            optimizer.register_step_post_hook(lambda *_, letter=letter: self.batches.append(letter))

    def on_train_batch_end(self, *_):
        self.batches.append(" ")

    def __str__(self):
        return "".join(self.batches).strip()


@pytest.mark.parametrize(
    ("game", "turns"),
    [
        ({}, "dg dg dg"),
        ({"n_critic": 2}, "d dg d"),
        ({"n_generator": 3}, "dggg dggg dggg"),
    ],
)
def test_order_of_player_updates(game, turns):
    moves = Turns()
    trainer = fit(make(**game), steps=3, callbacks=[moves])
    assert str(moves) == turns and trainer.global_step == 3


def test_generator_steps_on_one_batch_have_their_own_latents():
    model, seen = make(n_generator=2), []
    equation = model.generator_loss
    model.generator_loss = lambda batch: seen.append(batch) or equation(batch)
    fit(model, steps=1)
    assert torch.equal(seen[0]["image"], seen[1]["image"]) and not torch.equal(seen[0]["z"], seen[1]["z"])


def test_n_critic_and_n_generator_above_1_are_refused():
    with pytest.raises(ValueError, match="n_critic is 2 and n_generator 3: one of them must be 1"):
        make(n_critic=2, n_generator=3)


@pytest.mark.parametrize(("bad", "value"), [("n_generator", 0), ("n_generator", 1.5), ("share_fakes", "yes")])
def test_bad_values_are_named(bad, value):
    with pytest.raises(ValueError, match=f"^{bad} "):
        make(**{bad: value})


# Shared fakes


def test_shared_fakes_take_one_forward_pass_and_reach_both_players():
    model = make(share_fakes=True)
    data = NoiseImages(model)
    made, d_saw, g_saw = [], [], []
    model.generator.register_forward_hook(lambda module, inputs, output: made.append(output))
    d_loss, g_loss = model.discriminator_loss, model.generator_loss
    model.discriminator_loss = lambda batch: d_saw.append(batch) or d_loss(batch)
    model.generator_loss = lambda batch: g_saw.append(batch) or g_loss(batch)
    fit(model, data, steps=2)
    assert len(made) == 2
    for y, d, g in zip(made, d_saw, g_saw, strict=True):
        assert g["fakes"] is y and y.requires_grad
        assert torch.equal(d["fakes"], y) and not d["fakes"].requires_grad
        assert torch.equal(d["z"], g["z"])


def test_a_step_with_shared_fakes_matches_the_usual_training_loop():
    """D's step on reals and detached fakes; then G's step on the same fakes, through the updated D."""
    model = make(share_fakes=True, optimizer=lambda params: SGD(params, lr=0.1))
    g, d = copy.deepcopy(model.generator), copy.deepcopy(model.discriminator)
    seen = []
    equation = model.discriminator_loss
    model.discriminator_loss = lambda batch: seen.append(batch) or equation(batch)
    fit(model, steps=2)
    loss = nn.BCEWithLogitsLoss()
    ones, zeros = torch.ones(BATCH), torch.zeros(BATCH)
    optimizers = [SGD(network.parameters(), lr=0.1) for network in (d, g)]
    for batch in seen:
        fake = g(batch["z"])
        d.zero_grad()
        (loss(d(batch["image"]), ones) + loss(d(fake.detach()), zeros)).backward()
        optimizers[0].step()
        g.zero_grad()
        before = {n: b.clone() for n, b in d.named_buffers()}
        loss(d(fake), ones).backward()
        optimizers[1].step()
        for n, b in d.named_buffers():  # ganzoo restores D's running statistics after G's step
            b.copy_(before[n])
    for ours, theirs in ((model.generator, g), (model.discriminator, d)):
        for key, value in theirs.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[key], value, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "other",
    [{"n_critic": 2}, {"n_generator": 2}, {"microbatches": 2}, {"compile_losses": True}, {"consensus": 0.0}],
    ids=lambda other: next(iter(other)),
)
def test_arguments_incompatible_with_shared_fakes_are_refused(other):
    # consensus raises its own error first
    with pytest.raises(ValueError, match=f"needs {next(iter(other))}"):
        make(share_fakes=True, **other)


def test_shared_fakes_in_two_processes_match_one(tmp_path):
    def gan():
        torch.manual_seed(0)
        model = ganzoo.GAN(8, 1, z_dim=4, hidden=8, d_hidden=8, share_fakes=True)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        return model

    class Keep(Callback):
        def on_train_end(self, trainer, model):
            torch.save(model.state_dict(), tmp_path / f"{trainer.world_size}.pt")

    strategy = GANStrategy(process_group_backend="gloo", start_method="fork")
    fit(gan(), steps=3, callbacks=[Keep()])
    fit(gan(), steps=3, callbacks=[Keep()], strategy=strategy, devices=2)
    one, two = (torch.load(tmp_path / f"{n}.pt") for n in (1, 2))
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-5, atol=1e-6)


# Latents


@pytest.mark.parametrize("name", ["WGAN", "WGANGP"])
def test_wgan_latents_are_standard_normal(name):
    z = make(name).latent(10_000, torch.Generator().manual_seed(0))
    assert z.shape == (10_000, 6) and abs(z.mean()) < 0.02 and abs(z.std() - 1) < 0.02 and z.abs().max() > 3


def test_an_unknown_prior_is_refused():
    class Typo(ganzoo.DCGAN):
        prior = "nromal"

    with pytest.raises(KeyError, match="nromal"):
        Typo(**TINY).latent(1)


def test_held_out_latents_differ_between_processes(tmp_path):
    class Look(ganzoo.DCGAN):
        def discriminator_loss(self, batch):
            if not self.training:
                torch.save(batch["z"], tmp_path / f"{self.trainer.global_rank}.pt")
            return super().discriminator_loss(batch)

    torch.manual_seed(0)
    strategy = GANStrategy(process_group_backend="gloo", start_method="fork")
    fit(Look(**TINY), steps=3, limit_val_batches=1, strategy=strategy, devices=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert first.shape == second.shape and not torch.equal(first, second)


# The averaged generator


def test_extrapolated_weights_do_not_enter_the_average():
    """ExtraAdam's second and fourth steps update the average, each with the images of two batches."""
    model, weights = make(optimizer=lambda params: ExtraAdam(params, lr=0.05), ema_half_life=32.0), []

    class Watch(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            weights.append(model.generator.project.weight.detach().clone())

    expected = model.generator.project.weight.detach().clone()
    fit(model, steps=5, callbacks=[Watch()])
    keep = 0.5 ** (2 * BATCH / 32)
    for weight in (weights[1], weights[3]):
        expected = keep * expected + (1 - keep) * weight
    torch.testing.assert_close(model.ema.project.weight, expected)
    assert model.unaveraged == BATCH


def test_the_average_resumes_between_two_generator_steps(tmp_path):
    """The checkpoint lies between two G steps: the images of one batch do not count for the average yet."""
    game = {"n_critic": 2, "ema_half_life": 20.0}
    whole, again = make(**game), make(**game)

    class Save(Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 3:
                trainer.save_checkpoint(tmp_path / "a.ckpt")

    fit(whole, steps=6, callbacks=[Save()])
    fit(again, steps=6, ckpt_path=tmp_path / "a.ckpt")
    for key, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


# Samples, pickles and outputs


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ganzoo.list_models())
def test_sampling_in_half_precision(name, dtype):
    model = make(name, ema_half_life=10.0).to(dtype)
    model.configure_model()
    images = model.sample(seeds=[0, 1], source=sources(model, 2))
    assert images.dtype == torch.float32 and images.isfinite().all() and images.abs().max() <= 1
    whole = make(name).sample(seeds=[0, 1], source=sources(model, 2))
    assert (images - whole).abs().mean() < 0.05


WEIGHT_NORM = {"ImprovedGAN"}  # torch pickles no parametrised layers


@pytest.mark.parametrize("name", sorted({*ganzoo.list_models()} - WEIGHT_NORM))
def test_a_model_is_pickled_with_its_defaults(name):
    model = make(name)
    again = pickle.loads(pickle.dumps(model))
    assert again.make_optimizer == model.make_optimizer and again.lr_scheduler is None
    for key, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


def test_a_model_pickled_in_training_can_be_trained_further(tmp_path, monkeypatch):
    """Also with compiled losses and a callback that can roll back."""
    monkeypatch.setattr(torch, "compile", lambda loss: lambda batch: loss(batch))
    pickled = []

    class Pickle(Callback):
        def on_train_batch_end(self, trainer, model, *_):
            pickled.append(pickle.dumps(model))

    model, saves = make(ema_half_life=10.0, compile_losses=True), Checkpoints(rollbacks=1)
    fit(model, steps=2, callbacks=[Pickle(), saves], enable_checkpointing=True, default_root_dir=tmp_path)
    again = pickle.loads(pickled[-1])
    assert again.images_seen == 2 * BATCH and again.players == {} and again.rollback is None
    fit(again, steps=2)
    assert again.images_seen == 4 * BATCH and model.images_seen == 2 * BATCH


def step_down(optimizer):
    return StepLR(optimizer, 3)


def test_user_factories_are_pickled_unchanged():
    again = pickle.loads(pickle.dumps(make(lr_scheduler=step_down)))
    assert again.lr_scheduler is step_down
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(make(optimizer=lambda params: SGD(params, lr=0.1)))


def test_loaded_weights_start_a_new_average(tmp_path):
    """Images seen before loading do not determine the age of the average."""
    model = make(ema_half_life=1e6)
    fit(model, steps=2).save_checkpoint(tmp_path / "a.ckpt")
    loaded = ganzoo.load(tmp_path / "a.ckpt")
    loaded.images_seen = 10**7
    before = loaded.ema.project.weight.clone()
    fit(loaded, steps=1)
    assert loaded.unaveraged == 0
    torch.testing.assert_close(loaded.ema.project.weight, before, atol=1e-5, rtol=0)


def test_a_custom_generator_step_updates_the_average():
    class Own(ganzoo.DCGAN):
        def generator_step(self, batch):
            batch, optimizer = self.with_draws(batch), self.trainer.optimizers[1]
            optimizer.zero_grad()
            with self.players["generator"].active():
                self.manual_backward(self.generator_loss(batch)["fake"])
            self.trainer.strategy.optimizer_step(optimizer, closure=lambda: None)

    model = Own(**TINY, ema_half_life=1.0)
    fit(model, steps=2)
    torch.testing.assert_close(model.ema.project.weight, model.generator.project.weight, atol=1e-3, rtol=0)


def test_an_overridden_configure_optimizers_is_respected():
    class Own(ganzoo.DCGAN):
        def configure_optimizers(self):
            optimizers, schedulers = super().configure_optimizers()
            optimizers[1].param_groups[0]["lr"] = 1e-6
            return optimizers, schedulers

    trainer = fit(Own(**TINY), steps=1)
    assert [optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers] == [2e-4, 1e-6]


def test_full_precision_converts_tensors_only():
    seen = torch.ones(2, dtype=torch.bfloat16)
    logits, features, n = full_precision((seen, {"f": seen, "none": None}, 3))
    assert logits.dtype == features["f"].dtype == torch.float32 and features["none"] is None and n == 3
    assert full_precision(seen.double()).dtype == torch.float64


def test_bytes_in_a_named_tuple_are_scaled():
    class Pair(NamedTuple):
        image: torch.Tensor
        label: torch.Tensor

    pair = scaled(Pair(torch.tensor([0, 255], dtype=torch.uint8), torch.tensor([1, 2])))
    assert isinstance(pair, Pair) and pair.image.tolist() == [-1.0, 1.0] and pair.label.dtype == torch.int64


@pytest.mark.slow
def test_processes_may_be_spawned(tmp_path):
    strategy = GANStrategy(process_group_backend="gloo", start_method="spawn")
    model = make()
    before = model.generator.project.weight.clone()
    fit(model, Digits(image_size=16, batch_size=8), steps=2, strategy=strategy, devices=2)
    assert model.images_seen == 2 * 8 and not torch.equal(before, model.generator.project.weight)


# Lightning's callbacks


def test_lightnings_average_does_not_average_images_seen(tmp_path):
    model = make()
    average = EMAWeightAveraging(decay=0.9)
    trainer = fit(model, steps=40, callbacks=[average], max_epochs=-1)
    assert model.images_seen == 40 * BATCH
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert int(read(tmp_path / "a.ckpt")["state_dict"]["images_seen"]) == 40 * BATCH
    assert not any(name == "images_seen" for name, _ in model.named_buffers())


def test_lightnings_average_saves_images_seen_in_training(tmp_path):
    class Save(Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.save_checkpoint(tmp_path / f"{trainer.global_step}.ckpt")

    fit(make(), steps=3, callbacks=[EMAWeightAveraging(decay=0.9), Save()])
    saved = read(tmp_path / "2.ckpt")
    assert int(saved["state_dict"]["images_seen"]) == 2 * BATCH
    again = make()
    fit(again, steps=3, callbacks=[EMAWeightAveraging(decay=0.9)], ckpt_path=tmp_path / "2.ckpt")
    assert again.images_seen == 3 * BATCH


def test_the_batch_size_finder_restores_the_training_state(tmp_path):
    """It trains before Lightning's on_train_start, then restores the state."""
    model, data = make(), Digits(image_size=16, batch_size=8)
    finder = BatchSizeFinder(steps_per_trial=2, init_val=4, max_trials=3)
    trainer = fit(model, data, steps=3, callbacks=[finder], default_root_dir=tmp_path)
    assert data.batch_size == 16 and trainer.global_step == 3
    assert model.images_seen == 3 * 16


@pytest.mark.parametrize("bad", [torch.tensor(1.5), torch.tensor([1, 2]), "many", None])
def test_invalid_images_seen_are_refused(bad):
    model = make()
    state = {**model.state_dict(), "images_seen": bad}
    with pytest.raises(RuntimeError, match="images_seen is not a whole number|Missing key.*images_seen"):
        model.load_state_dict(state)


READS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "is_nonzero", "equal"}
FREE = "one_hot(", "torch.randint("  # one_hot reads labels on a CPU only; the pool's indices are on a CPU


class Reads(TorchDispatchMode):
    """Records operations that would synchronise with a device."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.found, self.on = [], False
        for name in ("tolist", "cpu", "numpy"):
            whole = getattr(torch.Tensor, name)
            monkeypatch.setattr(torch.Tensor, name, lambda *args, whole=whole: self.note() or whole(*args))

    def __enter__(self):
        self.on = True
        return super().__enter__()

    def __exit__(self, *error):
        self.on = False
        return super().__exit__(*error)

    def note(self):
        if not self.on:
            return
        lines = [frame.line or "" for frame in traceback.extract_stack()]
        if not any(free in line for line in lines for free in FREE):
            self.found.append(lines[-3:])

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.removeprefix("aten::")
        masks = name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])
        if name in READS or masks:
            self.note()
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("read", [lambda t: t.tolist(), lambda t: t.cpu(), lambda t: t[t > 0], lambda t: bool(t.any())])
def test_reads_from_a_device_are_recorded(read, monkeypatch):
    with Reads(monkeypatch) as reads:
        read(torch.ones(3))
    assert reads.found


@pytest.mark.parametrize("game", [{"share_fakes": True}, {"clip_norm": 1.0, "ema_half_life": 10.0}], ids=str)
@pytest.mark.parametrize("name", ganzoo.list_models())
def test_a_step_does_not_synchronise_with_the_device(name, game, monkeypatch):
    """On a CPU whose tensors claim to be on an accelerator."""
    if name in ("CycleGAN", "R3GAN") and "share_fakes" in game:
        game = {}  # it shares them always, or never

    class Look(Callback):
        def on_train_batch_start(self, trainer, model, batch, batch_idx):
            if trainer.global_step == 1:
                self.mode = Reads(monkeypatch)
                self.mode.__enter__()

        def on_train_batch_end(self, trainer, model, *_):
            if trainer.global_step == 2:
                self.mode.__exit__(None, None, None)

    model, look = make(name, n_critic=1, **game), Look()
    monkeypatch.setattr(torch.Tensor, "is_cpu", property(lambda _: False))
    fit(model, steps=3, callbacks=[look], log_every_n_steps=50)
    assert look.mode.found == []


# Old checkpoints


def test_an_old_checkpoint_resumes():
    game = {"n_critic": 2, "ema_half_life": 100.0, "discriminator_optimizer": lambda params: FusedAdam(params, lr=0.0)}
    model = ganzoo.GAN(image_size=8, hidden=4, d_hidden=4, z_dim=2, pieces=2, **game)
    alarms, logged = Diagnostics(every_n_steps=100, n=12), []

    class Look(Callback):
        def on_train_start(self, trainer, pl_module):
            logged.append((model.images_seen, model.unaveraged, dict(alarms.active)))

    trainer = fit(
        model, Digits(batch_size=32), steps=8, ckpt_path=BEFORE, callbacks=[alarms, Look()], log_every_n_steps=8
    )
    assert logged == [(7 * 32, 32, {"D is frozen": 6})]
    assert (model.images_seen, model.unaveraged) == (8 * 32, 0)
    # D is frozen, so the four batches (three of them in the file) have nearly the same loss
    assert float(trainer.callback_metrics["D/loss"]) == pytest.approx(2 * math.log(2), rel=1e-2)


def test_an_old_checkpoint_loads():
    for model in (ganzoo.load(BEFORE), ganzoo.GAN.load_from_checkpoint(BEFORE)):
        assert model.images_seen == 7 * 32 and model.n_critic == 2
        assert model.sample(2, seeds=[0, 1]).shape == (2, 1, 8, 8)


def test_a_checkpoint_without_weights_is_refused(tmp_path):
    torch.save({"ganzoo": {"variant": "ganzoo.variants.gan.GAN"}}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="contains no weights; use another checkpoint"):
        ganzoo.GAN.load_from_checkpoint(tmp_path / "a.ckpt")
