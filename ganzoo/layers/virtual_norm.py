"""Virtual batch normalisation (Salimans et al. 2016, arXiv:1606.03498, section 3.5)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class VirtualBatchNorm(nn.Module):
    """Normalises each example by the statistics of a reference batch and of itself, independently of its own batch.

    The first `reference` rows of the input are the reference batch, normalised by its own statistics. The
    statistics of every other row are those of the reference batch plus this row, per channel, over rows and pixels.

    Args:
        features: channels of the input [reference + N, features, ...].
        reference: size of the reference batch.
        eps: added to the variance.
    """

    def __init__(self, features: int, reference: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.reference, self.eps = reference, eps
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.weight.dtype)  # statistics need more precision than bfloat16 has
        r, pixels = self.reference, tuple(range(2, x.ndim))
        reference, own = x[:r], x[r:]
        var, mean = torch.var_mean(reference, (0, *pixels), correction=0, keepdim=True)
        own_mean = own.mean(pixels, keepdim=True) if pixels else own
        own_var = own.var(pixels, correction=0, keepdim=True) if pixels else torch.zeros_like(own)
        joint_mean = (r * mean + own_mean) / (r + 1)
        joint_var = (r * var + own_var + r / (r + 1) * (own_mean - mean).square()) / (r + 1)
        normalised = [_normalise(reference, mean, var, self.eps), _normalise(own, joint_mean, joint_var, self.eps)]
        shape = (-1, *[1] * len(pixels))
        return torch.cat(normalised) * self.weight.view(shape) + self.bias.view(shape)


def _normalise(x: Tensor, mean: Tensor, var: Tensor, eps: float) -> Tensor:
    return (x - mean) * (var + eps).rsqrt()
