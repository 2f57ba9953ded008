"""The data module: splits, loaders, and what other parts need to know of the images."""

from __future__ import annotations

import inspect
from functools import cached_property
from types import FrameType
from typing import Annotated, Any, Literal, cast

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from ganzoo.core.limits import Count, Limits, check, constructor_of
from ganzoo.core.pixels import scaled
from ganzoo.core.random import global_seed, mix
from ganzoo.data.datasets import Flipped, Images
from ganzoo.data.order import Loader, SequentialLoader

Split = Literal["train", "val", "test"]
Workers = Annotated[int, Limits(0, 256)]


class GANDataModule(LightningDataModule):
    """Base of the data modules. A subclass sets the four attributes in its constructor, implements `make_dataset`, and
    downloads in `prepare_data` where it must.

    Attributes:
        name: What logs and file names call the data.
        image_size: Height and width of the images in pixels.
        channels: Channels per image.
        num_classes: Number of labels, None where the batches carry none.
        source_channels: Channels of the pictures to be translated, None where the batches have no "source".
        extractor: Name of what the images' scores look through unless told otherwise; None where nothing does. A
            subclass may set it: by default it is "inception" for colour and "inception-grey" for grey.

    Args:
        batch_size: Images per training batch, over all processes together.
        num_workers: Worker processes per training process that load ahead; 0 loads in the training process.
        flip: Whether to mirror half of the training images left to right, anew in every epoch.
        seed: Seed of the order and the flips; None takes the one given to `seed_everything`.

    Raises:
        ValueError: An argument, of a subclass's own too, is not of its type, or is out of its range.
    """

    name: str
    image_size: int
    channels: int
    num_classes: int | None
    source_channels: int | None = None
    paired: bool = True  # whether a batch's image and source show the same
    labelled: bool = False  # whether a batch has "labelled": images with their labels, beside "image"

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
        return {1: "inception-grey", 3: "inception"}.get(self.channels)

    def make_dataset(self, split: Split) -> Images:
        """The data set of a split, without flips; called once per split."""
        raise NotImplementedError

    def dataset(self, split: Split) -> Images:
        """The data set of a split, made at the first call; needs no Trainer, and never flips."""
        if split not in self._datasets:
            self._datasets[split] = self.make_dataset(split)
        return self._datasets[split]

    def training_images(self, seed: int) -> Images:
        """What the training batches are made of: the training split, with all that is drawn anew in every epoch.

        Args:
            seed: Of the batches' order, and of whatever else is drawn.
        """
        return self.flipped(self.dataset("train"), seed)

    def flipped(self, data: Images, seed: int) -> Images:
        """The images, half of them mirrored if `flip` asks for it."""
        return Flipped(data, seed) if self.flip else data

    def train_dataloader(self) -> Loader:
        """Batches as a function of (seed, epoch).

        Raises:
            ValueError: `batch_size` does not divide over the processes, or exceeds the number of images.
        """
        seed = global_seed() if self.seed is None else self.seed
        data = self.training_images(seed)
        same = bool(self.trainer and self.trainer.overfit_batches)  # type: ignore[attr-defined]
        return Loader(data, self.batch_size, seed=seed, num_workers=self.num_workers, same=same, **self._place())

    def val_dataloader(self) -> SequentialLoader | list[Any]:
        """The validation split in order; an empty list where it has no image."""
        return self._sequential("val")

    def test_dataloader(self) -> SequentialLoader | list[Any]:
        """The test split in order; an empty list where it has no image."""
        return self._sequential("test")

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Scale uint8 images to [-1, 1], on the device: bytes are four times cheaper to load, pin and transfer."""
        return scaled(batch)

    def _sequential(self, split: Split) -> SequentialLoader | list[Any]:
        data = self.dataset(split)
        place = self._place()
        share = max(1, self.batch_size // place["world_size"])
        return SequentialLoader(data, share, num_workers=self.num_workers, **place) if len(data) else []

    def _place(self) -> dict[str, int]:
        if self.trainer is None:
            return {"rank": 0, "world_size": 1}
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}


def stratify(labels: Tensor, per_class: int) -> dict[Split, Tensor]:
    """Indices [n] of three fixed, disjoint splits: val and test get `per_class` of each class, train the rest."""
    order = sorted(range(len(labels)), key=mix)  # a fixed shuffle that no version of torch can change
    parts: dict[Split, list[int]] = {"val": [], "test": [], "train": []}
    for label in labels.unique().tolist():
        members = [i for i in order if labels[i] == label]
        parts["val"] += members[:per_class]
        parts["test"] += members[per_class : 2 * per_class]
        parts["train"] += members[2 * per_class :]
    return {split: torch.tensor(sorted(indices)) for split, indices in parts.items()}
