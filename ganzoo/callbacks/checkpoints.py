"""Checkpoints: atomic writes, a limited number of files, and rollback after non-finite values."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from ganzoo.callbacks.base import folder_of, save
from ganzoo.checkpoint.sealed import in_order, newest, read, step_of
from ganzoo.core.atomic import remove_partial
from ganzoo.core.finite import NonFiniteError
from ganzoo.core.lightning_fixes import BatchEndCallback, stops
from ganzoo.core.limits import Count, CountFrom0, Positive, check
from ganzoo.optim.adam import set_all, settings

LEFT = ".left"  # suffix of checkpoints beyond the step that a run resumed from


class Checkpoints(BatchEndCallback, Checkpoint):
    """Writes `checkpoints/<step>.ckpt` into the trainer's log folder, removing older ones, and `last.ckpt` at the end.

    Files are written atomically and end with a checksum. If a write fails, a warning is printed; training continues,
    and earlier checkpoints stay.

    Args:
        every_n_steps: batches between two checkpoints; None for none.
        every_minutes: minutes between two checkpoints; with several processes, checked at each log only. None for none.
        keep_last: number of these checkpoints that are kept.
        keep_every_n_images: images between two checkpoints `kept-<step>.ckpt`, which are never removed.
        rollbacks: maximum number of returns to the last checkpoint after a non-finite value, instead of stopping.
            Weights, optimizers and averages are restored; the counts of steps and images continue, so training proceeds
            with other images and latents.

    Attributes:
        failed: whether `last.ckpt` could not be written.
    """

    def __init__(
        self,
        every_n_steps: Count | None = 1000,
        every_minutes: Positive | None = None,
        keep_last: Count = 2,
        keep_every_n_images: Count | None = None,
        rollbacks: CountFrom0 = 0,
    ) -> None:
        check(Checkpoints, locals())
        self.every_n_steps, self.every_minutes, self.keep_last = every_n_steps, every_minutes, keep_last
        self.keep_every_n_images, self.rollbacks = keep_every_n_images, rollbacks
        self.rolled_back = 0
        self.failed = False

    def state_dict(self) -> dict[str, Any]:
        return {"rolled_back": self.rolled_back}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rolled_back = state_dict["rolled_back"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.folder = folder_of(trainer) / "checkpoints"

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._saved_at, self._last_step = time.monotonic(), -1
        self._resumed = trainer.global_step > 0
        self._kept = self._images_due(pl_module)
        if trainer.is_global_zero:
            remove_partial(self.folder)
            for file in in_order(self.folder):  # beyond the step that this run resumes from
                if step_of(file) > trainer.global_step and not file.name.startswith("best-"):
                    file.replace(file.with_name(file.name + LEFT))
        if self.rollbacks:
            pl_module.rollback = lambda error: self._rollback(trainer, pl_module, error)

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        pl_module.rollback = None  # it refers to the trainer, which would prevent copying the model

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        if stops(trainer) or trainer.global_step == trainer.max_steps:
            # Not in on_train_end: Lightning then counts the epoch as finished.
            self._save_last(trainer)
        keeps = self._images_due(pl_module) > self._kept
        if not (keeps or self._due(trainer)):
            return
        self._kept, self._saved_at = self._images_due(pl_module), time.monotonic()
        path = self.folder / f"{'kept-' if keeps else ''}{trainer.global_step:08d}.ckpt"
        if save(trainer, path) and trainer.is_global_zero:
            left = self.folder.glob(f"*{LEFT}") if self._resumed else ()
            old = [file for file in left if not file.name.startswith("kept-")]
            for file in [*old, *rolling(self.folder)[: -self.keep_last]]:
                file.unlink(missing_ok=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step != self._last_step:
            self._save_last(trainer)

    def _save_last(self, trainer: Trainer) -> None:
        path, before = self.folder / "last.ckpt", self.rolled_back
        saved = save(trainer, path)
        if self.rolled_back > before:  # non-finite weights instead of a full disk
            saved = save(trainer, path)
        self.failed = not saved
        self._last_step = trainer.global_step

    def _due(self, trainer: Trainer) -> bool:
        if self.every_n_steps and trainer.global_step % self.every_n_steps == 0:
            return True
        if self.every_minutes is None:
            return False
        late = time.monotonic() - self._saved_at >= 60 * self.every_minutes
        if trainer.world_size == 1:
            return late
        every = max(1, trainer.log_every_n_steps)  # type: ignore[attr-defined]
        return trainer.global_step % every == 0 and trainer.strategy.reduce_boolean_decision(late, all=False)

    def _images_due(self, model: Any) -> int:
        return model.images_seen // self.keep_every_n_images if self.keep_every_n_images else 0

    def _rollback(self, trainer: Trainer, model: Any, error: NonFiniteError) -> None:
        path = trainer.strategy.broadcast(newest(self.folder) if trainer.is_global_zero else None)
        if path is None or self.rolled_back >= self.rollbacks:
            raise error
        self.rolled_back += 1
        checkpoint = read(path)
        model.on_load_checkpoint(checkpoint)
        model.load_state_dict(checkpoint["state_dict"])
        now = settings(trainer.optimizers)  # as set by schedules
        trainer.strategy.load_optimizer_state_dict(checkpoint)
        set_all(trainer.optimizers, now)
        precision = trainer.precision_plugin
        if (scale := checkpoint.get(type(precision).__qualname__)) is not None:
            precision.load_state_dict(scale)
        if trainer.is_global_zero:
            times = f"rollback {self.rolled_back} of {self.rollbacks}"
            print(f"{error}; rolled back to {path} ({times}), continuing with other batches", file=sys.stderr)
        model.publish({"rolled back to": checkpoint["global_step"]})


def rolling(folder: Path) -> list[Path]:
    """Checkpoints named by their step alone, in order; old ones are removed."""
    return sorted(path for path in folder.glob("*.ckpt") if path.stem.isdigit())
