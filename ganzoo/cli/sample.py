"""`sample`: images from a checkpoint, without data or a GPU."""

from __future__ import annotations

import importlib
import re
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ganzoo.cli import VERBS
from ganzoo.cli.errors import Arguments, UserError, number, user_errors
from ganzoo.cli.paths import find_checkpoint, own_files
from ganzoo.core.limits import Count, area, check_memory
from ganzoo.core.text import composed

MOST = 1_000_000  # images per call
MOST_SEEN = 10_000  # images in a grid


def main(verb: str, arguments: Sequence[str]) -> int:
    parser = Arguments(verb, VERBS[verb].help)
    parser.add_argument(
        "checkpoint",
        help="a trained model's name (python -m ganzoo list), a run, a .ckpt, or a save_pretrained folder",
    )
    parser.add_argument("--seeds", metavar="0,1,4-6", help="one image per seed; a seed always gives the same image")
    parser.add_argument("-n", type=number(Count), metavar="N", help="seeds 0 to N - 1 (default: about 64 images)")
    parser.add_argument("--class", dest="label", type=int, help="the class of all images, for a conditional model")
    parser.add_argument(
        "--source", nargs="+", type=Path, metavar="PATH", help="pictures or a folder of them, for a translator"
    )
    parser.add_argument("--outdir", type=Path, default=Path("samples"), help="output folder (default: samples)")
    parser.add_argument(
        "--format",
        choices=("grid", "png", "npy"),
        default="grid",
        help="one grid of all images, one PNG per seed or source, or an array [N, H, W, C] of bytes (default: grid)",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps (default: cpu)")
    parser.add_argument("--variant", metavar="my_file.MyGAN", help="the class of your own variant, for its checkpoint")
    options = parser.parse_args(arguments)
    seeds = _seeds(options.seeds, options.n)
    path = find_checkpoint(options.checkpoint)
    with user_errors():
        variant = import_variant(options.variant)

        from ganzoo.checkpoint.pretrained import load

        model = load(path, variant)
        _check(model, options.label, options.source)
        check_device(options.device)
        names, sources = _sources(model, options.source, options.n) if options.source else (None, None)
        if seeds is None:
            seeds = list(range(_usual(model, options) if names is None else len(names)))
        if names is not None and len(names) != len(seeds):
            raise UserError(f"{len(names)} pictures in --source, but {len(seeds)} seeds; give one seed per picture")
        label, columns = options.label, max(1, round(len(seeds) ** 0.5))
        if options.format == "grid" and _in_columns(model, options):
            columns = class_columns(model)
            label = [i % model.num_classes for i in range(len(seeds))]
        if options.format == "grid" and len(seeds) > MOST_SEEN:
            raise UserError(f"a grid of {len(seeds):,} images is too large; generate fewer, or use --format png or npy")
        check_memory("the number of images", len(seeds), 8 * len(seeds) * _pixels(model))  # float32, and concatenated
        images = model.to(options.device).sample(seeds=seeds, label=label, source=sources)
        if names is None:
            names = [f"seed{seed:06d}" for seed in seeds]
        if options.format == "grid" and sources is not None:
            from ganzoo.core.drawing import above

            images = above(sources, images, columns)
        try:
            files = _write(images, names, options.outdir, options.format, columns, options.source or [])
        except OSError as error:
            raise UserError(f"--outdir {options.outdir}: {error.strerror}; choose another folder") from error
    print(f"{len(seeds)} images of {type(model).__name__} ({int(model.images_seen):,} training images seen): {files}")
    return 0


def _check(model: Any, label: int | None, source: Sequence[Path] | None) -> None:
    """Checks --class and --source against the model."""
    name, channels = type(model).__name__, model.source_channels
    if label is not None and model.num_classes is None:
        raise UserError(f"{name} was trained without classes; leave --class out")
    if label is not None and not 0 <= label < model.num_classes:
        raise UserError(f"{name} has no class {label}; choose one from 0 to {model.num_classes - 1}")
    if source is not None and channels is None:
        raise UserError(f"{name} generates images from seeds only; leave --source out")
    if source is None and channels is not None:
        raise UserError(f"{name} translates pictures; give some, or a folder of them: --source PATH")
    if source is not None and channels not in (1, 3):
        raise UserError(
            f"{name} takes sources of {channels} channels, but pictures have 1 or 3; use model.sample(source=...)"
        )


def _pixels(model: Any) -> int:
    """Values in one image, as far as the model's arguments tell."""
    return model.hparams.get("channels", 1) * area(model.hparams.get("image_size", 1))


def _in_columns(model: Any, options: Any) -> bool:
    """Whether each column of the grid shows one class: by default, if neither a class nor seeds are given."""
    return model.num_classes is not None and options.label is None and options.seeds is None


def class_columns(model: Any) -> int:
    """Columns of a grid whose i-th image is of class `i % num_classes`: one class in each, for up to 20 classes."""
    classes = model.num_classes
    return classes * max(1, 8 // classes) if classes <= 20 else 10


def _usual(model: Any, options: Any) -> int:
    """Default number of images: 64, or full rows of a grid with all classes."""
    if not _in_columns(model, options) or options.format != "grid":
        return 64
    columns = class_columns(model)
    return columns * max(64 // columns, -(-model.num_classes // columns))


def _sources(model: Any, paths: Sequence[Path], n: int | None) -> tuple[list[str], Any]:
    """Names without suffixes, and pictures [N, C', H, W] in [-1, 1] with the model's image size and channels."""
    import torch

    from ganzoo.core.pixels import to_float
    from ganzoo.data.decoding import decode, find

    files: dict[Path, str] = {}
    for path in paths:
        if not path.exists():
            raise UserError(f"--source {path} does not exist; name pictures, or a folder of them")
        found = [path / name for name in find(path)[0]] if path.is_dir() else [path]
        files |= {file: str(file.relative_to(path if path.is_dir() else file.parent).with_suffix("")) for file in found}
    if n is not None and n > len(files):
        raise UserError(f"-n {n}, but --source has only {len(files)} pictures; leave -n out")
    files = dict(list(files.items())[:n])
    if doubled := [name for name, count in Counter(map(composed, files.values())).items() if count > 1]:
        raise UserError(f"--source has several pictures that would be written as {doubled[0]}.png; rename them")
    pictures = []
    for file in files:
        try:
            pictures.append(to_float(decode(file, model.hparams.get("image_size"), model.source_channels)))
        except Exception as error:  # Pillow raises various exceptions for broken files
            raise UserError(f"--source {file} cannot be read as a picture: {error}") from error
    return list(files.values()), torch.stack(pictures)


def check_device(device: str) -> None:
    """Raises a UserError unless torch can use the device."""
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = textwrap.shorten(str(error).partition(". ")[0], 60)
        raise UserError(f"--device {device}: {reason}; python -m ganzoo checks lists the devices") from error


def _write(images: Any, names: Sequence[str], folder: Path, kind: str, columns: int, sources: Sequence[Path]) -> str:
    from ganzoo.core.drawing import picture, to_pil

    folder.mkdir(parents=True, exist_ok=True)
    if kind == "png":
        files = [folder / f"{name}.png" for name in names]
        read = [source.resolve() for source in sources]
        if any(file.exists() and {file.resolve(), *file.resolve().parents} & set(read) for file in files):
            raise UserError(f"--outdir {folder} contains the pictures of --source; choose another folder")
        for file, image in zip(files, to_pil(images), strict=True):
            file.parent.mkdir(parents=True, exist_ok=True)
            image.save(file)
        return f"{folder}/*.png" if sources else f"{folder}/seed*.png"
    if kind == "npy":
        import numpy as np

        from ganzoo.core.pixels import to_uint8

        points = images.shape[1] not in (1, 3)  # in the plane: bytes would be too coarse
        np.save(folder / "samples.npy", (images if points else to_uint8(images)).permute(0, 2, 3, 1).numpy())
        return f"{folder}/samples.npy"
    picture(images, columns).save(folder / "grid.png")
    return f"{folder}/grid.png"


def _seeds(text: str | None, n: int | None) -> list[int] | None:
    """The seeds given by --seeds or -n, or None."""
    if n is not None and n > MOST:
        raise UserError(f"-n {n:,}: more than {MOST:,} images; generate fewer at once, with --seeds")
    if text is None:
        return None if n is None else list(range(n))
    seeds = parse_seeds(text)
    if n not in (None, len(seeds)):
        raise UserError(f"-n {n} and the {len(seeds)} seeds of --seeds {text} disagree; leave -n out")
    return seeds


def parse_seeds(text: str) -> list[int]:
    """`0,1,4-6` -> [0, 1, 4, 5, 6]."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,20})(?:-(\d{1,20}))?\s*", part)  # enough for 64 bits
        if match is None or (first := int(match[1])) > (last := int(match[2] or match[1])):
            raise UserError(f"--seeds {text!r} cannot be read; write numbers and ranges, such as 0,1,4-6")
        if len(seeds) + last - first >= MOST:
            raise UserError(f"--seeds {text}: more than {MOST:,} images; generate fewer at once")
        seeds += range(first, last + 1)
    return seeds


def import_variant(name: str | None) -> Any:
    """The class of `--variant my_file.MyGAN`, or None."""
    if name is None:
        return None
    module, _, cls = name.rpartition(".")
    own_files()
    try:
        return getattr(importlib.import_module(module), cls)
    except (ModuleNotFoundError, ValueError, AttributeError) as error:
        if module and getattr(error, "name", module) not in (module, cls):
            raise  # raised inside the file
        raise UserError(f"--variant {name} not found; write my_file.MyGAN, in the folder of my_file.py") from error
