"""Used by several callbacks: progress bars, saving that survives a full disk, conditions, and fixed images."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from ganzoo.core.finite import NonFiniteError
from ganzoo.core.limits import Size
from ganzoo.core.module import GANModule
from ganzoo.core.pixels import scaled
from ganzoo.core.text import Escaped
from ganzoo.core.training_state import recover
from ganzoo.core.types import Batch


class Bar(Progress):
    """A progress bar on standard error, if that is a terminal; other output appears above it, `Escaped`. By default,
    it counts what is done and estimates the time left."""

    def __init__(self, *columns: Any, show: bool = True, **options: Any) -> None:
        console = terminal()
        usual = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        super().__init__(*(columns or usual), console=console, disable=not (show and console.is_terminal), **options)

    def start(self) -> None:
        super().start()
        if not self.disable:  # rich replaces both streams until it stops
            sys.stdout, sys.stderr = cast(Any, Escaped(sys.stdout)), cast(Any, Escaped(sys.stderr))


@contextmanager
def progress_bar(show: bool = True) -> Iterator[Callable[[str, int, int], None]]:
    """A progress callback for evaluations: a bar on terminals, removed when done."""
    with Bar(show=show, transient=True) as bar:
        tasks: dict[str, Any] = {}

        def update(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done)

        yield update


def terminal() -> Console:
    """A console on the standard error stream itself, not `Escaped`."""
    return Console(file=getattr(sys.stderr, "terminal", sys.stderr))


@contextmanager
def warn_on_oserror(what: Path | str) -> Iterator[None]:
    """Prints a warning if a write fails, instead of raising, so that training continues."""
    try:
        yield
    except OSError as error:
        print(f"{what} was not written: {error.strerror or error}; any earlier version is kept", file=sys.stderr)


def save(trainer: Trainer, path: Path) -> bool:
    """Writes a checkpoint if the disk has room and all values are finite; returns whether it was written.

    Raises:
        NonFiniteError: a value is not finite, and there is no state to roll back to.
    """
    try:
        with warn_on_oserror(path):
            trainer.save_checkpoint(path)
            return True
    except NonFiniteError as error:
        recover(cast(GANModule, trainer.lightning_module), error)
        return False
    trainer.strategy.barrier("Trainer.save_checkpoint")  # the other processes wait there
    return False


@contextmanager
def on_training_device(trainer: Trainer, model: LightningModule) -> Iterator[None]:
    """For `on_fit_end`, before which Lightning moves the model to the CPU."""
    before = model.device
    model.to(trainer.strategy.root_device)
    try:
        yield
    finally:
        model.to(before)


def time_left(trainer: Trainer) -> list[float]:
    """Seconds left by each of the training's time limits."""
    timers = [c for c in trainer.callbacks if isinstance(c, Timer)]  # type: ignore[attr-defined]
    return [left for timer in timers if (left := timer.time_remaining()) is not None]


def folder_of(trainer: Any) -> Path:
    """Where a training writes; reading `log_dir` is a collective call, so all processes must call this."""
    return Path(trainer.log_dir or trainer.default_root_dir)


def dataset_of(trainer: Any) -> Callable[[str], Any] | None:
    """The images of a split, by its name; None if the data module is not ganzoo's."""
    dataset = getattr(getattr(trainer, "datamodule", None), "dataset", None)
    return dataset if callable(dataset) else None


def size_of(model: GANModule) -> Size:
    """Of the model's images, as far as its arguments tell."""
    return model.hparams.get("image_size", 1)


def condition(model: GANModule, batch: Batch) -> Tensor | None:
    """The condition of generator and discriminator: labels, sources, or None."""
    key = "label" if model.num_classes is not None else "source" if model.source_channels is not None else None
    return None if key is None else batch.get(key)  # type: ignore[return-value]


def held_out(trainer: Any, n: int) -> Batch | None:
    """n fixed validation images, or training images if there are none; see `some`."""
    return some(trainer, n, "val") or some(trainer, n, "train")


def some(trainer: Any, n: int, split: str) -> Batch | None:
    """n fixed images of a split, as floats, with their labels or sources; repeated if there are fewer. None if there
    are none, or the data module is not ganzoo's."""
    dataset = dataset_of(trainer)
    if dataset is None or not len(data := dataset(split)):
        return None
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    return scaled(data.__getitems__([int(order[i % len(data)]) for i in range(n)]))
