"""KID against a double loop and torch-fidelity."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_fidelity.metric_kid import kid_features_to_metric

from ganzoo.functional import kernels
from ganzoo.functional.kernels import kid, mmd2


def features(n, d=5, seed=0, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def loops(x, y):
    def k(a, b):
        return (sum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3

    x, y = x.tolist(), y.tolist()
    m, n = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    yy = sum(k(y[i], y[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return xx + yy - 2 * sum(k(a, b) for a in x for b in y) / (m * n)


@pytest.mark.parametrize("block", [4, 1024])
@pytest.mark.parametrize(("shift", "scale"), [(0, 1), (0.5, 1), (0, 2), (30, 1)])
def test_mmd2_matches_a_double_loop(shift, scale, block, monkeypatch):
    monkeypatch.setattr(kernels, "BLOCK", block)
    x, y = features(23), features(17, seed=1) * scale + shift
    assert mmd2(x, y) == pytest.approx(loops(x, y), rel=1e-10)
    assert mmd2(y, x) == pytest.approx(mmd2(x, y), rel=1e-10)


def test_features_far_from_0_keep_their_precision():
    """float32 features are converted to float64: kernel values are about 1e6, their differences 1e2."""
    x, y = (features(30, seed=s, dtype=torch.float32) + 10 for s in (0, 1))
    assert mmd2(x, y) == pytest.approx(loops(x, y), rel=1e-9)


def test_mmd2_is_unbiased_under_the_null_hypothesis():
    """Over 3000 pairs of samples of one distribution the mean is within 4 standard errors of 0; both signs occur."""
    x, y = features(3000 * 10, 3).split(10), features(3000 * 10, 3, seed=1).split(10)
    values = np.array([mmd2(a, b) for a, b in zip(x, y, strict=True)])
    assert abs(values.mean()) < 4 * values.std() / np.sqrt(len(values))
    assert 0.3 < (values < 0).mean() < 0.8


def test_kid_with_subsets_of_all_rows_is_mmd2():
    x, y = features(40), features(40, seed=1) + 1
    mean, std = kid(x, y, subsets=5, size=40)
    assert mean == pytest.approx(mmd2(x, y), rel=1e-10) and std == pytest.approx(0, abs=1e-10)


def test_kid_matches_torch_fidelity_within_its_error():
    """The subsets differ, so the means differ by their errors; the spread over subsets agrees."""
    x, y = features(400, 8), features(400, 8, seed=1) * 1.3
    theirs = kid_features_to_metric(
        x, y, kid_subsets=200, kid_subset_size=50, kid_kernel="poly", rng_seed=0, verbose=False
    )
    mean, std = kid(x, y, subsets=200, size=50)
    assert mean == pytest.approx(theirs["kernel_inception_distance_mean"], abs=4 * std / np.sqrt(100))
    assert std == pytest.approx(theirs["kernel_inception_distance_std"], rel=0.25)


def test_kid_is_the_mean_and_population_std_over_its_subsets(monkeypatch):
    values = iter([1.0, 2.0, 6.0])
    monkeypatch.setattr(kernels, "mmd2", lambda x, y: next(values))
    assert kid(features(5), features(5), subsets=3, size=2) == pytest.approx((3, np.std([1, 2, 6])))


def test_subsets_are_drawn_without_replacement(monkeypatch):
    seen = []
    monkeypatch.setattr(kernels, "mmd2", lambda x, y: seen.append((x, y)) or 0.0)
    kid(torch.arange(30)[:, None], torch.arange(20)[:, None], subsets=4, size=20)
    assert all(len(part.unique()) == 20 for pair in seen for part in pair)
    assert len({tuple(x.flatten().tolist()) for x, _ in seen}) == 4


def test_kid_depends_on_its_seed_only():
    x, y = features(60), features(60, seed=1)
    state = torch.get_rng_state()
    assert kid(x, y, 3, 20, seed=1) == kid(x, y, 3, 20, seed=1) != kid(x, y, 3, 20, seed=2)
    assert torch.equal(state, torch.get_rng_state())


def test_invalid_input_is_refused():
    x = features(30)
    with pytest.raises(ValueError, match="subset of 31 can be drawn from 40 reals and 30 fakes"):
        kid(features(40), x, size=31)
    with pytest.raises(ValueError, match="at least 2 rows of each set, not 30 and 1"):
        mmd2(x, x[:1])
    with pytest.raises(ValueError, match="5 and 4 features"):
        mmd2(x, x[:, :4])
    with pytest.raises(ValueError, match="non-finite features"):
        mmd2(x, x.log())
    with pytest.raises(ValueError, match="at least 1 subset"):
        kid(x, x, subsets=0, size=10)
