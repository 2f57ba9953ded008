"""Fakes and reals in blocks, and the reference; a block depends on its index only, so any process may produce it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ganzoo.core.limits import Count, Positive
from ganzoo.core.pixels import UNIT, as_bytes, below_zero, never_negative, refusal, to_float
from ganzoo.core.random import mix
from ganzoo.core.types import Batch
from ganzoo.evaluation.determinism import seeded
from ganzoo.evaluation.interfaces import BLOCK, Outputs


class Source(ABC):
    """Images in blocks.

    Attributes:
        model: the model that generates them; None for files.
        of_reals: whether they depend on the reals, by their labels or sources.
        uniform: whether classes are drawn uniformly, since the reals have no labels.
        labels: from which the images' classes are drawn; None without labels.
        num_classes: of the images, for metrics of classes; None if their classes are unknown.
        truncation: of the latents; None: none.
        standing_statistics: passes that determined the batch norms' statistics; None: training did.
    """

    model: Any = None
    of_reals = uniform = False
    labels: Tensor | None = None
    num_classes: int | None = None
    truncation: Positive | None = None
    standing_statistics: Count | None = None

    @property
    def sampling(self) -> dict[str, Any]:
        """How a model's images are sampled, for protocols. Unless they apply, the last two keys are absent, so that
        records from before them stay comparable."""
        found: dict[str, Any] = {"truncation": self.truncation}
        found |= {"standing_statistics": self.standing_statistics} if self.standing_statistics else {}
        return found | ({"classes": "uniform"} if self.uniform else {})

    @property
    def translates(self) -> bool:
        """Whether the images are translations of sources."""
        return self.model is not None and self.model.source_channels is not None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def block(self, index: int) -> Outputs:
        """`BLOCK` images as "images" (uint8 [N, C, H, W], float for points in the plane), with "labels" if there are
        any. The last block is padded, so that all blocks are computed alike."""

    @property
    def subject(self) -> dict[str, Any]:
        """Description for records."""
        return {"name": type(self).__name__}


class Fakes(Source):
    """Images of a model; image i depends on (seed, i) only, so a smaller set is a prefix of a larger one.

    Args:
        model: a GANModule; its averaged generator is used if there is one.
        n: number of images.
        seed: of the latents and all other random inputs.
        reals: for a conditional model, the data set from whose labels each fake's class is drawn (uniform classes if it
            has none); for a translator, the data set whose sources are translated in order.
        truncation: of the latents; None: none.
        standing_statistics: number of passes of `model.take_standing_statistics` that the caller takes, for records.

    Attributes:
        uniform: whether classes are drawn uniformly, since the reals have no labels.

    Raises:
        ValueError: the reals' labels exceed the model's classes, or the reals have no sources for a translator.
    """

    def __init__(
        self,
        model: Any,
        n: int,
        seed: int = 0,
        reals: Any = None,
        truncation: Positive | None = None,
        standing_statistics: Count | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        self.model, self.n, self.seed, self.reals, self.device = model, n, seed, reals, device
        self.truncation, self.standing_statistics = truncation, standing_statistics
        self.uniform = False
        if model.num_classes is not None:
            self._draw_labels(model)
        if model.source_channels is not None:
            self._keep_labels()
        self.of_reals = self.translates or not (self.labels is None or self.uniform)

    def _draw_labels(self, model: Any) -> None:
        """Sets the labels from which a conditional model's classes are drawn."""
        labels = None if self.reals is None else self.reals.labels()
        self.uniform, classes = labels is None, model.num_classes
        self.labels = torch.tensor(model.trained_labels()) if labels is None else labels
        self.num_classes = None if self.uniform else classes
        if (largest := self.labels.max()) >= classes:
            raise ValueError(
                f"the model generates {classes} classes, but the real images' labels are 0 to {largest}: "
                "use data with the model's classes"
            )

    def _keep_labels(self) -> None:
        """Sets a translator's labels to those of its sources, if they have any."""
        if self.reals is None or "source" not in (first := self.reals.__getitems__([0])):
            raise ValueError(
                "the model translates pictures, but the real images have no sources: use data with sources, "
                "such as PairedFolder, UnpairedFolder or Pairs"
            )
        if "label" in first:
            self.labels = labels = self.reals.labels()
            self.num_classes = int(labels.max()) + 1

    def __len__(self) -> int:
        return self.n

    @property
    def subject(self) -> dict[str, Any]:
        """Metadata of the evaluated generator, as it is now."""
        found = {
            "name": type(self.model).__name__,
            "module": type(self.model).__module__,
            "weights": "raw" if self.model.ema is None else "averaged",
            "images_seen": int(self.model.images_seen),
            "seed": self.seed,
        }
        return {**found, "classes": "uniform"} if self.uniform else found

    def block(self, index: int) -> Outputs:
        device = self.model.device
        z = self.model.latent(BLOCK, torch.Generator().manual_seed(mix(self.seed, index, 0)))
        z = z if self.truncation is None else self.model.truncate(z, self.truncation)
        given: Batch = {}
        members = range(index * BLOCK, (index + 1) * BLOCK)
        if self.model.source_channels is not None:
            batch = self.reals.__getitems__(members)  # repeated if there are fewer
            source = batch["source"]
            given["source"] = (to_float(source) if source.dtype == torch.uint8 else source).to(device)
            if self.labels is not None:
                given["label"] = batch["label"].to(device)
        elif self.labels is not None:
            given["label"] = self.labels[[mix(self.seed, i, 1) % len(self.labels) for i in members]].to(device)
        with seeded(mix(self.seed, index, 2), device):  # independent of z
            images = self.model.generate(tree_map(lambda t: t.to(device), z), given)
        finite = images.flatten(1).isfinite().all(1).byte()
        outputs = {"images": as_bytes(images), "finite": finite}
        outputs |= {"labels": given["label"]} if "label" in given else {}
        return {key: value.to(self.device or device) for key, value in outputs.items()}


class Reals(Source):
    """Images of a data set, in order.

    Args:
        data: a `ganzoo.data.Images` that has passed `check_images`.
        device: of the blocks.
        name: for records.
    """

    def __init__(self, data: Any, device: torch.device | str = "cpu", name: str = "images") -> None:
        self.data, self.device, self.name = data, device, name

    def __len__(self) -> int:
        return len(self.data)

    @property
    def subject(self) -> dict[str, Any]:
        return {"name": self.name, **reduced(self.data)}

    def block(self, index: int) -> Outputs:
        chosen: Sequence[int] = [i % len(self) for i in range(index * BLOCK, (index + 1) * BLOCK)]
        batch = self.data.__getitems__(chosen)
        outputs = {"images": as_bytes(batch["image"]).to(self.device)}
        return {**outputs, "labels": batch["label"].to(self.device)} if "label" in batch else outputs


def check_images(data: Any, what: str) -> None:
    """Checks images that no ganzoo model has generated, before anything is computed; of floats, every image.

    Args:
        data: a `ganzoo.data.Images`.
        what: description for the message: "the fakes".

    Raises:
        ValueError: there are no images, or not [N, C, H, W] of uint8 or of finite floats in [-1, 1].
    """
    if not len(data):
        raise ValueError(f"{what} are missing: the data set is empty")
    negative = suspect = False
    for start in range(0, len(data), BLOCK):
        images = data.__getitems__(range(start, min(start + BLOCK, len(data))))["image"]
        if (problem := refusal(images, start)) is not None:
            raise ValueError(f"{what} are {problem}")
        if images.dtype == torch.uint8:
            return
        negative, suspect = negative or below_zero(images), suspect or never_negative(images)
    if suspect and not negative:
        raise ValueError(f"{what} are {UNIT}")


def reduced(data: Any) -> dict[str, str]:
    """What records say of images with more than 8 bits per channel, from a data module or a data set."""
    reading = getattr(data, "reading", None) or getattr(data, "readings", {}).get("image")
    deep = getattr(data, "deep", False) or getattr(reading, "deep", False)
    return {"depth": "reduced to 8 bits"} if deep else {}


@dataclass
class Reference:
    """Real images that fakes are compared with.

    Attributes:
        name: of the data.
        split: the split that metrics call "real".
        sets: data sets: "real" and, if there are any, "val" and "test".
        extractor: default for its features; None for points.
        data: the data module, for properties that some metrics need.

    Raises:
        ValueError: see `check_images`.
    """

    name: str
    split: str
    sets: dict[str, Any]
    extractor: str | None = None
    data: Any = None

    def __post_init__(self) -> None:
        for which, images in self.sets.items():
            check_images(images, f"the {which} images")

    @staticmethod
    def of(data: Any, split: str = "train") -> Reference:
        """The reference for a split of a `GANDataModule`.

        Raises:
            ValueError: the split has no images.
        """
        real = data.dataset(split)
        if not len(real):
            raise ValueError(f"{data.name} has no {split} images; choose another split")
        return Reference(data.name, split, {"real": real}, data.extractor, data)

    @property
    def partners(self) -> bool:
        """Whether the reals are the true translations of their sources."""
        return self.data is not None and self.data.partners(self.split)

    def open(self, which: str) -> None:
        """Adds one of the data's splits, if it has images."""
        if which not in self.sets and self.data is not None and len(images := self.data.dataset(which)):
            check_images(images, f"the {which} images")
            self.sets[which] = images

    def about(self) -> dict[str, Any]:
        """The reference's part of each protocol."""
        real = self.sets["real"]
        about = {"data": self.name, "split": self.split, "reals": len(real), "data_fingerprint": real.fingerprint()}
        return {**about, **(reduced(self.data) or reduced(real))}
