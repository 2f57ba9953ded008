"""The fault campaign: a short version of it, and the committed table."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

import ganzoo
from ganzoo.checkpoint.sealed import CheckpointIO
from ganzoo.checkpoint.sealed import read as read_checkpoint
from tests.campaigns import faults
from tests.campaigns.faults import PLACE, cells, differences, main, page, read, reference, strike
from tests.campaigns.faults_kinds import FAULTS


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """The folder of all runs, with the uninterrupted reference run once it is needed."""
    torch.set_num_threads(1)
    return tmp_path_factory.mktemp("faults")


SLOW = ("dead rank", "group", "closed pipe", "two at once")
SLOW += ("killed", "SIGTERM", "bad number", "truncated checkpoint")  # fast in tests/unit/test_checkpoints.py


@pytest.mark.parametrize("fault", [pytest.param(f, marks=pytest.mark.slow if f in SLOW else ()) for f in FAULTS])
def test_an_interrupted_run_ends_bit_identical_to_an_uninterrupted_one(fault, work):
    row = strike("GAN", fault, work)
    assert not row["different"] and not row["trouble"], row
    assert len(row["starts"]) > 1 and row["starts"][-1]["code"] == 0
    if FAULTS[fault].codes == {2}:
        said = row["starts"][0]["said"]
        assert said.startswith("ganzoo: error: ") and "the last good state is runs/" in said


def test_differences_between_runs_are_found(work, tmp_path):
    """One bit of a tensor, a missing logged value, another score, another image."""
    whole = reference("GAN", "one", work)
    assert differences(whole, whole) == []
    other = shutil.copytree(whole, tmp_path / "other")
    metrics = (other / "metrics.jsonl").read_text().splitlines(keepends=True)
    (other / "metrics.jsonl").write_text("".join(metrics[:-1]))
    scores = json.loads((other / "scores.json").read_text())
    scores["scores"][0]["value"] += 1e-9
    (other / "scores.json").write_text(json.dumps(scores))
    next(other.glob("samples/*.png")).write_bytes(b"")
    last = other / "checkpoints" / "last.ckpt"
    checkpoint = read_checkpoint(last)
    checkpoint["state_dict"]["generator.layers.0.weight"].view(torch.int32)[0, 0] ^= 1
    CheckpointIO().save_checkpoint(checkpoint, last)
    assert differences(whole, other) == [
        "['state_dict']['generator.layers.0.weight']",
        "metrics.jsonl",
        "scores.json",
        "samples",
    ]
    last.unlink()
    assert len(differences(whole, other)) > 50


def row(variant="GAN", fault="killed", **more):
    made = {"torch": "1", "lightning": "2"}
    starts = [{"code": -9, "said": ""}, {"code": 0, "said": "Done"}]
    content = {"variant": variant, "fault": fault, "starts": starts, "steps_lost": 3, "different": [], "trouble": []}
    return {**content, "cpu_seconds": 1.0, "made": made, **more}


def test_the_page_shows_failures():
    assert "| GAN | identical, 3 |" in page([row()]) and "**1 of 1 are bit-identical.**" in page([row()])
    bad = page([row(different=["weights"], trouble=["hung"])])
    assert "**different** (weights), 3, **hung**" in bad and "**0 of 1 are bit-identical.**" in bad


def test_existing_rows_are_not_computed_again(tmp_path, monkeypatch):
    (tmp_path / "rows.jsonl").write_text(json.dumps(row()) + "\n")
    made = []

    def pretend(variant, fault, work):
        made.append((variant, fault))
        return row(variant, fault)

    monkeypatch.setattr(faults, "strike", pretend)
    main(["killed", "SIGTERM", "--variants", "GAN", "DCGAN", "--place", str(tmp_path)])
    assert sorted(made) == [("DCGAN", "SIGTERM"), ("DCGAN", "killed"), ("GAN", "SIGTERM")]
    assert (tmp_path / "README.md").read_text() == page(read(tmp_path / "rows.jsonl"))
    with pytest.raises(SystemExit):
        main(["no such fault"])


def test_the_committed_table_is_complete_and_matches_its_rows():
    rows = read(PLACE / "rows.jsonl")
    assert (PLACE / "README.md").read_text() == page(rows)
    assert sorted((row["variant"], row["fault"]) for row in rows) == sorted(cells())
    assert {row["variant"] for row in rows} == set(ganzoo.list_models())
    assert not [row for row in rows if row["different"] or row["trouble"]], "a bug, or to be explained on the page"
