"""The U-Net of Isola et al. 2016 (arXiv:1611.07004, section 3.2.1 and appendix)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from ganzoo.core.limits import Size
from ganzoo.layers.init import normal_
from ganzoo.networks.base import halvings, shape


class UNet(nn.Module):
    """source [N, C', H, W] -> H/2 -> ... -> 1x1 -> ... -> images [N, C, H, W] in [-1, 1]; z are dropout masks.

    Skip connections concatenate encoder and decoder layers of the same size, before ReLU as in the authors' code: the
    negative part of the encoder's leaky ReLU only reaches the next encoder layer.

    Instance norm, also in eval mode, equals the paper's batch norm with test statistics at its batch size of 1, and
    makes images independent of each other. The bottleneck has no norm, which would set one of 1x1 to zero (the paper's
    erratum).

    Args:
        image_size: pixels: 4, 8, 16, ...; or [height, width], which are halved as long as both are even, to less than 8
            on the shorter side.
        channels: of the image.
        source_channels: of the source.
        width: feature maps at half the image's size; doubled with each halving, up to 8 times this number.
        skips: False for the paper's encoder-decoder without skip connections (section 4.2).

    Attributes:
        noise: shapes (C, h, w) of the dropout masks: the decoder's first three hidden layers.

    Raises:
        ValueError: image_size cannot be halved often enough.
    """

    def __init__(
        self, image_size: Size = 256, channels: int = 3, source_channels: int = 3, width: int = 64, skips: bool = True
    ) -> None:
        super().__init__()
        squares = "a U-Net halves down to one pixel, so it takes 4, 8, 16, ..."
        others = "a U-Net halves the height and width at least twice, the shorter to less than 8 pixels"
        h, w = shape(image_size, _fits, squares, others)
        depth = halvings(h, w)
        widths = [width * min(2**i, 8) for i in range(depth)]
        self.skips = skips
        joined = 2 if skips else 1
        down, up = nn.Conv2d, nn.ConvTranspose2d
        self.down = nn.ModuleList(
            _block(down, n_in, n_out, nn.LeakyReLU(0.2), norm=0 < i < depth - 1)
            for i, (n_in, n_out) in enumerate(zip([source_channels, *widths], widths, strict=False))
        )
        self.up = nn.ModuleList([_block(up, widths[-1], widths[-2])])
        for n_in, n_out in zip(widths[-2:0:-1], widths[-3::-1], strict=True):
            self.up.append(_block(up, joined * n_in, n_out))
        self.up.append(_block(up, joined * width, channels, nn.Tanh(), norm=False))
        levels = reversed(range(1, depth))  # of the decoder's hidden layers, from the coarsest
        self.noise = [(widths[k - 1], h >> k, w >> k) for k in levels][:3]
        normal_(self, 0.02)
        self.to(memory_format=torch.channels_last)  # a quarter faster on a CPU

    def forward(self, z: Sequence[Tensor], source: Tensor) -> Tensor:
        """z: for each shape in `noise` a mask [N, C, h, w], multiplied with the layer's output."""
        encoded = [source]
        for down in self.down:
            encoded.append(down(encoded[-1]))
        h = encoded.pop()
        for i, up in enumerate(self.up):
            if i > 0 and self.skips:
                h = torch.cat([h, encoded.pop()], 1)
            h = up(relu(h))
            if i < len(z):
                h = h * z[i]
        return h


def _fits(height: int, width: int) -> bool:
    n = halvings(height, width)
    return n >= 2 and min(height, width) >> n < (2 if height == width else 8)


def _block(kind: type[nn.Module], n_in: int, n_out: int, *activation: nn.Module, norm: bool = True) -> nn.Sequential:
    conv = kind(n_in, n_out, 4, 2, 1, bias=not norm)
    return nn.Sequential(conv, *([nn.InstanceNorm2d(n_out, affine=True)] if norm else []), *activation)
