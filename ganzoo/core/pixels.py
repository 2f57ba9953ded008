"""Conversion between bytes and the networks' range [-1, 1], and the check of that range;
and the default extractor by the number of channels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
ROUNDING = 1 / 255  # tolerance of the range: half the difference between two bytes
UNIT = "never negative, so probably in [0, 1] instead of [-1, 1]: use 2 * x - 1, or bytes if this is intended"


def to_float(image: Tensor) -> Tensor:
    """Map uint8 0..255 to float32 in [-1, 1], any shape."""
    return image / 127.5 - 1


def to_uint8(image: Tensor) -> Tensor:
    """Map floats in [-1, 1], clamped, to uint8 0..255, any shape; `to_uint8(to_float(x)) == x` for all bytes."""
    return (image * 127.5 + 128).clamp(0, 255).to(torch.uint8)


def to_uint16(image: Tensor) -> Tensor:
    """Map floats in [-1, 1], clamped, to 0..65535 as int32, any shape."""
    return (image.double() * 32767.5 + 32768).clamp(0, 65535).int()


def as_bytes(images: Tensor) -> Tensor:
    """Images [N, C, H, W] as uint8, as in files; points in the plane, for which bytes are too coarse, stay floats."""
    if images.dtype == torch.uint8:
        return images
    points = is_points(images) and images.shape[1] not in (1, 3)
    return images.float() if points else to_uint8(images.float())


def scaled(batch: Any) -> Any:
    """A nested batch with uint8 tensors converted to floats in [-1, 1]; torch's `tree_map` takes longer than the
    conversion."""
    if isinstance(batch, Tensor):
        return to_float(batch) if batch.dtype == torch.uint8 else batch
    if isinstance(batch, dict):
        return {key: scaled(value) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        parts = map(scaled, batch)
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    return batch


def refusal(images: Tensor, first: int = 0) -> str | None:
    """Why images [N, C, H, W] are neither bytes nor finite floats in [-1, 1]; None if they are.

    Points (images of one pixel) have no range. On an accelerator this synchronises.

    Args:
        images: any tensor.
        first: number of the first image, for the message.
    """
    shape = f"[{', '.join(['N', *map(str, images.shape[1:])])}]"
    if images.ndim != 4:
        return f"{shape}, not [N, C, H, W]"
    if images.shape[3] in (1, 2, 3, 4) and min(images.shape[1:3]) > 4:
        return f"{shape} with channels last: put them first with permute(0, 3, 1, 2)"
    if images.dtype == torch.uint8:
        return None
    if images.dtype not in FLOATS:
        return f"{images.dtype}, neither torch.uint8 nor floats in [-1, 1]: convert bytes with x / 127.5 - 1"
    if not images.numel():
        return f"empty: {list(images.shape)}"
    x = images.detach().flatten(1)
    if not (finite := x.isfinite().all(1)).all():
        return f"not finite, for example number {first + int((~finite).nonzero()[0])}, counted from 0"
    low, high = (bound.item() for bound in x.aminmax())
    if is_points(images) or max(-low, high) <= 1 + ROUNDING:
        return None
    cure = "use x / 127.5 - 1" if low >= 0 and high > 2 else "undo their normalisation, or clamp them"
    return f"floats from {low:.3g} to {high:.3g}, not in [-1, 1]: {cure}"


def never_negative(images: Tensor) -> bool:
    """Whether images accepted by `refusal` look like floats in [0, 1]: no value is negative, and some are not
    results of `to_float`, the odd multiples of 1 / 255."""
    if images.dtype == torch.uint8 or is_points(images) or below_zero(images):
        return False
    x = images.detach().float()
    return bool((to_float(to_uint8(x)) - x).abs().max() > ROUNDING / 4)


def below_zero(images: Tensor) -> bool:
    """Whether any value is negative, beyond rounding; for data sets, whose batches need not all have such values."""
    return bool((images < -ROUNDING).any())


def usual_extractor(channels: int) -> str | None:
    """Default extractor of images that specify none; None unless they are grey or colour."""
    return {1: "inception-grey", 3: "inception"}.get(channels)


def is_points(images: Tensor) -> bool:
    """Whether images have one pixel."""
    return images.shape[2:].numel() == 1
