"""The one conversion between stored bytes and the range that the networks see."""

from __future__ import annotations

import torch
from torch import Tensor


def to_float(image: Tensor) -> Tensor:
    """Map uint8 0..255 to float32 in [-1, 1], any shape."""
    return image / 127.5 - 1


def to_uint8(image: Tensor) -> Tensor:
    """Map floats in [-1, 1], clamped beyond, to uint8 0..255, any shape; `to_uint8(to_float(x)) == x` for all bytes."""
    return (image * 127.5 + 128).clamp(0, 255).to(torch.uint8)
