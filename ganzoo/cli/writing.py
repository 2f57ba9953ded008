"""Writes the images of `sample`: a grid, single files, or an array."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from ganzoo.cli.errors import UserError
from ganzoo.core.atomic import write_atomically

Parts = Iterator[tuple[Any, Any]]  # sources (None without --source) and images of a batch, [N, C, H, W] in [-1, 1]


def suffix(options: Any, channels: int | None) -> str:
    """The suffix of single files: Pillow writes PNG of up to four channels, with 16 bits in grey only."""
    if options.depth == 16 and options.format == "grid":
        raise UserError("a grid has 8 bits per channel; use --format png or npy with --depth 16")
    if options.format != "png" or channels is None or channels == 1 or channels <= 4 and options.depth == 8:
        return ".png"
    try:
        import tifffile  # noqa: F401
    except ImportError as error:
        what = f"{channels} channels of {options.depth} bits"
        raise UserError(
            f'files of {what} are TIFF, which takes tifffile: pip install "ganzoo[tiff]", or use --format npy'
        ) from error
    return ".tif"


def write(parts: Parts, names: Sequence[str], columns: int, options: Any) -> str:
    """Writes the images, and returns what was written; at most one batch is in memory, except for a grid."""
    folder, kind = options.outdir, options.format
    single = {"grid": "grid.png", "npy": "samples.npy"}.get(kind)
    files = [folder / name for name in ([single] if single else [f"{name}{options.suffix}" for name in names])]
    read = {source.resolve() for source in options.source or []}
    for file in files:
        folders = () if kind == "npy" else file.resolve().parents  # an array may lie beside pictures
        if file.exists() and {file.resolve(), *folders} & read:
            raise UserError(f"--outdir {folder} would replace pictures of --source; choose another folder")
    first = next(parts)  # nothing is written if the first batch fails
    if kind == "png" and options.depth == 16 and options.suffix == ".png" and first[1].shape[1] > 1:
        raise UserError(f"a PNG of 16 bits is grey, but these have {first[1].shape[1]} channels; use --format npy")
    parts = _shown(chain([first], parts), len(names))
    folder.mkdir(parents=True, exist_ok=True)
    before = {file for beside in {file.parent for file in files} for file in beside.glob(f"*{options.suffix}")}
    replaced = ", replaced" if any(file.exists() for file in files) else ""
    if kind == "npy":
        write_atomically(files[0], lambda file: _write_array(file, parts, len(names), options.depth))
    elif kind == "grid":
        grid = _grid(parts, columns, options.bands)
        write_atomically(files[0], partial(grid.save, format="png"))
    else:
        _write_each(files, parts, options.depth)
    what = files[0] if single else f"{folder}/{'*' if options.source else 'seed*'}{options.suffix}"
    others = len(before - set(files))
    return f"{what}{replaced}{f'; {folder} had {others:,} other pictures before' if others else ''}"


def _shown(parts: Parts, n: int) -> Parts:
    """The same batches, with a progress bar."""
    from ganzoo.callbacks.base import Bar

    with Bar(transient=True) as bar:
        task = bar.add_task("images", total=n)
        for sources, images in parts:
            yield sources, images
            bar.advance(task, len(images))


def _write_each(files: Sequence[Path], parts: Parts, depth: int) -> None:
    from PIL import Image

    from ganzoo.core.drawing import to_pil

    rest = iter(files)
    for _, images in parts:
        tiff, wide = files[0].suffix == ".tif", depth == 16
        drawn: Iterable[Any] = _array(images, depth) if tiff or wide else to_pil(images)
        for image in drawn:
            file = next(rest)
            file.parent.mkdir(parents=True, exist_ok=True)
            if tiff:
                save: Any = partial(_write_tiff, image=image)
            else:
                save = partial((Image.fromarray(image[..., 0]) if wide else image).save, format="png")
            write_atomically(file, save, durable=False)


def _write_tiff(file: BinaryIO, image: Any) -> None:
    """Writes an array [H, W, C]; the last of 2 or 4 channels is alpha."""
    import tifffile

    channels = image.shape[2]
    kind = "rgb" if channels in (3, 4) else "minisblack"
    extra = ["unassalpha"] if channels in (2, 4) else [0] * (channels - 1) if channels > 4 else []
    tifffile.imwrite(file, image, photometric=kind, planarconfig="contig", extrasamples=extra)


def _array(images: Any, depth: int) -> Any:
    """Images as an array [N, H, W, C] of 8 or 16 bits; points in the plane stay floats."""
    from ganzoo.core.pixels import as_bytes, to_uint16

    values = as_bytes(images)
    if depth == 16 and not values.is_floating_point():
        return to_uint16(images).permute(0, 2, 3, 1).contiguous().numpy().astype("uint16")
    return values.permute(0, 2, 3, 1).contiguous().numpy()


def _write_array(file: BinaryIO, parts: Parts, n: int, depth: int) -> None:
    """Writes [n, H, W, C] in numpy's format, batch by batch."""
    from numpy.lib import format as npy

    for i, (_, images) in enumerate(parts):
        array = _array(images, depth)
        if i == 0:
            kind = {"descr": npy.dtype_to_descr(array.dtype), "fortran_order": False, "shape": (n, *array.shape[1:])}
            npy.write_array_header_1_0(file, kind)
        file.write(array.data)


def _grid(parts: Parts, columns: int, bands: Sequence[int] | None) -> Any:
    import torch

    from ganzoo.core.drawing import above, picture, shown
    from ganzoo.core.pixels import as_bytes

    sources, images = zip(*((s if s is None else as_bytes(s), as_bytes(x)) for s, x in parts), strict=True)
    tiles = torch.cat(images)
    if sources[0] is None:
        return picture(tiles, columns, bands=bands)
    return picture(above(shown(torch.cat(sources)), shown(tiles, bands), columns), columns)
