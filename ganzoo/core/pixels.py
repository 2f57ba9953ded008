"""The one conversion between stored bytes and the range that the networks see."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def to_float(image: Tensor) -> Tensor:
    """Map uint8 0..255 to float32 in [-1, 1], any shape."""
    return image / 127.5 - 1


def to_uint8(image: Tensor) -> Tensor:
    """Map floats in [-1, 1], clamped beyond, to uint8 0..255, any shape; `to_uint8(to_float(x)) == x` for all bytes."""
    return (image * 127.5 + 128).clamp(0, 255).to(torch.uint8)


def scaled(batch: Any) -> Any:
    """uint8 tensors as floats in [-1, 1], however nested; torch's `tree_map` takes longer than the conversion."""
    if isinstance(batch, Tensor):
        return to_float(batch) if batch.dtype == torch.uint8 else batch
    if isinstance(batch, dict):
        return {key: scaled(value) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        parts = map(scaled, batch)
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    return batch
