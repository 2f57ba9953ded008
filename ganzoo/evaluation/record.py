"""Records of scores, with all that is needed to cite, repeat and compare them."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganzoo.core.atomic import write_text
from ganzoo.core.environment import version
from ganzoo.core.files import read_text

if TYPE_CHECKING:  # records are read without torch
    from ganzoo.evaluation.interfaces import Extractor, Metric

SCHEMA = 1
PACKAGES = ("ganzoo", "torch", "torchvision", "torchmetrics", "torch-fidelity", "numpy")
BY_INCEPTION = {"fid", "is", "kid", "sfid", "intra_fid", "fid_infinity"}  # others are also published with VGG
READINGS = {  # of figures that cannot be ranked
    "authenticity": "0 for copies, authenticity_of_reals for new images",
    "copying": "0.5 for new images, 1 for copies, 0 for bad ones",
    "copying_z": "above 3: closer to the training images than by chance",
}
Protocol = dict[str, Any]


@dataclass(frozen=True)
class Score:
    """A figure with its protocol.

    Attributes:
        name: with extractor and count, such as `fid_digits@1a2b_10k`; `fid_50k` uses Inception.
        value: the figure; NaN if it could not be computed.
        error: its uncertainty; None if unknown.
        error_kind: kind of the uncertainty, such as "standard error over fakes"; "" without.
        better: "lower", "higher", or "" for a figure that cannot be ranked.
        figure: name of the metric's figure.
        protocol: everything that must be equal for two scores to be comparable.
    """

    name: str
    value: float
    error: float | None
    error_kind: str
    better: str
    figure: str
    protocol: Protocol

    @property
    def readable(self) -> str:
        """The value and two significant digits of the error, such as `5.31 +- 0.12`."""
        if not self.error or not math.isfinite(self.error):
            return f"{self.value:.4g}"
        decimals = max(0, 1 - int(f"{self.error:e}".partition("e")[2]))
        return f"{self.value:.{decimals}f} +- {self.error:.{decimals}f}"

    @property
    def reading(self) -> str:
        """How to interpret the figure, such as `lower is better`."""
        return READINGS.get(self.figure) or (f"{self.better} is better" if self.better else "")


@dataclass(frozen=True)
class Report:
    """The scores of one subject.

    Attributes:
        subject: what was evaluated: variant, weights, averaged or raw generator, seed of the fakes, or a folder.
        scores: one per figure.
        made: versions, commit, device: should not matter, so records that differ in them can be compared.
    """

    subject: dict[str, Any]
    scores: list[Score]
    made: dict[str, Any] = field(default_factory=dict)

    def save(self, file: Path) -> None:
        """Writes the report as JSON, such as `scores.json`; `load` reads it."""
        write_text(file, json.dumps(self.as_dict(), indent=2, allow_nan=False) + "\n")

    def as_dict(self) -> dict[str, Any]:
        """Contents for JSON: values that are not finite become None."""
        content = {"schema": SCHEMA, **asdict(self)}
        for score in content["scores"]:
            score |= {key: score[key] if math.isfinite(score[key] or 0) else None for key in ("value", "error")}
        return content

    @staticmethod
    def load(file: Path) -> Report:
        """Reads a saved report.

        Raises:
            OSError: the file cannot be read.
            ValueError: it is not a report, or of another version.
        """
        try:
            content = json.loads(read_text(file))
            if content["schema"] != SCHEMA:
                raise ValueError("it is from another version of ganzoo")
            report = Report(content["subject"], [_score(score) for score in content["scores"]], content["made"])
            for score in report.scores:
                report.cite(score)  # reads all required fields
            return report
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(
                f"{file} is not a record of scores ({error}); use a scores.json of evaluate or fit"
            ) from error

    def __str__(self) -> str:
        """One line per score, then one per kind of error."""
        width = max(len(score.name) for score in self.scores)
        lines = [f"  {s.name:<{width}}  {s.readable:<18}  {s.reading}".rstrip() for s in self.scores]
        kinds: dict[str, list[str]] = {}
        for score in self.scores:
            if score.error is not None:
                kinds.setdefault(score.error_kind, []).append(score.figure)
        return "\n".join([*lines, *(f"  +- of {', '.join(figures)}: {kind}" for kind, figures in kinds.items())])

    def cite(self, score: Score) -> str:
        """One line with score, subject, protocol and versions."""
        p = score.protocol
        error = "" if score.error is None else f" ± {score.error:.3g} ({score.error_kind})"
        who = self.subject
        fakes = f"{p['fakes']:,} images of {who['name']}"
        if "weights" in who:
            fakes = f"{p['fakes']:,} fakes of {who['name']} ({who['weights']} weights, seed {who['seed']})"
        split = "" if p.get("split") == "all" else f"{p.get('split')} "  # folders have no splits
        reals = f" against {p['reals']:,} {split}images of {p['data']}" if "reals" in p else ""
        extractor = (
            f", {p['extractor']}@{p['extractor_fingerprint'][:8]}: {p['preprocessing']}" if "extractor" in p else ""
        )
        settings = "".join(f", {key} {value}" for key, value in p["settings"].items() if key != "centers")
        versions = f"ganzoo {self.made.get('ganzoo')}, torch {self.made.get('torch')}"
        what = f"{fakes}{sampled(p)}{reals}, {p['image']}{extractor}{settings}"
        return f"{score.name} = {score.value:.4g}{error}: {what}; {versions}"


def _score(content: Any) -> Score:
    """A score from parsed JSON; raises if it is malformed."""
    score = Score(**{**content, "value": math.nan if content["value"] is None else content["value"]})
    words, numbers = (score.name, score.error_kind, score.better, score.figure), (score.value, score.error or 0.0)
    if not all(isinstance(x, str) for x in words) or not all(isinstance(x, int | float) for x in numbers):
        raise ValueError("fields of wrong types")
    if score.better not in ("lower", "higher", ""):
        raise ValueError('better is neither "lower" nor "higher"')
    return score


def protocol(
    metric: Metric,
    extractor: Extractor | None,
    images: str,
    fakes: int,
    reals: Mapping[str, Any] | None,
    sampling: Mapping[str, Any],
) -> Protocol:
    """The protocol of a metric's figures.

    Args:
        metric: the metric.
        extractor: of the features; None without.
        images: their shape, as text.
        fakes: their number.
        reals: "data", "split", "reals" (how many) and "data_fingerprint"; None if nothing depends on them.
        sampling: "truncation" of the latents, and "standing_statistics" if there are any.
    """
    found: Protocol = {
        "metric": metric.name,
        "settings": {f.name: getattr(metric, f.name) for f in fields(metric)},
        "fakes": metric.count(fakes),
        "image": images,
        **sampling,
    }
    if reals is not None:
        found |= reals
    if extractor is not None and metric.extracts:
        found |= {
            "extractor": extractor.name,
            "extractor_fingerprint": extractor.fingerprint,
            "preprocessing": extractor.preprocessing,
        }
    return json.loads(json.dumps(found))  # as after loading: no tuples


def sampled(how: Mapping[str, Any]) -> str:
    """`, truncation 0.5, standing statistics of 16 passes`, or nothing if a model is sampled as usual."""
    words = {"truncation": ", truncation {}", "standing_statistics": ", standing statistics of {} passes"}
    return "".join(said.format(how[key]) for key, said in words.items() if how.get(key) is not None)


def score_name(figure: str, how: Protocol) -> str:
    """`fid_50k` with Inception, which defines it; otherwise `fid_digits@1a2b_10k`, `recall_inception@1a2b_10k`."""
    defined = "extractor" not in how or how["extractor"] == "inception" and figure in BY_INCEPTION
    tag = "" if defined else f"_{how['extractor']}@{how['extractor_fingerprint'][:4]}"
    split = f"_{how['split']}" if how.get("split") in ("val", "test") else ""
    return f"{figure}{tag}_{count(how['fakes'])}{split}"


def count(n: int) -> str:
    """1000 -> 1k; 2500 -> 2500."""
    return f"{n // 1000}k" if n and n % 1000 == 0 else str(n)


def made(device: Any) -> dict[str, Any]:
    """Versions, git commit and device."""
    return {**{package: version(package) for package in PACKAGES}, "commit": _commit(), "device": str(device)}


@cache  # commit of the running code, whatever is committed later
def _commit() -> str | None:
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        git = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        return subprocess.run(git, capture_output=True, encoding="utf-8", timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
