"""Nearest-neighbour scores of fidelity, diversity and copying, from Euclidean distances between features."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from scipy.stats import rankdata, tiecorrect
from torch import Tensor

from ganzoo.functional.base import double

BLOCK = 64  # rows of the distance matrix in memory at once
EPSILON = torch.finfo(torch.float64).eps


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall in [0, 1] (Kynkäänniemi et al. 2019, arXiv:1904.06991).

    Precision is the share of fakes inside the balls of the reals, recall the share of reals inside the balls of the
    fakes. A point's ball is closed; its radius is the distance to the k-th nearest other point of its set.

    Args:
        real, fake: [n, d] and [m, d]; more than k rows each.
        k: number of neighbours, 1 or more.

    Returns:
        Precision and recall.

    Raises:
        ValueError: too few rows, different d, or values that are not finite.
    """
    real, fake = _centred(real, fake)
    real_radii, fake_radii = _radii(real, k), _radii(fake, k)
    precise = torch.zeros_like(fake_radii, dtype=torch.bool)
    recalled = 0
    for rows, distances in _blocks(real, fake):
        precise |= (distances <= real_radii[rows, None]).any(0)
        recalled += int((distances <= fake_radii).any(1).sum())
    return precise.double().mean().item(), recalled / len(real)


def density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> tuple[float, float]:
    """Density >= 0, about 1 if ideal, and coverage in [0, 1] (Naeem et al. 2020, arXiv:2002.09797).

    Density is the mean number of real balls that contain a fake, divided by k; coverage is the share of reals whose
    ball contains a fake. A ball is open; its radius is the distance to the k-th nearest other real.

    Args:
        real, fake: [n, d] and [m, d]; n > k, m >= 1.
        k: number of neighbours, 1 or more.

    Returns:
        Density and coverage.

    Raises:
        ValueError: too few rows, different d, or values that are not finite.
    """
    real, fake = _centred(real, fake)
    count, covered = 0, 0
    radii = _radii(real, k)
    for rows, distances in _blocks(real, fake):
        inside = distances < radii[rows, None]
        count += int(inside.sum())
        covered += int(inside.any(1).sum())
    return count / (k * len(fake)), covered / len(real)


def authenticity(train: Tensor, fake: Tensor) -> float:
    """Share of authentic fakes (Alaa et al. 2022, arXiv:2102.08921).

    A fake is authentic if its distance to the nearest training point exceeds the distance of that point to its own
    nearest neighbour in the training set.

    Args:
        train, fake: [n, d] and [m, d]; n >= 2, m >= 1.

    Raises:
        ValueError: too few rows, different d, or values that are not finite.
    """
    train, fake = _centred(train, fake)
    radii = _radii(train, 1)
    authentic = 0
    for _, distances in _blocks(fake, train):
        nearest, which = distances.min(1)
        authentic += int((nearest > radii[which]).sum())
    return authentic / len(fake)


def copying(train: Tensor, held_out: Tensor, fake: Tensor) -> tuple[float, float]:
    """Data-copying test (Meehan et al. 2020, arXiv:2004.05675), global, without cells.

    Args:
        train, held_out, fake: [n, d], [l, d] and [m, d], at least one row each. The held-out reals are from the
            distribution of the training set and disjoint from it.

    Returns:
        The probability that a fake is closer to the training set than a held-out real is; a tie counts half. 0.5:
        ideal; 1: copies; 0: fakes far from the data. And the z score of the Mann-Whitney U test (normal approximation,
        corrected for ties): positive for copies; the paper's sign is the opposite.

    Raises:
        ValueError: too few rows, different d, or values that are not finite.
    """
    train, held_out, fake = _centred(train, held_out, fake)
    nearest = [torch.cat([distances.min(1).values for _, distances in _blocks(x, train)]) for x in (held_out, fake)]
    m, n = len(held_out), len(fake)
    ranks = rankdata(torch.cat(nearest).cpu())
    u = ranks[:m].sum() - m * (m + 1) / 2  # pairs in which the held-out real is the farther one
    variance = m * n / 12 * (m + n + 1) * tiecorrect(ranks)
    z = (u - m * n / 2) / math.sqrt(variance) if variance > 0 else 0.0  # all distances are equal
    return float(u / (m * n)), float(z)


def _centred(*sets: Tensor) -> list[Tensor]:
    """In float64, minus the first set's mean, to reduce cancellation in |x|^2 + |y|^2 - 2 x.y."""
    rows = [double(x) for x in sets]
    if any(x.shape[1] != rows[0].shape[1] for x in rows):
        raise ValueError(f"all sets need the same number of features, not {', '.join(str(x.shape[1]) for x in rows)}")
    mean = rows[0].mean(0)
    return [x - mean for x in rows]


def _blocks(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of rows of x and their squared distances to all of y, float32 [rows, len(y)].

    Computed in float64 and rounded to float32, so that equal distances compare as equal whatever the summation order
    in the matrix product: an open ball excludes its boundary, and a copy has distance exactly 0.
    """
    squares = y.square().sum(1)
    for start in range(0, len(x), BLOCK):
        block = x[start : start + BLOCK]
        scale = block.square().sum(1, keepdim=True) + squares
        distances = torch.addmm(scale, block, y.T, alpha=-2)
        distances.masked_fill_(distances < scale * ((x.shape[1] + 2) * EPSILON), 0)  # below the rounding error
        yield slice(start, start + len(block)), distances.float()


def _radii(x: Tensor, k: int) -> Tensor:
    """Squared distance of each row [n] to the k-th nearest other row."""
    if not 0 < k < len(x):
        raise ValueError(f"k = {k} neighbours need more than {k} rows of features, not {len(x)}; use more, or lower k")
    radii = []
    for rows, distances in _blocks(x, x):
        distances[:, rows].fill_diagonal_(math.inf)
        radii.append(distances.topk(k, largest=False).values[:, -1])
    return torch.cat(radii)
