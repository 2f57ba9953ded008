"""What every data set shares: the order of the batches, images in memory, and the data module.

`Images.__getitems__` takes tickets, where a ticket is `epoch * len(data) + index`: whatever is
random about an image is a function of (seed, ticket), so the number of processes and workers changes nothing, and a run
resumed in the middle of an epoch sees exactly the batches that the first run would have seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningDataModule
from PIL import Image
from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader, Dataset

from ganzoo.core.images import to_float
from ganzoo.core.random import global_seed, mix
from ganzoo.core.types import Batch

Split = Literal["train", "val", "test"]


class Images(Dataset[Batch]):
    """A data set that returns whole batches; a subclass implements these two."""

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitems__(self, tickets: Sequence[int]) -> Batch:
        """The images numbered `ticket % len(self)`, stacked; uint8 0..255 or float in [-1, 1]."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> Batch:
        """A single image [C, H, W] with its label, for the curious."""
        return tree_map(lambda x: x[0], self.__getitems__([index]))


def identity(batch: Any) -> Any:
    """A collate function for data sets that return whole batches."""
    return batch


class _Batches:
    """Hands out `data`'s batches in a given order, loaded here or by workers.

    It is no torch DataLoader, so Lightning does not replace the order when there are several processes.
    """

    def __init__(self, data: Images, order: Iterable[Sequence[int]], num_workers: int) -> None:
        self.data = data  # not named `dataset`: Lightning would take this for a DataLoader under overfit_batches
        self.order, self.num_workers = order, num_workers
        self._loader: DataLoader[Batch] | None = None
        self._iterator: Iterator[Batch] | None = None  # Lightning ends the workers of an attribute of this name

    def __iter__(self) -> Iterator[Batch]:
        pin = torch.cuda.is_available()
        if self.num_workers == 0:  # a DataLoader costs more here than the images do
            for tickets in self.order:
                batch = self.data.__getitems__(tickets)
                yield tree_map(Tensor.pin_memory, batch) if pin else batch
            return
        if self._iterator is None or self._loader is None:
            self._loader = DataLoader(
                self.data,
                batch_sampler=cast(Any, self.order),
                collate_fn=identity,
                num_workers=self.num_workers,
                persistent_workers=True,
                pin_memory=pin,
                generator=torch.Generator(),  # it draws a seed per epoch, which must not come from the global generator
            )
        self._iterator = iter(self._loader)
        yield from self._iterator


class SequentialLoader(_Batches):
    """Every image once, in order, as validation wants it; each process reads its own contiguous part.

    Args:
        data: The images.
        batch_size: Images per batch of this process; the last batch may be smaller.
        rank: This process's number.
        world_size: How many processes share the data.
        num_workers: Worker processes that load ahead; 0 loads in this process.
    """

    def __init__(
        self, data: Images, batch_size: int, *, rank: int = 0, world_size: int = 1, num_workers: int = 0
    ) -> None:
        part = range(len(data) * rank // world_size, len(data) * (rank + 1) // world_size)
        self._parts = [part[start : start + batch_size] for start in range(0, len(part), batch_size)]
        super().__init__(data, self._parts, num_workers)

    def __len__(self) -> int:
        return len(self._parts)


class Shuffle:
    """The tickets of the batches still to come in an epoch: a function of (seed, epoch) alone.

    Global batch b is `perm[b * B : (b + 1) * B]`, of which process r takes its r-th contiguous slice, so that all
    processes together see the batches that one would. The last incomplete batch is dropped.

    Args:
        size: Number of images.
        batch_size: Images per global batch, over all processes.
        seed: Seed of the order.
        rank: This process's number.
        world_size: How many processes share each batch.
    """

    def __init__(self, size: int, batch_size: int, seed: int, rank: int, world_size: int) -> None:
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.share = batch_size // world_size
        self.offset = rank * self.share
        self.epoch = self.batch = 0  # `batch`: how many the loader has handed out, not those loaded ahead

    def __len__(self) -> int:
        return self.size // self.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch; naming the present one keeps the position."""
        if epoch != self.epoch:
            self.epoch, self.batch = epoch, 0

    def __iter__(self) -> Iterator[list[int]]:
        epoch = self.epoch
        order = torch.randperm(self.size, generator=torch.Generator().manual_seed(mix(self.seed, epoch)))
        for batch in range(self.batch, len(self)):
            start = batch * self.batch_size + self.offset
            yield (order[start : start + self.share] + epoch * self.size).tolist()


class Loader(_Batches):
    """The training loader: each pass is an epoch, shuffled as a function of (seed, epoch) alone; see `Shuffle`.

    Lightning saves and restores its state: a resumed run goes on after the last batch that was handed out.

    Args:
        data: The images.
        batch_size: Images per global batch, over all processes.
        seed: Seed of the order.
        rank: This process's number.
        world_size: How many processes share each batch.
        num_workers: Worker processes that load ahead; 0 loads in this process.

    Raises:
        ValueError: The batch does not divide over the processes, or is larger than the data set.
    """

    def __init__(
        self,
        data: Images,
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
    ) -> None:
        if batch_size < 1 or batch_size % world_size:
            raise ValueError(
                f"batch_size={batch_size} is the global batch and does not divide over {world_size} processes: "
                f"choose a multiple of {world_size}, for example {max(1, round(batch_size / world_size)) * world_size}."
            )
        if batch_size > len(data):
            raise ValueError(
                f"batch_size={batch_size} exceeds the {len(data)} training images, so an epoch would have no batch: "
                f"lower batch_size to {len(data) // world_size * world_size} or less, or add images."
            )
        self.sampler = Shuffle(len(data), batch_size, seed, rank, world_size)  # where Lightning looks for set_epoch
        super().__init__(data, self.sampler, num_workers)
        self._restored = False

    def __len__(self) -> int:
        return len(self.sampler)

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch; naming the present one keeps the position."""
        self.sampler.set_epoch(epoch)

    def state_dict(self) -> dict[str, int]:
        """The epoch, and how many of its batches were handed out."""
        return {"epoch": self.sampler.epoch, "batch": self.sampler.batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue after the last batch that had been handed out when `state` was taken."""
        self.sampler.epoch, self.sampler.batch, self._restored = state["epoch"], state["batch"], True

    def __iter__(self) -> Iterator[Batch]:
        # A generator: nothing runs before the first `next`, when Lightning is done with load_state_dict and set_epoch.
        if self.sampler.batch == len(self):
            self.set_epoch(self.sampler.epoch + 1)
        elif not self._restored:
            self.sampler.batch = 0
        self._restored = False
        for batch in super().__iter__():
            self.sampler.batch += 1
            yield batch


class ArrayImages(Images):
    """Images held in memory.

    Args:
        images: [N, C, H, W], uint8 0..255 or float in [-1, 1].
        labels: [N] integers, or None.
    """

    def __init__(self, images: Tensor, labels: Tensor | None = None) -> None:
        self.images = images
        self.labels = None if labels is None else labels.long()

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, tickets: Sequence[int]) -> Batch:
        index = torch.tensor(tickets) % len(self)
        batch = Batch(image=self.images[index])
        if self.labels is not None:
            batch["label"] = self.labels[index]
        return batch


class Flipped(Images):
    """Mirrors about half of another data set's images (and their sources) left to right: where `mix(seed, ticket)` is
    odd."""

    def __init__(self, data: Images, seed: int) -> None:
        self.data, self.seed = data, seed

    def __len__(self) -> int:
        return len(self.data)

    def __getitems__(self, tickets: Sequence[int]) -> Batch:
        batch = self.data.__getitems__(tickets)
        coin = torch.tensor([mix(self.seed, ticket) & 1 for ticket in tickets], dtype=torch.bool)[:, None, None, None]
        for key in ("image", "source"):
            if key in batch:
                batch[key] = torch.where(coin, batch[key].flip(-1), batch[key])
        return batch


class GANDataModule(LightningDataModule):
    """Base of the data modules. A subclass sets the four attributes in its constructor, implements `make_dataset`, and
    downloads in `prepare_data` where it must.

    Attributes:
        name: What logs and file names call the data.
        image_size: Height and width of the images in pixels.
        channels: Channels per image.
        num_classes: Number of labels, None where the batches carry none.

    Args:
        batch_size: Images per training batch, over all processes together.
        num_workers: Worker processes per training process that load ahead; 0 loads in the training process.
        flip: Whether to mirror half of the training images left to right, anew in every epoch.
        seed: Seed of the order and the flips; None takes the one given to `seed_everything`.
    """

    name: str
    image_size: int
    channels: int
    num_classes: int | None

    def __init__(
        self, *, batch_size: int = 64, num_workers: int = 0, flip: bool = False, seed: int | None = None
    ) -> None:
        super().__init__()
        self.name = type(self).__name__
        self.batch_size, self.num_workers, self.flip, self.seed = batch_size, num_workers, flip, seed
        self._datasets: dict[Split, Images] = {}

    def make_dataset(self, split: Split) -> Images:
        """The data set of a split, without flips; called once per split."""
        raise NotImplementedError

    def dataset(self, split: Split) -> Images:
        """The data set of a split, made at the first call; needs no Trainer, and never flips."""
        if split not in self._datasets:
            self._datasets[split] = self.make_dataset(split)
        return self._datasets[split]

    def train_dataloader(self) -> Loader:
        """Batches as a function of (seed, epoch).

        Raises:
            ValueError: `batch_size` does not divide over the processes, or exceeds the number of images.
        """
        seed = global_seed() if self.seed is None else self.seed
        data = self.dataset("train")
        return Loader(
            Flipped(data, seed) if self.flip else data,
            self.batch_size,
            seed=seed,
            num_workers=self.num_workers,
            **self._place(),
        )

    def val_dataloader(self) -> SequentialLoader | list[Any]:
        """The validation split in order; an empty list where it has no image."""
        return self._sequential("val")

    def test_dataloader(self) -> SequentialLoader | list[Any]:
        """The test split in order; an empty list where it has no image."""
        return self._sequential("test")

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Scale uint8 images to [-1, 1], on the device: bytes are four times cheaper to load, pin and transfer."""
        return tree_map(lambda x: to_float(x) if x.dtype == torch.uint8 else x, batch)

    def _sequential(self, split: Split) -> SequentialLoader | list[Any]:
        data = self.dataset(split)
        place = self._place()
        share = max(1, self.batch_size // place["world_size"])
        return SequentialLoader(data, share, num_workers=self.num_workers, **place) if len(data) else []

    def _place(self) -> dict[str, int]:
        if self.trainer is None:
            return {"rank": 0, "world_size": 1}
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}


def resize(images: Tensor, size: int) -> Tensor:
    """Resample uint8 [N, C, H, W] to uint8 [N, C, size, size], bilinear and antialiased."""
    if images.shape[-2:] == (size, size):
        return images
    parts = [  # in parts, since floats take four times the memory
        F.interpolate(part.float(), (size, size), mode="bilinear", antialias=True).round().clamp(0, 255).byte()
        for part in images.split(1000)
    ]
    return torch.cat(parts)


def square(picture: Image.Image, size: int, fit: Literal["crop", "squeeze"] = "crop") -> Tensor:
    """A picture of mode L or RGB as uint8 [C, size, size].

    Args:
        picture: Any size.
        size: Pixels per side.
        fit: "crop" keeps the largest centred square, "squeeze" all of the picture, distorted.
    """
    if fit == "crop":
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        picture = picture.crop((left, top, left + side, top + side))
    if picture.size != (size, size):
        picture = picture.resize((size, size), Image.Resampling.LANCZOS)  # Pillow's filters are antialiased
    return torch.from_numpy(np.array(picture)).reshape(size, size, -1).permute(2, 0, 1).contiguous()


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
