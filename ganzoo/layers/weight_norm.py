"""Weight normalisation with fixed lengths (Salimans & Kingma 2016, arXiv:1602.07868, eq. 2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization


class FixedLength(nn.Module):
    """v -> g v / |v| for each output of a layer, where g is the initial length of its weights.

    Args:
        weight: [outputs, ...], the initial weight.
    """

    length: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("length", _length(weight.detach()))

    def forward(self, v: Tensor) -> Tensor:
        return v * (self.length / _length(v))


def fixed_weight_norm(layer: nn.Linear | nn.Conv2d) -> nn.Module:
    """Keeps the lengths of a layer's weights fixed: only their directions are trained."""
    register_parametrization(layer, "weight", FixedLength(layer.weight))
    return layer


def _length(weight: Tensor) -> Tensor:
    return torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.ndim)), keepdim=True)
