"""The generators of Brock et al. 2018 (arXiv:1809.11096, appendix B), and the discriminator of BigGAN-deep.

BigGAN's discriminator is `ResidualDiscriminator`, with attention and orthogonal weights.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from ganzoo.core.limits import Size
from ganzoo.layers.attention import SelfAttention
from ganzoo.layers.conditional_norm import ConditionalBatchNorm
from ganzoo.layers.init import orthogonal_
from ganzoo.layers.residual import DeepDownBlock, DeepUpBlock, UpBlock
from ganzoo.layers.spectral import SpectralConv2d, SpectralEmbedding, SpectralLinear
from ganzoo.networks.base import DOWN, UP, attended, reductions, residual_layout


class BigGANGenerator(nn.Module):
    """z [N, z_dim], y [N] -> images [N, C, H, W] in [-1, 1].

    The latent is split into n + 1 equal chunks: the first is the input of the linear layer; each of the n blocks takes
    one (skip-z). The gains and shifts of a block's norms are linear in its chunk, concatenated with an embedding of the
    label that all blocks share. Spectral norm in all layers but the embedding.

    Args:
        image_size: see `residual_layout`.
        channels: of the image.
        z_dim: size of the latent.
        width: unit of the feature maps, see `UP`.
        num_classes: number of labels; None: the norms depend on the latent alone.
        embedding: size of the shared embedding.
        attention: largest side of the feature maps with self-attention.

    Raises:
        ValueError: z_dim is not a multiple of n + 1.
    """

    def __init__(
        self,
        image_size: Size = 32,
        channels: int = 3,
        z_dim: int = 80,
        width: int = 96,
        num_classes: int | None = None,
        embedding: int = 128,
        attention: int = 64,
    ) -> None:
        super().__init__()
        n, *grid = residual_layout(image_size)
        self.chunks = n + 1
        if z_dim % self.chunks:
            near = max(1, round(z_dim / self.chunks)) * self.chunks
            raise ValueError(
                f"z_dim is {z_dim}: BigGAN splits the latent into {self.chunks} equal chunks, for the linear layer and "
                f"{n} blocks; try {near}"
            )
        chunk, maps = z_dim // self.chunks, [width * multiple for multiple in UP[n]]
        self.embed = None if num_classes is None else nn.Embedding(num_classes, embedding)
        norm = _norm(chunk + (0 if self.embed is None else embedding))
        self.project = SpectralLinear(chunk, maps[0] * prod(grid))
        self.unflatten = nn.Unflatten(1, (maps[0], *grid))
        self.blocks = nn.ModuleList(UpBlock(a, b, norm, SpectralConv2d) for a, b in pairwise(maps))
        self.place = n - attended(image_size, attention)
        self.attention = SelfAttention(maps[self.place], SpectralConv2d)
        self.out = _Output(maps[-1], channels)
        orthogonal_(self)
        self.to(memory_format=torch.channels_last)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        first, *rest = z.chunk(self.chunks, 1)
        of_class = [] if self.embed is None else [self.embed(y)]
        h = self.unflatten(self.project(first))
        for i, (block, chunk) in enumerate(zip(self.blocks, rest, strict=True)):
            h = self.attention(h) if i == self.place else h
            h = block(h, torch.cat([chunk, *of_class], 1))
        return self.out(h)


class BigGANDeepGenerator(nn.Module):
    """z [N, z_dim], y [N] -> images [N, C, H, W] in [-1, 1], with two bottleneck blocks for each size.

    The whole latent, concatenated with the label's embedding, is the input of the linear layer and of all norms.

    Args:
        image_size: see `residual_layout`.
        channels: of the image.
        z_dim: size of the latent.
        width: unit of the feature maps, see `UP`.
        num_classes: number of labels; None: the norms depend on the latent alone.
        embedding: size of the shared embedding.
        attention: largest side of the feature maps with self-attention.
    """

    def __init__(
        self,
        image_size: Size = 32,
        channels: int = 3,
        z_dim: int = 128,
        width: int = 128,
        num_classes: int | None = None,
        embedding: int = 128,
        attention: int = 64,
    ) -> None:
        super().__init__()
        n, *grid = residual_layout(image_size)
        maps = [width * multiple for multiple in UP[n]]
        self.embed = None if num_classes is None else nn.Embedding(num_classes, embedding)
        condition = z_dim + (0 if self.embed is None else embedding)
        self.project = SpectralLinear(condition, maps[0] * prod(grid))
        self.unflatten = nn.Unflatten(1, (maps[0], *grid))
        shapes = [shape for a, b in pairwise(maps) for shape in ((a, a, False), (a, b, True))]
        norm = _norm(condition)
        self.blocks = nn.ModuleList(DeepUpBlock(a, b, norm, SpectralConv2d, up) for a, b, up in shapes)
        self.place = 2 * (n - attended(image_size, attention))
        self.attention = SelfAttention(shapes[self.place][0], SpectralConv2d)
        self.out = _Output(maps[-1], channels)
        orthogonal_(self)
        self.to(memory_format=torch.channels_last)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        c = z if self.embed is None else torch.cat([z, self.embed(y)], 1)
        h = self.unflatten(self.project(c))
        for i, block in enumerate(self.blocks):
            h = self.attention(h) if i == self.place else h
            h = block(h, c)
        return self.out(h)


class BigGANDeepDiscriminator(nn.Module):
    """x [N, C, H, W] in [-1, 1], y [N] -> conv, two bottleneck blocks for each size -> sum: h [N, n] -> scores [N].

    Args:
        image_size: see `residual_layout`.
        channels: of the image.
        width: unit of the feature maps, see `DOWN`; 32x32 images and smaller ones have 4 `width` in all layers.
        num_classes: number of labels, for the projection; None if unconditional.
        attention: as in `BigGANDeepGenerator`.
    """

    def __init__(
        self,
        image_size: Size = 32,
        channels: int = 3,
        width: int = 128,
        num_classes: int | None = None,
        attention: int = 64,
    ) -> None:
        super().__init__()
        n = residual_layout(image_size)[0]
        maps = [width * (multiple if n > 3 else 4) for multiple in DOWN[n]]
        pairs: list[nn.Module] = []
        for i, (a, b) in enumerate(pairwise(maps)):
            first = DeepDownBlock(a, b, SpectralConv2d, down=i < reductions(n))
            pairs.append(nn.Sequential(first, DeepDownBlock(b, b, SpectralConv2d)))
        place = attended(image_size, attention)
        pairs.insert(place, SelfAttention(maps[place], SpectralConv2d))
        self.blocks = nn.Sequential(SpectralConv2d(channels, maps[0], 3, padding=1), *pairs)
        self.score = SpectralLinear(maps[-1], 1)
        self.table = None if num_classes is None else SpectralEmbedding(num_classes, maps[-1])
        orthogonal_(self)
        self.to(memory_format=torch.channels_last)

    def features(self, x: Tensor) -> Tensor:
        """h [N, n]."""
        return relu(self.blocks(x)).sum((2, 3))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.features(x)
        score = self.score(h).squeeze(1)
        return score if self.table is None else score + (self.table(y) * h).sum(1)


class _Output(nn.Sequential):
    def __init__(self, n: int, channels: int) -> None:
        super().__init__(nn.BatchNorm2d(n), nn.ReLU(), SpectralConv2d(n, channels, 3, padding=1), nn.Tanh())


def _norm(condition: int) -> partial[ConditionalBatchNorm]:
    """Norms whose gains and shifts are linear in a condition [N, condition]."""
    return partial(ConditionalBatchNorm, of=partial(SpectralLinear, condition, bias=False))
