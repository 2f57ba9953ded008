"""The averaged generator: a frozen copy whose weights are an exponential moving average."""

from __future__ import annotations

import copy

import torch
from torch import nn


def frozen_copy(module: nn.Module) -> nn.Module:
    """A deep copy in eval mode whose parameters do not require gradients."""
    return copy.deepcopy(module).eval().requires_grad_(False)


def decay(images: int, images_seen: int, half_life: float, ramp_up: float | None = None) -> float:
    """Weight of the old average in an update after `images` new images.

    0.5 ** (images / half_life). Early in training the half-life is at most `ramp_up * images_seen`, to forget the
    random initial weights quickly (Karras et al. 2020, StyleGAN2-ADA: ramp_up 0.05).

    Args:
        images: images since the last update, over all processes.
        images_seen: images since the start, over all processes, including the new ones.
        half_life: in images.
        ramp_up: share of `images_seen`; None for a constant half-life.
    """
    if ramp_up is not None:
        half_life = min(half_life, ramp_up * images_seen)
    return 0.5 ** (images / half_life)


@torch.no_grad()
def update(average: nn.Module, module: nn.Module, weight: float) -> None:
    """In place: average = weight * average + (1 - weight) * module for parameters; buffers are copied.

    Running statistics are already averages, and counters cannot be averaged. BigGAN's and StudioGAN's code average
    running statistics, too; `take_standing_statistics` measures those of the averaged weights.
    """
    torch._foreach_lerp_(list(average.parameters()), list(module.parameters()), 1.0 - weight)
    for old, new in zip(average.buffers(), module.buffers(), strict=True):
        old.copy_(new)
