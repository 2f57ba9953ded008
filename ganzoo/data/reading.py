"""How picture files become images: the part of the data settings that belongs to a trained model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageColor
from torch import Tensor

from ganzoo.core.limits import Bounds, Size, normal_size, sides
from ganzoo.core.pixels import to_uint8
from ganzoo.core.text import path_of
from ganzoo.data.archive import File
from ganzoo.data.decoding import Fit, fitted, flattened, frame, pixels, upright
from ganzoo.data.rasters import Raster

LUMA = 0.299, 0.587, 0.114  # of red, green and blue in grey, as in Pillow


@dataclass(frozen=True)
class Reading:
    """Reads picture files as images [channels, H, W]: uint8, or float32 in [-1, 1] if `deep`.

    Args:
        size: Pixels per side of a square, or [height, width]; None keeps each picture's own size, uncropped.
        channels: 1 for grey, 3 for colour, 2 and 4 for these with alpha; others are bands as in the file.
        fit: For pictures of another shape; see `ganzoo.data.decoding.fitted`. "pad" takes the background for 1 or 3
            channels, transparent black for alpha, and the lowest value for other bands.
        background: Colour under transparent pictures, for 1 or 3 channels; None for white.
        range: The values that become -1 and 1, others are clipped; "type" for those of each file's integers, such as 0
            and 65535.
        deep: Whether images keep more than 8 bits per channel.
    """

    size: Size | None
    channels: int = 3
    fit: Fit = "crop"
    background: str | None = None
    range: Bounds | Literal["type"] = "type"
    deep: bool = False

    def __call__(self, file: File | str) -> Tensor:
        """Read a file.

        Raises:
            Exception: Whatever Pillow, numpy or tifffile raise on a broken file.
        """
        file = path_of(file) if isinstance(file, str) else file
        return self.image(upright(file, 2 * max(sides(self.size)) if self.size else None))

    def image(self, picture: Image.Image | Raster) -> Tensor:
        """The image of an upright picture.

        Raises:
            ValueError: It has other bands, values that are not finite, or no range.
        """
        if isinstance(picture, Image.Image):
            if not self.deep and self.channels <= 4:
                picture = flattened(picture, self.channels, self._colour)
                return fitted(picture, self.size, self.fit, self._colour) if self.size else pixels(picture)
            picture = as_raster(picture)
        values, alpha = self._converted(self._scaled(picture), picture.alpha)
        if self.size:
            values = self._fitted(values, alpha)
        image = torch.from_numpy(values.transpose(2, 0, 1).copy()).mul_(2).sub_(1)
        return image if self.deep else to_uint8(image)

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
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images, which need a `size`."""
        assert self.size is not None
        return self.channels, *sides(self.size)

    @property
    def dtype(self) -> torch.dtype:
        """Of the images."""
        return torch.float32 if self.deep else torch.uint8

    @property
    def unusual(self) -> list[str]:
        """Settings, besides size, channels and fit, that are not the default; for fingerprints."""
        given = {"background": (self.background, None), "range": (self.range, "type"), "deep": (self.deep, False)}
        return [f"{name} {value}" for name, (value, default) in given.items() if value != default]

    @property
    def _colour(self) -> str:
        return self.background or "white"

    def _scaled(self, picture: Raster) -> np.ndarray:
        """Values in [0, 1], float32; opacity has its type's range."""
        values, kind = picture.values, picture.values.dtype
        if kind.kind == "f" and not np.isfinite(values).all():
            raise ValueError("values that are not finite")
        own = (np.iinfo(kind).min, np.iinfo(kind).max) if kind.kind in "iu" else None
        if self.range == "type" and own is None:
            raise ValueError(f"{kind} values have no range of their own: set data.range to [lowest, highest]")
        low, high = (own or (0, 1)) if isinstance(self.range, str) else self.range
        x: Any = values.astype(np.float32 if kind.itemsize < 4 else np.float64)
        bottom, top = own or (0, 1)
        parts = [(x, low, high)] if not picture.alpha else [(x[..., :-1], low, high), (x[..., -1], bottom, top)]
        for part, least, most in parts:  # in place, as pictures may be large
            part -= least
            part /= most - least
        return np.clip(x, 0, 1, out=x).astype(np.float32, copy=False)

    def _converted(self, x: np.ndarray, alpha: bool) -> tuple[np.ndarray, bool]:
        """[H, W, C] in [0, 1] with this number of channels, and whether the last one is opacity."""
        bands = x.shape[2] - alpha
        if x.shape[2] == self.channels:
            return x, alpha
        if bands not in (1, 3) or self.channels > 4:
            raise ValueError(f"{bands + alpha} bands, not {self.channels}")
        colour, opacity = x[..., :bands], x[..., bands:] if alpha else np.ones_like(x[..., :1])
        colours = 1 if self.channels < 3 else 3
        if alpha and self.channels == colours:
            colour = opacity * colour + (1 - opacity) * self._background(3)
        if colour.shape[2] == 3 and colours == 1:
            colour = (colour @ np.array(LUMA, np.float32))[..., None]
        colour = np.broadcast_to(colour, (*x.shape[:2], colours))
        if self.channels == colours:
            return colour, False
        return np.concatenate([colour, opacity], axis=2), True

    def _background(self, channels: int) -> np.ndarray:
        """The background in [0, 1], [channels]."""
        colour = np.array(ImageColor.getrgb(self._colour)[:3], np.float32) / 255
        return colour if channels == 3 else (colour @ np.array(LUMA, np.float32))[None]

    def _fitted(self, x: np.ndarray, alpha: bool) -> np.ndarray:
        """[H, W, C] in [0, 1] cropped, resampled and padded."""
        assert self.size is not None
        (left, top, right, bottom), inner, place = frame((x.shape[1], x.shape[0]), self.size, self.fit)
        x = x[top:bottom, left:right]
        if (x.shape[1], x.shape[0]) != inner:
            x = _premultiplied(x, inner) if alpha else _resampled(x, inner)
        if x.shape[:2] == (whole := sides(self.size)):
            return x
        empty = self._background(self.channels) if self.channels in (1, 3) else 0
        canvas = np.full((*whole, self.channels), empty, np.float32)
        left, top, right, bottom = place
        canvas[top:bottom, left:right] = x
        return canvas


def as_raster(picture: Image.Image) -> Raster:
    """The values of Pillow's picture of 8 bits, in grey or colour, with alpha if it is transparent."""
    grey = picture.mode in ("1", "L", "LA", "La")
    alpha = bool(picture.has_transparency_data)
    picture = picture.convert(("LA" if grey else "RGBA") if alpha else "L" if grey else "RGB")
    return Raster(np.array(picture).reshape(picture.height, picture.width, -1), alpha)


def _resampled(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[h, w, C] in [0, 1] at another (width, height), each band by itself."""
    bands = [
        Image.fromarray(np.ascontiguousarray(band)).resize(size, Image.Resampling.LANCZOS)
        for band in x.transpose(2, 0, 1)
    ]
    return np.stack([np.asarray(band) for band in bands], axis=2).clip(0, 1)


def _premultiplied(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The same for colours and opacity, so that invisible colours have no weight."""
    opacity = x[..., -1:]
    x = _resampled(np.concatenate([x[..., :-1] * opacity, opacity], axis=2), size)
    opacity = x[..., -1:]
    colours = np.divide(x[..., :-1], opacity, out=np.zeros_like(x[..., :-1]), where=opacity > 0)
    return np.concatenate([colours.clip(0, 1), opacity], axis=2)


def squeezed(size: Size, channels: int) -> Mapping[str, Reading]:
    """The reading of a data set of square pictures that are resampled to `size`; empty if `size` is square, too, since
    every `fit` then gives the same result."""
    height, width = sides(size)
    return {} if height == width else {"image": Reading(size, channels, "squeeze")}
