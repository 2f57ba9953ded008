"""Shared parts of the benchmarks: goals, timing, table rows and silencing."""

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
    "overhead": 0.33,  # of the overhead of a naive LightningModule, at most
    "shared fakes": 0.95,  # of the plain loop's CPU time, at most
    "fresh fakes": 1.03,  # the same, with one more forward pass of the generator
    "stylegan2, G": 2.4,  # times faster than the straightforward form, at least
    "stylegan2, path lengths": 4,
    "stylegan3": 2,  # times faster, and less memory, than the written-out nonlinearity, at least
    "frechet": 2.5,  # times faster than torchmetrics, at least, with more rows than features
    "frechet, few rows": 8,
    "evaluation": 1.5,  # times the throughput of torch-fidelity, at least
    "memory": 5,  # MB added by ten times the fakes, at most
    "shards": 5,  # MB added by ten times the pictures, at most
    "safety": 1,  # % of a training's time, at most
    "tracking": 3,  # % of a training's time, at most
}


class Time(NamedTuple):
    """Times in seconds."""

    wall: float
    cpu: float  # of all threads and finished child processes

    @staticmethod
    def now() -> Time:
        children = os.times()
        cpu = time.process_time() + children.children_user + children.children_system
        return Time(time.perf_counter(), cpu)

    def since(self, begin: Time) -> Time:
        return Time(self.wall - begin.wall, self.cpu - begin.cpu)


def timed(call: Callable[[], Any]) -> tuple[Any, Time]:
    """The result of a call, and its time."""
    begin = Time.now()
    found = call()
    return found, Time.now().since(begin)


def row(name: str, figures: Sequence[float], form: str, goal: str = "") -> None:
    """Prints the median, the 10th to 90th percentile and the goal."""
    tenths = statistics.quantiles([*figures] * 2 if len(figures) == 1 else figures, n=10, method="inclusive")
    spread = f"{tenths[0]:{form}} to {tenths[-1]:{form}}"
    print(f"  {name:<50}{statistics.median(figures):>8{form}}  {spread:<18}{goal}".rstrip(), flush=True)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Suppresses warnings, printed output and Lightning's log messages."""
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
    """Caches the statistics of real images in this folder, not in the user's cache."""
    before = os.environ.get("GANZOO_CACHE")
    os.environ["GANZOO_CACHE"] = folder
    try:
        yield
    finally:
        del os.environ["GANZOO_CACHE"]
        if before is not None:
            os.environ["GANZOO_CACHE"] = before
