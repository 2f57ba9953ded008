"""The networks of FastGAN (Liu et al. 2021, arXiv:2101.04775), of 256, 512 and 1024 pixels in the paper.

Convolutions have spectral norm and no biases, as in the authors' code. The feature maps of a layer depend on its size,
not on that of the images, so those of smaller images lack the largest layers:

| side of the image | 256 or more | 128 | 64 | 32 |
|---|---|---|---|---|
| G's excitations, from side to side | 4 to 64, 8 to 128, 16 to 256, 32 to 512 | 4 to 64, 8 to 128 | 4 to 64 | 4 to 32 |
| D's blocks, down to 8 | 5 | 4 | 3 | 2 |
| D's excitations | 256 to 32, 128 to 16, 64 to 8 | 128 to 16, 64 to 8 | 64 to 8 | 32 to 8 |
| G's second, small image, which D's second branch sees | 128 | 64 | 32 | 16 |
| halvings of that branch, doublings of the decoders | 4 | 3 | 2 | 1 |

The sides are those of squares with 4 2^n pixels. Others, such as 48 or [64, 96], begin with 5 to 7 pixels on the
shorter side, and all sizes are larger in proportion.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from ganzoo.core.limits import Size
from ganzoo.layers.excitation import SkipExcitation
from ganzoo.layers.gated import GatedBlock, NoisyUpBlock
from ganzoo.layers.init import normal_
from ganzoo.layers.spectral import SpectralConv2d, SpectralUnfold
from ganzoo.networks.base import GATED, gated_layout, gated_maps

# D's feature maps at 2, 4, 8, ... 512 pixels, in multiples of its width; G's are `GATED`
DOWN = (16, 16, 8, 4, 2, 1, 1 / 2, 1 / 4, 1 / 8)
SMALL, STEM = 5, 6  # doublings from 4 pixels to 128, G's second image, and to 256, where D's blocks begin
conv = partial(SpectralConv2d, bias=False)


class FastGANGenerator(nn.Module):
    """z [N, z_dim] -> images [N, C, H, W] in [-1, 1], and the same images smaller, as `small`.

    A transposed convolution to 4x4, and blocks that double the size. Every other block has two convolutions, with noise
    of a learned strength after each, if noise is given.

    Args:
        image_size: see `gated_layout`.
        channels: of the image.
        z_dim: size of the latent.
        width: feature maps at 128 pixels; see `GATED` in `networks/base.py`.

    Attributes:
        noise: height and width of each noise map.
        small: doublings from 4 pixels to the small images: they have half the size, and at most 128 pixels.
    """

    def __init__(self, image_size: Size = 256, channels: int = 3, z_dim: int = 256, width: int = 64) -> None:
        super().__init__()
        n, *grid = gated_layout(image_size)
        m = gated_maps(width, GATED[: n + 1])
        self.small = min(n - 1, SMALL)
        self.first = SpectralUnfold(z_dim, 2 * m[0], (grid[0], grid[1]))
        self.norm = nn.Sequential(nn.BatchNorm2d(2 * m[0]), nn.GLU(1))
        self.blocks = nn.ModuleList(
            (NoisyUpBlock if k % 2 else GatedBlock)(m[k - 1], m[k], SpectralConv2d) for k in range(1, n + 1)
        )
        self.reach = min(4, n)  # doublings from the maps that excite to the excited ones
        self.excite = nn.ModuleList(excitation(m[k - self.reach], m[k]) for k in range(self.reach, min(n, 7) + 1))
        self.out, self.out_small = conv(m[n], channels, 3, padding=1), conv(m[self.small], channels, 1)
        self.noise = [(grid[0] << k, grid[1] << k) for k in range(1, n + 1, 2) for _ in range(2)]
        normal_(self, 0.02)
        self.to(memory_format=torch.channels_last)

    def forward(self, z: Tensor, noise: Sequence[Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """
        Args:
            z: latents.
            noise: standard normal [N, 1, h, w] for each of `self.noise`; None: no noise.
        """
        h = [self.norm(self.first(z))]
        for k, block in enumerate(self.blocks, 1):
            given = () if noise is None or k % 2 == 0 else (noise[k - 1 : k + 1],)
            h.append(block(h[-1], *given))
            if 0 <= (i := k - self.reach) < len(self.excite):
                h[-1] = self.excite[i](h[i], h[-1])
        return torch.tanh(self.out(h[-1])), torch.tanh(self.out_small(h[self.small]))


class FastGANDiscriminator(nn.Module):
    """x [N, C, H, W] in [-1, 1] -> logits [N, 2, h, w]; with quadrants, also three reconstructions of x.

    Two branches, for images and for small ones, have a map of logits each, 5x5 for squares.

    The three decoders reconstruct the small image from the last feature maps of either branch, at 8x8, and a quadrant
    of the image, as small, from the same quadrant of the first branch's maps at 16x16.

    Args:
        image_size: see `gated_layout`.
        channels: of the image.
        width: feature maps of the block that ends at 64 pixels; see `DOWN`.
    """

    def __init__(self, image_size: Size = 256, channels: int = 3, width: int = 64) -> None:
        super().__init__()
        n, *grid = gated_layout(image_size)
        m = gated_maps(width, DOWN)
        top, small = min(n, STEM), min(n - 1, SMALL)
        self.shrink = 2 ** (n - small)
        self.logits = (2, *(2 * side - 3 for side in grid))
        self.stem = nn.Sequential(*_stem(channels, m, n))
        self.blocks = nn.ModuleList(DownBlock(m[k + 1], m[k]) for k in range(top, 1, -1))
        self.reach = min(3, top - 1)
        self.excite = nn.ModuleList(excitation(m[k + 1], m[k - self.reach + 1]) for k in range(top, self.reach, -1))
        head = conv(m[2], m[1], 1), nn.BatchNorm2d(m[1]), nn.LeakyReLU(0.2), conv(m[1], 1, 4)
        self.head = nn.Sequential(*head)
        branch: list[nn.Module] = [conv(channels, m[small + 1], 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for k in range(small, 2, -1):
            branch += _down(m[k + 1], m[k])
        self.branch, self.head_small = nn.Sequential(*branch), conv(m[3], 1, 4)
        decoded = gated_maps(width / 2, GATED[2 : small + 1])
        self.decode, self.decode_small, self.decode_part = (decoder(k, decoded, channels) for k in (m[2], m[3], m[3]))
        normal_(self, 0.02)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, quadrants: Tensor | None = None, small: Tensor | None = None) -> Any:
        """
        Args:
            x: images.
            quadrants: [N] int64, 0 to 3: the quadrant that the third decoder reconstructs; None: no reconstructions.
            small: the images that the second branch sees; None: x, averaged to this size.

        Returns:
            The logits; with quadrants, also the three reconstructions, and what they should be: [N, 3, C, h, w] each.
        """
        small = avg_pool2d(x, self.shrink) if small is None else small
        h = [self.stem(x)]
        for k, block in enumerate(self.blocks, 1):
            h.append(block(h[-1]))
            if (i := k - self.reach) >= 0:
                h[-1] = self.excite[i](h[i], h[-1])
        last = self.branch(small)
        logits = torch.cat([self.head(h[-1]), self.head_small(last)], 1)
        if quadrants is None:
            return logits
        made = self.decode(h[-1]), self.decode_small(last), self.decode_part(quadrant(h[-2], quadrants))
        part = avg_pool2d(quadrant(x, quadrants), self.shrink // 2)
        return logits, torch.stack(made, 1), torch.stack([small, small, part], 1)


class DownBlock(nn.Module):
    """[N, n_in, H, W] -> [N, n_out, H/2, W/2]: the mean of two strided convolutions and of one of averaged pixels."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        then = conv(n_out, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.LeakyReLU(0.2)
        self.main = nn.Sequential(*_down(n_in, n_out), *then)
        self.direct = nn.Sequential(nn.AvgPool2d(2), conv(n_in, n_out, 1), nn.BatchNorm2d(n_out), nn.LeakyReLU(0.2))

    def forward(self, x: Tensor) -> Tensor:
        return (self.main(x) + self.direct(x)) / 2


def excitation(n_in: int, n_out: int) -> SkipExcitation:
    return SkipExcitation(n_in, n_out, SpectralConv2d)


def decoder(n_in: int, hidden: Sequence[int], channels: int) -> nn.Sequential:
    """Feature maps [N, n_in, h, w] -> images, doubled once for each of `hidden`, in [-1, 1]."""
    sizes = [n_in, *hidden]
    blocks = [GatedBlock(a, b, SpectralConv2d) for a, b in zip(sizes[:-1], sizes[1:], strict=True)]
    return nn.Sequential(*blocks, conv(sizes[-1], channels, 3, padding=1), nn.Tanh())


def quadrant(x: Tensor, which: Tensor) -> Tensor:
    """[N, n, 2h, 2w], which [N] in 0 to 3 -> [N, n, h, w]: upper left, upper right, lower left, lower right."""
    parts = x.unflatten(2, (2, -1)).unflatten(4, (2, -1))
    return parts[torch.arange(len(x), device=x.device), :, which // 2, :, which % 2]


def _stem(channels: int, m: list[int], n: int) -> list[nn.Module]:
    """D's layers down to 256 pixels; the first has no norm."""
    if n <= STEM:
        return [conv(channels, m[n + 1], 3, padding=1), nn.LeakyReLU(0.2)]
    first = [conv(channels, m[n], 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
    return first if n == STEM + 1 else [*first, *_down(m[n], m[n - 1])]


def _down(n_in: int, n_out: int) -> list[nn.Module]:
    return [conv(n_in, n_out, 4, stride=2, padding=1), nn.BatchNorm2d(n_out), nn.LeakyReLU(0.2)]
