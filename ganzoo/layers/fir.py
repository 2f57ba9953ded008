"""Resampling with the filter of Karras et al. 2020 (StyleGAN2, arXiv:1912.04958), [1, 3, 3, 1] in both directions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d


class FIR(nn.Module):
    """Blurs images [N, C, H, W], and doubles or halves their size, without aliasing.

    Doubling inserts zeros between pixels before the filter, and halving drops every other pixel after it; both are a
    single depthwise convolution of stride 2. The precision is that of the images, even under autocast.

    Args:
        up: double the size.
        down: halve the size.
        padding: zeros around the image, with neither `up` nor `down`: the size grows by 2 `padding` - 3.
        gain: factor; doubling multiplies by 4, too, for the zeros.
    """

    kernel: Tensor

    def __init__(self, up: bool = False, down: bool = False, padding: int = 0, gain: float = 1.0) -> None:
        super().__init__()
        self.up, self.down, self.padding = up, down, padding
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        kernel = (4 if up else 1) * gain * taps[:, None] * taps
        self.register_buffer("kernel", kernel[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[1]
        kernel = self.kernel.to(x.dtype).expand(n, 1, 4, 4)
        with torch.autocast(x.device.type, enabled=False):
            if self.up:
                return conv_transpose2d(x, kernel, stride=2, padding=1, groups=n)
            if self.down:
                return conv2d(x, kernel, stride=2, padding=1, groups=n)
            return conv2d(x, kernel, padding=self.padding, groups=n)
