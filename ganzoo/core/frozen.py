"""What keeps parameters, buffers and modes as they are for a while."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def frozen(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Inside, none of the parameters requires a gradient."""
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
    """Running statistics, power iterations and other buffers have their old values again at the end."""
    buffers = [buffer.data for buffer in buffers]  # unknown to autograd: a graph built inside stays valid
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        if buffers:
            torch._foreach_copy_(buffers, before)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode inside; then each sub-module has its former mode again."""
    training = [m for m in network.modules() if m.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
