"""The residual block of R3GAN: ResNeXt's, with an inverted bottleneck, and no norm."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import leaky_relu

SLOPE = 0.2
EXPANSION = 2


class ResNeXtBlock(nn.Module):
    """x [N, C, H, W] -> x + conv1x1(f(conv3x3(f(conv1x1(x))))), f a leaky ReLU of slope 0.2.

    There are 2 C feature maps within, and the 3x3 convolution is grouped (Huang et al. 2025, arXiv:2501.05441, figure
    4). The last convolution has no bias, and no activation follows the sum.

    Args:
        width: C.
        group_size: feature maps of a group; None: all of them.
    """

    def __init__(self, width: int, group_size: int | None = 16) -> None:
        super().__init__()
        inner = EXPANSION * width
        self.conv1 = nn.Conv2d(width, inner, 1)
        self.conv2 = nn.Conv2d(inner, inner, 3, padding=1, groups=inner // (group_size or inner))
        self.conv3 = nn.Conv2d(inner, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = leaky_relu(self.conv1(x), SLOPE, inplace=True)  # autograd keeps one tensor, not two
        return x + self.conv3(leaky_relu(self.conv2(h), SLOPE, inplace=True))
