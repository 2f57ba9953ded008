"""The documents: commands and Python blocks run, links resolve."""

from __future__ import annotations

import functools
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

import ganzoo
from ganzoo.cli import VERBS, main, training
from ganzoo.cli.paths import record_of
from tests.benchmarks import presets, rows
from tests.campaigns import pretrain_page

ROOT = Path(__file__).parents[2]
DOCS = ROOT / ".github" / "docs"
GUIDES = sorted(path.stem for path in DOCS.glob("guides/*.md"))
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *(ROOT / ".github").rglob("*.md")])
FOLDERS = ("pictures", "drawings", "photos", "horses", "zebras", "classes/cats", "classes/dogs")
ELSEWHERE = {  # a word of commands that are tested elsewhere -> where
    "bench": "tests/contract/test_bench.py",
    "theory": "tests/contract/test_theory.py",
    "--truncation": "tests/unit/test_biggan.py, as no shipped model has one",
    "--trainer.devices": "tests/contract/test_processes.py",
    "inception": "tests/unit/test_extractors.py, as its weights are a download",
    "--metrics authenticity,copying": "the same, as they are the default for folders",
    "my_gan.GeometricGAN": "test_the_guides_variant_keeps_the_contract",
}


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)


def commands(path: Path) -> list[list[str]]:
    """The arguments of every `python -m ganzoo` line that is not tested elsewhere."""
    lines = "\n".join(blocks(path, "bash")).replace("\\\n", " ").splitlines()
    lines = [found[0] for line in lines if (found := re.search(r"python -m ganzoo[^;#]*", line))]  # also in loops
    return [shlex.split(line)[3:] for line in lines if not any(word in line for word in ELSEWHERE)]


def shortened(arguments: list[str]) -> list[str]:
    """With small batches, few steps and few fakes."""
    line, quick = " ".join(arguments), []
    if arguments[0] == "fit":
        quick += ["--data.batch_size", "4"]
        quick += [] if "--dry-run" in arguments else ["--trainer.max_steps", "3"]
        first = "configs/wgangp/emoji-roles.yaml" in line  # with scores and a video
        scored = first or "--seed_everything" in line
        quick += ["--scores.final_n", "400" if scored else "0"] if "digits" in line or "emoji" in line else []
        quick += [] if first else ["--samples.video_fps", "0"]
        quick += ["--model.width", "4"] if "/folder" in line or "dcgan/shards" in line else []  # of 64x64 pixels
        if "ImageFolder" in line and "improvedgan" in line:
            quick += ["--model.hidden", "8", "--model.d_hidden", "8", "--data.num_workers", "0"]
    if arguments[0] == "evaluate" and ("-digits" in line or "runs/" in line) and "--compare" not in line:
        quick += ["-n", "400"]
    return [*arguments, *quick]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with the configs and images that the documents name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for name in FOLDERS:
        make_pictures(tmp_path / name)
    return tmp_path


def make_pictures(folder: Path) -> None:
    from PIL import Image

    folder.mkdir(parents=True)
    for i in range(8):
        Image.effect_noise((80, 70), 50 + i).convert("RGB").save(folder / f"{i}.jpg")


def run(arguments: list[str], capsys) -> None:
    assert arguments[0] in VERBS, arguments
    assert main(arguments) == 0, f"{shlex.join(arguments)}\n{capsys.readouterr().err}"


def test_the_readme_starts_with_installation_and_test_commands():
    first = blocks(ROOT / "README.md", "bash")[0]
    assert "pip install -e . && python -m ganzoo fit --config configs/wgangp/emoji-roles.yaml" in first
    assert 'pip install -e ".[test]" && pytest' in first


def test_the_readme_commands_run_in_order(folder, capsys):
    """Shortened; each command may use the files of earlier ones."""
    lines = commands(ROOT / "README.md")
    assert len(lines) >= 8
    for arguments in lines:
        run(shortened(arguments), capsys)
    assert (folder / "runs" / "001-wgangp-portraits" / "samples.mp4").exists()


@pytest.mark.parametrize("guide", GUIDES)
def test_trainings_of_the_guides_can_be_built(guide, folder):
    """The slow test below trains. Without commands that read a run or shards."""
    for arguments in commands(DOCS / "guides" / f"{guide}.md"):
        if arguments[0] == "fit" and not any("runs/" in word or word.startswith("shards") for word in arguments):
            build(*shortened([word for word in arguments if word != "--dry-run"])[1:])


@functools.cache
def build(*arguments: str) -> None:
    """Once, as guides share commands."""
    training.build("fit", list(arguments), dry=True)


@pytest.mark.slow
@pytest.mark.parametrize("guide", GUIDES)
def test_commands_of_the_guides_run_in_order(guide, folder, capsys):
    for arguments in commands(DOCS / "guides" / f"{guide}.md"):
        run(shortened(arguments), capsys)


@pytest.mark.parametrize("page", ["README.md", *(f".github/docs/guides/{guide}.md" for guide in GUIDES)])
def test_python_blocks_run(page, folder):
    """In order, each in its own namespace, on a run of two steps."""
    found = [block for block in blocks(ROOT / page, "python") if "GeometricGAN" not in block]
    quick = ["--trainer.max_steps", "2", "--data.batch_size", "4", "--scores.final_n", "0"]
    for run in {run for block in found for run in re.findall(r"runs/001-(\w+)-", block)}:
        config = {"wgangp": "wgangp/emoji-roles", "dcgan": "dcgan/digits"}[run]
        assert main(["fit", "--config", config, *quick]) == 0
    for block in found:
        block = re.sub(r"\bn=[\d_]+", "n=1000", re.sub(r"max_steps=[\d_]+", "max_steps=2", block))
        exec(compile(block, page, "exec"), {})


def test_the_guides_variant_keeps_the_contract(tmp_path, monkeypatch):
    guide = DOCS / "guides" / "own-variant.md"
    variant, check = blocks(guide, "python")[:2]
    monkeypatch.delitem(sys.modules, "my_gan", raising=False)
    (tmp_path / "my_gan.py").write_text(variant)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    try:
        exec(compile(check, "own-variant.md", "exec"), {})
        fit, sample = (shlex.split(line)[3:] for line in blocks(guide, "bash")[0].replace("\\\n", " ").splitlines())
        assert main([*fit[:-1], "2", "--scores.final_n", "100"]) == 0
        assert main(sample) == 0
    finally:
        sys.modules.pop("my_gan", None)


def test_the_guides_checkpointing_saves_memory_and_keeps_the_gradients(monkeypatch):
    found = {}
    exec(blocks(DOCS / "guides" / "out-of-memory.md", "python")[0], found)
    small = {"image_size": 16, "width": 16, "maps": 256, "z_dim": 4, "mapping_layers": 1, "ema_half_life": None}
    peaks, gradients = [], []
    for kind in ganzoo.StyleGAN2, found["Checkpointed"]:
        torch.manual_seed(0)
        model = kind(**small)
        batch = {"image": torch.rand(8, 3, 16, 16), **model.draw(8, torch.Generator().manual_seed(0))}
        sum(sum(loss(batch).values()).sum() for loss in (model.generator_loss, model.discriminator_loss)).backward()
        gradients.append([p.grad for p in model.parameters()])
        monkeypatch.setattr(presets, "made", lambda _, kind=kind: kind(**small))
        with rows.silence():
            row = presets.measure("", 32, "32-true")
        peaks.append({name: peak - row["kept"] for name, peak in row["peaks"].items()})
    usual, checkpointed = peaks
    assert all(checkpointed[name] < 0.7 * usual[name] for name in ("G", "D"))
    assert all(checkpointed[name] == pytest.approx(usual[name], rel=0.05) for name in ("R1", "path"))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("name", ganzoo.list_models())
def test_every_variant_is_documented(name):
    """By a row in the README, with the score of its pretrained model, and by a page."""
    row = next(
        line
        for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
        if line.startswith(f"| `{name}` |")
    )
    records = {model: record_of(ganzoo.PRETRAINED / model) for model in ganzoo.list_pretrained()}
    if model := pretrain_page.one_each(records).get(name):
        score = records[model]["scores"]["scores"][0]
        assert f"| {score['value']:.2f} ({score['protocol']['image'].split(',')[0]}) | [`{model}`]" in row
    else:
        assert row.endswith("| | |")
    assert f"{{variant}} {name}\n" in (DOCS / "variants" / f"{name.lower()}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_links_resolve(page):
    """To files, and to headings of our own pages."""
    for target, heading in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", (ROOT / page).read_text(encoding="utf-8")):
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), f"{page} links to {target}"
        if heading:
            headings = re.findall(r"^#+ (.*)", path.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings]
            assert heading in anchors, f"{page} links to {target}#{heading}"


@pytest.mark.parametrize("guide", GUIDES)
def test_guides_are_short(guide):
    """At most 90 lines; 120 for `internals` and `own-variant`."""
    lines = (DOCS / "guides" / f"{guide}.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= (120 if guide in ("internals", "own-variant") else 90)
