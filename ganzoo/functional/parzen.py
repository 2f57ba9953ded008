"""Log-likelihood under a Parzen window (Goodfellow et al. 2014, arXiv:1406.2661, section 5).

The paper itself notes its high variance and its weakness in high dimensions; use it only to compare with results of
that time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from ganzoo.functional.base import double

BLOCK = 256  # test rows of the distance matrix in memory at once
SIGMAS = tuple(torch.logspace(-1, 0, 10, dtype=torch.float64).tolist())


class Parzen(NamedTuple):
    """Mean log-likelihood in nats, its standard error over the test rows, and the selected sigma."""

    mean: float
    standard_error: float
    sigma: float


def parzen_log_likelihood(samples: Tensor, test: Tensor, sigma: float) -> Tensor:
    """log mean_i N(test; samples_i, sigma^2 I) in nats, float64 [m].

    Args:
        samples: [n, D], centres of the kernels.
        test: [m, D].
        sigma: > 0, in the data's units.
    """
    samples, test = double(samples, "images"), double(test, "images")
    if samples.shape[1] != test.shape[1]:
        raise ValueError(f"samples have {samples.shape[1]} dimensions, test rows {test.shape[1]}")
    return _log_likelihoods(samples, test, [sigma])[0]


def parzen(samples: Tensor, valid: Tensor, test: Tensor, sigmas: Iterable[float] = SIGMAS) -> Parzen:
    """Goodfellow's protocol: sigma maximises the likelihood of the first 1000 of `valid`; the result is that of `test`.

    Args:
        samples: [n, D] fakes, 10,000 in the paper, flat pixels in [0, 1].
        valid, test: [l, D] and [m, D] reals, in [0, 1].
        sigmas: candidates.

    Raises:
        ValueError: pixels are not in [0, 1].
    """
    samples, valid, test = double(samples, "images"), double(valid, "images"), double(test, "images")
    for x in (samples, valid, test):
        if x.shape[1] != samples.shape[1]:
            raise ValueError(f"samples have {samples.shape[1]} dimensions, reals {x.shape[1]}")
        if x.min() < 0 or x.max() > 1:
            raise ValueError(f"Parzen windows need pixels in [0, 1], not in [{x.min():g}, {x.max():g}]")
    sigmas = list(sigmas)
    sigma = sigmas[int(_log_likelihoods(samples, valid[:1000], sigmas).mean(1).argmax())]
    values = _log_likelihoods(samples, test, [sigma])[0]
    return Parzen(values.mean().item(), values.std().item() / math.sqrt(len(values)), sigma)


def _log_likelihoods(samples: Tensor, test: Tensor, sigmas: list[float]) -> Tensor:
    """[sigmas, m]; distances are computed once for all sigmas."""
    if not sigmas or min(sigmas) <= 0:
        raise ValueError(f"Parzen windows need sigmas > 0, not {sigmas}")
    mean = samples.mean(0)  # reduces cancellation in |x|^2 + |y|^2 - 2 x.y
    samples, test = samples - mean, test - mean
    n, d = samples.shape
    squares = samples.square().sum(1)
    parts = []
    for block in test.split(BLOCK):
        distances = torch.addmm(squares + block.square().sum(1, keepdim=True), block, samples.T, alpha=-2).clamp_(min=0)
        parts.append(torch.stack([(distances / (-2 * sigma**2)).logsumexp(1) for sigma in sigmas]))
    normalisers = [math.log(n) + d / 2 * math.log(2 * math.pi * sigma**2) for sigma in sigmas]
    return torch.cat(parts, 1) - samples.new_tensor(normalisers)[:, None]
