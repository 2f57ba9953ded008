"""Comparison of reports: scores are ranked if their protocols agree, and refused with the reason otherwise."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from ganzoo.evaluation.comparison import compare, pool_seeds
from ganzoo.evaluation.record import Report, Score

STANDARD = "standard error over fakes"


def report(**scores):
    """A report of scores, each given by its differences from a default score."""
    usual = {"value": 1.0, "error": None, "error_kind": STANDARD, "better": "lower", "protocol": {"fakes": 100}}
    found = [Score(name=f"{figure}_100", figure=figure, **{**usual, **more}) for figure, more in scores.items()]
    return Report({"name": "DCGAN"}, found)


def files(*reports):
    return {f"{letter}.json": report for letter, report in zip("abcdef", reports, strict=False)}


def places(*scores):
    """File letters, ranks and `near` flags of one figure, best first."""
    ranked, refused = compare(files(*(report(fid=score) for score in scores)))
    assert refused == {}
    return [(place.name[0], place.rank, place.near) for place in ranked["fid"]]


@pytest.mark.parametrize(("better", "order"), [("lower", "bac"), ("higher", "cab")])
def test_the_best_is_first(better, order):
    found = places(*({"value": value, "better": better} for value in (2.0, 1.0, 3.0)))
    assert found == [(letter, rank, False) for rank, letter in enumerate(order, 1)]


def test_equal_scores_share_their_rank_and_nan_is_last():
    found = places(*({"value": value} for value in (math.nan, 1.0, 2.0, 1.0)))
    assert found == [("b", 1, False), ("d", 1, False), ("c", 3, False), ("a", 4, False)]


def test_figures_without_a_better_direction_have_no_rank():
    assert places(*({"value": value, "better": "", "error": 5.0} for value in (2.0, 1.0))) == [
        ("b", None, False),
        ("a", None, False),
    ]


@pytest.mark.parametrize(
    ("value", "kind", "near"),
    [(1.9, STANDARD, True), (2.1, STANDARD, False), (1.9, "population std over subsets", False)],
)
def test_near_means_within_two_standard_errors_of_the_score_above(value, kind, near):
    """Standard errors of 0.3 and 0.4 combine to 0.5, so the limit is 1.0."""
    found = places({"value": 1.0, "error": 0.3, "error_kind": kind}, {"value": value, "error": 0.4, "error_kind": kind})
    assert [place[2] for place in found] == [False, near]
    assert not places({"error": 0.3}, {"error": None})[1][2]
    assert not places({"error": 0.3}, {"error": 0.3, "error_kind": "standard error over trainings"})[1][2]


def test_different_protocols_and_missing_figures_are_named():
    long = "0123456789abcdef"
    ranked, refused = compare(
        files(
            report(fid={}, kid={"protocol": {"fakes": 100, "data_fingerprint": long}}),
            report(fid={}, kid={"protocol": {"fakes": 50, "data_fingerprint": long[::-1]}}, pr={}),
        )
    )
    assert list(ranked) == ["fid"] and refused == {
        "kid": "fakes differs (100 and 50); data_fingerprint differs (0123456789ab and fedcba987654)",
        "pr": "not in a.json",
    }


A, B, C, D = (Path(f"{letter}.json") for letter in "abcd")


def pooled(values, seeds, model=None, subject=None):
    """`pool_seeds` for trainings with these values of FID and these seeds; `model` and `subject` of the last."""
    reports = {file: report(fid={"value": value}) for file, value in zip((A, B, C, D), values, strict=False)}
    trainings = {file: {"seed_everything": seed, "model": 1} for file, seed in zip(reports, seeds, strict=True)}
    last = list(reports)[-1]
    trainings[last] |= {"model": model} if model else {}
    reports[last].subject.update(subject or {})
    return pool_seeds(reports, trainings)


def test_trainings_that_differ_in_their_seed_have_a_mean_and_a_standard_error():
    """1, 2 and 6: mean 3, variance 7."""
    found = pooled([1.0, 2.0, 6.0], [0, 1, 2], subject={"seed": 5})
    assert list(found) == ["a.json, b.json, c.json"]
    (score,) = found["a.json, b.json, c.json"].scores
    assert (score.value, score.error) == (3.0, pytest.approx((7 / 3) ** 0.5))
    assert score.error_kind == "standard error over trainings" and score.protocol == {"fakes": 100}
    (score,) = pooled([1.0, math.nan], [0, 1])["a.json, b.json"].scores
    assert math.isnan(score.value) and score.error is None


@pytest.mark.parametrize(
    ("seeds", "more"), [([0, 1], {"model": 2}), ([0, 1], {"subject": {"weights": "raw"}}), ([0, 0], {})]
)
def test_other_trainings_are_not_pooled(seeds, more):
    assert list(pooled([1.0, 2.0], seeds, **more)) == ["a.json", "b.json"]
    assert list(pooled([1.0, 3.0, 2.0], [3, *seeds], **more))[-1] == "c.json"


def test_scores_of_other_protocols_and_records_outside_of_runs_are_not_pooled():
    reports = {A: report(fid={}), B: report(fid={"protocol": {"fakes": 50}}), C: report(fid={}), D: report(fid={})}
    trainings = {file: {"seed_everything": seed, "model": 1} for seed, file in enumerate((A, B))} | {C: {}}
    assert list(pool_seeds(reports, trainings)) == ["a.json", "b.json", "c.json", "d.json"]


def test_evaluate_compare_does_not_import_torch(tmp_path):
    for name in ("a", "b"):
        content = report(fid={"protocol": {"fakes": 100, "image": "8x8", "settings": {}}}).as_dict()
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    code = "import sys; from ganzoo.cli import main; code = main(sys.argv[1:]); assert 'torch' not in sys.modules; "
    for arguments in (["--compare", "a.json", "b.json"], ["--help"]):
        command = [sys.executable, "-c", f"{code} sys.exit(code)", "evaluate", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
