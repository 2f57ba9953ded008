"""`convert`: networks of the official StyleGAN2-ADA, StyleGAN3 and R3GAN code, to sample, score and train further."""

from __future__ import annotations

import json
from collections.abc import Sequence
from inspect import signature
from typing import Any

from ganzoo.cli import VERBS
from ganzoo.cli.errors import Arguments, user_errors
from ganzoo.core.text import path_of, quoted, visible

DATA = ("image_size", "channels", "num_classes")  # arguments of the model that follow from the data


def main(verb: str, arguments: Sequence[str]) -> int:
    parser = Arguments(
        verb, f"{VERBS[verb].help}. No code in the file runs. The result has no training state.", "FILE OUT"
    )
    parser.add_argument("file", metavar="FILE", help="a .pkl with G, D and G_ema")
    parser.add_argument("out", metavar="OUT", help="a new folder, for sample, evaluate, and fit --ckpt_path")
    options = parser.parse_args(arguments)
    out = path_of(options.out)
    with user_errors():
        from ganzoo.checkpoint.layouts import LAYOUTS
        from ganzoo.checkpoint.official import convert

        model = convert(path_of(options.file), out)
    given, name = model.hparams, type(model).__name__
    size, folder = given["image_size"], quoted(out)
    classes = f", {given['num_classes']} classes" if given["num_classes"] else ""
    usual = signature(type(model)).parameters
    own = {k: v for k, v in given.items() if k not in DATA and (k not in usual or v != usual[k].default)}
    data = f" --data.image_size {size} --data.channels {given['channels']}" + " --data.labels true" * bool(classes)
    further = next(layout.further for layout in LAYOUTS.values() if layout.variant == name)(given)
    settings = "".join(f" --model.{key} {_value(value)}" for key, value in {**own, **further}.items())
    print(
        f"{visible(out)}: {name}, {size}x{size}, {given['channels']} channels{classes}, sha256 {model.origin['sha256']}"
    )
    print(model.origin["licence"])
    print(f"images: python -m ganzoo sample {folder}")
    if classes:
        last = given["num_classes"] - 1
        print(
            f"PICTURES needs the official labels 0 to {last}: subfolders named by number, or the official dataset.json"
        )
    print(
        f"train it further: python -m ganzoo fit --model {name}{settings} --data ImageFolder --data.path PICTURES"
        f"{data} --data.batch_size 32 --trainer.max_steps 10000 --ckpt_path {folder}"
    )
    return 0


def _value(value: Any) -> str:
    """An argument's value as an option."""
    return quoted(value if isinstance(value, str) else json.dumps(value))
