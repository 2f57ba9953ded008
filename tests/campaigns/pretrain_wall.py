"""The wall of pictures of the trained models, one row for each variant."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont

from ganzoo.checkpoint.pretrained import load
from ganzoo.cli.parsing import datamodule
from ganzoo.cli.paths import record_of
from ganzoo.core.drawing import picture
from ganzoo.core.pixels import to_float
from ganzoo.evaluation.choice import usual_split
from tests.campaigns import pretrain_page

COLUMNS = 6  # the skin tones
TILE = 64  # minimum size of an image, in pixels
NAMES = 170  # width of the names beside the images, in pixels
MOST = 1_500_000  # bytes of the file
COLOURS = 256  # if the file would be larger


def write(out: Path) -> None:
    """Writes wall.png beside the models' folders."""
    records = {folder.name: record_of(folder) for folder in pretrain_page.shipped(out)}
    if folders := [out / name for name in pretrain_page.one_each(records).values()]:
        (out / "wall.png").write_bytes(encoded(wall(folders)))


def encoded(image: Image.Image, most: int = MOST) -> bytes:
    """A PNG file of at most `most` bytes, with a palette if it would be larger otherwise.

    Raises:
        ValueError: it is too large with a palette, too.
    """
    for form in (image, image.quantize(COLOURS, dither=Image.Dither.NONE)):
        file = BytesIO()
        form.save(file, "PNG", optimize=True)
        if file.tell() <= most:
            return file.getvalue()
    raise ValueError(f"the wall has {file.tell():,} bytes, more than {most:,}: show fewer columns")


def wall(folders: Sequence[Path]) -> Image.Image:
    """One row per model, in two panels: its name, and samples, or sources, translations and true images."""
    rows = [(folder.name, strip(folder)) for folder in folders]
    parts = min(([rows[:i], rows[i:]] for i in range(1, len(rows) + 1)), key=lambda parts: max(map(height, parts)))
    panels = [panel(part) for part in parts if part]
    canvas = Image.new("RGB", (sum(panel.width for panel in panels), max(panel.height for panel in panels)))
    for i, image in enumerate(panels):
        canvas.paste(image, (i * panels[0].width, 0))
    return canvas


def height(rows: Sequence[tuple[str, Image.Image]]) -> int:
    return sum(row.height for _, row in rows)


def panel(rows: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    canvas = Image.new("RGB", (NAMES + max(row.width for _, row in rows), height(rows)))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(16)
    top = 0
    for name, row in rows:
        draw.text((8, top + row.height // 2), name, "white", font, anchor="lm")
        canvas.paste(row, (NAMES, top))
        top += row.height
    return canvas


def strip(folder: Path) -> Image.Image:
    """Samples of the seeds 0, 1, ..., not selected; cycles through the trained classes of conditional models."""
    model, seeds = load(folder), range(COLUMNS)
    if model.source_channels is not None:
        data = datamodule(record_of(folder)["settings"]["data"])
        source, truth = (held_out(model, data, COLUMNS, which) for which in ("source", "image"))
        images = torch.cat([coloured(part) for part in (source, model.sample(seeds=seeds, source=source), truth)])
    else:
        usual = model.trained_labels()
        label = [usual[i % len(usual)] for i in seeds] if usual else None
        images = model.sample(seeds=seeds, label=label)
    return picture(images, COLUMNS, TILE)


def coloured(images: torch.Tensor) -> torch.Tensor:
    return images.expand(-1, 3, -1, -1)


def held_out(model: Any, data: Any, n: int, which: str) -> torch.Tensor:
    """n sources ("source"), at equal distances in the split on which a translator is evaluated, or their true
    translations ("image"): [n, C, H, W] in [-1, 1]."""
    data.prepare_data()
    images = data.dataset(usual_split(model, data))
    found = images.__getitems__([i * len(images) // n for i in range(n)])[which]
    return to_float(found) if found.dtype == torch.uint8 else found
