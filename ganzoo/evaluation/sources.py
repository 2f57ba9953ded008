"""Where images come from: block by block, by their index alone, so that it does not matter which process asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ganzoo.core.images import to_float, to_uint8
from ganzoo.core.random import mix
from ganzoo.core.types import Batch
from ganzoo.evaluation.interfaces import BLOCK, Outputs, seeded


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
        reals: the data set from whose labels each fake's class is drawn, for a conditional model (uniform classes where
            it has none), or whose sources are translated, one after the other, by a translator.

    Attributes:
        labels: of the reals, if the model reads any, or if its translations should keep them.
        uniform: whether all classes are drawn alike, as the reals have none.
        num_classes: of the fakes; None where they are of no known class.

    Raises:
        ValueError: the reals' labels are not those of the model, or a translator finds no sources.
    """

    def __init__(self, model: Any, n: int, seed: int = 0, reals: Any = None) -> None:
        self.model, self.n, self.seed, self.reals = model, n, seed, reals
        self.labels: Tensor | None = None
        self.uniform = False
        if (classes := model.num_classes) is not None:
            labels = None if reals is None else reals.labels()
            self.uniform = labels is None
            self.labels = torch.arange(classes) if labels is None else labels
            if self.labels.max() >= classes:
                found = f"0 to {self.labels.max()}"
                raise ValueError(f"the model makes images of {classes} classes; the real images' labels are {found}")
        self.num_classes: int | None = None if self.uniform else model.num_classes
        if model.source_channels is not None:
            if reals is None or "source" not in (first := reals.__getitems__([0])):
                raise ValueError(
                    "the model translates pictures, and the real images come without sources: take data that has them, "
                    "such as PairedFolder, UnpairedFolder or Pairs"
                )
            if "label" in first:
                self.labels = reals.labels()
                self.num_classes = int(self.labels.max()) + 1

    def __len__(self) -> int:
        return self.n

    def block(self, index: int) -> Outputs:
        device = self.model.device
        z = self.model.latent(BLOCK, torch.Generator().manual_seed(mix(self.seed, index, 0)))
        given: Batch = {}
        members = range(index * BLOCK, (index + 1) * BLOCK)
        if self.model.source_channels is not None:
            batch = self.reals.__getitems__(members)  # repeated where there are fewer
            source = batch["source"]
            given["source"] = (to_float(source) if source.dtype == torch.uint8 else source).to(device)
            if self.labels is not None:
                given["label"] = batch["label"].to(device)
        elif self.labels is not None:
            given["label"] = self.labels[[mix(self.seed, i, 1) % len(self.labels) for i in members]].to(device)
        with seeded(mix(self.seed, index, 2), device):  # other numbers than z's
            images = self.model.generate(tree_map(lambda t: t.to(device), z), given)
        finite = images.flatten(1).isfinite().all(1).byte()
        outputs = {"images": pixels(images), "finite": finite}
        return {**outputs, "labels": given["label"]} if "label" in given else outputs


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
