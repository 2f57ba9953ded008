"""The Fréchet distance against closed forms, scipy, mpmath and torch-fidelity; its error and limit by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from ganzoo.functional.frechet import Gaussian, fid_infinity, frechet_distance, frechet_standard_error


def features(n, d, seed=0):
    """Correlated features [n, d] of different scales, not centred."""
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=g, dtype=torch.float64)
    return torch.randn(n, d, generator=g, dtype=torch.float64) @ mix + torch.randn(d, generator=g, dtype=torch.float64)


def distance(x, y):
    return frechet_distance(Gaussian.of(x), Gaussian.of(y))


def by_sqrtm(x, y):
    x, y = x.numpy(), y.numpy()
    a, b, delta = np.cov(x.T), np.cov(y.T), x.mean(0) - y.mean(0)
    return delta @ delta + np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b).real)


SIZES = [(200, 12), (12, 12), (9, 12)]  # n > d keeps the covariance, n <= d the rows


@pytest.mark.parametrize(("n", "d"), SIZES)
def test_moments_match_numpy(n, d):
    x = features(n, d)
    gaussian = Gaussian.of(x.float())
    x = x.float().double().numpy()
    cov = gaussian.cov if n > d else gaussian.rows.T @ gaussian.rows
    assert (gaussian.rows is None) == (n > d) and gaussian.n == n and cov.dtype == torch.float64
    np.testing.assert_allclose(gaussian.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(cov, np.cov(x.T), rtol=1e-10)
    root = gaussian.with_root().root
    np.testing.assert_allclose(root @ root.T, np.cov(x.T), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("n", "d"), SIZES)
def test_the_distance_of_shifted_features_is_the_squared_shift(n, d):
    x, t = features(n, d), features(2, d, seed=1)[0]
    assert distance(x, x + t) == pytest.approx((t @ t).item(), rel=1e-12)


@pytest.mark.parametrize(("n", "d"), SIZES)
def test_commuting_covariances_match_the_closed_form(n, d):
    """sum (sqrt a - sqrt b)^2 over the eigenvalues a and b of the shared eigenvectors."""
    axes = torch.linalg.qr(features(d, d))[0]
    x = torch.linalg.qr(features(n, n))[0][:, : min(n - 1, d)]
    x = torch.linalg.qr(x - x.mean(0))[0]  # centred and orthonormal: its covariance is I / (n - 1)
    r = x.shape[1]
    a, b = torch.rand(2, r, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + 0.1
    expected = (a.sqrt() - b.sqrt()).square().sum().item() / (n - 1)
    assert distance((x * a.sqrt()) @ axes[:r], (x * b.sqrt()) @ axes[:r]) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("n", "d"), SIZES)
def test_the_distance_of_equal_features_is_0(n, d):
    x = features(n, d)
    assert abs(distance(x, x.flip(0))) < 1e-12 * max(1, Gaussian.of(x).trace().item())
    assert abs(distance(x / 10, (x / 10).flip(0))) < 1e-12


def test_the_distance_of_shifted_features_of_low_rank_is_that_of_their_means():
    """More rows than features, but with constant and repeated features: no rounding errors under the root."""
    x = features(200, 6)
    x = torch.cat([x, x, torch.ones(200, 3)], 1)
    assert distance(x, x + 1) == pytest.approx(15, rel=1e-9)


@pytest.mark.parametrize("smallest", [1e-2, 1e-4])
def test_small_eigenvalues_keep_their_precision(smallest):
    """Scales span orders of magnitude, as in real features; reference: the nuclear norm of triangular factors."""
    n, d = 400, 120
    scale = torch.logspace(0, math.log10(smallest), d, dtype=torch.float64)
    x, y = (torch.linalg.qr(features(n, d, seed))[0] * scale for seed in (0, 1))
    rows = [(v - v.mean(0)) / math.sqrt(n - 1) for v in (x, y)]
    a, b = (torch.linalg.qr(v)[1] for v in rows)
    trace = a.square().sum().item() + b.square().sum().item()
    mean = (x.mean(0) - y.mean(0)).square().sum().item()
    expected = mean + trace - 2 * torch.linalg.svdvals(b @ a.T).sum().item()
    assert abs(distance(x, y) - expected) < 1e-13 * trace
    assert abs(distance(x, x.flip(0))) < 1e-13 * trace


@pytest.mark.parametrize("n", [(200, 150), (9, 8), (200, 9), (9, 200)])
def test_invariance_to_order_rotation_and_shift(n):
    x, y = features(n[0], 12), features(n[1], 12, seed=1)
    expected = distance(x, y)
    rotation, _ = torch.linalg.qr(features(12, 12, seed=2))
    near = pytest.approx(expected, rel=1e-8)
    assert distance(y, x) == near
    assert distance(x @ rotation, y @ rotation) == near
    assert distance(x.flip(0, 1), y.flip(1)) == near
    assert distance(x + 5, y + 5) == near
    assert distance(x * 3, y * 3) == pytest.approx(9 * expected, rel=1e-8)


@pytest.mark.parametrize("d", [1, 4, 40])
def test_the_distance_matches_sqrtm_and_torch_fidelity_at_full_rank(d):
    x, y = features(300, d), features(250, d, seed=1)
    if d > 1:
        assert distance(x, y) == pytest.approx(by_sqrtm(x, y), rel=1e-9)
        theirs = fid_statistics_to_metric(fid_features_to_statistics(x), fid_features_to_statistics(y), False)
        assert distance(x, y) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)
    else:
        expected = (x.mean() - y.mean()) ** 2 + (x.std() - y.std()) ** 2
        assert distance(x, y) == pytest.approx(expected.item(), rel=1e-12)


def test_the_distance_of_few_rows_matches_the_nuclear_norm():
    x, y = features(20, 64), features(15, 64, seed=1)
    a, b = ((v - v.mean(0)) / math.sqrt(len(v) - 1) for v in (x, y))
    overlap = np.linalg.norm((b @ a.T).numpy(), "nuc")
    expected = (x.mean(0) - y.mean(0)).square().sum() + a.square().sum() + b.square().sum() - 2 * overlap
    assert distance(x, y) == pytest.approx(expected.item(), rel=1e-13)


@pytest.mark.parametrize("n", [30, 6])
def test_the_distance_matches_50_digit_arithmetic(n):
    mpmath = pytest.importorskip("mpmath")
    x, y = features(n, 8), features(n, 8, seed=1)
    with mpmath.workdps(50):

        def moments(v):
            rows = mpmath.matrix(v.tolist())
            mean = mpmath.matrix([[sum(rows[i, j] for i in range(n)) / n for j in range(8)]])
            centred = mpmath.matrix([[rows[i, j] - mean[0, j] for j in range(8)] for i in range(n)])
            return mean, centred.T * centred / (n - 1)

        (m1, s1), (m2, s2) = moments(x), moments(y)
        values, vectors = mpmath.eigsy(s1)
        root = vectors * mpmath.diag([mpmath.sqrt(max(v, 0)) for v in values]) * vectors.T
        overlap = sum(mpmath.sqrt(max(v, 0)) for v in mpmath.eigsy(root * s2 * root, eigvals_only=True))
        trace = sum(s1[i, i] + s2[i, i] for i in range(8))
        expected = float(sum((m1[0, j] - m2[0, j]) ** 2 for j in range(8)) + trace - 2 * overlap)
    assert distance(x, y) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n", [300, 9])
def test_a_large_offset_loses_no_precision(n):
    x, y = features(n, 12), features(n, 12, seed=1)
    assert distance(x + 1e4, y + 1e4) == pytest.approx(distance(x, y), rel=1e-9)


def test_a_cached_root_changes_nothing():
    real, fake = Gaussian.of(features(50, 6)), Gaussian.of(features(50, 6, seed=1))
    assert frechet_distance(real.with_root(), fake) == frechet_distance(real, fake)
    assert real.root is None


def test_distance_to_a_collapsed_set():
    x = features(50, 6)
    point = torch.ones(50, 6, dtype=torch.float64)
    expected = (x.mean(0) - 1).square().sum().item() + np.trace(np.cov(x.numpy().T))
    assert distance(x, point) == pytest.approx(expected, rel=1e-12)
    assert distance(point, x) == pytest.approx(expected, rel=1e-12)
    assert distance(point, point) == 0


def test_the_standard_error_matches_the_spread_over_draws():
    """For known moments of the reals. 400 draws determine the spread to 3.5%; the delta method must be close to it."""
    d, n = 8, 2000
    real = Gaussian.of(features(5000, d)).with_root()
    g = torch.Generator().manual_seed(1)
    mix = torch.randn(d, d, generator=g, dtype=torch.float64)

    def fakes():
        z = torch.randn(n, d, generator=g, dtype=torch.float64)
        return (z + 0.3 * z.square()) @ mix  # skewed: errors of mean and covariance are correlated

    draws = [Gaussian.of(x) for x in (fakes() for _ in range(400))]
    spread = np.std([frechet_distance(real, draw) for draw in draws])
    errors = [frechet_standard_error(real, Gaussian.of(x), x) for x in (fakes() for _ in range(20))]
    assert np.mean(errors) == pytest.approx(spread, rel=0.12)
    assert np.std(errors) < 0.15 * spread


def test_the_standard_error_matches_the_jackknife():
    """Removing one fake changes the distance by its influence divided by n."""
    x, y = features(400, 5), features(300, 5, seed=1)
    real = Gaussian.of(x).with_root()
    without = [frechet_distance(real, Gaussian.of(torch.cat([y[:i], y[i + 1 :]]))) for i in range(len(y))]
    jackknife = np.std(without) * math.sqrt(len(y) - 1)
    assert frechet_standard_error(real, Gaussian.of(y), y) == pytest.approx(jackknife, rel=0.02)


def test_a_constant_feature_of_the_fakes_adds_nothing_to_the_standard_error():
    x, y = features(400, 5), features(300, 5, seed=1)
    real, still = Gaussian.of(x), torch.cat([y, torch.ones(300, 2)], 1)
    cov = torch.block_diag(real.cov, torch.eye(2, dtype=torch.float64))
    wide = Gaussian(400, torch.cat([real.mean, torch.zeros(2)]), cov)
    error = frechet_standard_error(wide, Gaussian.of(still), still)
    assert error == pytest.approx(frechet_standard_error(real, Gaussian.of(y), y), rel=1e-9)


def test_a_standard_error_needs_more_fakes_than_features():
    real, y = Gaussian.of(features(50, 8)), features(8, 8)
    with pytest.raises(ValueError, match="more fakes than features, not 8 and 8"):
        frechet_standard_error(real, Gaussian.of(y), y)


def test_fid_infinity_removes_the_bias_of_few_fakes():
    """Reals and fakes of one distribution, with exact moments of the reals: the limit is 0, the distance is not."""
    d, n = 16, 4000
    real = Gaussian(10**9, torch.zeros(d, dtype=torch.float64), torch.eye(d, dtype=torch.float64))
    limits, plain = [], []
    for seed in range(12):
        y = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        limits.append(fid_infinity(real, y, seed=seed)[0])
        plain.append(frechet_distance(real, Gaussian.of(y)))
    bias = np.mean(plain)
    assert bias == pytest.approx(
        (d + d * (d + 1) / 4) / n, rel=0.15
    )  # E|mean|^2 = d/n, E|cov - I|^2/4 for small errors
    assert abs(np.mean(limits)) < 0.4 * bias


def test_fid_infinity_is_the_intercept_of_least_squares():
    real, y = Gaussian.of(features(500, 6)), features(300, 6, seed=1)
    state = torch.get_rng_state()
    intercept, error = fid_infinity(real, y, seed=7)
    assert (intercept, error) == fid_infinity(real, y, seed=7) != fid_infinity(real, y, seed=8)
    assert torch.equal(state, torch.get_rng_state())
    g = torch.Generator().manual_seed(7)
    sizes = [int(size) for size in np.linspace(30, 300, 15)]
    values = [distance(features(500, 6), y[torch.randperm(300, generator=g)[:size]]) for size in sizes]
    design = np.stack([np.ones(15), 1 / np.array(sizes)], 1)
    inverse = np.linalg.inv(design.T @ design)
    line = inverse @ design.T @ values
    noise = ((values - design @ line) ** 2).sum() / (15 - 2)
    assert intercept == pytest.approx(line[0], rel=1e-8)
    assert error == pytest.approx(math.sqrt(noise * inverse[0, 0]), rel=1e-8)


def test_invalid_input_is_refused():
    x = features(20, 4)
    with pytest.raises(ValueError, match="at least 2 rows"):
        Gaussian.of(x[:1])
    with pytest.raises(ValueError, match="must have shape"):
        Gaussian.of(x[0])
    with pytest.raises(ValueError, match="non-finite features"):
        Gaussian.of(x.log())
    broken = Gaussian(20, x.mean(0), torch.full((4, 4), math.nan, dtype=torch.float64))
    for pair in [(broken, Gaussian.of(x)), (Gaussian.of(x), broken)]:
        with pytest.raises(ValueError, match="non-finite features"):
            frechet_distance(*pair)
    for sample in (x[:1], x[:, :3]):
        with pytest.raises(ValueError, match=r"needs a sample \[m >= 2, 4\]"):
            frechet_standard_error(Gaussian.of(x), Gaussian.of(x), sample)
    with pytest.raises(ValueError, match="4 features, the fakes 3"):
        distance(x, x[:, :3])
    with pytest.raises(ValueError, match="at least 20 fakes"):
        fid_infinity(Gaussian.of(x), x[:19])


@pytest.mark.parametrize("n", [20, 500], ids=["rows", "covariance"])
def test_the_distance_to_itself_is_exactly_0_and_none_is_negative(n):
    for seed in range(20):
        x = torch.randn(n, 40, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 10
        near = x + 1e-9 * x.roll(1, 0)
        assert frechet_distance(Gaussian.of(x), Gaussian.of(x).with_root()) == 0.0
        assert 0 <= frechet_distance(Gaussian.of(x).with_root(), Gaussian.of(near)) < 1e-6
        assert frechet_distance(Gaussian.of(x), Gaussian.of(x + 1)) == pytest.approx(40)
