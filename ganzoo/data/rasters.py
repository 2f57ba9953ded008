"""Pictures with other bands or types than Pillow's: arrays (.npy, .npz), TIFF files, and 16-bit colour in PNG."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, BinaryIO, NamedTuple, cast

import numpy as np
from PIL import Image

from ganzoo.checkpoint.bounds import SMALL, check_method, npy_header, open_archive, read_npz
from ganzoo.data.archive import LARGEST, File, open_any

ARRAYS = (".npy", ".npz")
TIFF = b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"  # first bytes
MOST_PIXELS = 89_478_485  # Pillow's own limit, above which it warns
MOST_BANDS = 1024
FEW = 16  # rows; an array with fewer rows than columns and bands probably has its bands first


class Raster(NamedTuple):
    """The values of a picture as they are in its file."""

    values: np.ndarray  # [H, W, C]
    alpha: bool = False  # whether the last band is opacity

    @property
    def full(self) -> float:
        """The value of opaque alpha."""
        kind = self.values.dtype
        return float(np.iinfo(kind).max) if kind.kind in "iu" else 1.0

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.values.shape[1], self.values.shape[0]

    def crop(self, box: tuple[int, int, int, int]) -> Raster:
        """The part between left, top, right and bottom."""
        left, top, right, bottom = box
        return self._replace(values=self.values[top:bottom, left:right])


class Layout(NamedTuple):
    """What is known of a raster before its values are read."""

    size: tuple[int, int]  # upright width and height
    bands: int  # with alpha
    dtype: np.dtype
    alpha: bool = False
    frames: bool = False  # whether there are several, of which the first is used
    rotated: bool = False  # by the file's orientation


def raster_layout(file: File) -> Layout | None:
    """The layout of an array, or of a TIFF file that Pillow cannot read; None for other files.

    Raises:
        Exception: The file is damaged, or of an unsupported kind.
    """
    if is_array(file):
        with open_any(file) as opened:
            shape, dtype, several = _npy(opened) if file.name.lower().endswith(".npy") else _npz(opened)[1:]
        height, width, bands = _shape(shape, dtype)
        return Layout((width, height), bands, _plain(dtype), frames=several)
    with open_any(file) as opened:
        if opened.read(4) not in TIFF:
            return None
        opened.seek(0)
        with _page(opened) as (page, frames):
            height, width, bands = _page_shape(page)
            size = (height, width) if _orientation(page) > 4 else (width, height)
            return Layout(size, bands, _plain(page.dtype), _alpha(page) > 0, frames, _orientation(page) != 1)


def read_raster(file: File) -> Raster:
    """The values of a file for which `raster_layout` returns a layout, upright.

    Raises:
        Exception: The file is damaged, or of an unsupported kind.
    """
    with open_any(file) as opened:
        if not is_array(file):
            return _read_tiff(opened)
        if file.name.lower().endswith(".npy"):
            shape, dtype, _ = _npy(opened)
            height, width, bands = _shape(shape, dtype)
            opened.seek(0)
            values = np.load(opened, allow_pickle=False)
        else:
            name, shape, dtype, _ = _npz(opened)
            height, width, bands = _shape(shape, dtype)
            values = read_npz(opened, name)[name]
    return Raster(_native(values.reshape(height, width, bands)))


def is_array(file: File) -> bool:
    """Whether a file is an array, by its name."""
    return file.name.lower().endswith(ARRAYS)


def png16(opened: BinaryIO) -> Raster:
    """A PNG of 16 bits per channel in colour, or with alpha; not rotated.

    Pillow has no such images, but it unpacks either the high or the low byte of each value, or four bytes as they are.
    """
    with Image.open(opened, formats=("PNG",)) as picture:
        tile = picture.tile[0]
        kind = cast(str, tile.args)
        if kind == "LA;16B":
            picture.tile = [tile._replace(args="RGBA")]
            pixels = np.asarray(picture).astype(np.uint16)
            return Raster(pixels[..., 0::2] << 8 | pixels[..., 1::2], alpha=True)
        high = np.asarray(picture).astype(np.uint16)
    opened.seek(0)
    with Image.open(opened, formats=("PNG",)) as picture:
        picture.tile = [picture.tile[0]._replace(args=kind.replace("16B", "16L"))]
        return Raster(high << 8 | np.asarray(picture), alpha=kind.startswith("RGBA"))


def turned(values: np.ndarray, orientation: int) -> np.ndarray:
    """[H, W, C] upright, from an orientation of EXIF or TIFF, 1 to 8."""
    if orientation > 4:
        values = values.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values[::-1] if orientation in (3, 4, 7, 8) else values


def _npy(opened: BinaryIO) -> tuple[tuple[int, ...], np.dtype, bool]:
    """Shape and type of a .npy file."""
    size = opened.seek(0, os.SEEK_END)
    opened.seek(0)
    return *_head(opened, size), False


def _npz(opened: BinaryIO) -> tuple[str, tuple[int, ...], np.dtype, bool]:
    """Name, shape and type of the first array in a .npz file, and whether there are others."""
    with open_archive(opened) as archive:
        members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
        if not members:
            raise ValueError("it contains no array")
        check_method(members[0])
        with archive.open(members[0]) as member:
            head = _head(member, members[0].file_size)
    return members[0].filename.removesuffix(".npy"), *head, len(members) > 1


def _head(opened: IO[bytes], size: int) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array, which match the size of its file in bytes."""
    shape, dtype = npy_header(opened)
    if min(shape, default=1) < 1 or opened.tell() + math.prod(shape) * dtype.itemsize != size:
        raise ValueError(f"its size is not that of an array {list(shape)} of {dtype}")
    return shape, dtype


def _shape(shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, int, int]:
    """Height, width and bands of an array [H, W] or [H, W, C]."""
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ValueError(f"an array {list(shape)}, not a picture [H, W] or [H, W, C]: save one array per picture")
    height, width, bands = (*shape, 1)[:3]
    if bands > MOST_BANDS or height <= FEW and height < min(width, bands):
        raise ValueError(f"an array {list(shape)} with {bands} bands: put them last with numpy.moveaxis(x, 0, -1)")
    _check_size(width, height, bands, math.prod(shape) * dtype.itemsize)
    return height, width, bands


def _plain(dtype: np.dtype) -> np.dtype:
    """The type of a raster's values in memory."""
    if dtype.kind not in "buif" or dtype.itemsize > 8:
        raise ValueError(f"an array of {dtype}, not of integers or floats")
    return np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("=")


def _native(values: np.ndarray) -> np.ndarray:
    return values * np.uint8(255) if values.dtype.kind == "b" else values.astype(_plain(values.dtype), copy=False)


def _check_size(width: int, height: int, bands: int, size: int) -> None:
    """Refuse a picture of too many pixels, values or bytes."""
    if width * height > MOST_PIXELS:
        raise ValueError(f"{width}x{height} pixels, more than the limit of {MOST_PIXELS:,}; downscale it")
    if bands > 4 and width * height * bands > MOST_PIXELS or size > LARGEST:
        raise ValueError(f"{width}x{height} pixels in {bands} bands, more than the limit; downscale it")


# TIFF


@contextmanager
def _page(opened: BinaryIO) -> Iterator[tuple[Any, bool]]:
    """The first page of a TIFF file, and whether there are others."""
    try:
        import tifffile
    except ImportError as error:
        raise ValueError('more bits or bands than Pillow reads; to read them: pip install "ganzoo[tiff]"') from error
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # damaged files are reported by exceptions
    size = opened.seek(0, os.SEEK_END)
    opened.seek(0)
    with tifffile.TiffFile(opened) as tiff:
        page = cast(Any, tiff.pages[0])
        if page.photometric not in (0, 1, 2):
            raise ValueError(
                f"its colours are {getattr(page.photometric, 'name', page.photometric)}: convert it to RGB"
            )
        if page.dtype is None:
            raise ValueError("pixels of an unsupported type")
        unpacked = math.prod(page.shape) * page.dtype.itemsize
        if unpacked > max(100 * size, SMALL):
            raise ValueError(f"it would unpack from {size:,} to {unpacked:,} bytes")
        _check_size(page.imagewidth, page.imagelength, page.samplesperpixel, unpacked)
        try:
            tiff.pages[1]
        except IndexError:
            yield page, False
        else:
            yield page, True


def _page_shape(page: Any) -> tuple[int, int, int]:
    """Height, width and bands of a page, as they are stored."""
    if page.axes not in ("YX", "YXS", "SYX") or page.samplesperpixel > MOST_BANDS:
        raise ValueError(f"a TIFF page of shape {list(page.shape)}, not a picture")
    return page.imagelength, page.imagewidth, page.samplesperpixel


def _orientation(page: Any) -> int:
    tag = page.tags.get(274)
    return int(tag.value) if tag is not None and tag.value in range(1, 9) else 1


def _read_tiff(opened: BinaryIO) -> Raster:
    with _page(opened) as (page, _):
        shape = _page_shape(page)
        try:
            values = page.asarray(maxworkers=1)
        except ValueError as error:
            cure = ': pip install "ganzoo[tiff]"' if "imagecodecs" in str(error) else ""
            raise ValueError(f"{error}{cure}") from error
        values = np.moveaxis(values, 0, -1) if page.axes == "SYX" else values
        values = _native(values.reshape(shape))
        if page.photometric == 0 and values.dtype.kind == "u" and page.dtype.kind != "b":  # 0 is white
            values = values.dtype.type(2**page.bitspersample - 1) - values
        raster = Raster(turned(values, _orientation(page)), _alpha(page) > 0)
        return _divided(raster) if _alpha(page) == 1 else raster


def _alpha(page: Any) -> int:
    """2 if the last band of a page is opacity, 1 if colours are multiplied by it, otherwise 0."""
    last = int(page.extrasamples[-1]) if page.extrasamples else 0
    return last if last in (1, 2) else 0


def _divided(raster: Raster) -> Raster:
    """A raster whose colours were multiplied by opacity, as it was before."""
    values, full = raster.values, raster.full
    colours, alpha = values[..., :-1], values[..., -1:].astype(np.float64)
    colours = np.divide(colours * full, alpha, out=np.zeros(colours.shape), where=alpha > 0)
    colours = colours if values.dtype.kind == "f" else colours.clip(0, full).round()
    return raster._replace(values=np.concatenate([colours.astype(values.dtype), values[..., -1:]], axis=-1))
