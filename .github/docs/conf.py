"""The documentation site, from the guides, the docstrings, the configs, the trained models and the parsers.

python -m sphinx -W .github/docs site
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

DOCS = Path(__file__).parent
ROOT = DOCS.parents[1]
sys.path.insert(0, str(ROOT))

import ganzoo  # noqa: E402
from ganzoo.cli import VERBS, main  # noqa: E402
from ganzoo.cli.catalog import header, paper  # noqa: E402
from ganzoo.cli.paths import additions, configs, pretrained, record_of  # noqa: E402

project = "ganzoo"
author = copyright = "the ganzoo authors"
release = version = ganzoo.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "ganzoo"
default_role = "code"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_use_ivar = True  # "Attributes:" beside `:members:` would be documented twice
smartquotes = False
SOURCES = "https://github.com/ganzoo/ganzoo/blob/main"
GENERATED = DOCS / "_generated"  # pictures; git ignores them


class Myst(SphinxDirective):
    """A directive whose content is MyST text, made by `text(argument)`."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(self.text(*self.arguments))

    def text(self, argument: str = "") -> str:
        raise NotImplementedError


class Variant(Myst):
    """Paper, samples and scores of its trained models, configs, and docstring of a variant."""

    def text(self, argument: str = "") -> str:
        module = ganzoo.VARIANTS[argument]
        source = re.sub(r"arXiv:([\d.]+)", r"[arXiv:\1](https://arxiv.org/abs/\1)", paper(module))
        lines = [f"**Paper:** {source}.", ""]
        models = [name for name, folder in pretrained().items() if record_of(folder)["variant"] == argument]
        for name in models:
            lines += [f"## Trained model `{name}`", ""]
            if argument not in ("Pix2Pix", "CycleGAN"):  # which need pictures to translate
                lines += [f"![samples of {name}](/{samples(name).relative_to(DOCS)})", ""]
            scores = record_of(pretrained()[name])["scores"]["scores"]
            lines += ["| score | value |", "|---|---|"]
            lines += [f"| `{score['name']}` | {score['value']:.4g} |" for score in scores]
            lines += ["", f"[Its card]({SOURCES}/ganzoo/pretrained/{name}/README.md) has the protocol.", ""]
        lines += ["## Configs", "", "| `--config` | what it trains |", "|---|---|"]
        mine = {name: path for name, path in configs().items() if name.startswith(f"{argument.lower()}/")}
        lines += [f"| [`{name}`]({SOURCES}/configs/{name}.yaml) | {header(path)[0]} |" for name, path in mine.items()]
        lines += ["", "## Reference", "", "```{eval-rst}", f".. autoclass:: ganzoo.{argument}", "```"]
        return "\n".join(lines)


class Configs(Myst):
    """The configs that are added to another one."""

    def text(self, argument: str = "") -> str:
        rows = [f"| `{name}` | {header(path)[0]} |" for name, path in additions().items()]
        return "\n".join(["| `--config` | what it adds |", "|---|---|", *rows])


class Help(Myst):
    """`--help` of every verb."""

    def text(self, argument: str = "") -> str:
        lines = []
        for verb in VERBS:
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                main([verb, "--help"])
            lines += [f"## {verb}", "", f"{VERBS[verb].help}.", "", "```text", out.getvalue().strip(), "```", ""]
        return "\n".join(lines)


def samples(name: str) -> Path:
    """Samples of a trained model, as `python -m ganzoo sample NAME` draws them."""
    folder = GENERATED / name
    if not (folder / "grid.png").exists():
        with contextlib.redirect_stdout(io.StringIO()):
            main(["sample", name, "--outdir", str(folder)])
    return folder / "grid.png"


def escape(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text with `code`: bars and stars in their formulas are no markup."""
    for i, line in enumerate(lines):
        parts = re.split(r"(`[^`]*`)", line)
        lines[i] = "".join(part if part.startswith("`") else re.sub(r"([|*])", r"\\\1", part) for part in parts)


def setup(app: Any) -> None:
    os.environ["COLUMNS"] = "100"  # of the verbs' help
    app.add_directive("variant", Variant)
    app.add_directive("configs", Configs)
    app.add_directive("help", Help)
    app.connect("autodoc-process-docstring", escape, priority=400)  # before napoleon
