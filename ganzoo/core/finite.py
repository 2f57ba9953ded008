"""Non-finite numbers: detected at their step, named, and never saved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

LEAST_SCALE = 2.0**-10  # of fp16: 26 halvings below the initial scale; if gradients still overflow, no scale helps


class NonFiniteError(ArithmeticError):
    """A non-finite loss, gradient or weight.

    Attributes:
        step: the first step with a non-finite value, counted from 1.
    """

    def __init__(self, step: int, what: str) -> None:
        super().__init__(f"not finite at step {step:,}: {what}")
        self.step = step


def surely_finite(values: Tensor) -> bool:
    """Whether all values are known to be finite; False on an accelerator, to avoid synchronisation, and if their sum
    overflows."""
    return values.is_cpu and math.isfinite(values.sum().item())


class Watch:
    """Records non-finite values in the updates; on an accelerator only `check` synchronises."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, tuple[str, ...]], Tensor] = {}  # first non-finite step of each value, or 0

    def look(self, step: int, player: str, names: Sequence[str], values: Tensor) -> None:
        """Record the first step at which each value [len(names)] of a player's update was not finite.

        Raises:
            NonFiniteError: on a CPU, a value is not finite.
        """
        bad = ~values.isfinite()
        key = player, tuple(names)
        first = self._first.get(key, torch.zeros_like(bad, dtype=torch.int64))
        self._first[key] = torch.where(bad & (first == 0), step, first)
        if values.is_cpu:
            self.check(step)

    def check(self, step: int, scaler: Any = None) -> None:
        """Read the record from the device, and reset it.

        Args:
            step: the current step.
            scaler: fp16's gradient scaler, which skips the step and lowers its scale if a gradient is not finite.

        Raises:
            NonFiniteError: a value was not finite since the last check, or the scale is below `LEAST_SCALE`.
        """
        if scaler is not None and (scale := scaler.get_scale()) < LEAST_SCALE:
            raise NonFiniteError(step, f"gradients, even at fp16's loss scale of {scale:.0e}; use precision bf16-mixed")
        first, self._first = self._first, {}
        steps = {key: steps.tolist() for key, steps in first.items()}
        if not (step := min((step for list_ in steps.values() for step in list_ if step), default=0)):
            return
        (player, names), found = next(item for item in steps.items() if step in item[1])  # first player with it
        bad = [name for name, first_step in zip(names, found, strict=True) if first_step == step]
        raise NonFiniteError(step, f"the {player}'s {_listed(bad)}")


def check_weights(step: int, network: nn.Module) -> None:
    """Check a network's weights after a step: parameters must be finite; buffers may be infinite (masks), but not NaN.

    Raises:
        NonFiniteError: a weight violates this.
    """
    named = {name: t.detach() for name, t in network.named_parameters() if t.numel()}
    norms = torch.stack(torch._foreach_norm(list(named.values()))) if named else torch.zeros(0)
    bad = [name for name, norm in zip(named, norms.tolist(), strict=True) if not math.isfinite(norm)]
    bad += [name for name, t in network.named_buffers() if t.is_floating_point() and t.isnan().any()]
    if bad:
        raise NonFiniteError(step, f"weights {_listed(bad)}")


def _listed(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
