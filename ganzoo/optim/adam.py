"""Optimizers whose arguments are plain numbers, so that the command line can read a default from a lambda."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.optim import Optimizer


class FusedAdam(torch.optim.Adam):
    """torch's Adam with the betas named one by one, as papers do, and its fused kernel (half of the for-loop's time).

    Args:
        params: as in torch.
        lr: learning rate.
        beta1: decay of the gradient's average.
        beta2: decay of the squared gradient's average.
        eps: added to the denominator.
        weight_decay: weight of the L2 penalty.
        fused: one kernel for all parameters.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        fused: bool = True,
    ) -> None:
        super().__init__(params, lr, (beta1, beta2), eps, weight_decay, fused=fused)


def settings(optimizers: Sequence[Optimizer]) -> list[list[dict[str, Any]]]:
    """Learning rates and all else that the optimizers' constructors were given, for each of their groups."""
    return [[{key: group[key] for key in o.defaults} for group in o.param_groups] for o in optimizers]


def set_all(optimizers: Sequence[Optimizer], given: list[list[dict[str, Any]]]) -> None:
    """Set what `settings` gave."""
    for optimizer, groups in zip(optimizers, given, strict=True):
        for group, own in zip(optimizer.param_groups, groups, strict=True):
            group.update(own)
