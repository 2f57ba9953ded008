"""Counts of modes: simulations of ideal generators, and small examples computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from ganzoo.functional.modes import gaussian_modes, stacked_modes


def ring():
    angle = torch.arange(8, dtype=torch.float64) * math.pi / 4
    return torch.stack([angle.cos(), angle.sin()], 1), 0.01


def grid():
    line = torch.arange(-4.0, 5, 2, dtype=torch.float64)
    return torch.cartesian_prod(line, line), 0.05


@pytest.mark.parametrize("layout", [ring, grid])
def test_the_true_distribution_has_all_modes_and_98_89_percent_high_quality(layout):
    centers, sigma = layout()
    g = torch.Generator().manual_seed(0)
    n = 200_000
    which = torch.randint(len(centers), (n,), generator=g)
    points = centers[which] + sigma * torch.randn(n, 2, generator=g, dtype=torch.float64)
    modes, high_quality, kl = gaussian_modes(points, centers, sigma)
    share = 1 - math.exp(-4.5)
    assert modes == len(centers)
    assert high_quality == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / n))
    assert kl == pytest.approx((len(centers) - 1) / (2 * n), rel=1)


def test_modes_count_only_high_quality_samples():
    """Within 3 sigma: 3 samples of centre 0 and 1 of centre 1; one near centre 0 and one near centre 2 are beyond."""
    centers = torch.tensor([[0.0, 0], [10, 0], [0, 10], [10, 10]])
    points = torch.tensor([[0, 0], [0.29, 0], [0, -0.2], [10, 0.1], [0.22, 0.22], [0, 10.31]])
    modes, high_quality, kl = gaussian_modes(points, centers, sigma=0.1)
    assert (modes, high_quality) == (2, 4 / 6)
    assert kl == pytest.approx(entropy([3, 1, 0, 0], [1] * 4))


def test_kl_is_nan_without_high_quality_samples():
    centers, sigma = ring()
    modes, high_quality, kl = gaussian_modes(torch.zeros(10, 2), centers, sigma)
    assert (modes, high_quality) == (0, 0) and math.isnan(kl)


def test_a_collapsed_generator_has_one_mode():
    centers, sigma = ring()
    assert gaussian_modes(centers[:1].float().expand(50, 2), centers, sigma) == (1, 1, pytest.approx(math.log(8)))


def test_kl_of_the_ideal_stacked_generator_is_at_the_sampling_floor():
    g = torch.Generator().manual_seed(0)
    draws = [stacked_modes(torch.randint(1000, (26_000,), generator=g)) for _ in range(100)]
    kl = np.array([draw.kl for draw in draws])
    assert all(draw.modes == 1000 for draw in draws)
    assert kl.mean() == pytest.approx(999 / 52_000, rel=0.03)  # the second-order term adds 1.5%
    assert kl.std() == pytest.approx(math.sqrt(2 * 999) / 52_000, rel=0.35)  # 2N KL: chi-squared, K - 1 d.f.


def test_stacked_modes_match_hand_computed_values():
    classes = torch.tensor([0, 0, 0, 7, 7, 999])
    counts = np.bincount(classes, minlength=1000)
    assert stacked_modes(classes) == (3, pytest.approx(entropy(counts, np.ones(1000))))
    assert stacked_modes(torch.arange(10).repeat(3), k=10) == (10, pytest.approx(0, abs=1e-12))
    assert stacked_modes(torch.zeros(9, dtype=torch.int64), k=10) == (1, pytest.approx(math.log(10)))


def test_impossible_input_is_refused_in_one_line():
    centers, sigma = ring()
    with pytest.raises(ValueError, match="non-finite features"):
        gaussian_modes(torch.full((3, 2), math.nan), centers, sigma)
    with pytest.raises(ValueError, match=r"N >= 1"):
        gaussian_modes(torch.zeros(0, 2), centers, sigma)
    with pytest.raises(ValueError, match=r"\[0, 10\), not 0 to 10"):
        stacked_modes(torch.arange(11), k=10)
    with pytest.raises(ValueError, match=r"not -1 to 3"):
        stacked_modes(torch.tensor([-1, 3]))
    with pytest.raises(ValueError, match="integers"):
        stacked_modes(torch.zeros(5))
