"""Weight files: downloaded once, checked against their hash, and read as tensors only."""

from __future__ import annotations

import hashlib
import sys
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch

from ganzoo.checkpoint.tensors import load
from ganzoo.core.files import open_file, socket_timeout


def fetch(what: str, url: str, hashed: str, otherwise: str = "") -> Path:
    """The file in torch.hub's folder, downloaded if missing; its sha256 must start with `hashed`.

    Raises:
        FileNotFoundError: the download failed; the message says where to put the file.
        ValueError: an existing file has another hash.
    """
    path = place(url)
    if path.is_file():
        if not (found := sha256(path)).startswith(hashed):
            raise ValueError(f"{path} is damaged or a different file: its sha256 is {found[:8]}..., not {hashed}...; "
                             "delete it to download it again")  # fmt: skip
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        shown = getattr(sys.stderr, "terminal", sys.stderr).isatty()
        with socket_timeout():  # writes a temporary file, renamed when complete
            torch.hub.download_url_to_file(url, str(path), hashed, progress=shown)
    except (OSError, HTTPException, RuntimeError) as error:  # torch.hub raises a RuntimeError for a wrong hash
        reason = " ".join(str(error).split())
        raise FileNotFoundError(
            f"{what} could not be downloaded ({reason}): save {url} as {path}{otherwise}, or connect to the internet"
        ) from error
    return path


def place(url: str) -> Path:
    """Where a downloaded file is kept: in torch.hub's folder."""
    return Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])


def sha256(path: Path) -> str:
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensors(path: Path, url: str) -> Any:
    """Contents of a file that contains only tensors; any other pickle is refused."""
    try:
        with open_file(path) as file:
            return load(file, old=True)
    except Exception as error:  # KeyError, ... or UnpicklingError, whose message advises to unpickle the file anyway
        raise ValueError(f"{path} is not a file of tensors for torch.load(weights_only=True): "
                         f"use a copy of {url}") from error  # fmt: skip
