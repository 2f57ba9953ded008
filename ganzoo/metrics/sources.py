"""Where images come from: block by block, by their index alone, so that it does not matter which process asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ganzoo.core.images import to_uint8
from ganzoo.core.random import mix
from ganzoo.core.types import Batch
from ganzoo.metrics.base import BLOCK, Outputs, seeded


class Source(Protocol):
    """Images that are read or made in blocks."""

    def __len__(self) -> int: ...

    def block(self, index: int) -> Outputs:
        """`BLOCK` images as "images" (uint8 [N, C, H, W]; floats for points in the plane) with "labels" where there are
        any; the last block is filled up, so that every one is computed in the same way."""


class Fakes:
    """A generator's images; image i follows from (seed, i) alone, so that fewer are the first of more.

    Args:
        model: a GANModule; its averaged generator where it has one.
        n: how many.
        seed: of the latents, and of whatever else the generator draws.
        labels: int64 [M], from which each fake's class is drawn, for a conditional model.

    Raises:
        ValueError: a conditional model without labels, or with others than its own.
    """

    def __init__(self, model: Any, n: int, seed: int = 0, labels: Tensor | None = None) -> None:
        classes = model.num_classes
        if classes is not None and (labels is None or labels.max() >= classes):
            found = "none" if labels is None else f"0 to {labels.max()}"
            raise ValueError(f"the model makes images of {classes} classes; the real images' labels are {found}")
        self.model, self.n, self.seed, self.labels = model, n, seed, labels

    def __len__(self) -> int:
        return self.n

    def block(self, index: int) -> Outputs:
        device = self.model.device
        z = self.model.latent(BLOCK, torch.Generator().manual_seed(mix(self.seed, index, 0)))
        given: Batch = {}
        if self.labels is not None:
            start = index * BLOCK
            chosen = [mix(self.seed, i, 1) % len(self.labels) for i in range(start, start + BLOCK)]
            given["label"] = self.labels[chosen].to(device)
        with seeded(mix(self.seed, index, 2), device):  # other numbers than z's
            images = self.model.generate(tree_map(lambda t: t.to(device), z), given)
        finite = images.flatten(1).isfinite().all(1).byte()
        outputs = {"images": pixels(images), "finite": finite}
        return {**outputs, "labels": given["label"]} if given else outputs


class Reals:
    """The images of a data set, in order.

    Args:
        data: a `ganzoo.data.Images`.
        device: where its blocks go.
    """

    def __init__(self, data: Any, device: torch.device | str = "cpu") -> None:
        self.data, self.device = data, device

    def __len__(self) -> int:
        return len(self.data)

    def block(self, index: int) -> Outputs:
        chosen: Sequence[int] = [i % len(self) for i in range(index * BLOCK, (index + 1) * BLOCK)]
        batch = self.data.__getitems__(chosen)
        outputs = {"images": pixels(batch["image"]).to(self.device)}
        return {**outputs, "labels": batch["label"].to(self.device)} if "label" in batch else outputs


def pixels(images: Tensor) -> Tensor:
    """Bytes of grey and colour images, as files hold them; points in the plane stay floats."""
    if images.dtype == torch.uint8:
        return images
    return to_uint8(images.float()) if images.shape[1] in (1, 3) else images.float()
