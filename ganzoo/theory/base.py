"""Layout of the figures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import pad

DATA, GENERATOR, DISCRIMINATOR = "black", "tab:orange", "tab:blue"  # in all figures


def panels(columns: int, rows: int = 1, width: float = 3.2, height: float = 3.0, **axes: Any) -> tuple[Figure, Any]:
    """A figure with axes [rows, columns] of `width` x `height` inches each; `axes` are arguments of
    `Figure.subplots`."""
    figure = Figure(figsize=(columns * width, rows * height), dpi=100, layout="constrained")
    grid: np.ndarray = figure.subplots(rows, columns, squeeze=False, **axes)
    for one in grid.flat:
        one.spines[["top", "right"]].set_visible(False)
    return figure, grid


def mosaic(images: Tensor, columns: int) -> Tensor:
    """Images [N, 1, H, W] in [-1, 1], N a multiple of `columns`, as one image with gaps of one pixel."""
    tiles = pad(images.clamp(-1, 1)[:, 0], (0, 1, 0, 1), value=math.nan)
    height, width = tiles.shape[1:]
    return tiles.view(-1, columns, height, width).transpose(1, 2).reshape(-1, columns * width)[:-1, :-1]


def show(axes: Any, images: Tensor, columns: int) -> None:
    """Images [N, 1, H, W] in [-1, 1] as a mosaic, without ticks."""
    axes.imshow(mosaic(images, columns).numpy(), cmap="gray", vmin=-1, vmax=1)
    axes.set_axis_off()
