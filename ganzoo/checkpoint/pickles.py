"""Checks a pickle opcode by opcode, without executing it, before torch unpickles it.

torch's `weights_only=True` runs no code, but calls functions that can turn a few bytes into gigabytes: slow codecs,
`bytearray(8 << 30)`, one more copy of a long list for every four bytes. Here a call is allowed only if its result is
no larger than the part of the pickle that encodes it.
"""

from __future__ import annotations

import pickle
import pickletools
import sys
from collections.abc import Callable, Set
from enum import Enum, auto
from typing import Any, BinaryIO

import torch

MOST = 500_000  # maximum opcodes of a pickle; torch.save writes about 50 per tensor


class Kind(Enum):
    """Kind of a value on the simulated stack; names, strings, tuples and lists represent themselves."""

    PLAIN = auto()  # a number, None, or bytes
    BYTES = auto()  # new bytes
    DATA = auto()  # any other new value
    ORDERED = auto()  # a new OrderedDict
    OWN = auto()  # made by one of the user's safe globals
    OLD = auto()  # a value from the memo, possibly large


class Name(str):
    """A class or function: `module name`."""


class Text(str):
    """A new string; a reused one is a plain str."""


def _is_key(value: Any) -> bool:
    """Whether a value may be a key: a string, a plain value or bytes. Thousands of tuples or long numbers can have
    equal hashes, which makes dicts and sets slow."""
    return isinstance(value, str) or value in (Kind.PLAIN, Kind.BYTES)


def _is_text(text: Any, codec: Any) -> bool:
    return isinstance(text, Text) and codec == "latin1"  # pickled bytes use it; other codecs are slow


def _are_new(storage: Any, *rest: Any) -> bool:
    return not any(value is Kind.OLD for value in rest)


CALLS: dict[str, Callable[..., bool]] = {  # allowed functions, with a check of their arguments
    **dict.fromkeys((f"torch._utils _rebuild_{what}" for what in ("tensor", "tensor_v2", "tensor_v3")), _are_new),
    "torch._utils _rebuild_parameter": _are_new,
    "torch Size": lambda sizes: isinstance(sizes, tuple),
    "torch device": lambda *where: all(map(_is_key, where)),
    "collections OrderedDict": lambda: True,
    "collections Counter": lambda counts: counts is Kind.DATA,
    "builtins bytearray": lambda content: content is Kind.BYTES,
    "builtins complex": lambda *parts: all(part is Kind.PLAIN for part in parts),
    "builtins set": lambda items: isinstance(items, list) and all(map(_is_key, items)),
    "_codecs encode": _is_text,
}
MADE = {"collections OrderedDict": Kind.ORDERED, "_codecs encode": Kind.BYTES}  # of allowed functions; others make DATA
PUSHED: dict[str, Callable[[Any], Any]] = {  # results of opcodes that take nothing from the stack
    **dict.fromkeys(
        ("BININT", "BININT1", "BININT2", "BINFLOAT", "NONE", "NEWTRUE", "NEWFALSE", "SHORT_BINSTRING"),
        lambda _: Kind.PLAIN,
    ),
    "LONG1": lambda number: Kind.PLAIN if number.bit_length() <= 64 else Kind.DATA,
    "BINUNICODE": Text,
    "GLOBAL": lambda name: Name(name.replace("__builtin__ ", "builtins ")),  # the name in Python 2
    "EMPTY_TUPLE": lambda _: (),
    "EMPTY_LIST": lambda _: [],
    "EMPTY_DICT": lambda _: Kind.DATA,
}
TAKEN = {  # how many values an opcode takes from the stack; 0: all above the mark
    **dict.fromkeys(("TUPLE", "APPENDS", "SETITEMS"), 0),
    **dict.fromkeys(("TUPLE1", "APPEND", "BINPERSID", "BUILD"), 1),
    **dict.fromkeys(("TUPLE2", "SETITEM", "REDUCE", "NEWOBJ"), 2),
    "TUPLE3": 3,
}


def check_pickle(file: BinaryIO) -> None:
    """Check one pickle, from the file's position to the pickle's end.

    Raises:
        pickle.UnpicklingError: it calls a function that torch.save does not use.
        Exception: it is damaged, or makes objects larger than itself.
    """
    own = _added()
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}
    for number, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        name = opcode.name
        if number == MOST:
            raise ValueError(f"its pickle has more than {MOST:,} opcodes")
        if name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = _used(stack[-1])
        elif name in PUSHED:
            stack.append(PUSHED[name](argument))
        elif name == "MARK":
            marks.append(len(stack))
        elif name in TAKEN:
            start = marks.pop() if TAKEN[name] == 0 else len(stack) - TAKEN[name]
            taken = stack[start:]
            del stack[start:]
            _take(name.rstrip("123"), stack, taken, own)
        elif name not in ("PROTO", "STOP"):
            raise ValueError(f"its pickle has the opcode {name}, which torch.save does not write")


def _added() -> set[str]:
    """The `module.name`s that the user has added to torch's safe globals, without those of torch and Python."""
    known = torch.serialization.get_safe_globals()
    names = {it[1] if isinstance(it, tuple) else f"{it.__module__}.{it.__qualname__}" for it in known}
    return {name for name in names if name.partition(".")[0] not in ("torch", *sys.stdlib_module_names)}


def _used(value: Any) -> Any:
    """How a value in the memo is represented; it can be read from there any number of times."""
    if type(value) is Text:
        return str(value)
    if isinstance(value, str):
        return value
    return Kind.PLAIN if value in (Kind.PLAIN, Kind.BYTES) else Kind.OLD


def _take(name: str, stack: list[Any], taken: list[Any], own: Set[str]) -> None:
    """Apply an opcode to the values that it takes from the stack."""
    into = stack[-1] if stack else None
    match name:
        case "TUPLE":
            stack.append(tuple(taken))
            fits = True
        case "APPEND" | "APPENDS":
            if fits := isinstance(into, list):
                into += taken
        case "SETITEM" | "SETITEMS":
            fits = into in (Kind.DATA, Kind.ORDERED) and all(map(_is_key, taken[::2]))
        case "BUILD":
            fits = into is Kind.OWN or (into is Kind.ORDERED and taken[0] is Kind.DATA)
        case "BINPERSID":
            stack.append(Kind.DATA)
            fits = isinstance(taken[0], tuple) and taken[0][0] == "storage"
        case _:
            function, arguments = taken
            stack.append(_called(name, function, arguments, own))
            fits = True
    if not fits:
        raise ValueError(f"its pickle uses the opcode {name} in a way that torch.save never does")


def _called(name: str, function: Any, arguments: Any, own: Set[str]) -> Kind:
    """Kind of the result of a call.

    Raises:
        ValueError, TypeError: the function does not take these arguments.
        pickle.UnpicklingError: the function must not be called.
    """
    if isinstance(function, Name) and function.replace(" ", ".") in own:
        return Kind.OWN
    if function not in CALLS or name == "NEWOBJ":
        raise pickle.UnpicklingError(f"GLOBAL {function} is called")
    if not isinstance(arguments, tuple) or not CALLS[function](*arguments):
        raise ValueError(f"its pickle calls {function} with forbidden arguments")
    return MADE.get(function, Kind.DATA)
