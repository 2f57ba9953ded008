"""Tabular GANs against closed forms: convergence in density space, EBGAN's equilibria."""

from __future__ import annotations

import math
from itertools import islice

import pytest
import torch

from ganzoo.games.rules import gradient, trajectory
from ganzoo.games.tabular import (
    TabularGAN,
    best_discriminator,
    density_step,
    ebgan_play,
    ebgan_value,
    value,
)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def densities(n=10):
    return normal(n).softmax(0), normal(n, seed=1).softmax(0)


def test_the_best_discriminator_maximises_the_value():
    p, q = densities()
    best = best_discriminator(p, q)
    for seed in range(20):
        other = torch.sigmoid(torch.logit(best) + normal(10, seed=seed))
        assert value(p, q, other) < value(p, q, best)
    assert best_discriminator(p, p).tolist() == pytest.approx([0.5] * 10)
    assert best_discriminator(torch.zeros(1), torch.zeros(1)) == 0.5


def test_the_value_at_the_best_discriminator_is_the_jensen_shannon_divergence():
    p, q = densities()
    middle = (p + q) / 2
    jsd = ((p * (p / middle).log()).sum() + (q * (q / middle).log()).sum()) / 2
    assert value(p, q) == pytest.approx((-math.log(4) + 2 * jsd).item(), rel=1e-12)
    assert value(p, p) == pytest.approx(-math.log(4), rel=1e-12)
    apart = torch.eye(2, dtype=torch.float64)
    assert value(*apart) == pytest.approx(0)  # 2 log 2 - log 4


def test_the_value_at_the_best_discriminator_is_convex_in_the_density():
    p, a = densities()
    for seed in range(20):
        b = normal(10, seed=seed + 2).softmax(0)
        values = torch.stack([value(p, (1 - t) * a + t * b) for t in torch.linspace(0, 1, 21).double()])
        assert (values.diff().diff() > 0).all()


def test_updates_in_density_space_converge():
    p, q = densities()
    start, values = q, [value(p, q)]
    for n in range(1, 41):
        q = density_step(p, q)
        values.append(value(p, q))
        torch.testing.assert_close(q, p + (start - p) / 2**n, rtol=1e-12, atol=1e-15)
    assert (torch.stack(values[:20]).diff() < 0).all()
    assert values[-1] == pytest.approx(-math.log(4), abs=1e-12)


def test_updates_at_a_smaller_rate_converge_monotonically():
    p, q = densities()
    values = []
    for _ in range(60):
        q = density_step(p, q, lr=0.3)
        values.append(value(p, q))
    assert (torch.stack(values[:30]).diff() < 0).all()
    assert values[-1] == pytest.approx(-math.log(4), abs=1e-6)


def test_a_softmax_generator_with_an_exact_discriminator_converges():
    p, _ = densities()
    points = trajectory(TabularGAN(p), gradient, torch.zeros(10), 400, lr=4.0)
    values = torch.stack([value(p, point.softmax(0)) for point in points])
    assert (values.diff() < 0).all()
    assert values[-1] == pytest.approx(-math.log(4), abs=1e-9)
    assert (points[-1].softmax(0) - p).abs().max() < 1e-4


# EBGAN


def test_the_best_energies_minimise_the_value():
    p, q = densities()
    margin = 0.7
    best = margin * (p < q).double()
    low = ebgan_value(p, q, best, margin)
    assert low == pytest.approx(margin * (1 - (p - q).abs().sum().item() / 2), rel=1e-12)
    for seed in range(50):  # energies above the margin, too
        assert ebgan_value(p, q, normal(10, seed=seed).abs(), margin) >= low
    for constant in (0.0, 0.3, 0.7):
        energy = torch.full((10,), constant, dtype=torch.float64)
        assert ebgan_value(p, p, energy, margin) == pytest.approx(margin)  # V = m at any constant up to m
    assert ebgan_value(p, p, torch.full((10,), 0.8, dtype=torch.float64), margin) > margin


def play(start, q, margin=1.0, steps=1500):
    p, _ = densities()
    *_, (q, energy) = islice(ebgan_play(p, q, torch.full((10,), start, dtype=torch.float64), margin), steps)
    return p, q, energy


@pytest.mark.parametrize("start", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("margin", [1.0, 10.0])
def test_nearby_densities_converge_at_the_initial_mean_energy(start, margin):
    """Theorem 2 leaves the constant energy open; here it is D's initial one, not 0.5."""
    p, noise = densities()[0], normal(10, seed=1)
    near = p * (1 + 0.01 * noise)
    p, q, energy = play(start * margin, near / near.sum(), margin)
    assert (q - p).abs().max() < 1e-6
    assert energy.numpy() == pytest.approx(start * margin, abs=1e-4)
    assert p @ energy == pytest.approx((q @ energy).item(), abs=1e-6)
    assert ebgan_value(p, q, energy, margin) == pytest.approx(margin, abs=1e-6)


def test_distant_densities_converge_at_other_constant_energies():
    met = []
    for start in (0.0, 0.1, 0.5, 0.9, 1.0):
        p, q, energy = play(start, densities()[1], steps=3000)
        assert (q - p).abs().max() < 1e-4
        assert energy.max() - energy.min() < 1e-4
        assert energy.min() >= 0 and energy.max() <= 1
        assert ebgan_value(p, q, energy, 1.0) == pytest.approx(1, abs=1e-5)
        met.append(energy.mean().item())
    assert met == pytest.approx([0.189, 0.206, 0.5, 0.852, 0.873], abs=0.001)
