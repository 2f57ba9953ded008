"""The Laplacian pyramid (Burt and Adelson 1983) of images, halved per level.

Downsampling d averages 2x2 pixels, upsampling u is bilinear. Reconstruction from the residuals I_k - u(I_{k+1}) is
exact for any d and u; with these, all I_k stay in the range of x.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate


def gaussian_pyramid(x: Tensor, levels: int) -> list[Tensor]:
    """x [N, C, H, W] -> [I_0, ..., I_K] with I_0 = x and I_k = d(I_{k-1}) [N, C, H / 2^k, W / 2^k], K = levels."""
    images = [x]
    for _ in range(levels):
        images.append(avg_pool2d(images[-1], 2))
    return images


def expand(x: Tensor) -> Tensor:
    """u(x): [N, C, H, W] -> [N, C, 2 H, 2 W]."""
    return interpolate(x, scale_factor=2, mode="bilinear")
