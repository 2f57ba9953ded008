"""What makes a network's output a function of its input and a seed: float32 products, and noise from the seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def ieee_float32(device: torch.device) -> Iterator[None]:
    """No autocast, and products in float32 rather than TF32 or bfloat16: 10 bits are not enough for a distance.

    Set for each backend: `allow_tf32` and `set_float32_matmul_precision` fail, or are not restored to what they were,
    where a user has set the precision in another way.
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
    """A generator's own noise follows from the seed; the global random numbers go on as if nothing had been drawn."""
    forked: list[torch.device] = [] if device.type == "cpu" else [device]  # the CPU's are always kept
    with torch.random.fork_rng(forked, device_type="cuda" if device.type == "cpu" else device.type):
        torch.default_generator.manual_seed(seed)  # `torch.manual_seed` would change those of all devices
        if forked:
            with torch.accelerator.device_index(device.index):
                torch.get_device_module(device).manual_seed(seed)
        yield
