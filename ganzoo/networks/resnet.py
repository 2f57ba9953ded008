"""The residual translator of Johnson et al. 2016, as used by Zhu et al. 2017 (arXiv:1703.10593, appendix)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ganzoo.core.limits import Size
from ganzoo.layers.init import normal_
from ganzoo.networks.base import halvings, shape


class ResNetTranslator(nn.Module):
    """x [N, C', H, W] -> c7s1-w, d2w, d4w, k residual blocks, u2w, uw, c7s1-C -> images [N, C, H, W] in [-1, 1].

    Layers are in the paper's notation. Instance norm, reflection padding. H and W are multiples of 4.

    Args:
        image_size: pixels, or [height, width]; the shorter side determines the default of `blocks`.
        channels: of the image.
        source_channels: of x.
        width: feature maps at full resolution; 64 in the paper.
        blocks: number k of residual blocks; None: 9 as in the paper, 6 below 256 pixels.

    Raises:
        ValueError: image_size is no multiple of 4, or below 8.
    """

    def __init__(
        self,
        image_size: Size = 256,
        channels: int = 3,
        source_channels: int = 3,
        width: int = 64,
        blocks: int | None = None,
    ) -> None:
        super().__init__()
        what = "two halvings and reflection padding need 8, 12, 16, 20, ..."
        side = min(shape(image_size, lambda h, w: halvings(h, w) >= 2 and min(h, w) >= 8, what))
        if blocks is None:
            blocks = 9 if side >= 256 else 6
        layers = [nn.ReflectionPad2d(3), *_norm_relu(nn.Conv2d(source_channels, width, 7, bias=False), width)]
        for n in (width, 2 * width):
            layers += _norm_relu(nn.Conv2d(n, 2 * n, 3, stride=2, padding=1, bias=False), 2 * n)
        layers += [ResidualBlock(4 * width) for _ in range(blocks)]
        for n in (4 * width, 2 * width):
            up = nn.ConvTranspose2d(n, n // 2, 3, stride=2, padding=1, output_padding=1, bias=False)
            layers += _norm_relu(up, n // 2)
        self.layers = nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, channels, 7), nn.Tanh())
        normal_(self, 0.02)
        self.to(memory_format=torch.channels_last)  # a sixth faster on a CPU

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class ResidualBlock(nn.Module):
    """x [N, n, H, W] plus the output of two 3x3 convolutions; no ReLU after the second."""

    def __init__(self, n: int) -> None:
        super().__init__()
        convs = [nn.Conv2d(n, n, 3, padding=1, padding_mode="reflect", bias=False) for _ in range(2)]
        self.layers = nn.Sequential(*_norm_relu(convs[0], n), convs[1], nn.InstanceNorm2d(n, affine=True))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def _norm_relu(conv: nn.Module, n: int) -> list[nn.Module]:
    return [conv, nn.InstanceNorm2d(n, affine=True), nn.ReLU()]
