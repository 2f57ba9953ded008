"""Reproducible network outputs: float32 products, and noise from a seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def ieee_float32(device: torch.device) -> Iterator[None]:
    """Disables autocast, TF32 and bfloat16 products: mantissas of 10 bits or fewer are too short for distances.

    Set for each backend: `allow_tf32` and `set_float32_matmul_precision` fail, or are not restored exactly, if the user
    has set the precision through another interface.
    """
    backends: Any = torch.backends
    places = (backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv)
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds a generator's own noise; restores the global random states afterwards."""
    forked: list[torch.device] = [] if device.type == "cpu" else [device]  # the CPU's state is always restored
    with torch.random.fork_rng(forked, device_type="cuda" if device.type == "cpu" else device.type):
        torch.default_generator.manual_seed(seed)  # `torch.manual_seed` would seed all devices
        if forked:
            with torch.accelerator.device_index(device.index):
                torch.get_device_module(device).manual_seed(seed)
        yield
