"""The command line. Only the verb that runs is imported, so that `--help` and `list` need no torch."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Sequence

from ganzoo import __version__
from ganzoo.cli.errors import UserError, closest, printable

# verb -> (module, one line of help); the module's `main(verb, arguments)` runs it
VERBS = {
    "fit": ("training", "train: --config dcgan/digits, or --model DCGAN --data Digits"),
    "validate": ("training", "both losses on the validation images"),
    "test": ("training", "both losses on the test images"),
    "sample": ("sample", "images from a checkpoint: sample RUN --seeds 0-15"),
    "evaluate": ("evaluate", "scores: FID and others of a run, a checkpoint, or two folders of pictures"),
    "data": ("data", "a folder of pictures as shards, for data larger than memory: data prepare FOLDER OUT"),
    "list": ("catalog", "the variants and the configs that come with ganzoo"),
    "info": ("catalog", "a variant, a config, a run or a checkpoint: info DCGAN"),
    "checks": ("checks", "versions, devices, what is missing; --data DIR looks at a folder of images"),
    "theory": ("theory", "why GANs are hard, in pictures: each is computed or trained, and drawn into a folder"),
    "bench": ("bench", "images/s, seconds a step and memory of a config here: bench dcgan/digits"),
}


def usage() -> str:
    lines = [f"  {verb:<10}{text}" for verb, (_, text) in VERBS.items()]
    return "\n".join(
        [
            f"ganzoo {__version__}: GANs on PyTorch Lightning",
            "",
            "usage: python -m ganzoo VERB [options]",
            "",
            *lines,
            "",
            "python -m ganzoo VERB --help lists a verb's options.",
            "First time here?  python -m ganzoo fit --config dcgan/digits   (2 minutes, no GPU, no download)",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; 0, or 2 after a user's error, or 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(__version__)
        return 0
    warnings.filterwarnings("ignore", "Image size .* exceeds limit")  # `open_picture` refuses it
    try:
        verb, rest = arguments[0], arguments[1:]
        if verb not in VERBS:
            raise UserError(_no_verb(verb, rest))
        return importlib.import_module(f"ganzoo.cli.{VERBS[verb][0]}").main(verb, rest)
    except SystemExit as error:  # after --help
        return int(error.code or 0)
    except UserError as error:
        if os.environ.get("GANZOO_TRACEBACK"):
            traceback.print_exc()
        print(f"ganzoo: error: {printable(error)}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `info GAN | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("ganzoo: stopped", file=sys.stderr)
        return 130


def _no_verb(word: str, rest: Sequence[str]) -> str:
    verb = next((argument for argument in rest if argument in VERBS), None)
    if word.startswith("-"):
        return f"the verb comes first; write python -m ganzoo {verb or 'fit'} {word} ..."
    return f"no verb {word!r}{closest(word, VERBS, 'python -m ganzoo --help lists them')}"
