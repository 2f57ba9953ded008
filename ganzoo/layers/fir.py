"""Doubling and halving of images with a binomial filter, [1, 3, 3, 1] in each direction."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d


class _Filter(nn.Module):
    kernel: Tensor  # [1, 1, 4, 4], sums to 1

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", torch.outer(taps, taps)[None, None], persistent=False)


class FIRUp(_Filter):
    """x [N, C, H, W] -> [N, C, 2H, 2W]: three zeros are inserted beside each pixel, and the filter, times 4, applied.

    One depthwise transposed convolution, with zeros beyond the border.
    """

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[1]
        return conv_transpose2d(x, 4 * self.kernel.expand(n, -1, -1, -1), stride=2, padding=1, groups=n)


class FIRDown(_Filter):
    """x [N, C, H, W] -> [N, C, H/2, W/2]: the filter is applied, and every second pixel kept; H and W are even.

    One depthwise convolution, with zeros beyond the border.
    """

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[1]
        return conv2d(x, self.kernel.expand(n, -1, -1, -1), stride=2, padding=1, groups=n)
