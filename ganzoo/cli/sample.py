"""`sample`: images from a checkpoint, without data or a GPU."""

from __future__ import annotations

import importlib
import os
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganzoo.cli import VERBS
from ganzoo.cli.errors import Arguments, UserError, number, user_errors
from ganzoo.cli.paths import check_folder, find_checkpoint, own_files
from ganzoo.cli.writing import Parts, suffix, write
from ganzoo.core.limits import Count, Positive, area, at_once, check_memory
from ganzoo.core.text import closest, composed, path_of, visible

if TYPE_CHECKING:
    from ganzoo.data.archive import File
    from ganzoo.data.reading import Reading

MOST = 1_000_000  # images per call
MOST_SEEN = 10_000  # images in a grid


def main(verb: str, arguments: Sequence[str]) -> int:
    options = _parser(verb).parse_args(arguments)
    seeds = _seeds(options.seeds, options.n)
    path = find_checkpoint(options.checkpoint)
    with user_errors():
        variant = import_variant(options.variant)

        from ganzoo.checkpoint.pretrained import load

        model = load(path, variant)
        label = None if options.label is None else _label(model, options.label)
        _check(model, options)
        options.bands = _bands(options, _out_channels(model, options.direction))
        options.suffix = suffix(options, _out_channels(model, options.direction))
        check_device(options.device)
        sources = _sources(options.source, options.n) if options.source else None
        if seeds is None:
            seeds = list(range(_usual(model, options) if sources is None else len(sources)))
        if sources is not None and len(sources) != len(seeds):
            raise UserError(f"{len(sources)} pictures in --source, but {len(seeds)} seeds; give one seed per picture")
        if options.format == "grid":
            _check_grid(model, len(seeds))
        check_folder(options.outdir, "outdir DIR")
        columns = class_columns(model) if _in_columns(model, options) else max(1, round(len(seeds) ** 0.5))
        names = [f"seed{seed:06d}" for seed in seeds] if sources is None else list(sources)
        files = None if sources is None else list(sources.values())
        model.to(options.device)
        if options.standing_statistics is not None:
            model.take_standing_statistics(options.standing_statistics, truncation=options.truncation)
        parts = _parts(model, seeds, _labels(model, options, label, len(seeds)), files, options)
        try:
            written = write(parts, names, columns, options)
        except OSError as error:
            raise UserError(f"--outdir {options.outdir}: {error.strerror or error}; choose another folder") from error
    of_class = f", class {visible(model.class_names[label])}" if label is not None and model.class_names else ""
    of_class += " (which has no training images)" * (label in model.absent)
    seen = f"{int(model.images_seen):,} training images seen"
    print(f"{len(seeds)} images of {type(model).__name__}{of_class} ({seen}): {written}")
    return 0


def _parser(verb: str) -> Arguments:
    parser = Arguments(
        verb, VERBS[verb].help, "checkpoint [--seeds 0,1,4-6] [--class CLASS] [--source PATH ...] [options]"
    )
    parser.add_argument(
        "checkpoint",
        help="a trained model's name (python -m ganzoo list), a run, a .ckpt, or a save_pretrained folder",
    )
    parser.add_argument("--seeds", metavar="0,1,4-6", help="one image per seed; a seed always gives the same image")
    parser.add_argument("-n", type=number(Count), metavar="N", help="seeds 0 to N - 1 (default: about 64 images)")
    parser.add_argument(
        "--class", dest="label", metavar="CLASS", help="the class of all images, by name or number (see info)"
    )
    parser.add_argument(
        "--source",
        nargs="+",
        type=path_of,
        metavar="PATH",
        help="pictures, or a folder or .zip of them, for a translator",
    )
    parser.add_argument(
        "--direction",
        choices=("forward", "back"),
        default="forward",
        help="back: from images to sources, for CycleGAN (default: forward)",
    )
    parser.add_argument(
        "--truncation",
        type=number(Positive),
        metavar="T",
        help="lower values give more typical, less diverse images: 0.5 for BigGAN, 0.7 for StyleGAN2 (default: none)",
    )
    parser.add_argument(
        "--standing_statistics",
        type=number(Count),
        metavar="PASSES",
        help="recompute the statistics of the generator's batch norms over PASSES batches of 256 fakes, such as 16 "
        "(default: those of the training)",
    )
    parser.add_argument("--outdir", type=path_of, default=Path("samples"), help="output folder (default: samples)")
    parser.add_argument(
        "--format",
        choices=("grid", "png", "npy"),
        default="grid",
        help="one grid of all images, one PNG (or TIFF, for more bits or channels) per seed or source, or an array "
        "[N, H, W, C] (default: grid)",
    )
    parser.add_argument(
        "--depth", type=int, choices=(8, 16), default=8, help="bits per channel of png and npy (default: 8)"
    )
    parser.add_argument(
        "--bands",
        metavar="R,G,B",
        help="channels shown in a grid, counted from 0 (default: 0,1,2 if there are more than 4)",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps (default: cpu)")
    parser.add_argument("--variant", metavar="my_file.MyGAN", help="the class of your own variant, for its checkpoint")
    return parser


def _label(model: Any, text: str) -> int:
    """The number of the class that --class names."""
    variant, n, names = type(model).__name__, model.num_classes, [composed(name) for name in model.class_names]
    if n is None:
        raise UserError(f"{variant} was trained without classes; leave --class out")
    if composed(text) in names:
        return names.index(composed(text))
    if re.fullmatch(r"\d{1,18}", text) and int(text) < n:
        return int(text)
    choice = closest(text, names, f"choose one from 0 to {n - 1}" + ", or a name that info lists" * bool(names))
    raise UserError(f"{variant} has no class {text}{choice}")


def _labels(model: Any, options: Any, label: int | None, n: int) -> list[int] | None:
    """Classes of n images; None derives them from the seeds."""
    if options.format == "grid" and _in_columns(model, options):
        usual = model.trained_labels()
        return [usual[i % len(usual)] for i in range(n)]
    return None if label is None else [label] * n


def _check_grid(model: Any, n: int) -> None:
    if n > MOST_SEEN:
        raise UserError(f"a grid of {n:,} images is too large; generate fewer, or use --format png or npy")
    check_memory("the number of images", n, 8 * n * _pixels(model))  # bytes, several copies


def _check(model: Any, options: Any) -> None:
    """Checks --source, --direction and --truncation against the model."""
    name, channels, source, direction = type(model).__name__, model.source_channels, options.source, options.direction
    if source is not None and channels is None:
        raise UserError(f"{name} generates images from seeds only; leave --source out")
    if source is None and channels is not None:
        raise UserError(f"{name} translates pictures; give some, or a folder of them: --source PATH")
    if direction == "back" and not hasattr(model, "translate_back"):
        raise UserError(f"{name} does not translate back; leave --direction out")
    if direction == "back" and options.truncation is not None:
        raise UserError("--direction back translates without latents; leave --truncation out")


def _pixels(model: Any) -> int:
    """Values in one image, as far as the model's arguments tell."""
    return model.hparams.get("channels", 1) * area(model.hparams.get("image_size", 1))


def _in_columns(model: Any, options: Any) -> bool:
    """Whether each column of the grid shows one class: by default, if neither a class nor seeds are given."""
    return model.num_classes is not None and options.label is None and options.seeds is None


def class_columns(model: Any) -> int:
    """Number of columns of a grid whose images cycle through the trained classes; for up to 20 classes, each column
    shows one class."""
    classes = len(model.trained_labels())
    return classes * max(1, 8 // classes) if classes <= 20 else 10


def _usual(model: Any, options: Any) -> int:
    """Default number of images: 64, or full rows of a grid with all classes."""
    if not _in_columns(model, options) or options.format != "grid":
        return 64
    columns = class_columns(model)
    return columns * max(64 // columns, -(-len(model.trained_labels()) // columns))


def _channels(model: Any, direction: str) -> Any:
    """Channels of the pictures to translate."""
    return model.source_channels if direction == "forward" else model.hparams.get("channels", 3)


def _out_channels(model: Any, direction: str) -> Any:
    """Channels of the images, as far as the model's arguments tell."""
    return model.source_channels if direction == "back" else model.hparams.get("channels")


def _bands(options: Any, channels: int | None) -> list[int] | None:
    """The numbers in --bands."""
    from ganzoo.core.drawing import check_bands

    if options.bands is None:
        return None
    if options.format != "grid":
        raise UserError("--bands is for grids; other formats contain all channels: leave it out")
    if not re.fullmatch(r"\d{1,4}(,\d{1,4})*", options.bands):
        raise UserError(f"--bands {options.bands!r} cannot be read; write numbers, such as 2,1,0")
    bands = [int(number) for number in options.bands.split(",")]
    try:
        check_bands(bands, channels)
    except ValueError as error:
        raise UserError(f"--{error}") from error
    return bands


def _sources(paths: Sequence[Path], n: int | None) -> dict[str, File]:
    """Pictures by their names without suffixes; only their headers have been read."""
    from ganzoo.data.archive import is_archive
    from ganzoo.data.finding import find

    files: dict[File, str] = {}
    for path in paths:
        if not path.exists():
            raise UserError(f"--source {path} does not exist; name pictures, or a folder of them")
        found = find(path).pictures if path.is_dir() or is_archive(path) else {path.name: path}
        files |= {file: str(Path(name).with_suffix("")) for name, file in found.items()}
    if n is not None and n > len(files):
        raise UserError(f"-n {n}, but --source has only {len(files)} pictures; leave -n out")
    files = dict(list(files.items())[:n])
    if doubled := [name for name, count in Counter(map(composed, files.values())).items() if count > 1]:
        raise UserError(f"--source has several pictures that would be written as {doubled[0]}.png; rename them")
    _each(files, _open)
    return {name: file for file, name in files.items()}


def _each(files: Iterable[File], read: Callable[[File], Any]) -> list[Any]:
    """The results of a function for each picture of --source, in several threads."""

    def one(file: File) -> Any:
        try:
            return read(file)
        except Exception as error:  # Pillow raises various exceptions for broken files
            raise UserError(f"--source {file} cannot be read as a picture: {error}") from error

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(one, files))


def _open(file: File) -> None:
    from ganzoo.data.decoding import header

    if isinstance(problem := header(file), str):
        raise ValueError(problem)


def _parts(
    model: Any, seeds: Sequence[int], labels: Sequence[int] | None, files: Sequence[File] | None, options: Any
) -> Parts:
    """Batches of sources (None without --source) and images, [N, C, H, W] in [-1, 1]."""
    import torch

    from ganzoo.core.pixels import scaled

    reading = _reading(model, options.direction)
    most = at_once(reading.size or 1)
    for start in range(0, len(seeds), most):
        part = slice(start, start + most)
        sources = None
        if files is not None:
            sources = scaled(torch.stack(_each(files[part], reading)))
        if options.direction == "back":
            images = model.translate_back(sources).cpu()
        else:
            of_class = labels and labels[part]
            images = model.sample(seeds=seeds[part], label=of_class, source=sources, truncation=options.truncation)
        yield sources, images


def _reading(model: Any, direction: str) -> Reading:
    """How the pictures to translate are read: as in the model's training, if that is known."""
    from ganzoo.data.reading import Reading

    known = model.readings.get("source" if direction == "forward" else "image")
    return known or Reading(model.hparams.get("image_size"), _channels(model, direction))


def check_device(device: str) -> None:
    """Raises a UserError unless torch can use the device."""
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = textwrap.shorten(str(error).partition(". ")[0], 60)
        raise UserError(f"--device {device}: {reason}; python -m ganzoo checks lists the devices") from error


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
