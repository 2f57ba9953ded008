"""Equations compiled with `torch.compile`."""

from __future__ import annotations

from types import MethodType

import torch

from ganzoo.core.types import Equation


class Compiler:
    """Compiles each equation of a model once.

    Args:
        enabled: False returns equations unchanged.
    """

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self._known: dict[Equation, Equation] = {}

    def __call__(self, loss: Equation) -> Equation:
        if not self.enabled:
            return loss
        if not isinstance(loss, MethodType):
            return torch.compile(loss)  # may be a lambda, a new object each time; torch caches by code
        if loss not in self._known:
            self._known[loss] = torch.compile(loss)
        return self._known[loss]
