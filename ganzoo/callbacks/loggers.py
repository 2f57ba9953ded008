"""wandb and TensorBoard in a run's folder: `--config logging/wandb`, `--config logging/tensorboard`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ganzoo.core.files import open_file
from ganzoo.core.lightning_fixes import BatchEndCallback
from ganzoo.core.player import LOSSES


class RunWandb(WandbLogger):
    """Weights & Biases in `RUN/wandb`, with the run's name; for other options of wandb, use Lightning's WandbLogger.

    A resumed run continues the same wandb run, whose id is stored in `RUN/wandb/id`. wandb keeps all rows: those
    between the checkpoint and the end of a killed run arrive twice, at the same `trainer/global_step` with the same
    values, since resumed runs are bit-identical. Rows of the last seconds before SIGKILL may be missing. Offline, each
    start writes a folder of its own; `wandb sync` sends all of them to the same run.

    Args:
        project: of wandb.
        offline: store everything locally, like WANDB_MODE=offline.
        entity: user or team; None for your own.
        group: of related runs.
        tags: of the run.
    """

    package, install = "wandb", "pip install wandb"
    cure = "run wandb login once, or set WANDB_MODE=offline"

    def __init__(
        self,
        project: str = "ganzoo",
        offline: bool = False,
        entity: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
    ) -> None:
        mode = "offline" if offline else None
        self.options: dict[str, Any] = {
            "project": project,
            "mode": mode,
            "entity": entity,
            "group": group,
            "tags": tags,
        }

    def open(self, folder: Path, step: int) -> None:
        """Starts or resumes logging in a run's folder."""
        # Seconds between wandb's writes; its default of 15 loses more rows at a kill than are logged again
        os.environ.setdefault("WANDB_X_TRANSACTION_LOG_FLUSH_INTERVAL", "1")
        kept = folder / "wandb" / "id"
        text = ""
        if kept.exists():
            with open_file(kept, "r", encoding="utf-8", errors="replace") as file:
                text = file.read(100).strip()
        name = text if re.fullmatch(r"[\w-]{1,64}", text) else None  # it becomes part of paths
        super().__init__(name=folder.name, save_dir=folder.absolute(), id=name, **self.options)
        name = self.experiment.id
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(f"{name}\n", encoding="utf-8")

    @rank_zero_only
    def finalize(self, status: str) -> None:
        super().finalize(status)
        self.experiment.finish(exit_code=0 if status == "success" else 1)


class RunTensorBoard(TensorBoardLogger):
    """TensorBoard in `RUN/tensorboard`; hides values after the checkpoint that a run resumes from."""

    package, install = "tensorboard", 'pip install "ganzoo[tensorboard]"'
    cure = "fix this, or train without it"

    def __init__(self) -> None:
        """Initialised by `open`."""

    def open(self, folder: Path, step: int) -> None:
        """Starts or resumes logging in a run's folder."""
        super().__init__(folder, name="", version="tensorboard", purge_step=step + 1)

    @rank_zero_only
    def log_hyperparams(self, params: Any, metrics: Any = None, step: int | None = None) -> None:
        """Writes the HPARAMS tab with both losses; Lightning's version would log a score of -1."""
        from torch.utils.tensorboard.summary import hparams

        self.hparams = params
        for summary in hparams(dict(_flat(params)), dict.fromkeys(LOSSES)):
            self.experiment.file_writer.add_summary(summary, step)


class Loggers(BatchEndCallback):
    """Opens loggers when training starts, so that a run rejected before leaves no files.

    Args:
        folder: of the run; this callback comes after `RunFolder`.
        config: the resolved config as YAML.
        loggers: added to the trainer's when training starts.
    """

    def __init__(self, folder: Path, config: str, loggers: Sequence[RunWandb | RunTensorBoard]) -> None:
        self.folder = folder
        self.config = config
        self.loggers = loggers

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for logger in self.loggers:
            try:
                logger.open(self.folder, trainer.global_step)
                if trainer.enable_autolog_hparams:
                    logger.log_hyperparams(yaml.safe_load(self.config))
            except Exception as error:
                what = f"{logger.package} cannot start: {' '.join(str(error).split()).rstrip('.')}; {logger.cure}"
                if trainer.global_step == 0:
                    raise MisconfigurationException(what) from error
                rank_zero_warn(f"{what}. Training continues without it")  # a resumed run may be unattended
            else:
                trainer.loggers = [*trainer.loggers, logger]


def split(given: Any) -> tuple[list[Logger], list[RunWandb | RunTensorBoard]]:
    """Splits `trainer.logger` into Lightning's own loggers and those to be opened in the run's folder.

    Raises:
        MisconfigurationException: a package is missing; jsonargparse would hide such an error of a constructor.
    """
    loggers = [logger for logger in (given if isinstance(given, list) else [given]) if isinstance(logger, Logger)]
    mine = [logger for logger in loggers if isinstance(logger, RunWandb | RunTensorBoard)]
    for logger in mine:
        if find_spec(logger.package) is None:
            raise MisconfigurationException(f"logging/{logger.package} needs {logger.package}: {logger.install}")
    return [logger for logger in loggers if logger not in mine], mine


def _flat(config: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Flattened keys, such as `model.init_args.width`, with values of types that TensorBoard accepts."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", str(value) if isinstance(value, list) else value
