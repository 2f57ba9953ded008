"""The parser of `fit`, `validate` and `test`: jsonargparse's errors in one line, with a hint."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import Logger
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ganzoo.augment import Augment
from ganzoo.cli import trust
from ganzoo.cli.config import read
from ganzoo.cli.errors import UserError, causes, describe, place
from ganzoo.cli.paths import configs, own_files
from ganzoo.core.module import GANModule
from ganzoo.core.text import closest, nearest, one_line
from ganzoo.data import GANDataModule
from ganzoo.data.vision import VisionData
from ganzoo.penalties import Penalty

BASES: dict[str, type[Any]] = {  # last part of a key -> base class of its values
    "model": GANModule,
    "data": GANDataModule,
    "optimizer": Optimizer,
    "discriminator_optimizer": Optimizer,
    "lr_scheduler": LRScheduler,
    "augment": Augment,
    "callbacks": Callback,
    "logger": Logger,
    "penalties": Penalty,
}
ALIASES = {  # names from other tools, or earlier ones
    "batch": "data.batch_size",
    "epochs": "trainer.max_epochs",
    "gpus": "trainer.devices",
    "lr": "model.optimizer.lr",
    "outdir": "trainer.default_root_dir",
    "resume": "ckpt_path",
    "samples.film_fps": "samples.video_fps",
    "seed": "seed_everything",
    "steps": "trainer.max_steps",
}
GROUPS = {"scores": "final_n 0", "samples": "video_fps 0", "diagnostics": "every_n_steps 0"}  # an option of each
GROUPS |= {"trainer": "max_steps 1000", "checkpoint": "every_n_steps 1000"}
WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "NoneType": "null"}
WORDS |= {"list": "a list", "Sequence": "a list", "dict": "a mapping"}


class OptionError(UserError, ValueError):
    """An invalid option; a ValueError, so that jsonargparse passes it on from nested parsers.

    Args:
        key: the option's key, relative to the class whose parser raises the error.
        problem: what is wrong with it.
    """

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}".removeprefix(": "))
        self.key, self.problem = key, problem


class Parser(LightningArgumentParser):
    """LightningCLI's parser; jsonargparse creates another instance for each class in a config."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs = {"prog": "python -m ganzoo fit", **kwargs}  # of a class's help
        super().__init__(*args, allow_abbrev=False, **kwargs)  # `--trainer.max_step` is a typo

    def format_help(self, *args: Any, **kwargs: Any) -> str:
        return super().format_help(*args, **kwargs).replace(" \b", "")  # jsonargparse's `--print_config[=flags]`

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        options = [action.dest for action in self._actions if not action.dest.endswith(("help", "print_config"))]
        raise _explained(message, list(causes(ex)), options) from ex


def _explained(message: str, chain: Sequence[BaseException], options: Sequence[str]) -> OptionError:
    """jsonargparse's error, with a hint.

    Args:
        message: jsonargparse's message.
        chain: the exceptions that led to it.
        options: the options of the parser that raises it.
    """
    found = re.match(r'Parser key "([^"]+)"', str(chain[0]) if chain else message)
    key = found[1] if found else ""
    for inner in chain:
        if isinstance(inner, OptionError):
            return OptionError(f"{key}.{inner.key}".strip("."), inner.problem)
        if isinstance(inner, ImportError) and isinstance(inner, ValueError):  # jsonargparse's ImportDenied
            return OptionError(key, trust.refusal(inner))
    what, _, names = message.partition(": ")
    if isinstance(root := chain[-1] if chain else None, KeyError):  # Group 'trainer' does not accept option 'max_step'
        return _unknown(".".join(str(root).split("'")[1::2]), options)
    if what == "unrecognized arguments":
        name = names.split()[0]
        if name.startswith("-"):
            return _unknown(name.lstrip("-").partition("=")[0], options)
        key = "--config" if name in configs() else "--KEY"
        return OptionError("", f"unexpected argument {name!r}; write {key} {name}")
    if what == "the following arguments are required":
        return _missing(names.split(", "), whole="trainer" in options)
    text = one_line(root or message)[:300]
    if words := _alternatives(chain):
        return OptionError(key, words)
    if not key:
        return OptionError("", f"{text}; --help lists the options")
    if isinstance(root, AttributeError) and inspect.ismodule(root.obj):
        known = [name for name, value in vars(root.obj).items() if inspect.isclass(value)]
        return OptionError(key, f"{text}{closest(root.name or '', known, 'the module has ' + ', '.join(known[:20]))}")
    if "Unable to load config" in text and key in GROUPS:
        return OptionError(key, f"it is a group of options; set one of them, such as --{key}.{GROUPS[key]}")
    base = BASES.get(key.rpartition(".")[2])
    if base and root is not None and not place(root) and not isinstance(root, SyntaxError):
        return OptionError(key, _no_class(text, base))
    return OptionError(key, text if root is None else describe(root)[:300])


def _no_class(text: str, base: type[Any]) -> str:
    """jsonargparse's error for a value that names no subclass of `base`, with a hint."""
    if "Got value: {" in text:
        return "has keys other than class_path and init_args; move arguments below init_args"
    for cls in _classes(base):
        if f"{cls.__module__}.{cls.__qualname__} is abstract" in text:
            lacking = ", ".join(sorted(cls.__abstractmethods__))
            return f"{cls.__name__} has no {lacking}; define it, as ganzoo/variants/gan.py does"
    known = list(dict.fromkeys(cls.__name__ for cls in _classes(base)))
    cure = f"choose from {', '.join(known[:20])}, or write your own as my_file.MyClass"
    name = re.search(r"(?:string|value): (\S+)", text)
    return text + closest(name[1].rpartition(".")[2] if name else "", known, cure)


def _alternatives(chain: Sequence[BaseException]) -> str:
    """All types that a union accepts; jsonargparse's last error names only the first. "" for unions of classes."""
    union = next((str(error) for error in reversed(chain) if "Union subtypes" in str(error)), "")
    found = re.findall(r"^ *- (.+)$", union, re.MULTILINE)
    if not found or not all(re.match(r"Expected a (typing\.Literal|<class)", each) for each in found):
        return ""  # unions of classes: see `_no_class`
    kind = re.compile(r"Expected a (?:typing\.Literal\[(.*)\]|<class '(?:.*\.)?(.+)'>).*")
    kinds = (kind.sub(r"\1\2", each).replace("'", "") for each in found)
    *names, last = dict.fromkeys(WORDS.get(name, name) for each in kinds for name in each.split(", "))
    return f"Expected {', '.join(names)} or {last}. Got value: {one_line(union.rpartition('Given value: ')[2])[:100]}"


def _unknown(name: str, options: Sequence[str]) -> OptionError:
    if "trainer" in options:  # the parser of the command line, not of a class
        options = [*options, *_arguments("model"), *_arguments("data")]
    leaves = {option.rpartition(".")[2]: option for option in reversed(options)}
    leaf = name.rpartition(".")[2]
    match = ALIASES.get(name) or nearest(name, [*options, "init_args"]) or leaves.get(nearest(leaf, leaves) or "")
    beside = [option for option in options if option.startswith(name.removesuffix(leaf) or " ")] or options
    hint = f"did you mean {match}?" if match else f"the options are {', '.join(beside[:20])}"
    return OptionError(name, f"no such option; {hint}")


def _missing(names: Sequence[str], whole: bool) -> OptionError:
    if whole and ("model" in names or "data" in names):  # not the parser of a class with such arguments
        say = " ".join({"model": "--model DCGAN", "data": "--data Digits"}[name] for name in names)
        text = f"no {' and no '.join(names)}; add {say}, or a complete config: --config dcgan/digits, or --config RUN"
        return OptionError("", text)
    return OptionError(names[0], "has no value and no default; set it")


def _classes(base: type[Any]) -> Iterator[type[Any]]:
    """All imported subclasses: jsonargparse accepts them by their bare names."""
    for cls in base.__subclasses__():
        if not cls.__name__.startswith("_") and cls is not VisionData:
            yield cls
        yield from _classes(cls)


def _arguments(section: str) -> list[str]:
    """Keys of all arguments of a section's classes, such as `model.width`."""
    bases = {base for cls in _classes(BASES[section]) for base in cls.__mro__ if base.__module__.startswith("ganzoo.")}
    names = {name for base in bases for name in inspect.signature(base).parameters}
    return [f"{section}.{name}" for name in sorted(names - {"args", "kwargs", "game"})]


def data_of(file: Path, trusted: Sequence[str]) -> Any:
    """The data module of a training's config file, created without model and trainer."""
    if not (settings := read(file).get("data")):
        raise UserError(f"{file} has no data section; give the config of a training run")
    try:
        return datamodule(settings, trusted)
    except OptionError as error:
        raise UserError(f"{file}: {error}") from error


def datamodule(settings: Any, trusted: Sequence[str] = ()) -> Any:
    """The data module of a config's `data` section; its class may come from a trusted package."""
    own_files()
    trust.guard(trusted)
    parser = Parser()
    parser.add_subclass_arguments(LightningDataModule, "data", required=True)
    return parser.instantiate(parser.parse_object({"data": settings})).data
