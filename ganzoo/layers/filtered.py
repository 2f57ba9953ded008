"""The filtered nonlinearity of alias-free networks (Karras et al. 2021, arXiv:2106.12423, section 3.2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, leaky_relu, pad

SLOPE = 0.2


class FilteredLeaky(nn.Module):
    """x [N, C, size, size] -> [N, C, out, out]: a leaky ReLU of the continuous signal, in the precision of x.

    x is sampled `up` times as densely and filtered; the nonlinearity adds frequencies, which the second filter removes
    before every `down`-th sample is kept. Of the first filter's output, around the centre, as much is computed as
    the second one reads; zeros are beyond the borders of x.

    The filters are constant, so for the derivatives it suffices to know where the finer signal is positive, one byte
    for each of its samples. They are the same operation with the filters exchanged, see `_Masked`.

    Args:
        first: [k], of sum 1, symmetric: filters both axes after the insertion of zeros.
        second: [m], likewise, or [m, m]: before the samples are dropped.
        up, down: factors of the sampling rate.
        size: of the input.
        out: of the output.
    """

    first: Tensor
    second: Tensor

    def __init__(self, first: Tensor, second: Tensor, up: int, down: int, size: int, out: int) -> None:
        super().__init__()
        self.register_buffer("first", (up * first).float(), persistent=False)
        self.register_buffer("second", second.float(), persistent=False)
        self.up, self.down = up, down
        needed = (out - 1) * down + len(second)
        cut = ((size - 1) * up + len(first) - needed) // 2  # of the filtered samples, at each border
        self.unread = max(0, (cut - len(first)) // up + 1)  # pixels at each border on which no needed sample depends
        self.cut = cut - self.unread * up

    def forward(self, x: Tensor) -> Tensor:
        if self.unread:
            x = pad(x, [-self.unread] * 4)
        how = self.first, self.second, self.up, self.down, self.cut
        if torch.compiler.is_compiling():  # see layers/fir.py
            return _less(leaky_relu(_more(x, *how), SLOPE), *how)
        return _Filtered.apply(x, *how)[0]


def _more(x: Tensor, first: Tensor, second: Tensor, up: int, down: int, cut: int) -> Tensor:
    return _convolve(x, first, up, cut, transposed=True)


def _less(x: Tensor, first: Tensor, second: Tensor, up: int, down: int, cut: int) -> Tensor:
    return _convolve(x, second, down, 0, transposed=False)


def _convolve(x: Tensor, taps: Tensor, stride: int, cut: int, transposed: bool) -> Tensor:
    """A depthwise convolution with a stride, or the transposed one, along both axes in turn if taps are [k]."""
    n, convolve = x.shape[1], conv_transpose2d if transposed else conv2d
    taps = taps.to(x.dtype).expand(n, 1, *taps.shape)
    with torch.autocast(x.device.type, enabled=False):
        if taps.ndim == 4:
            return convolve(x, taps, None, stride, cut, groups=n)
        x = convolve(x, taps[..., None], None, (stride, 1), (cut, 0), groups=n)
        return convolve(x, taps[..., None, :], None, (1, stride), (0, cut), groups=n)


class _Filtered(torch.autograd.Function):
    """The output, and where the finer signal is positive."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, first: Tensor, second: Tensor, up: int, down: int, cut: int) -> tuple[Tensor, Tensor]:
        how = first, second, up, down, cut
        fine = _more(x, *how)
        return _less(leaky_relu(fine, SLOPE), *how), fine > 0

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, first, second, *ctx.rates = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1], first, second)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        positive, first, second = ctx.saved_tensors
        return _Masked.apply(gradients[0], positive, first, second, *ctx.rates, True), *[None] * 5


class _Masked(torch.autograd.Function):
    """The linear map that `_Filtered` is for inputs of the same signs, or the transposed one: each is the other's
    derivative.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, positive: Tensor, first: Tensor, second: Tensor, up: int, down: int, cut: int, transposed: bool
    ) -> Tensor:
        fine = _convolve(x, second, down, 0, True) if transposed else _convolve(x, first, up, cut, True)
        fine = torch.where(positive, fine, SLOPE * fine)
        return _convolve(fine, first, up, cut, False) if transposed else _convolve(fine, second, down, 0, False)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        _, *tensors, up, down, cut, ctx.transposed = inputs
        ctx.rates = up, down, cut
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return _Masked.apply(gradients[0], *ctx.saved_tensors, *ctx.rates, not ctx.transposed), *[None] * 7
