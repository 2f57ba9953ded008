"""Numbers that change with the images seen."""

from __future__ import annotations

import math


def cosine(first: float, last: float, images_seen: int, images: float) -> float:
    """From `first` to `last` along half a cosine over `images` images, then constant."""
    share = min(images_seen / images, 1.0)
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


def falling(first: float, images_seen: int, images: float | None) -> float:
    """Linear decay from `first` to 0 over `images` images; constant if None."""
    return first if images is None else first * max(0.0, 1 - images_seen / images)


def growth(images_seen: int, doublings: int, stable: float, fade: float) -> tuple[int, float]:
    """Stage and alpha of a network that grows: sizes double `doublings` times (Karras et al. 2018, arXiv:1710.10196,
    appendix A).

    Stage 0, the smallest size, lasts `stable` images. Each later one begins with `fade` images in which alpha, the
    weight of the new layers, rises from 0 to 1; `stable` images with alpha 1 follow. The last stage does not end.
    """
    if images_seen < stable:
        return 0, 1.0
    length, since = stable + fade, images_seen - stable
    if since >= doublings * length:  # all fades are over; the last stage goes on
        return doublings, 1.0
    before, share = divmod(since, length)  # stages that have ended, besides the first; images of this one
    return int(before) + 1, share / fade if share < fade else 1.0
