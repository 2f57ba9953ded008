"""What is kept of an extractor's outputs: moments, all rows, the first rows, or the entropies of splits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ganzoo.functional.entropy import SplitEntropy
from ganzoo.functional.frechet import Gaussian


class Moments:
    """Mean and covariance in float64, flat in the number of rows.

    Rows are collected until they are more than the columns, and then merged (Chan et al. 1979): few rows stay rows,
    from which the distance is more exact, and many cost one product of large matrices now and then.
    """

    def __init__(self, n: int) -> None:
        self.n = 0  # merged
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
    """The first 5,000 rows: enough for a standard error, and flat in the number of rows."""

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.room = 5000

    def update(self, rows: Tensor) -> None:
        if self.room > 0:
            super().update(rows[: self.room])
            self.room -= len(rows)


class Splits:
    """Entropies of the classifier's answers in 10 splits, in order; flat in the number of rows."""

    def __init__(self, n: int) -> None:
        self.entropy = SplitEntropy(n, splits=10)

    def update(self, rows: Tensor) -> None:
        self.entropy.update(rows.detach().cpu())

    def value(self) -> tuple[float, float]:
        return self.entropy.compute()


STATES: dict[str, type[Any]] = {"moments": Moments, "rows": Rows, "sample": Sample, "splits": Splits}


def new_state(name: str, n: int) -> Any:
    """An empty state for n rows; `features.moments` is fed with the output "features". See `Metric`."""
    return STATES[name.partition(".")[2]](n)
