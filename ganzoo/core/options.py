"""Arguments of models that are objects, such as penalties: checkpoints store them as plain values."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from typing import Any, TypeVar

from torch import nn

from ganzoo.core.limits import check, constructor_of
from ganzoo.core.text import closest, visible

Kind = TypeVar("Kind", bound="Option")


class Option(nn.Module):
    """Base class of such objects. Subclasses take plain values, with limits as annotations, and begin with
    `super().__init__()`.

    Attributes:
        arguments: those of the constructor.

    Raises:
        ArgumentError: an argument is of the wrong type or out of range.
    """

    def __init__(self) -> None:
        super().__init__()
        frame = inspect.currentframe()
        assert frame is not None
        self.arguments = constructor_of(frame)
        check(type(self), self.arguments)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.arguments.items())


def plain(value: Any) -> Any:
    """An argument as a checkpoint stores it: ganzoo's options by class name and arguments, other values unchanged."""
    if isinstance(value, list | tuple) and any(isinstance(each, Option) for each in value):
        return [plain(each) for each in value]
    if isinstance(value, Option) and type(value).__module__.startswith("ganzoo."):
        return {"class_path": type(value).__name__, "init_args": value.arguments}
    return value


def made(kind: type[Kind], name: str, value: Any) -> list[Kind]:
    """The options of an argument: objects, their `plain` form or their class names, one or several; [] for None.

    Objects are copied, since an option's state belongs to one model.

    Args:
        kind: their base class.
        name: of the argument, for messages.
        value: of the argument; may be from an untrusted file, so that only ganzoo's own classes are looked up.

    Raises:
        ValueError: it is of another form, or an option's argument is refused.
    """
    known = options_of(kind)
    found: list[Kind] = []
    for each in value if isinstance(value, list | tuple) else [] if value is None else [value]:
        if isinstance(each, kind):
            found.append(copy.deepcopy(each))
            continue
        stored = each if isinstance(each, dict) else {"class_path": each}
        cls, arguments = stored.get("class_path"), stored.get("init_args", {})
        if not isinstance(cls, str) or cls not in known:
            cure = f"it takes {', '.join(known)}"
            raise ValueError(f"{name} is {visible(cls)}{closest(str(cls), list(known), cure)}")
        if not isinstance(arguments, dict):
            raise ValueError(f"{name}: init_args of {cls} is {visible(arguments)}; it takes a dict of arguments")
        try:
            found.append(known[cls](**arguments))
        except TypeError as error:  # an argument that the class does not have
            raise ValueError(f"{name}: {error}") from error
    return found


def options_of(kind: type[Kind]) -> dict[str, type[Kind]]:
    """ganzoo's own options of a kind, by name."""
    found = {cls.__name__: cls for cls in _classes(kind) if cls.__module__.startswith("ganzoo.")}
    return {name: cls for name, cls in found.items() if not name.startswith("_")}


def _classes(kind: type[Kind]) -> Iterator[type[Kind]]:
    for cls in kind.__subclasses__():
        yield cls
        yield from _classes(cls)
