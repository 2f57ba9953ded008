"""One folder for each run: config, environment, pictures, metrics, checkpoints; and Ctrl-C that loses nothing."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any, BinaryIO

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from ganzoo.callbacks.checkpoints import Checkpoints
from ganzoo.callbacks.diagnostics import Diagnostics
from ganzoo.callbacks.scores import Scores, keep_until
from ganzoo.cli.checks import environment
from ganzoo.cli.errors import UserError
from ganzoo.cli.trust import check_links
from ganzoo.core.arguments import variant_name
from ganzoo.core.files import write_atomically
from ganzoo.core.lightning_fixes import BatchEndCallback, skip_sigterm_broadcast
from ganzoo.core.player import PLAYERS
from ganzoo.evaluation.record import Report

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

CONTENTS = {
    "samples": "grids of the same latents while training",
    "samples.mp4": "the same as a video",
    "interpolation.png": "from latent to latent",
    "reals.png": "training images",
    "metrics.jsonl": "losses and scores",
    "tensorboard": "the same and the pictures: tensorboard --logdir runs",
    "wandb": "the same and the pictures, for wandb",
    "scores.json": "the scores at the end, and how they were measured",
    "checkpoints/last.ckpt": "the last state",
    "config.yaml": "the resolved config",
    "environment.json": "versions, devices, command",
}
AGAIN = 75  # sysexits' EX_TEMPFAIL: run me again
CODES: dict[int, int] = {signal.SIGINT: 130, signal.SIGTERM: AGAIN}
_locks: dict[Path, IO[str]] = {}  # of this process
SHOWN = 6  # figures in the summary; scores.json has all


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
        with self.path.open("a") as file:
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
        config: YAML text of the resolved config.
        metrics: the run's log.
    """

    def __init__(self, folder: Path, config: str, metrics: RunLog) -> None:
        self.folder = folder
        self.config = config
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

    def summary(self, trainer: Trainer) -> str:
        """Where everything is, and what to type next."""
        state = "Stopped" if self.signal else "Done" if self.started else "Nothing to train, as it was already"
        full = failed(trainer)
        lost = ", but the last state was not written: make room, and go on with --ckpt_path last" if full else ""
        head = f"{state} at step {trainer.global_step:,}{lost}. In {self.folder}:"
        reports = [c.report for c in trainer.callbacks if isinstance(c, Scores) and c.report]  # type: ignore[attr-defined]
        parts = [self._contents(), _alarms(trainer), *map(_scores, reports), self._next(trainer, bool(reports))]
        return "\n".join([head, *(line for part in parts for line in part)])

    def _contents(self) -> list[str]:
        found = {name: what for name, what in CONTENTS.items() if (self.folder / name).exists()}
        for path in sorted(self.last.parent.glob("best-*.ckpt")):
            found[f"checkpoints/{path.name}"] = f"the best by {path.stem.removeprefix('best-')}"
        return [f"  {name:<30}{what}" for name, what in found.items()]

    def _next(self, trainer: Trainer, scored: bool) -> list[str]:
        """Commands that go on from here."""
        model = trainer.lightning_module
        folder, config = (shlex.quote(str(path)) for path in (self.folder, self.folder / "config.yaml"))
        name = variant_name(type(model))
        own = "" if name.startswith("ganzoo.") else f" --variant {name}"
        of = "--seeds 0-63" if model.source_channels is None else "--source FOLDER"
        commands = [
            f"sample {folder} {of}{own}",
            f"evaluate {folder}{own}{'' if scored else '   # FID and others: none was measured'}",
        ]
        if hasattr(model, "classify"):
            commands.append(f"test --config {config} --ckpt_path {folder}   # share of wrong classes")
        commands.append(f"fit --config {config} --ckpt_path {folder}{self._more(trainer)}")
        return ["Next:", *(f"  python -m ganzoo {command}" for command in commands)]

    def _more(self, trainer: Trainer) -> str:
        """What raises the limits that a training has reached."""
        if self.signal:
            return ""
        limits = {"max_steps": trainer.max_steps, "max_epochs": trainer.max_epochs}
        return "".join(f" --trainer.{name} {2 * limit}" for name, limit in limits.items() if limit and limit > 0)

    def _make(self) -> None:
        made = [path for path in (self.folder, self.folder.parent) if not path.exists()]
        (self.folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        lock(self.folder)
        self.made = made
        texts = {"config.yaml": self.config, "environment.json": json.dumps(environment(), indent=2) + "\n"}
        for name, text in texts.items():
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


def parameters(model: Any) -> str:
    """`D 2,689 + G 104,129 parameters`."""
    sizes = [f"{p[0].upper()} {sum(w.numel() for w in getattr(model, p).parameters()):,}" for p in PLAYERS]
    return f"{' + '.join(sizes)} parameters"


def _alarms(trainer: Trainer) -> list[str]:
    """What still goes wrong at the end."""
    diagnostics = [c for c in trainer.callbacks if isinstance(c, Diagnostics)]  # type: ignore[attr-defined]
    return [f"Since step {step:,}: {name}" for c in diagnostics for name, step in c.active.items()]


def _scores(report: Report) -> list[str]:
    lines = [f"Scores of {report.scores[0].protocol['fakes']:,} fakes:"]
    ranked = [score for score in report.scores if score.better]
    lines += [f"  {score.name:<28}{score.readable}" for score in ranked[:SHOWN]]
    return lines + ([f"  and {more} more in scores.json"] if (more := len(report.scores) - SHOWN) > 0 else [])


def failed(trainer: Trainer) -> bool:
    """Whether the disk did not take the last state."""
    return any(c.failed for c in trainer.callbacks if isinstance(c, Checkpoints))  # type: ignore[attr-defined]


def _text(text: str, file: BinaryIO) -> None:
    file.write(text.encode())


def lock(folder: Path) -> None:
    """Keep a run for this process, until that ends.

    Raises:
        UserError: another one has it.
    """
    check_links(folder)
    file = (folder / ".lock").absolute()
    if fcntl is None or file in _locks:
        return
    _locks[file] = opened = file.open("w")  # closing it would end the lock
    try:
        fcntl.lockf(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock, which workers would inherit and keep
    except BlockingIOError as error:
        del _locks[file]
        raise UserError(
            f"another process trains in {folder}; wait until it has ended, or start anew without --ckpt_path"
        ) from error
    except OSError:  # a file system without locks
        pass
