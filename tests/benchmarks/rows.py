"""What the benchmarks share: their goals, two clocks, a line of a table, and silence."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

GOALS = {
    "overhead": 0.33,  # of what a naive LightningModule adds, at most
    "shared fakes": 0.95,  # of the plain loop's CPU time, at most
    "fresh fakes": 1.03,  # the same, with a forward pass of the generator more
    "frechet": 2.5,  # times faster than torchmetrics, at least, where there are more rows than features
    "frechet, few rows": 8,
    "evaluation": 1.5,  # times the images/s of torch-fidelity, at least
    "memory": 5,  # MB that ten times the fakes add, at most
    "shards": 5,  # MB that ten times the pictures add, at most
    "safety": 1,  # % of a training's time, at most
    "tracking": 3,  # % of a training's time, at most
}


class Time(NamedTuple):
    """Seconds."""

    wall: float
    cpu: float  # of all threads, and of the processes that were waited for

    @staticmethod
    def now() -> Time:
        children = os.times()
        cpu = time.process_time() + children.children_user + children.children_system
        return Time(time.perf_counter(), cpu)

    def since(self, begin: Time) -> Time:
        return Time(self.wall - begin.wall, self.cpu - begin.cpu)


def timed(call: Callable[[], Any]) -> tuple[Any, Time]:
    """What a call returns, and how long it takes."""
    begin = Time.now()
    found = call()
    return found, Time.now().since(begin)


def row(name: str, figures: Sequence[float], form: str, goal: str = "") -> None:
    """Print a median, its 10th to 90th percentile and the goal."""
    tenths = statistics.quantiles([*figures] * 2 if len(figures) == 1 else figures, n=10, method="inclusive")
    spread = f"{tenths[0]:{form}} to {tenths[-1]:{form}}"
    print(f"  {name:<50}{statistics.median(figures):>8{form}}  {spread:<18}{goal}".rstrip(), flush=True)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Nothing from Lightning, nor from what it runs."""
    loggers = [logging.getLogger(f"lightning.{name}") for name in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextlib.contextmanager
def cache_at(folder: str) -> Iterator[None]:
    """The statistics of real images are kept there, not among the user's."""
    before = os.environ.get("GANZOO_CACHE")
    os.environ["GANZOO_CACHE"] = folder
    try:
        yield
    finally:
        del os.environ["GANZOO_CACHE"]
        if before is not None:
            os.environ["GANZOO_CACHE"] = before
