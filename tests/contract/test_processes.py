"""Several processes train like one, keep equal replicas, and send only the stepping player."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.multiprocessing import ProcessRaisedException
from torch.optim import SGD
from torch.utils._pytree import tree_map

import ganzoo
from ganzoo.augment import ADA, APA, DiffAugment
from ganzoo.core.pixels import scaled
from ganzoo.core.player import PLAYERS
from ganzoo.core.random import mix
from ganzoo.core.strategy import GANStrategy
from ganzoo.layers.spectral import normalised
from ganzoo.networks.ladder import Norm
from ganzoo.penalties import BCR, R1, R2, ZCR, GradientPenalty, LeCam, Orthogonal
from ganzoo.testing import NoiseImages, fit
from ganzoo.variants.gan import mean_pixels
from tests.variants import small, variants

EVERYTHING = {"n_critic": 2, "microbatches": 2, "clip_norm": 0.1}
RESIDUAL = {"SNGAN", "ProjectionGAN", "SAGAN", "BigGAN", "ProjectedGAN", "FastGAN"}
TWO_RATES = {"SAGAN", "BigGAN", "StyleGAN3"}  # D has an optimizer of its own


class Sent(Callback):
    """Counts the bytes of each all-reduce while training, and compares the replicas at the end."""

    def __init__(self, path):
        self.path = path

    def on_train_start(self, trainer, pl_module):
        self.bytes = []
        self.all_reduce = dist.all_reduce

        def counted(tensor, *args, **kwargs):
            self.bytes.append(tensor.numel() * tensor.element_size())
            return self.all_reduce(tensor, *args, **kwargs)

        dist.all_reduce = counted

    def on_train_end(self, trainer, pl_module):
        dist.all_reduce = self.all_reduce
        mine = torch.cat([p.detach().flatten() for p in pl_module.parameters()])
        theirs = mine.clone()
        dist.broadcast(theirs, 0)
        torch.save(
            {"equal": torch.equal(mine, theirs), "bytes": self.bytes, "state": pl_module.state_dict()},
            f"{self.path}/rank{trainer.global_rank}.pt",
        )


def two(model, path, steps=4, **trainer):
    strategy = GANStrategy(process_group_backend="gloo", start_method="fork")
    fit(model, steps=steps, strategy=strategy, devices=2, callbacks=[Sent(path)], **trainer)
    return [torch.load(f"{path}/rank{rank}.pt") for rank in range(2)]


def without_batch_statistics(model):
    """Remove batch norm and dropout, for equality with one process: they differ between the processes.

    `test_two_processes_average_what_the_shipped_networks_make_of_halves` trains the unchanged networks.
    """
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, Norm):
                setattr(module, name, Standard())
            elif isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d | nn.Dropout):
                setattr(module, name, nn.Identity())
    return model


class Standard(nn.Module):
    """Replaces a ladder's norm: mean 0 and standard deviation 1 for every batch."""

    def forward(self, z, track=False):
        return torch.zeros_like(z[0]), torch.ones_like(z[0])


def make(name, whole=False, **more):
    torch.manual_seed(0)
    lr = 0.05
    if name == "CycleGAN":  # pools differ by process; the loss has many kinks, so only small steps are comparable
        more, lr = {"pool": 0, "cycle": 1.0, **more}, 1e-3
    if name in RESIDUAL:  # sums over pixels have large gradients, and the networks many kinks
        lr = 1e-3
    if name == "LadderEBGAN":  # its noise differs by rank, and its weighted costs have large gradients
        more, lr = {"noise": 0.0, "denoising": (1.0,), "margin": 0.5, **more}, 1e-3
    if name in ("ProGAN", "StyleGAN2", "StyleGAN3") and not whole:  # groups differ by process
        more, lr = {"group": 1, **more}, 1e-3
    sgd = {"optimizer": lambda params: SGD(params, lr=lr), "ema_half_life": 30.0}
    sgd |= {"discriminator_optimizer": sgd["optimizer"]} if name in TWO_RATES else {}
    model = getattr(ganzoo, name)(**{**small(name), **sgd, **more})
    for layer in [m for m in model.modules() if hasattr(m, "u")]:  # microbatches are then normalised alike
        for _ in range(100):
            normalised(layer)
    return model if whole else without_batch_statistics(model)


ACROSS_THE_BATCH = {"ImprovedGAN"}  # features are matched within a process's share
TURNS = {"StyleGAN2": PLAYERS[::-1], "StyleGAN3": PLAYERS[::-1]}  # G plays first
MOVING_MEANS = {"StyleGAN2"}  # of path lengths, moved by each microbatch
OWN = {"CycleGAN", "WGAN", "R3GAN", "StyleGAN2", "StyleGAN3", "ContraGAN"}  # steps, or terms of the global batch
OWN |= {"LadderEBGAN", "FastGAN", "ProGAN", "ProjectedGAN", "InfoGAN", "LAPGAN", "Pix2Pix"}  # state, or random inputs
CLASS_LOSSES = {"ContraGAN": "contrastive_weight", "ReACGAN": "class_weight"}  # within a microbatch of all processes


def cases():
    """All variants with all options, and without; the slow ones are close to `..._make_of_halves`."""
    for name in sorted(set(ganzoo.list_models()) - ACROSS_THE_BATCH):
        whole = name in CLASS_LOSSES or name in MOVING_MEANS
        everything = {**EVERYTHING, "microbatches": 1} if whole else EVERYTHING
        slow = [pytest.mark.slow] * (name not in OWN | {"DCGAN"})
        yield pytest.param(name, everything, id=f"{name}-everything", marks=slow)
        yield pytest.param(name, {}, id=f"{name}-plain", marks=[pytest.mark.slow] * (name != "CycleGAN"))


@pytest.mark.parametrize(("name", "more"), list(cases()))
def test_two_processes_of_half_the_batch_are_one(name, more, tmp_path):
    one = make(name, **more)
    fit(one, steps=4)
    ranks = two(make(name, **more), tmp_path)
    for rank in ranks:
        assert rank["equal"], "the replicas differ"
        for key, value in one.state_dict().items():
            torch.testing.assert_close(
                rank["state"][key], value, rtol=1e-5, atol=1e-6, msg=lambda m, k=key: f"{k}: {m}"
            )


@pytest.mark.parametrize("name", ["WGANGP", "CGAN"])
def test_two_processes_train_like_one_with_penalties(name, tmp_path):
    """LeCam's averages are those of the global batch. Gradients of leaky ReLUs jump, so the steps are small."""
    lazy = [R1(1.0, interval=2), R2(1.0), GradientPenalty(1.0)]
    penalties = [*lazy, BCR(0.1, 0.1), ZCR(0.1), LeCam(0.1, decay=0.5), Orthogonal(player="both")]
    more = {"penalties": penalties, "n_critic": 2, "optimizer": lambda params: SGD(params, lr=1e-3)}
    one = make(name, **more)
    fit(one, steps=4)
    for rank in two(make(name, **more), tmp_path):
        assert rank["equal"]
        for key, value in one.state_dict().items():
            torch.testing.assert_close(
                rank["state"][key], value, rtol=1e-5, atol=1e-6, msg=lambda m, k=key: f"{k}: {m}"
            )
    assert one.penalties["lecam"].means.all()


def halves(batch):
    """The shares of two processes."""
    for rank in range(2):
        part = tree_map(lambda tensor, rank=rank: tensor.chunk(2)[rank], batch)
        yield {**part, "labelled": (part["image"].flip(0), part["label"].flip(0))}  # as in `NoiseImages`


def by_hand(model, steps, turns=PLAYERS):
    """Train in one process as two processes should: dropout and batch norm see one half each; gradients and running
    statistics are averaged; the opponent's statistics are kept.
    """
    loader, optimizers = iter(NoiseImages(model).train_dataloader()), model.configure_optimizers()[0]
    buffers = list(model.buffers())
    for step in range(steps):
        batch = scaled(next(loader))
        shared = torch.Generator().manual_seed(mix(0, step))
        noise = [torch.Generator().manual_seed(mix(0, step, 1 + rank)).get_state() for rank in range(2)]
        for turn, player in enumerate(turns):
            optimizer = optimizers[PLAYERS.index(player)]
            part = tree_map(lambda tensor, turn=turn: tensor[turn % model.batch_parts :: model.batch_parts], batch)
            before = [buffer.clone() for buffer in buffers]
            parameters = list(getattr(model, player).parameters())
            own = {id(buffer) for buffer in getattr(model, player).buffers()}
            gradients, statistics = [], []
            for rank, half in enumerate(halves({**part, **model.draw(8 // model.batch_parts, shared)})):
                for buffer, old in zip(buffers, before, strict=True):
                    buffer.copy_(old)
                torch.set_rng_state(noise[rank])
                terms = getattr(model, f"{player}_loss")(half)
                gradients.append(torch.autograd.grad(sum(terms.values()), parameters, allow_unused=True))
                statistics.append([buffer.clone() for buffer in buffers])
                noise[rank] = torch.get_rng_state()
            for buffer, old, *new in zip(buffers, before, *statistics, strict=True):
                mean = (new[0] + new[1]) / 2 if buffer.is_floating_point() else new[0]
                buffer.copy_(mean if id(buffer) in own else old)
            for parameter, *gradient in zip(parameters, *gradients, strict=True):
                parameter.grad = None if gradient[0] is None else (gradient[0] + gradient[1]) / 2
            optimizer.step()


@pytest.mark.parametrize("name", variants("CycleGAN"))  # its norm is per image
def test_two_processes_average_what_the_shipped_networks_make_of_halves(name, tmp_path):
    """With batch norm and dropout; only the stepping player is sent. Without losses that compare the two halves."""
    settings = {"whole": True, "n_critic": 1, **({"clip": 100.0} if name == "WGAN" else {})}  # no clipping
    settings |= {CLASS_LOSSES[name]: 0.0} if name in CLASS_LOSSES else {}
    settings |= {"burn_in": None} if name == "R3GAN" else {}  # constant learning rates
    settings |= {"augment": None} if name in ("ProjectedGAN", "FastGAN") else {}  # as `by_hand`
    settings |= {"path_weight": 0.0, "gamma": 0.0} if name in MOVING_MEANS else {}
    settings |= {"gamma": 0.0, "square_half_life": 1e12} if name == "StyleGAN3" else {}  # no equation moves these means
    hand = make(name, **settings)
    if name == "GAN":  # its output biases start at the mean of the data
        hand.generator.start_at(mean_pixels(NoiseImages(hand).dataset("train")))
    expected = hand.state_dict()
    turns = TURNS.get(name, PLAYERS)
    by_hand(hand, 2, turns)
    rank, other = two(make(name, **settings), tmp_path, steps=2)
    assert rank["equal"] and other["equal"]
    assert_sent(rank["bytes"], hand, turns, {p for p in hand.parameters() if p.grad is None})  # layers not yet grown
    for key, value in expected.items():
        if key.startswith(("generator", "discriminator")) and not key.endswith("w_mean"):  # which no equation moves
            torch.testing.assert_close(
                rank["state"][key], value, rtol=1e-4, atol=1e-6, msg=lambda m, k=key: f"{k}: {m}"
            )


@pytest.mark.parametrize("gamma", [0.0, 5.0])
def test_two_processes_train_like_one_under_consensus_optimization(gamma, tmp_path):
    """Both players step at once; |v|^2 is that of the global batch, not a mean over the shares."""
    one, pair = make("DCGAN", consensus=gamma), make("DCGAN", consensus=gamma)
    fit(one, steps=4)
    for rank in two(pair, tmp_path):
        assert rank["equal"]
        for key, value in one.state_dict().items():
            torch.testing.assert_close(rank["state"][key], value, rtol=1e-5, atol=1e-6)


def assert_sent(sent, model, turns, idle=frozenset()):
    """Check two steps: gradients, running statistics and terms of each player in turn, four bytes a number.

    Args:
        idle: parameters without gradients.
    """
    sent = [b for b in sent if b > 64]
    assert len(sent) == 4
    for b, player in zip(sent, [*turns, *turns], strict=True):
        network = getattr(model, player)
        gradients = 4 * sum(p.numel() for p in network.parameters() if p not in idle)
        statistics = 4 * sum(b.numel() for b in network.buffers() if b.is_floating_point())
        assert gradients < b <= gradients + statistics + 8 * 4


def test_cyclegan_sends_only_the_stepping_player(tmp_path):
    model = make("CycleGAN", n_critic=1)
    assert_sent(two(model, tmp_path, steps=2)[0]["bytes"], model, ("generator", "discriminator"))


def test_batch_norm_statistics_are_equal_on_all_processes(tmp_path):
    """At every step; a checkpoint holds the same statistics, and saving it changes none."""

    class Look(Callback):
        def __init__(self, save):
            self.save = save

        def on_train_batch_end(self, trainer, pl_module, *_):
            if self.save:
                trainer.save_checkpoint(tmp_path / "a.ckpt")
            state = {key: value.clone() for key, value in pl_module.state_dict().items()}
            torch.save(state, tmp_path / f"{self.save}{trainer.global_step}{trainer.global_rank}.pt")

    for save in (True, False):
        torch.manual_seed(0)
        strategy = GANStrategy(process_group_backend="gloo", start_method="fork")
        fit(ganzoo.DCGAN(**small("DCGAN")), steps=2, strategy=strategy, devices=2, callbacks=[Look(save)])
    saved = torch.load(tmp_path / "a.ckpt", weights_only=True)["state_dict"]
    last = [torch.load(tmp_path / f"{name}.pt") for name in ("True20", "True21", "False20", "False21")]
    for key, value in saved.items():
        assert all(torch.equal(state[key], value) for state in last), key
    first = [torch.load(tmp_path / f"True1{rank}.pt") for rank in range(2)]
    moved = [key for key in first[0] if key.endswith("running_mean")]
    assert moved and all(first[0][key].any() and torch.equal(first[0][key], first[1][key]) for key in moved)


def test_running_loss_means_survive_a_resume_with_any_number_of_processes(tmp_path):
    """The loss logged at step 4 of a run resumed at step 3."""

    class Keep(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            if trainer.global_step == 3:
                trainer.save_checkpoint(tmp_path / "a.ckpt")

        def on_train_end(self, trainer, pl_module):
            torch.save(float(trainer.callback_metrics["D/loss"]), tmp_path / "loss.pt")

    def run(devices, **more):
        many = {"strategy": GANStrategy(process_group_backend="gloo", start_method="fork"), "devices": devices}
        fit(make("GAN"), log_every_n_steps=4, callbacks=[Keep()], steps=4, **(many if devices > 1 else {}), **more)
        return torch.load(tmp_path / "loss.pt")

    whole = {devices: run(devices) for devices in (1, 2)}
    assert run(2, ckpt_path=tmp_path / "a.ckpt") == whole[2]
    assert run(1, ckpt_path=tmp_path / "a.ckpt") == pytest.approx(whole[1], rel=1e-5)
    run(1)
    assert run(2, ckpt_path=tmp_path / "a.ckpt") == pytest.approx(whole[1], rel=1e-5)


@pytest.mark.parametrize(
    "augment",
    [DiffAugment(), ADA(target=-0.9, ramp=100.0, filter=1.0, noise=1.0, cutout=1.0), APA(target=-0.9, ramp=100.0)],
    ids=lambda augment: type(augment).__name__,
)
def test_two_processes_augment_like_one(augment, tmp_path):
    """The same transforms, and the same strength, controlled by the logits of the global batch. A run of two can be
    resumed by one."""

    class Save(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            if trainer.global_step == 6:
                trainer.save_checkpoint(tmp_path / f"{trainer.world_size}.ckpt")

    one, pair = make("DCGAN", augment=augment), make("DCGAN", augment=augment)
    fit(one, steps=10, callbacks=[Save()])
    strategy = GANStrategy(process_group_backend="gloo", start_method="fork")
    fit(pair, steps=10, strategy=strategy, devices=2, callbacks=[Sent(tmp_path), Save()])
    resumed = make("DCGAN", augment=augment)
    fit(resumed, steps=10, ckpt_path=tmp_path / "2.ckpt")
    for state in (*(torch.load(tmp_path / f"rank{rank}.pt")["state"] for rank in range(2)), resumed.state_dict()):
        for key, value in one.state_dict().items():
            torch.testing.assert_close(state[key], value, rtol=1e-4, atol=1e-5, msg=lambda m, k=key: f"{k}: {m}")
    saved = [torch.load(tmp_path / f"{n}.ckpt", weights_only=True)["ganzoo"]["augment"] for n in (1, 2)]
    if not isinstance(augment, DiffAugment):
        assert saved[0]["p"] == saved[1]["p"] > 0.3 and torch.equal(saved[0]["signs"], saved[1]["signs"])
        assert torch.equal(resumed.augment.strength.p, one.augment.strength.p) and one.augment.strength.p > 0.6


def test_ddp_is_refused_with_its_cure():
    model = ganzoo.DCGAN(**small("DCGAN"))
    strategy = DDPStrategy(process_group_backend="gloo", start_method="fork")
    with pytest.raises(ProcessRaisedException, match='strategy="gan"'):
        fit(model, steps=1, strategy=strategy, devices=2)


def test_the_strategy_is_registered_as_gan():
    trainer = Trainer(accelerator="cpu", strategy="gan", devices=1, logger=False, enable_checkpointing=False)
    assert isinstance(trainer.strategy, GANStrategy)


def test_parameters_without_gradients_stay_unchanged(tmp_path):
    class Half(ganzoo.DCGAN):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.generator.unused = nn.Linear(2, 2)

    torch.manual_seed(0)
    model = Half(**small("DCGAN"), optimizer=lambda params: SGD(params, lr=0.1, weight_decay=0.1))
    before = copy.deepcopy(model.generator.unused.state_dict())
    state = two(model, tmp_path, steps=2)[1]["state"]
    for key, value in before.items():
        assert torch.equal(state[f"generator.unused.{key}"], value)


def test_a_batch_not_divisible_by_the_processes_is_refused():
    model = ganzoo.DCGAN(**small("DCGAN"))
    strategy = GANStrategy(process_group_backend="gloo", start_method="fork")
    with pytest.raises(ProcessRaisedException, match="cannot be divided equally among 2 processes"):
        fit(model, NoiseImages(model, batch_size=7), steps=1, strategy=strategy, devices=2)


def test_processes_share_latents_and_differ_in_dropout(tmp_path):
    class Look(Callback):
        def on_train_start(self, trainer, pl_module):
            self.z, self.mask = [], []
            pl_module.generator.register_forward_pre_hook(lambda m, z: self.z.append(z[0].clone()))
            pl_module.discriminator.layers[0].register_forward_hook(lambda m, x, y: self.mask.append(y == 0))

        def on_train_end(self, trainer, pl_module):
            torch.save((self.z, self.mask), tmp_path / f"{trainer.global_rank}.pt")

    torch.manual_seed(0)
    one = ganzoo.GAN(**small("GAN"))
    strategy = GANStrategy(process_group_backend="gloo", start_method="fork")
    fit(copy.deepcopy(one), steps=1, strategy=strategy, devices=2, callbacks=[Look()])
    (z0, mask0), (z1, mask1) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    fit(one, steps=1, callbacks=[Look()])
    z, _ = torch.load(tmp_path / "0.pt")
    for whole, first, second in zip(z, z0, z1, strict=True):
        assert torch.equal(whole, torch.cat([first, second]))
    assert any(not torch.equal(a, b) for a, b in zip(mask0[:1], mask1[:1], strict=True))


def test_replicas_are_made_equal_at_the_start(tmp_path):
    class Perturb(Callback):
        def setup(self, trainer, pl_module, stage):
            with torch.no_grad():
                next(pl_module.generator.parameters()).add_(trainer.global_rank)

    strategy = GANStrategy(process_group_backend="gloo", start_method="fork")
    callbacks = [Perturb(), Sent(tmp_path)]
    fit(make("DCGAN"), steps=1, strategy=strategy, devices=2, callbacks=callbacks)
    assert all(torch.load(f"{tmp_path}/rank{rank}.pt")["equal"] for rank in range(2))


def test_two_processes_log_the_values_of_one(tmp_path):
    """Training means, and validation on an odd number of images."""

    class Keep(Callback):
        def on_train_end(self, trainer, pl_module):
            torch.save(
                {k: float(v) for k, v in trainer.callback_metrics.items()}, tmp_path / f"{trainer.global_rank}.pt"
            )

    settings = {"steps": 3, "log_every_n_steps": 3, "limit_val_batches": 1.0, "callbacks": [Keep()]}

    def equations(model):  # without latents, which differ between processes in validation
        model.discriminator_loss = lambda batch: {"x": model.discriminate(batch["image"]).mean()}
        return model

    fit(equations(make("GAN")), **settings)
    one = torch.load(tmp_path / "0.pt")
    strategy = GANStrategy(process_group_backend="gloo", start_method="fork")
    fit(equations(make("GAN")), strategy=strategy, devices=2, **settings)
    for rank in range(2):
        two_ = torch.load(tmp_path / f"{rank}.pt")
        for name in ("D/loss", "G/loss", "val/D/loss"):
            assert two_[name] == pytest.approx(one[name], rel=1e-4, abs=1e-6), name
