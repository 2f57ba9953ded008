"""Paths of shipped configs and models, runs and checkpoints; folders for output."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import ganzoo
from ganzoo.cli.errors import UserError
from ganzoo.core.files import read_text
from ganzoo.core.text import closest, one_line, path_of, quoted

ADDED = ("logging/", "rules/")  # folders of partial configs


def configs() -> dict[str, Path]:
    """Shipped configs of whole trainings: `dcgan/digits` -> its file."""
    return {name: path for name, path in _shipped().items() if not name.startswith(ADDED)}


def additions() -> dict[str, Path]:
    """Shipped configs to add to a training's: `logging/wandb` -> its file."""
    return {name: path for name, path in _shipped().items() if name.startswith(ADDED)}


def _shipped() -> dict[str, Path]:
    """All shipped configs: inside an installed package, or beside it in a checkout."""
    package = Path(ganzoo.__file__).parent
    root = package / "configs" if (package / "configs").is_dir() else package.parent / "configs"
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.yaml"))}


def find_config(name: str) -> Path:
    """A config file, by its path, its run, or the name of a shipped one."""
    path = path_of(name)
    if path.is_file():
        return path
    if (path / "config.yaml").is_file():  # a run
        return path / "config.yaml"
    shipped = _shipped()
    key = re.sub(r"^(\./)?configs/|\.ya?ml$", "", path.as_posix())
    if key not in shipped:
        raise UserError(f"no config {name!r}{closest(key, shipped, 'python -m ganzoo list shows the shipped ones')}")
    return shipped[key]


def pretrained() -> dict[str, Path]:
    """Shipped models: `dcgan-digits` -> its folder."""
    return {name: ganzoo.PRETRAINED / name for name in ganzoo.list_pretrained()}


def record_of(folder: Path) -> dict[str, Any]:
    """The training record of a shipped model; {} for any other folder or file."""
    file = folder / "record.json"
    try:
        record = json.loads(read_text(file)) if file.is_file() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged ({one_line(error)}); delete it") from error
    if not isinstance(record, dict) or not isinstance(record.get("config", ""), str):
        raise UserError(f"{file} is not a training record; delete it")
    return record


def find_checkpoint(name: str) -> Path:
    """A checkpoint by its path, the last one of a run, a folder written by `save_pretrained`, or a shipped model by its
    name."""
    path = path_of(name)
    if not path.exists():
        if name in pretrained():
            return pretrained()[name]
        if "://" in name:
            raise UserError(f"{name} is a URL; download it, and name the local file")
        beside = [str(file) for file in path.parent.glob("*") if file.is_dir() or file.suffix == ".ckpt"]
        known = [*beside, *pretrained()]
        raise UserError(f"no checkpoint {name!r}{closest(name, known, 'name a run, such as runs/001-dcgan-digits')}")
    if path.is_file():
        if path.suffix == ".pkl":
            raise UserError(
                f"{name} is not a checkpoint; convert it first: python -m ganzoo convert {quoted(name)} OUT"
            )
        if path.suffix == ".safetensors":
            raise UserError(f"{name} has no config beside its weights that names its variant; name the folder instead")
        return path
    from ganzoo.checkpoint.sealed import in_order  # imports torch

    if checkpoints := in_order(path / "checkpoints"):
        return checkpoints[-1]
    if not (path / "config.json").is_file():
        raise UserError(f"{name} has no checkpoints/*.ckpt; name a run, a .ckpt, or a save_pretrained folder")
    return path


def run_of(checkpoint: Path) -> Path | None:
    """The run folder of a checkpoint, or None."""
    parent = checkpoint.absolute().parent
    if parent.name != "checkpoints" or not (parent.parent / "config.yaml").is_file():
        return None
    here = Path.cwd()
    return parent.parent.relative_to(here) if parent.parent.is_relative_to(here) else parent.parent


def check_folder(folder: Path, option: str) -> None:
    """Checks that a folder is writable, or can be created."""
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}); choose another folder: --{option}") from error


def own_files() -> None:
    """Makes modules of the working folder importable, however ganzoo was started."""
    if "" not in sys.path:
        sys.path.insert(0, "")
