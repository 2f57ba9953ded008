"""Evaluation on several processes; all functions also work on one, without torch.distributed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from ganzoo.core.processes import of_all, rank_and_world
from ganzoo.evaluation.interfaces import Outputs

T = TypeVar("T")


@contextmanager
def joined(device: str) -> Iterator[str]:
    """Joins the process group that torchrun started, if any; yields this process's device, its own GPU if `device` is
    CUDA."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield device
        return
    cuda = device.startswith("cuda")
    if cuda:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)  # for NCCL
    # the others wait while the first computes, possibly longer than NCCL's default timeout of ten minutes
    dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(days=1))
    try:
        yield device
    finally:
        dist.destroy_process_group()


def is_first() -> bool:
    return rank_and_world()[0] == 0


def broadcast(value: Any) -> Any:
    """The first process's value, on all processes."""
    if rank_and_world()[1] == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


@contextmanager
def failing_together() -> Iterator[None]:
    """Raises an exception of one process on all of them, so that no process waits for one that has failed."""
    failed: Exception | None = None
    try:
        yield
    except Exception as error:
        failed = error
    others = _failures(failed)
    if failed is not None:
        raise failed
    for kind, words in others:
        raise kind(words)


def _failures(mine: Exception | None) -> list[tuple[type[Exception], str]]:
    """Types and messages of the exceptions of all processes."""
    kind = next((kind for kind in (ValueError, OSError) if isinstance(mine, kind)), RuntimeError)
    return [failure for failure in of_all(mine and (kind, str(mine))) if failure is not None]


def first_before_others(do: Callable[[], T]) -> T:
    """Calls `do` on the first process before the others, which then find its downloads."""
    with failing_together():
        result = do() if is_first() else None
    with failing_together():
        return do() if result is None else result


def prepare(data: Any) -> None:
    """Downloads missing files of a data module: one process, before the others find them."""
    first_before_others(lambda: (data.prepare_data(),))


def gather(outputs: Outputs) -> list[Outputs]:
    """Blocks of all processes, in order of rank; all have the same size."""
    world = rank_and_world()[1]
    if world == 1:
        return [outputs]
    whole = {key: value.contiguous() for key, value in outputs.items()}
    parts = {key: [torch.empty_like(value) for _ in range(world)] for key, value in whole.items()}
    for key, value in whole.items():
        dist.all_gather(parts[key], value)
    return [dict(zip(parts, block, strict=True)) for block in zip(*parts.values(), strict=True)]
