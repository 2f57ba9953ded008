"""Ranks scores measured with the same protocol, figure by figure; gives the reason why others cannot be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ganzoo.evaluation.record import Protocol, Report, Score


@dataclass(frozen=True)
class Place:
    """Rank of a score among others with the same protocol.

    Attributes:
        file: its record.
        score: the score.
        rank: from 1, shared by equal scores; None for figures that cannot be ranked.
        near: whether it is within two standard errors of the score ranked above.
    """

    file: Path
    score: Score
    rank: int | None
    near: bool


def compare(reports: Mapping[Path, Report]) -> tuple[dict[str, list[Place]], dict[str, str]]:
    """Places, best first, of each figure that all reports have with one protocol; for each other figure, the reason."""
    ranked: dict[str, list[Place]] = {}
    refused: dict[str, str] = {}
    for figure in dict.fromkeys(score.figure for report in reports.values() for score in report.scores):
        found = {file: score for file, report in reports.items() for score in report.scores if score.figure == figure}
        if reason := _missing(reports, found) or _differences(list(found.values())):
            refused[figure] = reason
        else:
            ranked[figure] = _places(found)
    return ranked, refused


def difference(a: Protocol, b: Protocol) -> dict[str, tuple[Any, Any]]:
    """The fields in which two protocols differ."""
    return {key: (a.get(key), b.get(key)) for key in {**a, **b} if a.get(key) != b.get(key)}


def _missing(reports: Mapping[Path, Report], found: Mapping[Path, Score]) -> str:
    missing = [str(file) for file in reports if file not in found]
    return f"not in {', '.join(missing)}" if missing else ""


def _differences(scores: list[Score]) -> str:
    """Fields in which other protocols differ from the first; if several differ in one field, only the last of their
    values is named."""
    first, *others = scores
    apart = {key: pair for other in others for key, pair in difference(first.protocol, other.protocol).items()}
    return "; ".join(f"{key} differs ({_short(key, a)} and {_short(key, b)})" for key, (a, b) in apart.items())


def _short(key: str, value: Any) -> str:
    return str(value)[:12] if key.endswith("fingerprint") else str(value)


def _places(found: Mapping[Path, Score]) -> list[Place]:
    better = next(iter(found.values())).better
    sign = -1 if better == "higher" else 1
    order = sorted(found.items(), key=lambda pair: (pair[1].value != pair[1].value, sign * pair[1].value))
    places: list[Place] = []
    for i, (file, score) in enumerate(order):
        above = places[-1] if places else None
        rank = above.rank if above and above.score.value == score.value else i + 1
        near = above is not None and _is_near(score, above.score)
        places.append(Place(file, score, rank if better else None, bool(better) and near))
    return places


def _is_near(score: Score, above: Score) -> bool:
    if not score.error or not above.error or "standard error" not in score.error_kind:
        return False
    return abs(score.value - above.value) < 2 * (score.error**2 + above.error**2) ** 0.5
