"""What a config may name: configs import and call classes, so an untrusted config must not name arbitrary code."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path

from jsonargparse import set_parsing_settings

import ganzoo
from ganzoo.cli.config import guard_loader
from ganzoo.cli.errors import UserError

OURS = ["augment", "callbacks", "core.module", "core.strategy", "data", "optim", "penalties", "variants", "GANModule"]
LIGHTNING = ["accelerators", "callbacks", "core.datamodule", "LightningDataModule", "loggers", "plugins", "profilers"]
KNOWN = [
    "torch.optim",
    *(f"ganzoo.{name}" for name in (*ganzoo.VARIANTS, *OURS)),
    *(f"lightning.pytorch.{name}" for name in (*LIGHTNING, "strategies")),
    *("lightning.fabric.accelerators", "lightning.fabric.plugins"),  # where some of the above are defined
]
NEVER = {*sys.stdlib_module_names, "jsonargparse"}


def guard(trusted: Sequence[str] = ()) -> None:
    """Restricts class paths in configs and arguments to known, trusted and the user's own modules.

    Nothing else is imported or, where an allowed module exposes it, called.

    Raises:
        UserError: a trusted name is not a package name, or belongs to the standard library or jsonargparse.
    """
    for name in trusted:
        if not name.isidentifier() or name in NEVER:
            raise UserError(f"--trust {name!r} is refused: give the name of the package that defines your class")
    guard_loader()
    set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=[*KNOWN, *own_modules(), *trusted])


def take(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments without `--trust PACKAGE`, and the packages; taken out first, so that no config can set it."""
    others, trusted = [], []
    rest = iter(arguments)
    for argument in rest:
        key, equals, value = argument.partition("=")
        if key == "--trust":
            trusted.append(value if equals else next(rest, ""))
        else:
            others.append(argument)
    return others, trusted


def refusal(error: ImportError) -> str:
    """The message for a name that jsonargparse was not allowed to import."""
    name = str(error).split("'")[1]
    package = name.partition(".")[0]
    if _spec(package) is None:
        return f"{name}: no file or package {package!r}; run in the folder of {package}.py"
    ours = "in ganzoo, torch.optim, Lightning or a .py file of this folder"
    who = f"names {name}, which was not imported: it is not {ours}"
    if package in NEVER or package in ("ganzoo", "lightning", "torch"):
        return f"{who}; name a class from one of these"
    return f"{who}; if you trust its code, add --trust {package}"


def own_modules() -> list[str]:
    """Modules of the `.py` files in the working folder, unless shadowed; not packages, which may be downloaded code."""
    files = {path.stem: path for path in Path.cwd().glob("*.py") if path.stem.isidentifier() and path.stem != "ganzoo"}
    return [name for name, path in sorted(files.items()) if _is_at(path, _spec(name))]


def _spec(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):  # `__main__` has no spec
        return None


def _is_at(file: Path, spec: ModuleSpec | None) -> bool:
    return spec is not None and spec.has_location and Path(spec.origin or "").absolute() == file
