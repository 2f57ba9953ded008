"""Sizes of images that a frozen network needs."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import interpolate


def enlarged(x: Tensor, side: int) -> Tensor:
    """Images [N, C, H, W] enlarged bilinearly if their shorter side is smaller; the ratio of the sides stays."""
    size = enlarged_size(x.shape[2], x.shape[3], side)
    return x if size == x.shape[2:] else interpolate(x, size, mode="bilinear")


def enlarged_size(height: int, width: int, side: int) -> tuple[int, int]:
    scale = max(1.0, side / min(height, width))
    return round(height * scale), round(width * scale)
