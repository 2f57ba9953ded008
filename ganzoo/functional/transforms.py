"""Transforms of images [N, C, H, W], with parameters for each image; linear in the images, so differentiable any
number of times, and without data-dependent shapes, so they compile."""

from __future__ import annotations

import torch
from torch import Tensor


def moved(x: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Images moved by whole pixels; the uncovered part is 0.

    Args:
        x: [N, C, H, W].
        down: [N] int64, pixels; negative for up.
        right: [N] int64.
    """
    for dim, by in (2, down), (3, right):
        size = x.shape[dim]
        source = torch.arange(size, device=x.device) - by[:, None]  # [N, size]
        shape = [len(x), 1, 1, 1]
        shape[dim] = size
        inside = ((source >= 0) & (source < size)).view(shape)
        x = x.gather(dim, source.clamp(0, size - 1).view(shape).expand_as(x)) * inside
    return x


def erased(x: Tensor, top: Tensor, bottom: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Images with a rectangle set to 0: the pixels with top <= row < bottom and left <= column < right; each bound is
    [N], in pixels, and may lie beyond the border."""
    rows, columns = (torch.arange(size, device=x.device) for size in x.shape[2:])
    high = (rows >= top[:, None]) & (rows < bottom[:, None])
    wide = (columns >= left[:, None]) & (columns < right[:, None])
    return x * ~(high[:, None, :, None] & wide[:, None, None, :])
