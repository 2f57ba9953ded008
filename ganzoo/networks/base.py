"""Image shapes that convolutional networks take."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

from ganzoo.core.limits import Size, normal_size, sides


def shape(
    image_size: Size, takes: Callable[[int, int], bool], squares: str, others: str | None = None
) -> tuple[int, int]:
    """Height and width of the images of a network.

    Args:
        image_size: side of a square, or [height, width], in pixels.
        takes: whether the network takes this height and width, both at least 4.
        squares: what squares the network takes, for the message.
        others: what other shapes it takes, unless the same is true of their sides.

    Raises:
        ValueError: it does not take this shape; the message names the nearest one that it takes, for a square a square.
    """
    height, width = sides(image_size)
    if takes(height, width):
        return height, width
    steps = (2**k for k in range(13))
    near = ([[max(4, step * (side // step + k)) for k in range(-1, 5)] for side in (height, width)] for step in steps)
    shapes = [(h, w) for pair in near for h, w in product(*pair) if (h == w or height != width) and takes(h, w)]
    best = min(shapes, key=lambda found: (abs(found[0] - height) + abs(found[1] - width), -found[0]))
    what = squares if height == width else others or squares
    raise ValueError(f"image_size {normal_size(image_size)}: {what}; try {normal_size(best)}")


def halvings(height: int, width: int) -> int:
    """How often both sides can be halved."""
    both = height | width
    return (both & -both).bit_length() - 1
