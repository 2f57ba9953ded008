"""Benchmark: loading from shards compared with a folder, and memory by number of pictures."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from ganzoo.cli.errors import UserError
from ganzoo.core.text import one_line
from tests.benchmarks.rows import GOALS, row, timed

ROOT = Path(__file__).parents[2]
SIZES = {64: 2000, 256: 400}  # side in pixels -> number of pictures
PICTURES = (5_000, 50_000)  # of 64x64 pixels, in the memory benchmark
FILES = 100  # the others are links to these
BATCH = 64


def shards(device: str, repeats: int) -> dict[str, Any]:
    """Images per second of one process, and its memory in MB for few and for many pictures."""
    raw: dict[str, Any] = {"rates": {}, "memory": {}}
    with tempfile.TemporaryDirectory() as folder:
        print(f"\nshards: images/s without workers, files cached; median (p10 to p90) of {repeats}, interleaved")
        for size, n in SIZES.items():
            pictures = _pictures(Path(folder, f"{size}"), n, size)
            out = _prepare(pictures, Path(folder, f"out-{size}"), size)
            rates = raw["rates"][str(size)] = _rates(str(pictures), str(out), size, repeats)
            for name, figures in rates.items():
                row(f"{size}x{size}: {name}", figures, ".0f")
        if not Path("/proc/self/smaps_rollup").exists():
            print("  memory: not measured; needs Linux's /proc/self/smaps_rollup")
            return raw
        print(f"\nshards: MB added to a process by an epoch, without mapped files, 64x64, {repeats} times")
        for n in PICTURES:
            out = _prepare(_pictures(Path(folder, f"n{n}"), n, 64), Path(folder, f"out-n{n}"), 64)
            raw["memory"][str(n)] = [_memory(out) for _ in range(repeats)]
            row(f"{n:,} pictures", raw["memory"][str(n)], ".1f")
        few, many = (raw["memory"][str(n)] for n in PICTURES)
        row("difference", [b - a for a, b in zip(few, many, strict=True)], ".1f", f"at most {GOALS['shards']}")
        row("  size of the added pixels", [(PICTURES[1] - PICTURES[0]) * 3 * 64 * 64 * 1e-6], ".1f")
    return raw


def _pictures(folder: Path, n: int, size: int) -> Path:
    """A folder of PNGs that compress about as well as photographs."""
    import numpy as np
    from PIL import Image

    folder.mkdir()
    for i in range(n):
        file = folder / f"{i:06d}.png"
        if i < FILES:
            pixels = np.random.default_rng(i).integers(0, 256, (size // 4, size // 4, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC).save(file)
        else:
            file.symlink_to(folder / f"{i % FILES:06d}.png")
    return folder


def _prepare(pictures: Path, out: Path, size: int) -> Path:
    from ganzoo.data.prepare import prepare

    prepare(str(pictures), str(out), image_size=size)
    return out


def _rates(pictures: str, out: str, size: int, repeats: int) -> dict[str, list[float]]:
    from ganzoo.data import ImageFolder, Shards

    options: dict[str, Any] = {"batch_size": BATCH, "num_workers": 0, "val_fraction": 0}
    loaders = {
        "folder of PNGs": ImageFolder(pictures, size, cache_gb=0, **options).train_dataloader(),
        "shards": Shards(out, **options).train_dataloader(),
    }
    rates: dict[str, list[float]] = {name: [] for name in loaders}
    for repeat in range(repeats + 1):
        for name, loader in loaders.items():
            images, time = timed(partial(_count, loader))
            if repeat:  # the first pass warms up
                rates[name].append(images / time.wall)
    return rates


def _count(loader: Iterable[Any]) -> int:
    return sum(len(batch["image"]) for batch in loader)


def _memory(out: Path) -> float:
    code = f"from tests.benchmarks.shards import epoch; epoch({str(out)!r})"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=ROOT)
    if done.returncode:
        raise UserError(f"epoch of shards: {one_line(done.stderr.strip().rpartition(chr(10))[2])}")
    return float(done.stdout)


def epoch(out: str) -> None:
    """Prints the MB by which this process's anonymous memory grows in an epoch of all pictures."""
    from ganzoo.data import Shards

    before = anonymous()
    for _ in Shards(out, batch_size=BATCH, num_workers=0, val_fraction=0).train_dataloader():
        pass
    print(anonymous() - before)


def anonymous() -> float:
    """Anonymous memory of this process in MB; mapped files do not count, as they can be dropped and read again."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) * 1024e-6
