"""Blocks with gated linear units, and noise of a learned strength, of generators and decoders (Liu et al. 2021,
arXiv:2101.04775). `conv` and `norm` make the layers, as in `layers/residual.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import glu

from ganzoo.layers.base import Conv2d

Make = Callable[..., nn.Module]


class GatedBlock(nn.Module):
    """x [N, n_in, H, W] -> [N, n_out, 2H, 2W]: doubling, convolution, noise, norm, gated linear unit.

    Args:
        n_in: feature maps of x.
        n_out: of the output.
        conv: makes the convolution.
        norm: makes the norm.
        up: False keeps the size.
        noisy: whether it adds noise, if given.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        conv: Make = Conv2d,
        norm: Make = nn.BatchNorm2d,
        up: bool = True,
        noisy: bool = False,
    ) -> None:
        super().__init__()
        self.conv = conv(n_in, 2 * n_out, 3, padding=1, bias=False, up=up)
        self.noise = NoiseInjection() if noisy else None
        self.norm = norm(2 * n_out)

    def forward(self, x: Tensor, noise: Tensor | None = None, *c: Tensor) -> Tensor:
        h = self.conv(x)
        h = h if self.noise is None or noise is None else self.noise(h, noise)
        return glu(self.norm(h, *c), 1)


class NoisyUpBlock(nn.Module):
    """x [N, n_in, H, W] -> [N, n_out, 2H, 2W]: two blocks with noise, of which the first doubles the size."""

    def __init__(self, n_in: int, n_out: int, conv: Make = Conv2d, norm: Make = nn.BatchNorm2d) -> None:
        super().__init__()
        self.first = GatedBlock(n_in, n_out, conv, norm, noisy=True)
        self.second = GatedBlock(n_out, n_out, conv, norm, up=False, noisy=True)

    def forward(self, x: Tensor, noise: Sequence[Tensor | None] = (None, None), *c: Tensor) -> Tensor:
        """
        Args:
            x: feature maps.
            noise: of the two blocks, [N, 1, 2H, 2W] each.
            c: the norms' condition.
        """
        return self.second(self.first(x, noise[0], *c), noise[1], *c)


class NoiseInjection(nn.Module):
    """x [N, n, H, W] + w noise, with a learned number w, 0 at first, and noise [N, 1, H, W] for all feature maps."""

    def __init__(self) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        return x + (self.strength * noise).to(x.dtype)
