"""Fréchet distance between two Gaussians (FID: Heusel et al. 2017, arXiv:1706.08500, eq. 6), its error and its limit.

Nothing here takes the root of a matrix that is not symmetric, so there are no complex numbers and no `sqrtm`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ganzoo.functional.base import double

EPSILON = torch.finfo(torch.float64).eps


class Gaussian(NamedTuple):
    """Mean and covariance of n rows of features, in float64; one of `cov` and `rows` is there.

    Attributes:
        n: rows that it was estimated from, at least 2.
        mean: [d].
        cov: [d, d], divided by n - 1; None where the rows are kept.
        rows: [n, d] = (x - mean) / sqrt(n - 1), kept where n <= d: cov = rows.T @ rows is singular there, and the roots
            of its zero eigenvalues would be as large as the root of the rounding.
        root: [d, r] with root @ root.T = cov: what a distance needs of the reals; see `with_root`.
    """

    n: int
    mean: Tensor
    cov: Tensor | None = None
    rows: Tensor | None = None
    root: Tensor | None = None

    @staticmethod
    def of(x: Tensor) -> Gaussian:
        """Of raw features [n, d].

        Raises:
            ValueError: fewer than two rows, or values that are not finite.
        """
        x = double(x)
        n, d = x.shape
        if n < 2:
            raise ValueError(f"a covariance needs at least 2 rows of features, not {n}")
        mean = x.mean(0)
        centred = x - mean
        if n <= d:
            return Gaussian(n, mean, rows=centred / math.sqrt(n - 1))
        return Gaussian(n, mean, centred.T @ centred / (n - 1))

    def with_root(self) -> Gaussian:
        """A copy that holds `root`; worth caching where many distances to the same reals are taken.

        Its columns get shorter from left to right: of the matrix R^T S R, which is then large at the top and small at
        the bottom, `eigvalsh` finds the small eigenvalues too; the other way round their roots are off by up to 1e-8.
        """
        if self.rows is not None:
            return self._replace(root=self.rows.T)
        assert self.cov is not None
        if not self.cov.isfinite().all():
            raise ValueError("non-finite features")
        values, vectors = (part.flip(-1) for part in torch.linalg.eigh(self.cov))
        seen = values > values[0] * len(values) * EPSILON  # the others are rounding, whose roots are not small
        return self._replace(root=vectors[:, seen] * values[seen].sqrt())

    def trace(self) -> Tensor:
        """tr cov, a scalar."""
        if self.rows is not None:
            return self.rows.square().sum()
        assert self.cov is not None
        return self.cov.trace()


def frechet_distance(real: Gaussian, fake: Gaussian) -> float:
    """|mu1 - mu2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2), in squared units of the features.

    With S1 = R R^T the eigenvalues of S1 S2 are those of the symmetric R^T S2 R, and with S2 = B^T B their roots are
    the singular values of B R. Of equal Gaussians it is 0, of almost equal ones within rounding of 0, never below.

    Args:
        real: with its `root`, or it is computed here (the larger part of the time).
        fake: of the same d.

    Raises:
        ValueError: d differs, or the features were not finite.
    """
    root, delta = _root(real, fake), real.mean - fake.mean
    if all(_equal(a, b) for a, b in ((real.mean, fake.mean), (real.cov, fake.cov), (real.rows, fake.rows))):
        return 0.0
    if fake.rows is not None:
        overlap = torch.linalg.svdvals(fake.rows @ root).sum()
    else:
        assert fake.cov is not None
        overlap = torch.linalg.eigvalsh(root.T @ fake.cov @ root).clamp(min=0).sqrt().sum()
    return max(0.0, (delta @ delta + (real.trace() + fake.trace() - 2 * overlap)).item())


def frechet_standard_error(real: Gaussian, fake: Gaussian, sample: Tensor) -> float:
    """Standard error of the distance from drawing n fakes, the reals held fixed, by the delta method.

    A fake x moves the distance by 2 (mu2 - mu1).(x - mu2) + (x - mu2)^T (I - M) (x - mu2), less its mean, over n;
    M = R (R^T S2 R)^(-1/2) R^T with S1 = R R^T is the optimal transport from the fakes' Gaussian to the reals'. First
    order: it ignores the bias of a small n, and is too small where the distance is hardly more than that bias.

    Args:
        sample: [m, d], raw features of fakes, all or some; m >= 2.

    Raises:
        ValueError: not more fakes than features: their covariance is singular, there the distance has no derivative.
    """
    if fake.cov is None or fake.n <= len(fake.mean):
        raise ValueError(f"a standard error needs more fakes than features: {fake.n} of {len(fake.mean)}; take more")
    if len(sample) < 2 or sample.shape[1:] != fake.mean.shape:
        raise ValueError(f"a standard error needs a sample [m >= 2, {len(fake.mean)}], not {list(sample.shape)}")
    root = _root(real, fake)
    values, vectors = torch.linalg.eigh(root.T @ fake.cov @ root)
    seen = values > values[-1:] * len(values) * EPSILON
    transport = root @ (vectors[:, seen] * values[seen] ** -0.25)  # M = transport @ transport.T
    shift = 2 * (fake.mean - real.mean)
    parts = (double(part) - fake.mean for part in sample.split(500))
    influence = torch.cat([x @ shift + x.square().sum(1) - (x @ transport).square().sum(1) for x in parts])
    return influence.std().item() / math.sqrt(fake.n)


def fid_infinity(real: Gaussian, fakes: Tensor, sizes: int = 15, seed: int = 0) -> tuple[float, float]:
    """The distance that infinitely many fakes would have (Chong & Forsyth 2020, arXiv:1911.07023).

    The distance of N fakes is linear in 1/N to first order: it is taken at `sizes` values of N from n/10 to n, for a
    random subset each, and the regression line is extrapolated to 1/N = 0. The bias from few reals stays.

    Args:
        fakes: [n, d], raw features, n >= 20; n / 10 > d, or the distances of the small subsets lie on no line.
        seed: of the subsets; the global random state is not touched.

    Returns:
        The intercept, and its standard error in the regression. The subsets share fakes, so that this is the error of
        the extrapolation alone, not that of drawing the n fakes.
    """
    fakes = double(fakes)
    n = len(fakes)
    if n < 20 or sizes < 3:
        raise ValueError(f"an extrapolation needs at least 20 fakes and 3 sizes, not {n} and {sizes}")
    if real.root is None:
        real = real.with_root()
    generator = torch.Generator().manual_seed(seed)
    x, y = np.zeros((2, sizes))
    for i, size in enumerate(torch.linspace(n // 10, n, sizes, dtype=torch.float64).long().tolist()):
        subset = torch.randperm(n, generator=generator)[:size].to(fakes.device)
        x[i], y[i] = 1 / size, frechet_distance(real, Gaussian.of(fakes[subset]))
    (_, intercept), covariance = np.polyfit(x, y, 1, cov=True)
    return float(intercept), math.sqrt(covariance[1, 1])


def _root(real: Gaussian, fake: Gaussian) -> Tensor:
    if real.mean.shape != fake.mean.shape:
        raise ValueError(f"the reals have {len(real.mean)} features, the fakes {len(fake.mean)}")
    for side in (real, fake):
        if not (side.mean.isfinite().all() and side.trace().isfinite()):
            raise ValueError("non-finite features")
    root = real.root if real.root is not None else real.with_root().root
    assert root is not None
    return root


def _equal(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b or (a is not None and b is not None and torch.equal(a, b))
