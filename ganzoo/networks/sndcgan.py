"""The convolutional networks of Miyato et al. 2018 (arXiv:1802.05957, table 3).

Chainer-GAN-lib and compare_gan differ: they have twice as many feature maps in D's 4x4 convolutions, and batch norm and
ReLU after G's linear layer.
"""

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

    Images are in [-1, 1]. Batch norm and ReLU after each deconvolution.

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
        for k in range(n):
            maps = top // 2 ** (k + 1)
            layers += [nn.ConvTranspose2d(2 * maps, maps, 4, stride=2, padding=1), nn.BatchNorm2d(maps), nn.ReLU()]
        super().__init__(*layers, nn.Conv2d(width, channels, 3, padding=1), nn.Tanh())
        normal_(self, 0.02)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.ones_(module.weight)
        self.to(memory_format=torch.channels_last)


class SNDCGANDiscriminator(nn.Module):
    """x [N, C, H, W] in [-1, 1] -> pairs of a 3x3 and a 4x4 convolution -> 3x3 convolution -> scores [N].

    Each 4x4 convolution halves the size: three in the paper, for 32x32 and 48x48, here more for larger images.

    Leaky ReLU of slope 0.1 and spectral norm everywhere.

    Args:
        image_size: see `residual_layout`.
        channels: of the image.
        width: feature maps at full resolution, doubled by the 3x3 convolution after each halving.
    """

    def __init__(self, image_size: Size = 32, channels: int = 3, width: int = 64) -> None:
        super().__init__()
        n, *grid = residual_layout(image_size)
        layers: list[nn.Module] = [SpectralConv2d(channels, width, 3, padding=1), nn.LeakyReLU(0.1, inplace=True)]
        for k in range(n):
            maps = width * 2**k
            layers += [SpectralConv2d(maps, maps, 4, stride=2, padding=1), nn.LeakyReLU(0.1, inplace=True)]
            layers += [SpectralConv2d(maps, 2 * maps, 3, padding=1), nn.LeakyReLU(0.1, inplace=True)]
        self.layers = nn.Sequential(*layers)
        self.score = SpectralLinear(width * 2**n * prod(grid), 1)
        normal_(self, 0.02)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.score(self.layers(x).flatten(1)).squeeze(1)
