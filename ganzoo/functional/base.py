"""Input conversion of all metrics, and reflection at the border of images."""

from __future__ import annotations

import torch
from torch import Tensor


def double(x: Tensor, what: str = "features") -> Tensor:
    """Rows [n, d] in float64, on the same device, or on the CPU if the device has no float64.

    Raises:
        ValueError: wrong shape, or non-finite values.
    """
    if x.ndim != 2 or len(x) == 0:
        raise ValueError(f"{what} must have shape [n >= 1, d], not {list(x.shape)}")
    if not x.isfinite().all():
        raise ValueError("non-finite features" if what == "features" else f"non-finite features: the {what}")
    return float64(x.detach())


def float64(x: Tensor) -> Tensor:
    """On the same device, or on the CPU if the device has no float64."""
    return (x.cpu() if x.device.type == "mps" else x).double()


def reflected(place: Tensor, size: int) -> Tensor:
    """Places beyond the pixels 0 to size - 1, reflected at these as often as needed."""
    period = 2 * max(size - 1, 1)
    place = place.remainder(period)
    return torch.minimum(place, period - place).clamp(max=size - 1)
