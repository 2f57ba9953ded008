"""Configs: found by name, read by one loader, and checked before jsonargparse parses them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Path as NamedFile
from jsonargparse import get_loader, set_loader

from ganzoo.cli.errors import UserError
from ganzoo.cli.paths import configs as shipped_trainings
from ganzoo.cli.paths import find_config
from ganzoo.core.files import read_text
from ganzoo.core.text import one_line, slip

LONGEST = 100_000  # characters in a config; a resolved one has 10,000
LONGEST_VALUE = 10_000
MOST = 10_000  # values in a config; a resolved one has 300
DEEPEST = 100  # levels of nesting
EXAMPLE = "python -m ganzoo info dcgan/digits shows an example"
MOVED = re.compile(r"ganzoo\.core\.(game_)?optim\.")  # in runs from before December 2026
CLASS = {"class_path", "init_args"}  # keys of a mapping that names a class
LINKED = {  # set once, under `data`
    "image_size": "set data.image_size instead",
    "channels": "leave it out",
    "num_classes": "leave it out",
    "source_channels": "leave it out, or set data.source_channels",
}


def load(text: str) -> Any:
    """Parses YAML text: a whole config, or the value of one option.

    Raises:
        yaml.YAMLError: it is not YAML, or repeats a key (PyYAML would silently keep the last value).
        UserError: it exceeds the limits above: a few nested aliases can expand to billions of values.
    """
    try:  # arguments that the locale's encoding cannot decode contain surrogates
        text = text.encode("utf-8", "surrogateescape").decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{text[:100]!r} is not UTF-8, so a config cannot store it; rename it") from error
    try:
        _check_text(text)
        _refuse_doubled_keys(yaml.compose(text, yaml.CSafeLoader))
        content = _jsonargparse_load()(MOVED.sub("ganzoo.optim.", text))
        _check_values(content)
    except yaml.YAMLError:
        raise
    except (ValueError, RecursionError) as error:
        start = text.strip().partition("\n")[0][:40]
        raise UserError(f"the value starting with {start!r} is not allowed in a config: {error}") from error
    return content


def guard_loader() -> None:
    """Makes jsonargparse parse configs, the files that they name, and options with `load`."""
    _jsonargparse_load()
    set_loader("yaml", load, exceptions=(yaml.YAMLError,))
    NamedFile.read_text = _read_named  # type: ignore[assignment]


def read(path: Path) -> dict[str, Any]:
    """A config file as a dict."""
    text = _text(path)
    try:
        config = load(text)
    except (yaml.YAMLError, UserError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or error
        kind = " is not valid YAML" if isinstance(error, yaml.YAMLError) else ""
        raise UserError(f"{path}{line}{kind}: {one_line(problem)}; {EXAMPLE}") from error
    if not isinstance(config, dict):
        what = "is empty" if not config else f"contains a {type(config).__name__}, not options"
        raise UserError(f"{path} {what}; {EXAMPLE}")
    if "config" in config:
        raise UserError(f"{path} refers to another config; pass both on the command line: --config A --config B")
    return config


def find_all(arguments: Sequence[str]) -> list[str]:
    """Moves configs to the front, so that options override them, and replaces names of shipped ones by their files.

    Shipped trainings come before all other configs, which override them.
    """
    configs: list[Path] = []
    others: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        key, equals, value = argument.partition("=")
        if key in ("--config", "-c"):
            configs.append(find_config(value if equals else next(rest, "")))
        else:
            others.append(argument)
    trainings = {path.resolve() for path in shipped_trainings().values()}
    configs.sort(key=lambda path: path.resolve() not in trainings)
    asks = [word for word in others if re.match(r"--model\.\w+\.help\b", word)]
    if asks and not configs and not any(re.match(r"--model(=|$)", word) for word in others):
        others = ["--model", "GAN", *others]  # any variant: all have these arguments
    return [*(word for path in configs for word in ("--config", str(path))), *others]


def check(arguments: Sequence[str]) -> None:
    """Refuses configs that do not name classes as jsonargparse requires, and arguments that follow from the data.

    jsonargparse silently ignores values for the target of a link.
    """
    given = {argument.partition("=")[0].removeprefix("--").replace(".init_args.", ".") for argument in arguments}
    files = [Path(value) for flag, value in zip(arguments, arguments[1:], strict=False) if flag == "--config"]
    for file in files:
        config = read(file)
        if stray := CLASS & set(config):
            raise UserError(f"{file}: {min(stray)} is at the top level; indent it below model or data")
        whole = len(files) == 1 and not given & {"model", "data"}
        for key, value in _mappings(config):
            _check_class(f"{file}: {key}", value, whole and ("init_args" in value or key in ("model", "data")))
            given |= {f"{key}.{name}".replace(".init_args.", ".") for name in value}
        for key in ("trainer", "samples", "scores", "diagnostics", "checkpoint"):
            if not isinstance(options := config.get(key, {}), dict):
                raise UserError(f"{file}: {key} is {_shown(options)}; write its options below it, indented")
    words = [word for argument in arguments for word in re.split(r"=(?=\{)", argument, maxsplit=1)]
    for flag, text in zip(words, words[1:], strict=False):
        if text.startswith("{"):
            with suppress(yaml.YAMLError):  # reported by jsonargparse
                for key, inner in _mappings({flag.removeprefix("--"): load(text)}):
                    _check_class(key, inner, False)
                    given |= {f"{key}.{name}".replace(".init_args.", ".") for name in inner}
    for section, cls in {"model": "DCGAN", "data": "Digits"}.items():
        below = [key for key in sorted(given) if key.startswith(f"{section}.") and not key.endswith(".help")]
        if below and not given & {section, "config"}:
            raise UserError(f"--{below[0]} needs a class; name one before it, such as --{section} {cls}")
    for key, cure in LINKED.items():
        if f"model.{key}" in given:
            raise UserError(f"model.{key} is taken from the data; {cure}")


def _check_class(where: str, value: dict[str, Any], named: bool) -> None:
    """Checks that a mapping names a class, if `named`, and has its arguments below init_args."""
    for name in map(str, value):
        if name not in CLASS and (match := slip(name, CLASS)):
            raise UserError(f"{where}.{name}: no such option; did you mean {match}?")
    if CLASS & set(value) and (beside := [name for name in map(str, value) if name not in (*CLASS, "dict_kwargs")]):
        raise UserError(f"{where}.{beside[0]} is next to {min(CLASS & set(value))}; move it below init_args")
    if named and "class_path" not in value:
        raise UserError(f"{where} has no class_path; name the class there, and put its arguments below init_args")
    if "class_path" in value and not (isinstance(path := value["class_path"], str) and path):
        raise UserError(f"{where}.class_path is {_shown(path)}; set it to the name of a class")
    if not isinstance(arguments := value.get("init_args", {}), dict):
        raise UserError(f"{where}.init_args is {_shown(arguments)}; write arguments below it, indented")


def _mappings(config: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every mapping nested in a config, with its key."""
    rest: list[tuple[str, Any]] = [(str(key), value) for key, value in config.items()]
    for key, value in rest:
        if isinstance(value, list):
            rest += [(key, item) for item in value]
        if isinstance(value, dict):
            yield key, value
            rest += [(f"{key}.{name}", item) for name, item in value.items()]


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except ValueError as error:
        raise UserError(str(error)) from error


def _read_named(file: NamedFile) -> str:
    """Replaces a method of jsonargparse (4.53), which reads files in the locale's encoding."""
    return _text(Path(file.absolute))


def _shown(value: Any) -> str:
    """A value as written in a config."""
    return "empty" if value is None or value == "" else json.dumps(value, default=str)[:80]


@cache
def _jsonargparse_load() -> Any:
    return get_loader("yaml")


def _check_text(text: str) -> None:
    """Checks the size of YAML text from its events, before loading it; an alias counts as all that it refers to.

    Raises:
        ValueError: it exceeds a limit, or an alias contains itself.
        yaml.YAMLError: it is not YAML.
    """
    if len(text) > LONGEST:
        raise ValueError(f"{len(text):,} characters, more than {LONGEST:,}")
    total = 0
    sizes: dict[str | None, int] = {}  # anchor -> number of values
    inside: list[tuple[str | None, int]] = []  # open collections: anchor, and total before them
    for event in yaml.parse(text, yaml.CSafeLoader):
        anchor = getattr(event, "anchor", None)
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == name for name, _ in inside):
                raise ValueError(f"alias {anchor} contains itself")
            total += sizes.get(anchor, 0)
        elif isinstance(event, yaml.CollectionStartEvent):
            inside.append((anchor, total))
            total += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = inside.pop()
            sizes[anchor] = total - before
        elif isinstance(event, yaml.ScalarEvent):
            total, sizes[anchor] = total + 1, 1
            if len(event.value) > LONGEST_VALUE:
                raise ValueError(f"a value of {len(event.value):,} characters, more than {LONGEST_VALUE:,}")
        if total > MOST or len(inside) > DEEPEST:
            raise ValueError(f"more than {MOST:,} values, or {DEEPEST} levels of nesting")


def _refuse_doubled_keys(root: yaml.Node | None) -> None:
    rest, known = [root], set()
    for node in rest:
        if id(node) in known or not isinstance(node, yaml.CollectionNode):
            continue
        known.add(id(node))
        if not isinstance(node, yaml.MappingNode):
            rest += node.value
            continue
        keys = set()
        for key, value in node.value:
            if not isinstance(key.value, str):
                problem = f"a {'list' if isinstance(key, yaml.SequenceNode) else 'mapping'} is used as a key"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            if key.value in keys:
                raise yaml.MarkedYAMLError(problem=f"duplicate key {key.value}", problem_mark=key.start_mark)
            keys.add(key.value)
            rest.append(value)


def _check_values(content: Any) -> None:
    """
    Raises:
        ValueError: there are more than `MOST` values, or an integer beyond 64 bits.
    """
    left, rest = MOST, [content]
    while rest:
        value = rest.pop()
        inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else [value]
        left -= 1 + len(inner)
        if left < 0:
            raise ValueError(f"more than {MOST:,} values")
        for name, part in value.items() if isinstance(value, dict) else enumerate(inner):
            if isinstance(part, int) and part.bit_length() > 64:
                raise ValueError(f"an integer of more than 64 bits at {name}")
        rest += [part for part in inner if isinstance(part, dict | list)]
