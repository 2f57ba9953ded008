"""Checkpoint files: written atomically, verified by checksum, and never executed as code."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import Tensor

from ganzoo.checkpoint import tensors
from ganzoo.checkpoint.bounds import no_larger
from ganzoo.core.arguments import variant_name
from ganzoo.core.atomic import write_atomically
from ganzoo.core.files import open_file

SEAL = b"ganzoo sha256 "  # then 64 hex digits; this is the comment at the end of torch's zip archive


class CheckpointError(ValueError):
    """A file is damaged, unsafe, or of another variant; the message says which, and the cure."""


class CheckpointIO(TorchCheckpointIO):
    """Writes and reads all checkpoints of a Trainer with a GAN, including those of Lightning's callbacks."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        if "://" in str(path):  # an object store
            return super().save_checkpoint(checkpoint, path, storage_options)
        if "ganzoo" in checkpoint:  # not bare weights that Lightning passes between processes
            checkpoint["ganzoo"]["sealed"] = True  # tells a damaged seal from a missing one
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: _write(checkpoint, file))

    def remove_checkpoint(self, path: Any) -> None:
        """Removes a file, but no folder: Lightning's method would remove one with all that it contains."""
        if "://" in str(path):
            super().remove_checkpoint(path)
        elif not Path(path).is_dir():
            Path(path).unlink(missing_ok=True)

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None) -> dict[str, Any]:
        return read(path, map_location)


def read(path: str | os.PathLike[str], map_location: Any = "cpu") -> dict[str, Any]:
    """Load a checkpoint of ganzoo.

    Raises:
        CheckpointError: it is damaged, unsafe, or not of ganzoo.
        OSError: it cannot be opened.
    """
    if "://" in str(path):
        raise CheckpointError(f"{path} is not a local file; download it, and give its path")
    with open_file(path) as file:
        seal = _seal(file)
        if seal and seal[0] != _digest(file, seal[1]):
            raise CheckpointError(f"{path} is damaged: its sha256 does not match; {_earlier(path)}")
        try:
            with warnings.catch_warnings(action="ignore"):  # other programs' pickle protocols
                checkpoint = tensors.load(file, map_location)
        except Exception as error:  # damaged files may raise anything
            if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
                text = f"loading {path} would run code, so it was refused; use a file that contains only weights"
                raise CheckpointError(text) from error
            why = f" ({error})" if type(error) is ValueError else ""
            raise CheckpointError(f"{path} is damaged, unsafe, or not a checkpoint{why}; {_earlier(path)}") from error
        if not isinstance(checkpoint, dict) or not isinstance(own := checkpoint.get("ganzoo"), dict):
            raise CheckpointError(f"{path} is not a checkpoint of ganzoo; give one written by fit")
        if own.get("sealed") and not seal:
            raise CheckpointError(f"{path} is damaged: its end is missing; {_earlier(path)}")
    return checkpoint


def build(
    path: str | os.PathLike[str], cls: type[Any], arguments: Any, weights: Mapping[str, Tensor], times: float = 2
) -> Any:
    """Create the model of a file, without loading its weights; their size limits that of the model.

    Args:
        path: of the file.
        cls: the model's class.
        arguments: of its constructor.
        weights: those to be loaded.
        times: see `no_larger`.

    Raises:
        CheckpointError: the class does not take the arguments, or the model is larger than the weights.
    """
    try:
        with no_larger(weights, times):
            return cls(**arguments)
    except Exception as error:  # arguments of unexpected types may raise anything
        name = variant_name(cls)
        raise CheckpointError(
            f"{path}: its arguments do not fit {name} ({error}); load it with the code it was trained with"
        ) from error


def load_from_checkpoint(
    cls: type[Any],
    checkpoint_path: str | os.PathLike[str],
    map_location: Any = None,
    hparams_file: Any = None,
    strict: bool | None = None,
    weights_only: bool | None = None,
    **kwargs: Any,
) -> Any:
    """Lightning's method, for a local checkpoint of this class; never runs code from the file.

    `ganzoo.load` finds the class by itself, and reads more kinds of files.

    Args:
        cls: the class.
        checkpoint_path: a checkpoint of this class.
        map_location: the device; None for the CPU.
        hparams_file: must be None; the arguments are in the checkpoint.
        strict: False allows missing and unexpected weights.
        weights_only: ignored; always True.
        **kwargs: arguments of the constructor; they override the checkpoint's.

    Raises:
        CheckpointError: the checkpoint is damaged, unsafe, of another class, or not local.
        ValueError: hparams_file is not None.
    """
    if hparams_file is not None:
        raise ValueError("the arguments are in the checkpoint; leave hparams_file out")
    saved = read(checkpoint_path)
    if (name := saved["ganzoo"].get("variant")) != variant_name(cls):
        raise CheckpointError(f"{checkpoint_path} is of class {name}, not {variant_name(cls)}; use ganzoo.load")
    if not isinstance(saved.get("state_dict"), dict):
        raise CheckpointError(f"{checkpoint_path} contains no weights; use another checkpoint")
    arguments = {**saved.get("hyper_parameters", {}), **kwargs}
    model = build(checkpoint_path, cls, arguments, saved["state_dict"])
    model.configure_model()
    model.on_load_checkpoint(saved)
    model.load_state_dict(saved["state_dict"], strict=strict is not False)
    return model.to(map_location or "cpu")


def intact(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a sealed checkpoint with a matching checksum; nothing is loaded."""
    try:
        with open_file(path) as file:
            seal = _seal(file)
            return seal is not None and seal[0] == _digest(file, seal[1])
    except OSError:  # removed in the meantime, or not a file
        return False


def in_order(folder: Path) -> list[Path]:
    """A run's checkpoints, sorted by step (file times change when files are copied). The best ones come first, since
    the last element is the one to load."""

    def age(file: Path) -> tuple[bool, int, bool]:
        return not file.name.startswith("best-"), step_of(file), file.name == "last.ckpt"

    return sorted(folder.glob("*.ckpt"), key=age)


def step_of(file: Path) -> int:
    """Step of a checkpoint, from its name (see `Checkpoints`) or its content. Damaged files sort last, so that
    loading reports them."""
    if match := re.fullmatch(r"(?:kept-|best-.+-)?(\d{8,})", file.stem):
        return int(match[1])
    try:
        with open_file(file) as opened:
            tensors.check_file(opened)
        return int(torch.load(file, mmap=True, map_location="cpu", weights_only=True)["global_step"])
    except Exception:  # damaged files may raise anything
        return sys.maxsize


def newest(folder: Path) -> Path | None:
    """The last intact checkpoint of a run; None if there is none."""
    return next((file for file in reversed(in_order(folder)) if intact(file)), None)


NONE_INTACT = "no earlier checkpoint is intact: copy the file again, or start a new run"


def _earlier(path: str | os.PathLike[str]) -> str:
    files = in_order(Path(path).parent)
    before = files[: files.index(Path(path))] if Path(path) in files else []
    whole = next((file for file in reversed(before) if intact(file)), None)
    return f"an earlier checkpoint is intact: {whole}" if whole else NONE_INTACT


def _write(checkpoint: dict[str, Any], file: BinaryIO) -> None:
    try:
        torch.save(checkpoint, file)
    except RuntimeError as error:  # torch's error hides the file's
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise
    file.seek(-2, os.SEEK_END)
    file.write((len(SEAL) + 64).to_bytes(2, "little"))  # length of the comment
    file.write(SEAL + _digest(file, file.tell()))


def _seal(file: BinaryIO) -> tuple[bytes, int] | None:
    """The digest at the end of a file, and the number of bytes that it covers; None for a file without a seal."""
    length = file.seek(0, os.SEEK_END) - len(SEAL) - 64
    file.seek(max(length, 0))
    end = file.read()
    return (end.removeprefix(SEAL), length) if length > 0 and end.startswith(SEAL) else None


def _digest(file: BinaryIO, length: int) -> bytes:
    """sha256 of a file's first `length` bytes, in hexadecimal digits; leaves the position after them."""
    digest = hashlib.sha256()
    file.seek(0)
    while length:
        block = file.read(min(length, 1 << 20))
        digest.update(block)
        length -= len(block)
    return digest.hexdigest().encode()
