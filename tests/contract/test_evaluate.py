"""The command `evaluate`, and the scores of `fit`."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.multiprocessing import ProcessRaisedException, start_processes

from ganzoo.checkpoint.pretrained import load, save_pretrained
from ganzoo.checkpoint.sealed import CheckpointIO
from ganzoo.cli import main
from ganzoo.data import Digits
from ganzoo.evaluation.record import Report

FIT = (
    "fit --model DCGAN --data Digits --data.image_size 8 --data.batch_size 100 --model.width 4 --trainer.max_steps 6 "
    "--model.ema_half_life 100 --samples.rows 2 --samples.columns 2 --samples.video_fps 0 --trainer.log_every_n_steps 1"
)
SCORES = "--scores.n 60 --scores.every_n_steps 2 --scores.final_n 100"
RUN = "runs/001-dcgan-digits"
VARIANT = """\
from ganzoo.variants.gan import GAN


class MyGAN(GAN):
    def __init__(self, image_size: int = 8, channels: int = 1, units: int = 8):
        super().__init__(image_size, channels, 4, units, units, 2)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, tmp_path_factory, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GANZOO_TRACEBACK", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path_factory.getbasetemp() / "nothing"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a run, its saved model, and images as folders and arrays."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("PL_GLOBAL_SEED", raising=False)
        assert main(shlex.split(f"{FIT} {SCORES} --scores.metrics [fid,pr]")) == 0
        save_pretrained(load(f"{RUN}/checkpoints/last.ckpt"), "model")
        for name, split, size in (("fakes", "test", 8), ("reals", "val", 8), ("large", "val", 16)):
            Path(name).mkdir()
            images = Digits(image_size=size).dataset(split).images[:60, 0].numpy()
            for i, image in enumerate(images):
                Image.fromarray(image).save(f"{name}/{i:03d}.png")
            np.save(f"{name}.npy", images[..., None])
            np.savez(f"{name}.npz", images[..., None])
        Path("colour").mkdir()
        for i in range(3):
            Image.new("RGB", (8, 8), (40 * i, 0, 0)).save(f"colour/{i}.png")
    return folder


@pytest.fixture
def here(trained, folder):
    shutil.copytree(trained, folder, dirs_exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def spoilt(trained, tmp_path_factory):
    """A copy of it with bad files, for commands that write nothing."""
    folder = shutil.copytree(trained, tmp_path_factory.mktemp("spoilt"), dirs_exist_ok=True)
    (folder / "empty").mkdir()
    for name in ("mixed", "modes"):
        shutil.copytree(folder / "fakes", folder / name)
    Image.new("L", (9, 8)).save(folder / "mixed/a.png")
    Image.new("RGB", (8, 8)).save(folder / "modes/a.png")
    (folder / "runs/broken.ckpt").write_text("nothing")
    np.save(folder / "floats.npy", np.zeros((3, 8, 8, 1)))
    (folder / "text.npy").write_text("nothing")
    (folder / "broken.json").write_text("{")
    (folder / "list.json").write_text("[]")
    return folder


@pytest.fixture
def evaluate(capsys):
    """A function that runs `evaluate` and returns its record and its output."""

    def evaluate(command, file="out.json"):
        capsys.readouterr()
        assert main(["evaluate", *shlex.split(command), *(["--json", file] if file else [])]) == 0, capsys.readouterr()
        return Report.load(Path(file)) if file else None, capsys.readouterr().out

    return evaluate


@pytest.fixture
def refuse(capsys):
    """A function that runs a command, which must fail in one line and leave no files."""

    def refuse(command, *words):
        capsys.readouterr()
        before = sorted(Path().rglob("*"))
        assert main(shlex.split(command)) == 2
        out, error = capsys.readouterr()
        assert len(error.splitlines()) == 1 and error.startswith("ganzoo: error: "), error
        for word in words:
            assert word in error, error
        assert not out.strip()
        assert sorted(Path().rglob("*")) == before
        return error

    return refuse


def values(report):
    return {score.figure: score.value for score in report.scores}


def table(text):
    rows = [[cell.strip() for cell in line.split(" | ")] for line in text.strip().splitlines()]
    return [pytest.param(row[0], row[1:], id=row[0]) for row in rows]


# fit


def test_fit_writes_its_scores(trained):
    lines = [json.loads(line) for line in Path(trained, RUN, "scores.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    logged = [json.loads(line) for line in Path(trained, RUN, "metrics.jsonl").read_text().splitlines()]
    name = lines[0]["scores"][0]["name"]
    assert {line["step"]: line[name] for line in logged if name in line} == {
        line["step"]: line["scores"][0]["value"] for line in lines
    }
    assert list(values(Report.load(Path(trained, RUN, "scores.json")))) == ["fid", "precision", "recall"]
    assert (trained / RUN / "checkpoints" / "best-fid.ckpt").exists()


def test_the_summary_shows_the_final_scores(capsys):
    assert main(shlex.split(f"{FIT} {SCORES} --scores.metrics [fid,is]")) == 0
    error = capsys.readouterr().err
    lines = error[error.index("Scores of 100 fakes") :].splitlines()[1:3]
    for score, line in zip(Report.load(Path(RUN, "scores.json")).scores, lines, strict=True):
        assert line.split()[0] == score.name
        assert float(line.split()[1]) == pytest.approx(score.value, abs=score.error)
    assert "checkpoints/best-fid.ckpt     best checkpoint by fid" in error


def test_fit_without_metrics_writes_no_scores(capsys):
    assert main(shlex.split(f"{FIT} --scores.metrics []")) == 0
    assert "Scores of" not in capsys.readouterr().err and not list(Path(RUN).glob("scores*"))


def test_scores_are_configured_in_yaml():
    Path("mine.yaml").write_text(
        "model: {class_path: DCGAN, init_args: {width: 4}}\n"
        "data: {class_path: Digits, init_args: {image_size: 8, batch_size: 100}}\n"
        "samples: {rows: 2, columns: 2, video_fps: 0}\n"
        "scores: {metrics: [is], n: 50, every_n_steps: 1, final_n: 0, best: [is], split: test}\n"
        "trainer: {max_steps: 1}\n"
    )
    assert main(["fit", "--config", "mine.yaml"]) == 0
    (score,) = json.loads(Path(RUN, "scores.jsonl").read_text())["scores"]
    assert score["figure"] == "is" and score["protocol"]["fakes"] == 50
    assert (Path(RUN) / "checkpoints" / "best-is.ckpt").exists()
    assert "every_n_steps: 1" in Path(RUN, "config.yaml").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    table("""
    --scores.n 0 | scores.n is 0 | it takes a whole number from 1
    --scores null | scores: it is a group of options; set one of them, such as --scores.final_n 0
    --scores.every_n_steps 0 | scores.every_n_steps is 0 | it takes a whole number from 1
    --scores.final_n -1 | scores.final_n is -1 | it takes a whole number from 0
    --scores.n many | scores.n: Expected | many
    --scores.metrics [fit] | no metric 'fit'; did you mean 'fid'
    --scores.metrics fid | scores.metrics: Expected | list
    --scores.metrics [kid] --scores.n 999 | kid:size=N changes it) needs at least 1000 fake images, but there are 999
    --scores.extractor digit | no extractor 'digit'; did you mean 'digits'
    --scores.extractor inception | reads 3 channels, but the images have 1 | inception-grey
    --scores.extractor inception-grey --scores.weights nowhere.pth | nowhere.pth
    --scores.best [fit] | scores.best: fit cannot rank checkpoints; available: fid
    --scores.split tset | scores.split: Expected | test
    --scores.every_n 1 | scores.every_n: no such option | did you mean scores.every_n_steps?
    """),
)
def test_fit_refuses_bad_score_options(refuse, options, words):
    refuse(f"{FIT} {options}", *words)


# evaluate: valid input


def test_evaluate_reproduces_the_scores_of_fit(here, evaluate):
    best = torch.load(f"{RUN}/checkpoints/best-fid.ckpt", weights_only=True)["global_step"]
    lines = [json.loads(line) for line in Path(RUN, "scores.jsonl").read_text().splitlines()]
    (expected,) = (s for line in lines if line["step"] == best for s in line["scores"] if s["figure"] == "fid")
    report, out = evaluate(f"{RUN}/checkpoints/best-fid.ckpt --metrics fid -n 60")
    assert report.scores[0].value == expected["value"] and report.scores[0].protocol == expected["protocol"]
    assert "best-fid.ckpt" in out
    last, _ = evaluate(f"{RUN}/checkpoints/last.ckpt --metrics fid,pr -n 100")
    assert values(last) == values(Report.load(Path(RUN, "scores.json")))
    assert last.subject["file"] == "last.ckpt"
    run, _ = evaluate(f"{RUN} --metrics fid -n 100")
    assert values(run)["fid"] == values(last)["fid"]


def test_a_saved_model_needs_named_real_images(here, evaluate, refuse):
    report, _ = evaluate(f"model {RUN} --metrics fid -n 100")
    assert values(report)["fid"] == values(Report.load(Path(RUN, "scores.json")))["fid"]
    folder, _ = evaluate("model reals --metrics fid -n 100 --extractor digits")
    assert folder.scores[0].protocol["data"] == "reals" and folder.scores[0].protocol["reals"] == 60
    shutil.copy(f"{RUN}/checkpoints/last.ckpt", "alone.ckpt")
    refuse("evaluate model", "model is not in a run; name the real images after it", "dcgan/digits")
    refuse("evaluate alone.ckpt", "alone.ckpt is not in a run")
    refuse("evaluate model acgan/digits", "the fakes are 1 x 8 x 8", "the reals 1 x 16 x 16")
    refuse("evaluate model dcgan/digits --resize 8", "resize is for pictures from files, but none are given")


def test_options_change_the_score_and_the_record(here, evaluate):
    plain, raw, seed, test = (
        evaluate(f"{RUN} --metrics fid -n 100 {more}")[0] for more in ("", "--raw", "--seed 1", "--split test")
    )
    assert len({report.scores[0].value for report in (plain, raw, seed, test)}) == 4
    assert (plain.subject["weights"], raw.subject["weights"], seed.subject["seed"]) == ("averaged", "raw", 1)
    assert (plain.subject["name"], plain.subject["images_seen"]) == ("DCGAN", 600)
    assert test.scores[0].protocol["reals"] == 200 and test.scores[0].name.endswith("_100_test")


def test_default_metrics_are_computed_and_missing_ones_reported(here, evaluate):
    report, out = evaluate(f"{RUN} -n 100")
    assert {"fid", "is", "precision", "coverage", "authenticity"} <= set(values(report)) and "kid" not in values(report)
    assert "not computed: kid" in out


def test_image_folders_and_arrays_give_the_same_scores(here, evaluate):
    found = [
        values(evaluate(f"{fakes} {reals} --extractor digits")[0])
        for fakes, reals in (("fakes", "reals"), ("fakes.npy", "reals.npz"), ("fakes.npz", "reals"))
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-5) == found[2]
    assert {"fid", "is", "precision"} <= set(found[0]) and "authenticity" not in found[0]
    alone, out = evaluate("fakes --extractor digits")
    assert list(values(alone)) == ["is"] and values(alone)["is"] == found[0]["is"]
    assert "60 images of fakes" in out
    same, _ = evaluate("fakes fakes --extractor digits --metrics fid,pr")
    assert values(same)["fid"] == pytest.approx(0, abs=1e-6) and values(same)["precision"] == 1


def test_image_folders_are_compared_with_the_data_of_a_config(here, evaluate):
    report, _ = evaluate(f"fakes {RUN} --metrics fid")
    assert report.scores[0].protocol["data"] == "Digits" and report.scores[0].protocol["reals"] == 1397
    resized, _ = evaluate("fakes acgan/digits --metrics fid --resize 16")
    assert resized.scores[0].protocol["image"].startswith("16x16")


def test_user_variants_need_the_variant_option(here, evaluate, refuse):
    Path("my_gan.py").write_text(VARIANT)
    sys.modules.pop("my_gan", None)
    command = "fit --model my_gan.MyGAN --data Digits --data.image_size 8 --trainer.max_steps 1 --scores.metrics []"
    assert main(shlex.split(command)) == 0
    run = "runs/002-mygan-digits"
    report, _ = evaluate(f"{run} --variant my_gan.MyGAN --metrics is -n 50")
    assert report.subject["name"] == "MyGAN"
    refuse(f"evaluate {run}", "my_gan.MyGAN, which is not in the zoo", "--variant my_gan.MyGAN")


def test_points_are_scored_by_modes(here, evaluate, refuse):
    command = "fit --config gan/ring --model.hidden 8 --model.d_hidden 8 --trainer.max_steps 1 --scores.metrics []"
    assert main(shlex.split(command)) == 0
    report, _ = evaluate("runs/002-gan-gaussians")
    assert list(values(report)) == ["modes", "high_quality", "kl"] and report.scores[0].protocol["fakes"] == 2500
    refuse("evaluate runs/002-gan-gaussians --metrics fid", "fid needs images, but these are points")


def test_where_records_are_written(here, evaluate):
    for name in ("scores-2.json", "scores-3.json"):
        _, out = evaluate(f"{RUN} --metrics is -n 20", file=None)
        assert Path(RUN, name).exists() and f"{RUN}/{name}" in out
    evaluate("fakes --extractor digits --metrics is", file="new/place/out.json")
    evaluate("fakes --extractor digits --metrics is", file=None)
    assert Path("scores.json").exists()


def test_the_printed_report(here, evaluate):
    report, out = evaluate(f"{RUN}/checkpoints/last.ckpt --metrics fid,is,pr -n 100")
    assert max(map(len, out.split("\n\n")[1].splitlines())) <= 80
    for words in (
        f"100 fakes of DCGAN, seed 0: averaged weights of {RUN}/checkpoints/last.ckpt",
        "600 training images seen",
        "1,397 train images of Digits",
        "standard error",
        report.scores[0].name,
        "lower is better",
        "record:",
        report.cite(report.scores[0]),
    ):
        assert words in out


def test_metrics_list_prints_all_metrics(evaluate):
    _, out = evaluate("--metrics list", file=None)
    assert [line.split()[0] for line in out.splitlines()][:3] == ["fid", "is", "kid"]


# evaluate: invalid input


@pytest.mark.parametrize(
    ("command", "words"),
    table(f"""
    evaluate | name a run, a checkpoint, or a folder
    evaluate nowhere | no file or model 'nowhere' | name a run, a checkpoint, a folder of pictures
    evaluate fake | did you mean 'fakes'?
    evaluate empty | No pictures in
    evaluate fakes empty | No pictures in
    evaluate runs/broken.ckpt | broken.ckpt is damaged
    evaluate {RUN} nowhere | no folder or config 'nowhere'
    evaluate {RUN} dcgan/digit | did you mean 'dcgan/digits'?
    evaluate {RUN} nowhere.yaml | no config 'nowhere.yaml'
    evaluate {RUN} -n 0 | -n is 0; it takes a whole number from 1
    evaluate {RUN} -n x | -n | 'x'
    evaluate {RUN} --metrics fit | no metric 'fit'; did you mean 'fid'
    evaluate {RUN} --metrics fid, | no metric ''
    evaluate {RUN} --metrics kid -n 999 | 1000 fake images, but there are 999
    evaluate {RUN} --metrics accuracy | accuracy needs a conditional model
    evaluate {RUN} --metrics modes | modes can be counted for Gaussians and StackedMNIST only
    evaluate {RUN} --metrics copying --split test | copying | train
    evaluate {RUN} --extractor digit | no extractor 'digit'; did you mean 'digits'
    evaluate {RUN} --extractor inception | reads 3 channels, but the images have 1 | inception-grey
    evaluate {RUN} --extractor inception-grey | weights could not be downloaded (no network) | save https:// | --weights
    evaluate {RUN} --extractor inception-grey --weights nowhere.pth | nowhere.pth
    evaluate {RUN} --weights nowhere.pth | weights
    evaluate {RUN} --device gpu9 | --device gpu9 | python -m ganzoo checks
    evaluate {RUN} --split tset | --split | 'tset'
    evaluate {RUN} --variant nothing.Here | --variant nothing.Here not found
    evaluate {RUN} colour | the fakes are 1 x 8 x 8 | the reals 3 x 8 x 8
    evaluate {RUN} large --extractor digits | the fakes are 1 x 8 x 8 | the reals 1 x 16 x 16 | --resize
    evaluate {RUN} reals --split test | reals has no splits
    evaluate {RUN} --json {RUN} | is a folder; name a file in it
    evaluate {RUN} --json /proc/nowhere/x.json | /proc/nowhere cannot be written
    evaluate {RUN} --json fakes.npy/x.json | fakes.npy cannot be written
    evaluate {RUN} --sed 1 | no option '--sed' | did you mean '--seed'?
    evaluate fakes --extractor digits --metrics fid | fid needs real images; name them after fakes
    evaluate fakes reals --metrics ppl --extractor digits | ppl
    evaluate fakes -n 10 | -n is for models only; leave it out for fakes
    evaluate fakes --seed 0 | --seed is for models
    evaluate fakes --raw | --raw is for models
    evaluate dcgan-digits --raw | has the averaged generator only; leave --raw out
    evaluate {RUN} --metrics kid:size=1 | kid: size is 1; it takes a whole number from 2 up
    evaluate fakes --truncation 0.5 | --truncation is for models
    evaluate fakes --standing_statistics 2 | --standing_statistics is for models
    evaluate fakes --split test | --split needs real images
    evaluate fakes --resize 0 | --resize is 0; it takes a whole number from 1 to 16384
    evaluate fakes large --extractor digits | the fakes are 1 x 8 x 8 | the reals 1 x 16 x 16 | --resize
    evaluate fakes colour | the fakes are 1 x 8 x 8 | the reals 3 x 8 x 8
    evaluate mixed | --resize
    evaluate modes | grey
    evaluate floats.npy | float64
    evaluate text.npy | cannot be read as an array
    evaluate colour --extractor digits | reads 1 channels, but the images have 3
    evaluate colour | Inception's weights could not be downloaded (no network)
    evaluate fakes/000.png | give a folder of pictures
    """),
)
def test_bad_arguments_are_refused_in_one_line(spoilt, refuse, monkeypatch, command, words):
    monkeypatch.chdir(spoilt)
    refuse(command, *words)


def test_a_run_without_its_data_is_refused(here, refuse):
    config = Path(RUN, "config.yaml").read_text()
    start, end = config.index("data:\n"), config.index("ckpt_path")
    data = "data:\n  class_path: ImageFolder\n  init_args:\n    path: nowhere\n    image_size: 8\n"
    Path(RUN, "config.yaml").write_text(config[:start] + data + config[end:])
    refuse(f"evaluate {RUN}", "nowhere", "check the path")
    Path(RUN, "config.yaml").write_text(config[:start] + config[end:])
    refuse(f"evaluate {RUN}", "config.yaml has no data section")


def test_a_diverged_generator_is_refused(here, refuse):
    checkpoint = torch.load(f"{RUN}/checkpoints/last.ckpt", weights_only=True)
    for value in checkpoint["state_dict"].values():
        if value.is_floating_point():
            value.fill_(float("nan"))
    CheckpointIO().save_checkpoint(checkpoint, f"{RUN}/checkpoints/last.ckpt")
    refuse(f"evaluate {RUN}/checkpoints/last.ckpt", "images are not finite")


# evaluate --compare


def test_compare_ranks_records(here, evaluate, capsys):
    evaluate(f"{RUN} --metrics fid,pr -n 100 --seed 1", file="a.json")
    evaluate("fakes reals --extractor digits --metrics fid", file="c.json")
    assert main(shlex.split(f"evaluate --compare {RUN} a.json")) == 0
    out, error = capsys.readouterr()
    lines = out.splitlines()
    heads = [i for i, line in enumerate(lines) if not line.startswith(" ")]
    blocks = {lines[i].split("_")[0]: lines[i : i + 3] for i in heads}
    assert lines[heads[0] + 3] == "  +-: standard error over fakes"
    scores = {name: values(Report.load(Path(name))) for name in (f"{RUN}/scores.json", "a.json")}
    for name, best in (("fid", min), ("precision", max), ("recall", max)):
        head, first, second = blocks[name]
        assert best(scores, key=lambda file, name=name: scores[file][name]) in first
    assert "within two standard errors" in blocks["fid"][2] and not error
    shutil.copy("a.json", "same.json")
    assert main(shlex.split("evaluate --compare a.json same.json")) == 0
    assert [line[:3] for line in capsys.readouterr().out.splitlines()[:3]] == ["fid", "  1", "  1"]
    content = Path("a.json").read_text()
    Path("a.json").write_text(content.replace(f'"value": {scores["a.json"]["fid"]}', '"value": null'))
    assert main(shlex.split(f"evaluate --compare a.json {RUN}")) == 0
    assert capsys.readouterr().out.splitlines()[2].split()[:2] == ["2", "nan"]
    Path("b.json").write_text(content.replace('"name": "fid', '"name": "\\u001b[2Jfid'))
    Path("c.json").write_text(content.replace('"name": "fid', '"name": "\\u001b[2Jfid'))
    assert main(shlex.split("evaluate --compare b.json c.json")) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\\x1b[2Jfid" in out


@pytest.mark.parametrize("more", ["--json out.json", "-n 5", "--metrics list"])
def test_compare_takes_no_other_arguments(refuse, more):
    refuse(
        f"evaluate --compare a.json b.json {more}", f"--compare takes no other arguments; leave {more.split()[0]} out"
    )


def test_pictures_of_floats_are_refused_without_an_option_that_does_not_exist(here, refuse):
    for folder in ("ones", "twos"):
        Path(folder).mkdir()
        for i in range(3):
            Image.fromarray(np.full((8, 8), i, np.float32)).save(f"{folder}/{i}.tif")
    assert "set range" not in refuse("evaluate ones twos", "convert them to 8 or 16 bits")


def test_compare_takes_the_mean_of_runs_with_other_seeds(here, evaluate, capsys):
    report = evaluate(f"{RUN} --metrics fid -n 100")[0]
    for seed, value in ((1, 3.0), (2, 5.0)):
        folder = Path(f"runs/seed{seed}")
        shutil.copytree(RUN, folder)
        config = (folder / "config.yaml").read_text().replace("default_root_dir: runs", f"default_root_dir: seed{seed}")
        (folder / "config.yaml").write_text(config.replace("seed_everything: 0", f"seed_everything: {seed}"))
        Report(report.subject, [replace(report.scores[0], value=value)]).save(folder / "scores.json")
    report.save(Path("alone.json"))

    def compare():
        capsys.readouterr()
        assert main(shlex.split("evaluate --compare runs/seed1 runs/seed2 alone.json")) == 0
        lines = capsys.readouterr().out.splitlines()
        return [" ".join(line.split()[1:]) for line in lines[1:] if "seed" in line]

    both = "4.0 +- 1.0 runs/seed1/scores.json, runs/seed2/scores.json (+-: standard error over trainings)"
    assert compare() == [both]
    for file, old, new in (
        ("environment.json", "{", '{"parent": "runs/001", '),
        ("config.yaml", "width: 4", "width: 5"),
        ("config.yaml", "batch_size: 100", "batch_size: 50"),
        ("config.yaml", "max_steps: 6", "max_steps: 7"),
        ("config.yaml", "model:", "model: ["),
    ):
        path = Path("runs/seed2", file)
        content = path.read_text()
        assert content.count(old) == 1 or file == "environment.json"
        path.write_text(content.replace(old, new, 1))
        assert len(compare()) == 2, new
        path.write_text(content)
    assert compare() == [both]


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ("-n 50", "fakes differs (100 and 50)"),
        ("-n 100 --split test", "split differs (train and test)"),
        ("-n 100 --extractor mnist5k", "extractor differs (digits and mnist5k)"),
    ],
)
def test_compare_refuses_different_protocols(here, evaluate, capsys, more, field):
    evaluate(f"{RUN} --metrics fid {more}", file="a.json")
    assert main(shlex.split(f"evaluate --compare {RUN}/scores.json a.json")) == 2
    out, error = capsys.readouterr()
    assert field in error and "precision: not in a.json" in error and not out
    assert error.splitlines()[-1].startswith("ganzoo: error: no two records were measured in the same way")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ("a.json", "two or more records of scores"),
        (f"{RUN} fakes", "fakes has no record of scores; write one: python -m ganzoo evaluate fakes"),
        (f"{RUN}/scores.json {RUN}", "two or more records of scores"),
        (f"{RUN}/scores.json nowhere.json", "nowhere.json"),
        (f"{RUN}/scores.json broken.json", "broken.json is not a record of scores"),
        (f"{RUN}/scores.json list.json", "list.json is not a record of scores"),
        (f"{RUN}/scores.json fakes.npy", "fakes.npy is not a record of scores"),
    ],
)
def test_compare_refuses_bad_files(spoilt, refuse, monkeypatch, files, words):
    monkeypatch.chdir(spoilt)
    refuse(f"evaluate --compare {files}", words)


# Several processes


def _process(rank, port, command):
    """One process with the environment of torchrun."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with Path(f"out{rank}.txt").open("w") as out, redirect_stdout(out), redirect_stderr(out):
        assert main(shlex.split(command)) == (2 if "kid" in command else 0)


@pytest.mark.parametrize("metrics", ["fid,is,pr", "kid"])
def test_two_processes_give_the_scores_of_one(here, evaluate, metrics):
    command = f"{RUN}/checkpoints/last.ckpt -n 100 --metrics {metrics}"
    for last in (False, True):  # another process may take the port
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        try:
            start_processes(_process, (port, f"evaluate {command} --json two.json"), nprocs=2, start_method="fork")
            break
        except ProcessRaisedException:
            if last or "address already in use" not in Path("out0.txt").read_text():
                raise
    printed = [Path(f"out{rank}.txt").read_text() for rank in range(2)]
    if metrics == "kid":
        assert all("1000 fake images, but there are 100" in text for text in printed)
        return
    one, expected = evaluate(command)
    two = Report.load(Path("two.json"))
    assert two.scores == one.scores and two.subject == one.subject
    assert printed == [expected.replace("out.json", "two.json"), ""]


def test_a_folder_with_several_records_is_not_compared(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("a/scores.json", "a/scores-2.json", "b/scores.json"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("{}")
    assert main(["evaluate", "--compare", "a", "b"]) == 2
    assert "a has several records (scores-2.json, scores.json); name one of them" in capsys.readouterr().err
