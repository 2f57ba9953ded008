"""DiffAugment: Differentiable Augmentation for Data-Efficient GAN Training (Zhao et al. 2020, arXiv:2006.10738)."""

from __future__ import annotations

import torch
from torch import Tensor

from ganzoo.augment.base import Augment
from ganzoo.core.limits import Share
from ganzoo.core.random import Numbers
from ganzoo.functional.transforms import erased, moved


class DiffAugment(Augment):
    """Random colour changes, a shift and a cutout for every image.

    In this order. Colour: brightness x + U(-.5, .5); saturation, which scales the difference to the mean over channels
    by U(0, 2); contrast, which scales the difference to the image's mean by U(.5, 1.5). Grey images have no saturation;
    of RGBA, A is unchanged. The paper's policies: with StyleGAN2 all three for few images, and without translation for
    all of CIFAR-10; with BigGAN on CIFAR without colour.

    Args:
        color: whether colours change.
        translation: largest shift, as a share of each side; uncovered pixels are 0, mid-grey. 0: none.
        cutout: side of the erased rectangle, set to 0, as a share of each side; it may lie partly outside. 0: none.

    Raises:
        ValueError: nothing is left.
    """

    def __init__(self, color: bool = True, translation: Share = 0.125, cutout: Share = 0.5) -> None:
        super().__init__()
        if not (color or translation or cutout):
            raise ValueError("color is false, translation 0 and cutout 0: leave augment out, or set one of them")
        self.color, self.translation, self.cutout = color, translation, cutout

    def check_channels(self, channels: int) -> None:
        if self.color and channels not in (1, 3, 4):
            raise ValueError(
                f"augment: color needs grey, RGB or RGBA images, but they have {channels} channels: set color to false"
            )

    def transform(self, x: Tensor, numbers: Numbers, channels: int) -> Tensor:
        b, s, c, *places = numbers.uniform(7).to(x.dtype).unbind(1)
        if self.color:
            rgb = min(channels, 3)
            x = torch.cat([shaded(x[:, :rgb], b - 0.5, 2 * s, c + 0.5), x[:, rgb:]], 1)
        if self.translation:
            most = zip(places[:2], self._pixels(x, self.translation), strict=True)
            x = moved(x, *(below(u, 2 * m + 1) - m for u, m in most))
        if self.cutout:
            bounds: list[Tensor] = []
            for u, size, side in zip(places[2:], x.shape[2:], self._pixels(x, self.cutout), strict=True):
                first = below(u, size + 1 - side % 2) - side // 2  # centres from border to border
                bounds += [first, first + side]
            x = erased(x, *bounds)
        return x

    def _pixels(self, x: Tensor, share: float) -> list[int]:
        return [int(size * share + 0.5) for size in x.shape[2:]]


def below(u: Tensor, n: int) -> Tensor:
    """Whole numbers from 0 to n - 1, from uniform numbers in [0, 1)."""
    return (u * n).long().clamp(max=n - 1)


def shaded(x: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
    """Images [N, C, H, W] with brightness added, and the distances to the grey image and to the mean scaled; each
    parameter is [N]."""
    brightness, saturation, contrast = (value.view(-1, 1, 1, 1) for value in (brightness, saturation, contrast))
    x = x + brightness
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * saturation + grey
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * contrast + mean
