"""Fréchet distance between two Gaussians (FID: Heusel et al. 2017, arXiv:1706.08500, eq. 6), its standard error,
and its extrapolation to infinitely many fakes.

Only roots of symmetric matrices are taken, so no `sqrtm` and no complex numbers are needed.
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
    """Mean and covariance of n rows of features, in float64; exactly one of `cov` and `rows` is set.

    Attributes:
        n: number of rows, at least 2.
        mean: [d].
        cov: [d, d], unbiased (divided by n - 1).
        rows: [n, d] = (x - mean) / sqrt(n - 1), stored instead of cov if n <= d: cov = rows.T @ rows is then singular,
            and the roots of its zero eigenvalues would amplify rounding errors.
        root: [d, r] with root @ root.T = cov; needed for the real images, see `with_root`.
    """

    n: int
    mean: Tensor
    cov: Tensor | None = None
    rows: Tensor | None = None
    root: Tensor | None = None

    @staticmethod
    def of(x: Tensor) -> Gaussian:
        """Estimate from features [n, d].

        Raises:
            ValueError: fewer than two rows, or non-finite values.
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
        """A copy with `root` set; cache it for repeated distances to the same real images.

        Columns are sorted by decreasing norm: R^T S R is then graded from large to small, and `eigvalsh` computes its
        small eigenvalues accurately. In the opposite order the error of their roots is up to 1e-8.
        """
        if self.rows is not None:
            return self._replace(root=self.rows.T)
        assert self.cov is not None
        if not self.cov.isfinite().all():
            raise ValueError("non-finite features")
        values, vectors = (part.flip(-1) for part in torch.linalg.eigh(self.cov))
        seen = values > values[0] * len(values) * EPSILON  # others are rounding errors, with large roots
        return self._replace(root=vectors[:, seen] * values[seen].sqrt())

    def trace(self) -> Tensor:
        """tr cov, a scalar."""
        if self.rows is not None:
            return self.rows.square().sum()
        assert self.cov is not None
        return self.cov.trace()


def frechet_distance(real: Gaussian, fake: Gaussian) -> float:
    """|mu1 - mu2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2), in squared units of the features.

    With S1 = R R^T, the eigenvalues of S1 S2 are those of the symmetric R^T S2 R; with S2 = B^T B, their roots are the
    singular values of B R. Equal Gaussians have a distance of exactly 0; rounding never makes it negative.

    Args:
        real: if `root` is not set, it is computed, which takes most of the time.
        fake: of the same d.

    Raises:
        ValueError: d differs, or features are not finite.
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
    """Standard error of the distance due to sampling n fakes, for fixed real images, by the delta method.

    The influence of a fake x is (2 (mu2 - mu1).(x - mu2) + (x - mu2)^T (I - M) (x - mu2), minus its mean) / n, where
    M = R (R^T S2 R)^(-1/2) R^T, with S1 = R R^T, is the optimal transport map from the fakes' Gaussian to the reals'.
    This first-order estimate ignores the bias of a small n, and is too small if the distance is close to that bias.

    Args:
        real: of the reals.
        fake: of the n fakes.
        sample: [m >= 2, d], features of all or some fakes.

    Raises:
        ValueError: n <= d, so the covariance is singular and the distance not differentiable; the sample has another
            shape; or features are not finite.
    """
    if fake.cov is None or fake.n <= len(fake.mean):
        raise ValueError(f"a standard error needs more fakes than features, not {fake.n} and {len(fake.mean)}")
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
    """FID extrapolated to infinitely many fakes (Chong & Forsyth 2020, arXiv:1911.07023).

    To first order the distance is linear in 1/N. It is computed for random subsets of N = n/10 to n fakes, and a
    regression line is extrapolated to 1/N = 0. The bias due to few real images remains.

    Args:
        real: of the reals.
        fakes: [n, d], features, n >= 20; for n / 10 <= d the smaller subsets deviate from the line.
        sizes: number of subsets, each of another size, 3 or more.
        seed: of the subsets; global random state is unaffected.

    Returns:
        The intercept and its standard error in the regression. Since subsets overlap, it is the error of the
        extrapolation alone, without that of sampling the n fakes.

    Raises:
        ValueError: too few fakes or sizes, another d than the reals, or features that are not finite.
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
