"""The theory figures, and the command that writes them with their captions."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from PIL import Image

from ganzoo.cli import main
from ganzoo.cli.theory import drawing, gallery
from ganzoo.theory import FIGURES

SLOW = {"latent_arithmetic", "boosting", "dirac", "aliasing", "f_gans", "bilinear"}  # two seconds or more each


@pytest.mark.parametrize("name", [pytest.param(f, marks=[pytest.mark.slow] * (f in SLOW)) for f in FIGURES])
def test_every_figure_is_drawn(name, tmp_path):
    draw = drawing(name)
    short = {"steps": 3} if "steps" in inspect.signature(draw).parameters else {}
    figure = draw(**short)
    figure.set_layout_engine("none")  # layout takes longer than drawing
    figure.savefig(tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as picture:
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 10
    assert len(inspect.getdoc(draw)) > 80  # the caption


def test_the_theory_command_writes_figures_and_a_gallery(tmp_path, capsys):
    assert main(["theory", "hinge", "hinge", "--outdir", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "gallery.md").read_text()
    assert "![EBGAN's losses and the margin](hinge.png)" in page and "optimal" not in page
    assert (tmp_path / "out" / "hinge.png").exists()
    out = capsys.readouterr().out
    assert "gallery.md" in out and "1/1 hinge" in out


def test_an_invalid_output_folder_is_refused(tmp_path, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "out" / "hinge.png").mkdir(parents=True)
    for folder, about in {"file": "File exists", "out": "Is a directory"}.items():
        assert main(["theory", "hinge", "--outdir", str(tmp_path / folder)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("ganzoo: error: --outdir") and about in error and len(error.splitlines()) == 1


def test_another_page_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "gallery.md").write_text("# My gallery\n")
    assert main(["theory", "hinge", "--outdir", str(tmp_path)]) == 2
    assert "would be overwritten; choose another --outdir" in capsys.readouterr().err
    assert (tmp_path / "gallery.md").read_text() == "# My gallery\n" and len(list(tmp_path.iterdir())) == 1


def test_the_committed_gallery_has_every_figure():
    place = Path(__file__).parents[2] / ".github" / "theory"
    assert (place / "gallery.md").read_text() == gallery(list(FIGURES))
    assert {path.stem for path in place.glob("*.png")} == set(FIGURES)


def test_a_misspelt_figure_is_refused_with_a_suggestion(capsys):
    assert main(["theory", "bilinaer"]) == 2
    assert "did you mean 'bilinear'?" in capsys.readouterr().err
