"""One folder for each run: config, environment, pictures, metrics, checkpoints; and Ctrl-C that loses nothing."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from ganzoo.cli.checks import environment
from ganzoo.cli.errors import UserError
from ganzoo.core.turns import PLAYERS

CONTENTS = {
    "samples": "grids of the same latents while training",
    "samples.mp4": "the same as a film",
    "interpolation.png": "from latent to latent",
    "reals.png": "training images",
    "metrics.jsonl": "losses",
    "checkpoints/last.ckpt": "the last state",
    "config.yaml": "the resolved config",
    "environment.json": "versions, devices, command",
}


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
        if self.path.exists():
            lines = self.path.read_text().splitlines(keepends=True)
            self.path.write_text("".join(line for line in lines if json.loads(line)["step"] <= step))


class RunFolder(Callback):
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
        self.made = False  # by this process, now
        self.started = False
        self.interrupted = False
        self._saved_step = -1
        self._handler: Any = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if not trainer.is_global_zero:
            return
        try:
            self.made = not self.folder.exists()
            (self.folder / "checkpoints").mkdir(parents=True, exist_ok=not self.made)
            (self.folder / "config.yaml").write_text(self.config.rstrip() + "\n")
            (self.folder / "environment.json").write_text(json.dumps(environment(), indent=2) + "\n")
        except OSError as error:
            raise UserError(
                f"the run folder {self.folder} cannot be written ({error.strerror}); "
                "choose another place with --trainer.default_root_dir DIR"
            ) from error

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            sizes = [f"{name} {sum(p.numel() for p in getattr(pl_module, name).parameters()):,}" for name in PLAYERS]
            device = f"{trainer.world_size} x {pl_module.device.type}"
            print(
                f"{self.folder}: {type(pl_module).__name__}, parameters: {', '.join(sizes)}; {device}", file=sys.stderr
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self.metrics.truncate(trainer.global_step)
        if threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGINT, self._interrupt)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.started = True

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        done = trainer.global_step == trainer.max_steps
        if done or self._stop(trainer):
            # Here, not at the end of training: Lightning would by then count the epoch as finished.
            self._save(trainer)
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore_handler()
        if trainer.global_step != self._saved_step:
            self._save(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore_handler()

    def discard(self) -> None:
        """Take away a new folder in which nothing has begun."""
        if self.made and not self.started:
            shutil.rmtree(self.folder, ignore_errors=True)

    def summary(self, trainer: Trainer) -> str:
        """Where everything is, and what to type next."""
        lines = [f"{'Stopped' if self.interrupted else 'Done'} at step {trainer.global_step:,}. In {self.folder}:"]
        for name, what in CONTENTS.items():
            if (self.folder / name).exists():
                lines.append(f"  {name:<22}{what}")
        go_on = f"--config {self.folder}/config.yaml --ckpt_path {self.last}"
        more = "" if self.interrupted else f" --trainer.max_steps {2 * trainer.global_step}"
        lines += [
            "Next:",
            f"  python -m ganzoo sample {self.folder} --seeds 0-63",
            f"  python -m ganzoo fit {go_on}{more}",
        ]
        return "\n".join(lines)

    def _interrupt(self, signum: int, frame: Any) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        print("\nCtrl-C: stopping after this batch; press it again to stop at once", file=sys.stderr)

    def _restore_handler(self) -> None:
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
            self._handler = None

    def _stop(self, trainer: Trainer) -> bool:
        if trainer.world_size == 1:
            return self.interrupted
        if trainer.global_step % trainer.log_every_n_steps:  # type: ignore[attr-defined]  # the processes agree, but not at the price of every step
            return False
        return trainer.strategy.reduce_boolean_decision(self.interrupted, all=False)

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.last)
        self._saved_step = trainer.global_step
