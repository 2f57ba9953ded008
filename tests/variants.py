"""Arguments for small networks, by each variant's signature, so that tests cover new variants automatically."""

from __future__ import annotations

import inspect

import ganzoo

SMALL = {"image_size": 16, "channels": 1, "width": 4, "hidden": 16, "d_hidden": 8, "z_dim": 6}
SMALL |= {"num_classes": 3, "source_channels": 2, "blocks": 1}
OTHERS = {"ImprovedGAN": {"d_hidden": 32}}  # its last layers have a quarter: both of two ReLUs may be inactive
DEEP = ("SNGAN", "ProjectionGAN", "SAGAN", "BigGAN", "ContraGAN", "ReACGAN")
OTHERS |= {name: {"image_size": 8} for name in DEEP}  # faster
OTHERS |= {"StyleGAN2": {"image_size": 8, "mapping_layers": 2, "r1_interval": 2, "path_interval": 2}}


def small(name: str) -> dict[str, int]:
    parameters = inspect.signature(getattr(ganzoo, name).__init__).parameters
    return {key: value for key, value in SMALL.items() if key in parameters} | OTHERS.get(name, {})
