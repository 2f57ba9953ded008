"""ADA: Training Generative Adversarial Networks with Limited Data (Karras et al. 2020, arXiv:2006.06676)."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from ganzoo.augment.base import Augment, Strength
from ganzoo.core.limits import Limits, NonNegative, Positive, Share
from ganzoo.core.random import Numbers
from ganzoo.functional.transforms import erased, filtered, recoloured, warped

BANDS = (10 / 13, 1 / 13, 1 / 13, 1 / 13)  # expected power of images in each frequency band


class ADA(Augment):
    """Random flips, rotations, scales, shifts and colours, each with a probability p that follows D's overfitting.

    The transforms are those of appendix B, in its order. Six categories, each with a multiple of p: `pixel` (flip,
    quarter turns, shift by up to 1/8 in whole pixels), `geometry` (scale, rotation, aspect, shift by fractions),
    `color` (brightness, contrast, luma flip, hue, saturation), `filter` (gains of four frequency bands), `noise` and
    `cutout` (half of each side). The defaults are the paper's "bgc". Grey images have only the first two changes of
    colour, while the authors' luma flip also makes negatives of them; of RGBA, A is unchanged. Images that are not
    square are turned by 180 degrees only.

    Above p = .8 or so, transforms leak into what G learns. p stays at most 1; the authors' has no upper limit.

    Args:
        p: fixed probability, or that of the first batch with `p_end`; None: adaptive, from 0.
        target: of E sign(D(x)) over reals x, in (-1, 1), for an adaptive p; None: the paper's 0.6.
        p_end: p falls or rises from `p` to this along a cosine, over `ramp` images; None: p is fixed or adaptive.
        ramp: images in which an adaptive p can go from 0 to 1 (the authors take 100,000 to continue from a trained
            model), or a scheduled one goes from p to p_end.
        pixel: multiple of p for this category; 0: none.
        geometry: as `pixel`.
        color: as `pixel`.
        filter: as `pixel`.
        noise: as `pixel`.
        cutout: as `pixel`.

    Raises:
        ValueError: an argument is out of range, two contradict each other, or no transform is left.
    """

    strength: Strength
    cross: Tensor
    power: Tensor

    def __init__(
        self,
        p: Share | None = None,
        target: Annotated[float, Limits(-1, 1, above=True, below=True)] | None = None,
        p_end: Share | None = None,
        ramp: Positive = 500_000.0,
        pixel: NonNegative = 1.0,
        geometry: NonNegative = 1.0,
        color: NonNegative = 1.0,
        filter: NonNegative = 0.0,
        noise: NonNegative = 0.0,
        cutout: NonNegative = 0.0,
    ) -> None:
        super().__init__()
        self.strength = Strength(p, target, p_end, ramp)
        if not pixel + geometry + color + filter + noise + cutout:
            raise ValueError("pixel, geometry, color, filter, noise and cutout are 0: leave augment out, or set one")
        self.pixel, self.geometry, self.color = pixel, geometry, color
        self.filter, self.noise, self.cutout = filter, noise, cutout
        cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
        self.register_buffer("cross", cross, persistent=False)  # u -> v x u, a quarter turn of the hues
        self.register_buffer("power", torch.tensor(BANDS), persistent=False)

    def check_channels(self, channels: int) -> None:
        if self.color and channels not in (1, 3, 4):
            raise ValueError(
                f"augment: color needs grey, RGB or RGBA images, but they have {channels} channels: set color to 0"
            )

    def transform(self, x: Tensor, numbers: Numbers, channels: int) -> Tensor:
        height, width = x.shape[2:]
        if self.pixel or self.geometry:
            x = warped(x, *self.placement(numbers, height, width, x.dtype))
        image, source = x[:, :channels], x[:, channels:]
        if self.color:
            rgb = min(channels, 3)
            image = torch.cat([recoloured(image[:, :rgb], *self.colours(numbers, rgb, x.dtype)), image[:, rgb:]], 1)
        if self.filter:
            image = filtered(image, self.gains(numbers, x.dtype))
        if self.noise:
            noisy, strength = numbers.uniform(1) < self.strength.p * self.noise, 0.1 * numbers.normal(1).abs()
            noise = (noisy * strength)[:, :, None, None] * numbers.normal(*image.shape[1:])
            image = image + noise.to(x.dtype)
        x = torch.cat([image, source], 1) if source.shape[1] else image
        if self.cutout:
            gate, down, right = numbers.uniform(3).to(x.dtype).unbind(1)
            cut = gate < self.strength.p * self.cutout
            top, left = down * height - height / 4 - 0.5, right * width - width / 4 - 0.5  # of the first pixel's centre
            x = erased(x, top, torch.where(cut, top + height / 2, top), left, left + width / 2)
        return x

    def placement(self, numbers: Numbers, height: int, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The point of the image that each pixel shows: see `warped`.

        Transforms map the image's points to the result's. `warped` needs the inverse: the product, in the paper's
        order, of the inverse of each: mirror, quarter turn, whole shift, scale, rotation, aspect, rotation, shift.
        """
        gates, u, n = numbers.uniform(8), numbers.uniform(6), numbers.normal(4)
        pixel, p = self.strength.p * self.pixel, self.strength.p * self.geometry
        turning = 1 - (1 - p.clamp(max=1)).sqrt()  # for two rotations with probability p in all
        limits = torch.stack([pixel, pixel, pixel, p, turning, p, turning, p])
        flip, turn, shift, scale, before, aspect, after, move = (gates < limits).unbind(1)
        turns = (4 * u[:, 1]).floor() if height == width else 2 * (2 * u[:, 1]).floor()
        shifts = [((2 * u[:, i] - 1) / 8 * side).round() * shift for i, side in ((2, width), (3, height))]
        fractions = [n[:, i] / 8 * side * move for i, side in ((2, width), (3, height))]
        mirror = torch.where(flip & (u[:, 0] < 0.5), -1.0, 1.0)
        size = torch.where(scale, (-0.2 * n[:, 0]).exp2(), 1.0)
        ratio = torch.where(aspect, (-0.2 * n[:, 1]).exp2(), 1.0)
        turned = rotation(torch.where(turn, math.pi / 2 * turns, 0))
        flips_and_turns = diagonal(mirror, torch.ones_like(mirror)) @ turned
        angles = [torch.where(gate, (2 * u[:, i] - 1) * math.pi, 0) for gate, i in ((before, 4), (after, 5))]
        geometry = rotation(angles[0]) @ diagonal(size * ratio, size / ratio) @ rotation(angles[1])
        linear = flips_and_turns @ geometry
        offset = flips_and_turns @ torch.stack(shifts, 1)[:, :, None] + linear @ torch.stack(fractions, 1)[:, :, None]
        return linear.to(dtype), -offset[:, :, 0].to(dtype)

    def colours(self, numbers: Numbers, channels: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Matrices [N, C, C] and offsets [N, C] of the colours, C = 1 or 3. All five changes keep the axis v of grey,
        (1, 1, 1), apart from the plane of hues, so they reduce to a factor for each, and a rotation of the plane."""
        u, n = numbers.uniform(7), numbers.normal(3)
        light, scale, luma, hue, saturate = (u[:, :5] < self.strength.p * self.color).unbind(1)
        contrast = torch.where(scale, (0.5 * n[:, 1]).exp2(), 1.0)
        grey = contrast if channels == 1 else contrast * torch.where(luma & (u[:, 5] < 0.5), -1.0, 1.0)
        offset = grey * torch.where(light, 0.2 * n[:, 0], 0)
        if channels == 1:
            return grey[:, None, None].to(dtype), offset[:, None].to(dtype)
        angle = torch.where(hue, (2 * u[:, 6] - 1) * math.pi, 0)
        plane = contrast * torch.where(saturate, n[:, 2].exp2(), 1.0)
        onto = torch.full((3, 3), 1 / 3, device=u.device)
        cos, sin = (plane * angle.cos())[:, None, None], (plane * angle.sin())[:, None, None]
        matrix = grey[:, None, None] * onto + cos * (torch.eye(3, device=u.device) - onto) + sin * self.cross
        return matrix.to(dtype), offset[:, None].expand(-1, 3).to(dtype)

    def gains(self, numbers: Numbers, dtype: torch.dtype) -> Tensor:
        """Gains [N, 4] of the frequency bands: each band in turn is scaled at random, and all four are then divided so
        that the expected power stays the same."""
        gates, n = numbers.uniform(4) < self.strength.p * self.filter, numbers.normal(4)
        gains = torch.ones_like(n)
        for i in range(4):
            band = torch.arange(4, device=n.device) == i
            t = torch.where(gates[:, i, None] & band, n[:, i, None].exp2(), 1.0)
            gains = gains * t / (self.power * t.square()).sum(1, keepdim=True).sqrt()
        return gains.to(dtype)


def rotation(angle: Tensor) -> Tensor:
    """Matrices [N, 2, 2]."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos, -sin, sin, cos], 1).view(-1, 2, 2)


def diagonal(first: Tensor, second: Tensor) -> Tensor:
    """Matrices [N, 2, 2]."""
    return torch.diag_embed(torch.stack([first, second], 1))
