"""`sample`: images from a checkpoint; no data set and no GPU needed."""

from __future__ import annotations

import importlib
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ganzoo.cli.errors import Arguments, UserError, user_errors
from ganzoo.cli.paths import find_checkpoint, own_files


def main(verb: str, arguments: Sequence[str]) -> int:
    parser = Arguments(verb, "Images from a checkpoint; no data set and no GPU needed.")
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
    seeds = _seeds(options.seeds, options.n)
    path = find_checkpoint(options.checkpoint)
    with user_errors():
        variant = import_variant(options.variant)

        from ganzoo.hub import load

        model = load(path, variant)
        _check(model, options.label)
        check_device(options.device)
        images = model.to(options.device).sample(seeds=seeds, label=options.label)
        try:
            options.outdir.mkdir(parents=True, exist_ok=True)
            files = _write(images, seeds, options.outdir, options.format)
        except OSError as error:
            raise UserError(f"--outdir {options.outdir}: {error.strerror}; choose another folder") from error
    print(f"{len(seeds)} images of {type(model).__name__} ({int(model.images_seen):,} training images seen): {files}")
    return 0


def _check(model: Any, label: int | None) -> None:
    """What the command line can name in its own words."""
    name = type(model).__name__
    if label is not None and model.num_classes is None:
        raise UserError(f"{name} was trained without classes; leave --class out")
    if label is not None and not 0 <= label < model.num_classes:
        raise UserError(f"{name} has no class {label}; choose one from 0 to {model.num_classes - 1}")


def check_device(device: str) -> None:
    """Raise a UserError unless torch can use it."""
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = textwrap.shorten(str(error).partition(". ")[0], 60)
        raise UserError(f"--device {device}: {reason}; python -m ganzoo checks shows the devices here") from error


def _write(images: Any, seeds: Sequence[int], folder: Path, kind: str) -> str:
    from ganzoo.core.pictures import picture, to_pil

    if kind == "png":
        for seed, image in zip(seeds, to_pil(images), strict=True):
            image.save(folder / f"seed{seed:06d}.png")
        return f"{folder}/seed*.png"
    if kind == "npy":
        import numpy as np

        from ganzoo.core.images import to_uint8

        points = images.shape[1] not in (1, 3)  # in the plane: bytes would be coarse
        np.save(folder / "samples.npy", (images if points else to_uint8(images)).permute(0, 2, 3, 1).numpy())
        return f"{folder}/samples.npy"
    columns = max(1, round(len(seeds) ** 0.5))
    picture(images, columns).save(folder / "grid.png")
    return f"{folder}/grid.png"


def _seeds(text: str | None, n: int | None) -> list[int]:
    if text is None:
        if n is not None and n < 1:
            raise UserError(f"-n is {n}; it counts from 1")
        return list(range(64 if n is None else n))
    seeds = parse_seeds(text)
    if n not in (None, len(seeds)):
        raise UserError(f"-n {n} and the {len(seeds)} seeds of --seeds {text} disagree; leave -n out")
    return seeds


def parse_seeds(text: str) -> list[int]:
    """`0,1,4-6` -> [0, 1, 4, 5, 6]."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise UserError(f"--seeds {text!r} cannot be read; write numbers and ranges, such as 0,1,4-6")
        seeds += range(int(match[1]), int(match[2] or match[1]) + 1)
    return seeds


def import_variant(name: str | None) -> Any:
    """The class that `--variant my_file.MyGAN` names, or None."""
    if name is None:
        return None
    module, _, cls = name.rpartition(".")
    own_files()
    try:
        return getattr(importlib.import_module(module), cls)
    except (ModuleNotFoundError, ValueError, AttributeError) as error:
        if module and getattr(error, "name", module) not in (module, cls):
            raise  # from inside the file
        raise UserError(f"no class --variant {name}; write my_file.MyGAN, in the folder of my_file.py") from error
