"""The folder of a run: made just before training, locked, removed if nothing began; and Ctrl-C that loses nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any, BinaryIO

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ganzoo.core.atomic import keep_until, write_atomically
from ganzoo.core.lightning_fixes import BatchEndCallback, skip_sigterm_broadcast
from ganzoo.core.player import parameters

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

AGAIN = 75  # sysexits' EX_TEMPFAIL: run me again
CODES: dict[int, int] = {signal.SIGINT: 130, signal.SIGTERM: AGAIN}
_locks: dict[Path, IO[str]] = {}  # of this process


class RunLog(Logger):
    """`metrics.jsonl`: one JSON object for each log, always appended.

    Lightning's CSV logger deletes the file of the run that is resumed.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "metrics.jsonl"

    @property
    def name(self) -> str:
        return self.path.parent.name

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run's `config.yaml` holds them."""

    def truncate(self, step: int) -> None:
        """Forget what was logged after the checkpoint that a run goes on from."""
        keep_until(self.path, step)


class RunFolder(BatchEndCallback):
    """Makes the folder just before training, keeps the last state in it, and takes it away if no batch was played.

    Args:
        folder: of the run.
        texts: name -> content, of files that are written into it when it is made.
        metrics: the run's log.
    """

    def __init__(self, folder: Path, texts: Mapping[str, str], metrics: RunLog) -> None:
        self.folder = folder
        self.texts = texts
        self.metrics = metrics
        self.last = folder / "checkpoints" / "last.ckpt"
        self.made: list[Path] = []  # folders that this process has added to the disk, now
        self.started = False
        self.signal = 0  # that asked to stop
        self._handlers: dict[int, Any] = {}

    @property
    def code(self) -> int:
        """What the command ends with."""
        return CODES.get(self.signal, 0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self._make()
            self.metrics.truncate(trainer.global_step)
            what = f"{type(pl_module).__name__}, {parameters(pl_module)}"
            print(f"{self.folder}: {what}, {trainer.world_size} x {pl_module.device.type}", file=sys.stderr)
            if trainer.max_steps < 0 and (trainer.max_epochs or -1) < 0:
                print("no trainer.max_steps or trainer.max_epochs: training until Ctrl-C", file=sys.stderr)
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._interrupt) for number in CODES}
            if trainer.world_size > 1:
                skip_sigterm_broadcast(trainer)

    def on_train_batch_start(self, *_: Any) -> None:  # type: ignore[override]
        self.started = True
        self.on_train_batch_start = None  # type: ignore[assignment]

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if self._stop(trainer):
            trainer.should_stop = True  # after this batch, whose state `Checkpoints` then keeps

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore_handler()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore_handler()

    def discard(self) -> None:
        """Take away a new folder in which nothing has begun."""
        if self.made and not self.started:
            shutil.rmtree(self.made[0], ignore_errors=True)
            for folder in self.made[1:]:
                with suppress(OSError):  # another run has begun in it
                    folder.rmdir()

    def _make(self) -> None:
        made = [path for path in (self.folder, self.folder.parent) if not path.exists()]
        (self.folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        lock(self.folder)
        self.made = made
        for name, text in self.texts.items():
            write_atomically(self.folder / name, partial(_text, text))

    def _interrupt(self, signum: int, frame: Any) -> None:
        if self.signal:
            raise KeyboardInterrupt
        self.signal = signum
        what = "Ctrl-C" if signum == signal.SIGINT else "SIGTERM"
        os.write(2, f"\n{what}: stopping after this batch; once more to stop at once\n".encode())

    def _restore_handler(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _stop(self, trainer: Trainer) -> bool:
        if trainer.world_size == 1:
            return bool(self.signal)
        # The processes agree, but not at the price of every step.
        if trainer.global_step % max(1, trainer.log_every_n_steps):  # type: ignore[attr-defined]
            return False
        asked = torch.tensor(self.signal, device=trainer.strategy.root_device)
        self.signal = int(trainer.strategy.reduce(asked, reduce_op="max"))  # one of them may have been told alone
        return bool(self.signal)


def next_run(root: Path, name: str) -> Path:
    """`root/NNN-name` with the first number that is larger than those in use."""
    numbers = [int(match[1]) for path in root.glob("*") if (match := re.match(r"(\d+)-", path.name))]
    return root / f"{max(numbers, default=0) + 1:03d}-{name}"


def runs_of(root: Path, config: str) -> list[Path]:
    """The runs of a resolved config, in the order of their numbers."""
    files = [file for file in root.glob("*-*/config.yaml") if file.read_text("utf-8", "replace") == config]
    return sorted((file.parent for file in files), key=lambda run: (len(run.name.partition("-")[0]), run.name))


@contextmanager
def told_to_end() -> Iterator[None]:
    """SIGTERM before the first batch, or while the end is scored, when there is nothing to save: run me again."""

    def again(signum: int, frame: Any) -> None:
        raise SystemExit(AGAIN)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, again)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _text(text: str, file: BinaryIO) -> None:
    file.write(text.encode())


def lock(folder: Path) -> None:
    """Keep a run for this process, until that ends; where there are several processes, for the first of them.

    Raises:
        MisconfigurationException: another one has it, or a file in it is a link that leads elsewhere.
    """
    _check_links(folder)
    file = (folder / ".lock").absolute()
    first = not getattr(rank_zero_only, "rank", 0) and not int(os.environ.get("NODE_RANK") or 0)  # without a Trainer
    if fcntl is None or file in _locks or not first:
        return
    _locks[file] = opened = file.open("w", encoding="utf-8")  # closing it would end the lock
    try:
        fcntl.lockf(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock, which workers would inherit and keep
    except BlockingIOError as error:
        del _locks[file]
        raise MisconfigurationException(
            f"another process trains in {folder}; wait until it has ended, or start anew without --ckpt_path"
        ) from error
    except OSError:  # a file system without locks
        pass


def _check_links(folder: Path) -> None:
    """What a training writes in its run stays there, though the run may have been a stranger's.

    Raises:
        MisconfigurationException: a file of the run is a link that leads elsewhere.
    """
    for path in folder.rglob("*"):
        if path.match("wandb/*/logs/*"):  # wandb links its own log there, and begins another folder at each start
            continue
        if path.is_symlink() and not path.is_dir() and not path.resolve().is_relative_to(folder.resolve()):
            raise MisconfigurationException(
                f"{path} is a link to {path.resolve()}, which would be written to; delete the link"
            )
