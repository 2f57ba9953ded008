"""Accumulated statistics of an extractor's outputs: moments, all rows, some of them, or entropies of splits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ganzoo.functional.entropy import SplitEntropy
from ganzoo.functional.frechet import Gaussian


class Moments:
    """Mean and covariance in float64; constant memory in the number of rows.

    Rows are collected until they outnumber the columns and 512, then merged (Chan et al. 1979): a few rows stay rows,
    which give a more exact distance, and many need only occasional products of large matrices.
    """

    def __init__(self, n: int) -> None:
        self.n = 0  # rows merged
        self.mean = self.scatter = torch.zeros(())
        self.rows: list[Tensor] = []
        self.waiting = 0

    def update(self, rows: Tensor) -> None:
        self.rows.append(rows.detach().flatten(1).cpu().double())
        self.waiting += len(rows)
        if self.waiting > max(512, self.rows[0].shape[1]):
            self._merge()

    def _merge(self) -> None:
        rows = torch.cat(self.rows)
        mean = rows.mean(0)
        centred = rows - mean
        n, delta = self.n + len(rows), mean - self.mean
        self.scatter = self.scatter + centred.T @ centred + torch.outer(delta, delta) * (self.n * len(rows) / n)
        self.mean = self.mean + delta * (len(rows) / n)
        self.n, self.rows, self.waiting = n, [], 0

    def value(self) -> Gaussian:
        if not self.n:
            return Gaussian.of(torch.cat(self.rows))
        if self.rows:
            self._merge()
        return Gaussian(self.n, self.mean, self.scatter / (self.n - 1))


class Rows:
    """All rows, in order."""

    def __init__(self, n: int) -> None:
        self.parts: list[Tensor] = []

    def update(self, rows: Tensor) -> None:
        self.parts.append(rows.detach().cpu())

    def value(self) -> Tensor:
        return torch.cat(self.parts)


class Sample(Rows):
    """The first 5,000 rows; constant memory."""

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.room = 5000

    def update(self, rows: Tensor) -> None:
        if self.room > 0:
            super().update(rows[: self.room])
            self.room -= len(rows)


class Spread(Rows):
    """At most 5,000 rows at equal distances, since files may be sorted; constant memory."""

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.step, self.seen = -(-n // 5000), 0

    def update(self, rows: Tensor) -> None:
        super().update(rows[-self.seen % self.step :: self.step])
        self.seen += len(rows)


class Splits:
    """Inception score of 10 random splits; keeps a number for each row."""

    def __init__(self, n: int) -> None:
        self.entropy = SplitEntropy(n, splits=10)

    def update(self, rows: Tensor) -> None:
        self.entropy.update(rows.detach().cpu())

    def value(self) -> tuple[float, float]:
        return self.entropy.compute()


STATES: dict[str, type[Any]] = {
    "moments": Moments,
    "rows": Rows,
    "sample": Sample,
    "spread": Spread,
    "splits": Splits,
}


def new_state(name: str, n: int) -> Any:
    """An empty state for n rows; `features.moments` accumulates the output "features". See `Metric`."""
    return STATES[name.partition(".")[2]](n)
