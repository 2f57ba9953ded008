"""Skip-layer excitation (Liu et al. 2021, arXiv:2101.04775, section 3.1)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from ganzoo.layers.base import Conv2d


class SkipExcitation(nn.Module):
    """y [N, n_out, H, W] -> y s, with a gate s [N, n_out, 1, 1] in (0, 1) of other feature maps x [N, n_in, h, w].

    x is averaged to 4x4 and convolved without padding; then swish, a 1x1 convolution and a sigmoid. No biases.

    Args:
        n_in: feature maps of x.
        n_out: of y.
        conv: makes the convolutions: `Conv2d`, or `SpectralConv2d`.
    """

    def __init__(self, n_in: int, n_out: int, conv: Callable[..., nn.Module] = Conv2d) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(4),
            conv(n_in, n_out, 4, bias=False),
            nn.SiLU(),
            conv(n_out, n_out, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return y * self.gate(x)
