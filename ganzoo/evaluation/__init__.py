"""Scores: feature extractors, metrics, one pass over the images, and records of scores with their protocols."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ganzoo.evaluation.assemble import evaluate as evaluate


def __getattr__(name: str) -> Any:
    """Imports `evaluate` lazily: it needs torch, while reading and comparing records does not."""
    if name == "evaluate":
        from ganzoo.evaluation.assemble import evaluate

        return evaluate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
