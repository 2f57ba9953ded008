"""The FIR filter against its definition: zeros inserted, filtered by loops, pixels dropped; with second gradients."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from ganzoo.layers.fir import FIRBlur, FIRDown, FIRUp


def defined(x, up=1, down=1, before=0, after=0, gain=1.0):
    """Zero insertion, padding, convolution with the filter, and every `down`-th pixel."""
    n, c, h, w = x.shape
    wide = x.new_zeros(n, c, h * up, w * up)
    wide[:, :, ::up, ::up] = x
    wide = torch.nn.functional.pad(wide, (before, after, before, after))
    taps = [1 / 8, 3 / 8, 3 / 8, 1 / 8]
    height, width = wide.shape[2] - 3, wide.shape[3] - 3
    out = sum(
        gain * a * b * wide[:, :, i : i + height, j : j + width] for i, a in enumerate(taps) for j, b in enumerate(taps)
    )
    return out[:, :, ::down, ::down]


CASES = {
    "up": (FIRUp(), {"up": 2, "before": 2, "after": 1, "gain": 4}, (12, 8)),
    "down": (FIRDown(), {"down": 2, "before": 1, "after": 1}, (3, 2)),
    "blur": (FIRBlur(1, gain=4.0), {"before": 1, "after": 1, "gain": 4}, (5, 3)),
    "wide": (FIRBlur(2), {"before": 2, "after": 2}, (7, 5)),
}


@pytest.mark.parametrize(("layer", "definition", "size"), CASES.values(), ids=CASES)
def test_layers_are_their_definition(layer, definition, size):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 4, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    assert y.shape == (2, 3, *size)
    torch.testing.assert_close(y, defined(x, **definition))
    assert gradcheck(layer, x) and gradgradcheck(layer, x)


def test_the_precision_is_that_of_the_image():
    x = torch.randn(1, 2, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert FIRUp()(x).dtype == torch.float32 and FIRUp()(x.bfloat16()).dtype == torch.bfloat16
