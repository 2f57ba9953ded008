"""The networks of Denton et al. 2015 (arXiv:1506.05751, section 4.1): one pair per level of the pyramid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ganzoo.core.limits import Size, area
from ganzoo.functional.pyramid import expand


class ResidualGenerator(nn.Module):
    """z [N, 1, H, W], low-pass l [N, C, H, W] -> residual h [N, C, H, W]: 7x7, 7x7 and 5x5 convolutions.

    z is an additional channel of l.

    Args:
        channels: of the image.
        width: feature maps of each hidden layer.
    """

    def __init__(self, channels: int = 3, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels + 1, width, 7, padding=3),
            nn.ReLU(),
            nn.Conv2d(width, width, 7, padding=3),
            nn.ReLU(),
            nn.Conv2d(width, channels, 5, padding=2),
        )
        self.to(memory_format=torch.channels_last)  # a third faster on a CPU

    def forward(self, z: Tensor, low: Tensor) -> Tensor:
        return self.layers(torch.cat([low, z], 1))


class ResidualDiscriminator(nn.Module):
    """h + l [N, C, H, W] -> logits [N]: two 5x5 convolutions, dropout, a linear layer.

    The paper's first layer adds the residual h and the low-pass l; here `LAPGAN` adds them. Unlike in the authors'
    code, convolutions are padded, which small images need.

    Args:
        image_size: pixels, or [height, width]; even.
        channels: of the image.
        width: feature maps of both convolutions; the second has stride 2.
    """

    def __init__(self, image_size: Size = 32, channels: int = 3, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(width, width, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(width * (area(image_size) // 4), 1),
        )
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.layers(x).squeeze(1)


class Cascade(nn.ModuleList):
    """Generators G_0, ..., G_K, finest first: G_K generates the coarsest image, each finer one doubles its size.

    [z_0, ..., z_K] -> I_0 [N, C, H, W]: I_K = G_K(z_K), then I_k = l_k + G_k(z_k, l_k) with l_k = u(I_{k+1}) down to
    k = 0. The result may exceed [-1, 1].
    """

    def forward(self, z: Sequence[Tensor], y: Tensor | None = None) -> Tensor:
        image = self[-1](z[-1])
        for k in reversed(range(len(self) - 1)):
            low = expand(image)
            image = low + self[k](z[k], low)
        return image
