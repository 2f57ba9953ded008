"""Image shapes that convolutional networks take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    near = ([_around(side, step) for side in (height, width)] for step in steps)
    shapes = [(h, w) for pair in near for h, w in product(*pair) if (h == w or height != width) and takes(h, w)]
    best = min(shapes, key=lambda found: (abs(found[0] - height) + abs(found[1] - width), -found[0]))
    what = squares if height == width else others or squares
    raise ValueError(f"image_size {normal_size(image_size)}: {what}; try {normal_size(best)}")


def _around(side: int, step: int) -> list[int]:
    """Multiples of a step, from 4 up: near a side, and 4 to 7 steps, which networks that double sizes begin with."""
    return [max(4, step * k) for k in (4, 5, 6, 7, *range(side // step - 1, side // step + 5))]


def halvings(height: int, width: int) -> int:
    """How often both sides can be halved."""
    both = height | width
    return (both & -both).bit_length() - 1


def doublings(height: int, width: int) -> int:
    """n, if the shorter side has 4 2^n to 7 2^n pixels."""
    return (min(height, width) // 4).bit_length() - 1


# Feature maps of residual networks, in multiples of their width, by the number of doublings from 4 pixels. G's: of its
# linear layer and after each doubling; D's: after each block. As in Brock et al. 2018 (arXiv:1809.11096, appendix B),
# except below 64 pixels, where they are those of Miyato et al. 2018 for 32 (arXiv:1802.05957, table 4); theirs for 48,
# table 5, have other widths.
UP = {1: (4, 4), 2: (4, 4, 4), 3: (4, 4, 4, 4), 4: (16, 16, 8, 4, 2), 5: (16, 16, 8, 4, 2, 1)}
UP |= {6: (16, 16, 8, 8, 4, 2, 1), 7: (16, 16, 8, 8, 4, 2, 1, 1)}
DOWN = {1: (2, 2, 2), 2: (2, 2, 2), 3: (2, 2, 2, 2), 4: (1, 2, 4, 8, 16), 5: (1, 2, 4, 8, 16, 16)}
DOWN |= {6: (1, 2, 4, 8, 8, 16, 16), 7: (1, 1, 2, 4, 8, 8, 16, 16)}


def doubled(image_size: Size, what: str, least: int, most: int = 20) -> tuple[int, int, int]:
    """(n, h, w) for images of h 2^n x w 2^n pixels, with 4 to 7 pixels on the shorter side and n from `least` to
    `most`.

    Args:
        image_size: of the images.
        what: for the error message: what doubles sizes, and how often.
        least, most: limits of n.

    Raises:
        ValueError: there is no such n; the message names the nearest size.
    """

    def takes(height: int, width: int) -> bool:
        n = doublings(height, width)
        return least <= n <= most and halvings(height, width) >= n

    height, width = shape(image_size, takes, f"{what}, from a shorter side of 4 to 7 pixels up")
    n = doublings(height, width)
    return n, height >> n, width >> n


def maps_by_size(n: int, side: int, maps: int, width: int) -> list[int]:
    """Feature maps at each of n + 1 sizes, from the smallest: `maps` divided by the shorter side, but at most `width`.

    Args:
        n: how often sizes double.
        side: the shorter one of the smallest size, in pixels.
        maps, width: as above.

    Raises:
        ValueError: a size has none.
    """
    if maps < side << n:
        raise ValueError(
            f"maps is {maps}, but feature maps of {side << n} pixels have maps / {side << n} channels: use {side << n} "
            "or more"
        )
    return [min(maps // (side << i), width) for i in range(n + 1)]


def residual_layout(image_size: Size) -> tuple[int, int, int]:
    """(n, h, w) of residual networks, n from 1 to 7: see `doubled`."""
    return doubled(image_size, "residual networks double the height and width 1 to 7 times", 1, len(UP))


def reductions(n: int) -> int:
    """How often D halves images that G doubles n times: n times; small images only to 8 pixels."""
    return n if n > 3 else max(1, n - 1)


def attended(image_size: Size, attention: int) -> int:
    """How often images are halved until feature maps have a shorter side of at most `attention` pixels, at least once.

    Raises:
        ValueError: D has no such feature maps.
    """
    n, *grid = residual_layout(image_size)
    side = min(grid) << n
    found = next((k for k in range(1, reductions(n) + 1) if side >> k <= attention), None)
    if found is None:
        least = side >> reductions(n)
        raise ValueError(f"attention is {attention}, but D's feature maps have {least} pixels or more: use {least}")
    return found


# Feature maps of FastGAN's generator (Liu et al. 2021, arXiv:2101.04775) at 4, 8, 16, ..., 1024 pixels, in multiples of
# its width
GATED = (16, 8, 4, 2, 2, 1, 1 / 2, 1 / 4, 1 / 8)


def gated_layout(image_size: Size, least: int = 3) -> tuple[int, int, int]:
    """(n, h, w) of FastGAN's networks, n from `least` to 8: see `doubled`."""
    return doubled(image_size, f"the network doubles the height and width {least} to 8 times", least, len(GATED) - 1)


def gated_maps(width: float, multiples: Sequence[float] = GATED) -> list[int]:
    """Numbers of feature maps, at least 1."""
    return [max(1, int(width * multiple)) for multiple in multiples]
