"""Picture files: checking and decoding them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import ExifTags, Image, ImageColor, ImageOps
from torch import Tensor

from ganzoo.core.limits import Size, area, check_memory, sides
from ganzoo.data.archive import File, open_any
from ganzoo.data.rasters import MOST_PIXELS, Raster, is_array, png16, raster_layout, read_raster, turned

Fit = Literal["crop", "squeeze", "pad"]
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")  # for any extension; for EPS, Pillow would run Ghostscript
CLEAR = (0, 0, 0, 0)


def resize(images: Tensor, size: Size) -> Tensor:
    """Resample uint8 [N, C, H, W] to uint8 [N, C, *size], bilinear and antialiased.

    Raises:
        ValueError: The result is larger than the machine's memory.
    """
    if images.shape[-2:] == (shape := sides(size)):
        return images
    check_memory("image_size", size, images[:, :, 0, 0].numel() * area(size))
    parts = [  # in parts, as floats take four times the memory
        F.interpolate(part.float(), shape, mode="bilinear", antialias=True).round().clamp(0, 255).byte()
        for part in images.split(1000)
    ]
    return torch.cat(parts)


def fitted(picture: Image.Image, size: Size, fit: Fit = "crop", background: str = "white") -> Tensor:
    """A picture of mode L, LA, RGB or RGBA as uint8 [C, *size].

    Args:
        picture: Of any size.
        size: Pixels per side of a square, or [height, width].
        fit: "crop" keeps the largest centred part of this shape; "squeeze" distorts the whole picture to it; "pad"
            centres the whole picture on the background, or on transparent black if it has transparency.
        background: Name of a colour.
    """
    crop, (width, height), place = frame(picture.size, size, fit)
    if crop != (0, 0, *picture.size):
        picture = picture.crop(crop)
    if picture.size != (width, height):
        # Pillow's filters are antialiased; colours are weighted by their opacity
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    if (height, width) != (whole := sides(size)):
        clear = CLEAR[-len(picture.mode) :] if picture.mode.endswith("A") else background
        canvas = Image.new(picture.mode, whole[::-1], clear)
        canvas.paste(picture, place)
        picture = canvas
    return pixels(picture)


Box = tuple[int, int, int, int]  # left, top, right, bottom


def frame(own: tuple[int, int], size: Size, fit: Fit) -> tuple[Box, tuple[int, int], Box]:
    """How `fitted` treats a picture of a size (width, height): the part that is used, its (width, height) after
    resampling, and its place in the result."""
    height, width = sides(size)
    crop = _centred(own, _largest(own, (width, height))) if fit == "crop" else (0, 0, *own)
    inner = _largest((width, height), own) if fit == "pad" else (width, height)
    return crop, inner, _centred((width, height), inner)


def _largest(room: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int]:
    """The largest (width, height) of this shape that fits into a room, at least one pixel."""
    if room[0] * shape[1] > room[1] * shape[0]:
        return max(1, round(room[1] * shape[0] / shape[1])), room[1]
    return room[0], max(1, round(room[0] * shape[1] / shape[0]))


def _centred(room: tuple[int, int], inner: tuple[int, int]) -> Box:
    """Left, top, right and bottom of a centred rectangle, from sizes (width, height)."""
    left, top = (room[0] - inner[0]) // 2, (room[1] - inner[1]) // 2
    return left, top, left + inner[0], top + inner[1]


def pixels(picture: Image.Image) -> Tensor:
    """A picture of mode L, LA, RGB or RGBA as uint8 [C, H, W]."""
    return torch.from_numpy(np.array(picture)).reshape(picture.height, picture.width, -1).permute(2, 0, 1).contiguous()


def upright(file: File, least: int | None = None) -> Image.Image | Raster:
    """Read a picture upright (orientation applied): Pillow's if it has 8 bits per channel, otherwise a raster.

    Args:
        file: The picture.
        least: A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size if no side becomes smaller than this, in pixels;
            None decodes the full size.

    Raises:
        Exception: Whatever Pillow, numpy or tifffile raise on a broken file.
    """
    if is_array(file):
        return read_raster(file)
    try:
        with open_picture(file) as opened:
            kind = _bands(opened)
            if kind.hidden and opened.format != "PNG":
                return read_raster(file)
            if not kind.hidden:
                if least:
                    opened.draft(None, (least, least))
                white = _is_white_0(opened)
                picture: Image.Image = ImageOps.exif_transpose(opened)
                if picture.mode not in ("F", *WIDE):
                    return picture
                values = np.asarray(picture)[..., None].astype(kind.dtype)
                return Raster(65535 - values if white else values)
            orientation = _orientation(opened)
    except Image.UnidentifiedImageError:
        if raster_layout(file) is None:
            raise
        return read_raster(file)
    with open_any(file) as binary:
        raster = png16(binary)
    return raster._replace(values=turned(raster.values, orientation))


def flattened(picture: Image.Image, channels: int, background: str) -> Image.Image:
    """A picture in grey (1 channel), colour (3), or either with alpha (2, 4); without alpha on a background."""
    if channels in (1, 3) and picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, background), picture)
    return picture.convert({1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels])


def check_colour(name: str) -> None:
    """Raise a ValueError unless Pillow knows a colour."""
    try:
        ImageColor.getcolor(name, "RGB")
    except ValueError:
        raise ValueError(f"background is {name!r}, which is not a colour: use white, for example, or #rrggbb") from None


@contextmanager
def open_picture(file: File | BinaryIO) -> Iterator[Image.Image]:
    """Open a picture of a supported format and read its header.

    Raises:
        ValueError: It has more than `MOST_PIXELS` pixels.
        Exception: Whatever Pillow raises on a broken file.
    """
    with open_any(file) if isinstance(file, File) else file as opened, Image.open(opened, formats=FORMATS) as picture:
        if picture.width * picture.height > MOST_PIXELS:
            raise ValueError(
                f"{picture.width}x{picture.height} pixels, more than the limit of {MOST_PIXELS:,}; downscale it"
            )
        yield picture


class Header(NamedTuple):
    """What is known of a picture before it is decoded."""

    size: tuple[int, int]  # upright width and height, in pixels
    mode: str  # Pillow's, `RGB;16` for 16 bits per channel that Pillow would reduce to 8; or numpy's type of an array
    bands: int = 3  # with alpha
    alpha: bool = False
    dtype: str = "uint8"  # of the values
    frames: bool = False  # whether there are several, of which the first is used
    rotated: bool = False  # by its orientation

    @property
    def colours(self) -> int:
        """Bands without alpha: 1 for grey, 3 for colour."""
        return self.bands - self.alpha

    @property
    def deep(self) -> bool:
        """Whether it has more than 8 bits per channel."""
        return self.dtype != "uint8"


def header(file: File) -> Header | str:
    """The header of a picture; or the reason why the file is unusable."""
    try:
        if is_array(file):
            return _raster_header(file)
        with open_picture(file) as picture:
            kind, orientation = _bands(picture), _orientation(picture)
            if kind.hidden and picture.format != "PNG":
                return _raster_header(file)
            size = picture.size
            if orientation > 4 and picture.format != "TIFF":  # Pillow has already swapped those
                size = size[1], size[0]
            several = bool(getattr(picture, "is_animated", False))  # counting 100,000 frames would take minutes
            mode = f"{picture.mode};16" if kind.hidden else picture.mode
            return Header(size, mode, kind.bands, kind.alpha, kind.dtype, several, orientation > 1)
    except Image.UnidentifiedImageError:
        return _raster_header(file)
    except Exception as error:  # Pillow raises many types on broken files
        return str(error)


def _raster_header(file: File) -> Header | str:
    try:
        layout = raster_layout(file)
    except Exception as error:  # numpy and tifffile raise many types on broken files
        return str(error) or type(error).__name__
    if layout is None:
        return "not a picture"
    size, bands, dtype, *rest = layout
    return Header(size, f"{bands} x {dtype.name}" if bands > 1 else dtype.name, bands, rest[0], dtype.name, *rest[1:])


class _Bands(NamedTuple):
    """Bands and type of a picture."""

    bands: int
    alpha: bool
    dtype: str
    hidden: bool  # whether Pillow would reduce them


def _bands(picture: Any) -> _Bands:
    """The bands and type of an opened picture."""
    tiles = getattr(picture, "tile", [])
    arguments = tiles[0].args if tiles else ""
    raw, mode = str(arguments if isinstance(arguments, str) else arguments[0]), picture.mode
    deep = ";16" in raw and ";16" not in mode and mode != "I" and not raw.startswith("BGR")  # BGR;16: 5, 6, 5 bits
    form = picture.tag_v2.get(339, (1,))[0] if picture.format == "TIFF" else None  # 2: signed integers
    other = form is not None and raw.endswith("X") or mode == "L" and form == 2  # Pillow leaves bands or signs out
    bands = 1 if mode in ("1", "L", "F", *WIDE) else 2 if mode in ("LA", "La") else 3
    if raw.startswith("LA;16"):
        bands = 2
    alpha = mode == "RGBA" if deep else mode not in ("F", *WIDE) and bool(picture.has_transparency_data)
    bands += alpha and bands != 2
    dtype = "float32" if mode == "F" else "uint16" if deep or mode.startswith("I;16") else "uint8"
    if mode == "I" and picture.format == "TIFF":
        bits = picture.tag_v2.get(258, (1,))[0]
        dtype = "int16" if bits == 16 else "int32" if form == 2 else "uint32"
    elif mode == "I":
        dtype = "uint16"  # of a PNG, in earlier versions of Pillow
    return _Bands(bands, alpha, dtype, deep or other)


def _is_white_0(picture: Any) -> bool:
    """Whether 0 is white in a TIFF of 16 bits, which Pillow does not invert."""
    if picture.format != "TIFF" or not picture.mode.startswith("I;16"):
        return False
    return picture.tag_v2.get(262) == 0 and str(picture.tile[0].args[0]).startswith("I;16")


WIDE = "I", "I;16", "I;16L", "I;16B", "I;16N"  # Pillow's modes of grey with 16 or 32 bits


def _orientation(picture: Any) -> int:
    """The orientation that `ImageOps.exif_transpose`, which reads the same tag, applies."""
    # PNG's own `getexif` decodes the whole picture, since metadata may follow the pixels.
    late = picture.format == "PNG" and _has_trailing_chunks(picture)
    exif = picture.getexif() if late else Image.Image.getexif(picture)
    found = exif.get(ExifTags.Base.Orientation, 1)
    return found if found in range(1, 9) else 1


def _has_trailing_chunks(picture: Any) -> bool:
    """Whether a PNG has chunks after its pixels, where ExifTool writes XMP."""
    file, pixels = picture.fp, False
    place = file.tell()
    try:
        file.seek(8)
        while len(head := file.read(8)) == 8 and head[4:] != b"IEND":
            if pixels and head[4:] != b"IDAT":
                return True
            pixels = head[4:] == b"IDAT"
            file.seek(int.from_bytes(head[:4]) + 4, os.SEEK_CUR)
        return False
    finally:
        file.seek(place)
