"""What the documents say, works."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from ganzoo.cli import VERBS, main

ROOT = Path(__file__).parents[2]


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)


def commands() -> list[str]:
    """Every `python -m ganzoo` line of the README."""
    lines = "\n".join(blocks("README.md", "bash")).replace("\\\n", " ").splitlines()
    lines = [line.partition("#")[0].split("&&")[-1] for line in lines if "python -m ganzoo" in line]
    return [line.removeprefix("until ").partition(";")[0].strip() for line in lines]


def test_the_two_lines():
    first = blocks("README.md", "bash")[0]
    assert "pip install -e . && python -m ganzoo fit --config configs/dcgan/digits.yaml" in first
    assert 'pip install -e ".[test]" && pytest' in first


def test_the_readmes_commands_run_in_order(tmp_path, monkeypatch, capsys):
    """Shortened: three batches, tiny benchmarks; each command finds what the one before it left."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for folder in ("pictures", "drawings", "photos", "horses", "zebras", "classes/cats", "classes/dogs"):
        make_pictures(tmp_path / folder)
    lines = commands()
    assert len(lines) >= 8
    for line in lines:
        arguments = shlex.split(line)[3:]
        verb = arguments[0]
        assert verb in VERBS, line
        if verb in ("bench", "theory"):
            continue  # tests/contract/test_bench.py, tests/contract/test_theory.py
        if verb == "fit":
            if "--trainer.devices" in arguments:
                continue  # tests/contract/test_processes.py
            arguments += ["--trainer.max_steps", "3", "--data.batch_size", "4"]
            first = "configs/dcgan/digits.yaml" in line  # which is scored, and gets a video
            if "digits" in line:
                arguments += ["--scores.final_n", "400" if first else "0"]
            if not first:
                arguments += ["--samples.video_fps", "0"]
            if "/folder" in line or "dcgan/shards" in line:
                arguments += ["--model.width", "4"]  # of 64x64 pixels
            if "ImageFolder" in arguments:
                arguments += ["--model.hidden", "8", "--model.d_hidden", "8", "--data.num_workers", "0"]
        if verb == "evaluate" and "-digits" in line and "--compare" not in line:
            arguments += ["-n", "400"]
        assert main(arguments) == 0, f"{line}\n{capsys.readouterr().err}"
    assert (tmp_path / "runs" / "001-dcgan-digits" / "samples.mp4").exists()


def make_pictures(folder: Path) -> None:
    from PIL import Image

    folder.mkdir(parents=True)
    for i in range(8):
        Image.effect_noise((80, 70), 50 + i).convert("RGB").save(folder / f"{i}.jpg")


def test_the_readmes_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quick = ["--trainer.max_steps", "2", "--data.batch_size", "4", "--scores.final_n", "0"]
    assert main(["fit", "--config", "dcgan/digits", *quick]) == 0
    for block in blocks("README.md", "python"):
        block = re.sub(r"\bn=[\d_]+", "n=1000", re.sub(r"max_steps=[\d_]+", "max_steps=2", block))
        exec(compile(block, "README.md", "exec"), {})


def test_the_variant_of_contributing_keeps_the_contract(tmp_path, monkeypatch):
    variant, check = blocks("CONTRIBUTING.md", "python")[:2]
    monkeypatch.delitem(sys.modules, "my_gan", raising=False)
    (tmp_path / "my_gan.py").write_text(variant)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    try:
        exec(compile(check, "CONTRIBUTING.md", "exec"), {})
        line = next(line for line in blocks("CONTRIBUTING.md", "bash")[0].splitlines() if " fit " in line)
        assert main([*shlex.split(line)[3:-1], "2", "--scores.final_n", "100"]) == 0
        line = next(line for line in blocks("CONTRIBUTING.md", "bash")[0].splitlines() if " sample " in line)
        assert main(shlex.split(line)[3:]) == 0
    finally:
        sys.modules.pop("my_gan", None)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(name):
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / name).read_text())
    assert targets
    for target in targets:
        assert (ROOT / target).exists(), f"{name} links to {target}"
