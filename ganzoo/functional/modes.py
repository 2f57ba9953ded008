"""Mode coverage of synthetic distributions (PacGAN: Lin et al. 2018, arXiv:1712.04086)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class GaussianModes(NamedTuple):
    """Result of `gaussian_modes`."""

    modes: int
    high_quality: float
    kl: float


class StackedModes(NamedTuple):
    """Result of `stacked_modes`."""

    modes: int
    kl: float


def gaussian_modes(points: Tensor, centers: Tensor, sigma: float) -> GaussianModes:
    """Modes, share of high-quality samples, and KL, for the ring of 8 and the grid of 25 Gaussians.

    A high-quality sample lies within 3 sigma of its nearest centre; of the true distribution 1 - e^-4.5 = 98.89 % do.

    Args:
        points: [N, 2]; 2500 in the paper.
        centers: [K, 2], more than 6 sigma apart.
        sigma: of each Gaussian.

    Returns:
        modes: centres with at least one high-quality sample.
        high_quality: share in [0, 1].
        kl: KL(distribution of high-quality samples over modes || uniform) in nats; nan without any.
    """
    if points.ndim != 2 or len(points) == 0 or centers.ndim != 2 or points.shape[1] != centers.shape[1]:
        raise ValueError(f"points and centers must be [N >= 1, 2], not {list(points.shape)} and {list(centers.shape)}")
    if not points.isfinite().all():
        raise ValueError("non-finite features: the points")
    points, centers = points.detach().cpu().double(), centers.detach().cpu().double()
    distances, nearest = torch.cdist(points, centers, compute_mode="donot_use_mm_for_euclid_dist").min(1)
    good = distances < 3 * sigma
    counts = torch.bincount(nearest[good], minlength=len(centers))
    return GaussianModes(int((counts > 0).sum()), good.double().mean().item(), _kl_to_uniform(counts))


def stacked_modes(classes: Tensor, k: int = 1000) -> StackedModes:
    """Modes with at least one sample, and KL(generated || uniform) in nats, of Stacked MNIST's 1000 classes.

    N samples of the true distribution have a KL of about (k - 1) / 2N: 0.0192 for the paper's 26,000.

    Args:
        classes: int64 [N >= 1] in [0, k): the digits of the three channels, read as one number.
    """
    classes = classes.detach().cpu()
    if classes.ndim != 1 or len(classes) == 0 or classes.is_floating_point():
        raise ValueError(f"classes must be integers [N >= 1], not {classes.dtype} {list(classes.shape)}")
    if classes.min() < 0 or classes.max() >= k:
        raise ValueError(f"classes must be in [0, {k}), not {classes.min()} to {classes.max()}")
    counts = torch.bincount(classes, minlength=k)
    return StackedModes(int((counts > 0).sum()), _kl_to_uniform(counts))


def _kl_to_uniform(counts: Tensor) -> float:
    q = counts.double() / counts.sum()
    return torch.xlogy(q, q).sum().item() + math.log(len(q))
