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
HELP = "a package whose classes a config may name, beside ganzoo's, torch.optim's, Lightning's and this folder's"


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
    who = f"names {name}, which is not ganzoo's, torch.optim's, Lightning's or this folder's, and was not imported"
    if package in NEVER or package in ("ganzoo", "lightning", "torch"):
        return f"{who}; name a class of those"
    return f"{who}; if you trust that code as you do your own, add --trust {package}"


def own_modules() -> list[str]:
    """The modules and packages of the working folder; not those that only have the name of one."""
    here = Path.cwd()
    names = {path.stem for path in here.iterdir() if path.suffix == ".py" or path.is_dir() and not path.suffix}
    return [name for name in sorted(names - {"ganzoo"}) if name.isidentifier() and _lies_in(here, _spec(name))]


def _spec(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):  # `__main__` has none
        return None


def _lies_in(folder: Path, spec: ModuleSpec | None) -> bool:
    places = [] if spec is None else [spec.origin] if spec.has_location else spec.submodule_search_locations or []
    return bool(places) and all(place and Path(place).absolute().is_relative_to(folder) for place in places)
