"""The transformation of consistency regularisation."""

from __future__ import annotations

import torch
from torch import Tensor

from ganzoo.functional.base import reflected


def flip_and_shift(x: Tensor, flip: Tensor, shift: Tensor) -> Tensor:
    """Images, some mirrored, each shifted; pixels from outside are reflected, without repeating the border.

    Args:
        x: [N, C, H, W].
        flip: bool [N]: mirror from left to right, before the shift.
        shift: int [N, 2]: pixels down and to the right, smaller than H and W in size.
    """
    n, _, h, w = x.shape
    rows = reflected(torch.arange(h, device=x.device) - shift[:, :1], h)  # [N, H]: the row that each row shows
    columns = reflected(torch.arange(w, device=x.device) - shift[:, 1:], w)
    columns = torch.where(flip[:, None], w - 1 - columns, columns)
    images = torch.arange(n, device=x.device)[:, None, None]
    return x.movedim(1, -1)[images, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)
