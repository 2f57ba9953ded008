"""Convolutions whose weights depend on the image (Karras et al. 2020, StyleGAN2, arXiv:1912.04958, section 2.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d

from ganzoo.layers.base import is_half

EPS = 1e-8


class ModulatedConv2d(nn.Module):
    """x [N, a, H, W], style [N, a] -> [N, b, ...]: `modulated_conv2d`.

    Args:
        a: inputs.
        b: outputs.
        kernel: its side.
        up: as in `modulated_conv2d`.
        gain: likewise.
    """

    def __init__(self, a: int, b: int, kernel: int, up: bool = False, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(b, a, kernel, kernel))
        self.up, self.gain = up, gain

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        return modulated_conv2d(x, self.weight, style, self.up, self.gain)


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    style: Tensor,
    up: bool = False,
    gain: float | Tensor = 1.0,
    padding: int | None = None,
) -> Tensor:
    """Convolves each image with weights of its own.

    Image n has the weights s_ni w_oikl (eq. 1), divided by their norm over i, k and l (eq. 3): the outputs keep the
    mean square of the inputs. Both factors move to the images, since a convolution is linear: the inputs are multiplied
    by s_ni, convolved with w for all images at once, and multiplied by d_no = (sum_i s_ni^2 sum_kl w_oikl^2)^(-1/2).
    So no weights are ever computed for each image.

    Args:
        x: [N, I, H, W].
        weight: [O, I, k, k], w.
        style: [N, I], s.
        up: insert zeros between the pixels before the convolution: the result is [N, O, 2H + k - 2, 2W + k - 2].
        gain: factor of the output.
        padding: zeros around the input, unless `up`; None: as many as keep its size.
    """
    if is_half(x) or torch.is_autocast_enabled(x.device.type):  # sums could overflow; d restores the scale
        weight = weight / (weight[0].numel() ** 0.5 * weight.flatten(1).abs().amax(1)[:, None, None, None])
        style = style / style.abs().amax(1, keepdim=True)
    with torch.autocast(x.device.type, enabled=False):
        norms = gain * (style.square() @ weight.square().sum((2, 3)).T.to(style.dtype) + EPS).rsqrt()
    x = x * style.to(x.dtype)[:, :, None, None]
    if up:
        x = conv_transpose2d(x, weight.transpose(0, 1), stride=2)
    else:
        x = conv2d(x, weight, padding=weight.shape[2] // 2 if padding is None else padding)
    return x * norms.to(x.dtype)[:, :, None, None]
