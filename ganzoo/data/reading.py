"""How picture files become images: the part of the data settings that belongs to a trained model."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from ganzoo.core.limits import Size, sides
from ganzoo.data.archive import File
from ganzoo.data.decoding import Fit, fitted, pixels, upright


@dataclass(frozen=True)
class Reading:
    """Reads picture files as images, uint8 [channels, H, W].

    Args:
        size: Pixels per side of a square, or [height, width]; None keeps each picture's own size, uncropped.
        channels: 3 for colour, 1 for grey.
        fit: For pictures of another shape; see `ganzoo.data.decoding.fitted`.
    """

    size: Size | None
    channels: int = 3
    fit: Fit = "crop"

    def __call__(self, file: File) -> Tensor:
        """Read a file.

        Raises:
            Exception: Whatever Pillow raises on a broken file.
        """
        return self.image(upright(file, 2 * max(sides(self.size)) if self.size else None))

    def image(self, picture: Image.Image) -> Tensor:
        """The image of an upright picture."""
        picture = picture.convert("L" if self.channels == 1 else "RGB")
        return fitted(picture, self.size, self.fit) if self.size else pixels(picture)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images, which need a `size`."""
        assert self.size is not None
        return self.channels, *sides(self.size)
