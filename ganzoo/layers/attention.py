"""Self-attention of feature maps (Zhang et al. 2018, arXiv:1805.08318, section 3)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, softmax


class SelfAttention(nn.Module):
    """x [N, n, H, W] -> x + gamma o, where o mixes the positions of x by softmax(theta(x)' phi(x)).

    gamma is 0 at first. Keys and values are max-pooled 2x2, as in the authors' code, but not in the paper: a quarter of
    the cost.

    Args:
        features: n.
        conv: makes the 1x1 convolutions: `nn.Conv2d`, or `SpectralConv2d`.
    """

    def __init__(self, features: int, conv: Callable[..., nn.Module] = nn.Conv2d) -> None:
        super().__init__()
        keys, values = max(1, features // 8), max(1, features // 2)
        self.theta, self.phi = (conv(features, keys, 1, bias=False) for _ in range(2))
        self.g, self.o = conv(features, values, 1, bias=False), conv(values, features, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        query = self.theta(x).flatten(2)  # [N, n/8, HW]
        key, value = (max_pool2d(layer(x), 2).flatten(2) for layer in (self.phi, self.g))  # [N, ..., HW/4]
        weights = softmax(query.mT @ key, -1)  # [N, HW, HW/4]
        mixed = value @ weights.to(value.dtype).mT  # [N, n/2, HW]
        return x + self.gamma.to(x.dtype) * self.o(mixed.unflatten(2, x.shape[2:]))
