"""The page of the learning table, from rows; the trainings themselves are run by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ganzoo.cli.paths import configs
from tests.campaigns.learning import PLACE, main, page, read
from tests.campaigns.learning_rows import EXPERIMENTS, command, in_order


def row(arm, seed, **figures):
    return {
        "experiment": "critic",
        "arm": arm,
        "seed": seed,
        "figures": figures,
        "failure": "" if figures else "exit 1",
        "cpu_seconds": 10.0,
    }


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_arms_have_configs_and_claims_speak_of_them(name):
    experiment = EXPERIMENTS[name]
    assert {arm.config for arm in experiment.arms.values()} <= set(configs())
    found = {arm: dict.fromkeys(experiment.figures, 0.5) for arm in experiment.arms}
    for claim in experiment.claims:
        assert claim.holds(found) in (True, False)


def test_means_failures_and_verdicts():
    rows = [row("WGAN", seed, correlation=c, fid=2.0) for seed, c in enumerate((0.9, 0.8, 0.7))]
    rows += [row("DCGAN", 0, correlation=0.95, fid=1.0), row("DCGAN", 1, correlation=0.1, fid=1.0), row("DCGAN", 2)]
    text = page(rows)
    assert "| WGAN | 0.8 ± 0.1 | 2 ± 0 | 3 | 0 | 10 |" in text
    assert "| DCGAN | 0.95, 0.1 | 1, 1 | 3 | 1 | 10 |" in text
    assert "falls as FID falls: **comes out** (3 of 3 seeds)" in text
    assert "Jensen-Shannon divergence: **comes out sometimes** (1 of 2 seeds)" in text, "a failed seed is no verdict"
    assert text.count("Not run yet.") == len(EXPERIMENTS) - 1


def test_orders():
    found = {"a": {"x": 1.0}, "b": {"x": 2.0}, "c": {"x": 2.0}}
    assert in_order("x", "a", "b")(found) and in_order("x", "b", "a", higher=True)(found)
    assert not in_order("x", "a", "b", "c")(found), "a tie is no order"


def test_rows_that_are_there_are_not_run_again(tmp_path, monkeypatch):
    rows = [row("WGAN", 0, correlation=0.5, fid=1.0)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    ran = []

    def run(name, arm, seed, work):
        ran.append((arm, seed))
        return row(arm, seed, correlation=0.0, fid=0.0)

    monkeypatch.setattr("tests.campaigns.learning.run", run)
    assert main(["critic", "--place", str(tmp_path)]) == 0
    assert len(ran) == 5 and ("WGAN", 0) not in ran
    assert len(read(tmp_path / "rows.jsonl")) == 6


def test_a_command_that_fails_says_so():
    seconds, printed, failure = command("sample", "nowhere")
    assert failure.startswith("exit 2") and "nowhere" in failure and 0 < seconds < 60
    assert command("--version")[1:] == (
        subprocess.run([sys.executable, "-m", "ganzoo", "--version"], capture_output=True, text=True).stdout,
        "",
    )


def test_the_committed_page_is_that_of_the_committed_rows():
    assert (PLACE / "README.md").read_text() == page(read(Path(PLACE, "rows.jsonl")))
