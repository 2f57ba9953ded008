"""Means of what is logged."""

from __future__ import annotations

from typing import Any

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

    def shares(self) -> list[dict[str, Any]]:
        """What each process holds, on the CPU: for a checkpoint, which one process writes for all."""
        mine = {"sums": {name: value.cpu() for name, value in self.sums.items()}, "weights": dict(self.weights)}
        if not dist.is_initialized():
            return [mine]
        gathered = [mine] * dist.get_world_size()
        dist.all_gather_object(gathered, mine)
        return gathered

    def take(self, shares: list[dict[str, Any]]) -> None:
        """Go on from what the processes held; the first takes all where there are more or fewer of them now."""
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        if len(shares) != world:
            whole = Means()
            for share in shares:
                for name, value in share["sums"].items():
                    whole.sums[name] = whole.sums.get(name, torch.zeros(())) + (value if rank == 0 else 0)
                    whole.weights[name] = whole.weights.get(name, 0) + (share["weights"][name] if rank == 0 else 0)
            shares, rank = [{"sums": whole.sums, "weights": whole.weights}], 0
        self.sums, self.weights = dict(shares[rank]["sums"]), dict(shares[rank]["weights"])

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
