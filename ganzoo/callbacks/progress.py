"""A progress bar for the whole training."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from ganzoo.callbacks.base import Bar, terminal
from ganzoo.core.lightning_fixes import BatchEndCallback
from ganzoo.core.player import LOSSES


class GANProgress(BatchEndCallback, ProgressBar):
    """Images seen, images per second, time left and both losses: a bar on terminals, otherwise a line at intervals.

    Args:
        refresh: seconds between updates on a terminal.
        every: seconds between lines elsewhere.
    """

    def __init__(self, refresh: float = 0.2, every: float = 15.0) -> None:
        super().__init__()
        self.refresh = refresh
        self.every = every
        self.console = terminal()
        self.bar: Progress | None = None
        self.task = TaskID(0)
        self.enabled = True

    def disable(self) -> None:
        self.enabled = False

    def enable(self) -> None:
        self.enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.first_step, self.start, self.shown = trainer.global_step, time.perf_counter(), time.perf_counter()
        self.first_images = pl_module.images_seen
        if self.enabled and self.console.is_terminal:
            wide = [BarColumn(40)] if self.console.width >= 120 else []
            text = TextColumn("{task.description}", table_column=Column(no_wrap=True))
            self.bar = Bar(*wide, text, auto_refresh=False)
            self.bar.start()
            self.task = self.bar.add_task("starting", total=_total(trainer), completed=self.first_step)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        now = time.perf_counter()
        if not self.enabled or now - self.shown < (self.refresh if self.bar else self.every):
            return
        self.shown = now
        self._show(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.enabled:
            self._show(trainer, pl_module)
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def _show(self, trainer: Trainer, pl_module: Any) -> None:
        text = status(
            step=trainer.global_step,
            steps=_total(trainer),
            images=pl_module.images_seen,
            seconds=time.perf_counter() - self.start,
            steps_done=trainer.global_step - self.first_step,
            images_done=pl_module.images_seen - self.first_images,
            losses={k: float(v) for k, v in trainer.callback_metrics.items() if k in LOSSES},
        )
        if self.console.options.ascii_only:
            text = text.replace("·", "|")
        if self.bar is not None:
            self.bar.update(self.task, completed=trainer.global_step, description=text, refresh=True)
        else:
            self.console.print(text, highlight=False, soft_wrap=True)

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def _total(trainer: Trainer) -> int | None:
    total = trainer.estimated_stepping_batches
    return int(total) if total != float("inf") else None


def status(
    *,
    step: int,
    steps: int | None,
    images: int,
    seconds: float,
    steps_done: int,
    images_done: int,
    losses: dict[str, float],
) -> str:
    """One line: step, time left, losses, images, and images per second."""
    parts = [f"step {step:,}" + (f"/{steps:,}" if steps else "")]
    if steps and steps_done:
        left = (steps - step) * seconds / steps_done
        parts.append(f"{clock(left)} left" if step < steps else f"took {clock(seconds)}")
    parts += [f"{name[0]} {value:.2f}" for name, value in losses.items()]
    parts.append(f"{short(images)} images")
    if steps_done and seconds > 0:
        parts.append(f"{short(images_done / seconds)}/s")
    return " · ".join(parts)


def short(count: float) -> str:
    """1234 -> 1,234; 123456 -> 123k; 12345678 -> 12.3M."""
    if count < 10_000:
        return f"{count:,.0f}"
    return f"{count / 1e3:,.0f}k" if count < 1e6 else f"{count / 1e6:,.1f}M"


def clock(seconds: float) -> str:
    """Seconds as `1:02:03` or `2:03`."""
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{s:02d}" if hours else f"{minutes}:{s:02d}"
