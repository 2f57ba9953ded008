"""The cost of training: `fit --dry-run` and `bench CONFIG`."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from types import SimpleNamespace

import pytest
from lightning.pytorch import Trainer

import ganzoo
from ganzoo.cli import bench, main
from ganzoo.cli.cost import measure
from ganzoo.data import Digits

SMALL = ["--model", "DCGAN", "--model.width", "4", "--data", "Digits", "--data.batch_size", "100"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_measured_step_time_excludes_warm_up_steps(monkeypatch):
    """It is their median."""
    now, seconds = [0], iter([50, 2, 2, 8])
    monkeypatch.setattr("ganzoo.cli.cost.time", SimpleNamespace(perf_counter=lambda: now[0]))

    class Slow(ganzoo.DCGAN):
        def play(self, batch):
            now[0] += next(seconds)
            super().play(batch)

    data = Digits(batch_size=50)
    cost = measure(Slow(8, 1, width=4), data, steps=3, warm_up=1, accelerator="cpu")
    assert cost.seconds == 2 and cost.images == 50
    assert 10**8 < cost.memory < 10**11


@pytest.mark.parametrize("warm_up", [1, 2])
def test_lazy_terms_are_due_once_before_the_timed_steps(warm_up):
    """They may use the most memory, but are not due in the first steps of a training."""
    found = []

    class Lazy(ganzoo.DCGAN):
        def play(self, batch):
            super().play(batch)
            found.append((self.due(16), self.generator_due()))

    model = Lazy(8, 1, width=4, n_critic=1000)
    measure(model, Digits(batch_size=50), steps=2, warm_up=warm_up, accelerator="cpu")
    usual = (False, False)
    assert found == [*[usual] * (warm_up - 1), (True, True), usual, usual]


@pytest.mark.filterwarnings("error:the run ends")
def test_the_measured_steps_are_not_taken_for_a_short_training():
    model, data = ganzoo.ProGAN(8, 1, maps=32, width=4), Digits(batch_size=50)
    measure(model, data, steps=1, warm_up=1, accelerator="cpu")
    with pytest.raises(UserWarning, match="the run ends in stage 1 of 2"):
        Trainer(accelerator="cpu", max_steps=2, logger=False, enable_checkpointing=False).fit(model, data)


def test_a_dry_run_prints_the_cost_and_writes_no_files(capsys):
    assert main(["fit", *SMALL, "--trainer.max_steps", "1000", "--dry-run"]) == 0
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith("DCGAN: D ") and first.endswith("parameters; batches of 100 images")
    assert " s per step, peak memory " in second and second.endswith(" MB")
    assert third.startswith("1,000 steps would take ")
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("--trainer.max_steps -1 --trainer.max_epochs 2", "26 steps would take"),
        ("--trainer.max_steps 1000 --trainer.max_epochs 2", "26 steps would take"),
        ("--trainer.max_steps 20 --trainer.max_epochs 2", "20 steps would take"),
        ("--trainer.max_steps 1000 --trainer.max_epochs 2 --trainer.limit_train_batches 4", "8 steps would take"),
        ("--trainer.max_steps 1000 --trainer.max_epochs 2 --trainer.limit_train_batches 0.5", "12 steps would take"),
        ("--trainer.max_steps -1", "until Ctrl-C"),
    ],
)
def test_a_dry_run_counts_steps_up_to_the_first_limit(limit, said, capsys):
    assert main(["fit", *SMALL, *limit.split(), "--dry-run"]) == 0
    assert said in capsys.readouterr().out.splitlines()[-1]


def test_a_dry_run_of_a_resumed_training_counts_the_steps_that_are_left(capsys):
    quick = ["--samples.video_fps", "0", "--scores.final_n", "0", "--trainer.enable_progress_bar", "false"]
    assert main(["fit", *SMALL, *quick, "--trainer.max_steps", "4"]) == 0
    capsys.readouterr()
    again = ["--ckpt_path", "runs/001-dcgan-digits", "--trainer.max_steps", "10", "--trainer.max_time", "00:01:00:00"]
    assert main(["fit", *SMALL, *quick, *again, "--dry-run"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("6 more steps would take ") and last.endswith(", unless trainer.max_time ends it before")


def test_a_dry_run_refuses_what_fit_refuses(capsys):
    assert main(["fit", *SMALL, "--data.batch_size", "5000", "--dry-run"]) == 2
    assert "1397 training images" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_bench_measures_each_row_in_a_separate_process(method, monkeypatch):
    """One row, in a new interpreter, which takes seconds to import torch, or in a fork."""
    asked, context = [], multiprocessing.get_context(method)
    monkeypatch.setattr(multiprocessing, "get_context", lambda name: asked.append(name) or context)
    row = bench.measured([*SMALL, "--trainer.precision", "bf16-mixed"], 2)
    assert asked == ["spawn"]
    assert row["images"] == 100 and row["seconds"] > 0 and row["memory"] > 10**8
    assert row["device"].startswith("cpu") and row["parameters"].startswith("D ")


def test_bench_prints_a_table(monkeypatch, capsys, tmp_path):
    asked = []

    def measured(fit, steps):
        asked.append((fit, steps))
        if fit[-1] == "true":
            return {"error": "no compiler"}
        return {"seconds": 0.01, "memory": 2e9, "images": 64, "device": "cpu (2 threads)", "parameters": "D 1 + G 2"}

    monkeypatch.setattr(bench, "measured", measured)
    assert main(["bench", "dcgan/digits", "--steps", "7", "--data.batch_size", "64", "--json", "rows.json"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "dcgan/digits: D 1 + G 2; batches of 64 on cpu (2 threads)"
    assert out[2].split() == ["32-true,", "eager", "6,400", "10.0", "2,000"] and "no compiler" in out[3]
    assert [fit[:4] for fit, _ in asked] == [["--config", "dcgan/digits", "--data.batch_size", "64"]] * 4
    assert {steps for _, steps in asked} == {7}
    rows = json.loads(Path("rows.json").read_text())["rows"]
    assert [row["name"].split(",")[0] for row in rows] == ["32-true"] * 2 + ["bf16-mixed"] * 2


def test_bench_finds_the_largest_batch_on_a_gpu(monkeypatch, capsys):
    def measured(fit, steps):
        if "--data.batch_size" in fit:
            assert fit[-6:-2] == ["--trainer.precision", "32-true", "--model.compile_losses", "false"]
        size = int(fit[fit.index("--data.batch_size") + 1]) if "--data.batch_size" in fit else 64
        if size > 512:
            return {"error": "out of memory"}
        return {"seconds": 0.01, "memory": 1e9, "images": size, "device": "cuda (one)", "parameters": "D 1"}

    monkeypatch.setattr(bench, "measured", measured)
    assert main(["bench", "dcgan/digits", "--eager"]) == 0
    assert "largest batch that fits, at 32-true, eager: 512 (1,024: out of memory)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"), [("no/such", "no config 'no/such'"), ("dcgan/digits --steps 0", "--steps")]
)
def test_bench_refuses_bad_arguments_in_one_line(options, words, capsys):
    assert main(["bench", *options.split(), "--eager"]) == 2
    assert words in capsys.readouterr().err
