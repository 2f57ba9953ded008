"""Folders of the user's own pictures, of any size and nesting."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from ganzoo.core.limits import Count, NonNegative, Share, Size
from ganzoo.core.text import path_of, visible
from ganzoo.core.types import Batch
from ganzoo.data.agreed import Range, agreed, summary
from ganzoo.data.archive import File, name_of
from ganzoo.data.base import GANDataModule, Split, Workers, missing, workers
from ganzoo.data.datasets import Images, combine, digest_files
from ganzoo.data.decoding import Fit
from ganzoo.data.finding import find, readable
from ganzoo.data.labels import classify, held_out, of_split, places
from ganzoo.data.reading import Reading


class ImageFolder(GANDataModule):
    """Your own pictures, flat or nested: PNG, JPEG, WebP, BMP, TIFF and GIF (the first frame); or, in a folder without
    these, .npy and .npz (the first array) with one picture each, [H, W] or [H, W, C].

    Grey, colour, palette, CMYK and transparent pictures are all converted, and EXIF orientation is applied. Images of
    more than 8 bits per channel are float32, without loss. Hidden files, and files with other extensions, are ignored.
    A zip archive is read like the folder that it contains, without unpacking it.

    If all pictures are in top-level folders train and val, train and test, or all three, these are the splits (the
    other one replaces a missing val or test). Otherwise a hash of a file's relative path, independent of the seed,
    determines its split, so adding files does not move others: the share `val_fraction` with the lowest hashes is both
    val and test (the same pictures); the rest is train.

    Attributes:
        classes: Class names, in the order of the labels; empty without labels.
        reading: How files become images.

    Args:
        path: The folder, or a zip archive.
        image_size: Pixels per side of a square after resampling, or [height, width].
        channels: 3 for colour, 1 for grey; 4 and 2 for these with alpha; or the number of bands in TIFF, .npy and .npz.
        fit: For pictures of another shape: "crop" the centre, "squeeze" the whole picture, or "pad" it with the
            background (with transparency for 2 or 4 channels, with the lowest value for other bands).
        labels: Whether pictures have classes: the top-level subfolders (or those of train, val and test), sorted with
            numbers by their value ("2" before "10"); or, if there is one, StyleGAN's dataset.json. A subfolder without
            a readable picture keeps its number.
        corrupt: "refuse" raises an error that lists unreadable files; "skip" warns and uses others instead.
        val_fraction: Share of the files held out for val and test, 0 to 1.
        cache_gb: Memory for decoded pictures in GB; if all of them fit, each is decoded only once, otherwise in every
            epoch.
        num_workers: Worker processes that decode in advance; None takes the number of CPU cores, at most 8.
        background: Name of the colour on which transparent pictures are put, or #rrggbb, for 1 or 3 channels; None for
            white.
        range: The values that become -1 and 1 (others are clipped): [lowest, highest], "type" for those of each file's
            integers, or "data" for those in all files. None is "type" for unsigned integers of up to 16 bits; other
            types need a range.
        **kwargs: See `GANDataModule`.

    Raises:
        FileNotFoundError: The folder does not exist, or contains no pictures.
        NotADirectoryError: `path` is another file.
        ValueError: Some files are not pictures, or have other bands or another depth; the archive is damaged; or, with
            `labels`, some pictures have no class.
    """

    def __init__(
        self,
        path: str,
        image_size: Size = 64,
        channels: Count = 3,
        fit: Fit = "crop",
        labels: bool = False,
        corrupt: Literal["refuse", "skip"] = "refuse",
        val_fraction: Share = 0.1,
        cache_gb: NonNegative = 2.0,
        num_workers: Workers | None = None,
        background: str | None = None,
        range: Range = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_workers=workers(num_workers), **kwargs)
        root = path_of(path)
        tree = find(root)
        headers = readable(root, tree.pictures, corrupt)
        names = list(headers)
        self.reading = agreed(
            root, tree.pictures, headers, Reading(image_size, channels, fit, background), range, corrupt
        )
        self.seen = summary(headers.values(), self.reading, tree.others)
        self.name, self.image_size, self.channels = name_of(root), image_size, channels
        self.readings = {"image": self.reading}
        self.classes, numbers = classify(root, tree, names) if labels else ([], None)
        self.num_classes = len(self.classes) or None
        self._held_out = held_out(torch.tensor(places(names), dtype=torch.float64), val_fraction)
        self._pictures = FolderPictures(
            [tree.pictures[name] for name in names],
            None if numbers is None else torch.tensor(numbers),
            self.reading,
            skip=corrupt == "skip",
            cache_gb=cache_gb,
            shared=self.num_workers > 0,
        )

    def make_dataset(self, split: Split) -> Images:
        return FolderImages(self._pictures, of_split(self._held_out, split).tolist())

    def absent(self) -> list[int]:
        labels = self._pictures.labels  # those of `dataset("train")` may need all pictures, to leave out damaged ones
        if labels is None:
            return []
        return missing(labels[of_split(self._held_out, "train")], self.num_classes)


class Store:
    """A cache of decoded pictures, shared by all splits and, through shared memory, by all workers.

    Args:
        names: Names of the pictures, for messages.
        shape: (C, H, W) of the decoded pictures.
        dtype: Of the decoded pictures: uint8, or float32 in [-1, 1].
        skip: Whether to warn about undecodable pictures instead of raising an error.
        cache_gb: See `ImageFolder`.
        shared: Whether workers share the memory.
    """

    def __init__(
        self,
        names: Sequence[str],
        shape: tuple[int, int, int],
        dtype: torch.dtype,
        *,
        skip: bool,
        cache_gb: float,
        shared: bool,
    ) -> None:
        self.names, self.shape, self.skip = names, shape, skip
        size = len(names) * shape[0] * shape[1] * shape[2] * dtype.itemsize
        room = cache_gb * 1e9
        if shared and os.path.isdir("/dev/shm"):  # small in many containers; exceeding it kills the process
            processes = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)  # of torchrun
            room = min(room, shutil.disk_usage("/dev/shm").free / 2 / processes)
        self.cache = torch.empty(len(names), *shape, dtype=dtype) if size <= room else None
        self.cached = torch.zeros(len(names), dtype=torch.bool)
        self.broken = torch.zeros(len(names), dtype=torch.bool)
        if shared:
            for tensor in (self.cache, self.cached, self.broken):
                if tensor is not None:
                    tensor.share_memory_()

    def decode(self, i: int) -> Tensor:
        """Picture i as [C, H, W]; may raise any exception."""
        raise NotImplementedError

    def read(self, i: int) -> Tensor | None:
        """Picture i as [C, H, W]. If it cannot be decoded: with `skip`, None and a single warning; otherwise a
        RuntimeError.
        """
        if self.cached[i] and self.cache is not None:
            return self.cache[i]
        if self.broken[i]:
            return None
        try:
            image = self.decode(i)
        except Exception as error:  # Pillow raises many types on broken files
            name = visible(self.names[i])
            if not self.skip:
                raise RuntimeError(
                    f"{name} cannot be decoded: {error}. Repair or remove it, or set data.corrupt to skip."
                ) from error
            self.broken[i] = True
            warnings.warn(f"skipped {name}, which cannot be decoded: {error}", stacklevel=2)
            return None
        if self.cache is not None:
            self.cache[i] = image
            self.cached[i] = True
        return image


class FolderPictures(Store):
    """The files of a folder, with labels if there are any."""

    def __init__(self, files: list[File], labels: Tensor | None, reading: Reading, **store: Any) -> None:
        super().__init__([str(file) for file in files], reading.shape, reading.dtype, **store)
        self.files, self.labels, self.reading = files, labels, reading

    def decode(self, i: int) -> Tensor:
        return self.reading(self.files[i])


class StoredImages(Images):
    """A subset of a store; the next picture, in sorted order, replaces one that cannot be decoded."""

    def __init__(self, pictures: Store, members: list[int]) -> None:
        self.pictures, self.members = pictures, members

    def __len__(self) -> int:
        return len(self.members)

    def read(self, tickets: Sequence[int]) -> tuple[list[int], Tensor]:
        """The pictures of these tickets: their indices in the store, and their pixels, [N, C, H, W]."""
        found = [self._read(ticket % len(self)) for ticket in tickets]
        return [i for i, _ in found], torch.stack([image for _, image in found])

    def _read(self, position: int) -> tuple[int, Tensor]:
        for k in range(len(self)):
            i = self.members[(position + k) % len(self)]
            image = self.pictures.read(i)
            if image is not None:
                return i, image
        raise RuntimeError(
            f"None of the {len(self)} pictures of this split can be decoded: check "
            f"{self.pictures.names[self.members[0]]} and the others."
        )


class FolderImages(StoredImages):
    """A subset of a folder's pictures, with labels if there are any."""

    pictures: FolderPictures

    def __getitems__(self, tickets: Sequence[int]) -> Batch:
        chosen, images = self.read(tickets)
        batch = Batch(image=images)
        if self.pictures.labels is not None:
            batch["label"] = self.pictures.labels[chosen]
        return batch

    @cached_property
    def _labels(self) -> Tensor | None:
        labels = self.pictures.labels
        if labels is not None and self.pictures.skip:  # replacements are only known after decoding
            return super()._labels
        return None if labels is None else labels[self.members]

    def _digest(self) -> str:
        """Hashes the files' bytes, which determine the pixels."""
        shape, reading, labels = self.pictures.shape, self.pictures.reading, self.pictures.labels
        files = digest_files(self.pictures.files[i] for i in self.members)
        classes = None if labels is None else labels[self.members].tolist()
        return combine("folder 1", shape, reading.fit, classes, *reading.unusual, *files)
