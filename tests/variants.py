"""Arguments for small networks, by each variant's signature, so that tests cover new variants automatically."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import ganzoo

SMALL = {"image_size": 16, "channels": 1, "width": 4, "hidden": 16, "d_hidden": 8, "z_dim": 6}
SMALL |= {"num_classes": 3, "source_channels": 2, "blocks": 1}
OTHERS = {"ImprovedGAN": {"d_hidden": 32}}  # its last layers have a quarter: both of two ReLUs may be inactive
DEEP = ("SNGAN", "ProjectionGAN", "SAGAN", "BigGAN", "ContraGAN", "ReACGAN")
OTHERS |= {name: {"image_size": 8} for name in DEEP}  # faster

TWINS = {"ProjectionGAN": "SAGAN", "ReACGAN": "ContraGAN"}  # with networks and updates like another variant's


def small(name: str) -> dict[str, int]:
    parameters = inspect.signature(getattr(ganzoo, name).__init__).parameters
    return {key: value for key, value in SMALL.items() if key in parameters} | OTHERS.get(name, {})


def variants(*left_out: str) -> list[Any]:
    """All other variants, as parameters of tests that take a second; of two like each other, one is slow."""
    names = [name for name in ganzoo.list_models() if name not in left_out]
    return [pytest.param(name, marks=[pytest.mark.slow] * (name in TWINS)) for name in names]
