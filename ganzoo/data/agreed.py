"""Whether the pictures of a folder have the channels and the depth of a reading, and what it does with them."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from ganzoo.core.files import in_threads
from ganzoo.core.limits import Bounds
from ganzoo.core.text import visible
from ganzoo.data.archive import File
from ganzoo.data.decoding import Header, check_colour, upright
from ganzoo.data.finding import listing
from ganzoo.data.rasters import Raster
from ganzoo.data.reading import Reading, as_raster

Range = Literal["type", "data"] | Bounds | None
USUAL = {"uint8", "uint16"}  # types whose range is that of their pictures
LOOKED = 64  # pictures whose values are looked at
LITTLE = 1 / 4  # share of a range; values that use less of it get a warning


def agreed(
    root: Path,
    files: Mapping[str, File],
    headers: Mapping[str, Header],
    reading: Reading,
    range: Range = None,
    corrupt: str = "refuse",
    key: str = "data.{}",
) -> Reading:
    """The reading with the range and the depth of a folder's pictures; warns about what it loses.

    Args:
        root: The folder.
        files: Of its pictures, by name.
        headers: Of the pictures to be used.
        reading: The settings; its range and depth are ignored.
        range: "type", "data" for the smallest and the largest value in all files, [lowest, highest], or None: "type"
            for unsigned integers of 8 or 16 bits, and an error for other values.
        corrupt: "skip" leaves out files that cannot be decoded, of those whose values are looked at.
        key: Format of a setting's name in messages, such as "data.{}" or "data.source_{}".

    Raises:
        ValueError: The pictures have other channels than the reading, several depths, or values without a range; a
            setting contradicts the channels; or a file cannot be decoded.
    """
    _check_background(reading, key)
    _check_channels(root, headers, reading, key.format("channels"))
    types = Counter(seen.dtype for seen in headers.values())
    if types.keys() == {"uint8"} and range in (None, "type"):
        return reading
    name = key.format("range")
    _check_depths(root, headers, types, range, name)
    used = {file: files[file] for file in headers}
    if range == "data":
        low, high, _ = extremes(used, skip=corrupt == "skip")
        if low == high:
            raise ValueError(f"{name} is data, but all values in {visible(root.absolute())} are {low:g}")
        return replace(reading, range=(low, high), deep=True)
    low, high, n = extremes(used, LOOKED, corrupt == "skip")
    usual = types.most_common(1)[0][0]
    seen = f"from {low:.6g} to {high:.6g} in {n:,} of {len(used):,} pictures"
    if range is None and not types.keys() <= USUAL or range == "type" and "float" in usual:
        raise ValueError(
            f"the pictures in {visible(root.absolute())} have {usual} values, {seen}, a type without a usual range: "
            f"set {name} to data, or to [lowest, highest]"
        )
    bounds = None if range is None or isinstance(range, str) else (float(range[0]), float(range[1]))
    if len(types) == 1:
        bottom, top = bounds or (float(np.iinfo(usual).min), float(np.iinfo(usual).max))
        if min(high, top) - max(low, bottom) < LITTLE * (top - bottom):
            whole = 2 ** math.ceil(math.log2(high + 1)) - 1 if low >= 0 and not bounds else top  # of 12 bits: 4095
            warnings.warn(
                f"the values of the pictures in {visible(root.absolute())}, {seen}, use a small part of {bottom:.6g} "
                f"to {top:.6g}, so images have little contrast: set {name} to data"
                + (f", or to [0, {whole}]" if whole < top else ""),
                stacklevel=3,
            )
    return replace(reading, range=bounds or "type", deep=True)


def _check_depths(root: Path, headers: Mapping[str, Header], types: Counter[str], range: Range, name: str) -> None:
    """Refuse values that one range cannot scale."""
    usual = types.most_common(1)[0][0]
    odd = {file: seen.dtype for file, seen in headers.items() if seen.dtype != usual}
    if odd and (range is None or range == "type" and not types.keys() <= USUAL or range != "type" and "uint8" in types):
        cure = f", or set {name} to type, to scale each file by the range of its type" * (types.keys() <= USUAL)
        raise ValueError(
            f"{len(odd)} of {len(headers)} pictures in {visible(root.absolute())} have another depth than {usual}: "
            f"{listing(odd)}.\nPut each depth into a folder of its own{cure}."
        )


def _check_background(reading: Reading, key: str) -> None:
    if reading.background is None:
        return
    if reading.channels not in (1, 3):
        raise ValueError(
            f"{key.format('background')} is {reading.background!r}, but only images of 1 or 3 channels have one, and "
            f"{key.format('channels')} is {reading.channels}: leave one of them out"
        )
    check_colour(reading.background)


def _check_channels(root: Path, headers: Mapping[str, Header], reading: Reading, name: str) -> None:
    """Refuse pictures of other channels; warn about transparency that is lost or missing."""
    channels, where = reading.channels, visible(root.absolute())
    bad = {
        file: f"{seen.bands} band{'s' * (seen.bands > 1)}"
        for file, seen in headers.items()
        if seen.bands != channels and (seen.colours not in (1, 3) or channels > 4)
    }
    if bad:
        kinds = {headers[file].bands for file in bad}
        cure = "put pictures of each kind into a folder of their own"
        if len(kinds) == 1 and len(bad) == len(headers):
            cure = f"set {name} to {kinds.pop()}"
        if all(headers[file].frames for file in bad):
            cure += " (they have several frames, of which the first is used: frames are not bands)"
        raise ValueError(
            f"{len(bad)} of {len(headers)} pictures in {where} do not fit {name}, which is {channels}: "
            f"{listing(bad)}.\nTo use them, {cure}."
        )
    if channels in (1, 3):
        clear = [file for file, seen in headers.items() if seen.alpha]
        warn_of(clear, headers, root, f"transparency and are put on {reading.background or 'white'}")
    elif channels in (2, 4) and not any(seen.alpha or seen.bands == channels for seen in headers.values()):
        warnings.warn(
            f"none of the {len(headers):,} pictures in {where} has transparency, so the last channel is constant: set "
            f"{name} to {channels - 1}",
            stacklevel=4,
        )


def warn_of(names: Sequence[str], headers: Mapping[str, Header], root: Path, what: str) -> None:
    """Warn that these pictures of a folder have a property."""
    if names:
        n = f"{len(names):,} of {len(headers):,} pictures in {root.absolute()}"
        warnings.warn(f"{n} have {what}: {listing(names, 1)}", stacklevel=5)


def extremes(files: Mapping[str, File], most: int | None = None, skip: bool = False) -> tuple[float, float, int]:
    """The smallest and the largest value of pictures, without alpha, and the number of pictures.

    Args:
        files: Of the pictures, by name.
        most: Number of pictures that are read, evenly spaced; None for all.
        skip: Whether to leave out pictures that cannot be decoded, unless all are.

    Raises:
        ValueError: A picture cannot be decoded, or has values that are not finite.
    """
    names = list(files)[:: max(1, math.ceil(len(files) / most)) if most else 1]

    def one(name: str) -> tuple[float, float] | ValueError:
        try:
            return limits(upright(files[name]))
        except Exception as error:  # Pillow, numpy and tifffile raise many types on broken files
            return ValueError(f"{visible(files[name])} cannot be read: {error}; repair or remove it")

    seen = [*in_threads(one, names)]
    found = [pair for pair in seen if not isinstance(pair, ValueError)]
    for error in seen:
        if isinstance(error, ValueError) and not (skip and found):
            raise error
    return min(low for low, _ in found), max(high for _, high in found), len(found)


def limits(picture: Image.Image | Raster) -> tuple[float, float]:
    """The smallest and the largest value of a picture, without alpha; ValueError if one is not finite."""
    raster = as_raster(picture) if isinstance(picture, Image.Image) else picture
    values = raster.values[..., :-1] if raster.alpha else raster.values
    low, high = float(values.min()), float(values.max())
    if not math.isfinite(high - low):
        raise ValueError("values that are not finite")
    return low, high


def summary(headers: Iterable[Header], reading: Reading, others: Iterable[str] = ()) -> str:
    """What is unusual about pictures and what a reading does with it; empty if nothing is.

    Args:
        headers: Of the pictures.
        reading: Of the pictures.
        others: Names of other files, which are ignored.
    """
    headers, said = list(headers), []
    types = Counter(seen.dtype for seen in headers)
    if reading.deep or types.keys() - {"uint8"}:
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in types.items())
        ends = "the range of their type" if reading.range == "type" else "{:.6g} to {:.6g}".format(*reading.range)
        said.append(f"{kinds}, with {ends} as -1 to 1{'' if reading.deep else ', reduced to 8 bits'}")
    alpha = f"put on {reading.background or 'white'}" if reading.channels in (1, 3) else "which is kept"
    counts = {
        f"with transparency, {alpha}": sum(seen.alpha for seen in headers),
        "rotated or mirrored by their orientation tag": sum(seen.rotated for seen in headers),
        "with several frames, of which the first is used": sum(seen.frames for seen in headers),
    }
    said += [f"{n:,} {what}" for what, n in counts.items() if n]
    suffixes = Counter(Path(name).suffix.lower() or "(no suffix)" for name in others)
    if suffixes:
        said.append(f"ignored: {', '.join(f'{n:,} {suffix}' for suffix, n in suffixes.most_common(5))}")
    return "; ".join(said)
