"""The generator of StyleGAN3 (Karras et al. 2021, arXiv:2106.12423, configurations T and R)."""

from __future__ import annotations

from itertools import pairwise
from math import ceil, log2, pi
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ganzoo.core.limits import Size
from ganzoo.functional.equivariance import low_pass, radial_low_pass
from ganzoo.layers.base import is_half, not_half
from ganzoo.layers.equalised import GAIN, LARGEST, EqualisedLinear
from ganzoo.layers.filtered import FilteredLeaky
from ganzoo.layers.modulated import modulated_conv2d
from ganzoo.networks.base import shape
from ganzoo.networks.stylegan2 import StyleGenerator, ToImage

FIRST_CUTOFF, FIRST_STOP = 2.0, 2**2.1  # in periods of the image
LAST_STOP = 2**0.3  # in multiples of the last cutoff
CRITICAL = 2  # last layers, whose cutoff is half their sampling rate
MARGIN = 10  # pixels beyond each border of the image
TAPS = 6  # of a filter, for each sample of the coarser grid
FINER = 2  # sampling rate of the nonlinearities, in that of the layer
SCALE = 0.25  # of the image


class Band(NamedTuple):
    """The signal of a layer; the unit of length is the image's side.

    Attributes:
        cutoff: frequency, in periods.
        half_width: of the filters' transition band.
        rate: samples.
        size: samples, with those beyond the borders.
        maps: feature maps.
    """

    cutoff: float
    half_width: float
    rate: int
    size: int
    maps: int


def bands(side: int, layers: int, maps: int, width: int) -> list[Band]:
    """Of the layers' outputs; the first one is that of the input, too (figure 4). Cutoffs, and the frequencies f_t
    from which on nothing passes, grow geometrically up to the critical layers.

    Args:
        side: of the image, a power of two.
        layers: their number.
        maps, width: feature maps of a layer: `maps` / 2 / cutoff, but at most `width`.
    """
    found = []
    for i in range(layers):
        share = min(i / (layers - CRITICAL), 1.0)
        cutoff = FIRST_CUTOFF * (side / 2 / FIRST_CUTOFF) ** share
        stop = FIRST_STOP * (side / 2 * LAST_STOP / FIRST_STOP) ** share
        rate = min(2 ** ceil(log2(2 * stop)), side)
        size = side if i == layers - 1 else rate + 2 * MARGIN
        found.append(Band(cutoff, max(stop, rate / 2) - cutoff, rate, size, round(min(maps / 2 / cutoff, width))))
    return found


class StyleGAN3Generator(StyleGenerator):
    """z [N, d], y [N] -> w [N, d] -> images [N, C, H, W], not bounded.

    Args:
        image_size: 16, 32, 64, ...
        channels: of the image.
        z_dim: d.
        maps, width: feature maps: `maps` / 2 / cutoff in a layer, but at most `width`; twice as many with `rotation`.
        mapping_layers: layers of the mapping.
        num_classes: number of labels; None if unconditional.
        layers: layers of the synthesis, without the last, which makes the image.
        rotation: equivariant to rotations, too: configuration R.

    Raises:
        ValueError: the size is another one, or there are too few layers or maps.
    """

    def __init__(
        self,
        image_size: Size = 1024,
        channels: int = 3,
        z_dim: int = 512,
        maps: int = 32768,
        width: int = 512,
        mapping_layers: int = 2,
        num_classes: int | None = None,
        layers: int = 14,
        rotation: bool = False,
    ) -> None:
        super().__init__(z_dim, mapping_layers, num_classes)
        factor = 2 if rotation else 1
        self.synthesis = AliasFreeSynthesis(
            image_size, channels, z_dim, factor * maps, factor * width, layers, rotation
        )


class AliasFreeSynthesis(nn.Module):
    """w [N, L + 2, d] -> images [N, C, H, W]: Fourier features with the style w_0, L layers, and one for the image.

    `transform` [3, 3] or [N, 3, 3] replaces that of the input.

    Args:
        as `StyleGAN3Generator`; d is the size of w, and L is `layers`.
    """

    def __init__(
        self, image_size: Size, channels: int, d: int, maps: int, width: int, layers: int, rotation: bool
    ) -> None:
        super().__init__()
        side = shape(image_size, _takes, "StyleGAN3 makes squares of 16, 32, 64, ... pixels")[0]
        if layers <= CRITICAL:
            raise ValueError(f"layers is {layers}; StyleGAN3 needs {CRITICAL + 1} or more")
        if maps < side:
            factor = 2 if rotation else 1  # by which the generator has multiplied them
            least = side // factor
            raise ValueError(
                f"maps is {maps // factor}, but layers of {side} pixels have maps / {least} channels: use {side} or "
                "more, for D's layers, too"
            )
        found = bands(side, layers, maps, width)
        self.input = FourierInput(found[0], d)
        self.layers = nn.ModuleList(
            FilteredLayer(a, b, d, radial=rotation and i < layers - CRITICAL, kernel=1 if rotation else 3)
            for i, (a, b) in enumerate(pairwise([found[0], *found]))
        )
        self.image = NormalisedToImage(found[-1].maps, channels, d)
        self.to(memory_format=torch.channels_last)  # filters then take a sixth of the time on a CPU

    def repeated(self, w: Tensor) -> Tensor:
        """w [N, d] -> [N, L + 2, d]."""
        return w[:, None].expand(-1, len(self.layers) + 2, -1)

    def forward(self, w: Tensor, transform: Tensor | None = None) -> Tensor:
        x = self.input(w[:, 0], transform)
        for i, layer in enumerate(self.normalised(), 1):
            x = layer(x, w[:, i])
        return SCALE * x

    def normalised(self) -> list[nn.Module]:
        """The layers with a mean square of their inputs, in order."""
        return [*self.layers, self.image]

    def squares(self, w: Tensor) -> Tensor:
        """Mean squares of the layers' inputs [L + 1] for w."""
        x, found = self.input(w[:, 0]), []
        for i, layer in enumerate(self.normalised(), 1):
            found.append(not_half(x).square().mean())
            x = layer(x, w[:, i])
        return torch.stack(found)

    def move_squares(self, squares: Tensor, weight: float) -> None:
        """Moves the running mean squares towards those of `squares`, by a share."""
        for layer, square in zip(self.normalised(), squares, strict=True):
            layer.square.lerp_(square, weight)  # type: ignore[operator, union-attr]


class FourierInput(nn.Module):
    """w [N, d] -> x [N, C, H, W]: waves sin 2 pi (f'p + phase) at the points p, rotated and moved as w says, and mixed
    by a learned matrix (section 3.2).

    The affine layer gives r = (r_c, r_s, t_x, t_y): points are moved by t / |(r_c, r_s)|, in units of the image's side,
    and rotated by the angle of (r_c, r_s). The frequencies are constant, and uniform in the disc of the band's cutoff.
    `transform` [3, 3], the identity, moves a trained network's images; as an argument it may also be one for each image
    [N, 3, 3]. Waves that it moves beyond the cutoff fade out up to the Nyquist frequency.

    Args:
        band: of the output.
        d: size of w.
    """

    freqs: Tensor
    phases: Tensor
    transform: Tensor
    points: Tensor

    def __init__(self, band: Band, d: int) -> None:
        super().__init__()
        n, self.band = band.maps, band
        freqs = torch.randn(n, 2)
        radius = freqs.norm(dim=1, keepdim=True)
        # |f| = cutoff exp(-r^2 / 4), whose square is uniform
        self.register_buffer("freqs", band.cutoff * freqs / (radius * radius.square().exp() ** 0.25))
        self.register_buffer("phases", torch.rand(n) - 0.5)
        self.register_buffer("transform", torch.eye(3))
        at = (torch.arange(band.size) + 0.5 - band.size / 2) / band.rate
        self.register_buffer("points", torch.stack(torch.meshgrid(at, at, indexing="xy"), 2), persistent=False)
        self.weight = nn.Parameter(torch.randn(n, n))
        self.affine = EqualisedLinear(d, 4)
        nn.init.zeros_(self.affine.weight)
        self.affine.bias.data[0] = 1.0

    def forward(self, w: Tensor, transform: Tensor | None = None) -> Tensor:
        r, transform = self.affine(w), self.transform if transform is None else transform
        with torch.autocast(w.device.type, enabled=False):
            c, s, x, y = (r / r[:, :2].norm(dim=1, keepdim=True)).unbind(1)
            one, zero = torch.ones_like(c), torch.zeros_like(c)
            turn = torch.stack([c, -s, zero, s, c, zero, zero, zero, one], 1).unflatten(1, (3, 3))
            move = torch.stack([one, zero, -x, zero, one, -y, zero, zero, one], 1).unflatten(1, (3, 3))
            matrix, offset = (turn @ move @ not_half(transform))[:, :2].split([2, 1], 2)
            freqs = not_half(self.freqs)
            freqs, phases = freqs @ matrix, self.phases + (freqs @ offset).squeeze(2)  # [N, C, 2], [N, C]
            nyquist = self.band.rate / 2
            fade = ((nyquist - freqs.norm(dim=2)) / (nyquist - self.band.cutoff)).clamp(0, 1)
            turns = not_half(self.points).flatten(0, 1) @ freqs.mT + phases[:, None]  # [N, H W, C]
            waves = (2 * pi * turns).sin() * fade[:, None]
            mixed = waves.to(self.weight.dtype) @ self.weight.T * len(self.weight) ** -0.5
            return mixed.unflatten(1, self.points.shape[:2]).permute(0, 3, 1, 2)


class FilteredLayer(nn.Module):
    """x [N, a, h, h], w [N, d] -> [N, b, k, k]: a modulated convolution, a bias, and a leaky ReLU of the continuous
    signal (section 3.2).

    The convolution has all outputs that depend on the input. It is divided by the root of the running mean square of
    its input, a statistic of training.

    Args:
        a: the input's band.
        b: the output's.
        d: size of w.
        kernel: side of the convolution's.
        radial: the filter before the samples are dropped depends on no direction.
    """

    square: Tensor

    def __init__(self, a: Band, b: Band, d: int, kernel: int, radial: bool) -> None:
        super().__init__()
        self.style = EqualisedLinear(d, a.maps, bias=1.0)
        self.weight = nn.Parameter(torch.randn(b.maps, a.maps, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(b.maps))
        self.register_buffer("square", torch.ones(()))
        fine = FINER * max(a.rate, b.rate)
        up, down = fine // a.rate, fine // b.rate
        first = low_pass(a.cutoff, a.half_width, TAPS * up, fine)
        second = (radial_low_pass if radial else low_pass)(b.cutoff, b.half_width, TAPS * down, fine)
        self.leaky = FilteredLeaky(first, second, up, down, a.size + kernel - 1, b.size)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        gain = GAIN * self.square.rsqrt()
        x = modulated_conv2d(x, self.weight, self.style(w), gain=gain, padding=self.weight.shape[2] - 1)
        x = x + (GAIN * self.bias).to(x.dtype)[:, None, None]
        return self.leaky(x.clamp(-LARGEST, LARGEST) if is_half(x) else x)


class NormalisedToImage(ToImage):
    """`ToImage`, over the root of the running mean square of its input."""

    square: Tensor

    def __init__(self, a: int, channels: int, d: int) -> None:
        super().__init__(a, channels, d)
        self.register_buffer("square", torch.ones(()))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return super().forward(x * self.square.rsqrt().to(x.dtype), w)


def _takes(height: int, width: int) -> bool:
    return height == width >= 16 and height.bit_count() == 1
