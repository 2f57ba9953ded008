"""Continuing runs, and errors before the first step: a bad start costs one line, and no file."""

from __future__ import annotations

import errno
import json
import shutil
import sys
from pathlib import Path

import pytest
from lightning.pytorch import Trainer
from PIL import Image

import ganzoo.cli.bench as bench
import ganzoo.cli.checks as checks
from ganzoo import DCGAN
from ganzoo.checkpoint.pretrained import load, save_pretrained
from ganzoo.cli import main
from ganzoo.cli.errors import at_start
from ganzoo.cli.paths import find_checkpoint, find_config
from ganzoo.data import Digits
from ganzoo.evaluation.record import Report

SMALL = "--model DCGAN --model.width 4 --data Digits --data.image_size 8 --data.batch_size 100 --trainer.max_steps 4"
QUIET = "--trainer.accelerator cpu --samples.video_fps 0 --scores.final_n 0 --trainer.log_every_n_steps 1"
FIT = f"fit {SMALL} {QUIET}"
RUN = Path("runs/001-dcgan-digits")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("trained"))
        patch.delenv("PL_GLOBAL_SEED", raising=False)
        assert main(f"{FIT} --checkpoint.every_n_steps 2".split()) == 0
        return RUN.absolute()


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    """A copy of a finished run of four steps, with checkpoints of two and of four."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(trained, RUN))


def resumed(run: Path, checkpoint: Path, *more: str) -> int:
    return main(["fit", "--config", str(run), "--ckpt_path", str(checkpoint), "--trainer.max_steps", "5", *more])


def logged(run: Path) -> list[int]:
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return list(dict.fromkeys(row["step"] for row in rows))  # several rows of a step are allowed


def test_going_back_in_a_run_is_said(run, capsys):
    shutil.copy(run / "checkpoints" / "00000002.ckpt", "copy.ckpt")
    assert resumed(run, Path("copy.ckpt")) == 0
    assert "goes back" not in capsys.readouterr().err and logged(run) == [1, 2, 3, 4]
    assert resumed(run, run) == 0
    assert "goes back" not in capsys.readouterr().err and logged(run) == [1, 2, 3, 4, 5]
    assert resumed(run, run / "checkpoints" / "00000004.ckpt") == 0
    assert f"{run} goes back to step 4: its later logs, grids and checkpoints are removed" in capsys.readouterr().err


def test_other_ways_to_read_the_same_pictures_continue_a_run(tmp_path, monkeypatch):
    """As messages advise: `set data.corrupt to skip`, `lower data.cache_gb`."""
    monkeypatch.chdir(tmp_path)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(8):
        Image.new("L", (8, 8), 30 * i).save(pictures / f"{i}.png")
    data = f"--data ImageFolder --data.path {pictures} --data.image_size 8 --data.channels 1 --data.num_workers 0"
    command = f"fit --model DCGAN --model.width 4 {data} --data.batch_size 4 --data.val_fraction 0 {QUIET}"
    assert main(f"{command} --trainer.max_steps 1".split()) == 0
    more = "--data.cache_gb 0 --data.corrupt skip --trainer.max_steps 2 --ckpt_path runs/001-dcgan-pictures"
    assert main(f"{command} {more}".split()) == 0
    assert [path.name for path in Path("runs").iterdir()] == ["001-dcgan-pictures"]


def test_an_export_in_a_run_s_folder_hides_no_checkpoint(run):
    save_pretrained(load(run), run)
    assert find_checkpoint(str(run)) == run / "checkpoints" / "last.ckpt"
    (run / "checkpoints").rename("elsewhere")
    assert find_checkpoint(str(run)) == run


def test_an_export_among_a_run_s_checkpoints_starts_a_new_run(run):
    export = run / "checkpoints" / "export"
    save_pretrained(load(run), export)
    assert resumed(run, export) == 0
    assert logged(run) == [1, 2, 3, 4] and logged(Path("runs/002-dcgan-digits")) == [1, 2, 3, 4, 5]


def test_a_new_run_that_forgets_the_folder_s_average_says_so(run, capsys):
    gan = load(run)
    for half_life, ramp_up, said in ((1e4, "0.05", True), (1e4, "null", False), (None, "0.05", False)):
        averaged = DCGAN(**{**gan.hparams, "ema_half_life": half_life})
        averaged.configure_model()
        save_pretrained(averaged, f"{half_life}")
        more = "--model.ema_half_life", json.dumps(half_life), "--model.ema_ramp_up", ramp_up
        assert main([*FIT.split(), *more, "--ckpt_path", f"{half_life}"]) == 0
        notice = "model.ema_ramp_up forgets the folder's averaged generator within a few batches; add "
        assert (notice + "--model.ema_ramp_up null to keep it\n" in capsys.readouterr().err) == said


def test_a_run_without_epochs_left_is_no_start(run, capsys):
    shutil.copy(run / "checkpoints" / "last.ckpt", "copy.ckpt")
    epochs = "--trainer.max_steps", "-1", "--trainer.max_epochs"
    assert resumed(run, run, *epochs, "1") == 0  # five batches more end its first epoch
    shutil.copy(run / "checkpoints" / "last.ckpt", "copy.ckpt")
    capsys.readouterr()
    assert resumed(run, Path("copy.ckpt"), *epochs, "1") == 2
    assert capsys.readouterr().err.endswith("copy.ckpt is at epoch 1 of 1; to continue, add --trainer.max_epochs 2\n")
    assert [path.name for path in Path("runs").iterdir()] == [run.name]


def test_a_run_is_a_config(run):
    assert find_config(str(run)) == run / "config.yaml"


@pytest.mark.parametrize(("verb", "loader"), [("validate", "val_dataloader"), ("test", "test_dataloader")])
def test_losses_without_images_are_an_error(run, monkeypatch, capsys, verb, loader):
    monkeypatch.setattr(Digits, loader, lambda self: [])
    assert main([verb, "--config", str(run), "--ckpt_path", str(run)]) == 2
    assert f"the data has no images for {verb}; set data.val_fraction" in capsys.readouterr().err


def test_scores_are_printed_if_their_record_cannot_be_written(run, monkeypatch, capsys):
    def save(self: Report, file: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(file))

    monkeypatch.setattr(Report, "save", save)
    assert main(["evaluate", str(run), "-n", "100", "--metrics", "fid"]) == 2
    out, error = capsys.readouterr()
    assert "fid_digits" in out and "record:" not in out and "No space left on device" in error


VARIANT = """
from ganzoo import DCGAN


class MyGAN(DCGAN):
    def __init__(self):
        super().__init__(image_size=8, channels=1, width=4)
"""


def test_a_variant_may_have_no_arguments(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my_plain.py").write_text(VARIANT)
    try:
        assert main(FIT.replace("DCGAN --model.width 4", "my_plain.MyGAN").split()) == 0
    finally:
        sys.modules.pop("my_plain", None)
    assert Path("runs/001-mygan-digits/checkpoints/last.ckpt").exists()


def test_early_errors_have_a_cure():
    assert at_start(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")).endswith("make the model smaller")
    assert at_start(OSError(errno.ENOSPC, "No space left on device", "x")).endswith("free some space")
    assert at_start(PermissionError(errno.EACCES, "Permission denied", "x")) == "x: Permission denied"
    assert at_start(ValueError("odd")) == "odd"


def test_dry_run_with_two_devices_measures_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(f"{FIT} --dry-run --trainer.devices 2".split()) == 0
    assert " MB on one device, with the whole batch\n" in capsys.readouterr().out
    assert main(f"{FIT} --dry-run".split()) == 0
    assert "on one device" not in capsys.readouterr().out


def test_ctrl_c_in_a_dry_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def fit(self: Trainer, *_: object, **__: object) -> None:
        raise SystemExit(1)  # as Lightning does

    monkeypatch.setattr(Trainer, "fit", fit)
    assert main(f"{FIT} --dry-run".split()) == 130


def test_a_broken_torch_is_reported_by_checks(monkeypatch, capsys):
    def devices() -> list[str]:
        raise OSError("libcudnn.so.9: cannot open shared object file")

    monkeypatch.setattr(checks, "devices", devices)
    assert main(["checks"]) == 0
    assert "torch cannot be imported: libcudnn.so.9: cannot open" in capsys.readouterr().out


def test_bench_shows_a_traceback_if_asked(monkeypatch, capsys):
    class Sender:
        def send(self, row: dict) -> None:
            assert "no config 'nowhere'" in row["error"]

    monkeypatch.setattr("ganzoo.core.allocator.keep_freed_memory", lambda: None)
    bench._measure(["--config", "nowhere"], 1, Sender())
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.setenv("GANZOO_TRACEBACK", "1")
    bench._measure(["--config", "nowhere"], 1, Sender())
    assert "Traceback" in capsys.readouterr().err
