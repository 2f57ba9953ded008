"""Running means of what is logged."""

from __future__ import annotations

import torch
from torch import Tensor


class Means:
    """Running means of named scalars, kept on their device until they are read: one wait for all of them."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, name: str, value: Tensor) -> None:
        value = value.detach().float()
        self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.counts[name] = self.counts.get(name, 0) + 1

    def pop(self) -> tuple[list[str], Tensor]:
        """Names and their means as one tensor [number of names]; starts anew."""
        names, counts = list(self.sums), list(self.counts.values())
        means = torch.stack(list(self.sums.values())) / torch.tensor(counts).to(self.sums[names[0]], non_blocking=True)
        self.sums, self.counts = {}, {}
        return names, means
