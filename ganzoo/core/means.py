"""Means of what is logged."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


class Means:
    """Weighted means of named scalars, kept on their device until they are read: one wait for all of them."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.weights: dict[str, int] = {}

    def add(self, name: str, value: Tensor, weight: int = 1) -> None:
        value = value.detach().float()
        value = value if weight == 1 else value * weight
        self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.weights[name] = self.weights.get(name, 0) + weight

    def pop(self) -> dict[str, float]:
        """The means, over all processes, too; starts anew."""
        if not self.sums:
            return {}
        sums = torch.stack(list(self.sums.values()))
        table = torch.stack([sums, torch.tensor(list(self.weights.values())).to(sums)])
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(table)
        names, means = list(self.sums), (table[0] / table[1]).tolist()
        self.sums, self.weights = {}, {}
        return dict(zip(names, means, strict=True))
