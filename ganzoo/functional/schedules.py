"""Numbers that change with the images seen."""

from __future__ import annotations

import math


def cosine(first: float, last: float, images_seen: int, images: float) -> float:
    """From `first` to `last` along half a cosine over `images` images, then constant."""
    share = min(images_seen / images, 1.0)
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2
