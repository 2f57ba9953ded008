"""Base class of the data modules: splits, loaders and properties of the images."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from types import FrameType
from typing import Annotated, Any, Literal, cast

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from ganzoo.core.limits import Count, Limits, Size, check, constructor_of
from ganzoo.core.pixels import scaled, usual_extractor
from ganzoo.core.random import global_seed, mix
from ganzoo.data.datasets import Flipped, Images
from ganzoo.data.order import Loader, SequentialLoader
from ganzoo.data.reading import Reading

Split = Literal["train", "val", "test"]
Workers = Annotated[int, Limits(0, 256)]


class GANDataModule(LightningDataModule):
    """Base of the data modules. A subclass sets `image_size`, `channels` and `num_classes`, implements `make_dataset`,
    and downloads its files in `prepare_data`.

    Attributes:
        name: Name of the data in logs and file names; by default that of the class.
        image_size: Pixels per side of square images, or [height, width].
        channels: Channels per image.
        num_classes: Number of classes; None if there are no labels.
        classes: Names of the classes, in the order of the labels; empty if they have none.
        readings: How files become "image" and "source", stored with models; empty if the data is not read from files.
        source_channels: Channels of "source", the input of translators; None if there is no source.
        seen: What is unusual about the files, and what is done with it, printed before training; empty if nothing is.
        extractor: Default feature extractor for the scores, or None. Unless a subclass sets it, "inception" for colour
            and "inception-grey" for grey.

    Args:
        batch_size: Images per training batch, over all processes.
        num_workers: Worker processes per training process that load in advance, up to 256; 0: load in that process.
        flip: Whether to mirror a random half of the training images left to right, anew in every epoch.
        seed: Seed of the order and the flips; None: the one given to `seed_everything`, or 0.

    Raises:
        ValueError: An argument, including the subclass's own, has the wrong type or is out of range.
    """

    name: str
    image_size: Size
    channels: int
    num_classes: int | None
    classes: Sequence[str] = ()
    readings: Mapping[str, Reading] = {}
    seen: str = ""
    source_channels: int | None = None
    paired: bool = True  # whether a batch's "image" and "source" belong together
    labelled: bool = False  # whether batches also have "labelled": images with labels
    held_out_alike: bool = True  # whether val and test are from the distribution of train

    def __init__(
        self, *, batch_size: Count = 64, num_workers: Workers = 0, flip: bool = False, seed: int | None = None
    ) -> None:
        check(type(self), constructor_of(cast(FrameType, inspect.currentframe())))
        super().__init__()
        self.name = type(self).__name__
        self.batch_size, self.num_workers, self.flip, self.seed = batch_size, num_workers, flip, seed
        self._datasets: dict[Split, Images] = {}

    @cached_property
    def extractor(self) -> str | None:
        return usual_extractor(self.channels)

    def make_dataset(self, split: Split) -> Images:
        """The data set of a split, without flips; called once per split."""
        raise NotImplementedError

    def dataset(self, split: Split) -> Images:
        """The data set of a split, without flips; created at the first call, also without a Trainer."""
        if split not in self._datasets:
            self._datasets[split] = self.make_dataset(split)
        return self._datasets[split]

    def partners(self, split: Split) -> bool:
        """Whether each image of a split is the true translation of its source."""
        return self.source_channels is not None and self.paired

    def absent(self) -> list[int]:
        """Classes without training images; empty if there are no labels."""
        labels = self.dataset("train").labels()
        return [] if labels is None else missing(labels, self.num_classes)

    def training_images(self, seed: int) -> Images:
        """The training split with all its random transformations, from which the training batches are drawn.

        Args:
            seed: Seed of the order and of the transformations.
        """
        return self.flipped(self.dataset("train"), seed)

    def flipped(self, data: Images, seed: int) -> Images:
        """The images, a random half of them mirrored if `flip` is set."""
        return Flipped(data, seed) if self.flip else data

    def train_dataloader(self) -> Loader:
        """The training loader, whose batches are a function of (seed, epoch).

        Raises:
            ValueError: `batch_size` is not divisible by the number of processes, or exceeds the number of images.
        """
        seed = global_seed() if self.seed is None else self.seed
        data = self.training_images(seed)
        same = bool(self.trainer and self.trainer.overfit_batches)  # type: ignore[attr-defined]
        return Loader(data, self.batch_size, seed=seed, num_workers=self.num_workers, same=same, **self._place())

    def val_dataloader(self) -> SequentialLoader | list[Any]:
        """The validation split in order; an empty list if it has no images."""
        return self._sequential("val")

    def test_dataloader(self) -> SequentialLoader | list[Any]:
        """The test split in order; an empty list if it has no images."""
        return self._sequential("test")

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Scale uint8 images to [-1, 1] on the device: uint8 is a quarter of the bytes to load, pin and transfer."""
        return scaled(batch)

    def _sequential(self, split: Split) -> SequentialLoader | list[Any]:
        data = self.dataset(split)
        place = self._place()
        if 0 < len(data) < place["world_size"]:
            raise ValueError(
                f"{split} has {len(data)} images, fewer than the {place['world_size']} processes: use more images, "
                "fewer processes, or no validation"
            )
        share = max(1, self.batch_size // place["world_size"])
        return SequentialLoader(data, share, num_workers=self.num_workers, **place) if len(data) else []

    def _place(self) -> dict[str, Any]:
        """The process for which batches are loaded, and whether its device is a GPU, so that they are pinned."""
        if self.trainer is None:
            return {"rank": 0, "world_size": 1}
        gpu = self.trainer.strategy.root_device.type == "cuda"
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size, "pin": gpu}


def missing(labels: Tensor, classes: int | None) -> list[int]:
    """The classes that none of the labels has."""
    return sorted({*range(classes or 0)} - {*labels.unique().tolist()})


def workers(asked: int | None) -> int:
    """Worker processes of data that is decoded: by default the number of CPU cores, at most 8."""
    return min(8, os.cpu_count() or 1) if asked is None else asked


def stratify(labels: Tensor, per_class: int) -> dict[Split, Tensor]:
    """Indices [n] of three fixed, disjoint splits: `per_class` images of each class for val and test, the rest for
    train."""
    order = sorted(range(len(labels)), key=mix)  # a fixed shuffle, independent of torch's version
    parts: dict[Split, list[int]] = {"val": [], "test": [], "train": []}
    classes = labels.tolist()
    for label in sorted(set(classes)):
        members = [i for i in order if classes[i] == label]
        parts["val"] += members[:per_class]
        parts["test"] += members[per_class : 2 * per_class]
        parts["train"] += members[2 * per_class :]
    return {split: torch.tensor(sorted(indices)) for split, indices in parts.items()}
