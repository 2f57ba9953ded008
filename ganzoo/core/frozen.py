"""Context managers that freeze parameters, and restore buffers and modes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

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
