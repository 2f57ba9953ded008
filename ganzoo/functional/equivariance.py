"""Signal processing for equivariant networks, and measures of equivariance to translations and rotations.

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
from torch.nn.functional import conv2d, conv_transpose2d, grid_sample, pad

from ganzoo.functional.base import float64

Padding = Literal["circular", "constant"]  # periodic, or zeros
LOBES = 3  # of Lanczos' filter, to either side
FINE = 4  # samples per pixel and axis, between which rotated images are interpolated
REACH = 2 * LOBES  # of the filter of a rotation to all sides, in pixels
SMALLEST = 16  # side of an image in pixels, so that valid pixels remain at any angle


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


Images = Callable[[Tensor], Tensor]  # of a transform [3, 3] of the points: `generator.synthesis.input.transform`


def translation_db(images: Images, shifts: Iterable[tuple[float, float]], span: float = 2.0) -> float:
    """EQ-T (eq. 3) in dB of a generator whose input can be moved; EQ-T_frac (appendix E) for fractions of pixels.

    Args:
        images: transform [3, 3] of the points, in units of the image's side -> images [N, C, H, W], as in StyleGAN3.
        shifts: (dx, dy), pixels to the right and down; the paper's are up to an eighth of the image to all sides.
        span: range of the images; 2 for [-1, 1].
    """
    still = images(torch.eye(3))
    height, width = still.shape[2:]
    squares = [translation_squares(still, images(translation(dx / width, dy / height)), dx, dy) for dx, dy in shifts]
    return decibels(torch.cat([s.flatten() for s in squares]).mean().item(), span)


def rotation_db(images: Images, angles: Iterable[float], span: float = 2.0) -> float:
    """EQ-R (appendix E) in dB of a generator whose input can be rotated.

    Args:
        images: as for `translation_db`; squares of 16 pixels or more.
        angles: in radians, clockwise; the paper's are uniform over the circle.
        span: range of the images; 2 for [-1, 1].
    """
    still = images(torch.eye(3))
    squares = [rotation_squares(still, images(rotation(angle)), angle) for angle in angles]
    return decibels(torch.cat([s.flatten() for s in squares]).mean().item(), span)


def decibels(error: float, span: float = 2.0) -> float:
    """Peak signal-to-noise ratio in dB of a mean square error, 10 log10(span^2 / error); infinite for 0.

    Args:
        error: mean square error.
        span: range of the values; 2 for [-1, 1].
    """
    return math.inf if error == 0 else 10 * math.log10(span**2 / error)


def translation(dx: float, dy: float) -> Tensor:
    """The transform [3, 3] of the points that moves images by dx to the right and dy down, in units of their side."""
    return torch.tensor([[1.0, 0.0, -dx], [0.0, 1.0, -dy], [0.0, 0.0, 1.0]])


def rotation(angle: float) -> Tensor:
    """The transform [3, 3] of the points that rotates images clockwise by `angle` radians, as `rotated` does."""
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])


def translation_squares(still: Tensor, moved: Tensor, dx: float, dy: float) -> Tensor:
    """Square differences [N, K] between moved images and the moved still ones, float64, of all channels, at the pixels
    whose origin is inside the still image; for fractions of a pixel, all samples that Lanczos' filter reads must also
    be inside it.

    Args:
        still, moved: [N, C, H, W].
        dx, dy: pixels to the right and down.
    """
    expected, columns = _interpolated(still, dx)
    expected, rows = _interpolated(expected.mT, dy)
    return float64(moved[..., rows, columns] - expected.mT).square().flatten(1)


def rotation_squares(still: Tensor, turned: Tensor, angle: float) -> Tensor:
    """Square differences [N, K] between rotated images and the rotated still ones, float64, of all channels
    at the pixels for which the filters below read hardly anything beyond the images' borders.

    A rotated image can have frequencies in the corners of its square spectrum that the still one cannot represent, and
    conversely. Both are therefore filtered: the still one in its rotation, see `rotated`, the other by the kernel of
    the opposite rotation (pseudo-rotation, appendix E). As in the authors' code, the latter is sampled once per pixel
    only, so it does not remove all of these frequencies: those near the Nyquist frequency lower the score.

    Args:
        still, turned: [N, C, H, H], of 16 pixels or more.
        angle: in radians.

    Raises:
        ValueError: the images are no squares, or smaller.
    """
    n, side, width = still.shape[1:]
    if side != width or side < SMALLEST:
        raise ValueError(f"rotations need squares of {SMALLEST} pixels or more, but these images are {side}x{width}")
    kernel = rotation_kernel(-angle).to(turned).expand(n, 1, -1, -1)
    at = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    inside = at.abs() <= at[-1] - REACH + 1
    origins = torch.stack(_origins(at, angle)).abs().amax(0) <= at[-1] - REACH + 0.5
    difference = rotated(still, angle) - conv2d(turned, kernel, padding=REACH - 1, groups=n)
    valid = origins & inside & inside[:, None]
    return float64(difference[..., valid.to(difference.device)]).square().flatten(1)


def rotated(x: Tensor, angle: float) -> Tensor:
    """x [N, C, H, H], rotated clockwise about its centre by `angle` radians; 0 beyond the border.

    As in the authors' code, `rotation_kernel` makes `FINE` samples per pixel and axis, and the rotated image is
    interpolated between them.
    """
    side, n = x.shape[-1], x.shape[1]
    kernel = rotation_kernel(angle, FINE).to(x).expand(n, 1, -1, -1)
    fine = conv_transpose2d(x, kernel, stride=FINE, groups=n)
    at = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    points = 2 * FINE / (fine.shape[-1] - 1) * torch.stack(_origins(at, angle), -1)  # 1 is the last sample's centre
    return grid_sample(fine, points.to(x).expand(len(x), -1, -1, -1), align_corners=True)


def rotation_kernel(angle: float, rate: int = 1) -> Tensor:
    """The filter of a rotation (appendix E), float64 [n, n], n = 12 rate - 1, at `rate` samples per pixel and axis.

    It is the product of two functions of the position before the rotation. One is a sinc along both axes, convolved
    with that along the axes of the rotated image, which limits frequencies to those that both sample. The other is the
    window of `_lanczos` along both axes, convolved with the rotated one. Further than `REACH` pixels it is cut off. The
    samples at whole distances from a pixel have the sum 1.
    """
    window = LOBES * rate - 1
    at = torch.arange(1 - REACH * rate - window, REACH * rate + window, dtype=torch.float64) / rate
    x, y = _origins(at, -angle)
    taps = _window(torch.arange(-window, window + 1, dtype=torch.float64) / rate)[None, None, None]
    windows = conv2d(conv2d((_window(x) * _window(y))[None, None], taps), taps.mT)[0, 0]
    inner = slice(window, len(at) - window)
    # One sample per pixel: the sinc along the image's own axes is 1 at its centre, 0 at all other samples
    ideal = _shared_band(at[inner], angle) if rate > 1 else (x.sinc() * y.sinc())[inner, inner]
    kernel = pad(ideal * windows, (0, 1, 0, 1)).view(2 * REACH, rate, 2 * REACH, rate)
    return (kernel / kernel.sum((0, 2), keepdim=True)).flatten(2).flatten(0, 1)[:-1, :-1]


def _shared_band(at: Tensor, angle: float) -> Tensor:
    """The function of space whose spectrum is 1 at the frequencies that images and rotated images represent, and 0 at
    others; at a grid with coordinates `at` on both axes.

    Both spectra are squares around a circle of radius 1/2, so these frequencies are an octagon around it. The integral
    of exp(2 pi i f p) over it is one over its edges, by the divergence theorem.
    """
    turns = [quarter + part for quarter in range(5) for part in (0.0, -2 * angle / math.pi % 1)][:9]
    normals = math.pi / 2 * torch.tensor(turns, dtype=torch.float64)
    half = normals.diff() / 2  # angle between an edge's normal and the next corner
    corners = torch.polar(0.5 / half.cos(), normals[:-1] + half)
    edges, centres = corners - corners.roll(1), (corners + corners.roll(1)) / 2
    p = torch.complex(*torch.meshgrid(at, at, indexing="xy"))[..., None]

    def along(f: Tensor) -> Tensor:
        return (p.conj() * f).real

    terms = along(torch.polar(edges.abs(), normals[:-1])) * (2 * math.pi * along(centres)).sin() * along(edges).sinc()
    distance = p[..., 0].abs()
    area = edges.abs().sum() / 4
    return torch.where(distance > 0, terms.sum(-1) / (2 * math.pi * distance**2), area)


def _origins(at: Tensor, angle: float) -> tuple[Tensor, Tensor]:
    """x and y [n, n] of the points that a rotation takes to those of a grid with coordinates `at` [n] on both axes."""
    c, s = math.cos(angle), math.sin(angle)
    return c * at + s * at[:, None], c * at[:, None] - s * at


def _interpolated(x: Tensor, shift: float) -> tuple[Tensor, slice]:
    """x moved to the right by Lanczos' filter, of sum 1: the columns for which all samples exist, and their numbers."""
    low, high = math.ceil(shift - LOBES), math.floor(shift + LOBES)
    if float(shift).is_integer():
        low = high = int(shift)
    taps = _lanczos(torch.arange(high, low - 1, -1, dtype=x.dtype, device=x.device) - shift)
    moved = conv2d(x, (taps / taps.sum()).expand(x.shape[1], 1, 1, -1), groups=x.shape[1])
    first, end = max(0, high), x.shape[-1] + min(0, low)
    return moved[..., first - high : end - high], slice(first, end)


def _lanczos(at: Tensor) -> Tensor:
    """Lanczos' filter."""
    return at.sinc() * _window(at)


def _window(at: Tensor) -> Tensor:
    """Lanczos' window: the central lobe of a wider sinc."""
    return (at / LOBES).sinc() * (at.abs() < LOBES)
