"""Historical averaging (Salimans et al. 2016, arXiv:1606.03498, section 3.3)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class HistoricalAverage(nn.Module):
    """|theta - 1/t sum_i theta[i]|^2, where theta[1] are the parameters at construction and each `update` adds another.

    The mean and t are buffers and part of checkpoints.

    Args:
        parameters: theta; pass the same ones, in the same order, to every call.
    """

    mean: Tensor
    count: Tensor

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__()
        self.register_buffer("mean", _flat(parameters).detach())
        self.register_buffer("count", torch.tensor(1))

    def forward(self, parameters: Iterable[nn.Parameter]) -> Tensor:
        return (_flat(parameters) - self.mean).square().sum()

    @torch.no_grad()
    def update(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add one more theta[i] to the mean."""
        self.count += 1
        self.mean.lerp_(_flat(parameters), 1 / self.count)


def _flat(parameters: Iterable[nn.Parameter]) -> Tensor:
    """All numbers in one vector, in any memory format, unlike torch's `parameters_to_vector`."""
    return torch.cat([p.flatten() for p in parameters])
