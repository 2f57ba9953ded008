"""`list` and `info`: variants, configs and trained models; `list` imports none of them."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ganzoo
from ganzoo.cli import VERBS
from ganzoo.cli.errors import Arguments, UserError, user_errors
from ganzoo.cli.paths import additions, configs, find_checkpoint, pretrained, record_of
from ganzoo.core.files import read_text
from ganzoo.core.text import closest, path_of, visible

OPTIONS = {"augment": "augmentation", "penalties": "penalty"}  # arguments of every variant, and folders of ganzoo


def main(verb: str, arguments: Sequence[str]) -> int:
    parser = Arguments(verb, VERBS[verb].help)
    if verb == "info":
        parser.add_argument("name", help="a variant, a config, a trained model, a run's folder or a checkpoint")
    options = parser.parse_args(arguments)
    return _list() if verb == "list" else _info(options.name)


def _list() -> int:
    width = 2 + max(map(len, [*ganzoo.VARIANTS, *configs(), *additions(), *pretrained()]))
    print("variants")
    for name, module in ganzoo.VARIANTS.items():
        print(f"  {name:<{width}}{paper(module)}")
    print("configs (python -m ganzoo fit --config NAME)")
    for name, path in configs().items():
        print(f"  {name:<{width}}{header(path)[0]}")
    print("additions to a config (python -m ganzoo fit --config NAME --config ADDITION)")
    for name, path in additions().items():
        print(f"  {name:<{width}}{header(path)[0]}")
    for kind, word in OPTIONS.items():
        print(f"{kind} (python -m ganzoo fit --config NAME --model.{kind} {word.upper()})")
        for name, docstring in described(kind).items():
            print(f"  {name:<{width}}{docstring.partition(chr(10))[0].rstrip('.')}")
    if pretrained():
        print("trained models (python -m ganzoo sample NAME)")
    for name, path in pretrained().items():
        print(f"  {name:<{width}}{summary(record_of(path))}")
    return 0


def _info(name: str) -> int:
    if name in ganzoo.VARIANTS:
        return _variant(name)
    if docstring := {**described("augment"), **described("penalties")}.get(name):
        print(f"{name}: {docstring}")
        return 0
    if shipped := {**configs(), **additions()}.get(name):
        print(read_text(shipped), end="")
        return 0
    path = path_of(name)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        with user_errors():
            print(read_text(path).rstrip())
        return 0
    if path.exists():
        return _checkpoint(find_checkpoint(name))
    if name in pretrained():
        print(read_text(pretrained()[name] / "README.md"), end="")
        return _checkpoint(pretrained()[name])
    known = [*ganzoo.VARIANTS, *configs(), *additions(), *described("augment"), *described("penalties"), *pretrained()]
    cure = "python -m ganzoo list shows them"
    raise UserError(f"no variant, config or file {name!r}{closest(name, known, cure)}")


def paper(module: str) -> str:
    """A variant's paper: the first paragraph of its file, after its name; read without importing the file."""
    path = Path(ganzoo.__file__).parent.joinpath(*module.split(".")[1:]).with_suffix(".py")
    docstring = ast.get_docstring(ast.parse(read_text(path))) or ""
    return " ".join(docstring.partition("\n\n")[0].split()).partition(": ")[2].removesuffix(".")


def described(kind: str) -> dict[str, str]:
    """The docstrings of the classes for an argument of models, one of `OPTIONS`, read without importing them."""
    folder, found = Path(ganzoo.__file__).parent / kind, {}
    for path in sorted(folder.glob("*.py")):
        for node in ast.parse(read_text(path)).body if path.stem != "base" else ():
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name] = ast.get_docstring(node) or ""
    return dict(sorted(found.items()))


def header(path: Path) -> list[str]:
    """The comment lines at the top of a config."""
    lines = []
    for line in read_text(path).splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return lines or [""]


def summary(record: dict[str, Any]) -> str:
    """One line on a trained model: variant, data, training images, first score, megabytes."""
    score = record["scores"]["scores"][0]
    size = f"{record['bytes'] / 1e6:.1f} MB"
    figure = f"{score['name']} {score['value']:.3g}"
    return f"{record['variant']} on {score['protocol']['data']}, {record['images_seen']:,} images: {figure}, {size}"


def _variant(name: str) -> int:
    import inspect
    import textwrap

    from ganzoo import augment
    from ganzoo.core import penalised
    from ganzoo.core.module import GANModule
    from ganzoo.core.options import options_of
    from ganzoo.penalties import Penalty

    cls = getattr(ganzoo, name)
    print(f"{name}: {paper(cls.__module__)}\n")
    print(inspect.cleandoc(cls.__doc__ or ""))
    parameters = inspect.signature(cls.__init__).parameters.values()
    plain = [p for p in parameters if p.default is not p.empty and not callable(p.default)]
    print("\nDefaults: " + ", ".join(f"{p.name} {p.default}" for p in plain))
    print("Arguments of every variant:")
    print(textwrap.indent(inspect.cleandoc(GANModule.__doc__ or "").partition("Args:\n")[2], "  "))
    model = cls()
    counts = [f"{p} {sum(w.numel() for w in getattr(model, p).parameters()):,}" for p in ("generator", "discriminator")]
    print(f"\nParameters with default arguments: {', '.join(counts)}")
    given = {kind for kind in described("augment") if model.boundary is None and getattr(augment, kind)().strength}
    named = [f"{kind} (only with p set)" if kind in given else kind for kind in described("augment")]
    print(f"Augmentations: {', '.join(named)}")
    kinds = {kind: penalised.refusal(cls(), model) for kind, cls in sorted(options_of(Penalty).items())}
    print(f"Penalties: {', '.join(kind for kind, problem in kinds.items() if problem is None)}")
    for problem in dict.fromkeys(filter(None, kinds.values())):
        print(f"  not {', '.join(kind for kind in kinds if kinds[kind] == problem)}: {problem}")
    mine = [config for config in configs() if config.startswith(f"{name.lower()}/")]
    print("Configs: " + ", ".join(mine))
    return 0


def _shown(value: Any) -> Any:
    """An argument's value; a penalty as `R1(weight=10.0)`."""
    if isinstance(value, list):
        return (
            ", ".join(str(_shown(each)) for each in value) if any(isinstance(each, dict) for each in value) else value
        )
    if isinstance(value, dict) and isinstance(arguments := value.get("init_args"), dict):
        return f"{value.get('class_path')}({', '.join(f'{name}={given}' for name, given in arguments.items())})"
    return value


def _checkpoint(path: Path) -> int:
    from ganzoo.checkpoint.pretrained import read

    with user_errors():
        (name, arguments, weights, slim), facts = read(path)
        seen = int(weights.get("images_seen", 0))
        lines = [f"  {visible(key):<24}{visible(_shown(value))}" for key, value in arguments.items()]
        if classes := facts.class_names:
            lines.append(f"  {'classes':<24}{', '.join(f'{label} {visible(c)}' for label, c in enumerate(classes))}")
        if facts.absent:
            lines.append(f"  {'without training images':<24}{', '.join(map(str, facts.absent))}")
        lines += [f"  {f'origin: {key}':<24}{visible(text)}" for key, text in facts.origin.items()]
        for kind, reading in facts.readings.items():
            lines.append(f"  {f'files read as {kind}':<24}{visible(reading)}")
    size = sum(file.stat().st_size for file in ([path] if path.is_file() else path.iterdir()))
    kind = ", generator only" if slim else ""
    print(f"{visible(path)}: {visible(name)}, {seen:,} images seen, {size / 1e6:.1f} MB{kind}")
    print("\n".join(lines))
    return 0
