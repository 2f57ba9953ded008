"""Loaders whose batches are a function of (seed, epoch), for any number of processes and workers; exactly resumable."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from multiprocessing import active_children
from multiprocessing.util import Finalize
from typing import Any, cast

import torch
from torch import Tensor
from torch._C import _error_if_any_worker_fails
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader

from ganzoo.core.random import mix
from ganzoo.core.signals import CODES, set_handlers, starting_processes
from ganzoo.core.types import Batch
from ganzoo.data.datasets import Images, Merged

BLOCK = 64  # batches whose tickets are computed at once


def _ignore_signals(worker: int) -> None:
    """Ignore signals that stop a training: they are often sent to all its processes, and saving needs the workers."""
    set_handlers(signal.SIG_IGN, *CODES)


def identity(batch: Any) -> Any:
    """A collate function for data sets that return whole batches."""
    return batch


class _Batches:
    """The batches of `data` in a given order, loaded in this process or by workers.

    Not a torch DataLoader, whose order Lightning would replace in distributed training.
    """

    def __init__(self, data: Images, order: Iterable[Sequence[int]], num_workers: int, pin: bool) -> None:
        self.data = data  # not `dataset`: Lightning would take this for a DataLoader under overfit_batches
        self.order, self.num_workers, self.pin = order, num_workers, pin
        self._loader: DataLoader[Batch] | None = None
        self._iterator: Iterator[Batch] | None = None  # Lightning uses this name to shut down workers

    def __iter__(self) -> Iterator[Batch]:
        if self.num_workers == 0:  # a DataLoader would take longer than loading the images
            for tickets in self.order:
                batch = self.data.__getitems__(tickets)
                yield tree_map(Tensor.pin_memory, batch) if self.pin else batch
            return
        if self._iterator is None or self._loader is None:
            self._loader = DataLoader(
                self.data,
                batch_sampler=cast(Any, self.order),
                collate_fn=identity,
                num_workers=self.num_workers,
                persistent_workers=True,
                pin_memory=self.pin,
                generator=torch.Generator(),  # otherwise its seeds come from the global generator
                worker_init_fn=_ignore_signals,
            )
        self._start(self._loader)
        while (loaded := self._next()) is not None:
            yield loaded

    def _start(self, loader: DataLoader[Batch]) -> None:
        """Start an epoch; workers started by this are killed when this process exits."""
        before = active_children()
        with starting_processes():
            self._iterator = iter(loader)
        for worker in {*active_children()} - {*before}:
            Finalize(None, worker.kill, exitpriority=0)  # multiprocessing would send SIGTERM, which workers ignore

    def _next(self) -> Batch | None:
        assert self._iterator is not None
        _error_if_any_worker_fails()  # torch would do it in a signal handler, in the middle of a step or a save
        return next(self._iterator, None)


class SequentialLoader(_Batches):
    """Every image once, in order, for validation; each process reads a contiguous part.

    Args:
        data: The images.
        batch_size: Images per batch of this process; the last batch may be smaller.
        rank: Rank of this process.
        world_size: Number of processes that share the data.
        num_workers: Worker processes that load in advance; 0 loads in this process.
        pin: Whether to return pinned memory, for a GPU.
    """

    def __init__(
        self,
        data: Images,
        batch_size: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        pin: bool = False,
    ) -> None:
        part = range(len(data) * rank // world_size, len(data) * (rank + 1) // world_size)
        self._parts = [part[start : start + batch_size] for start in range(0, len(part), batch_size)]
        super().__init__(data, self._parts, num_workers, pin)

    def __len__(self) -> int:
        return len(self._parts)


@lru_cache(maxsize=4)
def shuffled(size: int, seed: int, epoch: int) -> Tensor:
    """The order of an epoch: a permutation of 0 to size - 1. Cached, so it must not be modified."""
    return torch.randperm(size, generator=torch.Generator().manual_seed(mix(seed, epoch)))


@lru_cache(maxsize=2)
def places(size: int, seed: int, epoch: int) -> Tensor:
    """The inverse of `shuffled`: each image's position in the epoch."""
    return shuffled(size, seed, epoch).argsort()


class Repeated(Images):
    """A smaller data set repeated to the length of a larger one: several passes per epoch, each in a different order.

    Each image is a function of (seed, ticket): the ticket's position in the larger data set's epoch determines the pass
    and the position within it.

    Args:
        data: The smaller data set.
        size: Number of images of the larger data set.
        seed: Seed of the larger data set's order.
    """

    def __init__(self, data: Images, size: int, seed: int) -> None:
        self.data, self.size, self.seed = data, size, seed

    def __len__(self) -> int:
        return self.size

    def __getitems__(self, tickets: Sequence[int]) -> Batch:
        return self.data.__getitems__([self._inner(ticket) for ticket in tickets])

    def _inner(self, ticket: int) -> int:
        epoch, index = divmod(ticket, self.size)
        n = len(self.data)
        passed, place = divmod(int(places(self.size, self.seed, epoch)[index]), n)
        passed += epoch * -(-self.size // n)  # passes per epoch; the last may be incomplete
        return passed * n + int(shuffled(n, mix(self.seed, 1), passed)[place])


def unpaired(images: Images, sources: Images, flipped: Callable[[Images, int], Images], seed: int) -> Images:
    """Training images, and sources in an order of their own, repeated to as many; each flipped on its own."""
    return Merged(flipped(images, seed), Repeated(flipped(sources, mix(seed, 1)), len(images), seed))


class Shuffle:
    """The tickets of an epoch's remaining batches, a function of (seed, epoch).

    Global batch b is `perm[b * B : (b + 1) * B]`; process r takes its r-th contiguous slice, so the global batches do
    not depend on the number of processes. The last incomplete batch is dropped.

    Args:
        size: Number of images.
        batch_size: Images per global batch, over all processes.
        seed: Seed of the order.
        rank: Rank of this process.
        world_size: Number of processes that share each batch.
        same: Whether every epoch repeats the first.
    """

    def __init__(self, size: int, batch_size: int, seed: int, rank: int, world_size: int, same: bool = False) -> None:
        self.size, self.batch_size, self.seed, self.same = size, batch_size, seed, same
        self.share = batch_size // world_size
        self.offset = rank * self.share
        self.epoch = self.batch = 0  # `batch`: batches returned by the loader, without those loaded in advance

    def __len__(self) -> int:
        return self.size // self.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch; the current epoch keeps its position."""
        if epoch != self.epoch:
            self.epoch, self.batch = epoch, 0

    def __iter__(self) -> Iterator[list[int]]:
        epoch = 0 if self.same else self.epoch
        order = shuffled(self.size, self.seed, epoch)
        for first in range(self.batch, len(self), BLOCK):
            batches = order[first * self.batch_size : min(first + BLOCK, len(self)) * self.batch_size]
            mine = batches.view(-1, self.batch_size)[:, self.offset : self.offset + self.share]
            yield from (mine + epoch * self.size).tolist()


class Loader(_Batches):
    """The training loader: each pass is an epoch, shuffled as a function of (seed, epoch); see `Shuffle`.

    Lightning saves and restores its state: a resumed run continues after the last batch returned.

    Args:
        data: The images.
        batch_size: Images per global batch, over all processes.
        seed: Seed of the order.
        rank: Rank of this process.
        world_size: Number of processes that share each batch.
        num_workers: Worker processes that load in advance; 0 loads in this process.
        pin: Whether to return pinned memory, for a GPU.
        same: Whether every epoch repeats the first, for `Trainer(overfit_batches=...)`.

    Raises:
        ValueError: `batch_size` is not divisible by the number of processes, or exceeds the number of images.
    """

    def __init__(
        self,
        data: Images,
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        pin: bool = False,
        same: bool = False,
    ) -> None:
        if batch_size < 1 or batch_size % world_size:
            raise ValueError(
                f"batch_size={batch_size} cannot be divided equally among {world_size} processes: "
                f"choose a multiple of {world_size}, for example {max(1, round(batch_size / world_size)) * world_size}."
            )
        if not len(data):
            raise ValueError("there are no training images: add images, or lower val_fraction if the data has one")
        if batch_size > len(data):
            most = len(data) // world_size * world_size
            raise ValueError(
                f"batch_size={batch_size} exceeds the {len(data)} training images, so an epoch would have no batch: "
                + (f"lower batch_size to {most} or less, or add images." if most else "add images.")
            )
        self.sampler = Shuffle(len(data), batch_size, seed, rank, world_size, same)  # Lightning calls its set_epoch
        super().__init__(data, self.sampler, num_workers, pin)
        self._restored = False

    def __len__(self) -> int:
        return len(self.sampler)

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch; the current epoch keeps its position."""
        self.sampler.set_epoch(epoch)

    def state_dict(self) -> dict[str, int]:
        """The epoch, and the number of its batches returned so far."""
        return {"epoch": self.sampler.epoch, "batch": self.sampler.batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue after the last batch returned before `state` was saved."""
        self.sampler.epoch, self.sampler.batch, self._restored = state["epoch"], state["batch"], True

    def __iter__(self) -> Iterator[Batch]:
        # A generator runs from the first `next` on, after Lightning has called load_state_dict and set_epoch.
        if self.sampler.batch == len(self):
            self.set_epoch(self.sampler.epoch + 1)
        elif not self._restored:
            self.sampler.batch = 0
        self._restored = False
        for batch in super().__iter__():
            self.sampler.batch += 1
            yield batch
