"""Standing statistics of batch norms (Brock et al. 2018, arXiv:1809.11096)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """Its batch norms with running statistics, also those that are, or were, synchronised between processes."""
    return [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


@contextmanager
def standing(network: nn.Module) -> Iterator[None]:
    """Inside, the running statistics become the mean of the statistics of all batches, instead of a moving average.

    The other layers stay in their modes.
    """
    norms = batch_norms(network)
    before = [(norm, norm.training, norm.momentum) for norm in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.training, norm.momentum = True, None  # None: a cumulative mean
        yield
    finally:
        for norm, training, momentum in before:
            norm.training, norm.momentum = training, momentum
