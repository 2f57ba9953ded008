"""Spectral normalisation (Miyato et al. 2018, arXiv:1802.05957, algorithm 1).

Layers of their own instead of torch's parametrization: a parametrized module cannot be pickled, which spawned processes
need, and `torch.nn.init` of its weight changes a temporary tensor. Both take about the same time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear, normalize

from ganzoo.layers.base import Conv2d


def normalised(layer: Any) -> Tensor:
    """W / sigma(W), where sigma(W) = u'Wv approximates the largest singular value of W as a matrix [out, rest].

    In training mode, u and v are first improved by one power iteration. No gradient passes through them. The vector u
    is a buffer of the layer, so it is in checkpoints; it depends on weights alone, so it is equal on all processes.
    """
    with torch.autocast(layer.weight.device.type, enabled=False):
        w = layer.weight.flatten(1)
        with torch.no_grad():
            v = normalize(w.T @ layer.u, dim=0)
            if layer.training:
                normalize(w @ v, dim=0, out=layer.u)  # `copy_` is refused inside of `torch.func.grad`
            u = layer.u.clone()  # the next iteration overwrites it
        return layer.weight / torch.dot(u, w @ v)


class SpectralConv2d(Conv2d):
    """A convolution with the weight W / sigma(W)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _add_vector(self)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, normalised(self), self.bias)


class SpectralUnfold(SpectralConv2d):
    """z [N, n] -> [N, m, h, w]: a transposed convolution of a single pixel, with the weight W / sigma(W), no bias.

    Args:
        n: size of z.
        m: feature maps.
        size: (h, w).
    """

    def __init__(self, n: int, m: int, size: tuple[int, int]) -> None:
        super().__init__(n, m, size, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        return torch.einsum("bn,mnhw->bmhw", z, normalised(self))


class SpectralLinear(nn.Linear):
    """A linear layer with the weight W / sigma(W)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _add_vector(self)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, normalised(self), self.bias)


class SpectralEmbedding(nn.Embedding):
    """A table [K, n] normalised by its largest singular value."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _add_vector(self)

    def forward(self, y: Tensor) -> Tensor:
        return embedding(y, normalised(self))


def _add_vector(layer: Any) -> None:
    layer.register_buffer("u", normalize(torch.randn_like(layer.weight.flatten(1)[:, 0]), dim=0))


def is_spectral(layer: nn.Module) -> bool:
    """Whether a layer's weight is divided by its spectral norm."""
    return isinstance(layer, SpectralConv2d | SpectralLinear | SpectralEmbedding)
