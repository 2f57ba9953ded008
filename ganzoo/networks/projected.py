"""The networks of Projected GAN (Sauer et al. 2021, arXiv:2111.01007)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from math import log2

import torch
from torch import Tensor, nn
from torch.nn.functional import glu, interpolate

from ganzoo.core.limits import Size
from ganzoo.layers.conditional_norm import ConditionalBatchNorm
from ganzoo.layers.excitation import SkipExcitation
from ganzoo.layers.fixed import FixedConv2d
from ganzoo.layers.gated import GatedBlock, NoisyUpBlock
from ganzoo.layers.pixelnorm import PixelNorm
from ganzoo.layers.spectral import SpectralConv2d, SpectralLinear, SpectralUnfold
from ganzoo.networks.base import gated_layout, gated_maps

CLASSES, PROJECTED = 128, 64  # sizes of a head's embedding of the label, and of what it is multiplied with


class ProjectedGenerator(nn.Module):
    """z [N, z_dim], y [N] -> images [N, C, H, W].

    FastGAN's generator with spectral norm (Liu et al. 2021, arXiv:2101.04775), as in the authors' code: z is scaled to
    length sqrt(z_dim), all blocks are noisy, and the only output is linear. With labels, the norms of the blocks are
    conditional: their gains and shifts are linear in an embedding of y.

    Args:
        image_size: see `gated_layout`; from 8 pixels up.
        channels: of the image.
        z_dim: size of the latent.
        width: feature maps at 128 pixels, an eighth of those at 8; see `GATED`.
        lite: blocks with one convolution, without noise.
        num_classes: number of labels; None if unconditional.

    Attributes:
        noise: height and width of each noise map.
    """

    def __init__(
        self,
        image_size: Size = 256,
        channels: int = 3,
        z_dim: int = 256,
        width: int = 128,
        lite: bool = False,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        n, *grid = gated_layout(image_size, least=1)
        m = gated_maps(width)
        of_class = partial(ConditionalBatchNorm, of=partial(SpectralLinear, z_dim))
        norm = nn.BatchNorm2d if num_classes is None else of_class
        block = GatedBlock if lite else NoisyUpBlock
        self.embed = None if num_classes is None else nn.Embedding(num_classes, z_dim)
        self.normalise = PixelNorm()
        self.first, self.norm = SpectralUnfold(z_dim, 2 * m[0], (grid[0], grid[1])), nn.BatchNorm2d(2 * m[0])
        self.blocks = nn.ModuleList(block(a, b, SpectralConv2d, norm) for a, b in pairwise(m[: n + 1]))
        self.reach = min(4, n)  # doublings from the maps that excite to the excited ones
        excited = range(self.reach, min(n, 7) + 1)
        self.excite = nn.ModuleList(SkipExcitation(m[k - self.reach], m[k], SpectralConv2d) for k in excited)
        self.out = SpectralConv2d(m[n], channels, 3, padding=1)
        self.noise = [] if lite else [(grid[0] << k, grid[1] << k) for k in range(1, n + 1) for _ in range(2)]
        self.to(memory_format=torch.channels_last)

    def forward(self, z: Tensor, y: Tensor | None = None, noise: Sequence[Tensor] = ()) -> Tensor:
        """
        Args:
            z: latents.
            y: labels.
            noise: standard normal [N, 1, h, w] for each of `self.noise`; none by default.
        """
        c = () if self.embed is None else (self.embed(y),)
        h = [glu(self.norm(self.first(self.normalise(z))), 1)]
        for k, block in enumerate(self.blocks):
            given = noise[2 * k : 2 * k + 2] or (None, None)
            h.append(block(h[-1], given if self.noise else None, *c))
            if 0 <= (i := k + 1 - self.reach) < len(self.excite):
                h[-1] = self.excite[i](h[i], h[-1])
        return self.out(h[-1])


class ProjectedDiscriminator(nn.Module):
    """x [N, C, H, W] in [-1, 1], y [N] -> frozen features, random mixtures, a head for each -> logits [N, 1, M].

    Args:
        features: images -> maps [N, c, h, w], from fine to coarse.
        channels: c of each map.
        sizes: h and w of each map.
        width: feature maps of the finest mixture.
        num_classes: number of labels; None if unconditional.
    """

    def __init__(
        self,
        features: nn.Module,
        channels: Sequence[int] = (24, 40, 112, 320),
        sizes: Sequence[tuple[int, int]] = ((64, 64), (32, 32), (16, 16), (8, 8)),
        width: int = 64,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.features, self.mix = features, Mixing(channels, width)
        sides = [2 * min(size) for size in sizes]
        self.heads = nn.ModuleList(
            Head(n, side, width, num_classes) for n, side in zip(self.mix.channels, sides, strict=True)
        )
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        mixed = self.mix(self.features(x))
        return torch.cat([head(m, y) for head, m in zip(self.heads, mixed, strict=True)], 1)[:, None]


class Mixing(nn.Module):
    """Maps from fine to coarse -> as many random mixtures of them, of twice their sizes (section 3.2).

    Across channels: a fixed convolution of each map, to `width`, 2 `width`, 4 `width`, ... maps. Across scales, from
    the coarsest: the result so far is added, doubled bilinearly, and convolved by another one, to as many maps as the
    next finer one has. The convolution is before the doubling, with which it commutes.

    Attributes:
        channels: of the mixtures.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        wide = [width << i for i in range(len(channels))]
        self.channels = [width, *wide[:-1]]
        self.across_channels = nn.ModuleList(map(FixedConv2d, channels, wide))
        self.across_scales = nn.ModuleList(map(FixedConv2d, wide, self.channels))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        mixed = [mix(m) for mix, m in zip(self.across_channels, maps, strict=True)]
        height, width = mixed[0].shape[2:]
        sizes = [(2 * height, 2 * width), *(m.shape[2:] for m in mixed)]  # the doubled size may be one pixel off
        found: list[Tensor] = []
        for m, mix, size in list(zip(mixed, self.across_scales, sizes, strict=False))[::-1]:
            x = mix(m + found[-1] if found else m)
            found.append(interpolate(x, size, mode="bilinear", align_corners=True))
        return found[::-1]


class Head(nn.Module):
    """A mixture [N, n_in, h, w], y [N] -> logits [N, h' w'].

    Strided convolutions with batch norm until the shorter side is nearest to 8 pixels, at least one, then a 4x4
    convolution. The authors' heads have 4, 3, 2 and 1 of them for images of any size, which are enlarged to 224 pixels
    at least; here the same numbers follow from 224 and 256 pixels, and other feature networks have other sizes.

    With labels, the last convolution has 64 outputs, whose product with an embedding of y is the logit (section 4).

    Args:
        n_in: channels of the mixture.
        side: its shorter side, in pixels.
        width: unit of the maps: at 8 pixels 8 `width`, half as many at each larger size, and at least `width`.
        num_classes: number of labels; None if unconditional.
    """

    def __init__(self, n_in: int, side: int, width: int, num_classes: int | None = None) -> None:
        super().__init__()
        times = max(1, round(log2(side / 8)))
        maps = [n_in, *(max(width, 8 * width >> left) for left in reversed(range(times)))]
        layers: list[nn.Module] = []
        for a, b in pairwise(maps):
            layers += [SpectralConv2d(a, b, 4, stride=2, padding=1), nn.BatchNorm2d(b), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers)
        self.out = SpectralConv2d(maps[-1], 1 if num_classes is None else PROJECTED, 4, bias=False)
        self.embed = None
        if num_classes is not None:
            embed = nn.Embedding(num_classes, CLASSES), nn.Linear(CLASSES, PROJECTED), nn.LeakyReLU(0.2)
            self.embed = nn.Sequential(*embed)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.out(self.layers(x)).flatten(2)
        if self.embed is not None:
            h = h * self.embed(y)[:, :, None] * PROJECTED**-0.5
        return h.sum(1)
