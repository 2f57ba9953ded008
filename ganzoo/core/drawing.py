"""Images, grids and videos from tensors."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from ganzoo.core.pixels import as_bytes, to_uint8

BOARD = 205, 255  # greys of the checkerboard below transparent images


def picture(images: Tensor, columns: int = 10, tile: int = 64, bands: Sequence[int] | None = None) -> Image.Image:
    """A grid of images, or a scatter plot of points.

    Args:
        images: [N, C, H, W] in [-1, 1], or bytes: a grid, see `shown`; [N, 2, 1, 1]: points in the plane.
        columns: of the grid.
        tile: minimum width in pixels; narrower images are enlarged by an integer factor.
        bands: see `shown`.

    Raises:
        ValueError: a band does not exist.
    """
    images = images.detach().cpu()
    if tuple(images.shape[1:]) == (2, 1, 1):
        return _plane(images.float().flatten(1))
    images = shown(images, bands)
    scale = -(-tile // images.shape[-1])
    images = images if images.dtype == torch.uint8 else to_uint8(images.float())  # a quarter of the memory
    images = images.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    return Image.fromarray(make_grid(images, columns, pad_value=0).permute(1, 2, 0).numpy())


def shown(images: Tensor, bands: Sequence[int] | None = None) -> Tensor:
    """Images [N, C, H, W] in [-1, 1], or bytes, in grey or colour: [N, 1 or 3, H, W].

    Args:
        images: 2 and 4 channels are grey or colour with alpha, which is put on a checkerboard.
        bands: one or three bands to be shown, counted from 0; None for the first three of more than 4 channels.

    Raises:
        ValueError: a band does not exist.
    """
    channels = images.shape[1]
    if bands is not None or channels > 4:
        bands = list((0, 1, 2) if bands is None else bands)
        check_bands(bands, channels)
        return images[:, bands]
    if channels in (1, 3):
        return images
    images = as_bytes(images)
    colours, alpha = images[:, :-1].int(), images[:, -1:].int()
    square = max(1, min(images.shape[2:]) // 8)
    rows, columns = (torch.arange(n, device=images.device) // square for n in images.shape[2:])
    board = torch.tensor(BOARD, device=images.device)[(rows[:, None] + columns) % 2]
    return ((colours * alpha + board * (255 - alpha) + 127) // 255).to(torch.uint8)


def check_bands(bands: Sequence[int], channels: int | None = None) -> None:
    """Raise a ValueError, which begins with "bands", unless these are one or three bands of images with this number of
    channels (None for any)."""
    if len(bands) not in (1, 3) or min(bands) < 0:
        raise ValueError(f"bands is {list(bands)}; it takes one or three numbers from 0 up")
    if channels is not None and max(bands) >= channels:
        raise ValueError(f"bands is {list(bands)}, but the images' bands are 0 to {channels - 1}: choose from these")


def to_pil(images: Tensor) -> list[Image.Image]:
    """[N, C, H, W] in [-1, 1] -> N grey or colour PIL images of the same size, with alpha for C = 2 or 4.

    Raises:
        ValueError: there are more channels, or these are points in the plane.
    """
    if tuple(images.shape[1:]) == (2, 1, 1):
        raise ValueError("points in the plane are not pictures; only a grid or an array of them can be written")
    if images.shape[1] > 4:
        raise ValueError(
            f"images of {images.shape[1]} channels cannot be drawn, only those of 1 to 4: write arrays instead"
        )
    pixels = to_uint8(images.detach().float().cpu()).permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(p[..., 0] if p.shape[-1] == 1 else p) for p in pixels]


def above(sources: Tensor, images: Tensor, columns: int) -> Tensor:
    """Sources [N, C', H, W] and images [N, C, H, W] as from `shown`, both in [-1, 1] or bytes -> tiles of a grid: below
    each row of sources, a row of their images."""
    rows = []
    for part in (sources, images):
        part = part.expand(-1, max(sources.shape[1], images.shape[1]), -1, -1) if part.shape[1] == 1 else part
        blank = part.new_full((-len(part) % columns, *part.shape[1:]), 0 if part.dtype == torch.uint8 else -1)
        rows.append(torch.cat([part, blank]).unflatten(0, (-1, columns)))
    return torch.stack(rows, 1).flatten(0, 2)


def _plane(points: Tensor) -> Image.Image:
    """Points [N, 2] as black dots of 3x3 pixels in a square that shows [-1.1, 1.1] on both axes."""
    size = 512
    x = ((points / 1.1 + 1) / 2 * size).long()
    canvas = torch.full((size, size), 255, dtype=torch.uint8)
    for dx in (-1, 0, 1):
        for dy in (-1, 0, 1):
            inside = ((x >= 1) & (x < size - 1)).all(1)
            canvas[size - 1 - x[inside, 1] + dy, x[inside, 0] + dx] = 0
    return Image.fromarray(canvas.numpy())


def write_video(file: BinaryIO, frames: Sequence[Path], fps: int) -> None:
    """Encode PNG files of one size, in order, as an H.264 video in MP4; the last frame is held for two seconds."""
    import av

    with av.open(file, "w", format="mp4") as video:
        first = np.asarray(Image.open(frames[0]).convert("RGB"))
        height, width = (length - length % 2 for length in first.shape[:2])  # the codec needs even sizes
        stream = video.add_stream("libx264", rate=fps, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in [*frames, *[frames[-1]] * 2 * fps]:
            pixels = np.asarray(Image.open(frame).convert("RGB"))[:height, :width]
            video.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")))
        video.mux(stream.encode())


def animation(frames: Sequence[Path], fps: int) -> bytes:
    """PNG files, in order, as a looping GIF that holds the last frame for two seconds; of more than 64 files,
    every k-th is shown, including the last."""
    shown = frames[:: -len(frames) // 64][::-1]
    first, *others = (Image.open(frame).convert("RGB") for frame in shown)
    gif, durations = BytesIO(), [1000 // fps] * len(others) + [2000]  # milliseconds
    first.save(gif, "GIF", save_all=True, append_images=others, duration=durations, loop=0)
    return gif.getvalue()
