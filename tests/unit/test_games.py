"""Games, flows and update rules against closed forms and the numbers of the papers."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch

from ganzoo.games.base import Game
from ganzoo.games.flow import flow
from ganzoo.games.games import Bilinear, DiracGAN, Quadratic
from ganzoo.games.rules import (
    RULES,
    adam,
    averaged,
    consensus,
    extra_adam,
    extragradient,
    gradient,
    historical_averaging,
    lookahead,
    optimistic,
    trajectory,
)

LR, STEPS = 0.1, 1000
FIRST = math.sqrt(2)  # radius of (1, 1)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def radii(rule, game=None, steps=STEPS, **settings):
    """Radii [steps + 1] of the points, relative to the first one."""
    return trajectory(game or Bilinear(), rule, [1, 1], steps, **settings).norm(dim=1) / FIRST


def last(rule, **settings):
    return radii(rule, **settings)[-1].item()


def linear_steps(matrix, n=STEPS):
    """Radius of the first two coordinates after n steps of a linear map from (1, 1, ...), relative to the first."""
    return np.linalg.norm((np.linalg.matrix_power(np.array(matrix), n) @ np.ones(len(matrix)))[:2]) / FIRST


# Games


@pytest.mark.parametrize(
    "game",
    [Bilinear(), Bilinear(normal(2, 3)), Quadratic(normal(2, 2), normal(2, 3), normal(3, 3))],
    ids=["xy", "bilinear", "quadratic"],
)
def test_closed_form_fields_match_the_gradients(game):
    point = normal(sum(game.sizes), seed=5)
    torch.testing.assert_close(game.v(point), Game.v(game, point))
    torch.testing.assert_close(game.jacobian(point), Game.jacobian(game, point))


def test_inconsistent_shapes_of_a_quadratic_game_are_refused():
    with pytest.raises(ValueError, match=r"for b \[2, 3\]"):
        Quadratic(normal(3, 3), normal(2, 3), normal(3, 3))


@pytest.mark.parametrize("rule", [rule for name, rule in RULES.items() if "Adam" not in name])
def test_every_rule_solves_a_strongly_convex_concave_game(rule):
    game = Quadratic(2 * torch.eye(2), normal(2, 2) / 2, 2 * torch.eye(2))
    assert trajectory(game, rule, [1, -1, 2, 0], STEPS)[-1].norm() < (0.02 if rule is historical_averaging else 1e-9)


# Rules on f = xy, from (1, 1), lr 0.1, 1000 steps: final radius / first radius


@pytest.mark.parametrize("lr, steps", [(0.1, 1000), (0.01, 1000), (0.5, 50)])
def test_simultaneous_updates_diverge_at_any_learning_rate(lr, steps):
    r = radii(gradient, lr=lr, steps=steps)
    closed = (1 + lr**2) ** (torch.arange(steps + 1).double() / 2)
    torch.testing.assert_close(r, closed, rtol=1e-9, atol=0)


def test_final_radius_of_simultaneous_updates():
    assert last(gradient) == pytest.approx(144.8, abs=0.05)


def test_alternating_updates_orbit():
    """x^2 + y^2 + lr xy is invariant: the orbit is an ellipse with radii of 1 to 1.0513 times the first."""
    points = trajectory(Bilinear(), gradient, [1, 1], 10 * STEPS, alternating=True)
    x, y = points.T
    invariant = x**2 + y**2 + LR * x * y
    torch.testing.assert_close(invariant, torch.full_like(x, 2 + LR), rtol=1e-10, atol=0)
    r = points.norm(dim=1) / FIRST
    assert r.min() == pytest.approx(1, abs=1e-9)
    assert r.max() == pytest.approx(1.05, abs=0.005)
    assert r.max() <= math.sqrt((1 + LR / 2) / (1 - LR / 2))
    assert r[-STEPS:].max() > 1.05  # at the end, too


def test_averages_of_the_alternating_orbit_converge():
    mean = averaged(trajectory(Bilinear(), gradient, [1, 1], 20 * STEPS, alternating=True)).norm(dim=1) / FIRST
    assert mean[STEPS - 1] == pytest.approx(0.005, abs=0.0005)
    n = torch.arange(1, len(mean) + 1)
    assert (mean * n).max() < 25  # as 1 / n
    assert mean[-1] < 0.00125


def test_averages_of_simultaneous_updates_diverge():
    assert averaged(trajectory(Bilinear(), gradient, [1, 1], STEPS))[-1].norm() / FIRST > 1


def test_only_negative_momentum_with_alternating_updates_converges():
    assert last(gradient, beta=-0.3, alternating=True) == pytest.approx(0.265, abs=0.0005)
    assert last(gradient, beta=0.3, alternating=True) == pytest.approx(4432.3, abs=0.05)
    assert last(gradient, beta=-0.3) == pytest.approx(4.946, abs=0.0005)  # slower divergence than without momentum
    assert last(gradient, beta=0.3) > 1e7


@pytest.mark.parametrize("beta", [-0.3, 0.3])
def test_alternating_momentum_is_a_linear_map(beta):
    """Of (x, y, previous x, previous y); y, the last player, is updated first."""
    y = [LR, 1 + beta, 0, -beta]
    x = [1 + beta - LR * y[0], -LR * y[1], -beta, LR * beta]
    closed = linear_steps([x, y, [1, 0, 0, 0], [0, 1, 0, 0]])
    assert last(gradient, beta=beta, alternating=True) == pytest.approx(closed, rel=1e-9)


def test_extragradient_matches_its_closed_form():
    r = radii(extragradient)
    closed = (1 - LR**2 + LR**4) ** (torch.arange(STEPS + 1).double() / 2)
    torch.testing.assert_close(r, closed, rtol=1e-9, atol=0)
    assert r[-1] == pytest.approx(0.0069, abs=5e-5)
    assert last(extragradient, alternating=True) == pytest.approx(0.00657, abs=5e-6)


def test_optimistic_gradient_matches_its_closed_form():
    assert last(optimistic) == pytest.approx(0.0063, abs=5e-5)
    # With z = x + iy, v = iz: z'' = (1 + 2i lr) z' - i lr z, whose roots are those of r^2 - (1 + 2i lr) r + i lr.
    a, b = np.roots([1, -(1 + 2j * LR), 1j * LR])
    z0, z1 = 1 + 1j, (1 + 1j * LR) * (1 + 1j)
    weights = np.linalg.solve(np.array([[1, 1], [a, b]]), np.array([z0, z1]))
    assert last(optimistic) == pytest.approx(abs(weights @ [a**STEPS, b**STEPS]) / FIRST, rel=1e-9)


def test_consensus_matches_its_closed_form():
    r = radii(consensus)
    closed = ((1 - LR) ** 2 + LR**2) ** (torch.arange(STEPS + 1).double() / 2)
    torch.testing.assert_close(r, closed, rtol=1e-9, atol=0)
    assert f"{r[-1]:.0e}" == "8e-44"


def test_consensus_converges_to_unstable_equilibria():
    """min -x^2, max y^2: gradient steps diverge from 0; consensus with a large gamma converges to it."""
    game = Quadratic([[-2.0]], [[0.0]], [[-2.0]])
    assert trajectory(game, gradient, [0.1, 0.1], 50)[-1].norm() > 100
    assert trajectory(game, consensus, [0.1, 0.1], 50, gamma=2.0)[-1].norm() < 1e-6


def test_lookahead_matches_its_closed_form():
    assert last(lookahead) == pytest.approx(0.023, abs=0.0005)
    assert last(lookahead) == pytest.approx(abs(0.5 + 0.5 * (1 + 1j * LR) ** 5) ** (STEPS / 5), rel=1e-9)
    assert last(lookahead, alternating=True) == pytest.approx(0.0018, abs=5e-5)
    torch.testing.assert_close(radii(lookahead, alpha=1.0), radii(gradient))


def test_more_historical_averaging_converges_more_slowly():
    assert last(historical_averaging, weight=0.1) == pytest.approx(0.00316, abs=5e-6)
    assert last(historical_averaging, weight=1.0) == pytest.approx(0.415, abs=0.0005)
    torch.testing.assert_close(radii(historical_averaging, weight=0.0), radii(gradient))


def test_adam_does_not_converge():
    assert last(adam) == pytest.approx(0.7, abs=0.005)
    assert last(adam, alternating=False) == pytest.approx(0.744, abs=0.0005)
    assert last(adam, steps=3000) > 0.75  # the radius grows again


def test_adam_matches_torch():
    game, points = Bilinear(), []
    p = torch.ones(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([p], lr=0.01, betas=(0.5, 0.9))
    for _ in range(50):
        p.grad = -game.v(p.detach())
        optimizer.step()
        points.append(p.detach().clone())
    ours = trajectory(game, adam, [1, 1], 50, beta2=0.9, alternating=False)[1:]
    torch.testing.assert_close(ours, torch.stack(points), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "rule, fast, slow",
    [
        (adam, 0.0942, 0.701),
        (partial(adam, optimistic=True), 0.0134, 0.620),
        (partial(extra_adam, alternating=True), 0.0018, 0.607),
    ],
    ids=["adam", "optimistic", "extra"],
)
def test_adam_variants_with_alternating_updates(rule, fast, slow):
    assert last(rule, steps=5000, beta2=0.9) == pytest.approx(fast, rel=0.03)
    assert last(rule) == pytest.approx(slow, abs=0.0005)  # beta2 is 0.999


@pytest.mark.parametrize("name", RULES)
def test_rules_stay_at_an_equilibrium_and_accept_any_matrix(name):
    game = Bilinear(normal(2, 3))
    assert not trajectory(game, RULES[name], torch.zeros(5), 10).any()
    points = trajectory(game, RULES[name], torch.ones(5), 10)
    assert points.shape == (11, 5)
    assert points.isfinite().all()
    assert (points[1] != 1).all()


# The flow


def test_the_flow_of_the_bilinear_game_orbits():
    times = torch.linspace(0, 100, 201)
    points = flow(Bilinear(), [1, 1], times)
    assert (points.norm(dim=1) / FIRST - 1).abs().max() < 1e-6
    exact = torch.stack([times.cos() - times.sin(), times.cos() + times.sin()], 1).double()
    torch.testing.assert_close(points, exact, rtol=0, atol=1e-4)  # the times are float32
    assert Bilinear().jacobian(points[0]).det() > 0  # eigenvalues +-i: neither a minimum nor an attractor


def test_gradient_steps_converge_to_the_flow_with_order_1():
    end = flow(Bilinear(), [1, 1], [0, 1])[-1]
    errors = [(trajectory(Bilinear(), gradient, [1, 1], n, lr=1 / n)[-1] - end).norm() for n in (10, 100, 1000)]
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(10, rel=0.1)


def test_the_flow_raises_where_the_solution_diverges():
    class Explosion(Game):
        sizes = (1,)

        def losses(self, point):
            return -(point**3) / 3

        def v(self, point):
            return point**2

    with pytest.raises(FloatingPointError):
        flow(Explosion(), [1], [0, 2])


# The Dirac-GAN


def eigenvalues(game):
    found = torch.linalg.eigvals(game.jacobian(torch.zeros(2, dtype=torch.float64)))
    return sorted(found.tolist(), key=lambda z: (round(z.real, 9), z.imag))


@pytest.mark.parametrize(
    "settings, trace, s",
    [
        ({}, 0, 0.5),
        ({"objective": "non-saturating"}, 0, 0.5),
        ({"objective": "wasserstein"}, 0, 1),
        ({"objective": "wasserstein", "noise": 1.0}, 0, 1),
        ({"penalty": "r1", "weight": 0.3}, 0.3, 0.5),
        ({"penalty": "r1", "weight": 2.0, "objective": "wasserstein"}, 2, 1),
        ({"penalty": "r1", "weight": 3.0}, 3, 0.5),
        ({"noise": 0.8}, 0.32, 0.5),
        ({"noise": 0.8, "objective": "non-saturating"}, 0.32, 0.5),
    ],
)
def test_eigenvalues_of_the_dirac_gan(settings, trace, s):
    root = complex(trace**2 / 4 - s**2) ** 0.5
    closed = sorted([-trace / 2 - root, -trace / 2 + root], key=lambda z: (round(z.real, 9), z.imag))
    assert eigenvalues(DiracGAN(**settings)) == pytest.approx(closed, abs=1e-7)


def dirac(steps=400, rule=gradient, **settings):
    return trajectory(DiracGAN(**settings), rule, [1, 1], steps, alternating=True).norm(dim=1) / FIRST


@pytest.mark.slow
def test_the_unregularised_dirac_gan_does_not_converge():
    r = dirac()
    assert r.min() > 0.9
    points = flow(DiracGAN(), [1, 1], np.linspace(0, 30, 31))
    # d/dt of |point|^2 is 2 (theta v_theta + psi v_psi) = 0.
    torch.testing.assert_close(points.norm(dim=1), torch.full((31,), FIRST).double(), rtol=1e-6, atol=0)


def test_the_wasserstein_dirac_gan_is_the_bilinear_game_with_d_negated():
    game, point = DiracGAN("wasserstein"), normal(2)
    flip = torch.tensor([1.0, -1.0], dtype=torch.float64)
    torch.testing.assert_close(game.v(point), flip * Bilinear().v(flip * point))


@pytest.mark.slow
def test_the_non_saturating_dirac_gan_converges_sublinearly():
    """d r^2 / dt = -2 t tanh(t / 2) (t = theta psi), near 0 about -t^2, on average -r^4 / 8: 1 / r^2 grows by 1 / 8."""
    r = flow(DiracGAN("non-saturating"), [0.5, 0.5], np.linspace(0, 120, 5)).norm(dim=1)
    assert (r.diff() < 0).all()
    growth = (1 / r**2).diff() / 30
    assert growth[1:].numpy() == pytest.approx(1 / 8, rel=0.03)


@pytest.mark.parametrize("settings", [{"penalty": "r1"}, {"noise": 1.0}, {"objective": "wasserstein", "penalty": "r1"}])
def test_the_dirac_gan_converges_with_r1_or_instance_noise(settings):
    assert dirac(steps=300, **settings)[-1] < 1e-3


def test_wgan_gp_does_not_converge_to_the_data():
    assert dirac(objective="wasserstein", penalty="wgan-gp")[200:].min() > 0.8
    theta, psi = trajectory(DiracGAN(penalty="wgan-gp"), gradient, [1, 1], 400, alternating=True)[-1]
    assert (theta, psi) == pytest.approx((2, 0), abs=0.01)  # an equilibrium, but the data is at 0
