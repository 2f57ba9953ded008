"""Statistics of real images on disk; the file name is a hash of all that they depend on: images, extractor, state."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ganzoo.checkpoint.bounds import read_npz
from ganzoo.core.atomic import remove_partial, write_atomically
from ganzoo.core.files import open_file
from ganzoo.evaluation.interfaces import BLOCK
from ganzoo.functional.frechet import Gaussian

SCHEMA = 1  # increment when the meaning of a state changes


def folder() -> Path:
    """`$GANZOO_CACHE`, or `ganzoo` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("GANZOO_CACHE") or f"{home}/ganzoo").expanduser()


def path(**key: Any) -> Path:
    """File of the statistics with this key; its name is a hash of all parts of the key."""
    text = json.dumps({"schema": SCHEMA, "block": BLOCK, **key}, sort_keys=True)
    return folder() / "statistics" / f"{hashlib.sha256(text.encode()).hexdigest()}.npz"


def save(file: Path, value: Gaussian | Tensor) -> None:
    """Writes atomically: concurrent readers and writers never see a partial file."""
    parts = value._asdict() if isinstance(value, Gaussian) else {"rows_of_output": value}
    arrays: dict[str, Any] = {name: np.asarray(part) for name, part in parts.items() if part is not None}
    file.parent.mkdir(parents=True, exist_ok=True)
    remove_partial(file.parent)
    write_atomically(file, lambda out: np.savez(out, **arrays))


def load(file: Path, n: int) -> Gaussian | Tensor | None:
    """The statistics of n images; None if the file is missing, or, with a warning, damaged. Never unpickles."""
    try:
        with open_file(file) as opened:
            found = {name: torch.from_numpy(array) for name, array in read_npz(opened).items()}
        value = found["rows_of_output"] if "rows_of_output" in found else Gaussian(int(found.pop("n")), **found)
        if not _is_whole(value, n):
            raise ValueError(f"not finite statistics of {n} images")
        return value
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # numpy, zipfile and zlib raise many types for damaged files
        why = str(error).partition("\n")[0]  # without numpy's advice to unpickle it
        warnings.warn(f"{file} is damaged ({why}) and is recomputed", stacklevel=2)
        return None


def _is_whole(value: Any, n: int) -> bool:
    """Whether the statistics are finite and those of n images."""
    if isinstance(value, Tensor):
        return len(value) == n and bool(value.isfinite().all())
    few, d = value.cov is None, len(value.mean)
    spread = value.rows if few else value.cov
    finite = all(bool(tensor.isfinite().all()) for tensor in (value.mean, spread, value.root))
    return value.n == n and spread.shape == (n if few else d, d) and len(value.root) == d and finite
