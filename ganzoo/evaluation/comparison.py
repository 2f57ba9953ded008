"""Ranks scores measured with the same protocol, figure by figure; gives the reason why others cannot be compared."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ganzoo.evaluation.record import Protocol, Report, Score


@dataclass(frozen=True)
class Place:
    """Rank of a score among others with the same protocol.

    Attributes:
        name: of its record, or records.
        score: the score.
        rank: from 1, shared by equal scores; None for figures that cannot be ranked.
        near: whether it is within two standard errors of the score ranked above.
    """

    name: str
    score: Score
    rank: int | None
    near: bool


def pool_seeds(reports: Mapping[Path, Report], trainings: Mapping[Path, Mapping[str, Any]]) -> dict[str, Report]:
    """Reports by the names of their files; those of trainings that differ only in their seed become one, with the means
    of their scores.

    Args:
        reports: by file.
        trainings: "seed_everything" and everything else that determines the training of each report that is of one.
    """
    groups: dict[str, list[Path]] = {}
    for file, report in reports.items():
        training = {key: value for key, value in trainings.get(file, {}).items() if key != "seed_everything"}
        subject = {key: value for key, value in report.subject.items() if key != "seed"}
        protocols = [(score.name, score.protocol) for score in report.scores]
        same = json.dumps([training, subject, protocols], default=str) if training else str(file)
        groups.setdefault(same, []).append(file)
    pooled = {}
    for files in groups.values():
        seeds = {trainings[file].get("seed_everything") for file in files} if len(files) > 1 else set()
        if len(files) == len(seeds):
            pooled[", ".join(map(str, files))] = _mean([reports[file] for file in files])
        else:
            pooled |= {str(file): reports[file] for file in files}
    return pooled


def _mean(reports: Sequence[Report]) -> Report:
    """A report with the mean of each score, and its standard error over the reports."""
    scores = []
    for alike in zip(*(report.scores for report in reports), strict=True):
        values = [score.value for score in alike]
        error = statistics.stdev(values) / len(values) ** 0.5 if all(map(math.isfinite, values)) else None
        kind = "standard error over trainings"
        scores.append(replace(alike[0], value=statistics.fmean(values), error=error, error_kind=kind))
    return Report(reports[0].subject, scores)


def compare(reports: Mapping[str, Report]) -> tuple[dict[str, list[Place]], dict[str, str]]:
    """Places, best first, of each figure that all reports have with one protocol; for each other figure, the reason."""
    ranked: dict[str, list[Place]] = {}
    refused: dict[str, str] = {}
    for figure in dict.fromkeys(score.figure for report in reports.values() for score in report.scores):
        found = {name: score for name, report in reports.items() for score in report.scores if score.figure == figure}
        if reason := _missing(reports, found) or _differences(list(found.values())):
            refused[figure] = reason
        else:
            ranked[figure] = _places(found)
    return ranked, refused


def difference(a: Protocol, b: Protocol) -> dict[str, tuple[Any, Any]]:
    """The fields in which two protocols differ."""
    return {key: (a.get(key), b.get(key)) for key in {**a, **b} if a.get(key) != b.get(key)}


def _missing(reports: Mapping[str, Report], found: Mapping[str, Score]) -> str:
    missing = [name for name in reports if name not in found]
    return f"not in {', '.join(missing)}" if missing else ""


def _differences(scores: list[Score]) -> str:
    """Fields in which other protocols differ from the first; if several differ in one field, only the last of their
    values is named."""
    first, *others = scores
    apart = {key: pair for other in others for key, pair in difference(first.protocol, other.protocol).items()}
    return "; ".join(f"{key} differs ({_short(key, a)} and {_short(key, b)})" for key, (a, b) in apart.items())


def _short(key: str, value: Any) -> str:
    return str(value)[:12] if key.endswith("fingerprint") else str(value)


def _places(found: Mapping[str, Score]) -> list[Place]:
    better = next(iter(found.values())).better
    sign = -1 if better == "higher" else 1
    order = sorted(found.items(), key=lambda pair: (pair[1].value != pair[1].value, sign * pair[1].value))
    places: list[Place] = []
    for i, (name, score) in enumerate(order):
        above = places[-1] if places else None
        rank = above.rank if above and above.score.value == score.value else i + 1
        near = above is not None and _is_near(score, above.score)
        places.append(Place(name, score, rank if better else None, bool(better) and near))
    return places


def _is_near(score: Score, above: Score) -> bool:
    if not score.error or not above.error or score.error_kind != above.error_kind:
        return False
    if "standard error" not in score.error_kind:
        return False
    return abs(score.value - above.value) < 2 * (score.error**2 + above.error**2) ** 0.5
