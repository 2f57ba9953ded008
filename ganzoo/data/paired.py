"""Picture folders for translators between two kinds of pictures: paired or unpaired."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from ganzoo.core.limits import Count, Limits, NonNegative, Share, Size, sides
from ganzoo.core.random import mix
from ganzoo.core.text import composed, path_of
from ganzoo.core.types import Batch
from ganzoo.data.agreed import Range, agreed, summary
from ganzoo.data.archive import File, name_of
from ganzoo.data.base import GANDataModule, Split, Workers, workers
from ganzoo.data.datasets import Images, Jittered, Merged, Wrapped, combine, digest_files
from ganzoo.data.decoding import Fit, Header, upright
from ganzoo.data.finding import find, leave_out, listing, readable
from ganzoo.data.folder import FolderImages, FolderPictures, Store, StoredImages
from ganzoo.data.labels import SPLITS, held_out, of_split, places
from ganzoo.data.order import Repeated
from ganzoo.data.reading import Reading

Side = Literal["left", "right"]
Found = dict[str, tuple[File, Header]]  # a folder's pictures, by the names that determine their splits


class _Translation(GANDataModule):
    """Base of `PairedFolder` and `UnpairedFolder`.

    Args:
        image_size: Pixels per side of a square after resampling, or [height, width].
        channels: Of "image", as in `ImageFolder`.
        source_channels: Of "source".
        fit: For pictures of another shape, as in `ImageFolder`: "crop", "squeeze" or "pad".
        jitter: Random crops: training pictures are resampled to this many more pixels per side, and cropped to
            `image_size` at a new position in every epoch; pix2pix and CycleGAN use 30 at 256.
        corrupt: "refuse" raises an error that lists unusable files; "skip" warns and uses others instead.
        val_fraction: Share of the files held out for val and test, 0 to 1, unless subfolders define the splits.
        cache_gb: Memory for decoded pictures in GB; if all of them fit, each is decoded only once, otherwise in every
            epoch.
        num_workers: Worker processes that decode in advance; None takes the number of CPU cores, at most 8.
        background: Colour under transparent pictures, for "image" and "source" of 1 or 3 channels; None for white.
        range: The values of "image" that become -1 and 1, as in `ImageFolder`.
        source_range: Those of "source".
        **kwargs: See `GANDataModule`.
    """

    num_classes = None
    source_channels: int

    def __init__(
        self,
        image_size: Size = 256,
        channels: Count = 3,
        source_channels: Count = 3,
        fit: Fit = "crop",
        jitter: Annotated[int, Limits(0, 2**14)] = 0,
        corrupt: Literal["refuse", "skip"] = "refuse",
        val_fraction: Share = 0.1,
        cache_gb: NonNegative = 2.0,
        num_workers: Workers | None = None,
        background: str | None = None,
        range: Range = None,
        source_range: Range = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_workers=workers(num_workers), **kwargs)
        self.image_size, self.channels, self.source_channels = image_size, channels, source_channels
        self.fit, self.jitter, self.corrupt, self.val_fraction = fit, jitter, corrupt, val_fraction
        self.cache_gb, self.background, self.ranges = cache_gb, background, {"image": range, "source": source_range}
        self.readings: dict[str, Reading] = {}
        self.seen = ""
        self._stores: dict[Any, Store] = {}
        self._others: dict[str, list[str]] = {}  # ignored files, by folder

    def find(self, path: str) -> Found:
        """The usable pictures of a folder, in sorted order."""
        root = path_of(path)
        files, others, _ = find(root)
        self._others[path] = [*others]
        return {name: (files[name], seen) for name, seen in readable(root, files, self.corrupt).items()}

    def find_both(self, path: str, source_path: str) -> dict[str, Found]:
        """The pictures of both folders: {path: ..., source_path: ...}."""
        one, other = path_of(path).resolve(), path_of(source_path).resolve()
        if one == other:
            raise ValueError(
                f"path and source_path are both {path}: set path to the images, and source_path to the sources"
            )
        found = {folder: self.find(folder) for folder in (path, source_path)}
        if one.is_relative_to(other) or other.is_relative_to(one):
            raise ValueError(
                f"of path {path} and source_path {source_path}, one contains the other, so pictures would be both "
                "images and sources: use two folders beside each other"
            )
        _check_colours(found, self.channels, self.source_channels)
        return found

    def agree(self, found: dict[str, Found]) -> None:
        """Sets the readings of "image" and "source". `found` maps a folder to its pictures: one folder for both, or
        that of the images and then that of the sources."""
        channels = {"image": self.channels, "source": self.source_channels}
        plain = [kind for kind in channels if channels[kind] in (1, 3)] or ["image"]  # on the background
        said: list[str] = []
        for kind, (folder, pictures) in zip(channels, [*found.items()] * (3 - len(found)), strict=True):
            files = {name: file for name, (file, _) in pictures.items()}
            headers = {name: seen for name, (_, seen) in pictures.items()}
            reading = Reading(self.size, channels[kind], self.fit, self.background if kind in plain else None)
            key = "data.{}" if kind == "image" else "data.source_{}"
            reading = agreed(path_of(folder), files, headers, reading, self.ranges[kind], self.corrupt, key)
            if text := summary(headers.values(), reading, self._others.get(folder, ())):
                said.append(f"{kind}: {text}")
            self.readings[kind] = reading
        self.seen = "; ".join(said)

    def store(self, key: Any, make: Callable[..., Store], share: float) -> Store:
        """The store of this key, created at the first call with this share of the memory."""
        if key not in self._stores:
            cache_gb = self.cache_gb * share / (2 if self.jitter else 1)  # a second store has the larger pictures
            self._stores[key] = make(cache_gb=cache_gb, skip=self.corrupt == "skip", shared=self.num_workers > 0)
        return self._stores[key]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return sides(self.image_size)

    def varied(self, read: Callable[[tuple[int, int]], Images], seed: int) -> Images:
        """Training images with random crops and flips; `read` returns the images in a given (height, width)."""
        height, width = self.size
        images = read((height + self.jitter, width + self.jitter))
        return self.flipped(Jittered(images, self.size, seed) if self.jitter else images, seed)


class PairedFolder(_Translation):
    """Paired pictures, as for pix2pix: "source" is the input, "image" the target.

    Either each picture shows both side by side, as in pix2pix's own data sets; or `path` contains the targets and
    `source_path` the sources, with the same names except for the extension. Files are read as by `ImageFolder`.

    The splits are independent of the seed. If all pictures are in top-level folders train and val, train and test, or
    all three, these are the splits (the other one replaces a missing val or test). Otherwise a hash of the target's
    relative path determines the split: the share `val_fraction` with the lowest hashes is both val and test (the same
    pictures); the rest is train.

    Args:
        path: The folder or zip archive; with `source_path`, that of the targets.
        source_path: The folder or zip archive of the sources; None: each picture shows source and target side by side.
        source_side: Without `source_path`, the half of each picture that is the source.
        **kwargs: As in `ImageFolder`: `image_size` (256 by default), `channels`, `fit`, `corrupt`, `val_fraction`,
            `cache_gb`, `num_workers`, `background` and `range`; for the sources, `source_channels` (3) and
            `source_range`. `jitter` (0, at most 16,384): training pictures are resampled to this many more pixels per
            side, and cropped to `image_size` at a new position in each epoch. Others: see `GANDataModule`.

    Raises:
        FileNotFoundError: A folder does not exist, or contains no pictures.
        NotADirectoryError: A path is a file.
        ValueError: Some files are not pictures, have no partner of the same aspect ratio, or have an odd width; or only
            one of the folders is grey, but `channels` and `source_channels` are both 3.
    """

    def __init__(self, path: str, source_path: str | None = None, source_side: Side = "left", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.name, self.source_side = name_of(path_of(path)), source_side
        self._files: dict[str, tuple[File, ...]]
        if source_path is None:
            found = self.find(path)
            bad = {name: f"{w} pixels wide" for name, (_, seen) in found.items() if (w := seen.size[0]) % 2}
            leave_out(bad, len(found), f"pictures in {path} have an odd width and cannot be halved", self.corrupt)
            self.agree({path: found})
            self._files = {name: (file,) for name, (file, _) in found.items() if name not in bad}
        else:
            both = self.find_both(path, source_path)
            self._files = _match(both, self.corrupt)
            self.agree(both)
        self._splits = _splits(list(self._files), self.val_fraction)

    def make_dataset(self, split: Split) -> Images:
        return self._read(split, self.size)

    def training_images(self, seed: int) -> Images:
        return self.varied(partial(self._read, "train"), seed)

    def _read(self, split: Split, size: tuple[int, int]) -> Images:
        deep = any(reading.deep for reading in self.readings.values())  # both are in one tensor
        readings = [replace(self.readings[kind], size=size, deep=deep) for kind in ("image", "source")]
        make = partial(PairPictures, list(self._files.values()), readings, self.source_side)
        return PairImages(self.store(size, make, share=1), self._splits[split])


class UnpairedFolder(_Translation):
    """Two sets of unpaired pictures, as for CycleGAN: "source" from one, "image" from the other.

    Either `path` contains CycleGAN's folders trainA and testA (the sources), trainB and testB (the images); or
    `source_path` contains the sources and `path` the images. Files are read as by `ImageFolder`.

    A training epoch is as long as the larger set. Each set is shuffled on its own, as a function of (seed, epoch), and
    the smaller one is repeated. `dataset(split)` is not shuffled: each image occurs once; the sources are in order,
    repeated if there are fewer, cut off if there are more.

    The splits of each set are determined as in `PairedFolder`.

    Args:
        path: The folder of the images, CycleGAN's domain B; without `source_path`, that of both domains.
        source_path: The folder of the sources, CycleGAN's domain A; None: both domains are in `path`.
        **kwargs: As in `ImageFolder`: `image_size` (256 by default), `channels`, `fit`, `corrupt`, `val_fraction`,
            `cache_gb`, `num_workers`, `background` and `range`; for the sources, `source_channels` (3) and
            `source_range`. `jitter` (0, at most 16,384): training pictures are resampled to this many more pixels per
            side, and cropped to `image_size` at a new position in each epoch. Others: see `GANDataModule`.

    Raises:
        FileNotFoundError: A folder does not exist, or contains no pictures.
        NotADirectoryError: A path is a file.
        ValueError: Some files are not pictures; a domain has no pictures; or only one of the domains is grey, but
            `channels` and `source_channels` are both 3.
    """

    paired = False

    def __init__(self, path: str, source_path: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.name = name_of(path_of(path))
        if source_path is None:
            both = self.find(path)
            found = {f"{path}/train{letter}": _domain(both, letter) for letter in "BA"}
            trained = {name: any(file.startswith("train/") for file in files) for name, files in found.items()}
            if missing := [name for name, pictures in trained.items() if not pictures]:
                raise ValueError(
                    f"no pictures in {' and '.join(missing)}: put the images into trainB and the sources into trainA, "
                    "or set data.source_path to the folder of the sources"
                )
            _check_colours(found, self.channels, self.source_channels)
        else:
            found = self.find_both(path, source_path)
        self.agree(found)
        self._found = dict(zip(("image", "source"), found.values(), strict=True))
        self._splits = {kind: _splits(list(pictures), self.val_fraction) for kind, pictures in self._found.items()}

    def make_dataset(self, split: Split) -> Images:
        images, sources = (self._read(kind, split, self.size) for kind in ("image", "source"))
        return Merged(images, Sources(sources))

    def training_images(self, seed: int) -> Images:
        images = self.varied(partial(self._read, "image", "train"), seed)
        sources = self.varied(partial(self._read, "source", "train"), mix(seed, 1))
        if len(images) < len(sources):
            images = Repeated(images, len(sources), seed)
        else:
            sources = Repeated(sources, len(images), seed)
        return Merged(images, Sources(sources))

    def _read(self, kind: str, split: Split, size: tuple[int, int]) -> Images:
        files = [file for file, _ in self._found[kind].values()]
        reading = replace(self.readings[kind], size=size)
        store = self.store((kind, size), partial(FolderPictures, files, None, reading), 1 / 2)
        return FolderImages(store, self._splits[kind][split])


class PairPictures(Store):
    """Decoded pairs: the channels of the target, followed by those of the source.

    Args:
        files: Per pair: one picture with both side by side, or the target and the source.
        readings: Of the target and of the source, of one size.
        source_side: See `PairedFolder`.
        **store: See `Store`.
    """

    def __init__(
        self,
        files: list[tuple[File, ...]],
        readings: Sequence[Reading],
        source_side: Side,
        **store: Any,
    ) -> None:
        self.pairs, self.readings, self.source_side = files, readings, source_side
        self.channels = [reading.channels for reading in readings]
        shape = sum(self.channels), *readings[0].shape[1:]
        super().__init__([" or ".join(map(str, pair)) for pair in files], shape, readings[0].dtype, **store)

    def decode(self, i: int) -> Tensor:
        pair = self.pairs[i]
        if len(pair) == 2:
            return torch.cat([read(file) for read, file in zip(self.readings, pair, strict=True)])
        picture = upright(pair[0])
        width, height = picture.size
        halves = [picture.crop((0, 0, width // 2, height)), picture.crop((width // 2, 0, width, height))]
        if self.source_side == "left":
            halves.reverse()
        return torch.cat([reading.image(half) for reading, half in zip(self.readings, halves, strict=True)])


class PairImages(StoredImages):
    """A subset of the pairs."""

    pictures: PairPictures

    def __getitems__(self, tickets: Sequence[int]) -> Batch:
        _, stacked = self.read(tickets)
        image, source = stacked.split(self.pictures.channels, dim=1)
        return Batch(image=image, source=source)

    _labels = None

    def _digest(self) -> str:
        """Hashes the files' bytes, which determine the pixels."""
        store = self.pictures
        files = digest_files(file for i in self.members for file in store.pairs[i])
        settings = store.channels[0], store.shape, store.readings[0].fit, store.source_side
        return combine("pairs 1", *settings, *(name for reading in store.readings for name in reading.unusual), *files)


class Sources(Wrapped):
    """Renames a data set's "image" to "source"."""

    _labels = None

    def __getitems__(self, tickets: Sequence[int]) -> Batch:
        return Batch(source=self.data.__getitems__(tickets)["image"])

    def _digest(self) -> str:
        return combine("sources 1", self.data.fingerprint())


def _splits(names: Sequence[str], val_fraction: float) -> dict[Split, list[int]]:
    """The indices of each split's names: by top-level folder if all are named as splits, else by a hash of the name."""
    held = held_out(torch.tensor(places(names), dtype=torch.float64), val_fraction)
    found: dict[Split, list[int]] = {split: of_split(held, split).tolist() for split in SPLITS}
    if not found["train"]:
        raise ValueError(
            f"all {len(names)} pictures are held out: lower val_fraction (now {val_fraction}) or add pictures"
        )
    return found


def _domain(found: Found, letter: str) -> Found:
    """The pictures in trainA, valA and testA (for letter A), renamed as if in train, val and test."""
    return {
        f"{split}/{name.partition('/')[2]}": picture
        for split in SPLITS
        for name, picture in found.items()
        if name.startswith(f"{split}{letter}/")
    }


def _match(folders: dict[str, Found], corrupt: str) -> dict[str, tuple[File, ...]]:
    """The files of target and source by the target's name; names match except for the extension."""
    bad: dict[str, str] = {}
    (path, targets), (source_path, sources) = folders.items()
    mine, theirs = (_stems(folder, found, bad) for folder, found in folders.items())
    pairs: dict[str, tuple[File, ...]] = {}
    for stem in sorted({*mine, *theirs}):
        if stem not in theirs:
            bad[f"{path}/{mine[stem]}"] = "no source"
        elif stem not in mine:
            bad[f"{source_path}/{theirs[stem]}"] = "no target"
        else:
            (file, seen), (source, source_seen) = targets[mine[stem]], sources[theirs[stem]]
            if _same_aspect_ratio(seen.size, source_seen.size):
                pairs[mine[stem]] = file, source
            else:
                bad[f"{path}/{mine[stem]}"] = "{}x{}, but its source is {}x{}".format(*seen.size, *source_seen.size)
    what = "files do not form pairs of the same name and aspect ratio"
    if bad and not pairs:
        raise ValueError(f"{what} in {path} and {source_path}: {listing(bad)}.\nRename or resize them.")
    leave_out(bad, len(targets) + len(sources), what, corrupt)
    return pairs


def _stems(folder: str, found: Found, bad: dict[str, str]) -> dict[str, str]:
    """Names by their stems (without extension, in NFC); names whose stem has occurred before go to `bad`."""
    stems: dict[str, str] = {}
    for name in found:
        first = stems.setdefault(composed(os.path.splitext(name)[0]), name)
        if first != name:
            bad[f"{folder}/{name}"] = f"same name as {first}"
    return stems


def _same_aspect_ratio(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two pictures have the same aspect ratio, to within a pixel."""
    return abs(size[0] * other[1] - size[1] * other[0]) <= max(*size, *other)


def _check_colours(folders: dict[str, Found], channels: int, source_channels: int) -> None:
    """Refuse three channels for both folders if only one of them is grey: probably a mistake."""
    (path, is_grey), (source_path, source_is_grey) = (
        (folder, all(seen.colours == 1 for _, seen in found.values())) for folder, found in folders.items()
    )
    if channels == source_channels == 3 and is_grey != source_is_grey:
        name, key = (path, "channels") if is_grey else (source_path, "source_channels")
        raise ValueError(
            f"all pictures in {name} are grey, but those in {source_path if is_grey else path} are not, and channels "
            f"and source_channels are both 3: set data.{key} to 1"
        )
