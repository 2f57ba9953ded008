"""The benchmarks run and write finite numbers; their values are not tested."""

from __future__ import annotations

import contextlib
import io
import json
import math
import multiprocessing
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ganzoo.layers.filtered import FilteredLeaky
from tests.benchmarks import __main__ as bench
from tests.benchmarks import evaluation as bench_evaluation
from tests.benchmarks import options as bench_options
from tests.benchmarks import presets as bench_presets
from tests.benchmarks import rows as bench_rows
from tests.benchmarks import scores as bench_scores
from tests.benchmarks import styles as bench_styles
from tests.benchmarks import tracking as bench_tracking
from tests.benchmarks import training as bench_training

Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A function that runs one measurement and returns its numbers."""

    def run(name: str) -> Any:
        file = tmp_path / f"{name}.json"
        assert bench.main(["--quick", "--only", name, "--json", str(file)]) == 0
        raw = json.loads(file.read_text())
        assert raw.keys() == {"machine", name}
        assert {"device", "threads", "ganzoo", "torch", "lightning", "python"} <= raw["machine"].keys()
        assert all(math.isfinite(number) for number in numbers(raw[name]))
        return raw[name]

    return run


def numbers(raw: Any) -> Iterator[float]:
    if isinstance(raw, dict | list):
        for part in raw.values() if isinstance(raw, dict) else raw:
            yield from numbers(part)
    else:
        yield raw


def test_updates_of_stylegan2_are_compared_with_the_same_networks(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The straightforward form has the same losses, also with noise."""
    sizes = {"image_size": 8, "z_dim": 4, "maps": 64, "width": 4, "mapping_layers": 1, "ema_half_life": None}
    monkeypatch.setattr(bench_styles, "SIZES", sizes)
    monkeypatch.setattr(bench_styles, "BATCH", 4)
    found: dict[str, list[float]] = {}
    seconds = bench_styles._seconds

    def seconds_and_loss(model: Any, player: str, equation: Any, batch: Any, device: str) -> float:
        model.path_mean.zero_()
        found.setdefault(equation.__name__, []).extend(term.item() for term in equation(batch).values())
        return seconds(model, player, equation, batch, device)

    monkeypatch.setattr(bench_styles, "_seconds", seconds_and_loss)
    raw = run("stylegan2")
    assert raw.keys() == {"G", "path lengths", "D", "R1"} and all(len(pairs) == 4 for pairs in raw.values())
    assert len(found) == 4
    for losses in found.values():
        n = len(losses) // 10  # terms, for 5 pairs
        first, second = losses[:n], losses[n : 2 * n]
        assert first == pytest.approx(second, rel=1e-4) and any(first)


def test_the_filtered_nonlinearity_is_compared_with_its_written_out_form(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_styles, "MAPS", (2, 3))
    for size, out, up, radial in bench_styles.LAYERS.values():
        layer = FilteredLeaky(*bench_styles._filters(up, radial), up, 2, size, out)
        x = torch.randn(2, 3, size, size)
        for given in (x, x.contiguous(memory_format=torch.channels_last)):
            torch.testing.assert_close(layer(given), bench_styles.written_out(layer, out)(given))
    raw = run("stylegan3")
    assert raw.keys() == bench_styles.LAYERS.keys()
    for found in raw.values():
        assert len(found) == 8 and all(len(numbers) == (1 if "kept" in what else 2) for what, numbers in found.items())
        assert found["kept, written out"][0] > 10 * found["kept"][0] > 0


def test_overhead_and_step_are_measured(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_training, "BLOCK", {"overhead": 5, "step": 1})
    monkeypatch.setattr(bench_training, "WIDTH", {"cpu": 2})
    for name in ("overhead", "step"):
        monkeypatch.setitem(bench.MEASUREMENTS, name, bench.MEASUREMENTS[name]._replace(quick=2))
        raw = run(name)
        assert raw.keys() == ({"ganzoo", "naive"} if name == "overhead" else {"shared fakes", "fresh fakes"})
        for pairs in raw.values():
            assert len(pairs) == 2
            for pair in pairs:
                assert pair.keys() == {"fit", "plain", "fit_cpu", "plain_cpu"}
                assert all(seconds > 0 for seconds in pair.values())
    out = capsys.readouterr().out
    assert all(f"at most {bench_rows.GOALS[name]}" in out for name in ("overhead", "shared fakes", "fresh fakes"))


def test_options_are_measured(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(
        "model: {class_path: DCGAN, init_args: {width: 2}}\n"
        "data: {class_path: Digits, init_args: {image_size: 16, batch_size: 8}}\n"
    )
    monkeypatch.setattr(bench_options, "CONFIGS", (str(config),))
    monkeypatch.setattr(bench_options, "BLOCK", 2)
    every = bench_options.OPTIONS
    assert {"DiffAugment", "ADA", "APA", "R1", "R2", "GradientPenalty", "BCR", "ZCR", "LeCam", "Orthogonal"} <= {*every}
    monkeypatch.setattr(bench_options, "OPTIONS", {name: every[name] for name in ("none", "R1", "LeCam")})
    (found,) = run("options").values()
    assert found.keys() == {"none", "LeCam"} and all(len(seconds) == 2 for seconds in found.values())
    assert all(seconds > 0 for seconds in numbers(found))
    assert re.search(r"R1 +refused", capsys.readouterr().out), "beside batch norm"


@pytest.mark.slow
def test_steps_of_the_modern_variants_are_measured(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_training, "MODERN_WIDTH", {"cpu": 2})
    monkeypatch.setitem(bench.MEASUREMENTS, "modern", bench.MEASUREMENTS["modern"]._replace(quick=1))
    assert [len(pairs) for pairs in run("modern").values()] == [1] * 12


def test_start_up_time_is_measured(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is started: a stand-in for `fit` only creates `reals.png`."""

    def start(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        for flag in command:
            if flag.startswith("--trainer.default_root_dir="):
                folder = Path(flag.partition("=")[2]) / "001-run"
                folder.mkdir()
                (folder / "reals.png").touch()
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(bench_training.subprocess, "run", start)
    assert len(run("start")) == 5


def test_frechet_distances_are_close_to_the_reference(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_scores, "FEATURES", 16)
    monkeypatch.setattr(bench_scores, "ROWS", (40, 10))
    raw = run("frechet")
    assert raw.keys() == {"40", "10"}
    for found in raw.values():
        assert found.keys() == {"true", "root", "ganzoo", "torchmetrics", "scipy"}
        assert found["true"] > 0
        for name, most in (("ganzoo", 1e-12), ("torchmetrics", 1e-5), ("scipy", 1e-5)):  # relative to the reference
            assert found[name][0]["error"] < most, name


def test_memory_is_measured(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within this process: starting one takes seconds."""

    elsewhere = subprocess.run

    def here(command: list[str], **settings: Any) -> subprocess.CompletedProcess[str]:
        if command[0] != sys.executable:  # git, asked for the commit
            return elsewhere(command, **settings)
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(command[2], {})
        return subprocess.CompletedProcess(command, 0, out.getvalue(), "")

    monkeypatch.setattr(bench_scores.subprocess, "run", here)
    monkeypatch.setattr(bench_scores, "FAKES", (64, 6000))
    raw = run("memory")
    assert raw.keys() == {"64", "6000"} and all(len(figures) == 1 for figures in raw.values())


def test_the_error_of_a_failed_memory_process_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "Traceback\n  ...\nMemoryError: no more\n")
    monkeypatch.setattr(bench_scores.subprocess, "run", lambda *_, **__: failed)
    assert bench.main(["--quick", "--only", "memory"]) == 2
    assert "evaluation of 2000 fakes: MemoryError: no more" in capsys.readouterr().err


def test_evaluation_agrees_with_torch_fidelity(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without KID, which needs 1,000 images, and without Inception, which takes seconds a batch."""
    whole = bench_evaluation.digits

    def digits(n: int, file: Path) -> bench_evaluation.Case:
        case = whole(200, file)
        assert case.metrics == ["fid", "is", "kid", "pr"]
        return case._replace(reals=case.reals[:300], metrics=["fid", "is", "pr"])

    monkeypatch.setattr(bench_evaluation, "digits", digits)
    monkeypatch.setattr(bench_evaluation, "CASES", ("digits",))
    raw = run("evaluation")
    assert raw.keys() == {"digits"}
    for found in raw["digits"]["times"].values():
        assert found.keys() == {"ganzoo", "torch-fidelity"}
    scores = raw["digits"]["scores"]
    assert scores["torch-fidelity"].keys() == {"fid", "is", "precision", "recall"}
    for name, value in scores["torch-fidelity"].items():  # the same images, metrics and settings
        assert value == pytest.approx(scores["ganzoo"][name], rel=1e-4), name
    assert f"at least {bench_rows.GOALS['evaluation']}" in capsys.readouterr().out


def test_untrained_inception_weights_have_the_expected_shape_and_std(tmp_path: Path) -> None:
    case = bench_evaluation.inception(3, tmp_path / "weights.pth")
    assert case.fakes.shape == case.reals.shape == (3, 3, 32, 32)
    state = torch.load(io.BytesIO((tmp_path / "weights.pth").read_bytes()), weights_only=True)
    assert state["fc.weight"].shape == (1008, 2048)
    deviation = state["Mixed_7c.branch1x1.conv.weight"].std().item()
    assert deviation == pytest.approx(math.sqrt(2 / 2048), rel=0.02)  # He initialisation


def test_tracking_is_measured(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(
        "model: {class_path: DCGAN, init_args: {width: 2}}\n"
        "data: {class_path: Digits, init_args: {image_size: 16, batch_size: 8}}\n"
        "scores: {n: 64, final_n: 64}\n"
        "trainer: {max_steps: 5000}\n"
    )
    monkeypatch.setattr(bench_tracking, "CONFIG", str(config))
    monkeypatch.setattr(bench_tracking, "EVERY", 2)
    raw = run("tracking")
    assert len(raw["looks"]) == bench.MEASUREMENTS["tracking"].quick >= raw["saved"] >= 1
    assert raw["loop"]["wall"] > sum(look["wall"] for look in raw["looks"])


def test_cache_at_restores_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for before in ("mine", None):
        if before is None:
            monkeypatch.delenv("GANZOO_CACHE")
        else:
            monkeypatch.setenv("GANZOO_CACHE", before)
        with bench_rows.cache_at(str(tmp_path)):
            assert os.environ["GANZOO_CACHE"] == str(tmp_path)
        assert os.environ.get("GANZOO_CACHE") == before


SMALL = "stylegan2.StyleGAN2,image_size=16,width=4,maps=64,z_dim=4,mapping_layers=1"
SPLIT = f"{SMALL},microbatches=4"


def test_memory_of_a_step_grows_with_the_batch_and_falls_with_microbatches() -> None:
    with bench_rows.silence():
        few, many, parts = (bench_presets.measure(*cell, "32-true") for cell in ((SMALL, 8), (SMALL, 32), (SPLIT, 32)))
    for row in (few, many, parts):
        assert row["peaks"].keys() == {"G", "path", "D", "R1"} and row["seconds"] > 0
        assert row["peak"] == row["peaks"][row["where"]] > row["kept"]
    for name in few["peaks"]:
        more, fewer, split = (row["peaks"][name] - row["kept"] for row in (many, few, parts))
        assert 2.5 < more / fewer < 4.5, name
        assert 0.2 < split / more < 0.5, name
    model = bench_presets.made(SMALL)
    weights, state, g = (
        sum(t.numel() for t in tensors)
        for tensors in (model.parameters(), model.buffers(), model.generator.state_dict().values())
    )
    kept = 4 * weights + state + g + 8 * 3 * 16**2  # weights, gradients and Adam's moments, the averaged G, images
    assert few["kept"] == pytest.approx(4 * kept, rel=0.05)


def test_memory_of_a_former_profile_does_not_count_when_it_is_freed() -> None:
    former, gauge = bench_presets._Tensors(), bench_presets._Tensors()
    with bench_rows.silence():
        with former.counting():
            early = torch.zeros(1000)
        with gauge.counting():
            kept = torch.zeros(10)
            del early
            with gauge.span("later"):
                later = torch.zeros(100)
        assert gauge.peaks() == (40, {"later": 440})
    assert len(kept) + len(later) == 110


def test_time_of_a_step_is_a_mean_over_a_cycle_of_lazy_terms() -> None:
    spans = bench_presets._Spans(bench_presets.made(SMALL), bench_presets._Tensors())
    spans.seconds = {"G": [2.0, 1.0], "path": [4.0], "D": [1.5], "R1": [16.0], "step": [30.0, 23.0]}
    spans.every = {"G": 1, "path": 4, "D": 1, "R1": 16}
    assert spans.mean() == 1 + 4 / 4 + 1.5 + 16 / 16 + 0.5


@pytest.mark.parametrize(
    ("memory", "seconds", "error"), [(True, 60, "over {} GiB"), (False, 1, "over 1 CPU s"), (False, 60, None)]
)
def test_a_step_over_a_limit_is_not_measured(
    memory: bool, seconds: int, error: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a fork, which imports nothing, with a step that needs more memory or time in the cases with an error."""
    used = int(Path("/proc/self/status").read_text().partition("VmData:")[2].split()[0])  # KiB
    gigabytes = used // 2**20 + 2

    def measure(*asked: object) -> dict[str, Any]:
        assert asked == (SMALL, 8, "bf16-mixed", "cpu", 3)
        if memory:
            torch.empty((gigabytes + 1) << 30, dtype=torch.uint8)
        while seconds == 1:
            pass
        return {"kept": 1e6, "peaks": {"G": 3e6, "D": 2e6}, "peak": 3e6, "where": "G", "seconds": 0.5}

    context = multiprocessing.get_context("fork")
    monkeypatch.setattr(multiprocessing, "get_context", lambda name: context)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(bench_presets, "measure", measure)
    limits = ["--gb", str(gigabytes), "--seconds", str(seconds)]
    asked = [SMALL, "--batch", "8", "--precision", "bf16-mixed", "--steps", "3", *limits]
    assert bench_presets.main(asked) == 0
    out = capsys.readouterr().out
    assert "GPU: not measured" in out
    shown = f"not measured: {error.format(gigabytes)}" if error else "1; G 3, D 2; 3 in G; 0.50 s"
    assert shown in out.splitlines()[-1]


def test_presets_exist_and_an_unknown_one_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert all(callable(bench_presets.function(preset)) for preset in bench_presets.PRESETS)
    with pytest.raises(SystemExit):
        bench_presets.main(["stylegan2.paper257"])
    assert "no attribute 'paper257'" in capsys.readouterr().err


def test_no_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit):
        bench.main(["--device", "cuda"])
    assert "--device cuda" in capsys.readouterr().err


def test_help_lists_every_measurement(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(["--help"])
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in bench.MEASUREMENTS)
