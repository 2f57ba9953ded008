"""Layers with an equalised learning rate (Karras et al. 2018, arXiv:1710.10196, section 4.1), and their activation."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, leaky_relu, linear

from ganzoo.layers.base import is_half, not_half

SLOPE, GAIN = 0.2, 2**0.5  # of the activation; the gain keeps its mean square about 1
LARGEST = 256.0  # activation in half precision, before the layer's own gain


class EqualisedLinear(nn.Module):
    """x [N, a] -> [N, b], in float32 even under autocast, and with weights in half precision.

    Weights are stored with standard deviation 1 / `rate`, and multiplied by rate / sqrt(a) at each use, so that Adam's
    steps, of equal size in all layers, change the outputs of all layers alike.

    Args:
        a: inputs.
        b: outputs.
        bias: its initial value.
        rate: factor of the layer's learning rate.
        active: followed by `leaky`.
    """

    def __init__(self, a: int, b: int, bias: float = 0.0, rate: float = 1.0, active: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(b, a) / rate)
        self.bias = nn.Parameter(torch.full((b,), bias / rate))
        self.active, gain = active, GAIN if active else 1.0
        self.scale, self.rate = gain * rate * a**-0.5, gain * rate

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            x = linear(not_half(x), not_half(self.weight) * self.scale, not_half(self.bias) * self.rate)
            return leaky(x) if self.active else x


class EqualisedConv2d(nn.Module):
    """x [N, a, H, W] -> [N, b, ...], with weights stored and scaled as in `EqualisedLinear`.

    Args:
        a: inputs.
        b: outputs.
        kernel: its side, or height and width.
        stride: of the output.
        padding: zeros around the input, or above and beside it.
        active: followed by `leaky`.
        gain: factor of the output.
        bias: factor of the bias; None: `gain`, and there is a bias only if `active`.
    """

    def __init__(
        self,
        a: int,
        b: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
        active: bool = True,
        gain: float = 1.0,
        bias: float | None = None,
    ) -> None:
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        self.weight = nn.Parameter(torch.randn(b, a, height, width))
        self.bias = nn.Parameter(torch.zeros(b)) if active or bias is not None else None
        self.active, self.gain = active, gain * (GAIN if active else 1.0)
        self.scale = self.gain * prod(self.weight.shape[1:]) ** -0.5
        self.bias_scale = self.gain if bias is None else bias
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias * self.bias_scale
        x = conv2d(x, self.weight * self.scale, bias, self.stride, self.padding)
        return leaky(x, self.gain) if self.active else x


def leaky(x: Tensor, gain: float = GAIN) -> Tensor:
    """The activation, a leaky ReLU times a gain, for an x that contains the gain: leaky(g x) = g leaky(x), so the
    layer before it has it in its weights. In half precision it is at most 256 g / sqrt 2, since the authors' limit does
    not contain the activation's sqrt 2. It overwrites x, so autograd keeps one tensor instead of two.
    """
    x = leaky_relu(x, SLOPE, inplace=True)
    limit = LARGEST * gain / GAIN
    return x.clamp(-limit, limit) if is_half(x) else x
