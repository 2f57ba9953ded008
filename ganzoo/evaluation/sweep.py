"""One pass over images, and statistics of real images, which are computed once."""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ganzoo.core.processes import rank_and_world
from ganzoo.evaluation import cache
from ganzoo.evaluation.determinism import seeded
from ganzoo.evaluation.interfaces import BLOCK, EXTRACTED, NOT_FINITE, Extractor, Outputs, probe
from ganzoo.evaluation.processes import broadcast, failing_together, gather, is_first
from ganzoo.evaluation.sources import Reals, Source
from ganzoo.evaluation.states import new_state
from ganzoo.functional.frechet import Gaussian

Progress = Callable[[str, int, int], None]  # what is read, images done, total; called by the first process


def sweep(
    source: Source, extractor: Extractor | None, names: Sequence[str], what: str, progress: Progress | None = None
) -> dict[str, Any]:
    """Reads every image once, the processes taking blocks in turn, and accumulates the named states in order.

    Returns the states' values on the first process, {} on the others.
    """
    n, (rank, world) = len(source), rank_and_world()
    outputs = {_output(name) for name in names}
    states = {name: new_state(name, n) for name in names} if rank == 0 else {}
    rounds = range(0, -(-n // BLOCK), world)
    with ThreadPoolExecutor(1) as pool:
        blocks = _blocks(source, [first + rank for first in rounds], pool)
        for first in rounds:
            with failing_together():
                mine = _extracted(next(blocks), extractor, outputs)
            gathered = gather(mine)
            with failing_together():
                for i, block in enumerate(gathered):
                    _add(block, min(BLOCK, n - (first + i) * BLOCK), states)
                if progress is not None and rank == 0:
                    progress(what, min(n, (first + world) * BLOCK), n)
    with failing_together():
        return {name: state.value() for name, state in states.items()}


def _blocks(source: Source, numbers: Sequence[int], pool: Executor) -> Iterator[Outputs]:
    """Blocks by number. Files are read one block ahead; a generator would only compete with the extractor."""
    if source.model is not None:
        yield from map(source.block, numbers)
        return
    ahead = pool.submit(source.block, numbers[0])
    for number in numbers[1:]:
        block, ahead = ahead.result(), pool.submit(source.block, number)
        yield block
    yield ahead.result()


def _extracted(block: Outputs, extractor: Extractor | None, outputs: set[str]) -> Outputs:
    """The requested outputs of a block of images."""
    if extractor is not None and outputs & EXTRACTED:
        block = {**block, **extractor(block["images"])}
    return {key: value for key, value in block.items() if key in outputs | {"finite"}}


def _add(block: Outputs, rows: int, states: Mapping[str, Any]) -> None:
    """Updates the states with the first rows of a block; the last block is padded, or beyond the end."""
    if rows <= 0:
        return
    if "finite" in block and not block["finite"][:rows].all():
        raise ValueError(NOT_FINITE)
    for name, state in states.items():
        state.update(block[_output(name)][:rows])


def _output(state: str) -> str:
    """features.moments -> features."""
    return state.partition(".")[0]


class Statistics:
    """States of real images, each computed once: kept in memory, and on disk for other runs.

    Args:
        sets: data sets of `ganzoo.data`: "real" and, if the data has them, "val" and "test".
        extractor: None for metrics that need none.
        device: of the extractor.
    """

    def __init__(self, sets: Mapping[str, Any], extractor: Extractor | None, device: torch.device | str) -> None:
        self.sets, self.extractor, self.device = sets, extractor, device
        self._states: dict[tuple[str, str], Any] = {}

    def get(self, which: str, names: Sequence[str], progress: Progress | None = None) -> dict[str, Any]:
        """The named states of one set; all processes must call it, the first gets them."""
        images = functools.cache(self.sets[which].fingerprint)  # reads all pixels of images in memory
        with failing_together():
            missing = [name for name in names if not self._find(which, name, images)] if is_first() else []
        if missing := broadcast(missing):
            found = sweep(Reals(self.sets[which], self.device), self.extractor, missing, f"{which} images", progress)
            with failing_together():
                self._keep(which, found, images)
        return {name: self._states[which, name] for name in names} if is_first() else {}

    def _find(self, which: str, name: str, images: Callable[[], str]) -> bool:
        data = self.sets[which]
        if (which, name) not in self._states:
            value = cache.load(self._path(images(), name), len(data)) if _output(name) in EXTRACTED else None
            value = data.labels() if name == "labels.rows" else value
            if value is None:
                return False
            self._states[which, name] = value
        return True

    def _keep(self, which: str, found: Mapping[str, Any], images: Callable[[], str]) -> None:
        for name, value in found.items():
            self._states[which, name] = value.with_root() if isinstance(value, Gaussian) else value
        try:
            for name in found:
                if _output(name) in EXTRACTED:
                    cache.save(self._path(images(), name), self._states[which, name])
        except OSError as error:
            warnings.warn(
                f"statistics of the {which} images could not be cached for other runs ({error}); "
                "set GANZOO_CACHE to a writable folder",
                stacklevel=2,
            )

    def _path(self, images: str, name: str) -> Path:
        assert self.extractor is not None
        return cache.path(images=images, extractor=self.extractor.fingerprint, state=name, **self._computed)

    @cached_property
    def _computed(self) -> dict[str, str]:
        """Exact hash of a custom extractor's outputs for a probe, since its code, or files that it reads, may have
        changed."""
        extractor = self.extractor
        if extractor is None or extractor.pinned:
            return {}
        _, *size = next(iter(self.sets.values()))[0]["image"].shape
        with seeded(0, torch.device(self.device)):
            outputs = extractor(probe(extractor.channels, (size[0], size[1])).to(self.device))
        digest = hashlib.sha256()
        for name, output in sorted(outputs.items()):
            digest.update(f"{name} {output.dtype} {list(output.shape)}\n".encode())
            digest.update(output.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return {"computed": digest.hexdigest()}
