"""The growing networks of ProGAN (Karras et al. 2018, arXiv:1710.10196, table 2)."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from ganzoo.core.limits import Size
from ganzoo.layers.base import not_half
from ganzoo.layers.equalised import EqualisedConv2d, EqualisedLinear
from ganzoo.layers.minibatch import MinibatchStdDev
from ganzoo.layers.pixelnorm import PixelNorm
from ganzoo.networks.base import doubled, maps_by_size

Conv = partial(EqualisedConv2d, bias=1.0)  # its bias has no factor (section 4.1)


class ProGANGenerator(nn.Module):
    """z [N, d] -> images [N, C, H, W], not bounded: feature maps of 4 pixels, doubled n times.

    Stage i makes images of the i-th size, which are enlarged to the last one by repeating pixels. With `alpha`, the
    image is alpha times that of this stage plus 1 - alpha times that of the stage before. Each stage has two
    convolutions and a layer for its image.

    Args:
        image_size: 4, 5, 6 or 7 times a power of two from 2 up; or [height, width] with such a shorter side.
        channels: of the image.
        z_dim: d; z is scaled to length sqrt d.
        maps, width: feature maps: see `maps_by_size`.
    """

    def __init__(
        self, image_size: Size = 1024, channels: int = 3, z_dim: int = 512, maps: int = 16384, width: int = 512
    ) -> None:
        super().__init__()
        n, h, w = layout(image_size)
        widths = maps_by_size(n, min(h, w), maps, width)
        self.normalise = PixelNorm()
        first = Conv(z_dim, widths[0], (h, w), padding=(h - 1, w - 1))  # a product with a matrix
        starts = [
            first,
            *(nn.Sequential(nn.Upsample(scale_factor=2), Conv(a, b, 3, padding=1)) for a, b in pairwise(widths)),
        ]
        self.stages = nn.ModuleList(
            nn.Sequential(start, PixelNorm(), Conv(a, a, 3, padding=1), PixelNorm())
            for start, a in zip(starts, widths, strict=True)
        )
        self.images = nn.ModuleList(Conv(a, channels, 1, active=False) for a in widths)
        self.to(memory_format=torch.channels_last)

    def forward(self, z: Tensor, stage: int | None = None, alpha: Tensor | float | None = None) -> Tensor:
        """Images of a stage, by default of the last one; alpha, from 0 to 1, only from the second stage on."""
        last = len(self.stages) - 1
        stage = last if stage is None else stage
        x = before = self.normalise(z[:, :, None, None])
        for i in range(stage + 1):
            before, x = x, self.stages[i](x)
        image = not_half(self.images[stage](x))
        if alpha is not None:
            image = blended(repeated(not_half(self.images[stage - 1](before)), 2), image, alpha)
        return repeated(image, 2 ** (last - stage))


class ProGANDiscriminator(nn.Module):
    """x [N, C, H, W] -> scores [N].

    Stage i averages the image to the i-th size, which two convolutions and an average halve; then it does what the
    stage before does with its features. With `alpha`, a share 1 - alpha of the halved features is made from the halved
    image, as in the stage before.

    Args:
        image_size: as in the generator.
        channels: of the image.
        maps, width: as in the generator.
        group: images that are compared at the smallest size: see `MinibatchStdDev`; None: all; 1: none.
    """

    def __init__(
        self,
        image_size: Size = 1024,
        channels: int = 3,
        maps: int = 16384,
        width: int = 512,
        group: int | None = None,
    ) -> None:
        super().__init__()
        n, h, w = layout(image_size)
        widths = maps_by_size(n, min(h, w), maps, width)[::-1]
        last, compare = widths[-1], [] if group == 1 else [MinibatchStdDev(group)]
        ends = [
            *(
                nn.Sequential(Conv(a, a, 3, padding=1), Conv(a, b, 3, padding=1), nn.AvgPool2d(2))
                for a, b in pairwise(widths)
            ),
            nn.Sequential(*compare, Conv(last + len(compare), last, 3, padding=1), Conv(last, last, (h, w))),
        ]
        self.stages = nn.ModuleList(  # from the last one to the first
            nn.ModuleDict({"image": Conv(channels, a, 1), "features": end}) for a, end in zip(widths, ends, strict=True)
        )
        self.out = EqualisedLinear(last, 1)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, stage: int | None = None, alpha: Tensor | float | None = None) -> Tensor:
        """Scores by a stage, by default the last one; alpha, from 0 to 1, only from the second stage on."""
        skipped = 0 if stage is None else len(self.stages) - 1 - stage
        newest, *others = cast(list[Any], list(self.stages)[skipped:])
        x = shrunk(x, 2**skipped)
        h = newest["features"](newest["image"](x))
        if alpha is not None:
            h = blended(others[0]["image"](shrunk(x, 2)), h, alpha)
        for other in others:
            h = other["features"](h)
        return self.out(h.flatten(1)).squeeze(1)


def layout(image_size: Size) -> tuple[int, int, int]:
    """(n, h, w), n from 1 up: see `doubled`."""
    return doubled(image_size, "ProGAN doubles the height and width", 1)


def repeated(x: Tensor, k: int) -> Tensor:
    """[N, C, H, W] -> [N, C, k H, k W] by repeating pixels."""
    return x if k == 1 else interpolate(x, scale_factor=k)


def shrunk(x: Tensor, k: int) -> Tensor:
    """[N, C, k H, k W] -> [N, C, H, W]: means over squares."""
    return x if k == 1 else avg_pool2d(x, k)


def blended(old: Tensor, new: Tensor, alpha: Tensor | float) -> Tensor:
    """(1 - alpha) old + alpha new."""
    return old + alpha * (new - old)
