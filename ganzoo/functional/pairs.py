"""Distances of translated images to their true partners."""

from __future__ import annotations

import torch
from torch import Tensor


def l1_and_psnr(images: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Mean absolute difference, of the range 0 to 1, and peak signal-to-noise ratio in dB of each image.

    Args:
        images: uint8 [N, C, H, W].
        truth: uint8 [M, C, H, W]; image i is compared with `truth[i % M]`.

    Returns:
        Two float64 [N]. Equal images get the ratio of a pair in which a single value differs by one level, so that
        means stay finite.
    """
    l1, psnr = [], []
    for i, image in enumerate(images):
        error = (image.double() - truth[i % len(truth)].double()) / 255
        mse = error.square().mean().clamp(min=1 / 255**2 / error.numel())
        l1.append(error.abs().mean())
        psnr.append(-10 * mse.log10())
    return torch.stack(l1), torch.stack(psnr)
