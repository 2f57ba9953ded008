"""The convolutional networks of Miyato et al. 2018 (arXiv:1802.05957, table 3)."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn

from ganzoo.core.limits import Size
from ganzoo.layers.init import normal_
from ganzoo.layers.spectral import SpectralConv2d, SpectralLinear
from ganzoo.networks.base import residual_layout


class SNDCGANGenerator(nn.Sequential):
    """z [N, z_dim] -> linear -> 4x4 deconvolutions, each doubling the size -> 3x3 conv -> images [N, C, H, W].

    Images are in [-1, 1]. Batch norm and ReLU after all layers but the last.

    Args:
        image_size: see `residual_layout`.
        channels: of the image.
        z_dim: size of the latent.
        width: feature maps at full resolution; each earlier layer has twice as many.
    """

    def __init__(self, image_size: Size = 32, channels: int = 3, z_dim: int = 128, width: int = 64) -> None:
        n, *grid = residual_layout(image_size)
        top = width * 2**n
        layers: list[nn.Module] = [nn.Linear(z_dim, top * prod(grid)), nn.Unflatten(1, (top, *grid))]
        layers += [nn.BatchNorm2d(top), nn.ReLU()]
        for k in range(n):
            maps = top // 2 ** (k + 1)
            layers += [nn.ConvTranspose2d(2 * maps, maps, 4, stride=2, padding=1), nn.BatchNorm2d(maps), nn.ReLU()]
        super().__init__(*layers, nn.Conv2d(width, channels, 3, padding=1), nn.Tanh())
        normal_(self, 0.02)
        self.to(memory_format=torch.channels_last)


class SNDCGANDiscriminator(nn.Module):
    """x [N, C, H, W] in [-1, 1] -> pairs of a 3x3 and a 4x4 convolution, which halves the size -> scores [N].

    The paper's networks, for 32x32 and 48x48, halve the size three times; here larger images are halved more often.

    Leaky ReLU of slope 0.1 and spectral norm everywhere.

    Args:
        image_size: see `residual_layout`.
        channels: of the image.
        width: feature maps at full resolution, doubled with each halving.
    """

    def __init__(self, image_size: Size = 32, channels: int = 3, width: int = 64) -> None:
        super().__init__()
        n, *grid = residual_layout(image_size)
        maps = [width * 2**k for k in range(n + 1)]
        layers: list[nn.Module] = [SpectralConv2d(channels, width, 3, padding=1), nn.LeakyReLU(0.1, inplace=True)]
        for a, b in zip(maps[:-1], maps[1:], strict=True):
            layers += [SpectralConv2d(a, b, 4, stride=2, padding=1), nn.LeakyReLU(0.1, inplace=True)]
            layers += [SpectralConv2d(b, b, 3, padding=1), nn.LeakyReLU(0.1, inplace=True)]
        self.layers = nn.Sequential(*layers)
        self.score = SpectralLinear(maps[-1] * prod(grid), 1)
        normal_(self, 0.02)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.score(self.layers(x).flatten(1)).squeeze(1)
