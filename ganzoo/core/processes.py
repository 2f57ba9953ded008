"""torch's distributed processes; all functions also work with one, and where torch is built without them."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch import Tensor


def rank_and_world() -> tuple[int, int]:
    """Rank of this process, from 0, and the number of processes."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def summed(value: Tensor) -> Tensor:
    """The sum over all processes, in place."""
    if rank_and_world()[1] > 1:
        dist.all_reduce(value)
    return value


def of_all(mine: Any) -> list[Any]:
    """An object of each process, in order of rank."""
    world = rank_and_world()[1]
    if world == 1:
        return [mine]
    found: list[Any] = [None] * world
    dist.all_gather_object(found, mine)
    return found
