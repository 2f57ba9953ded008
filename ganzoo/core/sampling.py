"""Images for users: seeds in, pictures out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.utils._pytree import tree_map

from ganzoo.core.images import to_uint8
from ganzoo.core.random import mix
from ganzoo.core.types import Batch, Latent

if TYPE_CHECKING:
    from ganzoo.core.module import GANModule

OutputType = Literal["pt", "np", "pil"]


def latents(model: GANModule, seeds: Sequence[int]) -> Latent:
    """One latent a seed, drawn on the CPU (a GPU's random numbers differ between models), on the model's device."""
    rows = [model.latent(1, torch.Generator().manual_seed(mix(seed))) for seed in seeds]
    return tree_map(lambda *row: torch.cat(row).to(model.device), *rows)


def sample(
    model: GANModule,
    n: int | None = None,
    *,
    seeds: Sequence[int] | None = None,
    label: int | Sequence[int] | None = None,
    output_type: OutputType = "pt",
    batch_size: int = 256,
) -> Any:
    """See `GANModule.sample`."""
    labels = [label] if isinstance(label, int) else label
    if n is None:
        n = len(seeds) if seeds is not None else len(labels) if labels is not None else 1
    if seeds is None:
        seeds = torch.randint(2**31, (n,)).tolist()
    if len(seeds) != n:
        raise ValueError(f"{n} images need {n} seeds, got {len(seeds)}")
    if labels is not None:
        labels = _check_labels(model, labels, n)
    parts = []
    for start in range(0, n, batch_size):
        part = slice(start, start + batch_size)
        given: Batch = {} if labels is None else {"label": torch.tensor(labels[part], device=model.device)}
        parts.append(model.generate(latents(model, seeds[part]), given).float().cpu())
    x = torch.cat(parts)
    if output_type == "pt":
        return x
    pixels = to_uint8(x).permute(0, 2, 3, 1).numpy()
    return pixels if output_type == "np" else [picture(p) for p in pixels]


def _check_labels(model: GANModule, labels: Sequence[int], n: int) -> list[int]:
    if model.num_classes is None:
        raise ValueError(f"{type(model).__name__} takes no label: it is not conditional")
    labels = list(labels) * n if len(labels) == 1 else list(labels)
    if len(labels) != n or not all(0 <= y < model.num_classes for y in labels):
        raise ValueError(f"give one label, or {n}, each from 0 to {model.num_classes - 1}; got {labels}")
    return labels


def picture(pixels: Any) -> Any:
    """uint8 array [H, W, C] -> PIL image, grey for one channel; other than 1 or 3 channels is a ValueError."""
    from PIL import Image

    if pixels.shape[-1] not in (1, 3):
        raise ValueError(f"{pixels.shape[-1]} channels are no picture; use output_type='np'")
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
