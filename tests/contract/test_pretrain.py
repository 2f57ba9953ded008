"""The script that trains the shipped models: reproducible weights, in parts or at once, and their records."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

import ganzoo
from ganzoo.checkpoint.pretrained import load, read, save_pretrained
from ganzoo.cli import main
from ganzoo.cli.paths import record_of
from ganzoo.core.pixels import to_float
from ganzoo.data import Digits, Pairs
from tests.campaigns import pretrain, pretrain_page

CONFIG = """\
model:
  class_path: GAN
  init_args:
    hidden: 16
    d_hidden: 8
    ema_half_life: 1000
data:
  class_path: Digits
  init_args:
    batch_size: 100
samples:
  video_fps: 0
  rows: 1
scores:
  metrics: []
trainer:
  max_steps: 6
"""


def train_here(more: str = ""):
    """A list of commands, and a replacement for `pretrain._timed` that runs them in this process."""
    calls = []

    def timed(command):
        calls.append(command)
        return main([*command[3:], *more.split()]), {"wall": 2.0, "cpu": 1.0}

    return calls, timed


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ganzoo.evaluation.assemble.usual_count", lambda extractor: 100)
    Path("gan").mkdir()
    Path("gan/digits.yaml").write_text(CONFIG)
    return tmp_path


@pytest.fixture
def run(work, monkeypatch):
    """A function that runs the script on the config in this process and returns the training commands."""

    def run(more: str = "") -> list[list[str]]:
        calls, timed = train_here(more)
        with monkeypatch.context() as patch:
            patch.setattr(pretrain, "_timed", timed)
            assert pretrain.main(["gan/digits.yaml", "--out", "out", "--work", "work"]) == 0
        return calls

    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a finished model, made by the script."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "gan").mkdir()
    (folder / "gan/digits.yaml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PL_GLOBAL_SEED", raising=False)
        patch.setattr("ganzoo.evaluation.assemble.usual_count", lambda extractor: 100)
        patch.setattr(pretrain, "_timed", train_here()[1])
        names = [str(folder / name) for name in ("gan/digits.yaml", "out", "work")]
        assert pretrain.main([names[0], "--out", names[1], "--work", names[2]]) == 0
    return folder


@pytest.fixture
def shipped(made, tmp_path, monkeypatch):
    """The finished model as a shipped one."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made / "out", "shipped")
    monkeypatch.setattr(ganzoo, "PRETRAINED", tmp_path / "shipped")
    return tmp_path / "shipped"


# Training


def test_the_averaged_weights_of_the_last_step_are_stored(made):
    record, model = record_of(made / "out/gan-digits"), load(made / "out/gan-digits")
    last = load(next(made.glob("work/*/*/checkpoints/last.ckpt")))
    assert (model.sample(seeds=range(9)) - last.sample(seeds=range(9))).abs().max() < 2 / 255
    assert record["config"] == "gan/digits" and record["variant"] == "GAN" and record["seed"] == 0
    assert record["steps"] == 6 and record["images_seen"] == int(last.images_seen) == 600
    assert record["settings"]["model"]["init_args"]["hidden"] == 16
    assert record["seconds"] == {"wall": 2.0, "cpu": 1.0, "parts": 1, "parts_not_counted": 0}
    assert record["slim"] and record["dtype"] == "float16" and record["samples_off"]["by_at_most"] <= 1
    assert record["scores"]["subject"]["weights"] == "averaged"
    assert {"fid", "precision", "recall"} <= {score["figure"] for score in record["scores"]["scores"]}
    assert [score.name[:11] for score in pretrain_page.scores(record, "quick")] == ["fid_digits@"]


def test_finished_models_are_not_trained_again(made, work, run):
    shutil.copytree(made / "out", "out")
    before = Path("out/gan-digits/record.json").read_bytes()
    assert run() == [] and Path("out/gan-digits/record.json").read_bytes() == before
    assert not Path("work").exists()


def test_a_changed_config_is_trained_anew(made, work, run):
    shutil.copytree(made / "out", "out")
    shutil.copytree(made / "work", "work")
    Path("gan/digits.yaml").write_text(CONFIG.replace("hidden: 16", "hidden: 12", 1))
    (command,) = run()
    assert "--ckpt_path" not in command
    assert load("out/gan-digits").hparams["hidden"] == 12
    Path("gan/digits.yaml").write_text("# a comment is none\n" + CONFIG.replace("hidden: 16", "hidden: 12", 1))
    assert run() == []


def test_training_in_parts_gives_the_same_weights(made, work, run):
    """Stopped or killed, and started again."""
    with pytest.raises(SystemExit, match=r"gan/digits: .* run the same command to resume"):
        run("--trainer.max_steps 2")
    assert not Path("out").exists()
    clock = next(Path("work").glob("*/seconds.json"))
    clock.write_text(clock.read_text().replace("]", ", null]"))  # as left by a killed training
    (command,) = run()
    assert command[command.index("--ckpt_path") + 1].endswith("/001-gan-digits")
    record = record_of(Path("out/gan-digits"))
    assert record["seconds"] == {"wall": 4.0, "cpu": 2.0, "parts": 3, "parts_not_counted": 1}
    assert record["sha256"] == record_of(made / "out/gan-digits")["sha256"]
    assert "| time | at least 0:04" in Path("out/gan-digits/README.md").read_text()
    shutil.rmtree("out")
    assert run() == [] and record_of(Path("out/gan-digits"))["seconds"]["parts"] == 3


def test_unknown_configs_are_refused_before_training(work, capsys):
    with pytest.raises(SystemExit):
        pretrain.main(["gan/digits.yaml", "gan/digit", "--out", "out", "--work", "work"])
    assert "no config 'gan/digit'; did you mean 'gan/digits'?" in capsys.readouterr().err
    assert not Path("work").exists()


def test_timed_returns_exit_status_and_seconds():
    status, seconds = pretrain._timed([sys.executable, "-c", "sum(range(10**7)); raise SystemExit(3)"])
    assert status == 3 and seconds["cpu"] > 0 and seconds["wall"] > 0


def test_timed_forwards_ctrl_c_to_the_command():
    code = "import signal, sys, time\nsignal.signal(signal.SIGINT, lambda *_: sys.exit(130))\ntime.sleep(60)"
    before = signal.getsignal(signal.SIGINT)
    timer = threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    status, seconds = pretrain._timed([sys.executable, "-c", code])
    assert status == 130 and seconds["wall"] < 30 and signal.getsignal(signal.SIGINT) is before


# How weights are stored


def test_weights_are_stored_as_float16_if_samples_stay_the_same(tmp_path):
    model = ganzoo.GAN(8, 1, 4, 16, 8, 2).eval()
    stored = pretrain.store(model, tmp_path, Digits())
    assert stored["dtype"] == "float16" and stored["slim"] and stored["samples_off"]["by_at_most"] <= 1
    assert read(tmp_path).weights["generator.layers.0.weight"].dtype == torch.float16


@pytest.mark.parametrize("scale", [1e-7, 1e8])
def test_weights_beyond_float16_are_stored_as_float32(tmp_path, scale):
    """Weights outside the range of float16."""
    model = ganzoo.GAN(8, 1, 4, 16, 8, 2).eval()
    with torch.no_grad():
        for factor, layer in ((scale, model.generator.layers[0]), (2 / scale, model.generator.layers[2])):
            layer.weight.mul_(factor)
            layer.bias.mul_(factor if factor == scale else 1)
    stored = pretrain.store(model, tmp_path, Digits())
    assert stored["dtype"] == "float32" and stored["samples_off"] == {"bytes": 0.0, "by_at_most": 0}
    assert torch.equal(load(tmp_path).sample(seeds=range(9)), model.sample(seeds=range(9)))


@pytest.mark.parametrize("variant", ["ImprovedGAN", "LadderEBGAN"])
def test_classifiers_are_stored_with_their_discriminator(tmp_path, variant):
    model, data = getattr(ganzoo, variant)(8, 1, 10, z_dim=4, hidden=8, d_hidden=8).eval(), Digits()
    assert not pretrain.store(model, tmp_path, data)["slim"]
    copy = load(tmp_path)
    assert torch.equal(pretrain.classified(model, data), pretrain.classified(copy, data))
    found = pretrain.error(copy, data)
    assert found["images"] == 200 and 100 < found["wrong"] <= 200
    assert pretrain.error(ganzoo.GAN(8, 1, 4, 16, 8, 2), data) is None


# Cards, page, wall


def test_the_page_is_made_from_the_stored_models_alone(made, work):
    """Without training, and without the training's files."""
    shutil.copytree(made / "out", "out")
    files = ["out/README.md", "out/wall.png", "out/gan-digits/README.md"]
    before = [Path(file).read_bytes() for file in files]
    for file in files:
        Path(file).unlink()
    assert pretrain.main(["--page", "--out", "out", "--work", "nowhere"]) == 0
    assert [Path(file).read_bytes() for file in files] == before


def test_the_card_states_the_facts_of_the_record(shipped):
    text = (shipped / "gan-digits/README.md").read_text()
    record = record_of(shipped / "gan-digits")
    for words in (
        *("# gan-digits", "arXiv:1406.2661", "--seed_everything 0", "6, 600 images", "generator only", "float16"),
        *(record["sha256"], record["date"], 'ganzoo.load("gan-digits")', "not its best one"),
        *(score["name"] for score in record["scores"]["scores"]),
    ):
        assert words in text


def test_the_wall_of_a_translator_shows_sources(work):
    """Each source above its translation."""
    data = {"class_path": "Pairs", "init_args": {"data": {"class_path": "Digits", "init_args": {"image_size": 8}}}}
    model = ganzoo.Pix2Pix(8, 1, 1, 4).eval()
    folder = save_pretrained(model, "pix2pix-digits", slim=True)
    Path(folder / "record.json").write_text(json.dumps({"settings": {"data": data}}))
    image = pretrain_page.wall([folder])
    source = pretrain_page.sources(model, Pairs(Digits(image_size=8)), 10)
    row = pretrain_page.strip(folder)
    assert image.size == (pretrain_page.NAMES + row.width, row.height)
    assert row.height > 2 * pretrain_page.TILE
    first = to_float(torch.tensor(np.asarray(row.convert("L"))[5:50:6, 5:50:6]))  # a pixel is six wide
    assert torch.allclose(first, source[0, 0], atol=0.01)


def test_clock_formats_seconds():
    assert [pretrain_page.clock(seconds) for seconds in (0.4, 59.6, 185, 3661)] == ["0:00", "1:00", "3:05", "1:01:01"]


# Shipped models on the command line


def test_list_and_info_show_the_model(shipped, capsys):
    assert main(["list"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "  gan-digits " in line)
    assert "GAN on Digits, 600 images: fid_digits@" in line and line.endswith("0.0 MB")
    assert main(["info", "gan-digits"]) == 0
    out = capsys.readouterr().out
    assert "# gan-digits" in out and "GAN, 600 images seen, 0.0 MB, generator only" in out


def test_sample_and_evaluate_accept_the_model(shipped, capsys):
    assert main(["sample", "gan-digits", "-n", "3"]) == 0
    assert "3 images of GAN (600 training images seen)" in capsys.readouterr().out
    assert main(["evaluate", "gan-digits", "-n", "100", "--metrics", "fid"]) == 0
    out = capsys.readouterr().out
    assert "100 fakes of GAN" in out and "against 1,397 train images of Digits" in out
    assert Path("scores.json").is_file() and sorted(os.listdir(shipped / "gan-digits")) == [
        *("README.md", "config.json", "model.safetensors", "record.json")
    ]


@pytest.mark.parametrize("verb", ["sample", "info", "evaluate", "fit --config gan/digits --ckpt_path"])
def test_the_closest_name_is_suggested(shipped, capsys, verb):
    assert main([*verb.split(), "gan-digit"]) == 2
    assert "did you mean 'gan-digits'?" in capsys.readouterr().err


def test_fit_refuses_a_pretrained_model_without_a_discriminator(shipped, capsys):
    assert main(["fit", "--config", "gan/digits", "--ckpt_path", "gan-digits"]) == 2
    assert "gan-digits has no discriminator; " in capsys.readouterr().err


def test_list_does_not_import_torch(shipped):
    code = "import sys, ganzoo\nfrom ganzoo.cli import main\nganzoo.PRETRAINED = type(ganzoo.PRETRAINED)(sys.argv[1])\n"
    code += "main(['list'])\nassert not {'torch', 'lightning'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code, str(shipped)], check=True, capture_output=True)
