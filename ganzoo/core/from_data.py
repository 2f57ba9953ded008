"""What a model knows of its training data, and of the origin of its weights: stored with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ganzoo.core import readings
from ganzoo.core.limits import Count, CountFrom0, refusal
from ganzoo.core.text import visible

if TYPE_CHECKING:
    from ganzoo.core.module import GANModule


@dataclass(frozen=True)
class FromData:
    """
    Attributes:
        class_names: in the order of the labels; empty if unknown.
        absent: labels without training images.
        readings: how files became "image" and "source"; empty if unknown.
        origin: of weights that were converted: `file`, `sha256`, `licence`; empty for others.
    """

    class_names: Sequence[str] = ()
    absent: Sequence[int] = ()
    readings: readings.Readings = field(default_factory=dict)
    origin: Mapping[str, str] = field(default_factory=dict)

    def give(self, model: GANModule) -> None:
        model.class_names, model.absent, model.readings = self.class_names, self.absent, self.readings
        model.origin = self.origin


def known(model: GANModule) -> FromData:
    return FromData(model.class_names, model.absent, model.readings, model.origin)


def of(data: Any, n: int | None) -> FromData:
    """Class names, if they are n, and readings of a data module; unknown if it is not one of ganzoo's."""
    names = getattr(data, "classes", ())
    names = list(map(str, names)) if isinstance(names, list | tuple) and len(names) == n else []
    return FromData(names, readings=readings.of(data))


def agreed(mine: FromData, theirs: FromData) -> FromData:
    """Class names and readings of a model and of its data, either of which may be unknown; all else is the model's.

    Raises:
        MisconfigurationException: they differ.
    """
    names, others = mine.class_names, theirs.class_names
    for label, (name, other) in enumerate(zip_longest(names, others, fillvalue="") if names and others else ()):
        if name != other:
            raise MisconfigurationException(
                f"class {label} is {visible(name) or 'missing'} in the model, but {visible(other) or 'missing'} in the "
                "data: use data with the model's classes, which python -m ganzoo info shows"
            )
    return replace(mine, class_names=list(names or others), readings=readings.agreed(mine.readings, theirs.readings))


def stored(model: GANModule) -> dict[str, Any]:
    """Plain values for a file; without what is unknown."""
    values = {
        "classes": list(model.class_names),
        "absent": list(model.absent),
        "readings": readings.stored(model.readings),
        "origin": dict(model.origin),
    }
    return {key: value for key, value in values.items() if value}


def saved(found: Mapping[str, Any], arguments: Mapping[str, Any]) -> FromData:
    """Those in an untrusted file.

    Args:
        found: contains what `stored` returned.
        arguments: of the model.

    Raises:
        ValueError: the values are not of their kinds.
    """
    names, absent = found.get("classes", []), found.get("absent", [])
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError("its class names are not a list of texts")
    if not isinstance(absent, list) or any(refusal(label, CountFrom0) for label in absent):
        raise ValueError("its absent classes are not a list of whole numbers from 0 up")
    n = arguments.get("num_classes")
    if absent and refusal(n, Count) is None and len({label for label in absent if label < n}) == n:
        raise ValueError("all its classes are absent")
    origin = found.get("origin", {})
    texts = [*origin, *origin.values()] if isinstance(origin, dict) else [None]
    if not all(isinstance(text, str) and len(text) <= 1000 for text in texts) or len(texts) > 20:
        raise ValueError("its origin is not a dict of at most 10 texts, each of at most 1,000 characters")
    return FromData(list(names), absent, readings.saved(found.get("readings", {}), arguments), origin)
