"""The parser of `fit`, `validate` and `test`, which answers with one line where jsonargparse prints fifty."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import Logger
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ganzoo.cli.errors import UserError, causes, closest, describe, nearest, one_line
from ganzoo.core.module import GANModule

AT = "{at}"  # in a message: the keys above the one that it is about
BASES: dict[str, type] = {
    "model": GANModule,
    "data": LightningDataModule,
    "optimizer": Optimizer,
    "lr_scheduler": LRScheduler,
    "callbacks": Callback,
    "logger": Logger,
}
WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "list": "a list"}
ALIASES = {  # what people type elsewhere
    "batch": "data.batch_size",
    "epochs": "trainer.max_epochs",
    "gpus": "trainer.devices",
    "lr": "model.optimizer.lr",
    "outdir": "trainer.default_root_dir",
    "resume": "ckpt_path",
    "seed": "seed_everything",
    "steps": "trainer.max_steps",
}


class OptionError(UserError, ValueError):
    """What is wrong with an option; a ValueError, so that jsonargparse passes it up, key by key."""


class Parser(LightningArgumentParser):
    """LightningCLI's parser; jsonargparse makes another one of this class for every class that it meets."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)  # `--trainer.max_step` is a typo

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        options = [action.dest for action in self._actions if action.dest not in ("help", "print_config")]
        raise OptionError(explain(str(ex or message), list(causes(ex)), options)) from ex


def explain(text: str, chain: Sequence[BaseException], options: Sequence[str]) -> str:
    """jsonargparse's message in one line.

    Args:
        text: its message.
        chain: the exceptions that led to it.
        options: of the parser that raises it.
    """
    match = re.match(r'Parser key "([^"]+)"', text)
    key = match[1] if match else ""
    for inner in chain:
        if isinstance(inner, OptionError):
            return _passed_up(str(inner), key, text)
    if match := re.search(r"(?:Option|does not accept option) '([^']+)'|Unrecognized arguments: (\S+)", text, re.I):
        return _unknown((match[1] or match[2]).split("=")[0], options)
    if match := re.search(r"the following arguments are required: (.+)", text):
        return _missing(match[1].split(", "))
    if match := re.search(r"argument (\S+): expected", text):
        return f"{match[1]} has no value; write {match[1]} VALUE"
    if not key:
        return one_line(text)[:300]
    value = _value(text)
    if path := _class_path(value, chain):
        return _no_class(key, path, chain)
    kinds = dict.fromkeys(re.findall(r"Expected an? (?!path|dot)(.+?)(?:\. Got value|$)", text, re.MULTILINE))
    if kinds:
        return f"{AT}{key} is {value!r}; it takes {' or '.join(_words(kind) for kind in kinds)}"
    return f"{AT}{key}: {one_line(chain[-1])[:300]}"


def _passed_up(inner: str, key: str, text: str) -> str:
    if "Given value: {" in text and "class_path" not in text:
        return f"{AT}{key} names no class; begin with class_path, such as {key}: {{class_path: DCGAN, init_args: ...}}"
    return inner.replace(AT, f"{AT}{key}.") if key else inner


def _unknown(name: str, options: Sequence[str]) -> str:
    if not name.startswith("-") and "trainer" in options and name not in options and "." not in name:
        pass
    name = name.lstrip("-")
    leaf = name.rpartition(".")[2]
    if "trainer" in options:  # all of the command line's, not those of one class
        options = [*options, *_of_classes("model"), *_of_classes("data")]
    leaves = {option.rpartition(".")[2]: option for option in reversed(options)}
    match = ALIASES.get(name) or nearest(name, options) if leaf not in leaves else leaves[leaf]
    match = match or leaves.get(nearest(leaf, leaves) or "")
    if match:
        return f"no option {AT}{name}; did you mean {AT}{match}?"
    return f"no option {AT}{name}; there are {', '.join(options)}"


def _missing(names: Sequence[str]) -> str:
    if "model" in names or "data" in names:
        say = " ".join({"model": "--model DCGAN", "data": "--data Digits"}[name] for name in names)
        return f"no {' and no '.join(names)}; add {say}, or a whole config: --config dcgan/digits"
    return "; ".join(f"{AT}{name} is missing; add --{AT}{name} VALUE" for name in names[:1])


def _value(text: str) -> str:
    """The value that a message is about."""
    match = re.search(r"(?:Given value|Got value): (.+)", text)
    value = match[1].strip() if match else ""
    nested = re.match(r"NestedArg\(key=.*, val='?(.*?)'?\)$", value)
    return nested[1] if nested else value


def _class_path(value: str, chain: Sequence[BaseException]) -> str | None:
    """The class that a message is about, if it is about one that is not there."""
    texts = " ".join(str(error) for error in chain)
    if not re.search(r"Expected a dot import path|given class_path|callable class|subclass of|invalid syntax", texts):
        return None
    match = re.search(r"class_path'?[:=] ?'([^']+)'", value)
    return match[1] if match else value


def _no_class(key: str, path: str, chain: Sequence[BaseException]) -> str:
    module, _, name = path.rpartition(".")
    root = chain[-1]
    base = next((base for suffix, base in BASES.items() if key.endswith(suffix)), None)
    known = list(_names(base)) if base else []
    if not module:
        own = f"there are {', '.join(known)}; your own is written my_file.MyClass"
        return f"no class {path!r} for {AT}{key}{closest(path, known, own)}"
    if isinstance(root, ModuleNotFoundError) and f"{module}.".startswith(f"{root.name}."):
        return f"no file or package {root.name!r} for {AT}{key} {path}; run in the folder that has {root.name}.py in it"
    if isinstance(root, AttributeError) and module in sys.modules and not hasattr(sys.modules[module], name):
        classes = [name for name, value in vars(sys.modules[module]).items() if inspect.isclass(value)]
        return f"{module} has no class {name!r}{closest(name, classes)} ({AT}{key})"
    if "subclass of" in str(root):
        return f"{path} is no {base.__name__ if base else key}; {AT}{key} takes {', '.join(known)} or your own"
    return f"{AT}{key} {path} cannot be imported; {describe(root)}"


def _names(base: type) -> Iterator[str]:
    """The classes that jsonargparse takes by their bare names: those that are imported."""
    for cls in base.__subclasses__():
        if not cls.__name__.startswith("_") and not inspect.isabstract(cls):
            yield cls.__name__
        yield from _names(cls)


def _of_classes(section: str) -> Iterator[str]:
    """`model.width` and all other arguments of the classes of a section."""
    for cls in _subclasses(BASES[section]):
        for base in cls.__mro__:
            ...


def _words(kind: str) -> str:
    kind = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", kind)
    if match := re.match(r"typing\.Literal\[(.+)\]", kind):
        return f"one of {match[1]}"
    return WORDS.get(kind, kind)
