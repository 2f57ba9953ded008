"""What a run goes on from: saved whole, so many of them kept, and gone back to when numbers go bad."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from ganzoo.callbacks.base import save
from ganzoo.core.checkpoint import newest, read
from ganzoo.core.files import PARTIAL
from ganzoo.core.finite import NonFiniteError


class Checkpoints(Checkpoint):
    """Writes `checkpoints/<step>.ckpt` into the trainer's log folder, and removes the older ones.

    A file is written under its name only when the disk has all of it, and ends with a checksum. One that cannot be
    written is warned of; the training goes on, and so does what was saved before.

    Args:
        every_n_steps: batches between two; None for none.
        every_minutes: the same by the clock; with several processes it is looked at when losses are logged.
        keep_last: how many of them are kept.
        keep_every_n_images: one more, `kept-<step>.ckpt`, whenever so many more images have been seen; never removed.
        rollbacks: how often the run may go back to the last of them when a number is not finite, rather than stop. The
            weights, optimizers and averages are then those of that checkpoint; steps and images go on being counted, so
            that what comes next is played with other images and other latents.
    """

    def __init__(
        self,
        every_n_steps: int | None = 1000,
        every_minutes: float | None = None,
        keep_last: int = 2,
        keep_every_n_images: int | None = None,
        rollbacks: int = 0,
    ) -> None:
        least = {"every_n_steps": 1, "keep_last": 1, "keep_every_n_images": 1, "rollbacks": 0}
        given = [every_n_steps, keep_last, keep_every_n_images, rollbacks]
        for (name, bound), value in zip(least.items(), given, strict=True):
            if value is not None and value < bound:
                raise ValueError(f"{name} is {value}; it takes {bound} or more")
        if every_minutes is not None and not 0 < every_minutes < float("inf"):
            raise ValueError(f"every_minutes is {every_minutes}; it takes a positive number, or None for no clock")
        self.every_n_steps, self.every_minutes, self.keep_last = every_n_steps, every_minutes, keep_last
        self.keep_every_n_images, self.rollbacks = keep_every_n_images, rollbacks
        self.rolled_back = 0

    def state_dict(self) -> dict[str, Any]:
        return {"rolled_back": self.rolled_back}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rolled_back = state_dict["rolled_back"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.folder = Path(trainer.log_dir or trainer.default_root_dir) / "checkpoints"  # to be asked on all processes
        self._left: dict[
            Path, int
        ] = {}  # what a run has left that came further than the state that this one starts from

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._saved_at = time.monotonic()
        self._kept = self._images_due(pl_module)
        later = [file for file in rolling(self.folder) if int(file.stem) > trainer.global_step]
        left = [file for file in [self.folder / "last.ckpt", *later] if file.exists()]
        self._left = {file: file.stat().st_mtime_ns for file in left}
        if trainer.is_global_zero:
            for file in self.folder.glob(f"*{PARTIAL}"):
                file.unlink(missing_ok=True)
        if self.rollbacks:
            pl_module.rescue = lambda error: self._go_back(trainer, pl_module, error)

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        pl_module.rescue = None  # which knows the trainer, and so would stand in a copy's way

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        keeps = self._images_due(pl_module) > self._kept
        if not (keeps or self._due(trainer)):
            return
        self._kept, self._saved_at = self._images_due(pl_module), time.monotonic()
        path = self.folder / f"{'kept-' if keeps else ''}{trainer.global_step:08d}.ckpt"
        try:
            saved = save(trainer, path)
        except NonFiniteError as error:
            pl_module.go_back(error)
            return
        if saved and trainer.is_global_zero:
            for old, time_ns in self._left.items():
                if old.exists() and old.stat().st_mtime_ns == time_ns:  # not written anew
                    old.unlink()
            for old in rolling(self.folder)[: -self.keep_last]:
                old.unlink(missing_ok=True)
            self._left = {}

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
        return model.images_played // self.keep_every_n_images if self.keep_every_n_images else 0

    def _go_back(self, trainer: Trainer, model: Any, error: NonFiniteError) -> None:
        path = trainer.strategy.broadcast(newest(self.folder) if trainer.is_global_zero else None)
        if path is None or self.rolled_back >= self.rollbacks:
            raise error
        self.rolled_back += 1
        checkpoint = read(path)
        model.on_load_checkpoint(checkpoint)
        model.load_state_dict(checkpoint["state_dict"])
        trainer.strategy.load_optimizer_state_dict(checkpoint)
        if trainer.is_global_zero:
            times = f"time {self.rolled_back} of {self.rollbacks}"
            print(f"{error}; went back to {path} ({times}), and on with other images", file=sys.stderr)
        model.publish({"rolled back to": checkpoint["global_step"]})


def rolling(folder: Path) -> list[Path]:
    """The checkpoints that are removed some day, by their steps."""
    return sorted(path for path in folder.glob("*.ckpt") if path.stem.isdigit())
