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
from typing import Annotated, Any, get_args, get_origin

from docutils import nodes
from sphinx.builders.html import StandaloneHTMLBuilder
from sphinx.util.docutils import SphinxDirective

DOCS = Path(__file__).parent
ROOT = DOCS.parents[1]
sys.path.insert(0, str(ROOT))

import ganzoo  # noqa: E402
from ganzoo.cli import VERBS, main  # noqa: E402
from ganzoo.cli.catalog import header, paper  # noqa: E402
from ganzoo.cli.paths import additions, configs, pretrained, record_of  # noqa: E402
from ganzoo.core import limits  # noqa: E402

project = "ganzoo"
author = copyright = "the ganzoo authors"
release = version = ganzoo.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"ganzoo {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
default_role = "py:obj"  # links to what the site documents; anything else is shown as code
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_use_ivar = True  # "Attributes:" beside `:members:` would be documented twice
smartquotes_action = "D"  # dashes only
SOURCES = "https://github.com/ganzoo/ganzoo/blob/main"
GENERATED = DOCS / "_generated"  # pictures; git ignores them


class Myst(SphinxDirective):
    """A directive whose content is MyST text, made by `text(argument)`."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(self.text(*self.arguments), allow_section_headings=True)

    def text(self, argument: str = "") -> str:
        raise NotImplementedError


OWN = ("classify", "mix", "moved", "translate_back")  # methods that only some variants have


class Variant(Myst):
    """Paper, samples and scores of its trained models, configs, and docstring of a variant."""

    def text(self, argument: str = "") -> str:
        module = ganzoo.VARIANTS[argument]
        source = re.sub(r"arXiv:([\d.]+)", r"[arXiv:\1](https://arxiv.org/abs/\1)", paper(module))
        lines = ["## Paper", "", f"{source}.", ""]
        models = [name for name, folder in pretrained().items() if record_of(folder)["variant"] == argument]
        for name in models:
            lines += [f"## Trained model `{name}`", ""]
            if argument not in ("Pix2Pix", "CycleGAN"):  # which need pictures to translate
                lines += [f"![samples of {name}](/{samples(name).relative_to(DOCS)})", ""]
            scores = record_of(pretrained()[name])["scores"]["scores"]
            lines += ["| score | value |", "|---|---|"]
            lines += [f"| `{score['name']}` | {score['value']:.4g} |" for score in scores]
            lines += ["", f"[Its card]({SOURCES}/ganzoo/pretrained/{name}/README.md) has the protocol.", ""]
        lines += ["## Configs", "", table(configs(), argument.lower()), ""]
        own = [name for name in OWN if hasattr(getattr(ganzoo, argument), name)]
        lines += ["## Reference", "", "```{eval-rst}", f".. autoclass:: ganzoo.{argument}"]
        lines += ["", *(f".. automethod:: ganzoo.{argument}.{name}" for name in own), "```"]
        return "\n".join(lines)


class Variants(Myst):
    """Method (a column of the README) and paper of every variant."""

    def text(self, argument: str = "") -> str:
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|", readme, re.MULTILINE)
        lines = [f"| [{name}]({name.lower()}.md) | {method} | {source} |" for name, source, method in rows]
        return "\n".join(["| variant | method | paper |", "|---|---|---|", *lines])


class Configs(Myst):
    """The configs of a folder that are added to another one."""

    def text(self, argument: str = "") -> str:
        return table(additions(), argument)


class Types(Myst):
    """The types of limited numbers."""

    def text(self, argument: str = "") -> str:
        kinds = {name: get_args(kind) for name, kind in vars(limits).items() if get_origin(kind) is Annotated}
        rows = [f"| *{name}* | {kind.__name__} | {limit} |" for name, (kind, limit) in kinds.items()]
        return "\n".join(["| type | number | range |", "|---|---|---|", *rows])


class Help(Myst):
    """`--help` of every verb. The options of `validate` and `test` are those of `fit`."""

    def text(self, argument: str = "") -> str:
        lines = []
        for verb in VERBS:
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                main([verb, "--help"])
            text = out.getvalue().strip()
            if verb in ("validate", "test"):
                text = text.partition("\n\noptions:")[0] + "\n\noptions: those of fit"
            lines += [f"## {verb}", "", "```text", text, "```", ""]
        return "\n".join(lines)


def table(found: dict[str, Path], folder: str) -> str:
    """Configs of a folder with the first line of each."""
    lines = ["| `--config` | |", "|---|---|"]
    for name, path in found.items():
        if name.startswith(f"{folder}/"):
            first = header(path)[0].replace("|", "\\|")
            lines.append(f"| [`{name}`]({SOURCES}/configs/{name}.yaml) | {first} |")
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
    literal = False
    for i, line in enumerate(lines):
        literal = line.endswith("::") or literal and (not line or line.startswith(" "))
        if literal:
            continue
        parts = re.split(r"(`[^`]*`)", line)
        lines[i] = "".join(part if part.startswith("`") else re.sub(r"([|*])", r"\\\1", part) for part in parts)


def localize(app: Any, page: str, source: list[str]) -> None:
    """Links to GitHub's copies of pages that the site has, too."""
    for ours, theirs in {"gallery": "theory/gallery", "learning": "learning/README"}.items():
        source[0] = source[0].replace(f"{SOURCES}/.github/{theirs}.md", f"/{ours}.md")


def skip(app: Any, what: str, name: str, obj: Any, skipped: bool, options: Any) -> bool | None:
    """Fields of a NamedTuple, which its docstring lists, and attributes that are None, for their type's docstring."""
    return True if obj is None or (obj.__doc__ or "").startswith("Alias for field number") else None


def shorten(app: Any, what: str, name: str, *rest: Any) -> None:
    """`Annotated[int, Limits(1, 100)]` is an int."""
    kinds = app.env.current_document.autodoc_annotations.get(name, {})
    kinds.update({key: re.sub(r"Annotated\[(\w+), Limits\(.*?\)\]", r"\1", kind) for key, kind in kinds.items()})


def setup(app: Any) -> None:
    os.environ["COLUMNS"] = "90"  # of the verbs' help
    StandaloneHTMLBuilder.supported_image_types.append("image/webp")  # which all browsers know
    app.add_directive("variant", Variant)
    app.add_directive("variants", Variants)
    app.add_directive("types", Types)
    app.add_directive("configs", Configs)
    app.add_directive("help", Help)
    app.connect("source-read", localize)
    app.connect("autodoc-process-docstring", escape, priority=400)  # before napoleon
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-signature", shorten, priority=900)  # after autodoc has read the types
