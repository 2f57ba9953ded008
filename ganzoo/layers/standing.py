"""Standing statistics of batch norms (Brock et al. 2018, arXiv:1809.11096)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


def batch_norms(network: nn.Module) -> list[nn.BatchNorm1d | nn.BatchNorm2d | nn.SyncBatchNorm]:
    """Its batch norms with running statistics."""
    kinds = nn.BatchNorm1d | nn.BatchNorm2d | nn.SyncBatchNorm
    return [m for m in network.modules() if isinstance(m, kinds) and m.track_running_stats]


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
