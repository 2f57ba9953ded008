"""The PatchGAN of Isola et al. 2016 (arXiv:1611.07004, section 3.2.2 and appendix)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ganzoo.core.limits import Size, sides
from ganzoo.layers.init import normal_


class PatchDiscriminator(nn.Module):
    """x [N, C, H, W] in [-1, 1] -> logits [N, h, w], one per patch of x.

    4x4 convolutions, all but the last two with stride 2; 1x1 convolutions for a receptive field of one pixel
    ("PixelGAN"). Instance norm after each hidden layer but the first. Layers without norm have biases,
    as in the authors' PyTorch code; their Lua code resets these to 0.

    Args:
        image_size: pixels, or [height, width]; the shorter side limits the receptive field.
        channels: of x.
        source_channels: of the source y [N, C', H, W], concatenated with x; None without.
        width: feature maps of the first layer, doubled in each further layer, up to 8 times.
        receptive_field: side of a patch in pixels: 1, 7, 16, 34, 70, 142, 286, ... It may exceed the zero-padded
            image, as the paper's 286 on 256 pixels; None: 70, or the largest that does not exceed the image.

    Raises:
        ValueError: no such receptive field, or the image is too small for it.
    """

    def __init__(
        self,
        image_size: Size = 256,
        channels: int = 3,
        source_channels: int | None = None,
        width: int = 64,
        receptive_field: int | None = None,
    ) -> None:
        super().__init__()
        self.source_channels = source_channels
        n_in, side = channels + (source_channels or 0), min(sides(image_size))
        if receptive_field is None:
            receptive_field = max((r for r in (7, 16, 34, 70) if r <= side), default=1)
        if receptive_field == 1:
            layers = [*_block(n_in, width, 1, norm=False), *_block(width, 2 * width, 1)]
            last = nn.Conv2d(2 * width, 1, 1)
        else:
            halvings = _halvings(side, receptive_field)
            layers = []
            for i in range(halvings + 1):
                n_out = width * min(2**i, 8)
                layers += _block(n_in, n_out, 4, stride=2 if i < halvings else 1, norm=i > 0)
                n_in = n_out
            last = nn.Conv2d(n_in, 1, 4, padding=1)
        self.layers = nn.Sequential(*layers, last)
        normal_(self, 0.02)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        if self.source_channels is not None:
            assert y is not None
            x = torch.cat([y, x], 1)
        return self.layers(x).squeeze(1)


def _halvings(side: int, receptive_field: int) -> int:
    """Number of strided layers. The last two layers have a receptive field of 7; a strided layer before them maps r to
    2 r + 2."""
    seen = [7]
    while seen[-1] < receptive_field:
        seen.append(2 * seen[-1] + 2)
    if seen[-1] != receptive_field:
        raise ValueError(f"receptive_field {receptive_field}: a PatchGAN can have 1, 7, 16, 34, 70, 142, 286")
    if side // 2 ** (len(seen) - 1) < 3:
        largest = max((r for i, r in enumerate(seen) if side // 2**i >= 3), default=1)
        raise ValueError(f"receptive_field {receptive_field} is too large for {side} pixels; use {largest} or less")
    return len(seen) - 1


def _block(n_in: int, n_out: int, kernel: int, stride: int = 1, norm: bool = True) -> list[nn.Module]:
    conv = nn.Conv2d(n_in, n_out, kernel, stride, padding=kernel // 4, bias=not norm)
    return [conv, *([nn.InstanceNorm2d(n_out, affine=True)] if norm else []), nn.LeakyReLU(0.2, inplace=True)]
