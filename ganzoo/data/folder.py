"""Folders of the user's own pictures, of any size and nesting."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import statistics
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ganzoo.core.limits import Count, NonNegative, Share, Size, sides
from ganzoo.core.text import composed, path_of, visible
from ganzoo.core.types import Batch
from ganzoo.data.agreed import Range, agreed, limits, summary
from ganzoo.data.archive import File, name_of, open_any
from ganzoo.data.base import GANDataModule, Split, Workers
from ganzoo.data.datasets import Images, combine, digest_files
from ganzoo.data.decoding import Fit, Header, Tree, find, header, listing, readable, upright
from ganzoo.data.rasters import Raster
from ganzoo.data.reading import Reading, as_raster

SPLITS: tuple[Split, ...] = ("train", "val", "test")
DATASET = "dataset.json"  # StyleGAN's file of labels
MOST_JSON, MOST_CLASSES = 1 << 26, 1_000_000  # its maximum bytes, and classes
VAL, TEST = 1, 2  # bits


class ImageFolder(GANDataModule):
    """Your own pictures, flat or nested: PNG, JPEG, WebP, BMP, TIFF and GIF (the first frame); or, in a folder without
    these, .npy and .npz (the first array) with one picture each, [H, W] or [H, W, C].

    Grey, colour, palette, CMYK and transparent pictures are all converted, and EXIF orientation is applied. Images of
    more than 8 bits per channel are float32, without loss. Hidden files, and files with other extensions, are ignored.
    A zip archive is read like the folder that it contains, without unpacking it.

    If all pictures are in top-level folders train and val, train and test, or all three, these are the splits (the
    other one replaces a missing val or test). Otherwise a hash of a file's relative path, independent of the seed,
    determines its split, so adding files does not move others: val and test are the same `val_fraction` of the files;
    train is the rest.

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
        super().__init__(num_workers=min(8, os.cpu_count() or 1) if num_workers is None else num_workers, **kwargs)
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
            room = min(room, shutil.disk_usage("/dev/shm").free / 2)
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
        shape, reading, labels = self.pictures.shape, self.pictures.reading, self.pictures.labels
        files = digest_files(self.pictures.files[i] for i in self.members)
        classes = None if labels is None else labels[self.members].tolist()
        return combine("folder 1", shape, reading.fit, classes, *reading.unusual, *files)


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
    empty: list[str]  # top-level subfolders without a readable picture
    unusable: dict[str, str]  # file -> why it cannot be read: not a picture, truncated ...
    notes: dict[str, str]  # usable file -> remarks: smaller than image_size, animated, more than 8 bits, transparent
    suffixes: dict[str, int]  # of the other files, which are ignored -> number of files
    bands: dict[int, int]  # number of bands, with alpha -> number of files
    ranges: dict[str, tuple[int, float, float]]  # type of values -> number of files, smallest and largest value
    transparent: int  # files
    rotated: int  # files turned by their orientation
    animated: int  # files of several frames


def scan(path: str, image_size: Size | None = None, progress: Callable[[int, int], None] | None = None) -> FolderReport:
    """Inspect and fully decode every picture of a folder.

    Args:
        path: The folder, or a zip archive.
        image_size: Smaller pictures, in width or height, get a note; None for no such notes.
        progress: Called with (files done, total files) after each file.

    Raises:
        FileNotFoundError: The folder does not exist, or contains no pictures.
        NotADirectoryError: `path` is another file.
        ValueError: The archive is damaged.
    """
    root = path_of(path)
    tree = find(root)
    names = list(tree.pictures)
    seen: dict[str, _Seen] = {}
    unusable, notes = {}, {}
    with ThreadPoolExecutor() as pool:
        for done, (name, found) in enumerate(zip(names, pool.map(_inspect, tree.pictures.values()), strict=True), 1):
            if isinstance(found, str):
                unusable[name] = found
            else:
                seen[name] = found
                if remarks := found.notes(image_size):
                    notes[name] = "; ".join(remarks)
            if progress is not None:
                progress(done, len(names))
    headers = [picture.header for picture in seen.values()]
    widths, heights = ([found.size[axis] for found in headers] or [0] for axis in (0, 1))
    of_type = {kind: [x for x in seen.values() if x.header.dtype == kind] for kind in {x.dtype: 0 for x in headers}}
    return FolderReport(
        images=len(names),
        others=len(tree.others),
        extensions=dict(Counter(Path(name).suffix.lower() for name in names)),
        modes=dict(Counter(found.mode for found in headers)),
        width=(min(widths), int(statistics.median(widths)), max(widths)),
        height=(min(heights), int(statistics.median(heights)), max(heights)),
        sizes=len({found.size for found in headers}),
        classes=dict(Counter(composed(name.split("/")[0]) if "/" in name else "" for name in names)),
        empty=sorted(_tops(tree.folders) - _tops(name for name in names if "/" in name and name not in unusable)),
        unusable=unusable,
        notes=notes,
        suffixes=dict(Counter(Path(name).suffix.lower() or "(no suffix)" for name in tree.others)),
        bands=dict(Counter(found.bands for found in headers)),
        ranges={kind: (len(x), min(p.low for p in x), max(p.high for p in x)) for kind, x in of_type.items()},
        transparent=sum(picture.transparent for picture in seen.values()),
        rotated=sum(found.rotated for found in headers),
        animated=sum(found.frames for found in headers),
    )


def _tops(names: Iterable[str]) -> set[str]:
    return {composed(name.split("/")[0]) for name in names}


class _Seen(NamedTuple):
    """A decoded picture."""

    header: Header
    low: float
    high: float
    transparent: bool

    def notes(self, image_size: Size | None) -> list[str]:
        (width, height), kind = self.header.size, self.header.dtype
        small = image_size is not None and (height < sides(image_size)[0] or width < sides(image_size)[1])
        notes = {
            f"{width}x{height}, below {image_size} pixels": small,
            "several frames; only the first is used": self.header.frames,
            f"{kind} from {self.low:.6g} to {self.high:.6g}": self.header.deep,
            "transparent, put on white": self.transparent,
        }
        return [note for note, applies in notes.items() if applies]


def _inspect(file: File) -> _Seen | str:
    """A picture; or the reason why it cannot be decoded."""
    if isinstance(seen := header(file), str):
        return seen
    try:
        raster = picture if isinstance(picture := upright(file), Raster) else as_raster(picture)
        return _Seen(seen, *limits(raster), raster.alpha and bool((raster.values[..., -1] < raster.full).any()))
    except Exception as error:  # Pillow, numpy and tifffile raise many types on broken files
        return str(error)


def classify(root: Path, tree: Tree, names: Sequence[str]) -> tuple[list[str], list[int]]:
    """Class names, and the class of each of these pictures; warns about classes that none of them has.

    Raises:
        ValueError: A picture has no class, or dataset.json is damaged.
    """
    if (file := tree.others.get(DATASET)) is not None:
        numbers = _listed(file, names)
        classes = [str(number) for number in range(max(numbers, default=-1) + 1)]
    else:
        splits = tuple(f"{split}/" for split in SPLITS)
        depth = int(all(name.startswith(splits) for name in tree.pictures))
        beside = [name for name in names if name.count("/") <= depth]
        if beside:
            below = f" or its folders {', '.join(SPLITS)}" if depth else ""
            raise ValueError(
                f"labels=True takes the class from the subfolder, but {len(beside)} pictures lie directly in "
                f"{visible(root.absolute())}{below}: {listing(beside)}.\n"
                "Move each into the subfolder of its class, or pass labels=False."
            )
        folders = [name for name in tree.folders if name.count("/") == depth and (not depth or name.startswith(splits))]
        classes = sorted({composed(name.split("/")[depth]) for name in folders}, key=natural)
        numbered = {name: number for number, name in enumerate(classes)}
        numbers = [numbered[composed(name.split("/")[depth])] for name in names]
    used = set(numbers)
    if empty := [name for number, name in enumerate(classes) if number not in used]:
        warnings.warn(
            f"{len(empty)} of {len(classes)} classes in {visible(root.absolute())} have no readable picture: "
            f"{listing(empty)}.\nThey keep their numbers; remove their folders if they are not classes.",
            stacklevel=3,
        )
    return classes, numbers


def _listed(file: File, names: Sequence[str]) -> list[int]:
    """The classes of pictures in StyleGAN's dataset.json: {"labels": [["00000/img00000000.png", 6], ...]}."""
    cure = "write it with StyleGAN's dataset_tool.py, or pass labels=False"
    try:
        with open_any(file) as opened:
            content = opened.read(MOST_JSON + 1)
        if len(content) > MOST_JSON:
            raise ValueError(f"it has more than {MOST_JSON:,} bytes")
        pairs = json.loads(content)["labels"]
        numbers = {composed(name.replace("\\", "/")): number for name, number in pairs or ()}
    except (AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"{visible(file)} is not a list of labels ({error}): {cure}") from error
    if not numbers:
        raise ValueError(f"{visible(file)} has no labels: pass labels=False")
    bad = [name for name in names if (number := numbers.get(composed(name))) is None or type(number) is not int]
    if bad:
        raise ValueError(
            f"{visible(file)} has no class number for {len(bad)} pictures: {listing(bad)}.\nTo use them, {cure}."
        )
    found = [numbers[composed(name)] for name in names]
    if min(found) < 0 or max(found) >= MOST_CLASSES:
        raise ValueError(
            f"{visible(file)} has classes {min(found)} to {max(found)}, not 0 to at most {MOST_CLASSES - 1:,}"
        )
    return found


def natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """A key that sorts names with numbers by their value: "a2" before "a10", and otherwise as text."""
    parts = [part.lstrip("0") if i % 2 else part for i, part in enumerate(re.split("([0-9]+)", name))]
    return [(len(part) if i % 2 else 0, part) for i, part in enumerate(parts)], name  # 01 and 1 differ in the name


def places(names: Sequence[str]) -> list[float]:
    """What determines each picture's split: its folder, if all are splits, or else a hash of its name."""
    if not split_folders(names):
        return [fraction(name) for name in names]
    return [{"train": 1.0, "val": -1.0, "test": -2.0}[name.split("/")[0]] for name in names]


def split_folders(names: Sequence[str]) -> bool:
    """Whether all pictures are in top-level folders train and val, train and test, or all three."""
    folders = {name.split("/")[0] if "/" in name else "" for name in names}
    return "train" in folders and len(folders) > 1 and folders <= set(SPLITS)


def held_out(place: Tensor, val_fraction: float) -> Tensor:
    """In which held-out splits pictures are, [N]: `VAL`, `TEST`, both, or 0 for train.

    Args:
        place: [N], from `places`.
        val_fraction: See `ImageFolder`.
    """
    found = torch.where(place < val_fraction, VAL | TEST, 0)
    if (place == -1).any() and (place == -2).any():
        found[place == -1], found[place == -2] = VAL, TEST
    return found


def of_split(held: Tensor, split: Split) -> Tensor:
    """Indices of a split's pictures, [n].

    Args:
        held: [N], from `held_out`.
        split: Name of the split.
    """
    chosen = held == 0 if split == "train" else held & (VAL if split == "val" else TEST) > 0
    return chosen.nonzero()[:, 0]


def fraction(name: str) -> float:
    """A hash of the name, in [0, 1), the same on every machine; the name may contain bytes that are not UTF-8."""
    text = composed(name).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest()) / 2**32
