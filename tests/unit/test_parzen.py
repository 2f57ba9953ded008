"""The Parzen window against scikit-learn and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KernelDensity

from ganzoo.functional import parzen as module
from ganzoo.functional.parzen import SIGMAS, parzen, parzen_log_likelihood


def images(n, d=20, seed=0):
    return torch.rand(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_sklearn(samples, test, sigma):
    return KernelDensity(bandwidth=sigma, rtol=1e-12).fit(samples.numpy()).score_samples(test.numpy())


@pytest.mark.parametrize("block", [7, 256])
@pytest.mark.parametrize("sigma", [0.05, 0.3, 2.0])
@pytest.mark.parametrize("offset", [0, 1e4])
def test_log_likelihoods_agree_with_sklearn(sigma, block, offset, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", block)
    samples, test = images(60), images(33, seed=1)
    ours = parzen_log_likelihood(samples + offset, test + offset, sigma)
    assert ours.dtype == torch.float64
    np.testing.assert_allclose(ours, by_sklearn(samples, test, sigma), rtol=1e-9 if offset == 0 else 1e-7)


def test_one_sample_gives_the_normal_density():
    x, y = images(1)[0], images(1, seed=1)[0]
    expected = torch.distributions.Normal(x, 0.2).log_prob(y).sum().item()
    assert parzen_log_likelihood(x[None].float(), y[None].double(), 0.2).item() == pytest.approx(expected, abs=1e-4)


def test_distant_samples_do_not_underflow():
    value = parzen_log_likelihood(torch.zeros(5, 100), torch.full((1, 100), 50.0), 0.1).item()
    assert value == pytest.approx(-100 * 2500 / 0.02 - 50 * math.log(2 * math.pi * 0.01))


def test_sigma_is_selected_on_the_first_1000_validation_rows():
    """Validation rows from 1000 on are the samples themselves, which would select the smallest sigma."""
    samples, test = images(50), images(300, seed=1)
    valid = torch.cat([images(1000, seed=2), samples.repeat(200, 1)])
    scores = [by_sklearn(samples, valid[:1000], sigma).mean() for sigma in np.logspace(-1, 0, 10)]
    expected = by_sklearn(samples, test, np.logspace(-1, 0, 10)[np.argmax(scores)])
    mean, error, sigma = parzen(samples, valid, test)
    assert sigma == pytest.approx(np.logspace(-1, 0, 10)[np.argmax(scores)])
    assert 0.1 < sigma < 1
    assert mean == pytest.approx(expected.mean(), rel=1e-9)
    assert error == pytest.approx(expected.std(ddof=1) / math.sqrt(300), rel=1e-9)
    assert parzen(samples, valid.flip(0), test).sigma == pytest.approx(0.1)


def test_sigmas_are_the_papers_grid():
    np.testing.assert_allclose(SIGMAS, np.logspace(-1, 0, 10))


def test_other_sigmas_can_be_given():
    samples, valid, test = images(50), images(50, seed=1), images(50, seed=2)
    result = parzen(samples, valid, test, sigmas=[0.7])
    assert result.sigma == 0.7
    assert result.mean == pytest.approx(by_sklearn(samples, test, 0.7).mean())


def test_impossible_input_is_refused_in_one_line():
    x = images(10)
    with pytest.raises(ValueError, match=r"pixels in \[0, 1\], not in \[-1"):
        parzen(x, x, torch.linspace(-1, 1, 200).view(10, 20))
    with pytest.raises(ValueError, match=r"pixels in \[0, 1\]"):
        parzen(255 * x, x, x)
    with pytest.raises(ValueError, match="20 dimensions"):
        parzen_log_likelihood(x, x[:, :4], 0.1)
    with pytest.raises(ValueError, match="20 dimensions"):
        parzen(x, x[:, :4], x)
    with pytest.raises(ValueError, match="non-finite features"):
        parzen(x, x, x / 0)
    with pytest.raises(ValueError, match="sigmas > 0"):
        parzen_log_likelihood(x, x, 0)
    with pytest.raises(ValueError, match="sigmas > 0"):
        parzen(x, x, x, sigmas=[])
    with pytest.raises(ValueError, match="n >= 1"):
        parzen_log_likelihood(x[:0], x, 0.1)
