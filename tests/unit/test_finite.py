"""Non-finite numbers: detected at their step, named, never saved; rollback to the last checkpoint."""

from __future__ import annotations

import math
from itertools import product
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Callback
from lightning.pytorch.plugins import MixedPrecision
from torch.optim import SGD

import ganzoo
from ganzoo.callbacks.checkpoints import Checkpoints
from ganzoo.checkpoint.sealed import read
from ganzoo.core.finite import NonFiniteError, Watch, check_weights
from ganzoo.core.player import PLAYERS
from ganzoo.core.strategy import GANStrategy
from ganzoo.core.training_state import recover
from ganzoo.testing import fit
from tests.variants import small


def make(name="DCGAN", **more):
    torch.manual_seed(0)
    return getattr(ganzoo, name)(**{**small(name), **more})


class Inject(Callback):
    """Makes a player's loss, gradient or weight non-finite at a step, optionally on one process only."""

    def __init__(self, what, step, player="discriminator", times=1, rank=None):
        self.what, self.step, self.player, self.times, self.rank = what, step, player, times, rank

    def on_train_start(self, trainer, model):
        parameter = next(getattr(model, self.player).parameters())
        equation = getattr(model, f"{self.player}_loss")

        def now():
            here = self.rank in (None, trainer.global_rank)
            return here and model.training and self.step <= trainer.global_step + 1 < self.step + self.times

        def loss(batch):
            terms = equation(batch)
            if now() and self.what == "loss":
                name = next(iter(terms))
                terms[name] = terms[name] * math.inf
            return terms

        setattr(model, f"{self.player}_loss", loss)
        if self.what == "gradient":
            parameter.register_hook(lambda grad: grad * math.nan if now() else grad)

    def on_train_batch_start(self, trainer, model, batch, batch_idx):
        if self.what == "weight" and trainer.global_step + 1 == self.step:
            with torch.no_grad():
                next(getattr(model, self.player).parameters())[0] = math.nan


WHOLE = {"DCGAN", "CycleGAN", "ImprovedGAN", "R3GAN", "StyleGAN2", "StyleGAN3", "WGAN"}  # DCGAN, and own steps
SHORT = {("gradient", "discriminator"), ("loss", "generator")}


def cases():
    """All variants, values and players; fast are all of some variants, and one value of each player of the others."""
    for name, what, player in product(ganzoo.list_models(), ("loss", "gradient", "weight"), PLAYERS):
        slow = name not in WHOLE and (what, player) not in SHORT
        yield pytest.param(name, what, player, marks=[pytest.mark.slow] * slow)


@pytest.mark.parametrize(("name", "what", "player"), list(cases()))
def test_non_finite_values_are_detected_at_their_step_and_named(name, what, player):
    whole = {"stable": 0.0, "fade": 0.0} if name == "ProGAN" else {}  # all layers are trained
    model = make(name, n_critic=1, **whole)
    before = {}

    class Keep(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            before.update({key: value.clone() for key, value in model.state_dict().items()})

    with pytest.raises(NonFiniteError, match="not finite at step 2: the ") as caught:
        fit(model, steps=3, callbacks=[Inject(what, 2, player), Keep()])
    assert caught.value.step == 2
    first = next(name for name, _ in getattr(model, player).named_parameters())
    said = str(caught.value)
    if what == "gradient":
        assert f"the {player}'s gradient of {player}.{first}" in said and "term" not in said
    else:
        assert "term '" in said
    if what == "loss":
        assert f"the {player}'s term" in said
        own = {key: value for key, value in model.state_dict().items() if key.startswith(player)}
        assert all(
            torch.equal(value, before[key]) for key, value in own.items() if key in dict(model.named_parameters())
        )


def test_on_an_accelerator_only_check_reads_values():
    """Checked with meta tensors, which cannot be read."""
    watch = Watch()
    for step in (1, 2):
        watch.look(step, "generator", ["a", "b"], torch.zeros(2, device="meta"))
    with pytest.raises((RuntimeError, NotImplementedError)):
        watch.check(3)


def test_deferred_check_names_the_first_step_and_the_first_player(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "is_cpu", property(lambda _: False))
    watch, nan = Watch(), math.nan
    watch.look(1, "discriminator", ["a", "b"], torch.tensor([0.0, 1.0]))
    watch.check(1)
    watch.look(2, "discriminator", ["a", "b"], torch.tensor([0.0, nan]))
    watch.look(2, "generator", ["c"], torch.tensor([nan]))
    watch.look(3, "discriminator", ["a", "b"], torch.tensor([nan, nan]))
    with pytest.raises(NonFiniteError, match="^not finite at step 2: the discriminator's b$"):
        watch.check(3)
    watch.check(3)  # the error was reported once


def test_non_finite_weights_are_named():
    model = make()
    check_weights(1, model)
    with torch.no_grad():
        model.discriminator.layers[0].weight[0] = math.inf
    with pytest.raises(NonFiniteError, match=r"step 7: weights discriminator\.layers\.0\.weight$"):
        check_weights(7, model)


def test_non_finite_weights_are_not_saved(tmp_path):
    class Break(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            if trainer.global_step == 3:
                with torch.no_grad():
                    next(pl_module.generator.parameters()).fill_(math.nan)

    callbacks = [Break(), Checkpoints(every_n_steps=1)]
    with pytest.raises(NonFiniteError, match="step 3: weights generator"):
        fit(make(), steps=5, callbacks=callbacks, default_root_dir=tmp_path, enable_checkpointing=True)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["00000001.ckpt", "00000002.ckpt"]


# Rollback


def roll(tmp_path, inject, steps=8, rollbacks=3, **more):
    model = make(more.pop("name", "DCGAN"), ema_half_life=50.0)
    callbacks = [inject, Checkpoints(every_n_steps=3, rollbacks=rollbacks)]
    settings = {"default_root_dir": tmp_path, "enable_checkpointing": True, **more}
    return model, fit(model, steps=steps, callbacks=callbacks, **settings)


@pytest.mark.parametrize("what", ["loss", "gradient", "weight"])
def test_rollback_restores_both_players_and_continues(what, tmp_path):
    seen = {}

    class Look(Inject):
        def on_train_batch_end(self, trainer, model, *_):
            seen[trainer.global_step] = {key: value.clone() for key, value in model.state_dict().items()}

    model, trainer = roll(tmp_path, Look(what, 5))
    assert trainer.global_step == 8 and int(model.images_seen) == 8 * 8
    saved = read(tmp_path / "checkpoints" / "00000003.ckpt")["state_dict"]
    for key, value in seen[5].items():
        if key.startswith(PLAYERS):
            assert torch.equal(value, saved[key]), key
    assert int(seen[5]["images_seen"]) == 5 * 8, "steps and images are counted on"
    assert any(not torch.equal(seen[6][key], seen[5][key]) for key in saved if key.startswith("generator"))
    check_weights(8, model)


def test_rollbacks_are_reported_and_limited(tmp_path, capsys):
    with pytest.raises(NonFiniteError, match="step 6"):
        roll(tmp_path, Inject("loss", 5, times=2), rollbacks=1)
    capsys.readouterr()
    model, trainer = roll(tmp_path, Inject("loss", 5, times=2), rollbacks=2)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and "step 6" in said[1] and "00000003.ckpt (rollback 2 of 2), continuing" in said[1]
    assert trainer.global_step == 8
    with pytest.raises(NonFiniteError, match="step 2"):
        roll(tmp_path / "new", Inject("loss", 2), rollbacks=2)  # there is no checkpoint yet


def test_a_rollback_of_the_last_save_loses_no_state(tmp_path):
    """As on a GPU, where non-finite weights may be found only then."""

    class Break(Callback):
        def on_train_batch_end(self, trainer, model, *_):
            if trainer.global_step == 8:
                with torch.no_grad():
                    next(model.generator.parameters()).fill_(math.nan)

    _, trainer = roll(tmp_path, Break())
    last = read(tmp_path / "checkpoints" / "last.ckpt")
    assert not next(callback for callback in trainer.callbacks if isinstance(callback, Checkpoints)).failed
    saved = read(tmp_path / "checkpoints" / "00000006.ckpt")["state_dict"]
    assert all(torch.equal(last["state_dict"][key], value) for key, value in saved.items() if key.startswith(PLAYERS))


def test_the_number_of_rollbacks_is_saved_in_the_checkpoint(tmp_path):
    roll(tmp_path, Inject("loss", 5), steps=6, rollbacks=2)
    path = str(tmp_path / "checkpoints" / "00000006.ckpt")
    with pytest.raises(NonFiniteError, match="step 8"):
        roll(tmp_path, Inject("loss", 7, times=2), rollbacks=2, ckpt_path=path)


def test_a_run_with_a_rollback_resumes_bit_identically(tmp_path):
    whole, _ = roll(tmp_path / "a", Inject("gradient", 5, "generator"), steps=9)
    again, _ = roll(
        tmp_path / "b",
        Inject("gradient", 99),
        steps=9,
        ckpt_path=str(tmp_path / "a" / "checkpoints" / "00000006.ckpt"),
    )
    for key, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_all_processes_roll_back_together(what, tmp_path):
    """A non-finite value on one process rolls back all of them."""

    class Look(Inject):
        def on_train_end(self, trainer, model):
            weights = torch.cat([p.detach().flatten() for p in model.parameters()])
            theirs = weights.clone()
            dist.broadcast(theirs, 0)
            assert torch.equal(weights, theirs)
            torch.save((trainer.global_step, torch.isfinite(weights).all()), tmp_path / f"{trainer.global_rank}.pt")

    strategy = GANStrategy(process_group_backend="gloo", start_method="fork")
    roll(tmp_path, Look(what, 5, rank=1), strategy=strategy, devices=2)
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt") == (8, True)


# The gradient scaler of fp16


class Overflow(Callback):
    """Makes D's gradients infinite while the scale is above a limit, as an overflow of float16 does."""

    def __init__(self, limit):
        self.limit, self.scales = limit, []

    def on_train_start(self, trainer, model):
        scaler = trainer.precision_plugin.scaler
        weight = next(model.discriminator.parameters())
        weight.register_hook(lambda g: g * math.inf if scaler.get_scale() > self.limit else g)

    def on_train_batch_end(self, trainer, *_):
        self.scales.append(trainer.precision_plugin.scaler.get_scale())


def half():
    return MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=2.0**8))


def test_steps_skipped_by_the_fp16_scaler_are_no_error():
    overflow = Overflow(2.0**5)
    model = make("MLPGAN", optimizer=lambda params: SGD(params, lr=0.1))
    fit(model, steps=6, plugins=[half()], callbacks=[overflow])
    assert overflow.scales[0] == 2.0**7 and overflow.scales[-1] == 2.0**5
    check_weights(6, model)


def test_an_infinite_loss_is_an_error_with_an_fp16_scaler():
    with pytest.raises(NonFiniteError, match="step 3: the generator's term"):
        fit(make("MLPGAN"), steps=6, plugins=[half()], callbacks=[Inject("loss", 3, "generator")])


def test_a_vanishing_fp16_scale_is_an_error():
    with pytest.raises(NonFiniteError, match="scale"):
        fit(make("MLPGAN"), steps=40, log_every_n_steps=5, plugins=[half()], callbacks=[Overflow(0.0)])


def test_a_rollback_restores_the_scale_of_fp16(tmp_path):
    plugin = half()

    class Vanish(Callback):
        def on_train_batch_start(self, trainer, *_):
            if trainer.global_step == 4:
                plugin.scaler.update(2.0**-11)

    callbacks = [Vanish(), Checkpoints(every_n_steps=3, rollbacks=1)]
    more = {"plugins": [plugin], "default_root_dir": tmp_path, "enable_checkpointing": True, "callbacks": callbacks}
    fit(make("MLPGAN"), steps=7, log_every_n_steps=1, **more)
    assert plugin.scaler.get_scale() == 2.0**8


def test_the_least_scale_is_2_to_the_minus_10():
    Watch().check(1, SimpleNamespace(get_scale=lambda: 2.0**-10))
    with pytest.raises(NonFiniteError, match="scale of 5e-04"):
        Watch().check(1, SimpleNamespace(get_scale=lambda: 2.0**-11))


def test_a_non_finite_term_of_the_second_microbatch_is_named():
    model, calls = make("DCGAN", microbatches=2), []
    equation = model.discriminator_loss

    def loss(batch):
        calls.append(1)
        return {k: t * (math.inf if len(calls) == 2 else 1) for k, t in equation(batch).items()}

    model.discriminator_loss = loss
    with pytest.raises(NonFiniteError, match="the discriminator's term 'real'"):
        fit(model, steps=1)


def test_images_of_a_lost_turn_are_not_averaged():
    model = ganzoo.GAN(image_size=8, hidden=4, d_hidden=4, z_dim=2)
    model.rollback = lambda error: setattr(model, "unaveraged", 32)  # a checkpoint between two turns of G
    model.images_seen = 64
    recover(model, NonFiniteError(3, "D"))
    assert (model.images_seen, model.unaveraged) == (64, 0)
