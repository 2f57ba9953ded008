"""Arguments for small networks, by each variant's signature, so that tests cover new variants automatically."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import nn

import ganzoo
from ganzoo.networks.features import SOURCES, UNIT, Source

SMALL = {"image_size": 16, "channels": 1, "width": 4, "hidden": 16, "d_hidden": 8, "z_dim": 6}
SMALL |= {"num_classes": 3, "source_channels": 2, "blocks": 1}
OTHERS: dict[str, dict[str, Any]] = {}
OTHERS["ImprovedGAN"] = {"d_hidden": 32}  # its last layers have a quarter: both of two ReLUs may be inactive
DEEP = ("SNGAN", "ProjectionGAN", "SAGAN", "BigGAN", "ContraGAN", "ReACGAN")
OTHERS |= {name: {"image_size": 8} for name in DEEP}  # faster
OTHERS |= {"R3GAN": {"image_size": 8, "group_size": 2, "gamma": 0.5, "burn_in": 100.0}}
OTHERS["FastGAN"] = {"image_size": 32, "width": 2, "similarity": "pixels"}  # LPIPS' network is downloaded
OTHERS["ProjectedGAN"] = {"image_size": 8, "d_width": 4, "features": "tiny"}
OTHERS["ProGAN"] = {"image_size": 8, "stable": 16.0, "fade": 24.0}  # two batches of eight images, three of the fade
OTHERS |= {"StyleGAN2": {"image_size": 8, "mapping_layers": 2, "r1_interval": 2, "path_interval": 2}}
OTHERS |= {"StyleGAN3": {"mapping_layers": 2, "layers": 3, "gamma": 1.0, "r1_interval": 2}}

TWINS = {"ProjectionGAN": "SAGAN", "ReACGAN": "ContraGAN"}  # with networks and updates like another variant's


def tiny() -> list[nn.Module]:
    """The layers of a fast feature network, the same at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [
            nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
            nn.Sequential(nn.Conv2d(4, 5, 3, stride=2, padding=1), nn.ReLU()),
        ]


SOURCES["tiny"] = Source((4, 5), (1, 2), 8, UNIT, "0", make=tiny)


def small(name: str) -> dict[str, Any]:
    parameters = inspect.signature(getattr(ganzoo, name).__init__).parameters
    return {key: value for key, value in SMALL.items() if key in parameters} | OTHERS.get(name, {})


def variants(*left_out: str) -> list[Any]:
    """All other variants, as parameters of tests that take a second; of two like each other, one is slow."""
    names = [name for name in ganzoo.list_models() if name not in left_out]
    return [pytest.param(name, marks=[pytest.mark.slow] * (name in TWINS)) for name in names]
