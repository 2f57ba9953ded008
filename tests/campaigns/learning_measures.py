"""Figures of a finished run, and claims about them, for `python -m tests.campaigns.learning`."""

from __future__ import annotations

import json
import os
import re
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

LIMIT = 1200  # CPU seconds per row
NOISE = 5.0  # of the held-out FID of few images: smaller differences of two runs occur between seeds
Figures = dict[str, float]
Found = dict[str, Figures]  # for one seed: arm -> figures


def command(*arguments: str, limit: int = LIMIT) -> tuple[float, str, str]:
    """Runs `python -m ganzoo ARGUMENTS`; its CPU seconds, output, and failure ("" for none).

    Args:
        limit: CPU seconds, after which the process is killed.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "ganzoo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        resource.prlimit(process.pid, resource.RLIMIT_CPU, (limit, limit))
        assert process.stdout is not None
        printed = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    failure = f"exit {process.returncode}: {printed.strip()[-300:]}" if process.returncode else ""
    return used.ru_utime + used.ru_stime, printed, failure


# Figures of a run


def final(run: Path) -> Figures:
    """The final scores of a training."""
    scores = json.loads((run / "scores.json").read_text())["scores"]
    return {score["figure"]: score["value"] for score in scores if score["value"] is not None}


def with_held_out(run: Path) -> Figures:
    """The final scores, and FID against the test split, which is not used in training."""
    record = run / "scores-test.json"
    _, _, failure = command("evaluate", str(run), "--split", "test", "--metrics", "fid", "--json", str(record))
    if failure:
        raise ValueError(failure)
    return {**final(run), "held_out_fid": json.loads(record.read_text())["scores"][0]["value"]}


def test_error(run: Path) -> Figures:
    """Fraction of the test images that D misclassifies."""
    _, printed, failure = command("test", "--config", str(run / "config.yaml"), "--ckpt_path", str(run))
    if failure:
        raise ValueError(failure)
    found = re.search(r"test/error\D+([\d.e-]+)", printed)  # a table, whose frame depends on the terminal
    if found is None:
        raise ValueError("`test` printed no test/error")
    return {"error": float(found[1])}


def course(run: Path) -> Figures:
    """The final scores, and Spearman's rank correlation, over a training, of FID with D's negative loss: an estimate of
    the Wasserstein distance for a critic, of the Jensen-Shannon divergence for a discriminator."""
    from scipy.stats import spearmanr

    quality, value = {}, {}
    for line in (run / "scores.jsonl").read_text().splitlines():
        report = json.loads(line)
        quality[report["step"]] = next(score["value"] for score in report["scores"] if score["figure"] == "fid")
    for line in (run / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record.get("D/loss") is not None:
            value[record["step"]] = -record["D/loss"]
    steps = sorted(quality.keys() & value.keys())
    found = spearmanr([value[step] for step in steps], [quality[step] for step in steps]).statistic
    return {**final(run), "correlation": float(found)}


def early(*wanted: tuple[str, int]) -> Callable[[Path], Figures]:
    """Measures the final scores and, for each ("fid", 500), the figure "fid_500" from the scores after 500 batches."""

    def measure(run: Path) -> Figures:
        reports = map(json.loads, (run / "scores.jsonl").read_text().splitlines())
        found = {(score["figure"], report["step"]): score["value"] for report in reports for score in report["scores"]}
        return {**final(run), **{f"{figure}_{step}": found[figure, step] for figure, step in wanted}}

    return measure


def few(run: Path) -> Figures:
    """The final scores, and FID against all training portraits and against the test split."""
    found = final(run)
    for figure, reals in (("fid_628", ["wgangp/emoji"]), ("held_out_fid", ["--split", "test"])):
        record = run / f"{figure}.json"
        _, _, failure = command("evaluate", str(run), *reals, "--metrics", "fid", "-n", "5000", "--json", str(record))
        if failure:
            raise ValueError(failure)
        found[figure] = json.loads(record.read_text())["scores"][0]["value"]
    return found


# Claims


def in_order(figure: str, *arms: str, higher: bool = False, by: float = 0.0) -> Callable[[Found], bool]:
    """Whether the arms rank in this order, the best first, with differences above `by`."""

    def holds(found: Found) -> bool:
        values = [found[arm][figure] * (-1 if higher else 1) for arm in arms]
        return all(a + by < b for a, b in zip(values, values[1:], strict=False))

    return holds


def better_few(variant: str, than: str = "DCGAN") -> Callable[[Found], bool]:
    """Whether a variant, with DiffAugment on 100 images, has a lower FID against all than another one, beyond noise."""
    return in_order("fid_628", f"{variant}, 100, DiffAugment", f"{than}, 100, DiffAugment", by=NOISE)


def at_least(figure: str, least: float, *arms: str) -> Callable[[Found], bool]:
    return lambda found: all(found[arm][figure] >= least for arm in arms)


def strength_in_order(figure: str, *arms: str) -> Callable[[Found], bool]:
    """Whether the absolute values of correlations rank in this order, the largest first."""

    def holds(found: Found) -> bool:
        strengths = {arm: {figure: abs(found[arm][figure])} for arm in arms}
        return in_order(figure, *arms, higher=True)(strengths)

    return holds


def mean_of(figure: str, kind: str, found: Found) -> float:
    """Mean over the arms whose name begins with the word `kind`.

    Raises:
        KeyError: an arm of another kind has no counterpart: a run failed, and the means would be of different networks.
    """
    networks = {arm.partition(" ")[2] for arm in found}
    return statistics.mean(found[f"{kind} {network}".strip()][figure] for network in networks)
