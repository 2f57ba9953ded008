"""Pixelwise normalisation of feature vectors (Karras et al. 2018, arXiv:1710.10196, section 4.2)."""

from __future__ import annotations

from torch import Tensor, nn

from ganzoo.layers.base import not_half


class PixelNorm(nn.Module):
    """x [N, C, ...] -> x / sqrt(mean over C of x^2 + 1e-8): the vector at each pixel has length sqrt C."""

    def forward(self, x: Tensor) -> Tensor:
        wide = not_half(x)
        return (wide * (wide.square().mean(1, keepdim=True) + 1e-8).rsqrt()).to(x.dtype)
