"""`list` and `info`: what is in the zoo, without importing it."""

from __future__ import annotations

import argparse
import ast
import json
from collections.abc import Sequence
from pathlib import Path

import ganzoo
from ganzoo.cli.errors import UserError, closest
from ganzoo.cli.paths import configs, find_checkpoint


def main(verb: str, arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(f"python -m ganzoo {verb}")
    if verb == "list":
        parser.description = "The variants and the configs that come with ganzoo."
        parser.parse_args(arguments)
        return _list()
    parser.description = "A variant's paper and defaults, a config, or what is in a run or checkpoint."
    parser.add_argument("name", help="a variant, a config, a run's folder or a checkpoint")
    return _info(parser.parse_args(arguments).name)


def _list() -> int:
    print("variants")
    for name, module in ganzoo.VARIANTS.items():
        print(f"  {name:<12}{paper(module)}")
    print("configs (python -m ganzoo fit --config NAME)")
    for name, path in configs().items():
        print(f"  {name:<20}{header(path)[0]}")
    return 0


def _info(name: str) -> int:
    if name in ganzoo.VARIANTS:
        return _variant(name)
    if name in configs():
        print(configs()[name].read_text(), end="")
        return 0
    if Path(name).exists():
        return _checkpoint(find_checkpoint(name))
    raise UserError(f"no variant, config or file {name!r}{closest(name, [*ganzoo.VARIANTS, *configs()])}")


def paper(module: str) -> str:
    """The first line of a variant's file, after the variant's name; read, not imported."""
    path = Path(ganzoo.__file__).parent.joinpath(*module.split(".")[1:]).with_suffix(".py")
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    return docstring.splitlines()[0].partition(": ")[2]


def header(path: Path) -> list[str]:
    """The comment lines at the head of a config."""
    lines = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return lines or [""]


def _variant(name: str) -> int:
    import inspect

    cls = getattr(ganzoo, name)
    print(f"{name}: {paper(cls.__module__)}\n")
    print(inspect.cleandoc(cls.__doc__ or ""))
    model = cls()
    counts = [f"{p} {sum(w.numel() for w in getattr(model, p).parameters()):,}" for p in ("generator", "discriminator")]
    print(f"\nParameters with its defaults: {', '.join(counts)}")
    mine = [config for config in configs() if config.startswith(f"{name.lower()}/")]
    print("Configs: " + ", ".join(mine))
    return 0


def _checkpoint(path: Path) -> int:
    from ganzoo.hub import CheckpointError, load, read_checkpoint

    try:
        if path.is_dir():
            config, model = json.loads((path / "config.json").read_text()), load(path)
            name, arguments, images = config["variant"], config["arguments"], int(model.images_seen)
            size = sum(file.stat().st_size for file in path.iterdir())
        else:
            checkpoint = read_checkpoint(path)
            name, arguments = checkpoint["ganzoo"]["variant"], checkpoint["hyper_parameters"]
            images, size = int(checkpoint["state_dict"]["images_seen"]), path.stat().st_size
    except (CheckpointError, OSError) as error:
        raise UserError(str(error)) from error
    print(f"{path}: {name}, {images:,} images seen, {size / 1e6:.1f} MB")
    for key, value in arguments.items():
        print(f"  {key:<24}{value}")
    return 0
