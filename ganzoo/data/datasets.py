"""Data sets that return whole batches.

`Images.__getitems__` takes tickets: `epoch * len(data) + index`. All randomness of an image is a function of (seed,
ticket), so the batches do not depend on the number of processes and workers, and a run resumed within an epoch gets the
batches of an uninterrupted run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.data import Dataset

from ganzoo.core.files import in_threads
from ganzoo.core.random import mix
from ganzoo.core.types import Batch
from ganzoo.data.archive import File, open_any

PICTURES: tuple[Literal["image", "source"], ...] = ("image", "source")  # flipped and cropped together


class Images(Dataset[Batch]):
    """A data set that returns whole batches; a subclass implements `__len__` and `__getitems__`.

    `__getitems__` takes tickets, `epoch * len(self) + index`, and returns the images `index`. A random transform of an
    image is a function of a seed and the ticket, so it differs between epochs, but not between processes or workers.
    """

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitems__(self, tickets: Sequence[int]) -> Batch:
        """A batch of the images `ticket % len(self)`; uint8 0..255 or float in [-1, 1]."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> Batch:
        """A single image [C, H, W] with its label, for inspection."""
        return tree_map(lambda x: x[0], self.__getitems__([index]))

    def labels(self) -> Tensor | None:
        """int64 [N], or None without labels; computed at the first call, then cached."""
        return self._labels

    def different_sources(self) -> int:
        """Number of images until a source repeats."""
        return len(self)

    @cached_property
    def _labels(self) -> Tensor | None:
        """Reads every image; subclasses override it with something cheaper."""
        parts = []
        for batch in self._blocks():
            if "label" not in batch:
                return None
            parts.append(batch["label"].long())
        return torch.cat(parts) if parts else None

    def fingerprint(self) -> str:
        """sha256 (hex) that identifies the pixels and labels, in order; results for images with the same fingerprint
        can be reused. Computed at the first call, then cached.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return self._digest()

    def _digest(self) -> str:
        """Reads every image; subclasses override it with something cheaper."""
        return digest(self._blocks())

    def _blocks(self) -> Iterator[Batch]:
        for start in range(0, len(self), 64):
            yield self.__getitems__(range(start, min(start + 64, len(self))))


def digest(blocks: Iterable[Batch]) -> str:
    """The fingerprint of these batches' images, labels and sources; independent of the batch size."""
    kind, n, images, labels, sources = "", 0, hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    source_kind: list[str] = []
    for batch in blocks:
        image = batch["image"]
        kind, n = f"{image.dtype} {list(image.shape[1:])}", n + len(image)
        images.update(_bytes(image))
        if "label" in batch:
            labels.update(batch["label"].long().contiguous().numpy().data)
        if "source" in batch:
            source = batch["source"]
            sources.update(_bytes(source))
            source_kind = [f"{source.dtype} {list(source.shape[1:])}", sources.hexdigest()]
    return combine("images 1", kind, n, images.hexdigest(), labels.hexdigest(), *source_kind)


def _bytes(images: Tensor) -> memoryview:
    return images.contiguous().flatten().view(torch.uint8).numpy().data


def combine(*parts: object) -> str:
    """sha256 (hex) of the parts as text; the first part is the kind and version of the fingerprint."""
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()


def digest_files(files: Iterable[File]) -> Iterator[str]:
    """sha256 (hex) of each file's bytes, in order."""

    def one(file: File) -> str:
        with open_any(file) as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()

    yield from in_threads(one, files)


class ArrayImages(Images):
    """Images held in memory.

    Args:
        images: [N, C, H, W], uint8 0..255 or float in [-1, 1].
        labels: [N] integers, or None.
    """

    def __init__(self, images: Tensor, labels: Tensor | None = None) -> None:
        self.images = images
        self._labels = None if labels is None else labels.long()

    def fingerprint(self) -> str:
        """Computed at every call, since the tensors may change."""
        return self._digest()

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, tickets: Sequence[int]) -> Batch:
        index = torch.tensor(tickets) % len(self)
        batch = Batch(image=self.images[index])
        if self._labels is not None:
            batch["label"] = self._labels[index]
        return batch

    def _blocks(self) -> Iterator[Batch]:
        if len(self):  # all at once, without copies
            yield Batch(image=self.images) if self._labels is None else Batch(image=self.images, label=self._labels)


class Wrapped(Images):
    """Base of transformations of another data set; same length, same labels."""

    def __init__(self, data: Images) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    @cached_property
    def _labels(self) -> Tensor | None:
        return self.data.labels()


class Flipped(Wrapped):
    """Mirrors a random half of another data set's images, and their sources, left to right.

    Args:
        data: The images.
        seed: Seed of the choice, which also depends on the ticket, so it differs between epochs.
    """

    def __init__(self, data: Images, seed: int) -> None:
        super().__init__(data)
        self.seed = seed

    def __getitems__(self, tickets: Sequence[int]) -> Batch:
        batch = self.data.__getitems__(tickets)
        coin = torch.tensor([mix(self.seed, ticket) & 1 for ticket in tickets], dtype=torch.bool)[:, None, None, None]
        for key in PICTURES:
            if key in batch:
                batch[key] = torch.where(coin, batch[key].flip(-1), batch[key])
        return batch


class Jittered(Wrapped):
    """Random crops of another data set's images, the same for an image and its source; the position is a function of
    (seed, ticket).

    Args:
        data: The images, at least as large as the crop.
        size: Height and width of the crop in pixels.
        seed: Seed of the positions.
    """

    def __init__(self, data: Images, size: tuple[int, int], seed: int) -> None:
        super().__init__(data)
        self.size, self.seed = size, seed

    def __getitems__(self, tickets: Sequence[int]) -> Batch:
        batch = self.data.__getitems__(tickets)
        for key in PICTURES:
            if key in batch:
                cut = [self._window(image, t) for image, t in zip(batch[key], tickets, strict=True)]
                batch[key] = torch.stack(cut)
        return batch

    def _window(self, image: Tensor, ticket: int) -> Tensor:
        height, width = self.size
        top = mix(self.seed, ticket, 0) % (image.shape[1] - height + 1)
        left = mix(self.seed, ticket, 1) % (image.shape[2] - width + 1)
        return image[:, top : top + height, left : left + width]


class Chosen(Images):
    """A subset of another data set, by indices."""

    def __init__(self, data: Images, members: Sequence[int]) -> None:
        self.data, self.members = data, members

    def __len__(self) -> int:
        return len(self.members)

    def __getitems__(self, tickets: Sequence[int]) -> Batch:
        return self.data.__getitems__([self.members[ticket % len(self)] for ticket in tickets])

    @cached_property
    def _labels(self) -> Tensor | None:
        labels = self.data.labels()
        return None if labels is None else labels[list(self.members)]

    def _digest(self) -> str:
        return combine("chosen 1", self.data.fingerprint(), list(self.members))


class Merged(Wrapped):
    """Merges the batches of two data sets for the same tickets; length and labels are those of the first, but the
    length is 0 if the second is empty."""

    def __init__(self, data: Images, others: Images) -> None:
        super().__init__(data)
        self.others = others

    def __len__(self) -> int:
        return len(self.data) if len(self.others) else 0

    def different_sources(self) -> int:
        return min(len(self), len(self.others))

    def __getitems__(self, tickets: Sequence[int]) -> Batch:
        return Batch(**{**self.data.__getitems__(tickets), **self.others.__getitems__(tickets)})

    def _digest(self) -> str:
        return combine("merged 1", self.data.fingerprint(), self.others.fingerprint())
