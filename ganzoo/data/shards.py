"""Pictures as shards: Arrow files with random access to each picture, for any number of pictures.

A shard is one record batch with a row per picture: uncompressed pixels (uint8, [C, H, W]), name in the original folder,
hash that determines the split, checksum, and class, if any. `index.json`, completed last, contains the settings, and
the sizes and hashes of the shards.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import mmap
import struct
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ganzoo.core.files import open_file, read_text
from ganzoo.core.limits import Share, Size, refusal
from ganzoo.core.text import path_of, visible
from ganzoo.core.types import Batch
from ganzoo.data.base import GANDataModule, Split, Workers, workers
from ganzoo.data.datasets import Images, combine
from ganzoo.data.decoding import Fit
from ganzoo.data.labels import held_out, of_split
from ganzoo.data.rasters import MOST_BANDS
from ganzoo.data.reading import Reading
from ganzoo.data.rows import Rows

INDEX = "index.json"
LARGEST = 1 << 24  # bytes of the index: some 80,000 shards
FORMAT = "ganzoo shards 1"
CURE = "run the same python -m ganzoo data prepare again to recreate it"


class Shards(GANDataModule):
    """Pictures prepared by `python -m ganzoo data prepare FOLDER OUT`; for data sets larger than memory.

    The batches are those of `ImageFolder` on the same folder: same order, splits and labels. A process uses less than
    100 bytes of memory per picture; the pixels stay in files, cached by the operating system. Reading a picture whose
    checksum does not match raises an error.

    Attributes:
        classes: Class names, in the order of the labels; empty without labels.
        reading: How the pictures became images.

    Args:
        path: The output folder of `data prepare`, which determines image size, channels and classes.
        val_fraction: Share of the pictures held out for val and test, 0 to 1.
        num_workers: Worker processes that read in advance; None takes the number of CPU cores, at most 8.
        **kwargs: See `GANDataModule`.

    Raises:
        FileNotFoundError: The folder, its index or a shard is missing.
        ImportError: pyarrow is not installed.
        ValueError: The folder is not finished, or a shard or the index is damaged.
    """

    def __init__(self, path: str, val_fraction: Share = 0.1, num_workers: Workers | None = None, **kwargs: Any) -> None:
        super().__init__(num_workers=workers(num_workers), **kwargs)
        root = path_of(path)
        index = read_index(root)
        if index.shards is None:
            raise ValueError(f"{root.absolute()} is not finished: run the same python -m ganzoo data prepare again")
        self.name, self.classes = index.name, index.classes
        self.image_size, self.channels, self.reading = index.image_size, index.channels, index.reading
        self.num_classes = len(self.classes) or None
        self.readings = {"image": self.reading}
        self._stored = StoredShards(root, index)
        place = torch.cat([torch.tensor(shard.fraction) for shard in self._stored.shards.values()])
        self._held_out = held_out(place, val_fraction)

    def make_dataset(self, split: Split) -> Images:
        return ShardImages(self._stored, of_split(self._held_out, split))


class Entry(NamedTuple):
    """A shard's entry in the index."""

    images: int
    bytes: int  # of the file
    rows: str  # sha256 (hex) of all columns but the pixels
    sha256: str  # of all columns


class Index(NamedTuple):
    """The contents of `index.json`."""

    name: str
    image_size: Size
    channels: int
    fit: Fit
    classes: list[str]
    shards: list[Entry] | None  # None until all are written
    background: str | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.reading.shape

    @property
    def reading(self) -> Reading:
        return Reading(self.image_size, self.channels, self.fit, self.background)

    def text(self) -> str:
        """The text of the file."""
        facts = {"format": FORMAT, "images": None, **self._asdict()}
        if self.shards is not None:
            facts["images"] = sum(entry.images for entry in self.shards)
            facts["shards"] = [entry._asdict() for entry in self.shards]
        if self.background is None:
            del facts["background"]
        return json.dumps(facts, indent=1) + "\n"


def read_index(root: Path) -> Index:
    """Read the index of a folder of shards.

    Raises:
        FileNotFoundError: There is no index.
        ValueError: It is damaged, or not an index of shards.
    """
    file = root / INDEX
    if not file.is_file():
        what = "contains no shards" if root.is_dir() else "is not a folder"
        raise FileNotFoundError(
            f"{root.absolute()} {what}: give a folder written by python -m ganzoo data prepare PICTURES OUT"
        )
    try:
        facts = json.loads(read_text(file, LARGEST))
        if facts.pop("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT!r}")
        del facts["images"]
        index = Index(**facts)
        entries = None if index.shards is None else [Entry(**entry) for entry in facts["shards"]]
        index = index._replace(shards=entries)
        numbers = [index.channels, *itertools.chain(*(entry[:2] for entry in entries or ()))]
        words = [index.name, index.fit, index.background or "", *index.classes]
        words += itertools.chain(*(entry[2:] for entry in entries or ()))
        if not all(type(x) is int for x in numbers) or not all(isinstance(x, str) for x in words) or min(numbers) < 0:
            raise ValueError("values of wrong types")
        if (problem := refusal(index.image_size, Size)) is not None:
            raise ValueError(f"image_size {problem}")
        if not 1 <= index.channels <= MOST_BANDS:
            raise ValueError(f"unsupported picture shape {index.shape}")
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file.absolute()} is damaged, or not an index of shards ({error}): write the shards into a new folder "
            "with python -m ganzoo data prepare"
        ) from error
    return index


def shard_file(root: Path, number: int) -> Path:
    """The path of a shard."""
    return root / f"shard-{number:05d}.arrow"


def damaged(path: Path, why: object) -> ValueError:
    """The error for a damaged shard."""
    return ValueError(f"{path.absolute()} is damaged ({why}): {CURE}")


def arrow() -> Any:
    """pyarrow, an optional dependency."""
    try:
        import pyarrow
    except ImportError as error:
        raise ImportError('shards are Arrow files, which require pyarrow: pip install "ganzoo[shards]"') from error
    return pyarrow


def schema(shape: tuple[int, int, int], labels: bool) -> Any:
    """The columns of a shard of pictures of this shape (C, H, W)."""
    pa = arrow()
    columns = {
        "image": pa.binary(int(np.prod(shape))),
        "name": pa.string(),
        "fraction": pa.float64(),
        "crc32": pa.uint32(),
        **({"label": pa.int64()} if labels else {}),
    }
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns.items()])


class Shard:
    """One shard; its pixels stay in the file, the other columns are in memory.

    Attributes:
        images: uint8 [N, C, H, W], each read on access.
        names: An Arrow array of N strings.
        fraction: What determines the split (see `ganzoo.data.labels.places`), float64 [N].
        crc32: uint32 [N], of the images.
        label: int64 [N], or None.
        bytes: Size of the file.
        source: Hash of the original files and settings, to detect changes.

    Args:
        path: The file.
        shape: (C, H, W) of the pictures.
        labels: Whether the pictures have classes.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: It is damaged.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int], labels: bool) -> None:
        pa = arrow()
        expected, self.path = schema(shape, labels), path
        try:
            with open_file(path) as file:
                whole = pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            messages = pa.ipc.MessageReader.open_stream(whole)
            found = pa.ipc.read_schema(messages.read_next_message())
            if not found.equals(expected):
                raise pa.ArrowInvalid("other columns")
            rows = messages.read_next_message()
            if rows.type != "record batch" or _is_compressed(rows.metadata):
                raise pa.ArrowInvalid("compressed, or without rows")
            batch = pa.ipc.read_record_batch(rows, found)
            self.source = (found.metadata or {}).get(b"source", b"").decode()
            batch.validate(full=True)
            self.bytes = whole.size
            start = batch["image"].buffers()[1].address - whole.address if len(batch) else 0
            self.images = Rows(path, start, (len(batch), *shape))
            if start < 0 or start + math.prod(self.images.shape) > whole.size:
                raise pa.ArrowInvalid("its pixels are compressed or truncated")
            rest = batch.select(expected.names[1:])
            self._batch = pa.ipc.read_record_batch(rest.serialize(), rest.schema)  # a copy, in memory
            self.names = self._batch["name"]
            self.fraction, self.crc32 = self._batch["fraction"].to_numpy(), self._batch["crc32"].to_numpy()
            self.label = self._batch["label"].to_numpy() if labels else None
        except FileNotFoundError:
            raise FileNotFoundError(f"{path.absolute()} is missing: {CURE}") from None
        except (OSError, StopIteration, ValueError, struct.error, pa.ArrowException) as error:
            raise damaged(path, error) from error

    def read(self, i: int, out: np.ndarray) -> np.ndarray:
        """Read picture i into an array, uint8 [C, H, W], and return that.

        Raises:
            ValueError: The picture is damaged.
        """
        try:
            self.images.read(i, out)
            if zlib.crc32(out.data) != self.crc32[i]:
                raise ValueError(f"the pixels of {visible(self.names[i])} do not match their checksum")
        except (OSError, ValueError) as error:
            raise damaged(self.path, error) from error
        return out

    def rows(self) -> str:
        """sha256 (hex) of all columns but the pixels."""
        digest = hashlib.sha256()
        for name, column in zip(self._batch.schema.names, self._batch.columns, strict=True):
            digest.update(f"{name} {len(column)}".encode())
            for part in column.buffers():
                digest.update(part or b"")
        return digest.hexdigest()

    def entry(self) -> Entry:
        """This shard's index entry, computed by reading the whole shard.

        Raises:
            ValueError: A picture is damaged.
        """
        rows = self.rows()
        digest = hashlib.sha256(rows.encode())
        for i in range(len(self.images)):
            digest.update(self.read(i, np.empty(self.images.shape[1:], np.uint8)).data)
        return Entry(len(self.images), self.bytes, rows, digest.hexdigest())


def _is_compressed(metadata: Any) -> bool:
    """Whether a message with a record batch names a codec; pyarrow cannot tell without decompressing.

    Args:
        metadata: A flatbuffer of Arrow's table `Message`: its field 2 is a `RecordBatch`, whose field 3 is the codec.
    """
    data = memoryview(metadata)

    def number(kind: str, place: int) -> int:
        return int(struct.unpack_from(f"<{kind}", data, place)[0])

    def field(table: int, index: int) -> int:
        names = table - number("i", table)
        place = number("H", names + 4 + 2 * index) if 4 + 2 * index < number("H", names) else 0
        return place and table + place

    message = number("I", 0)
    rows = field(message, 2)
    return field(rows + number("I", rows), 3) != 0


class StoredShards:
    """All shards of a folder; each process opens each shard once."""

    def __init__(self, root: Path, index: Index) -> None:
        assert index.shards is not None
        self.root, self.index, self.entries = root, index, index.shards
        self.starts = [0, *itertools.accumulate(entry.images for entry in self.entries)]
        self.shards: dict[int, Shard] = {}
        for number in range(len(self.entries)):
            self.shard(number)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "shards": {}}  # spawned workers open the shards themselves

    def shard(self, number: int) -> Shard:
        """A shard, checked against the index except for its pixels, whose checksums are checked on reading."""
        if number not in self.shards:
            path = shard_file(self.root, number)
            shard = Shard(path, self.index.shape, bool(self.index.classes))
            if (len(shard.images), shard.bytes, shard.rows()) != self.entries[number][:3]:
                raise damaged(path, f"its rows do not match {INDEX}")
            self.shards[number] = shard
        return self.shards[number]

    def read(self, indices: Sequence[int]) -> Batch:
        """The pictures with these indices, and their labels if there are any."""
        images = torch.empty(len(indices), *self.index.shape, dtype=torch.uint8)
        labels = torch.empty(len(indices), dtype=torch.int64)
        for row, i in enumerate(indices):
            number = bisect_right(self.starts, i) - 1
            shard, place = self.shard(number), i - self.starts[number]
            shard.read(place, images[row].numpy())
            if shard.label is not None:
                labels[row] = int(shard.label[place])
        return Batch(image=images, label=labels) if self.index.classes else Batch(image=images)


class ShardImages(Images):
    """A subset of a folder of shards.

    Args:
        stored: The shards.
        members: [N], indices of the pictures.
    """

    def __init__(self, stored: StoredShards, members: Tensor) -> None:
        self.stored, self.members = stored, members

    def __len__(self) -> int:
        return len(self.members)

    def __getitems__(self, tickets: Sequence[int]) -> Batch:
        return self.stored.read(self.members[torch.tensor(tickets) % len(self)].tolist())

    @cached_property
    def _labels(self) -> Tensor | None:
        if not self.stored.index.classes:
            return None
        shards = (self.stored.shard(number) for number in range(len(self.stored.entries)))
        return torch.cat([torch.from_numpy(np.array(shard.label)) for shard in shards])[self.members]

    def _digest(self) -> str:
        """Combines the hashes in the index, which every read is checked against."""
        members = hashlib.sha256(self.members.numpy().data).hexdigest()
        index, shards = self.stored.index, [entry.sha256 for entry in self.stored.entries]
        return combine("shards 1", index.shape, index.fit, members, *index.reading.unusual, *shards)
