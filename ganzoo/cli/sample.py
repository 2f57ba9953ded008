"""`sample`: images from a checkpoint; no data set and no GPU needed."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ganzoo.cli.errors import UserError
from ganzoo.cli.paths import find_checkpoint


def main(verb: str, arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(f"python -m ganzoo {verb}", description=__doc__)
    parser.add_argument("checkpoint", help="a run's folder, a .ckpt file, or a folder written by save_pretrained")
    parser.add_argument("--seeds", metavar="0,1,4-6", help="one image each; the same seed gives the same image")
    parser.add_argument("-n", type=int, metavar="N", help="how many, with seeds from 0 on (default 64)")
    parser.add_argument("--class", dest="label", type=int, help="the class of all images, for a conditional model")
    parser.add_argument("--outdir", type=Path, default=Path("samples"), help="where to write (default: samples)")
    parser.add_argument(
        "--format",
        choices=("grid", "png", "npy"),
        default="grid",
        help="one picture, one picture for each seed, or an array [N, H, W, C] of bytes",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps (default: cpu)")
    parser.add_argument("--variant", metavar="my_file.MyGAN", help="the class of a checkpoint of your own variant")
    options = parser.parse_args(arguments)
    seeds = parse_seeds(options.seeds) if options.seeds else list(range(options.n if options.n is not None else 64))
    if not seeds or (options.seeds and options.n is not None and options.n != len(seeds)):
        raise UserError(f"-n {options.n} and --seeds {options.seeds} disagree; either of them is enough")
    path = find_checkpoint(options.checkpoint)

    from ganzoo.core.pictures import picture
    from ganzoo.hub import load

    try:
        model = load(path, _import(options.variant), map_location=options.device)
        images = model.sample(seeds=seeds, label=options.label)
        options.outdir.mkdir(parents=True, exist_ok=True)
        files = _write(images, seeds, options.outdir, options.format, picture)
    except (ValueError, OSError, RuntimeError) as error:
        raise UserError(str(error)) from error
    print(f"{len(seeds)} images of {type(model).__name__} ({int(model.images_seen):,} training images seen): {files}")
    return 0


def _write(images: Any, seeds: Sequence[int], folder: Path, kind: str, picture: Any) -> str:
    if kind == "png":
        for seed, image in zip(seeds, images, strict=True):
            picture(image[None], 1, tile=1).save(folder / f"seed{seed:06d}.png")
        return f"{folder}/seed*.png"
    if kind == "npy":
        import numpy as np

        from ganzoo.core.images import to_uint8

        np.save(folder / "samples.npy", to_uint8(images).permute(0, 2, 3, 1).numpy())
        return f"{folder}/samples.npy"
    columns = max(1, round(len(seeds) ** 0.5))
    picture(images, columns).save(folder / "grid.png")
    return f"{folder}/grid.png"


def parse_seeds(text: str) -> list[int]:
    """`0,1,4-6` -> [0, 1, 4, 5, 6]."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise UserError(f"--seeds {text!r}: write numbers and ranges, such as 0,1,4-6")
        seeds += range(int(first), int(last if dash else first) + 1)
    return seeds


def _import(name: str | None) -> Any:
    if name is None:
        return None
    module, _, cls = name.rpartition(".")
    sys.path.insert(0, "")  # the user's own file lies in the working folder
    try:
        return getattr(importlib.import_module(module), cls)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"--variant {name}: {error}") from error
