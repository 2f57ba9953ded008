"""Residual networks of WGAN-GP, SNGAN, projection GANs and SAGAN; discriminators of BigGAN, ContraGAN, ReACGAN."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from ganzoo.core.limits import Size
from ganzoo.layers.attention import SelfAttention
from ganzoo.layers.base import Conv2d
from ganzoo.layers.conditional_norm import ConditionalBatchNorm, class_table
from ganzoo.layers.init import orthogonal_, xavier_
from ganzoo.layers.residual import DownBlock, UpBlock
from ganzoo.layers.spectral import SpectralConv2d, SpectralEmbedding, SpectralLinear
from ganzoo.networks.base import DOWN, UP, attended, reductions, residual_layout


class ResidualGenerator(nn.Module):
    """z [N, z_dim], y [N] -> linear -> residual blocks, each doubling the size -> images [N, C, H, W] in [-1, 1].

    Gulrajani et al. 2017 (arXiv:1704.00028, appendix F), Miyato et al. 2018 (arXiv:1802.05957, table 4).

    Args:
        image_size: see `residual_layout`.
        channels: of the image.
        z_dim: size of the latent.
        width: unit of the feature maps, see `UP`; 32x32 images have 4 `width` in all layers.
        num_classes: number of labels, for conditional batch norm; None if unconditional.
        spectral: spectral norm in all layers.
        attention: largest side of the feature maps with self-attention; None: no attention.
        flat: `width` feature maps in all layers.
    """

    def __init__(
        self,
        image_size: Size = 32,
        channels: int = 3,
        z_dim: int = 128,
        width: int = 64,
        num_classes: int | None = None,
        spectral: bool = False,
        attention: int | None = None,
        flat: bool = False,
    ) -> None:
        super().__init__()
        n, *grid = residual_layout(image_size)
        maps = [width * (1 if flat else multiple) for multiple in UP[n]]
        conv, linear = (SpectralConv2d, SpectralLinear) if spectral else (Conv2d, nn.Linear)
        of_class = partial(ConditionalBatchNorm, of=partial(class_table, num_classes or 0))
        norm = nn.BatchNorm2d if num_classes is None else of_class
        self.conditional = num_classes is not None
        self.project = linear(z_dim, maps[0] * prod(grid))
        self.unflatten = nn.Unflatten(1, (maps[0], *grid))
        self.blocks = nn.ModuleList(UpBlock(a, b, norm, conv) for a, b in pairwise(maps))
        self.place = None if attention is None else n - attended(image_size, attention)
        self.attention = nn.Identity() if self.place is None else SelfAttention(maps[self.place], conv)
        self.norm = nn.BatchNorm2d(maps[-1])
        self.out = conv(maps[-1], channels, 3, padding=1)
        xavier_(self)
        self.to(memory_format=torch.channels_last)  # a third faster on a CPU

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.unflatten(self.project(z))
        for i, block in enumerate(self.blocks):
            h = self.attention(h) if i == self.place else h
            h = block(h, y) if self.conditional else block(h)
        return torch.tanh(self.out(relu(self.norm(h))))


class ResidualDiscriminator(nn.Module):
    """x [N, C, H, W] in [-1, 1], y [N] -> residual blocks -> ReLU, sum over pixels: h [N, n] -> scores [N].

    With labels, the score is w'h + b + v_y'h, with a row v_y of a table for each class (Miyato & Koyama 2018,
    arXiv:1802.05637, figure 1d).

    Args:
        image_size: see `residual_layout`.
        channels: of the image.
        width: unit of the feature maps, see `DOWN`; 32x32 images have 2 `width` in all layers.
        num_classes: number of labels; None if unconditional.
        spectral: spectral norm in all layers.
        attention: as in `ResidualGenerator`.
        wide: a block's first convolution has as many outputs as the block, and not as its input; SAGAN's and BigGAN's.
        flat: `width` feature maps in all layers.
        mean: h is a mean over pixels.
        outputs: size of the last, linear layer; more than one: its outputs [N, outputs] instead of scores.
        orthogonal: initial weights are orthogonal.
    """

    def __init__(
        self,
        image_size: Size = 32,
        channels: int = 3,
        width: int = 64,
        num_classes: int | None = None,
        spectral: bool = True,
        attention: int | None = None,
        wide: bool = False,
        flat: bool = False,
        mean: bool = False,
        outputs: int = 1,
        orthogonal: bool = False,
    ) -> None:
        super().__init__()
        n = residual_layout(image_size)[0]
        maps = [width * (1 if flat else multiple) for multiple in DOWN[n]]
        conv, linear = (SpectralConv2d, SpectralLinear) if spectral else (Conv2d, nn.Linear)
        blocks: list[nn.Module] = [DownBlock(channels, maps[0], maps[0], conv, first=True)]
        for i, (a, b) in enumerate(pairwise(maps), 1):
            blocks.append(DownBlock(a, b, b if wide else a, conv, down=i < reductions(n)))
        if attention is not None:
            place = attended(image_size, attention)
            blocks.insert(place, SelfAttention(maps[place - 1], conv))
        self.blocks = nn.Sequential(*blocks)
        self.mean = mean
        self.score = linear(maps[-1], outputs)
        self.table = None if num_classes is None else SpectralEmbedding(num_classes, maps[-1])
        (orthogonal_ if orthogonal else xavier_)(self)
        if self.table is not None and not orthogonal:
            nn.init.xavier_uniform_(self.table.weight)
        self.to(memory_format=torch.channels_last)

    def features(self, x: Tensor) -> Tensor:
        """h [N, n]."""
        h = relu(self.blocks(x))
        return h.mean((2, 3)) if self.mean else h.sum((2, 3))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.features(x)
        score = self.score(h).squeeze(1)
        return score if self.table is None else score + (self.table(y) * h).sum(1)


class ContrastiveDiscriminator(nn.Module):
    """x [N, C, H, W] in [-1, 1], y [N] -> scores [N], embeddings [N, d] of x, and proxies [N, d] of y.

    The discriminator of ContraGAN (Kang & Park 2020, arXiv:2006.12681) and ReACGAN (Kang et al. 2021,
    arXiv:2111.01118): BigGAN's, without the projection of the label. The losses scale embeddings and proxies to length
    1; hence spectral norm of the proxies would have no effect, and they have none.

    Args:
        image_size: see `residual_layout`.
        channels: of the image.
        num_classes: number of labels.
        width: unit of the feature maps.
        embed_dim: d.
        attention: as in `ResidualDiscriminator`.
    """

    def __init__(
        self,
        image_size: Size = 32,
        channels: int = 3,
        num_classes: int = 10,
        width: int = 96,
        embed_dim: int = 512,
        attention: int | None = 16,
    ) -> None:
        super().__init__()
        self.trunk = ResidualDiscriminator(image_size, channels, width, attention=attention, wide=True, orthogonal=True)
        self.embed = SpectralLinear(self.trunk.score.in_features, embed_dim)
        self.proxies = nn.Embedding(num_classes, embed_dim)
        orthogonal_(nn.ModuleList([self.embed, self.proxies]))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.trunk.features(x)
        return self.trunk.score(h).squeeze(1), self.embed(h), self.proxies(y)
