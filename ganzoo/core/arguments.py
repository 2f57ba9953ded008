"""What a checkpoint says of a model: its class's name and the plain values it was constructed with."""

from __future__ import annotations

from types import FrameType
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.parsing import collect_init_args

OPTIMISATION = {"optimizer", "discriminator_optimizer", "lr_scheduler"}  # a run's arguments, not a model's


def constructor_arguments(frame: FrameType) -> tuple[dict[str, Any], list[str]]:
    """What the outermost constructor above a frame was given, and the names of what a checkpoint cannot hold.

    Anything but plain values could only be loaded with weights_only=False.
    """
    arguments = {k: v for k, v in collect_init_args(frame, [])[-1].items() if k not in OPTIMISATION}
    left_out = [name for name, value in arguments.items() if not is_plain(value)]
    if left_out:
        rank_zero_warn(f"{', '.join(left_out)}: no plain values, so a checkpoint cannot hold them")
    return {name: value for name, value in arguments.items() if is_plain(value)}, left_out


def variant_name(variant: type) -> str:
    """`module.Class`, by which a checkpoint names its variant."""
    return f"{variant.__module__}.{variant.__qualname__}"


def is_plain(value: Any) -> bool:
    """Whether a value consists of numbers, strings, lists and dicts alone."""
    if isinstance(value, dict):
        return all(isinstance(k, str) and is_plain(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or type(value) in (bool, int, float, str)  # numpy's float is a float, and no plain one
