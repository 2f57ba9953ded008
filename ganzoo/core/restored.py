"""Checks of a checkpoint's training state before training resumes: torch's fused kernels read beyond tensors that
are too short."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

MOST = 2**40  # limit of all counters


def check_optimizer(name: str, make: Callable[[Any], Optimizer], weights: Sequence[Tensor], saved: Any) -> None:
    """Compare a saved optimizer state with the states of a new optimizer after one and two steps on small parameters.

    Args:
        name: of the player.
        make: makes its optimizer from parameters.
        weights: the player's parameters.
        saved: `state_dict` of an optimizer.

    Raises:
        MisconfigurationException: the optimizer cannot resume from it with these parameters.
    """
    wrong = f"the {name}'s optimizer state in the checkpoint"
    if not isinstance(saved, dict) or not isinstance(states := saved.get("state"), dict):
        raise MisconfigurationException(f"{wrong} is missing or damaged; use another checkpoint")
    small = [nn.Parameter(weight.new_zeros([2] * weight.ndim, device="cpu")) for weight in weights]
    optimizer = make(small)
    stages = []
    for _ in range(2):
        for parameter in small:
            parameter.grad = torch.zeros_like(parameter)
        try:
            optimizer.step()
        except TypeError:  # it needs a closure: unchecked
            return
        stages.append(optimizer.state_dict()["state"])
    for i, of in enumerate(weights):
        state, known = states.get(i, {}), {**stages[0].get(i, {}), **stages[1].get(i, {})}
        always = stages[0].get(i, {}).keys() & stages[1].get(i, {}).keys()
        if not isinstance(state, dict) or (state and always - state.keys()):
            raise MisconfigurationException(f"{wrong} belongs to another optimizer; use the one of the checkpoint")
        for key in state.keys() & known.keys():
            if not _fits(state[key], known[key], of):
                raise MisconfigurationException(f"{wrong} does not fit: {key} of parameter {i}; use another checkpoint")


def _fits(value: Any, like: Any, weight: Tensor) -> bool:
    """Whether a value can replace `like`, the state of a parameter [2, 2, ...], for this weight; numbers must be in
    [0, `MOST`]."""
    if not isinstance(like, Tensor):
        return isinstance(value, type(like)) and (not isinstance(value, int | float) or 0 <= value <= MOST)
    sizes = [full if size == 2 else size for full, size in zip(weight.shape, like.shape, strict=False)]
    if not isinstance(value, Tensor) or list(value.shape) != sizes or not value.isfinite().all():
        return False
    return like.ndim > 0 or weight.ndim == 0 or 0 <= float(value) <= MOST


def check_counters(checkpoint: Mapping[str, Any]) -> None:
    """
    Raises:
        MisconfigurationException: a counter is text, or out of range.
    """
    for key in ("global_step", "epoch", "loops"):
        for value in tree_leaves(checkpoint.get(key)):
            if isinstance(value, str) or (isinstance(value, int | float) and not -1 <= value <= MOST):
                raise MisconfigurationException(
                    f"the checkpoint's {key} has {str(value)[:40]!r}, which is not a count; use another checkpoint"
                )


def check_finite(state: Mapping[str, Any], weights: Container[str]) -> None:
    """
    Args:
        state: of the model.
        weights: names of parameters; other tensors may be infinite, but not NaN, as when they are saved.

    Raises:
        MisconfigurationException: a value is not finite.
    """
    for name, value in state.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            continue
        if not value.isfinite().all() if name in weights else value.isnan().any():
            raise MisconfigurationException(f"the checkpoint's {name} is not finite; use an earlier checkpoint")
