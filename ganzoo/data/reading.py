"""How picture files become images: the part of the data settings that belongs to a trained model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from PIL import Image
from torch import Tensor

from ganzoo.core.limits import Size, normal_size, sides
from ganzoo.core.text import path_of
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

    def __call__(self, file: File | str) -> Tensor:
        """Read a file.

        Raises:
            Exception: Whatever Pillow raises on a broken file.
        """
        file = path_of(file) if isinstance(file, str) else file
        return self.image(upright(file, 2 * max(sides(self.size)) if self.size else None))

    def image(self, picture: Image.Image) -> Tensor:
        """The image of an upright picture."""
        picture = picture.convert("L" if self.channels == 1 else "RGB")
        return fitted(picture, self.size, self.fit) if self.size else pixels(picture)

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments as plain values."""
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {**plain, "size": normal_size(self.size)}

    def __str__(self) -> str:
        usual = Reading(None).settings
        named = ("size", "channels", "fit")
        return ", ".join(f"{k} {v}" for k, v in self.settings.items() if k in named or v != usual[k])

    @property
    def unusual(self) -> list[str]:
        """The settings, besides size and channels, that differ from the defaults; for fingerprints."""
        usual = {**Reading(None).settings, "size": self.settings["size"], "channels": self.channels}
        return [f"{name} {value}" for name, value in self.settings.items() if value != usual[name]]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images, which need a `size`."""
        assert self.size is not None
        return self.channels, *sides(self.size)


def squeezed(size: Size, channels: int) -> Mapping[str, Reading]:
    """The reading of data that consists of squares, which are resampled to any shape; empty for squares, since these
    are the same with every `fit`."""
    height, width = sides(size)
    return {} if height == width else {"image": Reading(size, channels, "squeeze")}
