"""`data prepare`: writes a folder of pictures as shards, to train on more data than fits into memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ganzoo.cli.errors import Arguments, UserError, describe, number, user_errors
from ganzoo.core.limits import Count, Size, sides
from ganzoo.core.text import closest, path_of, quoted

if TYPE_CHECKING:
    from ganzoo.data.shards import Index


def main(verb: str, arguments: Sequence[str]) -> int:
    if arguments and not arguments[0].startswith("-") and arguments[0] != "prepare":
        raise UserError(f"no command data {arguments[0]!r}{closest(arguments[0], ['prepare'], 'use data prepare')}")
    options = _parser(verb).parse_args(arguments[1:] if arguments[:1] == ["prepare"] else arguments)

    from ganzoo.callbacks.base import Bar
    from ganzoo.data.prepare import prepare

    try:
        with user_errors(), Bar() as bar:
            task = bar.add_task("pictures", total=None)
            settings = {key: value for key, value in vars(options).items() if key not in ("folder", "out")}
            index = prepare(
                options.folder,
                options.out,
                **settings,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
    except UserError as error:
        raise UserError(_options(describe(error))) from error
    except KeyboardInterrupt:
        print("ganzoo: run the same command again to continue", file=sys.stderr)
        raise
    _report(index, options.out)
    return 0


def _parser(verb: str) -> Arguments:
    parser = Arguments(
        f"{verb} prepare",
        "Writes a folder of pictures as shards, for data larger than memory. If interrupted, the same command "
        "continues; on a finished folder, it checks every shard, and recreates those that are damaged or out of date.",
    )
    parser.add_argument("folder", metavar="FOLDER", help="folder of pictures, with or without subfolders, or a .zip")
    parser.add_argument("out", metavar="OUT", type=path_of, help="folder for the shards")
    parser.add_argument(
        "--image_size", type=number(Size), metavar="N", help="pixels per side, or [height, width] (default: unchanged)"
    )
    parser.add_argument(
        "--channels",
        type=number(Count),
        default=3,
        metavar="N",
        help="1 grey, 2 grey and alpha, 3 colour, 4 colour and alpha, or bands (default: 3)",
    )
    parser.add_argument("--background", metavar="COLOUR", help="under transparent pictures (default: white)")
    parser.add_argument(
        "--fit",
        choices=("crop", "squeeze", "pad"),
        default="crop",
        help="pictures of another shape (default: crop the centre)",
    )
    parser.add_argument("--labels", action="store_true", help="classes are the subfolders, or in dataset.json")
    parser.add_argument(
        "--corrupt", choices=("refuse", "skip"), default="refuse", help="unreadable pictures (default: refuse)"
    )
    parser.add_argument(
        "--jobs", type=number(Count), default=os.cpu_count() or 1, metavar="N", help="decoding processes"
    )
    return parser


def _report(index: Index, out: Path) -> None:
    """Prints what was written, and how to train on it."""
    assert index.shards is not None
    n, (height, width) = sum(entry.images for entry in index.shards), sides(index.image_size)
    kinds = {1: "grey pictures", 3: "colour pictures"}
    what = f"{n:,} {kinds.get(index.channels, f'pictures with {index.channels} channels')} of {width}x{height}"
    classes = f", {len(index.classes)} classes" if index.classes else ""
    gigabytes = sum(file.stat().st_size for file in out.glob("*.arrow")) / 1e9
    shards = "1 shard" if len(index.shards) == 1 else f"{len(index.shards):,} shards"
    print(f"{out}: {what}{classes}, in {shards}, {gigabytes:,.2f} GB")
    print(f"train on it: python -m ganzoo fit --config dcgan/shards --data.path {quoted(out)}")


def _options(message: str) -> str:
    """Replaces the library's argument names in a message by this command's options."""
    changes = {"set data.corrupt to skip": "pass --corrupt skip", "with image_size, such as": "with --image_size"}
    changes |= {"labels=True": "--labels", "pass labels=False": "leave --labels out"}
    changes |= {"set channels to": "pass --channels", "do not fit channels": "do not fit --channels"}
    for library, option in changes.items():
        message = message.replace(library, option)
    return message
