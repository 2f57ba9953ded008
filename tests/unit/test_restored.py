"""Resuming: changed settings take effect, and impossible states are refused."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.optim import SGD, lr_scheduler

import ganzoo
from ganzoo.callbacks.base import save
from ganzoo.core import training_state
from ganzoo.core.restored import check_finite, check_optimizer
from ganzoo.optim import EpsInRootAdam, ExtraAdam, Lookahead
from ganzoo.testing import fit

SCHEDULES = {
    "StepLR": lambda optimizer, x: lr_scheduler.StepLR(optimizer, 2, gamma=x),
    "LinearLR": lambda optimizer, x: lr_scheduler.LinearLR(optimizer, x, total_iters=9),
    "CosineAnnealingLR": lambda optimizer, x: lr_scheduler.CosineAnnealingLR(optimizer, 9, eta_min=x * 1e-3),
    "OneCycleLR": lambda optimizer, x: lr_scheduler.OneCycleLR(optimizer, x, total_steps=20),
    "SequentialLR": lambda optimizer, x: lr_scheduler.SequentialLR(
        optimizer, [lr_scheduler.ConstantLR(optimizer, x, 3), lr_scheduler.ExponentialLR(optimizer, x)], [3]
    ),
}


def model(schedule=None, lr=0.01, x=0.5, **more):
    torch.manual_seed(0)
    scheduler = None if schedule is None else lambda optimizer: SCHEDULES[schedule](optimizer, x)
    arguments = {"optimizer": lambda params: SGD(params, lr, momentum=0.9), "lr_scheduler": scheduler, **more}
    return ganzoo.GAN(8, 1, hidden=8, d_hidden=8, **arguments)


def rates(trainer):
    return [(group["lr"], group["momentum"]) for o in trainer.optimizers for group in o.param_groups]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_changed_learning_rate_takes_effect_on_resuming_with_a_schedule(schedule, tmp_path):
    """So do changed arguments of the schedule: rates equal those of a run with the new settings from the start."""
    fit(model(schedule), steps=3).save_checkpoint(tmp_path / "3.ckpt")
    for changed in ({}, {"lr": 0.02}, {"x": 0.7}):
        on = fit(model(schedule, **changed), steps=5, ckpt_path=tmp_path / "3.ckpt")
        assert rates(on) == rates(fit(model(schedule, **changed), steps=5)), changed


@pytest.mark.parametrize("schedule", [None, "StepLR"])
def test_a_changed_learning_rate_takes_effect_in_a_nested_optimizer(schedule, tmp_path):
    def ahead(lr):
        return model(schedule, optimizer=lambda params: Lookahead(params, lambda params: SGD(params, lr, 0.9), k=2))

    fit(ahead(0.01), steps=3).save_checkpoint(tmp_path / "3.ckpt")
    assert rates(fit(ahead(0.02), steps=5, ckpt_path=tmp_path / "3.ckpt")) == rates(fit(ahead(0.02), steps=5))


def test_a_changed_learning_rate_is_ignored_after_too_many_scheduled_steps(tmp_path, monkeypatch):
    fit(model("StepLR"), steps=3).save_checkpoint(tmp_path / "3.ckpt")
    monkeypatch.setattr(training_state, "MOST_STEPS", 2)
    on = fit(model("StepLR", lr=0.02), steps=4, ckpt_path=tmp_path / "3.ckpt")
    assert rates(on)[0] == (0.01 * 0.5**2, 0.9)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """With Adam, whose fused kernel would read past the end of a state that is too short."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("adam") / "2.ckpt"
    fit(ganzoo.DCGAN(8, 1, width=4), steps=2).save_checkpoint(path)
    return torch.load(path, weights_only=True)


def adam(content):
    return content["optimizer_states"][1]["state"][0]


def weight(content):
    return next(w for name, w in content["state_dict"].items() if name.startswith("generator"))


WRONG = {
    "short": (lambda c: adam(c).update(exp_avg=torch.zeros(1)), "checkpoint does not fit: exp_avg of"),
    "other shape": (lambda c: adam(c).update(exp_avg_sq=torch.zeros(3, 3)), "does not fit: exp_avg_sq of parameter 0"),
    "text": (lambda c: adam(c).update(exp_avg="x"), "does not fit: exp_avg of parameter 0"),
    "missing": (lambda c: adam(c).pop("exp_avg"), "belongs to another optimizer"),
    "not finite": (lambda c: adam(c)["exp_avg"].fill_(float("nan")), "does not fit: exp_avg"),
    "negative step": (lambda c: adam(c).update(step=torch.tensor(-1.0)), "does not fit: step"),
    "many steps": (lambda c: adam(c).update(step=torch.zeros(3)), "does not fit: step"),
    "no state": (
        lambda c: c["optimizer_states"][1].update(state="x"),
        "optimizer state in the checkpoint is",
    ),
    "one optimizer": (lambda c: c["optimizer_states"].pop(), "lacks the states of two optimizers"),
    "text for loops": (lambda c: c.update(loops="x"), "the checkpoint's loops has 'x', which is not a count"),
    "epochs": (lambda c: c.update(epoch=2**62), "the checkpoint's epoch has"),
    "weights": (lambda c: weight(c).fill_(float("inf")), "is not finite; use an earlier checkpoint"),
}


@pytest.mark.parametrize("case", WRONG)
def test_damaged_checkpoints_are_refused_before_the_first_batch(case, checkpoint, tmp_path):
    spoil, words = WRONG[case]
    content = copy.deepcopy(checkpoint)
    content["ganzoo"].pop("sealed")
    spoil(content)
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(MisconfigurationException, match=words):
        fit(ganzoo.DCGAN(8, 1, width=4), steps=3, ckpt_path=tmp_path / "x.ckpt")


def test_infinite_buffers_are_resumed_as_they_are_saved(checkpoint):
    """Masks; but not NaN."""
    state = {"mask": torch.tensor([0.0, -math.inf]), "weight": torch.zeros(2)}
    check_finite(state, ["weight"])
    with pytest.raises(MisconfigurationException, match="the checkpoint's mask is not finite"):
        check_finite({**state, "mask": torch.tensor(math.nan)}, ["weight"])
    with pytest.raises(MisconfigurationException, match="the checkpoint's mask is not finite"):
        check_finite(state, ["mask"])


@pytest.mark.parametrize("seen", [2**62, -1])
def test_impossible_images_seen_is_refused(seen):
    gan = model()
    with pytest.raises(RuntimeError, match="images_seen is not a whole number from 0"):
        gan.load_state_dict({**gan.state_dict(), "images_seen": torch.tensor(seen)})


@pytest.mark.parametrize("weight", [-1, 2**62])
def test_impossible_means_are_refused(weight):
    row = {"names": ["D/loss"], "sums": torch.zeros(1), "weight": weight}
    with pytest.raises(ValueError, match="mean of"):
        model().loss_log.training.take([[row]])
    with pytest.raises(ValueError, match="mean of"):
        model().loss_log.training.take([[{**row, "sums": torch.zeros(2), "weight": 1}]])


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize(
    "make",
    [
        ExtraAdam,
        lambda params: Lookahead(params, lambda params: SGD(params, 0.1), k=2),
        lambda params: torch.optim.Adafactor(params),
        lambda params: torch.optim.Adam(params, amsgrad=True),
        lambda params: SGD(params, 0.1),
    ],
)
def test_training_resumes_with_any_optimizer(make, steps, tmp_path):
    """As if it had not been interrupted, bit by bit."""

    class Save(Callback):
        def on_train_batch_end(self, trainer, *_):
            assert trainer.global_step != steps or save(trainer, tmp_path / "x.ckpt")

    fit(whole := model(optimizer=make), steps=4, callbacks=[Save()])
    assert fit(again := model(optimizer=make), steps=4, ckpt_path=tmp_path / "x.ckpt").global_step == 4
    for key, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


@pytest.mark.parametrize("step", [-1, 2**41, "x"])
def test_impossible_counts_of_an_optimizer_are_refused(step):
    p = torch.nn.Parameter(torch.ones(2))
    p.grad, optimizer = torch.ones(2), EpsInRootAdam([p])
    optimizer.step()
    saved = optimizer.state_dict()
    saved["state"][0]["step"] = step
    with pytest.raises(MisconfigurationException, match="does not fit: step of parameter 0"):
        check_optimizer("generator", EpsInRootAdam, [p], saved)
