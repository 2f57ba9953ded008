"""How the pictures look."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

DATA, GENERATOR, DISCRIMINATOR = "black", "tab:orange", "tab:blue"  # whose is what, in every picture


def panels(columns: int, rows: int = 1, width: float = 3.2, height: float = 3.0, **axes: Any) -> tuple[Figure, Any]:
    """A figure and its axes [rows, columns], each of `width` x `height` inches; `axes` as `Figure.subplots` takes."""
    figure = Figure(figsize=(columns * width, rows * height), dpi=100, layout="constrained")
    grid: np.ndarray = figure.subplots(rows, columns, squeeze=False, **axes)
    for one in grid.flat:
        one.spines[["top", "right"]].set_visible(False)
    return figure, grid
