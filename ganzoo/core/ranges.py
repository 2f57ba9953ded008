"""What arguments may be, by their types and names: one line for what torch would refuse late, obscurely or never."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Mapping
from functools import cache
from numbers import Integral, Real
from types import FrameType, NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

SIZES = {"image_size", "channels", "source_channels", "num_classes", "z_dim", "width", "layers_g", "layers_d"}
SIZES |= {"n_critic", "n_generator", "microbatches", "batch_size", "labels_per_class"}
NOT_NEGATIVE = {"weight_decay", "consensus", "momentum", "eps", "jitter", "cache_gb", "num_workers"}
MOST = {  # far beyond what anybody trains; more would hang, or end in a full memory, hours later
    "image_size": 2**14,
    "jitter": 2**14,
    "layers_g": 1000,
    "layers_d": 1000,
    "blocks": 1000,
    "num_workers": 256,
    "lr": 100,
}
LARGEST = 1e12  # of any number: weights and rates beyond it end in infinities at the first step
KINDS: dict[Any, tuple[str, Callable[[Any], bool]]] = {  # what a plain type takes, also of numpy
    int: ("a whole number", lambda value: isinstance(value, Integral) and not isinstance(value, bool)),
    float: ("a number", lambda value: isinstance(value, Real) and not isinstance(value, bool)),
    bool: ("true or false", lambda value: isinstance(value, bool)),
    str: ("text", lambda value: isinstance(value, str | os.PathLike)),
    NoneType: ("null", lambda value: value is None),
}


def check(cls: type, arguments: Mapping[str, Any]) -> None:
    """Refuse, by their names, arguments of a constructor that have the wrong type or are out of their range.

    Args:
        cls: whose constructors, down to the first one, say by their annotations what is taken.
        arguments: what they are given.

    Raises:
        ValueError: one of them; the message begins with its name.
    """
    kinds = hints(cls)
    for name, value in arguments.items():
        if (problem := _type(value, kinds.get(name, Any)) or _range(name, value)) is not None:
            raise ValueError(f"{name} {problem}")


@cache
def hints(cls: type) -> dict[str, Any]:
    """The types of all arguments that a class and those above it take."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        try:
            own = get_type_hints(base.__init__)  # type: ignore[misc]
            parameters = inspect.signature(base.__init__).parameters  # type: ignore[misc]
        except (AttributeError, NameError, TypeError, ValueError):  # of names that are there for type checkers alone
            continue
        none = {name for name, parameter in parameters.items() if parameter.default is None}
        found |= {name: kind | None if name in none else kind for name, kind in own.items()}
    return found


def takes_none(hint: Any) -> bool:
    """Whether an argument of this type may be None, as far as that says."""
    return hint in (Any, None, NoneType, object) or NoneType in get_args(hint)


def _type(value: Any, hint: Any) -> str | None:
    """What is wrong with a value of this type, if it is a plain one."""
    words: list[str] = []
    for kind in get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,):
        if get_origin(kind) is Literal:
            known = get_args(kind)
            words.append(f"one of {', '.join(map(str, known))}" if len(known) > 1 else str(known[0]))
            fits = any(value == k and isinstance(value, bool) == isinstance(k, bool) for k in known)
        elif kind in KINDS:
            words += [KINDS[kind][0]] if kind is not NoneType else []
            fits = KINDS[kind][1](value)
        else:
            words.append(f"a {kind.__name__}" if isinstance(kind, type) else "a class")
            fits = value is not None or takes_none(kind)  # more is not for us to say
        if fits:
            return None
    return f"is {'null' if value is None else repr(value)}; it takes {' or '.join(words)}"


def _range(name: str, value: Any) -> str | None:
    """What is wrong with a number of this name."""
    if not KINDS[float][1](value):
        return None
    if not math.isfinite(value):
        return f"is {value}; it takes a finite number"
    if value < 1 and (name in SIZES or name.endswith("hidden")):
        return f"counts from 1, got {value}"
    if not 0 <= value < 1 and name.endswith("dropout"):
        return f"is a probability, from 0 to below 1, got {value}"
    if not 0 <= value < 1 and name in ("beta1", "beta2"):
        return f"is the decay of an average, from 0 to below 1, got {value}"
    if value <= 0 and name == "lr":
        return f"is {value}, and nothing would be learnt; it takes a number above 0"
    if value < 0 and name in NOT_NEGATIVE:
        return f"is {value}; it takes 0 or more"
    if not 0 <= value <= 1 and name == "val_fraction":
        return f"is a share, from 0 to 1, got {value}"
    if abs(value) > MOST.get(name, LARGEST if isinstance(value, float) else math.inf):
        return f"is {value}; it takes {MOST.get(name, LARGEST):g} or less"
    return None


def check_memory(name: str, value: Any, size: float) -> None:
    """Refuse what is larger than the memory of the whole machine, before it is made.

    Args:
        name: of the argument that asks for it.
        value: of that argument.
        size: in bytes.

    Raises:
        ValueError: it is; the message begins with the name.
    """
    if size > (room := machine_memory()):
        raise ValueError(f"{name} is {value}, which takes {size / 1e9:,.0f} GB of memory; there are {room / 1e9:,.0f}")


def machine_memory() -> float:
    """Bytes of memory in this machine; infinite where nobody knows."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError):  # not there, or not known there
        return math.inf


def constructor_of(frame: FrameType) -> dict[str, Any]:
    """What the outermost constructor of the object was given, whose base's constructor runs in this frame."""
    it = frame.f_locals["self"]
    while frame.f_back and frame.f_back.f_code.co_name == "__init__" and frame.f_back.f_locals.get("self") is it:
        frame = frame.f_back
    given = inspect.getargvalues(frame)
    arguments = {name: given.locals[name] for name in given.args[1:] if name in given.locals}
    return {**arguments, **(given.locals.get(given.keywords or "") or {})}
