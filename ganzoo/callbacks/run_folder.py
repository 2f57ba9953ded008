"""The run's folder: reserved before data is prepared, removed if training did not start; clean stops on signals."""

from __future__ import annotations

import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ganzoo.callbacks.base import time_left
from ganzoo.core.atomic import append_row, keep_until, naming, remove_partial, write_text
from ganzoo.core.lightning_fixes import BatchEndCallback, skip_sigterm_broadcast
from ganzoo.core.player import parameters
from ganzoo.core.runs import is_locked, lock, unlock
from ganzoo.core.signals import CODES, restore_handlers, set_handlers

DEBOUNCE = 1.0  # seconds in which SIGTERM and SIGHUP count once: `timeout` sends one directly and one to its group


class RunLog(Logger):
    """`metrics.jsonl`: one JSON object per log, appended.

    Lightning's CSV logger deletes the file of a resumed run.

    Attributes:
        waits: whether values are discarded, since the run has no folder yet: those logged in a sanity check, for
            example.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.waits = False
        self.path = folder / "metrics.jsonl"

    @property
    def name(self) -> str:
        return ""  # so `ModelCheckpoint`'s save_dir/name/version/checkpoints is the run's own

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if self.waits:
            return
        with naming(self.path):
            row = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
            append_row(self.path, {"step": step, **row})

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Does nothing: the run's `config.yaml` has them."""

    def truncate(self, step: int) -> None:
        """Removes what was logged after the checkpoint that a run resumes from."""
        keep_until(self.path, step)


class RunFolder(BatchEndCallback):
    """Fills the run's folder when training starts, restores it if it is deleted, and removes it if no batch was
    processed. Stops training after the current batch on a signal.

    Args:
        folder: of the run; all processes use that of the first.
        texts: names and contents of the files written when training starts.
        metrics: the run's log.
        made: folders that this process has created for the run, innermost first.
    """

    def __init__(self, folder: Path, texts: Mapping[str, str], metrics: RunLog, made: Sequence[Path] = ()) -> None:
        self.folder = folder
        self.texts = texts
        self.metrics = metrics
        metrics.waits = True
        self.made = made
        self.started = False
        self._deleted = False
        self.signal = 0  # that requested the stop; 0 without
        self.period = 1  # steps between two looks at the signal
        self._signalled_at = 0.0  # time of the signal, in seconds
        self._handlers: dict[int, Any] = {}

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def whole(self) -> bool:
        """Whether the folder has never been deleted since training began."""
        return not self._deleted and is_locked(self.folder)

    @property
    def code(self) -> int:
        """Exit code of the command."""
        return CODES.get(self.signal, 0)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        folder = Path(trainer.strategy.broadcast(str(self.folder)))
        if folder != self.folder:
            self.discard()
        self.folder = folder

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self._fill()
            self.metrics.truncate(trainer.global_step)
            self.metrics.waits = False
            what = f"{type(pl_module).__name__}, {parameters(pl_module)}"
            print(f"{self.folder}: {what}, {trainer.world_size} x {pl_module.device.type}", file=sys.stderr)
            if trainer.max_steps < 0 and (trainer.max_epochs or -1) < 0 and not time_left(trainer):
                print("no trainer.max_steps, max_epochs or max_time: training until Ctrl-C", file=sys.stderr)
        if trainer.world_size > 1:  # agreement of the processes takes time, hence only at each log
            self.period = max(1, trainer.log_every_n_steps)  # type: ignore[attr-defined]
        self._handlers = set_handlers(self._interrupt, *CODES)
        if self._handlers and trainer.world_size > 1:
            skip_sigterm_broadcast(trainer)

    def on_train_batch_start(self, *_: Any) -> None:  # type: ignore[override]
        self.started = True
        self.on_train_batch_start = None  # type: ignore[assignment]

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._keep(trainer)
        if self._stop(trainer):
            trainer.should_stop = True  # after this batch; `Checkpoints` saves its state
            trainer.limit_val_batches = 0  # no validation before that
            trainer.fit_loop.min_epochs, trainer.fit_loop.epoch_loop.min_steps = None, None  # they would go on

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore_handler()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.metrics.waits = False  # if there was nothing to train, scores may still be missing
        self._keep(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore_handler()

    def discard(self) -> None:
        """Removes a new folder if training has not begun in it, in this process or one that it has started."""
        if self.made and not self.started and not any(self.made[0].glob("checkpoints/*.ckpt")):
            shutil.rmtree(self.made[0], ignore_errors=True)
            unlock(self.made[0])
            for folder in self.made[1:]:
                with suppress(OSError):  # another run uses it
                    folder.rmdir()
            self.made = ()

    def _fill(self) -> None:
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        lock(self.folder)
        for folder in (self.folder, self.folder / "samples"):
            remove_partial(folder)
        for name, text in self.texts.items():
            write_text(self.folder / name, text)

    def _keep(self, trainer: Trainer) -> None:
        """Recreates a folder that was deleted, so that later files can be saved.

        Raises:
            MisconfigurationException: another training uses the name now.
        """
        if not trainer.is_global_zero or is_locked(self.folder):
            return
        unlock(self.folder)
        if (self.folder / ".lock").exists():
            raise MisconfigurationException(
                f"{self.folder} was deleted, and another training now uses it; start a new run"
            )
        if not (self.folder / "config.yaml").exists():
            self._deleted = True
            print(f"{self.folder} was deleted, and was recreated at step {trainer.global_step}", file=sys.stderr)
        with suppress(OSError):  # later writes print warnings
            self._fill()

    def _interrupt(self, signum: int, frame: Any) -> None:
        if self.signal and signum != signal.SIGINT and time.monotonic() < self._signalled_at + DEBOUNCE:
            return
        if self.signal:
            raise KeyboardInterrupt
        self.signal, self._signalled_at = signum, time.monotonic()
        what = "Ctrl-C" if signum == signal.SIGINT else signal.Signals(signum).name
        when = "after this batch" if self.period == 1 else f"at the next step divisible by {self.period}"
        with suppress(OSError):  # the terminal may be closed
            os.write(2, f"\n{what}: stopping {when}; repeat to stop immediately, without saving\n".encode())

    def _restore_handler(self) -> None:
        restore_handlers(self._handlers)
        self._handlers = {}

    def _stop(self, trainer: Trainer) -> bool:
        if trainer.world_size == 1:
            return bool(self.signal)
        if trainer.global_step % self.period:
            return False
        asked = torch.tensor(self.signal, device=trainer.strategy.root_device)
        self.signal = int(trainer.strategy.reduce(asked, reduce_op="max"))  # possibly received by one process alone
        return bool(self.signal)
