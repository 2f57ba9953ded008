"""Where things are: shipped configs, runs, checkpoints."""

from __future__ import annotations

import re
from pathlib import Path

import ganzoo
from ganzoo.cli.errors import UserError, closest


def configs() -> dict[str, Path]:
    """Every shipped config: `dcgan/digits` -> its file; inside an installed wheel, beside the package in a checkout."""
    package = Path(ganzoo.__file__).parent
    root = package / "configs" if (package / "configs").is_dir() else package.parent / "configs"
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.yaml"))}


def find_config(name: str) -> Path:
    """A config file by its path, or a shipped one by its name."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = configs()
    key = re.sub(r"^(\./)?configs/|\.ya?ml$", "", path.as_posix())
    if key not in shipped:
        raise UserError(
            f"no config {name!r}{closest(key, shipped)}; python -m ganzoo list shows those that are shipped"
        )
    return shipped[key]


def find_checkpoint(name: str) -> Path:
    """A checkpoint by its path, or a run's newest; a folder written by `save_pretrained` is one, too."""
    path = Path(name)
    if path.is_dir() and not (path / "config.json").is_file():
        checkpoints = sorted(path.glob("checkpoints/*.ckpt"), key=lambda file: file.stat().st_mtime)
        if not checkpoints:
            raise UserError(f"{name} is neither a run with checkpoints in it nor a folder with config.json")
        return checkpoints[-1]
    if not path.exists():
        siblings = path.parent.iterdir() if path.parent.is_dir() else []
        raise UserError(f"no checkpoint {name!r}{closest(path.name, [sibling.name for sibling in siblings])}")
    return path


def run_of(checkpoint: Path) -> Path | None:
    """The run folder that a checkpoint lies in, or None."""
    folder = checkpoint.absolute().parent.parent
    return folder if checkpoint.parent.name == "checkpoints" and (folder / "config.yaml").is_file() else None


def next_run(root: Path, name: str) -> Path:
    """`root/NNN-name` with the first number that is larger than those in use."""
    numbers = [int(match[1]) for path in root.glob("*") if (match := re.match(r"(\d+)-", path.name))]
    return root / f"{max(numbers, default=0) + 1:03d}-{name}"
