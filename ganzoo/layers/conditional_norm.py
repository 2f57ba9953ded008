"""Conditional batch normalisation (Dumoulin et al. 2016, arXiv:1610.07629; de Vries et al. 2017, arXiv:1707.00683)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class ConditionalBatchNorm(nn.Module):
    """Batch norm of x [N, n, H, W] with the gain 1 + g(c) and the shift s(c) of a condition c.

    Args:
        features: n.
        of: makes g and s: the map from conditions to [N, n]; `class_table` for labels c [N], or a linear layer.
    """

    def __init__(self, features: int, of: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(features, affine=False)
        self.gain, self.shift = of(features), of(features)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        h = self.norm(x)
        gain, shift = (m[:, :, None, None].to(h.dtype) for m in (1 + self.gain(c), self.shift(c)))
        return torch.addcmul(shift, h, gain)


def class_table(num_classes: int, features: int) -> nn.Embedding:
    """Labels [N] -> [N, features], zero at first."""
    table = nn.Embedding(num_classes, features)
    nn.init.zeros_(table.weight)
    return table
