"""Classification accuracy of conditional fakes by resolution (Odena et al. 2016, arXiv:1610.09585, section 4.1)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ganzoo.evaluation.interfaces import BLOCK, Extractor


def accuracy_by_resolution(
    extractor: Extractor, images: Tensor, labels: Tensor, resolutions: Iterable[int]
) -> dict[int, float]:
    """Classification accuracy in [0, 1] of images without the detail beyond each resolution r.

    Images are resized to r x r and back, bilinearly with antialiasing. If the accuracy falls with r, the images contain
    class-specific detail; if not, they are effectively upscaled small images.

    Args:
        extractor: a classifier for the labels' classes.
        images: uint8 [N, C, H, W].
        labels: [N], the classes requested from the model, or those of real images for comparison.
        resolutions: r in pixels, from 1 to the images' shorter side.

    Returns:
        The accuracy for each resolution, {r: accuracy}.

    Raises:
        ValueError: the extractor has no classes or reads another number of channels, or a resolution is out of range.
    """
    if extractor.num_classes is None:
        raise ValueError(f"{extractor.name} has no classes; choose a classifier, such as inception or digits")
    size = (images.shape[2], images.shape[3])
    found = {}
    for r in resolutions:
        if not 0 < r <= min(size):
            raise ValueError(f"resolution is {r}; choose 1 to {min(size)} for images of {size[0]}x{size[1]} pixels")
        right = 0
        for x, y in zip(images.split(BLOCK), labels.split(BLOCK), strict=True):
            logits = extractor(_resized(_resized(x.float(), (r, r)), size).round().clamp(0, 255).byte())["logits"]
            right += int((logits.argmax(1).cpu() == y.cpu()).sum())
        found[r] = right / len(images)
    return found


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    return x if x.shape[2:] == torch.Size(size) else interpolate(x, size, mode="bilinear", antialias=True)
