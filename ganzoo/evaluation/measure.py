"""One pass over the fakes, one over what is not yet known of the reals, and every metric that was asked for."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ganzoo.evaluation import cache
from ganzoo.evaluation.choice import Reference, choose
from ganzoo.evaluation.extractors import make
from ganzoo.evaluation.interfaces import BLOCK, EXTRACTED, Extractor, Figures, Given, Metric, Outputs, new_state
from ganzoo.evaluation.record import Report, Score, made, protocol, score_name
from ganzoo.evaluation.sources import Fakes, Reals, Source
from ganzoo.functional.frechet import Gaussian

Progress = Callable[[str, int, int], None]  # what, images done, images in all; called by the first process
KEPT = {"model", "images.rows"}  # where they are
T = TypeVar("T")


class Statistics:
    """The states of real images, each computed once: kept here, and on disk for other runs.

    Args:
        sets: "real" and, where the data has them, "val" and "test": data sets of `ganzoo.data`.
        extractor: None for metrics that need none.
        device: where the extractor is.
    """

    def __init__(self, sets: Mapping[str, Any], extractor: Extractor | None, device: torch.device | str) -> None:
        self.sets, self.extractor, self.device = sets, extractor, device
        self._states: dict[tuple[str, str], Any] = {}

    def get(self, which: str, names: Sequence[str], progress: Progress | None = None) -> dict[str, Any]:
        """The named states of one set; all processes must ask, the first gets them."""
        with _shared():
            missing = [name for name in names if not self._find(which, name)] if _first() else []
        if missing := _broadcast(missing):
            found = sweep(Reals(self.sets[which], self.device), self.extractor, missing, f"{which} images", progress)
            with _shared():
                self._keep(which, found)
        return {name: self._states[which, name] for name in names} if _first() else {}

    def _find(self, which: str, name: str) -> bool:
        data = self.sets[which]
        if (which, name) not in self._states:
            value = cache.load(self._path(which, name), len(data)) if _is_extracted(name) else None
            value = data.labels() if name == "labels.rows" else value
            if value is None:
                return False
            self._states[which, name] = value
        return True

    def _keep(self, which: str, found: Mapping[str, Any]) -> None:
        for name, value in found.items():
            self._states[which, name] = value.with_root() if isinstance(value, Gaussian) else value
        try:
            for name in filter(_is_extracted, found):
                cache.save(self._path(which, name), self._states[which, name])
        except OSError as error:
            warnings.warn(
                f"what was computed of the {which} images is not kept for other runs ({error}); "
                "name a folder that can be written to with GANZOO_CACHE",
                stacklevel=2,
            )

    def _path(self, which: str, name: str) -> Any:
        assert self.extractor is not None
        return cache.path(images=self.sets[which].fingerprint(), extractor=self.extractor.fingerprint, state=name)


class Evaluation:
    """Fakes, the reals that they are held against, metrics, and the eyes that they look through; checked, ready to run.

    Args:
        fakes: of a generator, or of a folder.
        reference: the reals; None for metrics of the fakes alone.
        metrics: their names; None for all usual ones that can be computed.
        extractor: its name or itself; None for the reference's own.
        weights: a file with the extractor's weights, for those that would be downloaded.
        device: where the extractor and the images go.

    Raises:
        ValueError: an unknown name, an extractor that does not fit the images, too few images for a metric, ...
        OSError: the extractor's weights are neither here nor to be had.
    """

    def __init__(
        self,
        fakes: Source,
        reference: Reference | None,
        metrics: Sequence[str] | None = None,
        *,
        extractor: str | Extractor | nn.Module | None = None,
        weights: str | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.fakes = fakes
        with _shared():
            first = fakes.block(0)["images"]  # which also shows that there are any
        channels, height, width = first.shape[1:]
        asked = choose(metrics, reference)
        with _shared():
            if reference is not None:
                for which in {which for metric in asked for which in metric.needs} - {"fake"}:
                    reference.open(which)
                self._compare(first, reference.sets["real"][0]["image"])
        if extractor is None:
            grey = "inception-grey" if channels == 1 else "inception"
            extractor = grey if reference is None else reference.extractor
        self.extractor: Extractor | None = None
        if extractor is not None and any(metric.outputs & EXTRACTED for metric in asked):
            eyes = extractor
            self.extractor = _in_turn(lambda: make(eyes, channels, (height, width), weights).to(device))
        sets = {} if reference is None else reference.sets
        self.statistics = Statistics(sets, self.extractor, device)
        sizes = {"fake": len(fakes), **{which: len(data) for which, data in sets.items()}}
        made_here = isinstance(fakes, Fakes)
        classes = fakes.num_classes if isinstance(fakes, Fakes) else None
        split = "" if reference is None else reference.split
        given = Given(sizes, channels, (height, width), self.extractor, classes, made_here, split)
        self.metrics = _in_turn(lambda: [metric for metric in asked if self._can(metric, given, metrics is not None)])
        if not self.metrics:
            raise ValueError("nothing to measure: none of the usual metrics can be computed from these images alone")
        kind = "coordinate" if first.is_floating_point() else "channel"
        shape = f"{height}x{width}, {channels} {kind}{'s' if channels > 1 else ''}"
        with _shared():
            about = reference.about() if reference is not None and _first() else None
        about = _broadcast(about)
        self.protocols = [protocol(metric, self.extractor, shape, len(fakes), about) for metric in self.metrics]

    @property
    def names(self) -> dict[str, str]:
        """What its figures are called in full: {"fid": "fid_digits@1a2b_1k"}."""
        each = zip(self.metrics, self.protocols, strict=True)
        return {figure: score_name(figure, how) for metric, how in each for figure in metric.figures}

    def run(self, subject: dict[str, Any], progress: Progress | None = None) -> Report:
        """The scores of the fakes, on all processes.

        Args:
            subject: what was measured, for the record.
            progress: told what is done.

        Raises:
            ValueError: the generator's images are not finite, or a metric cannot be computed.
        """
        states = self._states(progress)
        if torch.device(self.statistics.device).type == "cuda":  # neighbours among 50,000 images take a CPU minutes
            states = {
                which: {
                    name: value if name in KEPT else _move(value, self.statistics.device) for name, value in of.items()
                }
                for which, of in states.items()
            }
        with _shared():
            outcome = [metric.compute(states) for metric in self.metrics] if _first() else []
        return self.report(subject, _broadcast(outcome))

    def report(self, subject: dict[str, Any], outcome: Sequence[Figures]) -> Report:
        """The figures with their names and protocols."""
        if isinstance(self.fakes, Fakes) and self.fakes.uniform:
            subject = {**subject, "classes": "uniform"}
        found = [
            Score(score_name(figure, how), value, error, metric.error if error is not None else "", better, figure, how)
            for metric, how, figures in zip(self.metrics, self.protocols, outcome, strict=True)
            for figure, better in metric.figures.items()
            for value, error in [figures[figure]]
        ]
        return Report(subject, found, made(self.statistics.device))

    def failed(self, subject: dict[str, Any]) -> Report:
        """The record of an evaluation that could not be made: every figure is NaN."""
        return self.report(subject, [dict.fromkeys(metric.figures, (math.nan, None)) for metric in self.metrics])

    @staticmethod
    def _compare(fakes: Tensor, real: Tensor) -> None:
        if fakes.shape[1:] != real.shape:
            one, other = (f"{c} x {h} x {w}" for c, h, w in (fakes.shape[1:], real.shape))
            raise ValueError(
                f"the fakes are {one} (channels, height, width), the reals {other}: take the reals that the model was "
                "trained on, or bring pictures to one size (--resize)"
            )

    def _can(self, metric: Metric, given: Given, insist: bool) -> bool:
        try:
            if given.extractor is None and metric.outputs & EXTRACTED:
                raise ValueError(f"{metric.name} looks through an extractor, and these are points; ask for modes")
            metric.check(given)
        except ValueError:
            if insist:
                raise
            return False
        return True

    def _states(self, progress: Progress | None) -> dict[str, dict[str, Any]]:
        needs: dict[str, dict[str, None]] = {"fake": {}}
        for metric in self.metrics:
            for which, wanted in metric.needs.items():
                needs.setdefault(which, {}).update(dict.fromkeys(wanted))
        states = {which: self.statistics.get(which, list(needs[which]), progress) for which in needs if which != "fake"}
        names = [name for name in needs["fake"] if name != "model"]
        states["fake"] = sweep(self.fakes, self.extractor, names, "fakes", progress) if names else {}
        if isinstance(self.fakes, Fakes):
            states["fake"]["model"] = self.fakes.model
        return states


def sweep(
    source: Source, extractor: Extractor | None, names: Sequence[str], what: str, progress: Progress | None = None
) -> dict[str, Any]:
    """Read every image once, on all processes in turns of a block each, and add up the named states in order.

    Returns the states' values on the first process, nothing on the others.
    """
    rank, world = (dist.get_rank(), dist.get_world_size()) if _distributed() else (0, 1)
    outputs = {name.partition(".")[0] for name in names}
    states = [(name.partition(".")[0], name, new_state(name, len(source))) for name in names]
    rounds = range(0, -(-len(source) // BLOCK), world)

    def look(block: Outputs) -> Outputs:
        if extractor is not None and outputs & EXTRACTED:
            block = {**block, **extractor(block["images"])}
        return {key: value for key, value in block.items() if key in outputs | {"finite"}}

    def add(first: int, gathered: list[Outputs]) -> None:
        for i, out in enumerate(gathered):
            rows = min(BLOCK, len(source) - (first + i) * BLOCK)
            if rows > 0 and "finite" in out and not out["finite"][:rows].all():
                raise ValueError("the generator's images are not finite: its weights or its inputs have diverged")
            for output, _, state in states if rows > 0 and rank == 0 else ():
                state.update(out[output][:rows])
        if progress is not None and rank == 0:
            progress(what, min(len(source), (first + world) * BLOCK), len(source))

    with ThreadPoolExecutor(1) as pool:
        # Files are read a block ahead; a generator would only compete with the extractor.
        ahead = None if isinstance(source, Fakes) else pool.submit(source.block, rank)
        for first in rounds:
            with _shared():
                block = source.block(first + rank) if ahead is None else ahead.result()
                if ahead is not None and first + world in rounds:
                    ahead = pool.submit(source.block, first + world + rank)
                mine = look(block)
            gathered = _gather(mine)
            with _shared():
                add(first, gathered)
    with _shared():
        return {name: state.value() for _, name, state in states} if rank == 0 else {}


def _move(value: Any, device: torch.device | str) -> Any:
    return tree_map(lambda x: x.to(device) if isinstance(x, Tensor) else x, value)


def _is_extracted(name: str) -> bool:
    return name.partition(".")[0] in EXTRACTED


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def _first() -> bool:
    return not _distributed() or dist.get_rank() == 0


def _broadcast(value: Any) -> Any:
    """The first process's value, on all."""
    if not _distributed():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


@contextmanager
def _shared() -> Iterator[None]:
    """What fails in one process fails in all: none waits for ever for one that has given up."""
    failed: Exception | None = None
    try:
        yield
    except Exception as error:
        failed = error
    everyone: list[Any] = [None]
    if _distributed():
        kind = next((kind for kind in (ValueError, OSError) if isinstance(failed, kind)), RuntimeError)
        everyone = everyone * dist.get_world_size()
        dist.all_gather_object(everyone, failed and (kind, str(failed)))
    if failed is not None:
        raise failed
    for kind, words in filter(None, everyone):
        raise kind(words)


def _in_turn(do: Callable[[], T]) -> T:
    """The first process before the others: what it downloads, they find."""
    with _shared():
        result = do() if _first() else None
    with _shared():
        return do() if result is None else result


def _gather(outputs: Outputs) -> list[Outputs]:
    """Every process's block, in the order of the processes; all blocks have one size."""
    if not _distributed():
        return [outputs]
    whole = {key: value.contiguous() for key, value in outputs.items()}
    parts = {key: [torch.empty_like(value) for _ in range(dist.get_world_size())] for key, value in whole.items()}
    for key, value in whole.items():
        dist.all_gather(parts[key], value)
    return [dict(zip(parts, block, strict=True)) for block in zip(*parts.values(), strict=True)]
