"""Mixtures of Gaussians in the plane, on which mode collapse can be seen and counted."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch

from ganzoo.core.limits import Count, check_memory
from ganzoo.core.random import mix
from ganzoo.data.base import GANDataModule, Split
from ganzoo.data.datasets import ArrayImages
from ganzoo.data.labels import SPLITS


class Gaussians(GANDataModule):
    """A mixture of Gaussians in the plane as "images" [2, 1, 1]; the label is the mode.

    "ring": 8 modes on the unit circle, sigma 0.01. "grid": 5x5 modes at {-4, -2, 0, 2, 4}, sigma 0.05 (as in PacGAN).
    Train has `n` points, val and test have `n // 5` each, drawn independently. The seed changes none of them.

    Attributes:
        scale: Divisor that maps all modes, up to 6 sigma, into [-1, 1]; `x * scale` has the original units.
        centers: Of the modes, [K, 2] float, in original units.
        sigma: Standard deviation per axis, in original units.

    Args:
        layout: Arrangement of the modes.
        n: Number of training points.
        **kwargs: See `GANDataModule`.

    Raises:
        ValueError: `n` is below 5, or the points do not fit into memory.
    """

    image_size = 1
    channels = 2
    extractor = None  # there is none for points

    def __init__(self, layout: Literal["ring", "grid"] = "ring", n: Count = 50_000, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if n < 5:
            raise ValueError(f"n is {n}; val and test have n // 5 points each, so n must be at least 5")
        check_memory("n", n, 64 * n)
        self.n = n
        if layout == "ring":
            angle = torch.arange(8) * (math.pi / 4)
            self.centers, self.sigma = torch.stack([angle.cos(), angle.sin()], 1), 0.01
        else:
            axis = torch.arange(-4.0, 5.0, 2.0)
            self.centers, self.sigma = torch.cartesian_prod(axis, axis), 0.05
        self.scale = self.centers.abs().max().item() + 6 * self.sigma
        self.num_classes = len(self.centers)

    def make_dataset(self, split: Split) -> ArrayImages:
        n = self.n if split == "train" else self.n // 5
        generator = torch.Generator().manual_seed(mix(SPLITS.index(split)))
        label = torch.randint(self.num_classes or 0, (n,), generator=generator)
        points = self.centers[label] + self.sigma * torch.randn(n, 2, generator=generator)
        return ArrayImages((points / self.scale).clamp(-1, 1)[:, :, None, None], label)
