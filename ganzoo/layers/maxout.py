"""Maxout (Goodfellow et al. 2013, arXiv:1302.4389)."""

from __future__ import annotations

from torch import Tensor, nn


class Maxout(nn.Module):
    """Maximum of `pieces` linear functions for each unit: [N, in_features] -> [N, out_features]."""

    def __init__(self, in_features: int, out_features: int, pieces: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features * pieces)
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).unflatten(-1, (-1, self.pieces)).amax(-1)
