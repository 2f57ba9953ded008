"""Kernel inception distance (KID: Bińkowski et al. 2018, arXiv:1801.01401): an unbiased squared MMD."""

from __future__ import annotations

import torch
from torch import Tensor

from ganzoo.functional.base import double

BLOCK = 128  # rows of the kernel matrix in memory at once


def mmd2(x: Tensor, y: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x.y / d + 1)^3 (Bińkowski et al. 2018,
    arXiv:1801.01401, section 4); may be negative.

    Args:
        x, y: [m, d] and [n, d]; m, n >= 2.

    Raises:
        ValueError: too few rows, different d, or values that are not finite.
    """
    x, y = double(x), double(y)
    m, n = len(x), len(y)
    if min(m, n) < 2:
        raise ValueError(f"MMD needs at least 2 rows of each set, not {m} and {n}")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"the sets have {x.shape[1]} and {y.shape[1]} features")
    within = _sum_of_others(x) / (m * (m - 1)) + _sum_of_others(y) / (n * (n - 1))
    return (within - 2 * _sum(x, y) / (m * n)).item()


def kid(real: Tensor, fake: Tensor, subsets: int = 100, size: int = 1000, seed: int = 0) -> tuple[float, float]:
    """KID: `mmd2` of random subsets of reals and fakes, each drawn without replacement.

    Args:
        real, fake: [n, d] and [m, d]; at least `size` rows each.
        subsets: number of pairs of subsets, 1 or more.
        size: rows of a subset, 2 or more.
        seed: of the subsets; global random state is unaffected.

    Returns:
        Mean and population standard deviation over the subsets.

    Raises:
        ValueError: too few rows or subsets, different d, or drawn values that are not finite.
    """
    if min(len(real), len(fake)) < size:
        raise ValueError(f"no subset of {size} can be drawn from {len(real)} reals and {len(fake)} fakes; lower `size`")
    if subsets < 1:
        raise ValueError(f"KID needs at least 1 subset, not {subsets}")
    generator = torch.Generator().manual_seed(seed)

    def subset(x: Tensor) -> Tensor:
        return x[torch.randperm(len(x), generator=generator)[:size].to(x.device)]

    values = torch.tensor([mmd2(subset(real), subset(fake)) for _ in range(subsets)], dtype=torch.float64)
    return values.mean().item(), values.std(correction=0).item()


def _sum(x: Tensor, y: Tensor) -> Tensor:
    """Sum of the kernel over all pairs."""
    return torch.stack([(block @ y.T).div_(x.shape[1]).add_(1).pow_(3).sum() for block in x.split(BLOCK)]).sum()


def _sum_of_others(x: Tensor) -> Tensor:
    """Sum of the kernel over pairs of distinct rows."""
    return _sum(x, x) - (x.square().sum(1) / x.shape[1] + 1).pow(3).sum()
