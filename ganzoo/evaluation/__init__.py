"""Scores: extractors, one pass over the images, the metrics that it feeds, and the record of how it was done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ganzoo.evaluation.assemble import evaluate as evaluate


def __getattr__(name: str) -> Any:
    """`evaluate` brings torch along, which reading and comparing records does without."""
    if name == "evaluate":
        from ganzoo.evaluation.assemble import evaluate

        return evaluate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
