"""Transforms of images [N, C, H, W] with parameters for each image: linear in the images, so differentiable any number
of times, and without data-dependent shapes, so they compile. Images continue beyond their border by reflection."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from ganzoo.functional.base import reflected

SYM2 = [(1 - 3**0.5) / 32**0.5, (3 - 3**0.5) / 32**0.5, (3 + 3**0.5) / 32**0.5, (1 + 3**0.5) / 32**0.5]
SYM6 = [  # scaling filter of the orthonormal symlet with six vanishing moments (Daubechies 1992, table 6.3)
    *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633, 0.4910559419267466),
    *(0.787641141030194, 0.3379294217276218, -0.07263752278646252, -0.021060292512300564, 0.04472490177066578),
    *(0.0017677118642428036, -0.007800708325034148),
]
CENTRE = sum(t * tap for t, tap in enumerate(SYM6)) / 2**0.5 - 5  # the fine pixel 2k + CENTRE lies at pixel k
EDGE = 3  # pixels by which `warped` extends an image, so that its filters see the true surroundings of each pixel


def moved(x: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Images moved by whole pixels; the uncovered part is 0.

    Args:
        x: [N, C, H, W].
        down: [N] int64, pixels; negative for up.
        right: [N] int64.
    """
    for dim, by in (2, down), (3, right):
        size = x.shape[dim]
        source = torch.arange(size, device=x.device) - by[:, None]  # [N, size]
        shape = [len(x), 1, 1, 1]
        shape[dim] = size
        inside = ((source >= 0) & (source < size)).view(shape)
        x = x.gather(dim, source.clamp(0, size - 1).view(shape).expand_as(x)) * inside
    return x


def erased(x: Tensor, top: Tensor, bottom: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Images with a rectangle set to 0: the pixels with top <= row < bottom and left <= column < right; each bound is
    [N], in pixels, and may lie beyond the border."""
    rows, columns = (torch.arange(size, device=x.device) for size in x.shape[2:])
    high = (rows >= top[:, None]) & (rows < bottom[:, None])
    wide = (columns >= left[:, None]) & (columns < right[:, None])
    return x * ~(high[:, None, :, None] & wide[:, None, None, :])


def recoloured(x: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """Images with the colours `matrix` [N, C, C] times their colours plus `offset` [N, C]."""
    return (matrix @ x.flatten(2) + offset[:, :, None]).view_as(x)


def warped(x: Tensor, linear: Tensor, offset: Tensor) -> Tensor:
    """Images whose pixel at v shows the point `linear` v + `offset` of x, relative to the centres, as in Karras et al.
    2020 (arXiv:2006.06676), appendix B: doubled with the wavelet SYM6, sampled bilinearly, and halved with it. The
    identity leaves images unchanged.

    The authors pad images by as much as a batch needs. Here points beyond the border are reflected into the image,
    which costs less, and differs only there, as the filter is not quite symmetric. They also place the filter's centre
    at half of its length, .2 pixels from its centre of mass, so a flipped image is moved by .4 pixels; here it is not.

    Args:
        x: [N, C, H, W].
        linear: [N, 2, 2]; the first coordinate is to the right, the second down.
        offset: [N, 2], in pixels.
    """
    height, width = x.shape[2:]
    (grow_h, shrink_h), (grow_w, shrink_w) = (_doubling(size, x.device, x.dtype) for size in (height, width))
    fine = grow_h @ x @ grow_w.mT
    sizes = (width, height)
    steps = [torch.arange(-5, 2 * size + 5, device=x.device, dtype=x.dtype) for size in sizes]  # the fine result's
    v = [(step - size + 1 - CENTRE) / 2 for step, size in zip(steps, sizes, strict=True)]
    at = []
    for k, size in enumerate(sizes):
        across, down = (linear[:, k, j, None] * v[j] for j in range(2))
        point = across[:, None, :] + down[:, :, None] + offset[:, k, None, None] + (size - 1) / 2  # [N, 2H+10, 2W+10]
        near = (point >= -EDGE) & (point <= size - 1 + EDGE)
        at.append(torch.where(near, point, reflected(point, size)) * 2 + CENTRE + 2 * EDGE)  # in fine pixels
    return shrink_h @ _bilinear(fine, *at) @ shrink_w.mT


def filtered(x: Tensor, gains: Tensor) -> Tensor:
    """Images with four frequency bands of rows and columns scaled by `gains` [N, 4]: from 0 to pi/8, to pi/4, to pi/2,
    to pi. The bands are those of the wavelet SYM2 (Karras et al. 2020, appendix B); equal gains scale the image."""
    down, across = (
        torch.einsum("nb,bij->nij", gains, _bands(size, x.device, x.dtype))[:, None] for size in x.shape[2:]
    )
    return down @ x @ across.mT


def _bilinear(x: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """Values of x [N, C, H, W] at points [N, h, w] within it, in pixels. `grid_sample` of torch < 2.12 has no second
    derivatives."""
    (n, c, height, width), shape = x.shape, right.shape
    left, top = right.floor().clamp(0, width - 2), down.floor().clamp(0, height - 2)
    first = (top.long() * width + left.long()).flatten(1)
    flat, (dx, dy) = x.flatten(2), ((right - left)[:, None], (down - top)[:, None])

    def corner(step: int) -> Tensor:
        return flat.gather(2, (first + step)[:, None].expand(-1, c, -1)).view(n, c, *shape[1:])

    upper = torch.lerp(corner(0), corner(1), dx)
    lower = torch.lerp(corner(width), corner(width + 1), dx)
    return torch.lerp(upper, lower, dy)


@cache  # a copy of constants to a GPU would wait for it
def _doubling(size: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Matrices that double a row of pixels, extended by `EDGE` on both sides, [2 size + 4 EDGE, size], and halve it,
    [size, 2 size + 10]."""
    tap = torch.arange(12, device=device)
    taps = torch.tensor(SYM6, device=device, dtype=dtype)
    fine = torch.arange(-2 * EDGE, 2 * (size + EDGE), device=device)[:, None]
    twice = fine + 5 - tap  # of the pixel that a tap reads
    grow = _operator(twice.div(2, rounding_mode="floor"), torch.where(twice % 2 == 0, 2**0.5 * taps, 0), size)
    step = torch.arange(2 * size + 10, device=device) - 2 * torch.arange(size, device=device)[:, None]
    return grow, torch.where((step >= 0) & (step < 12), taps[step.clamp(0, 11)] / 2**0.5, 0)


@cache
def _bands(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Matrices [4, size, size] that filter a row of pixels by each band."""
    bank = torch.tensor(BANK, device=device, dtype=dtype)
    sources = torch.arange(size, device=device)[:, None] + torch.arange(-21, 22, device=device)
    return _operator(sources, bank[:, None].expand(-1, size, -1), size)


def _operator(sources: Tensor, weights: Tensor, size: int) -> Tensor:
    """The matrices [..., n, size] of filters: output i is the sum over t of `weights` [..., i, t] times the pixel
    `sources` [i, t], reflected."""
    chosen = reflected(sources, size)[..., None] == torch.arange(size, device=sources.device)  # [n, t, size]
    return torch.einsum("...it,its->...is", weights, chosen.to(weights.dtype))


def _product(a: list[float], b: list[float]) -> list[float]:
    """Convolution of two filters."""
    pairs = [[x * b[i - j] for j, x in enumerate(a) if 0 <= i - j < len(b)] for i in range(len(a) + len(b) - 1)]
    return [sum(pair) for pair in pairs]


def _bank() -> list[list[float]]:
    """Filters of the four bands, with 43 taps each; their sum is the identity."""
    low = [tap / 2 for tap in _product(SYM2, SYM2[::-1])]
    high = [(i == 3) - tap for i, tap in enumerate(low)]
    below, bands = [1.0], list[list[float]]()
    for zeros in (0, 1, 3):  # between the taps: the bands above pi/2, above pi/4 and above pi/8
        wide_low, wide_high = ([tap for x in taps for tap in (x, *[0.0] * zeros)] for taps in (low, high))
        bands.insert(0, _product(below, wide_high[: 6 * (zeros + 1) + 1]))
        below = _product(below, wide_low[: 6 * (zeros + 1) + 1])
    bands.insert(0, below)
    sides = [[0.0] * ((len(below) - len(band)) // 2) for band in bands]
    return [[*side, *band, *side] for side, band in zip(sides, bands, strict=True)]


BANK = _bank()
