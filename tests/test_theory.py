"""Every figure of the theory is drawn, and the command writes it with its caption."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from PIL import Image

from ganzoo.cli import main
from ganzoo.cli.theory import drawing, gallery
from ganzoo.theory import FIGURES


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_drawn(name, tmp_path):
    draw = drawing(name)
    short = {"steps": 3} if "steps" in inspect.signature(draw).parameters else {}
    draw(**short).savefig(tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as picture:
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 10
    assert len(inspect.getdoc(draw)) > 80  # the caption


def test_the_command_writes_a_gallery(tmp_path, capsys):
    assert main(["theory", "--only", "bilinear", "--outdir", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "README.md").read_text()
    assert "![f = xy under every update rule](bilinear.png)" in page and "optimal" not in page
    assert (tmp_path / "out" / "bilinear.png").exists()
    assert "README.md" in capsys.readouterr().out


def test_a_folder_that_cannot_be_is_named(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["theory", "--outdir", str(tmp_path / "file")]) == 2
    assert "--outdir" in capsys.readouterr().err


def test_the_committed_gallery_has_every_figure():
    place = Path(__file__).parents[1] / ".github" / "theory"
    assert (place / "README.md").read_text() == gallery(list(FIGURES))
    assert {path.stem for path in place.glob("*.png")} == set(FIGURES)
