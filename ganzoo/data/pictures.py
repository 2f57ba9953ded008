"""Pictures for evaluation, from any program: a folder of files or an array file, without resampling by default."""

from __future__ import annotations

import os
import re
import zipfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ganzoo.checkpoint.bounds import read_npz
from ganzoo.core.files import in_threads, open_file
from ganzoo.core.limits import Count, Size, sides
from ganzoo.core.text import path_of
from ganzoo.core.types import Batch
from ganzoo.data.agreed import USUAL, Range, agreed, warn_of
from ganzoo.data.archive import File, is_archive
from ganzoo.data.datasets import Images, combine, digest_files
from ganzoo.data.decoding import Header, header
from ganzoo.data.finding import find, listing
from ganzoo.data.rasters import Raster
from ganzoo.data.reading import Reading
from ganzoo.data.rows import Rows

SIZES = "resize them to one size, or use python -m ganzoo evaluate ... --resize N"
KINDS = "convert them all to grey or all to colour"


class Pictures(Images):
    """The pictures of a folder and its subfolders, or of a zip archive, in sorted order; or the images of a .npy or
    .npz file.

    Nothing is resized or cropped unless `image_size` is given. Transparent pictures are put on white unless `channels`
    is 2 or 4, palettes become colour, more than 8 bits become 8, and EXIF orientation is applied. Hidden files, and
    files with other extensions, are ignored. Arrays are uint8 or uint16 [N, H, W, C], as written by `python -m ganzoo
    sample --format npy`, or `arr_0` of a .npz, as for ADM's evaluator.

    Attributes:
        channels: 1 for grey, 3 for colour, 2 and 4 for these with alpha; or the number of bands.
        image_size: (H, W) in pixels.
        deep: Whether files have more than 8 bits per channel, which are reduced.

    Args:
        path: The folder or file.
        channels: Convert all pictures to grey (1), colour (3), or these with alpha (2, 4); None if all are grey, all
            colour, or all have the same other number of bands.
        limit: Maximum number of pictures, from the first; None for all.
        image_size: Crop all pictures to the centre and resample them to this size, as `ImageFolder` does: pixels per
            side of a square, or [height, width]; None keeps their size, which must be equal.
        range: The values that become 0 and 255, as in `ImageFolder`.
        like: How to read files in other respects, such as `fit`, as in `model.readings`; None for the defaults.

    Raises:
        FileNotFoundError: `path` does not exist, or contains no pictures.
        NotADirectoryError: `path` is a file of another kind.
        ValueError: Pictures are unreadable, differ in size or in grey and colour, or are fewer than two; or an array
            has another type or shape.
    """

    _labels = None

    def __init__(
        self,
        path: str | os.PathLike[str],
        channels: Count | None = None,
        limit: int | None = None,
        image_size: Size | None = None,
        range: Range = None,
        like: Reading | None = None,
    ) -> None:
        self.root = root = path_of(path)
        self.files: list[File] = []
        self.array: np.ndarray | Rows | None = None
        if root.suffix.lower() in (".npy", ".npz") and root.is_file():
            self.array = _load(root, limit)
            n, *size, own_channels = self.array.shape
        elif root.is_file() and not is_archive(root):
            raise NotADirectoryError(
                f"{root.absolute()} is a file: give a folder of pictures, or a .npy, .npz or .zip file."
            )
        else:
            files = dict(list(find(root).pictures.items())[:limit])
            self.files, n = list(files.values()), len(files)
            headers, typical = _check(root, files, image_size is None, channels is None)
            (width, height), own_channels = typical.size, _channels(typical)
            size = [height, width]
        if n < 2:
            raise ValueError(f"{root.absolute()} has too few pictures, {n}: a score needs at least 2.")
        self.channels = channels or own_channels
        self._reading = replace(like or Reading(None), size=image_size, channels=self.channels, deep=False)
        if self.array is None:
            self._reading = self._agreed(headers, range or (None if like is None else like.range))
        else:
            self.deep = self.array.dtype != np.uint8
        self.image_size = sides(image_size) if image_size else (size[0], size[1])

    def _agreed(self, headers: dict[str, Header], range: Range) -> Reading:
        """The reading of the files, reduced to 8 bits."""
        deep = [name for name, seen in headers.items() if seen.deep]
        self.deep = bool(deep)
        if {seen.dtype for seen in headers.values()} <= USUAL:
            range = range or "type"
        warn_of(deep, headers, self.root, "more than 8 bits per channel and are reduced to 8")
        files = dict(zip(headers, self.files, strict=True))
        return replace(agreed(self.root, files, headers, self._reading, range, key="{}"), deep=False)

    def __len__(self) -> int:
        return len(self.files) if self.array is None else len(self.array)

    def __getitems__(self, tickets: Sequence[int]) -> Batch:
        indices = [ticket % len(self) for ticket in tickets]
        if self.array is not None and self.array.shape[1:] == (*self.image_size, self.channels):
            images = torch.from_numpy(np.stack([self._row(i) for i in indices]))
            return Batch(image=images.permute(0, 3, 1, 2).contiguous())
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # a persistent pool would not survive a fork
            return Batch(image=torch.stack(list(pool.map(self._read, indices))))

    def _row(self, i: int) -> np.ndarray:
        """Image i of the array, uint8 [H, W, C]."""
        assert self.array is not None
        try:
            row = self.array[i]
            return row if row.dtype == np.uint8 else (row / 257).round().astype(np.uint8)
        except (OSError, ValueError) as error:
            raise ValueError(f"{self.root.absolute()} is damaged ({error}): write it again.") from error

    def _read(self, i: int) -> Tensor:
        if self.array is not None:
            return self._reading.image(_picture(self._row(i)))
        try:
            image = self._reading(self.files[i])
        except Exception as error:  # Pillow raises many types on broken files
            raise ValueError(f"{self.files[i]} cannot be decoded: {error}. Repair or remove it.") from error
        if image.shape[1:] != self.image_size:
            height, width = image.shape[1:]
            raise ValueError(f"{self.files[i]} decodes to {width}x{height}, unlike its header: {SIZES}")
        return image

    def _digest(self) -> str:
        """Hashes the files' bytes, which determine the pixels."""
        if self.array is not None:
            return super()._digest()
        reading = self._reading
        unusual = [*reading.unusual, *(() if reading.fit == "crop" else [reading.fit])]
        return combine("pictures 1", self.channels, reading.size, *unusual, *digest_files(self.files))


def _load(file: Path, limit: int | None) -> np.ndarray | Rows:
    """The first `limit` images of a file, uint8 or uint16 [N, H, W, C]; those of a .npy in C order stay on disk."""
    try:
        with open_file(file) as opened:
            if zipfile.is_zipfile(opened):
                array = read_npz(opened, "arr_0")["arr_0"]
            else:
                array = np.load(file, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy, zipfile and zlib raise many types on damaged files
        why = re.split(r"\. |\n", str(error))[0]  # without numpy's advice to unpickle it
        raise ValueError(f"{file.absolute()} cannot be read as an array: {why}; write it with numpy.save") from error
    array, shape = (array[:limit] if array.ndim else array), array.shape
    last = array.ndim == 4 and not (shape[1] <= 4 and min(shape[2:]) > 4)
    if array.dtype not in (np.uint8, np.uint16) or not last or 0 in shape[1:]:
        raise ValueError(
            f"{file.absolute()} contains {array.dtype} {list(shape)}, not images as uint8 or uint16 [N, H, W, C]: "
            "convert floats x in [-1, 1] by (x * 127.5 + 128).clip(0, 255).astype('uint8'); put channels last."
        )
    if not isinstance(array, np.memmap):
        return array
    return Rows(file, array.offset, array.shape, array.dtype) if array.flags.c_contiguous else np.array(array)


def _picture(row: np.ndarray) -> Image.Image | Raster:
    """Bytes [H, W, C] as a picture."""
    if row.shape[2] > 4:
        return Raster(row)
    return Image.fromarray(row[:, :, 0] if row.shape[2] == 1 else row)


def _channels(seen: Header) -> int:
    """The channels of pictures without alpha."""
    return seen.colours if seen.colours in (1, 3) else seen.bands


def _check(root: Path, files: dict[str, File], one_size: bool, one_kind: bool) -> tuple[dict[str, Header], Header]:
    """The headers, and one of the most frequent kind; rejects forbidden mixtures."""
    headers = dict(zip(files, in_threads(header, files.values()), strict=True))
    bad = {name: seen for name, seen in headers.items() if isinstance(seen, str)}
    if bad:
        raise ValueError(
            f"{len(bad)} of {len(files)} files in {root.absolute()} cannot be read as pictures: {listing(bad)}.\n"
            "Repair or remove them."
        )
    seen = {name: found for name, found in headers.items() if not isinstance(found, str)}
    kinds = {name: (one_size and found.size, one_kind and _channels(found)) for name, found in seen.items()}
    usual = Counter(kinds.values()).most_common(1)[0][0]
    typical = next(name for name in files if kinds[name] == usual)
    odd = [name for name in files if kinds[name] != usual]
    if odd:
        (size, mode), (other_size, other_mode) = seen[typical][:2], seen[odd[0]][:2]
        raise ValueError(
            f"{len(odd)} of {len(files)} pictures in {root.absolute()} differ from the others, such as {odd[0]}, "
            f"{other_size[0]}x{other_size[1]} {other_mode}, while {typical} is {size[0]}x{size[1]} {mode}: "
            + (SIZES if kinds[odd[0]][0] != usual[0] else KINDS)
        )
    return seen, seen[typical]
