"""The parser of `fit`, `validate` and `test`, which answers with one line where jsonargparse prints fifty."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from lightning.pytorch import Callback
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import Logger
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ganzoo.cli import trust
from ganzoo.cli.errors import UserError, causes, closest, describe, nearest, one_line, place
from ganzoo.core.module import GANModule
from ganzoo.data import GANDataModule
from ganzoo.data.vision import VisionData

AT = "{at}"  # in a message: the keys above the one that it is about
BASES: dict[str, type[Any]] = {
    "model": GANModule,
    "data": GANDataModule,
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
        options = [action.dest for action in self._actions if not action.dest.endswith(("help", "print_config"))]
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
        if refused := trust.refusal(str(inner)):
            return f"{AT}{key} {refused}"
    if match := re.search(r"Group '(\S+)' does not accept option '(\S+)'", text):
        return _unknown(f"{match[1]}.{match[2]}", options)
    if match := re.search(r"Option '(\S+)' is not accepted|unrecognized arguments: (--[^ =]+)", text, re.I):
        return _unknown(match[1] or match[2], options)
    if match := re.search(r"unrecognized arguments: (\S+)", text, re.I):
        return f"{match[1]!r} belongs to no option; write --KEY {match[1]}"
    if match := re.search(r"the following arguments are required: (.+)", text):
        return _missing(match[1].split(", "), whole="trainer" in options)
    if match := re.search(r"argument (\S+): expected", text):
        return f"{match[1].split('/')[-1]} or an option below it has no value; write the value after it"
    if not key:
        return one_line(text)[:300]
    value = _value(text)
    if path := _class_path(value, chain):
        return _no_class(key, path, chain)
    kinds = dict.fromkeys(re.findall(r"Expected an? (?!path|dot)(.+?)(?:\. Got value|$)", text, re.MULTILINE))
    kinds.pop("<class 'NoneType'>", None)
    if kinds:
        return f"{AT}{key} is {value!r}; it takes {' or '.join(_words(kind) for kind in kinds)}"
    return f"{AT}{key}: {one_line(chain[-1])[:300]}"


def _passed_up(inner: str, key: str, text: str) -> str:
    if "Given value: {" in text and "class_path" not in text:
        return f"{AT}{key} names no class; begin with class_path, such as {key}: {{class_path: DCGAN, init_args: ...}}"
    return inner.replace(AT, f"{AT}{key}.") if key else inner


def _unknown(name: str, options: Sequence[str]) -> str:
    name = name.lstrip("-")
    if "trainer" in options:  # those of the command line, not of one class
        options = [*options, *_arguments("model"), *_arguments("data")]
    elif "." in name and nearest(name.partition(".")[0], ["init_args"]):
        return f"no option {AT}{name}; did you mean init_args?"
    leaves = {option.rpartition(".")[2]: option for option in reversed(options)}
    leaf = name.rpartition(".")[2]
    match = ALIASES.get(name) or nearest(name, options) or leaves.get(nearest(leaf, leaves) or "")
    if match:
        return f"no option {AT}{name}; did you mean {AT}{match}?"
    return f"no option {AT}{name}; there are {', '.join(options[:20])}"


def _missing(names: Sequence[str], whole: bool) -> str:
    if whole and ("model" in names or "data" in names):  # not those of one class, which may have such arguments
        say = " ".join({"model": "--model DCGAN", "data": "--data Digits"}[name] for name in names)
        return f"no {' and no '.join(names)}; add {say}, or a whole config: --config dcgan/digits"
    return f"{AT}{names[0]} is missing; add --{AT}{names[0]} VALUE"


def _value(text: str) -> str:
    """The value that a message is about."""
    match = re.search(r"(?:Given value|Got value): (.+)", text)
    value = match[1].strip() if match else ""
    nested = re.match(r"NestedArg\(key=.*, val='?(.*?)'?\)$", value)
    return nested[1] if nested else value


def _class_path(value: str, chain: Sequence[BaseException]) -> str | None:
    """The class that a message is about, if it is about one that is not there."""
    texts = " ".join(str(error) for error in chain)
    own = isinstance(chain[-1], SyntaxError) or place(chain[-1])
    if not own and not re.search(r"Expected a dot import path|given class_path|callable class|subclass of", texts):
        return None
    match = re.search(r"class_path'?[:=] ?'([^']+)'", value) or re.search(r"dot import path string: (\S+)", texts)
    return match[1] if match else value


def _no_class(key: str, path: str, chain: Sequence[BaseException]) -> str:
    module, _, name = path.rpartition(".")
    root = chain[-1]
    base = next((base for suffix, base in BASES.items() if key.endswith(suffix)), None)
    known = list(dict.fromkeys(cls.__name__ for cls in _classes(base))) if base else []
    if not module:
        own = f"there are {', '.join(known[:20])}; " * bool(known) + "your own is written my_file.MyClass"
        return f"no class {path!r} for {AT}{key}{closest(path, known, own)}"
    if isinstance(root, ModuleNotFoundError) and f"{module}.".startswith(f"{root.name}."):
        return f"no file or package {root.name!r} for {AT}{key} {path}; run in the folder that has {root.name}.py in it"
    if isinstance(root, AttributeError) and module in sys.modules and not hasattr(sys.modules[module], name):
        classes = [name for name, value in vars(sys.modules[module]).items() if inspect.isclass(value)]
        return f"no class {name!r} in {module} for {AT}{key}{closest(name, classes, 'it has ' + ', '.join(classes))}"
    if "subclass of" in str(root):
        return f"{path} is no class for {AT}{key}; there are {', '.join(known[:20])}"
    return f"{AT}{key} {path} cannot be imported; {describe(root)}"


def _classes(base: type[Any]) -> Iterator[type[Any]]:
    """What jsonargparse takes by its bare name: every subclass that is imported."""
    for cls in base.__subclasses__():
        if not cls.__name__.startswith("_") and cls is not VisionData:
            yield cls
        yield from _classes(cls)


def _arguments(section: str) -> list[str]:
    """`model.width` and all other arguments of the classes of a section."""
    bases = {base for cls in _classes(BASES[section]) for base in cls.__mro__ if base.__module__.startswith("ganzoo.")}
    names = {name for base in bases for name in inspect.signature(base).parameters}
    return [f"{section}.{name}" for name in sorted(names - {"args", "kwargs", "game"})]


def _words(kind: str) -> str:
    kind = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", kind)
    if match := re.match(r"typing\.Literal\[(.+)\]", kind):
        return f"one of {match[1]}"
    return WORDS.get(kind, kind)
