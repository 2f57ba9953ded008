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
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ganzoo.checkpoint.bounds import read_npz
from ganzoo.core.files import open_file
from ganzoo.core.limits import Size, sides
from ganzoo.core.text import path_of
from ganzoo.core.types import Batch
from ganzoo.data.archive import File, is_archive
from ganzoo.data.datasets import Images, combine, digest_files
from ganzoo.data.decoding import find, grey, header, listing, warn_of_losses
from ganzoo.data.reading import Reading
from ganzoo.data.rows import Rows

SIZES = "resize them to one size, or use python -m ganzoo evaluate ... --resize N"
KINDS = "convert them all to grey or all to colour"


class Pictures(Images):
    """The pictures of a folder and its subfolders, or of a zip archive, in sorted order; or the images of a .npy or
    .npz file.

    Nothing is resized or cropped unless `image_size` is given. Transparent pictures are put on white, palettes become
    colour, 16 bits become 8, and EXIF orientation is applied. Hidden files, and files with other extensions, are
    ignored. Arrays are uint8 [N, H, W, C], as written by `python -m ganzoo sample --format npy`, or `arr_0` of a .npz,
    as for ADM's evaluator.

    Attributes:
        channels: 1 for grey, 3 for colour.
        image_size: (H, W) in pixels.

    Args:
        path: The folder or file.
        channels: Convert all pictures to grey (1) or colour (3); None if all are grey or all colour.
        limit: Maximum number of pictures, from the first; None for all.
        image_size: Crop all pictures to the centre and resample them to this size, as `ImageFolder` does: pixels per
            side of a square, or [height, width]; None keeps their size, which must be equal.
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
        channels: Literal[1, 3] | None = None,
        limit: int | None = None,
        image_size: Size | None = None,
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
            (width, height), own_channels = _check(root, files, image_size is None, channels is None)
            size = [height, width]
        if n < 2:
            raise ValueError(f"{root.absolute()} has too few pictures, {n}: a score needs at least 2.")
        self.channels = channels or own_channels
        self._reading = replace(like or Reading(None), size=image_size, channels=self.channels)
        self.image_size = sides(image_size) if image_size else (size[0], size[1])

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
            return self.array[i]
        except (OSError, ValueError) as error:
            raise ValueError(f"{self.root.absolute()} is damaged ({error}): write it again.") from error

    def _read(self, i: int) -> Tensor:
        if self.array is not None:
            row = self._row(i)
            return self._reading.image(Image.fromarray(row[:, :, 0] if row.shape[2] == 1 else row))
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
        return combine("pictures 1", self.channels, reading.size, *reading.unusual, *digest_files(self.files))


def _load(file: Path, limit: int | None) -> np.ndarray | Rows:
    """The first `limit` images of a file, uint8 [N, H, W, C]; those of a .npy in C order stay on disk."""
    try:
        with open_file(file) as opened:
            if zipfile.is_zipfile(opened):
                array = read_npz(opened, "arr_0")["arr_0"]
            else:
                array = np.load(file, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy, zipfile and zlib raise many types on damaged files
        why = re.split(r"\. |\n", str(error))[0]  # without numpy's advice to unpickle it
        raise ValueError(f"{file.absolute()} cannot be read as an array: {why}; write it with numpy.save") from error
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] not in (1, 3) or 0 in array.shape[1:]:
        raise ValueError(
            f"{file.absolute()} contains {array.dtype} {list(array.shape)}, not images as uint8 [N, H, W, 1 or 3]: "
            "convert floats x in [-1, 1] by (x * 127.5 + 128).clip(0, 255).astype('uint8'); put channels last."
        )
    array = array[:limit]
    if not isinstance(array, np.memmap):
        return array
    return Rows(file, array.offset, array.shape) if array.flags.c_contiguous else np.array(array)


def _check(root: Path, files: dict[str, File], one_size: bool, one_kind: bool) -> tuple[tuple[int, int], int]:
    """(width, height) and channels of the most frequent kind of picture, from headers; rejects forbidden mixtures."""
    with ThreadPoolExecutor() as pool:
        headers = dict(zip(files, pool.map(header, files.values()), strict=True))
    bad = {name: seen for name, seen in headers.items() if isinstance(seen, str)}
    if bad:
        raise ValueError(
            f"{len(bad)} of {len(files)} files in {root.absolute()} cannot be read as pictures: {listing(bad)}\n"
            "Repair or remove them."
        )
    seen = {name: found for name, found in headers.items() if not isinstance(found, str)}
    kinds = {name: (one_size and size, one_kind and grey(mode)) for name, (size, mode) in seen.items()}
    usual = Counter(kinds.values()).most_common(1)[0][0]
    typical = next(name for name in files if kinds[name] == usual)
    odd = [name for name in files if kinds[name] != usual]
    if odd:
        (size, mode), (other_size, other_mode) = seen[typical], seen[odd[0]]
        raise ValueError(
            f"{len(odd)} of {len(files)} pictures in {root.absolute()} differ from the others, such as {odd[0]}, "
            f"{other_size[0]}x{other_size[1]} {other_mode}, while {typical} is {size[0]}x{size[1]} {mode}: "
            + (SIZES if kinds[odd[0]][0] != usual[0] else KINDS)
        )
    warn_of_losses(seen, root)
    size, mode = seen[typical]
    return size, 1 if grey(mode) else 3
