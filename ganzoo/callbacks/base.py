"""What callbacks share: what a model reads beside latents, and saving without losing the run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from ganzoo.core.finite import NonFiniteError
from ganzoo.core.module import GANModule
from ganzoo.core.pixels import scaled
from ganzoo.core.text import Escaped
from ganzoo.core.training_state import recover
from ganzoo.core.types import Batch


class Bar(Progress):
    """A progress bar on standard error, if that is a terminal. What is printed meanwhile goes above it, `Escaped`."""

    def __init__(self, *columns: Any, show: bool = True, **options: Any) -> None:
        console = terminal()
        super().__init__(*columns, console=console, disable=not (show and console.is_terminal), **options)

    def start(self) -> None:
        super().start()
        if not self.disable:  # rich has put its own streams there, until it stops
            sys.stdout, sys.stderr = cast(Any, Escaped(sys.stdout)), cast(Any, Escaped(sys.stderr))


def terminal() -> Console:
    """Standard error, for what draws there."""
    return Console(file=getattr(sys.stderr, "terminal", sys.stderr))


@contextmanager
def warn_on_oserror(what: Path | str) -> Iterator[None]:
    """Warn, instead of raising, when a write fails; the training goes on."""
    try:
        yield
    except OSError as error:
        print(f"{what} was not written: {error.strerror or error}; what was there before stays", file=sys.stderr)


def save(trainer: Trainer, path: Path) -> bool:
    """Write a checkpoint, if the disk takes it, and if all in it is finite; whether it is there."""
    try:
        with warn_on_oserror(path):
            trainer.save_checkpoint(path)
            return True
    except NonFiniteError as error:
        recover(cast(GANModule, trainer.lightning_module), error)
        return False
    trainer.strategy.barrier("Trainer.save_checkpoint")  # where the other processes wait
    return False


def time_left(trainer: Trainer) -> list[float]:
    """Seconds that are left of a training by each limit of time that it has."""
    timers = [c for c in trainer.callbacks if isinstance(c, Timer)]  # type: ignore[attr-defined]
    return [left for timer in timers if (left := timer.time_remaining()) is not None]


def condition(model: GANModule, batch: Batch) -> Tensor | None:
    """What a generator and a discriminator read beside z and x: labels, sources, or nothing."""
    key = "label" if model.num_classes is not None else "source" if model.source_channels is not None else None
    return None if key is None else batch.get(key)  # type: ignore[return-value]


def held_out(trainer: Any, n: int) -> Batch | None:
    """n fixed images as `some` gives them: of the validation split, or of the training images where it has none."""
    return some(trainer, n, "val") or some(trainer, n, "train")


def some(trainer: Any, n: int, split: str) -> Batch | None:
    """n fixed images of a split with all that comes with them, floats; repeated where there are fewer. None where there
    are none, or the data module is not ganzoo's."""
    dataset = getattr(getattr(trainer, "datamodule", None), "dataset", None)
    if not callable(dataset) or not len(data := dataset(split)):
        return None
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    return scaled(data.__getitems__([int(order[i % len(data)]) for i in range(n)]))
