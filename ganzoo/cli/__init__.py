"""The command line. It imports only the verb that runs, so that `--help` and `list` need no torch."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

from ganzoo import __version__
from ganzoo.cli.errors import UserError, causes, describe
from ganzoo.cli.streams import OutputError, standard_streams
from ganzoo.core.signals import exit_on_terminate
from ganzoo.core.text import closest, escaping, printable


class Verb(NamedTuple):
    """A verb's module, whose `main(verb, arguments)` runs it, and its help in one line."""

    module: str
    help: str


VERBS = {
    "fit": Verb("training", "train: --config dcgan/digits, or --model DCGAN --data Digits"),
    "validate": Verb("training", "both losses on the validation images: --config RUN/config.yaml --ckpt_path RUN"),
    "test": Verb("training", "both losses on the test images: --config RUN/config.yaml --ckpt_path RUN"),
    "sample": Verb("sample", "images from a checkpoint, without data or a GPU: sample RUN --seeds 0-15"),
    "evaluate": Verb("evaluate", "scores: FID and others of a run, a checkpoint, or two folders of pictures"),
    "convert": Verb(
        "convert", "networks from a .pkl of the official StyleGAN2-ADA, StyleGAN3 or R3GAN code: convert FILE OUT"
    ),
    "data": Verb("data", "convert a folder of pictures to shards, for large data: data prepare FOLDER OUT"),
    "list": Verb("catalog", "the variants, the configs and the trained models that come with ganzoo"),
    "info": Verb("catalog", "details of a variant, config, trained model, run or checkpoint: info DCGAN"),
    "checks": Verb("checks", "versions, devices, missing packages; --data DIR checks a folder of images"),
    "theory": Verb("theory", "compute and draw figures on why GANs are hard to train"),
    "bench": Verb("bench", "images/s, seconds per step and memory of a config on this machine: bench dcgan/digits"),
}


def usage() -> str:
    lines = [f"  {verb:<10}{text}" for verb, (_, text) in VERBS.items()]
    return "\n".join(
        [
            f"ganzoo {__version__}: GANs on PyTorch Lightning",
            "",
            "usage: python -m ganzoo COMMAND [options]",
            "",
            *lines,
            "",
            "python -m ganzoo COMMAND --help lists its options.",
            "First time here?  python -m ganzoo fit --config wgangp/emoji-roles   (3 minutes, no GPU, no download)",
        ]
    )


@escaping()
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 2 after a user's error, 130 after Ctrl-C; 75 if fit, validate or test
    gets SIGTERM or SIGHUP."""
    warnings.filterwarnings("ignore", "Image size .* exceeds limit")  # `open_picture` raises instead
    warnings.formatwarning = _one_line
    with standard_streams():
        return _main(list(sys.argv[1:] if arguments is None else arguments))


def _one_line(message: Warning | str, *_: Any, **__: Any) -> str:
    """A warning without the file and line, which are those of a library's code."""
    return f"ganzoo: warning: {printable(str(message))}\n"


def _main(arguments: Sequence[str]) -> int:
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except (UserError, OSError) as error:
        if isinstance(error, OSError) and error.filename is None:  # names no file
            raise
        if any(isinstance(cause, OutputError) and cause.closed for cause in causes(error)):  # `info GAN | head`
            return 0
        if os.environ.get("GANZOO_TRACEBACK"):
            traceback.print_exc()
        print(f"ganzoo: error: {printable(describe(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ganzoo: stopped", file=sys.stderr)
        return 130


def _run(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(__version__)
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb not in VERBS:
        raise UserError(_no_verb(verb, rest))
    module = VERBS[verb].module
    try:
        with exit_on_terminate(os._exit) if module == "training" else nullcontext():  # for the slow imports
            return importlib.import_module(f"ganzoo.cli.{module}").main(verb, rest)
    except SystemExit as error:  # after --help
        return int(error.code or 0)


def _no_verb(word: str, rest: Sequence[str]) -> str:
    verb = next((argument for argument in rest if argument in VERBS), None)
    if word.startswith("-"):
        return f"the command comes first; write python -m ganzoo {verb or 'fit'} {word} ..."
    return f"no command {word!r}{closest(word, VERBS, 'python -m ganzoo --help lists them')}"
