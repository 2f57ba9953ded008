"""Folders of the user's own pictures, of any size and nesting."""

from __future__ import annotations

import hashlib
import os
import shutil
import statistics
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ganzoo.core.limits import NonNegative, Share, Size, sides
from ganzoo.core.text import composed, path_of, visible
from ganzoo.core.types import Batch
from ganzoo.data.base import GANDataModule, Split, Workers
from ganzoo.data.datasets import Images, combine, digest_files
from ganzoo.data.decoding import Fit, decode, deep, find, header, listing, open_picture, readable, upright


class ImageFolder(GANDataModule):
    """Your own pictures, flat or nested: PNG, JPEG, WebP, BMP, TIFF and GIF (the first frame).

    Grey, colour, palette, CMYK, 16-bit and transparent pictures (on white) are all converted, and EXIF orientation is
    applied. Hidden files, and files with other extensions, are ignored.

    A hash of a file's relative path, independent of the seed, determines its split, so adding files does not move
    others. val and test are the same `val_fraction` of the files; train is the rest.

    Attributes:
        classes: Class names, in the order of the labels; empty without labels.

    Args:
        path: The folder.
        image_size: Pixels per side of a square after resampling, or [height, width].
        channels: 3 for colour, 1 for grey.
        fit: For pictures of another shape: "crop" the centre, "squeeze" the whole picture, or "pad" it with white.
        labels: Whether the folder's top-level subfolders are the classes, in sorted order.
        corrupt: "refuse" raises an error that lists unreadable files; "skip" warns and uses others instead.
        val_fraction: Share of the files held out for val and test, 0 to 1.
        cache_gb: Memory for decoded pictures in GB; if all of them fit, each is decoded only once, otherwise in every
            epoch.
        num_workers: Worker processes that decode in advance; None takes the number of CPU cores, at most 8.
        **kwargs: See `GANDataModule`.

    Raises:
        FileNotFoundError: The folder does not exist, or contains no pictures.
        NotADirectoryError: `path` is a file.
        ValueError: Some files are not pictures, or, with `labels`, some pictures are not in a subfolder.
    """

    def __init__(
        self,
        path: str,
        image_size: Size = 64,
        channels: Literal[1, 3] = 3,
        fit: Fit = "crop",
        labels: bool = False,
        corrupt: Literal["refuse", "skip"] = "refuse",
        val_fraction: Share = 0.1,
        cache_gb: NonNegative = 2.0,
        num_workers: Workers | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_workers=min(8, os.cpu_count() or 1) if num_workers is None else num_workers, **kwargs)
        root = path_of(path)
        names = list(readable(root, find(root)[0], corrupt))
        self.name, self.image_size, self.channels = root.resolve().name, image_size, channels
        self.classes = class_names(root, names) if labels else []
        self.num_classes = len(self.classes) or None
        self._held_out = torch.tensor([fraction(name) < val_fraction for name in names])
        self._pictures = FolderPictures(
            [root / name for name in names],
            torch.tensor([self.classes.index(class_of(name)) for name in names]) if labels else None,
            (channels, *sides(image_size)),
            fit,
            skip=corrupt == "skip",
            cache_gb=cache_gb,
            shared=self.num_workers > 0,
        )

    def make_dataset(self, split: Split) -> Images:
        chosen = ~self._held_out if split == "train" else self._held_out
        return FolderImages(self._pictures, chosen.nonzero()[:, 0].tolist())


class Store:
    """A cache of decoded pictures, shared by all splits and, through shared memory, by all workers.

    Args:
        names: Names of the pictures, for messages.
        shape: (C, H, W) of the decoded pictures.
        skip: Whether to warn about undecodable pictures instead of raising an error.
        cache_gb: See `ImageFolder`.
        shared: Whether workers share the memory.
    """

    def __init__(
        self, names: Sequence[str], shape: tuple[int, int, int], *, skip: bool, cache_gb: float, shared: bool
    ) -> None:
        self.names, self.shape, self.skip = names, shape, skip
        size = len(names) * shape[0] * shape[1] * shape[2]
        room = cache_gb * 1e9
        if shared and os.path.isdir("/dev/shm"):  # small in many containers; exceeding it kills the process
            room = min(room, shutil.disk_usage("/dev/shm").free / 2)
        self.cache = torch.empty(len(names), *shape, dtype=torch.uint8) if size <= room else None
        self.cached = torch.zeros(len(names), dtype=torch.bool)
        self.broken = torch.zeros(len(names), dtype=torch.bool)
        if shared:
            for tensor in (self.cache, self.cached, self.broken):
                if tensor is not None:
                    tensor.share_memory_()

    def decode(self, i: int) -> Tensor:
        """Picture i as uint8 [C, H, W]; may raise any exception."""
        raise NotImplementedError

    def read(self, i: int) -> Tensor | None:
        """Picture i as uint8 [C, H, W]. If it cannot be decoded: with `skip`, None and a single warning; otherwise a
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

    def __init__(
        self, files: list[Path], labels: Tensor | None, shape: tuple[int, int, int], fit: Fit, **store: Any
    ) -> None:
        super().__init__([str(file) for file in files], shape, **store)
        self.files, self.labels, self.fit = files, labels, fit

    def decode(self, i: int) -> Tensor:
        return decode(self.files[i], self.shape[1:], self.shape[0], self.fit)


class StoredImages(Images):
    """A subset of a store; the next picture, in sorted order, replaces one that cannot be decoded."""

    def __init__(self, pictures: Store, members: list[int]) -> None:
        self.pictures, self.members = pictures, members

    def __len__(self) -> int:
        return len(self.members)

    def read(self, tickets: Sequence[int]) -> tuple[list[int], Tensor]:
        """The pictures of these tickets: their indices in the store, and their pixels, uint8 [N, C, H, W]."""
        found = [self._read(ticket % len(self)) for ticket in tickets]
        return [i for i, _ in found], torch.stack([image for _, image in found])

    def _read(self, position: int) -> tuple[int, Tensor]:
        for i in self.members[position:] + self.members[:position]:
            image = self.pictures.read(i)
            if image is not None:
                return i, image
        raise RuntimeError(
            f"None of the {len(self)} pictures of this split can be decoded: check {self.pictures.names[0]} and the "
            "others."
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
        shape, fit, labels = self.pictures.shape, self.pictures.fit, self.pictures.labels
        files = digest_files(self.pictures.files[i] for i in self.members)
        return combine("folder 1", shape, fit, None if labels is None else labels[self.members].tolist(), *files)


@dataclass
class FolderReport:
    """Results of `scan`. File names are relative to the folder, with forward slashes."""

    images: int  # files with a picture's extension
    others: int  # other files, without hidden ones
    extensions: dict[str, int]  # ".jpg" -> number of files
    modes: dict[str, int]  # Pillow's mode ("RGB", "L", "P" ...) -> number of files
    width: tuple[int, int, int]  # smallest, median, largest, in pixels; zeros if no file could be read
    height: tuple[int, int, int]
    sizes: int  # number of distinct (width, height)
    classes: dict[str, int]  # top-level subfolder -> number of files; "" for files outside subfolders
    unusable: dict[str, str]  # file -> why it cannot be read: not a picture, truncated ...
    notes: dict[str, str]  # usable file -> remarks: smaller than image_size, animated, 16 bits, transparent


def scan(path: str, image_size: Size | None = None, progress: Callable[[int, int], None] | None = None) -> FolderReport:
    """Inspect and fully decode every picture of a folder.

    Args:
        path: The folder.
        image_size: Smaller pictures, in width or height, get a note; None for no such notes.
        progress: Called with (files done, total files) after each file.

    Raises:
        FileNotFoundError: The folder does not exist, or contains no pictures.
        NotADirectoryError: `path` is a file.
    """
    root = path_of(path)
    names, others = find(root)
    sizes, modes = [], Counter[str]()
    unusable, notes = {}, {}
    with ThreadPoolExecutor() as pool:
        for done, (name, seen) in enumerate(zip(names, pool.map(_inspect, (root / n for n in names)), strict=True), 1):
            if isinstance(seen, str):
                unusable[name] = seen
            else:
                size, mode, found = seen
                sizes.append(size)
                modes[mode] += 1
                if image_size and (size[1] < sides(image_size)[0] or size[0] < sides(image_size)[1]):
                    found = [f"{size[0]}x{size[1]}, below {image_size} pixels", *found]
                if found:
                    notes[name] = "; ".join(found)
            if progress is not None:
                progress(done, len(names))
    widths, heights = ([size[axis] for size in sizes] or [0] for axis in (0, 1))
    return FolderReport(
        images=len(names),
        others=others,
        extensions=dict(Counter(Path(name).suffix.lower() for name in names)),
        modes=dict(modes),
        width=(min(widths), int(statistics.median(widths)), max(widths)),
        height=(min(heights), int(statistics.median(heights)), max(heights)),
        sizes=len(set(sizes)),
        classes=dict(Counter(class_of(name) if "/" in name else "" for name in names)),
        unusable=unusable,
        notes=notes,
    )


def _inspect(file: Path) -> tuple[tuple[int, int], str, list[str]] | str:
    """Upright size, mode and notes of a picture; or the reason why it cannot be decoded."""
    if isinstance(seen := header(file), str):
        return seen
    try:
        upright(file)
        with open_picture(file) as picture:
            alpha = (
                picture.convert("RGBA").getchannel("A").getextrema() if picture.has_transparency_data else (255, 255)
            )
            animated = getattr(picture, "is_animated", False)  # counting 100,000 frames would take minutes
    except Exception as error:
        return str(error)
    notes = {
        "several frames; only the first is used": animated,
        "16 bits per channel, reduced to 8": deep(seen[1]),
        "transparent, put on white": alpha != (255, 255),
    }
    return *seen, [note for note, applies in notes.items() if applies]


def class_names(root: Path, names: Iterable[str]) -> list[str]:
    beside = [name for name in names if "/" not in name]
    if beside:
        raise ValueError(
            f"labels=True takes the class from the subfolder, but {len(beside)} pictures lie directly in "
            f"{visible(root.absolute())}: {listing(beside)}\n"
            "Move each into the subfolder of its class, or pass labels=False."
        )
    return sorted({class_of(name) for name in names})


def class_of(name: str) -> str:
    """The class of a picture: its top-level folder."""
    return composed(name.split("/")[0])


def fraction(name: str) -> float:
    """A hash of the name, in [0, 1), the same on every machine; the name may contain bytes that are not UTF-8."""
    text = composed(name).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest()) / 2**32
