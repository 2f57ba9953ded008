"""Conversion of a folder of pictures to shards; resumable after an interruption at any point."""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ganzoo.core.atomic import remove_partial, write_atomically, write_text
from ganzoo.core.limits import Count, Size, normal_size
from ganzoo.core.text import path_of, visible
from ganzoo.data.agreed import agreed
from ganzoo.data.archive import File, name_of, stamp
from ganzoo.data.decoding import Fit
from ganzoo.data.finding import find, leave_out, listing, readable
from ganzoo.data.labels import DATASET, classify, places, split_folders
from ganzoo.data.order import identity
from ganzoo.data.reading import Reading
from ganzoo.data.shards import INDEX, Entry, Index, Shard, arrow, read_index, schema, shard_file

SHARD = 64 * 2**20  # bytes of pixels per shard
BLOCK = 2**20  # bytes of pixels per block that a process returns
UNREADABLE = "pictures cannot be decoded"
SETTINGS = ("name", "image_size", "channels", "fit", "classes", "background")  # that all shards of a folder share


def prepare(
    folder: str,
    out: str,
    *,
    image_size: Size | None = None,
    channels: Count = 3,
    fit: Fit = "crop",
    background: str | None = None,
    labels: bool = False,
    corrupt: Literal["refuse", "skip"] = "refuse",
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Index:
    """Write the pictures of a folder as shards, which `Shards` reads; the arguments are those of `ImageFolder`.

    Pictures have 8 bits per channel.

    Complete shards of an earlier call are kept if their pictures and the settings have not changed; the others are
    written. The bytes depend neither on interruptions nor on the number of processes.

    Args:
        folder: Folder or zip archive of the pictures.
        out: Folder for the shards; created if missing.
        image_size: Pixels per side, or [height, width]; None keeps the size of the pictures, which must be equal.
        channels: 3 for colour, 1 for grey; 4 and 2 for these with alpha; or the number of bands in TIFF, .npy and .npz.
        fit: For pictures of another shape: "crop", "squeeze" or "pad".
        background: Colour on which transparent pictures are put, for 1 or 3 channels; None for white.
        labels: Whether pictures have classes; see `ImageFolder`.
        corrupt: "refuse" raises an error that lists unreadable files; "skip" warns and leaves them out.
        jobs: Processes that decode; 1 decodes in this one.
        progress: Called with (pictures done, total pictures).

    Returns:
        The index of `out`.

    Raises:
        FileNotFoundError: The folder does not exist, or contains no pictures.
        NotADirectoryError: The folder, or `out`, is another file.
        ImportError: pyarrow is not installed.
        ValueError: Some files are not pictures, have other bands or more than 8 bits, sizes differ, some pictures are
            not in a subfolder (with `labels`), or `out` contains something else.
    """
    arrow()
    root, target = path_of(folder), path_of(out)
    if labels and target.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{out} lies in {folder}, where it would be a class: choose a folder elsewhere")
    tree = find(root)
    headers = readable(root, tree.pictures, corrupt)
    names = list(headers)
    if deep := {name: seen.dtype for name, seen in headers.items() if seen.deep}:
        raise ValueError(
            f"shards store 8 bits per channel, but {len(deep)} of {len(names)} pictures have more: {listing(deep)}.\n"
            "Train on the folder itself (fit --config dcgan/folder --data.path FOLDER), or convert them."
        )
    size = normal_size(image_size or _own_size(root, {name: seen.size for name, seen in headers.items()}))
    agreed(root, tree.pictures, headers, Reading(size, channels, fit, background), key="{}")
    classes, numbers = classify(root, tree, names) if labels else ([], [0] * len(names))
    pictures = [
        _Picture(*row) for row in zip(names, [tree.pictures[n] for n in names], places(names), numbers, strict=True)
    ]
    listed = labels and DATASET in tree.others
    index = Index(name_of(root), size, channels, fit, classes, None, background)
    known = _claim(target, index)

    step, moved = max(1, SHARD // math.prod(index.shape)), split_folders(names)
    parts = []
    for number, start in enumerate(range(0, len(names), step)):
        chosen = pictures[start : start + step]
        source = _source(index, chosen, moved, listed)
        parts.append(_Part(shard_file(target, number), chosen, source, known.get(number)))
    done = 0

    def advance(n: int) -> None:
        nonlocal done
        done += n
        if progress is not None:
            progress(done, len(names))

    index = index._replace(shards=_write_shards(parts, index, corrupt, jobs, advance))
    for file in set(target.glob("shard-*.arrow")) - {part.file for part in parts}:  # of a folder with more pictures
        file.unlink()
    _write_index(target, index)
    return index


class _Picture(NamedTuple):
    """A picture and what is stored with it."""

    name: str
    file: File
    place: float  # determines its split
    label: int  # 0 without labels


class _Part(NamedTuple):
    """What becomes one shard."""

    file: Path
    pictures: list[_Picture]
    source: str  # see `_source`
    known: Entry | None  # in an earlier index


def _write_shards(
    parts: Sequence[_Part], index: Index, corrupt: str, jobs: int, advance: Callable[[int], None]
) -> list[Entry]:
    """Writes the shards that are missing or out of date, and returns the entries of all; calls `advance` with numbers
    of pictures that are done."""
    entries: dict[Path, Entry] = {}
    for part in parts:
        if (entry := _kept(part, index, corrupt)) is not None:
            entries[part.file] = entry
            advance(len(part.pictures))

    bad: dict[str, str] = {}
    total = sum(len(part.pictures) for part in parts)
    missing = [part for part in parts if part.file not in entries]
    blocks = _decoded(index, [part.pictures for part in missing], jobs)
    for part in missing:
        made: list[_Block] = []
        while sum(block.n for block in made) < len(part.pictures):
            made.append(block := next(blocks))
            bad |= block.bad
            if corrupt == "refuse":
                leave_out(bad, total, UNREADABLE, corrupt)
            advance(block.n)
        write_atomically(part.file, partial(_write, index=index, blocks=made, source=part.source))
        entries[part.file] = Shard(part.file, index.shape, bool(index.classes)).entry()
    leave_out(bad, total, UNREADABLE, corrupt)
    return [entries[part.file] for part in parts]


def _kept(part: _Part, index: Index, corrupt: str) -> Entry | None:
    """The entry of a shard that is complete and up to date, else None."""
    try:
        shard = Shard(part.file, index.shape, bool(index.classes))
        entry = shard.entry()
    except (FileNotFoundError, ValueError):
        return None
    whole = corrupt == "skip" or entry.images == len(part.pictures)
    return entry if shard.source == part.source and whole and part.known in (None, entry) else None


def _own_size(root: Path, sizes: dict[str, tuple[int, int]]) -> tuple[int, int]:
    """The (height, width) that all pictures have in common, in pixels; refuses pictures that differ."""
    usual = next(iter(sizes.values()))
    for name, size in sizes.items():
        if size != usual:
            raise ValueError(
                f"the pictures in {root.absolute()} are not of one size: {name} is {size[0]}x{size[1]}, "
                f"the first, {next(iter(sizes))}, is {usual[0]}x{usual[1]}; resize them with image_size, such as 64"
            )
    return usual[1], usual[0]


def _claim(target: Path, index: Index) -> dict[int, Entry]:
    """Creates the folder, or refuses one with other contents; returns the shards' entries in a complete index."""
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(f"{target.absolute()} is a file: choose another folder for the shards")
    if (target / INDEX).exists() or all(file.name.startswith(INDEX) for file in target.glob("*")):
        remove_partial(target)
    if (target / INDEX).exists():
        before = read_index(target)
        for name, (old, new) in {k: (getattr(before, k), getattr(index, k)) for k in SETTINGS}.items():
            if old != new:
                raise ValueError(
                    f"{target.absolute()} contains shards with {name} {old or 'none'}, not {new or 'none'}: "
                    "choose another folder, or delete this one"
                )
        return dict(enumerate(before.shards or ()))
    if target.exists() and any(target.iterdir()):
        raise ValueError(f"{target.absolute()} contains other files: choose an empty or a new folder")
    target.mkdir(parents=True, exist_ok=True)
    _write_index(target, index)
    return {}


def _write_index(target: Path, index: Index) -> None:
    write_text(target / INDEX, index.text())


def _source(index: Index, pictures: Sequence[_Picture], moved: bool, labels: bool) -> str:
    """sha256 (hex) of settings and of the files' names, sizes and times; a shard with another hash is out of date.

    Args:
        index: The settings.
        pictures: Of the shard.
        moved: Whether their splits do not follow from their names alone.
        labels: Whether their classes do not follow from their names.
    """
    settings = index[1:6] if index.background is None else index[1:]  # None was added later
    digest = hashlib.sha256(repr(settings).encode())
    for picture in pictures:
        more = f" {picture.place}" * moved + f" {picture.label}" * labels
        digest.update(f"{picture.name}\n{stamp(picture.file)}{more}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


class _Block(NamedTuple):
    """The decoded pictures of some files."""

    n: int  # files
    pictures: list[_Picture]  # the decodable ones
    images: Tensor  # uint8 [len(pictures), C, H, W]
    crc32: list[int]
    bad: dict[str, str]  # the others -> reason


class _Pictures(Dataset[_Block]):
    """Decodes blocks of files."""

    def __init__(self, index: Index, pictures: list[_Picture]) -> None:
        self.index, self.pictures = index, pictures

    def __getitems__(self, block: Sequence[int]) -> _Block:
        images, bad = {}, {}
        for picture in (self.pictures[i] for i in block):
            try:
                images[picture] = self.index.reading(picture.file)
            except Exception as error:  # Pillow raises many types on broken files
                bad[picture.name] = str(error)
        stacked = torch.stack(list(images.values())) if images else torch.empty(0, *self.index.shape).byte()
        return _Block(len(block), list(images), stacked, [zlib.crc32(x.numpy().data) for x in images.values()], bad)


def _decoded(index: Index, parts: Sequence[Sequence[_Picture]], jobs: int) -> Iterator[_Block]:
    """Blocks of each part's pictures in turn; no block crosses the end of a part."""
    step = max(1, BLOCK // math.prod(index.shape))
    places: list[range] = []
    start = 0
    for part in parts:
        stop = start + len(part)
        places += [range(i, min(i + step, stop)) for i in range(start, stop, step)]
        start = stop
    pictures = _Pictures(index, [picture for part in parts for picture in part])
    workers = 0 if jobs == 1 else min(jobs, len(places))
    loader = DataLoader(pictures, batch_sampler=cast(Any, places), num_workers=workers, collate_fn=identity)
    for block in loader:
        yield block._replace(images=block.images.clone())  # a copy, to free shared memory, small in many containers


def _write(file: BinaryIO, index: Index, blocks: Sequence[_Block], source: str) -> None:
    """Write a shard of these pictures."""
    pa = arrow()
    pictures = [picture for block in blocks for picture in block.pictures]
    pixels = pa.py_buffer(torch.cat([block.images for block in blocks]).numpy())
    form = schema(index.shape, bool(index.classes)).with_metadata({"source": source})
    columns = [
        pa.Array.from_buffers(form.field("image").type, len(pictures), [None, pixels]),
        pa.array([visible(picture.name) for picture in pictures], pa.string()),
        pa.array([picture.place for picture in pictures], pa.float64()),
        pa.array([crc32 for block in blocks for crc32 in block.crc32], pa.uint32()),
    ]
    if index.classes:
        columns.append(pa.array([picture.label for picture in pictures], pa.int64()))
    with pa.ipc.new_stream(file, form) as writer:
        writer.write_batch(pa.record_batch(columns, schema=form))
