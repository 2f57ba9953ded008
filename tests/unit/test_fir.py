"""Doubling and halving with a binomial filter, against their definition."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from ganzoo.layers.fir import FIRDown, FIRUp

TAPS = [[a * b / 64 for a in (1, 3, 3, 1)] for b in (1, 3, 3, 1)]


def filtered(x, gain):
    """Each pixel is the weighted sum of the 4x4 square from the second pixel above and left of it, by loops."""
    out = torch.zeros(*x.shape[:2], x.shape[2] + 1, x.shape[3] + 1, dtype=x.dtype)
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            for a in range(4):
                for b in range(4):
                    k, m = i + a - 2, j + b - 2
                    if 0 <= k < x.shape[2] and 0 <= m < x.shape[3]:
                        out[:, :, i, j] += gain * TAPS[a][b] * x[:, :, k, m]
    return out


@pytest.mark.parametrize("shape", [(2, 3, 4, 6), (1, 1, 2, 2), (1, 5, 8, 4)])
def test_definition_in_float64(shape):
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    zeros = torch.zeros(*shape[:2], 2 * shape[2], 2 * shape[3], dtype=torch.float64)
    zeros[:, :, ::2, ::2] = x
    torch.testing.assert_close(FIRUp().double()(x), filtered(zeros, 4)[:, :, :-1, :-1])
    torch.testing.assert_close(FIRDown().double()(x), filtered(x, 1)[:, :, 1:-1:2, 1:-1:2])


@pytest.mark.parametrize("layer", [FIRUp(), FIRDown()])
def test_first_and_second_gradients(layer):
    x = torch.randn(1, 2, 4, 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(layer.double(), x) and gradgradcheck(lambda x: layer(x).square(), x)


def test_a_constant_image_stays_constant_within_its_border():
    x = torch.ones(1, 2, 6, 6)
    assert FIRUp()(x)[:, :, 1:-1, 1:-1].eq(1).all() and FIRDown()(x)[:, :, 1:-1, 1:-1].eq(1).all()
    assert not FIRUp().state_dict()
