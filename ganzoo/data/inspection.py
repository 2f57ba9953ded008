"""What is in a folder of pictures: every file is decoded, and its problems are listed."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ganzoo.core.files import in_threads
from ganzoo.core.limits import Size, sides
from ganzoo.core.text import composed, path_of
from ganzoo.data.agreed import limits
from ganzoo.data.archive import File
from ganzoo.data.decoding import Header, header, upright
from ganzoo.data.finding import find
from ganzoo.data.rasters import Raster
from ganzoo.data.reading import as_raster


@dataclass
class FolderReport:
    """Results of `scan`. File names are relative to the folder, with forward slashes.

    Attributes:
        images: Number of files with a picture's extension.
        others: Number of other files, without hidden ones.
        extensions: Number of pictures by extension, such as ".jpg".
        modes: Number of pictures by Pillow's mode: "RGB", "L", "P", ...
        width: Smallest, median and largest width in pixels; zeros if no file could be read.
        height: Likewise.
        sizes: Number of distinct (width, height).
        classes: Number of pictures by top-level subfolder; "" for those outside subfolders.
        empty: Top-level subfolders without a readable picture.
        unusable: For each file that cannot be read, the reason.
        notes: Remarks on usable files: smaller than `image_size`, animated, more than 8 bits, transparent.
        suffixes: Number of other files by extension.
        bands: Number of pictures by their number of bands, with alpha.
        ranges: For each type of values: number of pictures, smallest and largest value.
        alpha: Number of pictures with a band of opacity.
        transparent: Number of transparent pictures.
        rotated: Number of pictures that are turned by their EXIF orientation.
        animated: Number of pictures with several frames.
    """

    images: int
    others: int
    extensions: dict[str, int]
    modes: dict[str, int]
    width: tuple[int, int, int]
    height: tuple[int, int, int]
    sizes: int
    classes: dict[str, int]
    empty: list[str]
    unusable: dict[str, str]
    notes: dict[str, str]
    suffixes: dict[str, int]
    bands: dict[int, int]
    ranges: dict[str, tuple[int, float, float]]
    alpha: int
    transparent: int
    rotated: int
    animated: int


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
    for done, (name, found) in enumerate(zip(names, in_threads(_inspect, tree.pictures.values()), strict=True), 1):
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
        alpha=sum(found.alpha for found in headers),
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
