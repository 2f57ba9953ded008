"""Optimizers for games: on f = xy they match the rules of `ganzoo.games`; in training they keep the contract."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch.optim import SGD

from ganzoo import DCGAN
from ganzoo.games.games import Bilinear
from ganzoo.games.rules import adam, extra_adam, gradient, lookahead, trajectory
from ganzoo.optim.adam import FusedAdam
from ganzoo.optim.game import ExtraAdam, Lookahead, OptimisticAdam
from ganzoo.testing import check_variant

BETAS = {"beta1": 0.5, "beta2": 0.9}
MAKERS = {
    "optimistic": partial(OptimisticAdam, lr=0.01, **BETAS),
    "extra": partial(ExtraAdam, lr=0.01, **BETAS),
    "lookahead": partial(Lookahead, optimizer=partial(FusedAdam, lr=0.01, **BETAS)),
    "lookahead, SGD": partial(Lookahead, optimizer=partial(SGD, lr=0.1, momentum=0.5)),
}


def play(make, steps, at_once=False):
    """Points [steps + 1, 2] of min_x max_y xy from (1, 1): y, the discriminator, is updated first, or both at once."""
    x, y = (torch.nn.Parameter(torch.ones((), dtype=torch.float64)) for _ in range(2))
    moves_x, moves_y = make([x]), make([y])
    points = [(1.0, 1.0)]
    for _ in range(steps):
        y.grad = -x.detach().clone()
        if at_once:
            x.grad = y.detach().clone()
        moves_y.step()
        if not at_once:
            x.grad = y.detach().clone()
        moves_x.step()
        points.append((x.item(), y.item()))
    return torch.tensor(points, dtype=torch.float64)


def same(points, rule, **settings):
    closed = trajectory(Bilinear(), rule, [1, 1], len(points) - 1, **settings)
    torch.testing.assert_close(points, closed, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("at_once", [True, False])
def test_optimistic_adam_matches_its_rule(at_once):
    points = play(MAKERS["optimistic"], 200, at_once)
    same(points, adam, optimistic=True, alternating=not at_once, **BETAS)


@pytest.mark.parametrize("at_once", [True, False])
def test_two_steps_of_extra_adam_match_one_of_its_rule(at_once):
    points = play(MAKERS["extra"], 400, at_once)[::2]
    same(points, extra_adam, alternating=not at_once, **BETAS)


def test_lookahead_with_simultaneous_updates_matches_its_rule():
    same(play(partial(Lookahead, optimizer=partial(SGD, lr=0.1)), 1000, at_once=True), lookahead)
    same(play(partial(Lookahead, optimizer=partial(SGD, lr=0.1), alpha=1.0), 50), gradient, alternating=True)


def test_lookahead_with_alternating_updates_matches_its_linear_map():
    points = play(partial(Lookahead, optimizer=partial(SGD, lr=0.1)), 1000)
    lr, k = 0.1, 5
    slow, steps = np.eye(2), np.eye(2)  # linear maps from the last synchronisation: slow, fast weights
    y_step, x_step = np.array([[1, 0], [lr, 1]]), np.array([[1, -lr], [0, 1]])
    for _ in range(k - 1):
        steps = x_step @ y_step @ steps
    y_back, x_back = np.diag([0, 0.5]), np.diag([0.5, 0])
    steps = y_step @ steps
    steps = steps - y_back @ (steps - slow)
    steps = x_step @ steps
    steps = steps - x_back @ (steps - slow)
    closed = np.linalg.matrix_power(steps, 1000 // k) @ [1, 1]
    assert points[-1].tolist() == pytest.approx(closed, rel=1e-9)
    ratio = np.linalg.norm(closed) / 2**0.5
    assert ratio == pytest.approx(0.0064, abs=5e-5)
    joint = trajectory(Bilinear(), lookahead, [1, 1], 1000, alternating=True)[-1].norm() / 2**0.5
    assert joint == pytest.approx(0.0018, abs=5e-5)


@pytest.mark.parametrize("name", MAKERS)
def test_state_resumes_bit_identically_at_any_step(name):
    def run(optimizer, p, steps):
        for step in steps:
            p.grad = torch.sin(p.detach() * (step + 1))
            optimizer.step()

    whole = torch.nn.Parameter(torch.randn(3, generator=torch.Generator().manual_seed(0)))
    start = whole.detach().clone()
    run(MAKERS[name]([whole]), whole, range(12))
    for cut in range(1, 12):
        p = torch.nn.Parameter(start.clone())
        optimizer = MAKERS[name]([p])
        run(optimizer, p, range(cut))
        resumed = torch.nn.Parameter(p.detach().clone())
        other = MAKERS[name]([resumed])
        other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        run(other, resumed, range(cut, 12))
        assert torch.equal(resumed, whole), cut


@pytest.mark.parametrize("name", MAKERS)
def test_schedulers_set_the_learning_rate(name):
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = MAKERS[name]([p])
    optimizer.load_state_dict(optimizer.state_dict())  # replaces the parameter groups
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0)
    for _ in range(6):
        p.grad = torch.ones(3)
        optimizer.step()
    assert torch.equal(p, torch.ones(3))


@pytest.mark.parametrize("name", MAKERS)
def test_a_parameter_without_a_gradient_does_not_change(name):
    moving, still = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = MAKERS[name]([moving, still])
    for _ in range(6):
        moving.grad = torch.ones(2)
        optimizer.step()
    assert torch.equal(still, torch.ones(2))
    assert (moving != 1).all()


def test_lookaheads_default_rate():
    assert Lookahead([torch.nn.Parameter(torch.ones(1))]).param_groups[0]["lr"] == 1e-3


@pytest.mark.parametrize(
    "bad, message",
    [
        ({"k": 0}, "k is 0; it takes"),
        ({"alpha": 0.0}, "alpha is 0.0; it takes"),
        ({"alpha": 1.5}, "alpha is 1.5; it takes"),
    ],
)
def test_lookahead_refuses_bad_arguments(bad, message):
    with pytest.raises(ValueError, match=message):
        Lookahead([torch.nn.Parameter(torch.ones(1))], **bad)


def test_lookahead_needs_whole_updates_of_extra_adam():
    """An interpolation of extrapolated weights would be undone by the next step."""
    with pytest.raises(ValueError, match="k is 5; it takes an even number with ExtraAdam"):
        Lookahead([torch.nn.Parameter(torch.ones(1))], ExtraAdam)
    Lookahead([torch.nn.Parameter(torch.ones(1))], ExtraAdam, k=4)


@pytest.mark.parametrize("name", MAKERS)
def test_the_variant_contract_holds_for_every_optimizer(name):
    check_variant(DCGAN, image_size=16, channels=1, width=8, optimizer=MAKERS[name])


def test_lookahead_s_alpha_is_not_that_of_rmsprop():
    """The inner optimizer's first step is 0.1 / sqrt(1 - 0.99); half of it is kept."""
    p = torch.nn.Parameter(torch.zeros(1))
    optimizer = Lookahead([p], partial(torch.optim.RMSprop, lr=0.1, alpha=0.99), k=1, alpha=0.5)
    assert optimizer.param_groups[0]["alpha"] == 0.99
    p.grad = -torch.ones(1)
    optimizer.step()
    assert p.item() == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("name", ["optimistic", "extra"])
def test_steps_skipped_by_the_scaler_are_skipped_altogether(name):
    """The fp16 scaler calls `step` of an optimizer that says it handles infinities, as the fused one does."""
    optimizer = MAKERS[name]([torch.nn.Parameter(torch.ones(1))])
    assert not getattr(optimizer, "_step_supports_amp_scaling", False) and not optimizer.defaults["fused"]
