"""Numbers that go bad are caught at their step, named, and never saved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

LEAST_SCALE = 2.0**-10  # of fp16: 26 halvings below where it starts, gradients overflow whatever it is


class NonFiniteError(ArithmeticError):
    """A loss, a gradient or a weight is infinite or not a number.

    Attributes:
        step: counted from 1, at which it first was.
    """

    def __init__(self, step: int, what: str) -> None:
        super().__init__(f"not finite at step {step:,}: {what}")
        self.step = step


def surely_finite(values: Tensor) -> bool:
    """Whether all values are finite; False where that is not known: on an accelerator, for which we do not wait, and if
    the sum overflows."""
    return values.is_cpu and math.isfinite(values.sum().item())


class Watch:
    """Looks at every update of a player; on an accelerator without waiting for it, until `check` asks."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, tuple[str, ...]], Tensor] = {}  # the step at which each value went bad, or 0

    def look(self, step: int, player: str, names: Sequence[str], values: Tensor) -> None:
        """Remember which of the values [len(names)] of a player's update are the first not to be finite.

        Raises:
            NonFiniteError: one of them is not, on a CPU, where looking costs nothing.
        """
        bad = ~values.isfinite()
        key = player, tuple(names)
        first = self._first.get(key, torch.zeros_like(bad, dtype=torch.int64))
        self._first[key] = torch.where(bad & (first == 0), step, first)
        if values.is_cpu:
            self.check(step)

    def check(self, step: int, scaler: Any = None) -> None:
        """Ask the device, and forget what it says.

        Args:
            step: the present one.
            scaler: of fp16, which lowers its scale, and skips the step, whenever a gradient is not finite.

        Raises:
            NonFiniteError: something was not finite since the last time, or the scale has fallen too low to matter.
        """
        if scaler is not None and (scale := scaler.get_scale()) < LEAST_SCALE:
            raise NonFiniteError(step, f"gradients, with fp16's scale down to {scale:.0e}; take precision bf16-mixed")
        first, self._first = self._first, {}
        steps = {key: steps.tolist() for key, steps in first.items()}
        if not (step := min((step for list_ in steps.values() for step in list_ if step), default=0)):
            return
        (player, names), found = next(item for item in steps.items() if step in item[1])  # the player who was first
        bad = [name for name, first_step in zip(names, found, strict=True) if first_step == step]
        raise NonFiniteError(step, f"the {player}'s {_listed(bad)}")


def check_weights(step: int, network: nn.Module) -> None:
    """Of a network, after a step: all its parameters, and its buffers, which may be infinite (a mask), but a number.

    Raises:
        NonFiniteError: one of them is not.
    """
    named = {name: t.detach() for name, t in network.named_parameters() if t.numel()}
    norms = torch.stack(torch._foreach_norm(list(named.values()))) if named else torch.zeros(0)
    bad = [name for name, norm in zip(named, norms.tolist(), strict=True) if not math.isfinite(norm)]
    bad += [name for name, t in network.named_buffers() if t.is_floating_point() and t.isnan().any()]
    if bad:
        raise NonFiniteError(step, f"weights {_listed(bad)}")


def _listed(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
