"""Doubling, halving and blurring of images with a binomial filter, [1, 3, 3, 1] in each direction."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d


class _Filter(nn.Module):
    """One depthwise convolution, with zeros beyond the border; its precision is that of its input, even under
    autocast."""

    kernel: Tensor  # [1, 1, 4, 4]

    def __init__(self, stride: int, padding: int, gain: float = 1.0, up: bool = False) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", gain * torch.outer(taps, taps)[None, None], persistent=False)
        self.stride, self.padding, self.up = stride, padding, up

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():  # torch 2.14 compiles second derivatives of the function below wrongly
            return _convolution(x, self.kernel, self.stride, self.padding, self.up)
        return _Convolution.apply(x, self.kernel, self.stride, self.padding, self.up)


class FIRUp(_Filter):
    """x [N, C, H, W] -> [N, C, 2H, 2W]: zeros are inserted beside each pixel, and the filter, times 4, applied."""

    def __init__(self) -> None:
        super().__init__(stride=2, padding=1, gain=4.0, up=True)


class FIRDown(_Filter):
    """x [N, C, H, W] -> [N, C, H/2, W/2]: the filter is applied, and every second pixel kept; H and W are even."""

    def __init__(self) -> None:
        super().__init__(stride=2, padding=1)


class FIRBlur(_Filter):
    """x [N, C, H, W] -> [N, C, H + 2 padding - 3, W + 2 padding - 3]: the filter, times a gain.

    Args:
        padding: zeros on each side.
        gain: factor.
    """

    def __init__(self, padding: int, gain: float = 1.0) -> None:
        super().__init__(stride=1, padding=padding, gain=gain)


def _convolution(x: Tensor, kernel: Tensor, stride: int, padding: int, up: bool) -> Tensor:
    n, convolve = x.shape[1], conv_transpose2d if up else conv2d
    with torch.autocast(x.device.type, enabled=False):
        return convolve(x, kernel.to(x.dtype).expand(n, -1, -1, -1), None, stride, padding, groups=n)


class _Convolution(torch.autograd.Function):
    """A depthwise convolution with a constant, symmetric kernel, whose derivative is the transposed one, and so on.

    torch's second derivative of a depthwise convolution also computes that of the kernel, in a loop over the channels,
    which takes up to three times as long as all else.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, kernel: Tensor, stride: int, padding: int, up: bool) -> Tensor:
        return _convolution(x, kernel, stride, padding, up)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        _, kernel, ctx.stride, ctx.padding, ctx.up = inputs
        ctx.save_for_backward(kernel)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (kernel,) = ctx.saved_tensors
        return _Convolution.apply(gradients[0], kernel, ctx.stride, ctx.padding, not ctx.up), None, None, None, None
