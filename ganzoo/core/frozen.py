"""Freezing of parameters, and context managers that restore buffers and modes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn


@contextmanager
def frozen(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Freezes the parameters inside."""
    learning = [p for p in parameters if p.requires_grad]
    for p in learning:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in learning:
            p.requires_grad_(True)


def freeze(network: nn.Module, layers: int) -> None:
    """Freeze a network's first layers for good.

    Raises:
        ValueError: no layer is left.
    """
    found = layers_of(network) if layers else [[], []]
    if layers >= len(found):
        raise ValueError(f"freeze_d is {layers}, but D has {len(found)} layers; use 0 to {len(found) - 1}")
    for p in chain(*found[:layers]):
        p.requires_grad_(False)


def layers_of(network: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters of each layer, in the order of the network's modules; those of a module without a matrix, such as
    a norm, belong to the layer before it, or to the first."""
    layers: list[list[nn.Parameter]] = []
    for module in network.modules():
        weight = getattr(module, "weight", None)
        whole = isinstance(weight, Tensor) and weight.ndim > 1
        known = {id(p) for p in chain(*layers)}
        own = [p for p in module.parameters(recurse=whole) if id(p) not in known]
        if own and (not layers or any(p.ndim > 1 for p in own) and any(p.ndim > 1 for p in layers[-1])):
            layers.append([])
        if own:
            layers[-1] += own
    return layers


@contextmanager
def kept(buffers: Iterable[Tensor]) -> Iterator[None]:
    """Restores running statistics, power iterations and other buffers on exit."""
    buffers = [buffer.data for buffer in buffers]  # restoring `.data` keeps a graph built inside valid
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        if buffers:
            torch._foreach_copy_(buffers, before)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode inside; restores the mode of each sub-module on exit."""
    training = [m for m in network.modules() if m.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
