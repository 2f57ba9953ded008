"""The script that trains the shipped models: reproducible weights, in parts or at once, and their records."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ganzoo
from ganzoo.checkpoint.pretrained import load, read, save_pretrained
from ganzoo.cli import main
from ganzoo.cli.paths import record_of
from ganzoo.core.pixels import to_float
from ganzoo.data import Digits, Pairs
from tests.campaigns import pretrain, pretrain_models, pretrain_page, pretrain_search, pretrain_wall
from tests.campaigns.children import Children
from tests.campaigns.pretrain_models import Model

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
    """A list of commands, and a replacement for `Children.run` that runs them in this process."""
    calls = []

    def run(self, command, limit=None):
        calls.append(command)
        return main([*command[3:], *more.split()]), {"wall": 2.0, "cpu": 1.0}

    return calls, run


def started(config: str, *more: str) -> int:
    return pretrain.main([config, "--out", "out", "--work", "work", "--rows", "rows.jsonl", *more])


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
        calls, run_here = train_here(more)
        with monkeypatch.context() as patch:
            patch.setattr(Children, "run", run_here)
            assert started("gan/digits.yaml") == (1 if more else 0)
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
        patch.setattr(Children, "run", train_here()[1])
        patch.chdir(folder)
        assert started("gan/digits.yaml") == 0
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
    held = {score.figure: score.protocol for score in pretrain_page.scores(record, "held_out")}
    assert held["fid"]["split"] == "test" and held["kid"]["settings"]["size"] == 100, "half of the 200 images"
    assert record["search"] == []


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


def test_training_in_parts_gives_the_same_weights(made, work, run, capsys):
    """Stopped or killed, and started again."""
    run("--trainer.max_steps 2")
    assert "gan/digits: the training ended early (status 0); run the same command to resume" in capsys.readouterr().err
    assert not Path("out/gan-digits").exists()
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


def test_children_return_exit_status_and_seconds():
    with Children() as children:
        status, seconds = children.run([sys.executable, "-c", "sum(range(10**7)); raise SystemExit(3)"])
        assert status == 3 and seconds["cpu"] > 0 and seconds["wall"] > 0
        status, seconds = children.run([sys.executable, "-c", "while True: pass"], limit=1)
        assert status == -signal.SIGKILL and seconds["cpu"] < 3


def test_ctrl_c_is_passed_on_to_all_children_and_no_more_are_started(tmp_path):
    code = (
        "import os, signal, sys, time\nsignal.signal(signal.SIGINT, lambda *_: sys.exit(130))\n"
        f"open(f'{tmp_path}/{{os.getpid()}}', 'w')\ntime.sleep(60)"
    )
    before, found = signal.getsignal(signal.SIGINT), []
    with Children() as children:
        command = [sys.executable, "-c", code]
        threads = [threading.Thread(target=lambda: found.append(children.run(command))) for _ in range(2)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < end:  # until both handle SIGINT
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)
        for thread in threads:
            thread.join()
        with pytest.raises(SystemExit, match="stopped"):
            children.run(command)
    assert [status for status, _ in found] == [130, 130] and all(seconds["wall"] < 30 for _, seconds in found)
    assert signal.getsignal(signal.SIGINT) is before


# The search


SEARCHED = CONFIG.replace(
    "  init_args:\n    hidden",
    """\
  init_args:
    optimizer:
      class_path: FusedAdam
      init_args:
        lr: 0.001 # not tuned yet
        beta1: 0.5
    hidden""",
    1,
)


def test_a_search_writes_the_best_setting_into_the_config_before_the_training(work, monkeypatch):
    """By real runs of a few steps; then the model is shipped with D."""
    settings = pretrain_models.rates(0.00005, 0.03)
    monkeypatch.setitem(pretrain_models.MODELS, "gan/digits", Model(6, settings, "--model.hidden 12", whole=True))
    Path("gan/digits.yaml").write_text(SEARCHED)
    calls, run_here = train_here()
    monkeypatch.setattr(Children, "run", run_here)
    assert started("gan/digits.yaml", "--jobs", "2") == 0
    short = [command for command in calls if "--model.hidden" in command]
    assert len(short) == 2 and len(calls) == 3
    assert all(command[command.index("--trainer.max_steps") + 1] == "3" for command in short), "half of six minutes"
    first, second = (json.loads(line) for line in Path("rows.jsonl").read_text().splitlines())
    assert first["values"] == settings[0] and first["fid"] != second["fid"] and not first["failure"]
    rate = "0.00005" if first["fid"] < second["fid"] else "0.03"
    text = Path("gan/digits.yaml").read_text()
    assert text == SEARCHED.replace("lr: 0.001 # not tuned yet", f"lr: {rate} # from a search")
    record = record_of(Path("out/gan-digits"))
    assert record["settings"]["model"]["init_args"]["optimizer"]["init_args"]["lr"] == float(rate)
    card = Path("out/gan-digits/README.md").read_text()
    assert f"optimizer lr {rate}: {min(first['fid'], second['fid']):.3g} (chosen)" in card
    assert "fit --config gan/digits --ckpt_path gan-digits" in card

    # With D, from which a training can start
    last, model = load(next(Path("work").glob("*/*/checkpoints/last.ckpt"))), load("out/gan-digits")
    assert not record["slim"] and record["error"] is None
    for wanted, there in zip(last.discriminator.parameters(), model.discriminator.parameters(), strict=True):
        assert torch.equal(wanted.half().float(), there)
    assert torch.equal(model.sample(seeds=[1]), load(shutil.copytree("out/gan-digits", "copy")).sample(seeds=[1]))
    quick = ["--trainer.max_steps", "1", "--scores.final_n", "0", "--samples.video_fps", "0"]
    assert main(["fit", "--config", "gan/digits.yaml", "--ckpt_path", "out/gan-digits", *quick]) == 0

    # Nothing is run again: the runs of the search belong to the config without its values
    calls.clear()
    assert started("gan/digits.yaml") == 0 and not calls
    shutil.rmtree("out")
    assert started("gan/digits.yaml") == 0 and not calls
    Path("gan/digits.yaml").write_text(text.replace("beta1: 0.5", "beta1: 0.0"))
    assert started("gan/digits.yaml") == 0 and len(calls) == 3, "another config: a new search"
    assert len(Path("rows.jsonl").read_text().splitlines()) == 4


def test_a_failed_setting_is_a_row_and_never_chosen(work, monkeypatch, capsys):
    monkeypatch.setitem(pretrain_models.MODELS, "gan/digits", Model(settings=pretrain_models.rates(0.001, 0.002)))
    Path("gan/digits.yaml").write_text(SEARCHED)
    monkeypatch.setattr(Children, "run", lambda self, command, limit=None: (2, {"wall": 2.0, "cpu": 1.0}))
    assert started("gan/digits.yaml") == 1
    assert "all runs of the search failed" in capsys.readouterr().err
    rows = [json.loads(line) for line in Path("rows.jsonl").read_text().splitlines()]
    assert [(row["fid"], row["failure"]) for row in rows] == [(None, "exit 2")] * 2
    assert pretrain_search.best([*rows, {"setting": "c", "fid": 3.0}, {"setting": "d", "fid": 4.0}])["setting"] == "c"


def test_values_are_written_into_the_config_and_comments_stay():
    values = {"optimizer.lr": 0.00002, "hidden": 20}
    text = pretrain_search.hold(SEARCHED, values)
    assert "lr: 0.00002 # from a search" in text and "    hidden: 20\n" in text
    assert pretrain_search.held(text, values) == values
    assert [pretrain_search.written(value) for value in (2.0, 1.5, 0.0003, 10, "hinge")] == [
        "2",
        "1.5",
        "0.0003",
        "10",
        "hinge",
    ]
    with pytest.raises(ValueError, match="no model.gamma"):
        pretrain_search.hold(SEARCHED, {"gamma": 1})


# How weights are stored


def test_weights_are_stored_as_float16_if_samples_stay_the_same(tmp_path):
    model = ganzoo.GAN(8, 1, 4, 16, 8, 2).eval()
    stored = pretrain.store(model, tmp_path, Digits())
    assert stored["dtype"] == "float16" and stored["slim"] and stored["samples_off"]["by_at_most"] <= 1
    assert read(tmp_path)[0].weights["generator.layers.0.weight"].dtype == torch.float16


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


def test_a_classifier_without_its_discriminator(tmp_path):
    model = ganzoo.LadderEBGAN(8, 1, 10, z_dim=4, hidden=8, d_hidden=8).eval()
    assert pretrain.store(model, tmp_path, Digits(), whole=False)["slim"]


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


def test_the_wall_of_a_translator_shows_sources_translations_and_true_images(work):
    data = {"class_path": "Pairs", "init_args": {"data": {"class_path": "Digits", "init_args": {"image_size": 8}}}}
    model = ganzoo.Pix2Pix(8, 1, 1, 4).eval()
    folder = save_pretrained(model, "pix2pix-digits", slim=True)
    Path(folder / "record.json").write_text(json.dumps({"settings": {"data": data}}))
    image, row = pretrain_wall.wall([folder]), pretrain_wall.strip(folder)
    assert image.size == (pretrain_wall.NAMES + row.width, row.height)
    pixels = to_float(torch.tensor(np.asarray(row.convert("L"))))
    pairs = Pairs(Digits(image_size=8)).dataset("val")
    images = pairs.__getitems__([0, len(pairs) // 2])
    for place, which in ((0, "source"), (2, "image")):
        top = 2 + place * (pretrain_wall.TILE + 2)  # a pixel is eight wide
        for image, column in enumerate((0, 3)):
            left = 2 + column * (pretrain_wall.TILE + 2)
            shown = pixels[top : top + pretrain_wall.TILE : 8, left : left + pretrain_wall.TILE : 8]
            assert torch.allclose(shown, to_float(images[which])[image, 0], atol=0.01), which


def test_the_rows_of_the_wall_are_in_two_panels_of_similar_height(monkeypatch):
    shades = {name: Image.new("RGB", (10, 3 if name == "c" else 1), (i, i, i)) for i, name in enumerate("abcde", 50)}
    monkeypatch.setattr(pretrain_wall, "strip", lambda folder: shades[folder.name])
    image = np.asarray(pretrain_wall.wall([Path(name) for name in "abcde"]))[..., 0]
    assert image.shape == (5, 2 * (pretrain_wall.NAMES + 10))
    assert image[:, pretrain_wall.NAMES].tolist() == [50, 51, 0, 0, 0]
    assert image[:, 2 * pretrain_wall.NAMES + 10].tolist() == [52, 52, 52, 53, 54]


def test_conditional_rows_of_the_wall_have_a_class_in_each_column(work):
    model = ganzoo.CGAN(8, 1, num_classes=6, z_dim=4).eval()
    folder = save_pretrained(model, "cgan-emoji", slim=True)
    drawn = torch.tensor(np.asarray(pretrain_wall.strip(folder).convert("L")))[2:66:8, :]
    second = drawn[:, 2 + 66 * 4 : 66 * 5 : 8]  # the fifth column
    expected = pretrain_wall.picture(model.sample(seeds=[4], label=[4]), 1, 8).convert("L")
    assert torch.equal(second, torch.tensor(np.asarray(expected))[:8, :8])


def test_a_large_wall_gets_a_palette_and_a_too_large_one_is_refused():
    noise = Image.effect_noise((200, 200), 90).convert("RGB")
    plain = pretrain_wall.encoded(noise)
    small = pretrain_wall.encoded(Image.merge("RGB", [Image.effect_noise((200, 200), 90) for _ in range(3)]), 60_000)
    assert Image.open(io.BytesIO(plain)).mode == "RGB" and Image.open(io.BytesIO(small)).mode == "P"
    assert len(small) <= 60_000
    with pytest.raises(ValueError, match="the wall has .* show fewer columns"):
        pretrain_wall.encoded(noise, 1000)


def test_one_model_represents_each_variant():
    def record(variant, config):
        return {"variant": variant, "config": config}

    records = {
        "stylegan2-digits": record("StyleGAN2", "stylegan2/digits"),
        "stylegan2-emoji": record("StyleGAN2", "stylegan2/emoji"),
        "stylegan2-emoji64": record("StyleGAN2", "stylegan2/emoji64"),
        "cgan-mnist5k": record("CGAN", "cgan/mnist5k"),
        "gan-digits": record("GAN", "gan/digits"),
    }
    assert pretrain_page.one_each(records) == {"GAN": "gan-digits", "StyleGAN2": "stylegan2-emoji64"}


def test_the_readme_names_the_model_of_each_variant(made):
    record = record_of(made / "out/gan-digits")
    lines = "| `GAN` | a | b | old | | |\n| `CGAN` | a | b | `cgan/digits` | | |\n"
    score = record["scores"]["scores"][0]["value"]
    link = "[`gan-digits`](ganzoo/pretrained/gan-digits/README.md)"
    expected = f"| `GAN` | a | b | [`gan/digits`](configs/gan/digits.yaml) | {score:.2f} (8x8) | {link} |"
    assert pretrain_page.readme(lines, {"gan-digits": record}).splitlines() == [expected, lines.splitlines()[1]]


def test_the_guide_to_variants_ranks_the_models_of_portraits(made):
    record = record_of(made / "out/gan-digits")
    records = {"gan-digits": record}
    for name, fid in (("gan-emoji", 30.0), ("dcgan-emoji", 20.0)):
        records[name] = json.loads(json.dumps(record))
        first = records[name]["scores"]["scores"][0]
        assert first["figure"] == "fid"
        first["value"], first["protocol"]["data"] = fid, "Portraits"
    text = f"before\n{pretrain_page.BEGIN}old\n{pretrain_page.END}\nafter"
    before, _, _, _, better, worse, _, after = pretrain_page.choosing(text, records).splitlines()
    assert (before, after) == ("before", "after")
    assert better.startswith("| [`dcgan-emoji`](https://") and "/dcgan-emoji/README.md) | 8x8 | 20 |" in better
    assert "| [`gan-emoji`]" in worse


def test_a_remark_is_on_the_card_and_on_the_page(made):
    record = {**record_of(made / "out/gan-digits"), "remark": "Faces are blurred: few steps."}
    assert "- Faces are blurred: few steps." in pretrain_page.card("gan-digits", record)
    assert "- [gan-digits](gan-digits/README.md): Faces are blurred" in pretrain_page.page({"gan-digits": record})


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
