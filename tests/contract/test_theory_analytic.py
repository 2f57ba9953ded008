"""The claims of the theory figures without networks, as numbers."""

from __future__ import annotations

import math

import pytest
import torch

from ganzoo.functional.divergences import F_DIVERGENCES, Gaussian
from ganzoo.games.rules import RULES
from ganzoo.theory.divergences import (
    LOG_4,
    SIGMAS,
    STAGES,
    X,
    closed,
    descents,
    generator_losses,
    lines,
    nearest,
    stages,
    stale_bound,
    two_modes,
)
from ganzoo.theory.dynamics import DIRAC, FACTORS, LR, OUTCOMES, doubling, eigenvalues, orbits, shares


@pytest.fixture(scope="module")
def distances():
    return {name: shares(points) for name, points in orbits(1000).items()}


def array(*values):
    return torch.tensor(values, dtype=torch.float64)


# Dynamics


def test_every_update_rule_diverges_converges_or_cycles_as_grouped(distances):
    leave, converge, neither = OUTCOMES.values()
    assert sorted([*leave, *converge, *neither]) == sorted([*RULES, "alternating, averaged", "infinitesimal steps"])
    assert min(distances[name][-1] for name in leave) > 1 - 1e-6
    assert max(distances[name][-1] for name in converge) < 0.3
    for name in neither:
        assert 0.5 < distances[name][200:].min() < distances[name][200:].max() < 0.9


def test_orbits_follow_their_closed_form_factors(distances):
    every_fifth = torch.arange(0, 1001, 5)
    for name, factor in FACTORS.items():
        torch.testing.assert_close(
            distances[name][every_fifth], abs(factor) ** every_fifth.double(), rtol=1e-8, atol=0, msg=name
        )


def test_the_mean_of_the_alternating_orbit_converges_and_the_orbit_does_not(distances):
    assert distances["alternating, averaged"][-1] == pytest.approx(0.005, abs=0.0005)
    assert distances["alternating"][-100:].max() == pytest.approx(math.sqrt((2 + LR) / (2 - LR)), abs=0.001)


def test_half_the_learning_rate_takes_four_times_the_steps_to_double_the_distance():
    counted = array(*(doubling(lr) for lr in (0.2, 0.1, 0.05)))
    torch.testing.assert_close(counted, array(*(math.ceil(LOG_4 / math.log1p(lr**2)) for lr in (0.2, 0.1, 0.05))))
    assert (counted[1:] / counted[:-1]).tolist() == pytest.approx([4, 4], rel=0.05)


def test_only_r1_and_instance_noise_stabilise_the_dirac_gan():
    real = {name: max(one.real for one in eigenvalues(game)) for name, game in DIRAC.items() if name != "WGAN-GP"}
    drawn = [name for name, part in real.items() if part < -1e-6]
    assert drawn == ["minimax with R1, weight 1/2", "minimax with instance noise, sigma 1"]
    assert [real[name] for name in drawn] == pytest.approx([-0.25, -0.25], abs=1e-6)
    assert [real[name] for name in real if name not in drawn] == pytest.approx([0, 0, 0], abs=1e-6)


def test_the_vector_field_of_wgan_gp_is_discontinuous_at_the_data():
    above, below = (DIRAC["WGAN-GP"].v(array(0.0, psi)) for psi in (1e-6, -1e-6))
    assert (above - below)[1] == pytest.approx(2, abs=1e-5)


# D*, V and density space


def test_v_falls_to_minus_log_4_as_the_generator_approaches_the_data():
    found = stages()
    assert [one.v for one in found] == pytest.approx([2 * one.jsd - LOG_4 for one in found], abs=1e-9)
    assert found[0].v > found[1].v > found[2].v == pytest.approx(-LOG_4, abs=1e-9)
    assert (found[2].d - 0.5).abs().max() < 1e-12
    near = X.abs() < 6
    assert torch.equal((found[1].d > 0.5)[near], (found[1].p > found[1].q)[near])


def test_v_falls_monotonically_in_densities_and_in_logits():
    density, logits = descents(300).values()
    gap = density.v + LOG_4
    assert (density.v[:20].diff() < 0).all() and gap[10] < 1e-5
    assert (logits.v.diff() < 0).all() and 1e-3 < logits.v[-1] + LOG_4 < 1e-2  # slowly
    away = (density.q - density.p).abs().sum(1)
    torch.testing.assert_close(away[1:11] / away[:10], torch.full((10,), 0.5).double())  # each step halves it


# Objectives and divergences


def test_generator_losses_have_the_slopes_stated_in_the_text():
    logits = array(-8, -1, 0, 3)
    slopes = {name: -slope for name, (_, slope) in generator_losses(logits).items()}
    torch.testing.assert_close(slopes["minimax"], logits.sigmoid())
    torch.testing.assert_close(slopes["non-saturating"], (-logits).sigmoid())
    torch.testing.assert_close(slopes["maximum-likelihood"], logits.exp())
    assert slopes["non-saturating"][0] / slopes["minimax"][0] > 2900


def test_kl_and_pearson_cover_both_modes_and_reverse_kl_picks_one():
    found = nearest()
    std = {name: ends[0][1].std for name, ends in found.items()}
    assert all(std[name] > 1.4 for name in F_DIVERGENCES if name != "reverse-kl")
    assert std["reverse-kl"] == pytest.approx(0.5, abs=0.02)
    assert {name for name, ends in found.items() if len(ends) == 1} == {"kl", "pearson"}
    for name in (
        "hellinger",
        "jensen-shannon",
        "gan",
    ):  # picking is a local minimum, a worse one
        (least, _), (other, q) = found[name]
        assert other > least + 0.05 and q.std < 0.6


def test_the_nearest_gaussian_beats_every_gaussian_of_a_grid():
    x = X[X.abs() < 6]
    from_grid = [Gaussian(mean / 5, std / 10) for mean in range(-10, 11) for std in range(4, 20)]
    for name, ends in nearest().items():
        divergences = [F_DIVERGENCES[name].divergence(two_modes(x), q.log_density(x), x) for q in from_grid]
        assert ends[0][0] < min(divergences), name


def test_the_jsd_of_parallel_lines_is_flat_without_noise():
    theta = array(-2, -0.5, 0, 0.01, 1)
    found = lines(theta)
    torch.testing.assert_close(found["W"], theta.abs())
    torch.testing.assert_close(found["JSD"], math.log(2) * (theta != 0).double())
    for sigma in SIGMAS:
        noisy = found[f"sigma {sigma}"]
        assert noisy[2] == pytest.approx(0, abs=1e-12) and 0 < noisy[3] < noisy[1] < noisy[0] < math.log(2) + 1e-9
    sharp, wide = (found[f"sigma {sigma}"] for sigma in (0.1, 1.0))
    assert math.log(2) - sharp[4] < 1e-5 and wide[0] - wide[4] > 0.1  # far away only the wide noise gives a slope


def test_a_stale_discriminator_gives_a_lower_bound():
    for name in ("kl", "reverse-kl", "pearson", "hellinger", "jensen-shannon"):
        assert stale_bound(name, 1.0, 1.0) == pytest.approx(closed(1.0)[name], abs=1e-8)
        for theta in (0.0, 0.5, 0.9, 1.1, 2.0):
            assert stale_bound(name, theta, 1.0) < closed(theta)[name] - 1e-4
        step = 1e-4
        of_bound = stale_bound(name, 1 + step, 1.0) - stale_bound(name, 1 - step, 1.0)
        assert of_bound == pytest.approx(closed(1 + step)[name] - closed(1 - step)[name], rel=1e-4)


def test_bounded_divergences_stay_below_their_bounds():
    far = closed(8.0)
    assert 1.98 < far["hellinger"] < 2 and 2 * math.log(2) - 0.01 < far["jensen-shannon"] < 2 * math.log(2)
    assert far["kl"] == far["reverse-kl"] == 32 and far["W1"] == 8 and far["pearson"] > 1e27
    assert STAGES[-1] == Gaussian(0, 1)
