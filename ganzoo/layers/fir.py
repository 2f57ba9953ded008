"""Doubling, halving and blurring of images with a binomial filter, [1, 3, 3, 1] in each direction."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d


class _Filter(nn.Module):
    """One depthwise convolution, with zeros beyond the border; its precision is that of its input, even under
    autocast."""

    kernel: Tensor  # [1, 1, 4, 4]

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", gain * torch.outer(taps, taps)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[1]
        with torch.autocast(x.device.type, enabled=False):
            return self.convolve(x, self.kernel.to(x.dtype).expand(n, -1, -1, -1), n)

    def convolve(self, x: Tensor, kernel: Tensor, groups: int) -> Tensor:
        raise NotImplementedError


class FIRUp(_Filter):
    """x [N, C, H, W] -> [N, C, 2H, 2W]: zeros are inserted beside each pixel, and the filter, times 4, applied."""

    def __init__(self) -> None:
        super().__init__(gain=4.0)

    def convolve(self, x: Tensor, kernel: Tensor, groups: int) -> Tensor:
        return conv_transpose2d(x, kernel, stride=2, padding=1, groups=groups)


class FIRDown(_Filter):
    """x [N, C, H, W] -> [N, C, H/2, W/2]: the filter is applied, and every second pixel kept; H and W are even."""

    def convolve(self, x: Tensor, kernel: Tensor, groups: int) -> Tensor:
        return conv2d(x, kernel, stride=2, padding=1, groups=groups)


class FIRBlur(_Filter):
    """x [N, C, H, W] -> [N, C, H + 2 padding - 3, W + 2 padding - 3]: the filter, times a gain.

    Args:
        padding: zeros on each side.
        gain: factor.
    """

    def __init__(self, padding: int, gain: float = 1.0) -> None:
        super().__init__(gain)
        self.padding = padding

    def convolve(self, x: Tensor, kernel: Tensor, groups: int) -> Tensor:
        return conv2d(x, kernel, padding=self.padding, groups=groups)
