"""Statistics of real images on disk: found again only if images, split, extractor and kind are the same to the bit."""

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

SCHEMA = 1  # raise it when what a state means changes


def folder() -> Path:
    """`$GANZOO_CACHE`, or `ganzoo` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("GANZOO_CACHE") or f"{home}/ganzoo").expanduser()


def path(**key: Any) -> Path:
    """Where the statistics of a key lie; every part of the key is a part of the name."""
    text = json.dumps({"schema": SCHEMA, "block": BLOCK, **key}, sort_keys=True)
    return folder() / "statistics" / f"{hashlib.sha256(text.encode()).hexdigest()}.npz"


def save(file: Path, value: Gaussian | Tensor) -> None:
    """Write atomically: a reader, or another process that writes the same, never sees half a file."""
    parts = value._asdict() if isinstance(value, Gaussian) else {"rows_of_output": value}
    arrays: dict[str, Any] = {name: np.asarray(part) for name, part in parts.items() if part is not None}
    file.parent.mkdir(parents=True, exist_ok=True)
    remove_partial(file.parent)
    write_atomically(file, lambda out: np.savez(out, **arrays))


def load(file: Path, n: int) -> Gaussian | Tensor | None:
    """The statistics of n images, or None where there are none, or none that are whole; nothing is ever unpickled."""
    try:
        with open_file(file) as opened:
            found = {name: torch.from_numpy(array) for name, array in read_npz(opened).items()}
        value = found["rows_of_output"] if "rows_of_output" in found else Gaussian(int(found.pop("n")), **found)
        if not _is_whole(value, n):
            raise ValueError(f"not the finite statistics of {n} images")
        return value
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # numpy, zipfile and zlib raise anything on damaged files
        why = str(error).partition("\n")[0]  # numpy goes on to say how it could be unpickled
        warnings.warn(f"{file} is damaged ({why}) and is computed anew", stacklevel=2)
        return None


def _is_whole(value: Any, n: int) -> bool:
    """Of n images, and finite."""
    if isinstance(value, Tensor):
        return len(value) == n and bool(value.isfinite().all())
    few, d = value.cov is None, len(value.mean)
    spread = value.rows if few else value.cov
    finite = all(bool(tensor.isfinite().all()) for tensor in (value.mean, spread, value.root))
    return value.n == n and spread.shape == (n if few else d, d) and len(value.root) == d and finite
