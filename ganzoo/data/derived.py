"""Data derived from other data: pairs for translators, and a few labels among many images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from math import gcd
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ganzoo.core.limits import Count, sides
from ganzoo.core.pixels import to_uint8
from ganzoo.core.random import mix
from ganzoo.core.types import Batch
from ganzoo.data.base import GANDataModule, Split
from ganzoo.data.datasets import Chosen, Images, Merged, Wrapped, combine
from ganzoo.data.order import Repeated, unpaired

Task = Literal["edges", "grey", "low-resolution"]
TAN = 0.41421356  # of 22.5 degrees, halfway between the directions of two neighbouring pixels


class _Derived(GANDataModule):
    """Base of data modules derived from another one, with its images, labels and splits.

    Args:
        data: The other data module; its batch_size, num_workers, flip and seed are not used.
        **kwargs: See `GANDataModule`.
    """

    def __init__(self, data: GANDataModule, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(data, GANDataModule):
            raise ValueError(f"data is {data!r}; {type(self).__name__} needs a data module, such as Digits")
        self.data = data
        self.image_size, self.channels, self.num_classes = data.image_size, data.channels, data.num_classes
        self.extractor, self.readings, self.classes, self.seen = data.extractor, data.readings, data.classes, data.seen
        self.held_out_alike = data.held_out_alike

    def prepare_data(self) -> None:
        """Download missing files."""
        self.data.prepare_data()


class Pairs(_Derived):
    """Pairs for translators, made from any images: "image" is the original, "source" is computed from it.

    - "edges": the outlines, black on white, one channel.
    - "grey": the image in greyscale, one channel.
    - "low-resolution": each block of `factor` x `factor` pixels in its mean colour.

    Without `paired`, training batches are unpaired as for CycleGAN: images and sources come from two fixed, disjoint
    halves of the training images, each shuffled on its own, as a function of (seed, epoch); labels are those of
    "image". val and test stay paired, so that translations can be compared with their targets.

    Args:
        data: The data module of the images; its batch_size, num_workers, flip and seed are not used.
        task: How sources are made.
        paired: Whether training batches are paired.
        factor: Pixels per side of the blocks of "low-resolution".
        **kwargs: See `GANDataModule`.

    Raises:
        ValueError: The images have neither one nor three channels, are already grey ("grey"), or cannot be divided into
            blocks ("low-resolution"); or `data` is not a data module.
    """

    source_channels: int

    def __init__(
        self, data: GANDataModule, task: Task = "edges", paired: bool = True, factor: Count = 4, **kwargs: Any
    ) -> None:
        super().__init__(data, **kwargs)
        known = {"edges": edges, "grey": grey, "low-resolution": partial(mosaic, factor=factor)}
        if self.channels not in (1, 3):
            raise ValueError(f"{data.name} has {self.channels} channels; Pairs needs 1 (grey) or 3 (colour)")
        if task == "grey" and self.channels == 1:
            raise ValueError(f"{data.name} is already grey: choose the task edges or low-resolution, or colour images")
        common = gcd(*sides(self.image_size))
        if task == "low-resolution" and (factor < 2 or common % factor):
            divisors = [d for d in range(2, common) if common % d == 0]
            cure = f"choose one of {', '.join(map(str, divisors))}" if divisors else "choose another image_size"
            raise ValueError(f"factor is {factor}; it must be above 1 and divide image_size {self.image_size}: {cure}")
        self.task, self.paired = task, paired
        self.name = f"{data.name}-{task}" + ("" if paired else "-unpaired")
        self.source_channels = self.channels if task == "low-resolution" else 1
        if "image" in self.readings:
            source = replace(self.readings["image"], channels=self.source_channels)
            self.readings = {**self.readings, "source": source}
        self._draw = known[task]
        self._recipe = f"{task} {factor}" if task == "low-resolution" else task

    def make_dataset(self, split: Split) -> Images:
        images = self.data.dataset(split)
        if self.partners(split):
            return Derived(images, self._draw, self._recipe)
        return Merged(*self._halves(images))

    def partners(self, split: Split) -> bool:
        return self.paired or split != "train"

    def training_images(self, seed: int) -> Images:
        if self.paired:
            return super().training_images(seed)
        return unpaired(*self._halves(self.data.dataset("train")), self.flipped, seed)

    def _halves(self, data: Images) -> tuple[Images, Images]:
        """Images and sources from disjoint halves of a fixed shuffle; the images get the larger half."""
        images, others = (Chosen(data, half) for half in halves(len(data)))
        return images, Derived(others, self._draw, self._recipe, alone=True)


class SemiSupervised(_Derived):
    """Few labels among many images: training batches have "labelled", images with labels, besides "image".

    "image" covers all training images, without labels. "labelled" has as many images per batch, from the
    `labels_per_class` labelled images of each class: these are repeated within an epoch, in a new order each time, as a
    function of (seed, epoch). In val and test all labels are known, and "labelled" has the images of "image".

    Args:
        data: The data module of the images and labels; its batch_size, num_workers, flip and seed are not used.
        labels_per_class: Number of labelled training images per class.
        label_seed: Seed of the choice of labelled images, which otherwise depends on the data alone.
        **kwargs: See `GANDataModule`.

    Raises:
        ValueError: The data has no labels, or a class has fewer images than `labels_per_class`; the latter is raised
            when the data is first read.
    """

    labelled = True

    def __init__(self, data: GANDataModule, labels_per_class: Count = 10, label_seed: int = 0, **kwargs: Any) -> None:
        super().__init__(data, **kwargs)
        if self.num_classes is None:
            raise ValueError(
                f"{data.name} has no labels, which SemiSupervised needs: use labelled data; for an ImageFolder, set "
                "labels to true"
            )
        self.labels_per_class, self.label_seed = labels_per_class, label_seed
        self.name = f"{data.name}-{labels_per_class}-labels"

    def make_dataset(self, split: Split) -> Images:
        images = self.data.dataset(split)
        return images if split == "train" else Labelled(images, alone=False)

    def training_images(self, seed: int) -> Images:
        data = self.dataset("train")
        labelled = Labelled(self.flipped(Chosen(data, self.members), mix(seed, 1)), alone=True)
        return Merged(Unlabelled(self.flipped(data, seed)), Repeated(labelled, len(data), seed))

    @cached_property
    def members(self) -> list[int]:
        """The indices of the labelled training images."""
        labels = self.dataset("train").labels()
        assert labels is not None and self.num_classes is not None
        counts = labels.bincount(minlength=self.num_classes)
        if (least := int(counts.min())) < self.labels_per_class:
            raise ValueError(
                f"labels_per_class is {self.labels_per_class}, but class {int(counts.argmin())} of {self.data.name} "
                f"has {least or 'no'} training images: " + (f"lower it to {least} or less" if least else "add some")
            )
        chosen: list[int] = []
        for label in range(self.num_classes):
            found = (labels == label).nonzero()[:, 0].tolist()
            chosen += sorted(found, key=lambda i: mix(self.label_seed, i))[: self.labels_per_class]
        return sorted(chosen)


class Derived(Wrapped):
    """Adds sources, computed from the images, to a data set's batches; with `alone`, returns only the sources."""

    def __init__(self, data: Images, draw: Any, recipe: str, alone: bool = False) -> None:
        super().__init__(data)
        self.draw, self.recipe, self.alone = draw, recipe, alone

    def __getitems__(self, tickets: Sequence[int]) -> Batch:
        batch = self.data.__getitems__(tickets)
        image = batch["image"]
        source = self.draw(image if image.dtype == torch.uint8 else to_uint8(image))
        return Batch(source=source) if self.alone else Batch(**{**batch, "source": source})

    def _digest(self) -> str:
        return combine("derived 1", self.recipe, self.alone, self.data.fingerprint())


class Labelled(Wrapped):
    """Adds "labelled", (images, labels), to a data set's batches; with `alone`, returns only that."""

    def __init__(self, data: Images, alone: bool) -> None:
        super().__init__(data)
        self.alone = alone

    def __getitems__(self, tickets: Sequence[int]) -> Batch:
        batch = self.data.__getitems__(tickets)
        labelled = batch["image"], batch["label"]
        return Batch(labelled=labelled) if self.alone else Batch(**{**batch, "labelled": labelled})

    def _digest(self) -> str:
        return self.data.fingerprint()  # the same images and labels, twice


class Unlabelled(Wrapped):
    """Removes the labels from a data set's batches."""

    _labels = None

    def __getitems__(self, tickets: Sequence[int]) -> Batch:
        batch = self.data.__getitems__(tickets)
        batch.pop("label", None)
        return batch


def halves(n: int) -> tuple[list[int], list[int]]:
    """Two fixed, disjoint halves of the indices 0 to n - 1; the first is the larger one."""
    order, middle = sorted(range(n), key=mix), (n + 1) // 2
    return sorted(order[:middle]), sorted(order[middle:])


def grey(images: Tensor) -> Tensor:
    """uint8 [N, 3, H, W] -> uint8 [N, 1, H, W], with the luma weights of ITU-R BT.601."""
    weights = torch.tensor([299, 587, 114])[:, None, None]
    return ((images * weights).sum(1, keepdim=True) / 1000).round().byte()


def mosaic(images: Tensor, factor: int) -> Tensor:
    """uint8 [N, C, H, W], with each block of factor x factor pixels replaced by its mean."""
    means = F.avg_pool2d(images.float(), factor).round().byte()
    return means.repeat_interleave(factor, 2).repeat_interleave(factor, 3)


def edges(images: Tensor) -> Tensor:
    """Outlines: uint8 [N, 1 or 3, H, W] -> uint8 [N, 1, H, W], 0 on edges and 255 elsewhere.

    Sobel gradients with non-maximum suppression, as in Canny's detector: at an edge, the gradient exceeds those of
    both neighbours in its direction, and a quarter of the image's maximum. All sums are of integers and hence exact, so
    an image's edges do not depend on its batch.
    """
    shades = (grey(images) if images.shape[1] == 3 else images).float()
    x = F.pad(shades, (1, 1, 1, 1), mode="replicate")
    height, width = shades.shape[-2:]

    def at(t: Tensor, down: int, right: int) -> Tensor:
        return t[..., 1 + down : 1 + down + height, 1 + right : 1 + right + width]

    def ridge(down: int, right: int) -> Tensor:  # of two equal neighbours, one is kept
        return (strength > at(padded, -down, -right)) & (strength >= at(padded, down, right))

    across = at(x, -1, 1) - at(x, -1, -1) + 2 * (at(x, 0, 1) - at(x, 0, -1)) + at(x, 1, 1) - at(x, 1, -1)
    along = at(x, 1, -1) - at(x, -1, -1) + 2 * (at(x, 1, 0) - at(x, -1, 0)) + at(x, 1, 1) - at(x, -1, 1)
    strength = across.square() + along.square()
    padded = F.pad(strength, (1, 1, 1, 1))
    flat, steep = along.abs() <= TAN * across.abs(), across.abs() <= TAN * along.abs()
    diagonal = torch.where(across * along > 0, ridge(1, 1), ridge(1, -1))
    edge = torch.where(flat, ridge(0, 1), torch.where(steep, ridge(1, 0), diagonal))
    strong = strength > strength.amax((1, 2, 3), keepdim=True) / 16  # squares of the gradients: a quarter
    return (~(edge & strong)).byte() * 255
