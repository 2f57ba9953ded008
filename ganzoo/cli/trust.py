"""What a config may name. It imports classes and calls them, so that a stranger's must not choose which."""

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

OURS = ["callbacks", "core.module", "core.strategy", "data", "optim", "variants", "GANModule"]
LIGHTNING = ["accelerators", "callbacks", "core.datamodule", "LightningDataModule", "loggers", "plugins", "profilers"]
KNOWN = [
    "torch.optim",
    *(f"ganzoo.{name}" for name in (*ganzoo.VARIANTS, *OURS)),
    *(f"lightning.pytorch.{name}" for name in (*LIGHTNING, "strategies")),
    *("lightning.fabric.accelerators", "lightning.fabric.plugins"),  # where some of the above are defined
]
NEVER = {*sys.stdlib_module_names, "jsonargparse"}
HELP = "a package or folder whose classes a config may name, beside ganzoo, torch.optim, Lightning and .py files here"


def guard(trusted: Sequence[str] = ()) -> None:
    """From now on configs, and class paths among the arguments, name only what is known, trusted, or the user's own.

    Nothing else is imported; where it hides behind a name that may be imported, it is not called.

    Raises:
        UserError: a trusted name is of no package, or of Python's own, with which one can do anything.
    """
    for name in trusted:
        if not name.isidentifier() or name in NEVER:
            raise UserError(f"--trust {name!r} is not the name of a package of GANs; write --trust PACKAGE")
    guard_loader()
    set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=[*KNOWN, *own_modules(), *trusted])


def take(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Arguments without `--trust PACKAGE`, and the packages: no config can say what is to be trusted."""
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
    """What to say of a name that jsonargparse did not import, as it is not allowed."""
    name = str(error).split("'")[1]
    package = name.partition(".")[0]
    if _spec(package) is None:
        return f"{name}: no file or package {package!r}; run in the folder that has {package}.py in it"
    ours = "ganzoo's, torch.optim's, Lightning's or in a .py file of this folder"
    who = f"names {name}, which is not {ours}, and was not imported"
    if package in NEVER or package in ("ganzoo", "lightning", "torch"):
        return f"{who}; name a class of those"
    return f"{who}; if you trust that code as you do your own, add --trust {package}"


def own_modules() -> list[str]:
    """The `.py` files of the working folder, where their names lead to them; a folder may be a stranger's, unpacked."""
    files = {path.stem: path for path in Path.cwd().glob("*.py") if path.stem.isidentifier() and path.stem != "ganzoo"}
    return [name for name, path in sorted(files.items()) if _is_at(path, _spec(name))]


def _spec(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):  # `__main__` has none
        return None


def _is_at(file: Path, spec: ModuleSpec | None) -> bool:
    return spec is not None and spec.has_location and Path(spec.origin or "").absolute() == file
