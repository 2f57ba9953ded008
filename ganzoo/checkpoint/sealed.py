"""Checkpoint files: written whole or not at all, read only if no byte has changed, and never run as code."""

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

SEAL = b"ganzoo sha256 "  # then 64 hexadecimal digits: the comment that ends the zip archive which torch writes


class CheckpointError(ValueError):
    """A file that is damaged, unsafe, or of another variant; the message says which and what to do."""


class CheckpointIO(TorchCheckpointIO):
    """How a Trainer that plays a GAN writes and reads checkpoints, with callbacks of Lightning's own, too."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        if "://" in str(path):  # an object store's own way
            return super().save_checkpoint(checkpoint, path, storage_options)
        if "ganzoo" in checkpoint:  # not the bare weights that Lightning sends from one process to another
            checkpoint["ganzoo"]["sealed"] = True  # so that a damaged seal is no missing one
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: _write(checkpoint, file))

    def remove_checkpoint(self, path: Any) -> None:
        """A file. Lightning's own way would remove a folder with all that is in it, whoever named that."""
        if "://" in str(path):
            super().remove_checkpoint(path)
        elif not Path(path).is_dir():
            Path(path).unlink(missing_ok=True)

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None) -> dict[str, Any]:
        return read(path, map_location)


def read(path: str | os.PathLike[str], map_location: Any = "cpu") -> dict[str, Any]:
    """A checkpoint of ganzoo.

    Raises:
        CheckpointError: it is damaged, unsafe, or not of ganzoo.
        OSError: it cannot be opened.
    """
    if "://" in str(path):
        raise CheckpointError(f"{path} is no local file, and is not fetched; download it, and name the file")
    with open_file(path) as file:
        seal = _seal(file)
        if seal and seal[0] != _digest(file, seal[1]):
            raise CheckpointError(f"{path} is damaged: its sha256 is not what was written; {_instead(path)}")
        try:
            with warnings.catch_warnings(action="ignore"):  # of pickle's protocol, where another program wrote the file
                checkpoint = tensors.load(file, map_location)
        except Exception as error:  # a damaged file raises anything
            if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
                text = f"{path} wants to run code and was not loaded; take weights from it alone"
                raise CheckpointError(text) from error
            why = f" ({error})" if type(error) is ValueError else ""
            raise CheckpointError(f"{path} is damaged, unsafe, or no checkpoint{why}; {_instead(path)}") from error
        if not isinstance(checkpoint, dict) or not isinstance(own := checkpoint.get("ganzoo"), dict):
            raise CheckpointError(f"{path} is no checkpoint of ganzoo; name one that fit wrote")
        if own.get("sealed") and not seal:
            raise CheckpointError(f"{path} is damaged: its end is missing; {_instead(path)}")
    return checkpoint


def build(
    path: str | os.PathLike[str], cls: type[Any], arguments: Any, weights: Mapping[str, Tensor], times: float = 2
) -> Any:
    """The model that a file says it is of, before it has its weights; not one much larger than these.

    Args:
        path: of the file.
        cls: the model's class.
        arguments: of its constructor.
        weights: that it is to have.
        times: see `no_larger`.

    Raises:
        CheckpointError: the class does not take the arguments, or they do not belong to the weights.
    """
    try:
        with no_larger(weights, times):
            return cls(**arguments)
    except Exception as error:  # arguments of any type and value meet code that expects its own
        name = variant_name(cls)
        raise CheckpointError(f"{path}: {name} does not take its arguments ({error}); was its code changed?") from error


def load_from_checkpoint(
    cls: type[Any],
    checkpoint_path: str | os.PathLike[str],
    map_location: Any = None,
    hparams_file: Any = None,
    strict: bool | None = None,
    weights_only: bool | None = None,
    **kwargs: Any,
) -> Any:
    """Lightning's, for a checkpoint of this class in a local file; never runs code of the file's.

    `ganzoo.load` finds the class by itself, and reads more kinds of files.

    Args:
        cls: the class.
        checkpoint_path: of a checkpoint of this class.
        map_location: the device; None is the CPU.
        hparams_file: None; the arguments are in the checkpoint.
        strict: False allows weights that are missing or too many.
        weights_only: it is True, whatever is given.
        **kwargs: arguments of the constructor, which win over the checkpoint's.

    Raises:
        CheckpointError: it is damaged, unsafe, of another class, or no local file.
        ValueError: there is an hparams_file.
    """
    if hparams_file is not None:
        raise ValueError("the arguments are in the checkpoint; leave hparams_file out")
    saved = read(checkpoint_path)
    if (name := saved["ganzoo"].get("variant")) != variant_name(cls):
        raise CheckpointError(f"{checkpoint_path} is of {name}, not of {variant_name(cls)}; use ganzoo.load")
    arguments = {**saved.get("hyper_parameters", {}), **kwargs}
    model = build(checkpoint_path, cls, arguments, saved["state_dict"])
    model.configure_model()
    model.on_load_checkpoint(saved)
    model.load_state_dict(saved["state_dict"], strict=strict is not False)
    return model.to(map_location or "cpu")


def intact(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a sealed checkpoint of which no byte has changed; nothing of it is loaded."""
    try:
        with open_file(path) as file:
            seal = _seal(file)
            return seal is not None and seal[0] == _digest(file, seal[1])
    except OSError:  # removed in the meantime, or no file
        return False


def in_order(folder: Path) -> list[Path]:
    """A run's checkpoints by their steps, as a copy of a run has other times; the best ones before all others, as
    whoever names a run means its last state."""

    def age(file: Path) -> tuple[bool, int, bool]:
        return not file.name.startswith("best-"), step_of(file), file.name == "last.ckpt"

    return sorted(folder.glob("*.ckpt"), key=age)


def step_of(file: Path) -> int:
    """The step of a checkpoint, by the name that `Checkpoints` gives it or what is in it; that of a damaged one, of
    which whoever loads it will speak, is beyond all others."""
    if match := re.fullmatch(r"(?:kept-|best-.+-)?(\d{8,})", file.stem):
        return int(match[1])
    try:
        with open_file(file) as opened:
            tensors.check_file(opened)
        return int(torch.load(file, mmap=True, map_location="cpu", weights_only=True)["global_step"])
    except Exception:  # a damaged file raises anything
        return sys.maxsize


def newest(folder: Path) -> Path | None:
    """The last of a run's checkpoints that is as it was written; None where there is none."""
    return next((file for file in reversed(in_order(folder)) if intact(file)), None)


def _instead(path: str | os.PathLike[str]) -> str:
    files = in_order(Path(path).parent)
    before = files[: files.index(Path(path))] if Path(path) in files else []
    whole = next((file for file in reversed(before) if intact(file)), None)
    return f"the one before it is whole: {whole}" if whole else "there is no whole one before it"


def _write(checkpoint: dict[str, Any], file: BinaryIO) -> None:
    try:
        torch.save(checkpoint, file)
    except RuntimeError as error:  # torch's own, whatever the file raised
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise
    file.seek(-2, os.SEEK_END)
    file.write((len(SEAL) + 64).to_bytes(2, "little"))  # the comment's length
    file.write(SEAL + _digest(file, file.tell()))


def _seal(file: BinaryIO) -> tuple[bytes, int] | None:
    """The digits that a file ends with, and how many bytes they are of; None where it has no seal."""
    length = file.seek(0, os.SEEK_END) - len(SEAL) - 64
    file.seek(max(length, 0))
    end = file.read()
    return (end.removeprefix(SEAL), length) if length > 0 and end.startswith(SEAL) else None


def _digest(file: BinaryIO, length: int) -> bytes:
    """sha256, in hexadecimal digits, of a file's first bytes; the position moves behind them."""
    digest = hashlib.sha256()
    file.seek(0)
    while length:
        block = file.read(min(length, 1 << 20))
        digest.update(block)
        length -= len(block)
    return digest.hexdigest().encode()
