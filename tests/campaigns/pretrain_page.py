"""Cards, a table and a wall of pictures of the trained models, generated from their records and weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont

import ganzoo
from ganzoo.checkpoint.pretrained import load
from ganzoo.cli.catalog import paper
from ganzoo.cli.parsing import datamodule
from ganzoo.cli.paths import record_of
from ganzoo.core.drawing import above, picture
from ganzoo.core.pixels import to_float
from ganzoo.evaluation.choice import usual_split
from ganzoo.evaluation.record import Score

COLUMNS = 10  # on the wall
TILE = 48  # minimum size of an image on it, in pixels
NAMES = 170  # width of the names beside the images, in pixels
MADE_BY = "<!-- Made by `python -m tests.campaigns.pretrain --page` from the records; what is changed here is lost. -->"
Record = Mapping[str, Any]


def write(out: Path) -> None:
    """Writes a card into each model's folder, and README.md and wall.png beside the folders."""
    folders = shipped(out)
    if not folders:
        return
    for folder in folders:
        (folder / "README.md").write_text(card(folder.name, record_of(folder)))
    (out / "README.md").write_text(page({folder.name: record_of(folder) for folder in folders}))
    wall(folders).save(out / "wall.png", optimize=True)


def shipped(out: Path) -> list[Path]:
    """The models' folders in a folder, sorted by name."""
    return sorted(file.parent for file in out.glob("*/record.json"))


# Text


def card(name: str, record: Record) -> str:
    """Markdown: a model's training, usage, scores and limitations."""
    variant, config, made = record["variant"], record["config"], record["made"]
    full, short = scores(record, "scores"), scores(record, "quick")
    p = full[0].protocol
    counts = ", ".join(f"{player} {count:,}" for player, count in record["parameters"].items())
    off = record["samples_off"]
    rounding = f"; of 64 samples {off['bytes']:.2%} of the bytes are off by {off['by_at_most']}" if off["bytes"] else ""
    facts = {
        "trained by": f"`{record['command']}`",
        "steps": f"{record['steps']:,}, {record['images_seen']:,} images",
        "time": f"{took(record['seconds'], 'wall')}, of which {took(record['seconds'], 'cpu')} on the CPU, one thread",
        "made": f"{record['date']} with ganzoo {made['ganzoo']} ({made['commit']}), torch {made['torch']}, Python "
        f"{made['python']}, on the CPU",
        "parameters": counts,
        "weights": f"{'the generator alone' if record['slim'] else 'all'}, {record['dtype']}, "
        f"{record['bytes'] / 1e3:,.0f} kB{rounding}",
        "sha256": f"`{record['sha256']}`",
    }
    if record["error"]:
        facts["classifies"] = error(record)
    against = f"{p['reals']:,} {p['split']} images of {p['data']}, " if "reals" in p else ""
    lines = [
        MADE_BY,
        f"# {name}",
        "",
        f"{variant}: {paper(ganzoo.VARIANTS[variant])}. The config is `{config}`.",
        "",
        *table(("", ""), facts.items()),
        "",
        "```python",
        *use(name, record),
        "```",
        "",
        "```bash",
        f"python -m ganzoo sample {name}{' --source DIR' if record['source_channels'] else ''}",
        f"python -m ganzoo evaluate {name}",
        "```",
        "",
        "## Scores",
        "",
        f"Of {p['fakes']:,} fakes against {against}{p['image']}, with the weights that are here:",
        "",
        *table(("score", "value", ""), [(f"`{s.name}`", s.readable, s.reading) for s in full]),
        "",
        "The tests repeat " + " and ".join(f"`{s.name}` {s.readable}" for s in short) + ".",
        "",
        "## To know",
        "",
        "- This is the last state of one training, not its best one, and the seed was not chosen.",
    ]
    if record["slim"]:
        lines.append(
            "- The discriminator is not here: a loaded model's is untrained. To train on, start from the config."
        )
    lines += [
        "- It shows what the variant learns from a few thousand small pictures in minutes, and is meant for trying and",
        "  testing, not for use.",
        "",
    ]
    return "\n".join(lines)


def page(records: Mapping[str, Record]) -> str:
    """Markdown: all models in one table."""
    megabytes = sum(record["bytes"] for record in records.values()) / 1e6
    total = {which: sum(record["seconds"][which] for record in records.values()) for which in ("wall", "cpu")}
    head = ("model", "held against", "FID", "precision", "recall", "accuracy", "steps", "time", "weights")
    rows = []
    for name, record in records.items():
        full = scores(record, "scores")
        by = {score.figure: score.readable for score in full}
        p = full[0].protocol
        data = f"{p['data']}, {p['split']}, {p['image']}" if "reals" in p else p["image"]
        size = f"{record['bytes'] / 1e3:,.0f} kB, {record['dtype']}{'' if record['slim'] else ', whole'}"
        figures = [by.get(which, "") for which in ("fid", "precision", "recall", "accuracy")]
        figures[3] = figures[3] or error(record)
        rows.append(
            (
                f"[{name}]({name}/README.md)",
                data,
                *figures,
                f"{record['steps']:,}",
                f"{took(record['seconds'], 'wall')} ({clock(record['seconds']['cpu'])})",
                size,
            )
        )
    lines = [
        MADE_BY,
        "# Trained models",
        "",
        f"{len(records)} models, {megabytes:.1f} MB, trained on one CPU thread in {clock(total['wall'])}, "
        f"{clock(total['cpu'])} of CPU time: each by its committed config and seed 0, each the last state of its "
        "training.",
        "`ganzoo.load(NAME)` and `python -m ganzoo sample NAME` find them by their names.",
        "",
        "![samples of all models](wall.png)",
        "",
        f"Seeds 0 to {COLUMNS - 1} of each model; conditional ones show one class after the other; above translations "
        "stands what was translated.",
        "",
        *table(head, rows),
        "",
        "The scores are those of the weights that are here; a model's card has more of them, and their full names. "
        "Only rows that are held against the same images can be compared. FID: lower is better; the others: higher. "
        "Accuracy: of the classes that were asked for; or how a model that was trained to classify does on held-out "
        "images. Time: in brackets that of the CPU.",
        "",
        "```bash",
        "python -m tests.campaigns.pretrain                  # trains what is not there, or not by the present config",
        "python -m tests.campaigns.pretrain dcgan/digits     # one of them",
        "python -m tests.campaigns.pretrain --page           # this page, the cards and the pictures, from the records",
        "```",
        "",
    ]
    return "\n".join(lines)


def use(name: str, record: Record) -> list[str]:
    """Lines of Python that load and use the model."""
    lines = ["import ganzoo", "", f'model = ganzoo.load("{name}")']
    if channels := record["source_channels"]:
        return [*lines, f"images = model.sample(source=source)  # [N, {channels}, H, W] in [-1, 1], as the images are"]
    if classes := record["num_classes"]:
        return [*lines, f"images = model.sample(16, label=7)  # of the classes 0 to {classes - 1}; in [-1, 1]"]
    lines.append("images = model.sample(16)  # [16, C, H, W] in [-1, 1]")
    return [*lines, "classes = model.classify(images)  # [16]"] if record["error"] else lines


def scores(record: Record, which: str) -> list[Score]:
    """The scores of the whole evaluation ("scores"), or of the one that the tests repeat ("quick")."""
    found = record[which]["scores"]
    return [Score(**{**score, "value": math.nan if score["value"] is None else score["value"]}) for score in found]


def error(record: Record) -> str:
    """The error of a classifier in words; "" for other models."""
    found = record["error"]
    return f"{found['wrong']} of {found['images']} {found['split']} images wrong" if found else ""


def took(seconds: Record, which: str) -> str:
    """`3:05`; "at least 3:05" if a part of the training was killed before its time was recorded."""
    return ("at least " if seconds["parts_not_counted"] else "") + clock(seconds[which])


def clock(seconds: float) -> str:
    """185 -> 3:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def table(head: Sequence[str], rows: Any) -> list[str]:
    return [f"| {' | '.join(map(str, row))} |" for row in (head, ["---"] * len(head), *rows)]


# Pictures


def wall(folders: Sequence[Path]) -> Image.Image:
    """One row per model: its name, and samples, or sources above their translations."""
    rows = [strip(folder) for folder in folders]
    canvas = Image.new("RGB", (NAMES + max(row.width for row in rows), sum(row.height for row in rows)))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(16)
    top = 0
    for folder, row in zip(folders, rows, strict=True):
        draw.text((8, top + row.height // 2), folder.name, "white", font, anchor="lm")
        canvas.paste(row, (NAMES, top))
        top += row.height
    return canvas


def strip(folder: Path) -> Image.Image:
    """Samples of the seeds 0, 1, ..., not selected; cycles through the classes of conditional models."""
    model, seeds = load(folder), range(COLUMNS)
    label = None if model.num_classes is None else [i % model.num_classes for i in seeds]
    source = None
    if model.source_channels is not None:
        source = sources(model, datamodule(record_of(folder)["settings"]["data"]), COLUMNS)
    images = model.sample(seeds=seeds, label=label, source=source)
    return picture(images if source is None else above(source, images, COLUMNS), COLUMNS, TILE)


def sources(model: Any, data: Any, n: int) -> torch.Tensor:
    """The first n sources [n, C', H, W] in [-1, 1] of the split on which a translator is evaluated."""
    data.prepare_data()
    images = data.dataset(usual_split(model, data))
    source = images.__getitems__([i % len(images) for i in range(n)])["source"]
    return to_float(source) if source.dtype == torch.uint8 else source
