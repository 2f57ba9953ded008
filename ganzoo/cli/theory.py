"""`theory`: draws figures on GAN theory into a folder; each call recomputes all numbers."""

from __future__ import annotations

import argparse
import importlib
import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ganzoo.cli.errors import Arguments, UserError
from ganzoo.core.files import read_text
from ganzoo.core.text import closest, path_of
from ganzoo.theory import FIGURES

TITLE = "# Figures of the theory"


def main(verb: str, arguments: Sequence[str]) -> int:
    parser = Arguments(verb, __doc__ or "")
    parser.epilog = "\n".join(["figures:", *(f"  {name:<24}{text}" for name, (_, text) in FIGURES.items())])
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--outdir", type=path_of, default=Path("theory"), metavar="DIR", help="default: theory")
    parser.add_argument("names", nargs="*", metavar="FIGURE", help="default: all")
    options = parser.parse_args(arguments)
    names = list(dict.fromkeys(options.names or FIGURES))
    for name in names:
        if name not in FIGURES:
            raise UserError(f"no figure {name!r}{closest(name, FIGURES, f'python -m ganzoo {verb} --help lists them')}")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UserError('figures need matplotlib: pip install "ganzoo[figures]"') from None
    with writing(options.outdir):
        options.outdir.mkdir(parents=True, exist_ok=True)
    page = options.outdir / "gallery.md"
    with writing(options.outdir):
        page.touch()
        if (text := read_text(page)) and not text.startswith(TITLE):
            raise UserError(f"{page} is not a page of figures, and would be overwritten; choose another --outdir")
    for number, name in enumerate(names, start=1):
        print(f"{number}/{len(names)} {name}", end="", flush=True)
        start = time.monotonic()
        try:
            figure = drawing(name)()
        except SystemExit as error:
            raise KeyboardInterrupt from error  # Lightning exits on Ctrl-C
        with writing(options.outdir):
            figure.savefig(options.outdir / f"{name}.png")
            shown = [name for name in FIGURES if (options.outdir / f"{name}.png").exists()]
            page.write_text(gallery(shown), encoding="utf-8")
        print(f"  {time.monotonic() - start:.1f} s", flush=True)
    print(f"{page} shows the figures with captions")
    return 0


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """
    Raises:
        UserError: the folder cannot be written to.
    """
    try:
        yield
    except OSError as error:
        what = f"{error.strerror or error}: {error.filename or folder}"
        raise UserError(f"--outdir {folder}: {what}; choose another folder") from None


def drawing(name: str) -> Callable[..., Any]:
    """The function that draws a figure."""
    return getattr(importlib.import_module(f"ganzoo.theory.{FIGURES[name][0]}"), name)


def gallery(names: Sequence[str]) -> str:
    """A page of pictures with their captions."""
    captions = {name: inspect.getdoc(drawing(name)) or "" for name in names}  # None under -OO
    parts = [f"## `{name}`\n\n{captions[name]}\n\n![{FIGURES[name][1]}]({name}.png)" for name in names]
    return "\n\n".join([TITLE, "Drawn by `python -m ganzoo theory`.", *parts]) + "\n"
