"""Minibatch discrimination (Salimans et al. 2016, arXiv:1606.03498, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MinibatchDiscrimination(nn.Module):
    """Appends to each row x_i of [N, A] its similarity to the rows of the batch: [N, A + B].

    M_i = x_i T is a B x C matrix, and o(x_i)_b = sum_j exp(-|M_ib - M_jb|_1) over all rows j, including i. Reals
    and fakes need separate batches. T is initialised such that the distances are about 1; for much larger ones the
    gradient of the exponential vanishes.

    Args:
        in_features: A.
        kernels: B.
        dims: C.
    """

    def __init__(self, in_features: int, kernels: int = 100, dims: int = 5) -> None:
        super().__init__()
        self.kernels = kernels
        self.weight = nn.Parameter(torch.randn(in_features, kernels * dims) / (dims * in_features**0.5))

    def forward(self, x: Tensor) -> Tensor:
        m = (x @ self.weight).unflatten(1, (self.kernels, -1)).transpose(0, 1)  # [B, N, C]
        distances = torch.cdist(m, m, p=1)  # [B, N, N]
        return torch.cat([x, (-distances).exp().sum(2).T], 1)
