"""Signal processing for equivariant networks, and measures of equivariance to translations.

Karras et al. 2021 (arXiv:2106.12423). Images are samples [N, C, H, W] of signals in the plane; the unit of
length is a pixel, so frequencies are in cycles per pixel, and the Nyquist frequency is 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np
import torch
from scipy.signal import firwin, kaiser_atten, kaiser_beta
from scipy.signal.windows import kaiser
from scipy.special import j1
from torch import Tensor
from torch.nn.functional import conv2d, leaky_relu, pad

Padding = Literal["circular", "constant"]  # periodic, or zeros


def low_pass(cutoff: float, half_width: float, taps: int, rate: float = 1.0) -> Tensor:
    """A Kaiser-windowed sinc (section 3.2 and appendix C), float64 [taps], symmetric, of sum 1.

    The response is 1/2 at `cutoff`; the transition band extends `half_width` to either side.

    Args:
        cutoff: cycles per pixel, below rate / 2.
        half_width: half the width of the transition band, in cycles per pixel; more taps attenuate more beyond it.
        taps: filter length in samples.
        rate: sampling rate of the filtered signal, in samples per pixel.
    """
    return torch.from_numpy(firwin(taps, cutoff, width=2 * half_width, fs=rate))


def radial_low_pass(cutoff: float, half_width: float, taps: int, rate: float = 1.0) -> Tensor:
    """A jinc in a Kaiser window, float64 [taps, taps], of sum 1: the low-pass filter whose response depends on no
    direction (section 3.2 and appendix C). The window is that of `low_pass`, along both axes.

    Args:
        cutoff, half_width, taps, rate: as of `low_pass`; an even number of taps.
    """
    at = (np.arange(taps) - (taps - 1) / 2) / rate
    r = np.hypot(at, at[:, None])  # above 0
    window = kaiser(taps, kaiser_beta(kaiser_atten(taps, 2 * half_width / (rate / 2))))
    kernel = j1(2 * math.pi * cutoff * r) / r * np.outer(window, window)
    return torch.from_numpy(kernel / kernel.sum())


def resample(
    x: Tensor, kernel: Tensor, up: int = 1, down: int = 1, ahead: int | None = None, padding: Padding = "circular"
) -> Tensor:
    """Inserts `up` - 1 zeros after each sample, filters both axes, keeps every `down`-th: [N, C, H up/down, W up/down].

    Args:
        x: [N, C, H, W].
        kernel: [taps], symmetric, of sum 1; scaled by `up` to compensate for the zeros.
        up, down: whole numbers.
        ahead: samples that the filter looks ahead; None centres it. A filter of even length has no central tap and
            shifts the image by half a sample to the right and down, which the next filter can undo.
        padding: at the borders.
    """
    n, c, h, w = x.shape
    if up > 1:
        spread = x.new_zeros(n, c, h, up, w, up)
        spread[:, :, :, 0, :, 0] = x
        x = spread.view(n, c, h * up, w * up)
    taps = len(kernel)
    ahead = (taps - 1) // 2 if ahead is None else ahead
    x = pad(x, (taps - 1 - ahead, ahead) * 2, mode=padding)
    weight = (kernel.to(x) * up).expand(c, 1, 1, taps)
    x = conv2d(x, weight, stride=(1, down), groups=c)
    return conv2d(x, weight.mT, stride=(down, 1), groups=c)


def filtered_leaky_relu(
    x: Tensor,
    up_filter: Tensor,
    down_filter: Tensor,
    up: int = 2,
    down: int = 2,
    slope: float = 0.2,
    gain: float = math.sqrt(2),
    padding: Padding = "circular",
) -> Tensor:
    """Leaky ReLU of the continuous signal: upsamples, applies it, and removes the new high frequencies.

    Args:
        x: [N, C, H, W].
        up_filter, down_filter: [taps], applied at the higher rate; both of even or both of odd length, or the image
            would be shifted.
        up, down: upsampling and downsampling factors.
        slope: of negative values.
        gain: preserves the variance.
        padding: beyond the borders.
    """
    delay = len(up_filter) + len(down_filter) - 2
    if delay % 2:
        taps = f"{len(up_filter)} and {len(down_filter)} taps"
        raise ValueError(f"filters of {taps} shift the image by half a sample; use two even or two odd lengths")
    ahead = (len(up_filter) - 1) // 2
    x = gain * leaky_relu(resample(x, up_filter, up, ahead=ahead, padding=padding), slope)
    return resample(x, down_filter, down=down, ahead=delay // 2 - ahead, padding=padding)


def translate(x: Tensor, dx: float, dy: float) -> Tensor:
    """Shifts the periodic signal x [N, C, H, W] by dx pixels to the right and dy down; for whole pixels equal to
    `torch.roll`.

    Exact for signals below the Nyquist frequency.
    """
    h, w = x.shape[-2:]
    fy, fx = (torch.fft.fftfreq(n, dtype=x.dtype, device=x.device) for n in (h, w))
    turns = fy[:, None] * dy + fx * dx
    return torch.fft.ifft2(torch.fft.fft2(x) * torch.polar(torch.ones_like(turns), -2 * math.pi * turns)).real


def equivariance_db(
    f: Callable[[Tensor], Tensor], x: Tensor, shifts: Iterable[tuple[float, float]], span: float = 2.0
) -> float:
    """EQ-T (eq. 3) in dB: 10 log10 span^2 / mean (f(t[x]) - t[f(x)])^2 over images, pixels, channels and shifts.

    Infinite if all are bit-identical. The paper uses whole-pixel shifts of the output and excludes pixels shifted in at
    the borders; periodic images have no borders.

    Args:
        f: images [N, C, H, W] -> images [N, C', H', W'], whose shifts are scaled by H' / H and W' / W.
        x: [N, C, H, W], periodic.
        shifts: (dx, dy) in pixels of x.
        span: range of f's values; 2 for [-1, 1].
    """
    y = f(x)
    scale = [after / before for after, before in zip(y.shape[-2:], x.shape[-2:], strict=True)]
    errors = [
        (f(translate(x, dx, dy)) - translate(y, dx * scale[1], dy * scale[0])).double().square().mean()
        for dx, dy in shifts
    ]
    return 10 * torch.log10(span**2 / torch.stack(errors).mean()).item()


def translation_db(
    images: Callable[[Tensor], Tensor], shifts: Iterable[tuple[float, float]], span: float = 2.0
) -> float:
    """EQ-T (eq. 3) in dB of a generator whose input can be moved, over the pixels whose origin is inside the image.

    The paper's EQ-T has whole numbers of pixels, its EQ-T_frac others (appendix E), by Lanczos interpolation of the
    still image; each up to an eighth of the image to all sides.

    Args:
        images: transform [3, 3] of the points, in units of the image's side -> images [N, C, H, W]:
            `generator.synthesis.input.transform` of StyleGAN3.
        shifts: (dx, dy), pixels to the right and down.
        span: range of the images; 2 for [-1, 1].
    """
    still, errors = images(torch.eye(3)), []
    height, width = still.shape[2:]
    for dx, dy in shifts:
        there = images(torch.tensor([[1.0, 0.0, -dx / width], [0.0, 1.0, -dy / height], [0.0, 0.0, 1.0]]))
        expected = _interpolated(_interpolated(still, dx), dy, vertical=True)
        y, x = ((a - b) // 2 for a, b in zip(there.shape[2:], expected.shape[2:], strict=True))
        errors.append((there[..., y : height - y, x : width - x] - expected).double().square().mean())
    return 10 * torch.log10(span**2 / torch.stack(errors).mean()).item()


def _interpolated(x: Tensor, shift: float, vertical: bool = False) -> Tensor:
    """x moved along one axis, without the borders that lack samples: Lanczos' filter of 3 lobes, of sum 1."""
    reach = math.ceil(abs(shift)) + 3
    at = -shift - torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device)
    taps = at.sinc() * (at / 3).sinc() * (at.abs() < 3)
    kernel = (taps / taps.sum()).expand(x.shape[1], 1, 1, -1)
    return conv2d(x, kernel.mT if vertical else kernel, groups=x.shape[1])
