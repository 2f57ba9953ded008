"""How picture files became a model's images and sources: taken from its data, and stored with its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ganzoo.core.arguments import is_plain
from ganzoo.core.limits import Count, Size, check, refusal
from ganzoo.core.text import visible
from ganzoo.data.decoding import check_colour
from ganzoo.data.reading import Reading

Readings = Mapping[str, Reading]  # of "image" and "source"; only those that are known
CHANNELS = {"image": "channels", "source": "source_channels"}  # the model's arguments


def of(data: Any) -> Readings:
    """Those of a data module; empty if it does not read picture files, or is not one of ganzoo's."""
    found = getattr(data, "readings", None)
    return {key: value for key, value in found.items() if isinstance(value, Reading)} if isinstance(found, dict) else {}


def agreed(mine: Readings, theirs: Readings) -> Readings:
    """Those of a model and its data; either may be unknown. Sizes and channels are compared elsewhere.

    Raises:
        MisconfigurationException: the same files would become other images.
    """
    for kind in (kind for kind in mine if kind in theirs):
        my, their = _compared(mine[kind]), _compared(theirs[kind])
        if odd := [name for name in my if my[name] != their[name]]:
            name = odd[0]
            raise MisconfigurationException(
                f"{name} of {kind} is {my[name]} in the model, but {their[name]} in the data, so pictures become other "
                f"images: use data that is read with {name} {my[name]}, or train a new model"
            )
    return {**theirs, **mine}


def _compared(reading: Reading) -> dict[str, Any]:
    """The settings that determine what pictures look like, whatever their size, channels and depth."""
    settings = {**reading.settings, "background": reading.background or "white"}
    return {name: value for name, value in settings.items() if name not in ("size", "channels", "deep")}


def stored(readings: Readings) -> dict[str, dict[str, Any]]:
    """Plain values for a file."""
    return {kind: reading.settings for kind, reading in readings.items()}


def saved(found: Any, arguments: Mapping[str, Any]) -> Readings:
    """Those in an untrusted file.

    Args:
        found: what `stored` returned.
        arguments: of the model, whose size and channels are used.

    Raises:
        ValueError: the settings are unknown, or out of range.
    """
    if not isinstance(found, dict) or not found.keys() <= CHANNELS.keys():
        raise ValueError("its readings are not those of image and source")
    return {kind: _saved(kind, settings, arguments) for kind, settings in found.items()}


def _saved(kind: str, settings: Any, arguments: Mapping[str, Any]) -> Reading:
    what = f"its reading of {kind}"
    try:
        plain = isinstance(settings, dict) and is_plain(settings) and len(str(settings)) <= 1000
    except RecursionError:
        plain = False
    if not plain:
        raise ValueError(f"{what} is not a short dict of plain values")
    if unknown := settings.keys() - {field.name for field in fields(Reading)}:
        raise ValueError(f"{what} has the unknown setting {visible(min(unknown)[:40])}, perhaps of a newer ganzoo")
    if (problem := refusal(settings.get("size"), Size)) is not None:
        raise ValueError(f"{what}: size {problem}")
    try:
        check(Reading, settings)
        reading = Reading(**settings)
        check_colour(reading.background or "white")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what}: {error}") from error
    own: dict[str, Any] = {}
    for name, argument, kind_of in (("size", "image_size", Size), ("channels", CHANNELS[kind], Count)):
        if refusal(arguments.get(argument), kind_of) is None:
            own[name] = arguments[argument]
    return replace(reading, **own)
