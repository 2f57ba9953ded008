"""Environment of a run or a record: versions, devices, command."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from functools import cache
from typing import Any

PACKAGES = ("torch", "torchvision", "lightning", "torchmetrics", "torch-fidelity", "jsonargparse", "numpy")


def environment() -> dict[str, Any]:
    """What a run depends on besides its config."""
    return {
        "ganzoo": version("ganzoo"),
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "devices": devices(),
        "command": f"python -m ganzoo {shlex.join(sys.argv[1:])}".rstrip(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def devices() -> list[str]:
    """The machine's processors and accelerators."""
    import torch  # not needed for versions

    found = [f"CPU, {os.cpu_count()} cores, {torch.get_num_threads()} threads"]
    found += [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    return found + (["mps"] if torch.backends.mps.is_available() else [])


@cache  # each reads the package's metadata
def version(package: str) -> str | None:
    """Version of an installed package; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
