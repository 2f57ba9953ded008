"""Limits of arguments as type annotations: `width: Count = 64`. One function checks them, in Python and on the
command line, since torch would reject a value late, obscurely or not at all."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from numbers import Integral, Real
from types import FrameType, NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

LARGEST = 1e12  # maximum of any float: larger weights and rates overflow at the first step
AT_ONCE = 2**19  # pixels generated at once


class Limits(NamedTuple):
    """Range of a number, from `least` to `most`, both included unless `above` or `below` is set."""

    least: float = -LARGEST
    most: float = LARGEST
    above: bool = False  # excludes `least`
    below: bool = False  # excludes `most`

    def hold(self, value: float) -> bool:
        low = value > self.least if self.above else value >= self.least
        return low and (value < self.most if self.below else value <= self.most)

    def __str__(self) -> str:
        least, most = f"{self.least:.12g}", f"{self.most:.12g}"
        if abs(self.most) >= LARGEST:
            return f"above {least}" if self.above else f"from {least} up"
        if self.above or self.below:
            return f"in {'(' if self.above else '['}{least}, {most}{')' if self.below else ']'}"
        return f"from {least} to {most}"


ANY = Limits(-math.inf, math.inf)
Count = Annotated[int, Limits(1, math.inf)]
CountFrom0 = Annotated[int, Limits(0, math.inf)]
Pixels = Annotated[int, Limits(1, 2**14)]  # side of an image
Sides = Annotated[Sequence[int], "[height, width]"]
Size = Pixels | Sides  # of an image: the side of a square, or [height, width]
Bounds = Annotated[Sequence[float], "[lowest, highest]"]
Layers = Annotated[int, Limits(1, 1000)]  # more would hang
Positive = Annotated[float, Limits(0, above=True)]
NonNegative = Annotated[float, Limits(0)]
Share = Annotated[float, Limits(0, 1)]
PositiveShare = Annotated[float, Limits(0, 1, above=True)]
Probability = Annotated[float, Limits(0, 1, below=True)]  # of dropout, or the decay of an average
Rate = Annotated[float, Limits(0, 100, above=True)]  # learning rate; nothing is learnt with 0

KINDS: dict[Any, tuple[str, Callable[[Any], bool]]] = {  # type -> name, check; numpy's types fit
    int: ("a whole number", lambda value: isinstance(value, Integral) and not isinstance(value, bool)),
    float: ("a number", lambda value: isinstance(value, Real) and not isinstance(value, bool)),
    bool: ("true or false", lambda value: isinstance(value, bool)),
    str: ("text", lambda value: isinstance(value, str | os.PathLike)),
    NoneType: ("null", lambda value: value is None),
}


class ArgumentError(ValueError):
    """An argument that does not match its annotation.

    Attributes:
        owner: the class or function that takes the argument.
    """

    def __init__(self, owner: Any, name: str, problem: str) -> None:
        super().__init__(f"{name} {problem}")
        self.owner = owner


def check(owner: Any, arguments: Mapping[str, Any]) -> None:
    """Reject arguments of the wrong type or out of range.

    Args:
        owner: a function; or a class, for the annotations of its constructor and those of its bases.
        arguments: their values by name.

    Raises:
        ArgumentError: an argument is rejected; the message begins with its name.
    """
    kinds = hints(owner)
    for name, value in arguments.items():
        if (problem := refusal(value, kinds.get(name, Any))) is not None:
            raise ArgumentError(owner, name, problem)


@cache
def hints(owner: Any) -> dict[str, Any]:
    """Types of all arguments of a function, or of the constructors of a class and its bases."""
    functions: list[Any] = [owner]
    if isinstance(owner, type):
        functions = [vars(base).get("__init__") for base in reversed(owner.__mro__)]
    found: dict[str, Any] = {}
    for function in functions:
        try:
            own = get_type_hints(function, include_extras=True)
            parameters = inspect.signature(function).parameters
        except (AttributeError, NameError, TypeError, ValueError):  # names imported for type checkers only
            continue
        none = {name for name, parameter in parameters.items() if parameter.default is None}
        found |= {name: kind | None if name in none else kind for name, kind in own.items()}
    return found


def takes_none(hint: Any) -> bool:
    """Whether the annotation of an argument allows None."""
    return hint in (Any, None, NoneType, object) or NoneType in get_args(hint)


def refusal(value: Any, hint: Any) -> str | None:
    """Why a value does not match a type; None if it does. Only plain types and literals are checked; other
    types match any value, but None only if they allow it."""
    words: list[str] = []
    for kind in get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,):
        plain, limits = get_args(kind) if get_origin(kind) is Annotated else (kind, ANY if kind is int else Limits())
        if get_origin(plain) is Literal:
            known = get_args(plain)
            words.append(f"one of {', '.join(map(str, known))}" if len(known) > 1 else str(known[0]))
            fits = any(value == k and isinstance(value, bool) == isinstance(k, bool) for k in known)
        elif plain in KINDS:
            words += [KINDS[plain][0]] if plain is not NoneType else []
            fits = KINDS[plain][1](value)
            if fits and plain in (int, float):
                return _beyond(value, words[-1], limits)
        elif kind == Sides:
            words.append(limits)
            if fits := isinstance(value, list | tuple) and len(value) == 2:
                problem = next(filter(None, (refusal(side, Pixels) for side in value)), None)
                return problem and f"is {list(value)}: a side {problem}"
        elif kind == Bounds:
            words.append(limits)
            if fits := isinstance(value, list | tuple) and len(value) == 2 and all(map(KINDS[float][1], value)):
                low, high = value
                return None if -math.inf < low < high < math.inf else f"is {list(value)}; it takes {limits}"
        else:
            words.append(f"a {plain.__name__}" if isinstance(plain, type) else "a class")
            fits = value is not None or takes_none(plain)  # other types are not checked
        if fits:
            return None
    shown = "null" if value is None else repr(value)
    return f"is {shown if len(shown) < 100 else shown[:96] + ' ...'}; it takes {' or '.join(words)}"


def _beyond(value: Any, kind: str, limits: Limits) -> str | None:
    if not -math.inf < value < math.inf:
        return f"is {value}; it takes a finite number"
    if limits.hold(value):
        return None
    if value > LARGEST == limits.most:
        return f"is {value}; it takes {LARGEST:g} or less"
    return f"is {value}; it takes {kind} {limits}"


def sides(size: Size) -> tuple[int, int]:
    """Height and width in pixels."""
    height, width = size if isinstance(size, Sequence) else (size, size)
    return int(height), int(width)


def area(size: Size) -> int:
    """Number of pixels."""
    return math.prod(sides(size))


def at_once(size: Size) -> int:
    """How many images are generated at once, so that a device holds them if it holds a batch of the training."""
    return max(1, min(256, AT_ONCE // area(size)))


def normal_size(size: Any) -> Any:
    """A `Size` as an int if it is a square, otherwise as a list; other values as they are."""
    if refusal(size, Size) is not None:
        return size
    height, width = sides(size)
    return height if height == width else [height, width]


def check_memory(name: str, value: Any, size: float) -> None:
    """Reject an allocation larger than the machine's memory.

    Args:
        name: of the argument that determines the size.
        value: of that argument.
        size: in bytes.

    Raises:
        ValueError: it is larger; the message begins with the name.
    """
    if size > (room := machine_memory()):
        raise ValueError(
            f"{name} is {value}, which takes {size / 1e9:,.0f} GB of memory, but there are {room / 1e9:,.0f}; lower it"
        )


def machine_memory() -> float:
    """Physical memory of this machine in bytes; infinite if unknown."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError):  # missing or unknown on this platform
        return math.inf


def constructor_of(frame: FrameType) -> dict[str, Any]:
    """Arguments of the outermost constructor of the object whose base constructor runs in this frame."""
    it = frame.f_locals["self"]
    while frame.f_back and frame.f_back.f_code.co_name == "__init__" and frame.f_back.f_locals.get("self") is it:
        frame = frame.f_back
    given = inspect.getargvalues(frame)
    arguments = {name: given.locals[name] for name in given.args[1:] if name in given.locals}
    return {**arguments, **(given.locals.get(given.keywords or "") or {})}
