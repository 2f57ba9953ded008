"""Picture files: finding, checking and decoding them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from ganzoo.core.limits import Size, area, check_memory, sides
from ganzoo.core.text import visible
from ganzoo.data.archive import File, is_archive, members, open_any

Fit = Literal["crop", "squeeze", "pad"]
EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")  # for any extension; for EPS, Pillow would run Ghostscript
MOST_PIXELS = 89_478_485  # Pillow's own limit, above which it warns


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


def fitted(picture: Image.Image, size: Size, fit: Fit = "crop") -> Tensor:
    """A picture of mode L or RGB as uint8 [C, *size].

    Args:
        picture: Of any size.
        size: Pixels per side of a square, or [height, width].
        fit: "crop" keeps the largest centred part of this shape; "squeeze" distorts the whole picture to it; "pad"
            centres the whole picture on white, as transparent pictures are put on white.
    """
    height, width = sides(size)
    if fit == "crop":
        picture = picture.crop(_centred(picture.size, _largest(picture.size, (width, height))))
    inner = _largest((width, height), picture.size) if fit == "pad" else (width, height)
    if picture.size != inner:
        picture = picture.resize(inner, Image.Resampling.LANCZOS)  # Pillow's filters are antialiased
    if inner != (width, height):
        canvas = Image.new(picture.mode, (width, height), "white")
        canvas.paste(picture, _centred(canvas.size, inner))
        picture = canvas
    return pixels(picture)


def _largest(room: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int]:
    """The largest (width, height) of this shape that fits into a room, at least one pixel."""
    if room[0] * shape[1] > room[1] * shape[0]:
        return max(1, round(room[1] * shape[0] / shape[1])), room[1]
    return room[0], max(1, round(room[0] * shape[1] / shape[0]))


def _centred(room: tuple[int, int], inner: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a centred rectangle, from sizes (width, height)."""
    left, top = (room[0] - inner[0]) // 2, (room[1] - inner[1]) // 2
    return left, top, left + inner[0], top + inner[1]


def pixels(picture: Image.Image) -> Tensor:
    """A picture of mode L or RGB as uint8 [C, H, W]."""
    return torch.from_numpy(np.array(picture)).reshape(picture.height, picture.width, -1).permute(2, 0, 1).contiguous()


def upright(file: File, least: int | None = None) -> Image.Image:
    """Read a picture upright (EXIF orientation applied), with 8 bits per channel, and on white if it is transparent.

    Args:
        file: The picture.
        least: A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size if no side becomes smaller than this, in pixels;
            None decodes the full size.

    Raises:
        ValueError: It has 32-bit pixels outside the 16-bit range.
        Exception: Whatever Pillow raises on a broken file.
    """
    with open_picture(file) as opened:
        if least:
            opened.draft(None, (least, least))
        picture: Image.Image = ImageOps.exif_transpose(opened)
    if picture.mode.startswith("I"):  # 16 bits: Pillow would clip the values instead of scaling them
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"32-bit pixels from {values.min()} to {values.max()}, outside the 16-bit range")
        picture = Image.fromarray((values / 257).round().astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture


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


def header(file: File) -> tuple[tuple[int, int], str] | str:
    """Upright (width, height) and Pillow's mode, from the header alone; or the reason why the file is unusable.
    `RGB;16` marks 16 bits per channel that Pillow reduces to 8."""
    try:
        with open_picture(file) as picture:
            if picture.mode == "F":
                return "32-bit float pixels of unknown range"
            tiles = getattr(picture, "tile", [])
            arguments = tiles[0].args if tiles else ""
            raw = str(arguments if isinstance(arguments, str) else arguments[0])
            hides = ";16" in raw and ";16" not in picture.mode and not raw.startswith("BGR")  # BGR;16: 5, 6, 5 bits
            size = (picture.size[1], picture.size[0]) if _quarter_turned(picture) else picture.size
            return size, f"{picture.mode};16" if hides else picture.mode
    except Image.UnidentifiedImageError:
        return "not a picture"
    except Exception as error:  # Pillow raises many types on broken files
        return str(error)


def _quarter_turned(picture: Image.Image) -> bool:
    """Whether `ImageOps.exif_transpose`, which reads the same tag, will swap width and height."""
    if picture.format == "TIFF":  # Pillow has already swapped them
        return False
    # PNG's own `getexif` decodes the whole picture, since metadata may follow the pixels.
    exif = (
        picture.getexif() if picture.format == "PNG" and _has_trailing_chunks(picture) else Image.Image.getexif(picture)
    )
    return exif.get(ExifTags.Base.Orientation) in (5, 6, 7, 8)


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


def deep(mode: str) -> bool:
    """Whether a mode returned by `header` has more than 8 bits per channel."""
    return mode == "I" or ";16" in mode


def transparent(mode: str) -> bool:
    """Whether a mode returned by `header` has an alpha channel."""
    return mode.partition(";")[0] in ("LA", "La", "PA", "RGBA", "RGBa")


def warn_of_losses(headers: dict[str, tuple[tuple[int, int], str]], root: Path) -> None:
    """Warn about pictures of a folder that lose 16-bit precision or transparency: at most one warning for each."""
    cases = (deep, "16 bits per channel and are reduced to 8"), (transparent, "transparency and are put on white")
    for lossy, what in cases:
        if names := [name for name, (_, mode) in headers.items() if lossy(mode)]:
            n = f"{len(names):,} of {len(headers):,} pictures in {root.absolute()}"
            warnings.warn(f"{n} have {what}: {listing(names, 1)}", stacklevel=4)


def grey(mode: str) -> bool:
    """Whether a Pillow mode is greyscale."""
    return mode in ("1", "L", "LA", "La") or mode.startswith("I")


def readable(root: Path, files: dict[str, File], corrupt: str) -> dict[str, tuple[tuple[int, int], str]]:
    """The headers (see `header`) of all usable files; the others are passed to `leave_out`."""
    with ThreadPoolExecutor() as pool:
        seen = dict(zip(files, pool.map(header, files.values()), strict=True))
    bad = {name: problem for name, problem in seen.items() if isinstance(problem, str)}
    leave_out(bad, len(files), f"files in {visible(root.absolute())} cannot be read as pictures", corrupt)
    found = {name: found for name, found in seen.items() if not isinstance(found, str)}
    warn_of_losses(found, root)
    return found


def leave_out(bad: dict[str, str], n: int, what: str, corrupt: str) -> None:
    """Raise a ValueError for bad files (name -> problem), or warn if `corrupt` is "skip" and other files are left."""
    if not bad:
        return
    message = f"{len(bad)} of {n} {what}: {listing(bad)}"
    if len(bad) == n:
        raise ValueError(f"{message}.\nNo pictures are left to train on: check the path.")
    if corrupt == "refuse":
        raise ValueError(f"{message}.\nRemove them, or set data.corrupt to skip, to train on the others.")
    warnings.warn(f"skipped: {message}", stacklevel=4)


class Tree(NamedTuple):
    """The contents of a folder or an archive, without hidden files and folders; names are relative."""

    pictures: dict[str, File]  # sorted by name
    others: dict[str, File]
    folders: set[str]


def find(root: Path) -> Tree:
    """The files below a folder or in a zip archive.

    Raises:
        FileNotFoundError: It does not exist, or contains no pictures.
        NotADirectoryError: It is another file.
        ValueError: It is a damaged or unsafe archive.
    """
    if not root.exists():
        raise FileNotFoundError(f"There is no folder {root.absolute()}: check the path.")
    if not is_archive(root) and not root.is_dir():
        raise NotADirectoryError(f"{root.absolute()} is a file: give the folder of the pictures, or a .zip of them.")
    files, folders = members(root) if is_archive(root) else _walk(root)
    pictures = {name: files[name] for name in sorted(files) if name.lower().endswith(EXTENSIONS)}
    others = {name: file for name, file in files.items() if name not in pictures}
    if not pictures:
        raise FileNotFoundError(
            f"No pictures in {root.absolute()} or below: looked for {' '.join(EXTENSIONS)}, found {len(others)} other "
            "files."
        )
    return Tree(pictures, others, folders)


def _walk(root: Path) -> tuple[Mapping[str, File], set[str]]:
    """All files and folders below a folder, by relative name; hidden ones are ignored."""
    files: dict[str, File] = {}
    folders, seen = set[str](), set[str]()
    for folder, below, names in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:  # a symbolic link to a folder seen before
            below.clear()
            continue
        seen.add(real)
        below[:] = [name for name in below if not name.startswith(".")]
        own = Path(folder).relative_to(root)
        folders.add(own.as_posix())
        files |= {(own / name).as_posix(): Path(folder) / name for name in names if not name.startswith(".")}
    return files, folders - {"."}


def listing(files: Iterable[str] | dict[str, str], most: int = 10) -> str:
    """The first `most` files, one per line, with the reasons if given."""
    named = [f"{name}: {why}" for name, why in files.items()] if isinstance(files, dict) else files
    lines = [visible(line) for line in named]
    rest = [f"and {len(lines) - most} more"] if len(lines) > most else []
    return ";".join(f"\n  {line}" for line in lines[:most] + rest)  # also legible if joined into one line
