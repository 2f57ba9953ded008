"""The benchmark runs and writes numbers; how large they are is for people to judge."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path

import pytest

from ganzoo.cli import bench, main


def test_overhead_and_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bench, "BLOCK", {"overhead": 5, "step": 1})
    monkeypatch.setattr(bench, "QUICK", {"overhead": 2, "step": 1})
    monkeypatch.setattr(bench, "WIDTH", {"cpu": 2})
    for name in ("overhead", "step"):
        file = tmp_path / f"{name}.json"
        assert main(["bench", "--quick", "--only", name, "--json", str(file)]) == 0
        raw = json.loads(file.read_text())
        assert raw.keys() == {"machine", name}
        assert {"device", "threads", "ganzoo", "torch", "lightning", "python"} <= raw["machine"].keys()
        assert raw[name].keys() == ({"ganzoo", "naive"} if name == "overhead" else {"pairs"})
        for pairs in raw[name].values():
            assert len(pairs) == bench.QUICK[name]
            for pair in pairs:
                assert pair.keys() == {"fit", "plain", "fit_cpu", "plain_cpu"}
                assert all(math.isfinite(seconds) and seconds > 0 for seconds in pair.values())
    out = capsys.readouterr().out
    assert f"at most {bench.GOALS['overhead']}" in out and f"at most {bench.GOALS['step']}" in out


def test_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is started: each `fit` leaves only the picture of the reals."""

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        for flag in command:
            if flag.startswith("--trainer.default_root_dir="):
                folder = Path(flag.partition("=")[2]) / "001-run"
                folder.mkdir()
                (folder / "reals.png").touch()
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(bench.subprocess, "run", run)
    file = tmp_path / "start.json"
    assert main(["bench", "--quick", "--only", "start", "--json", str(file)]) == 0
    raw = json.loads(file.read_text())["start"]
    assert len(raw) == 5 and all(math.isfinite(seconds) for figures in raw.values() for seconds in figures)


def test_no_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["bench", "--device", "cuda"]) == 2
    assert "--device cuda" in capsys.readouterr().err
