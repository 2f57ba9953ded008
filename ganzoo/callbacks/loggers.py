"""wandb and TensorBoard inside a run's folder: `--config logging/wandb`, `--config logging/tensorboard`."""

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
from ganzoo.core.player import PLAYERS


class RunWandb(WandbLogger):
    """Weights & Biases, in `RUN/wandb`, under the run's name; for all that wandb can do, take Lightning's WandbLogger.

    A run that goes on continues the same wandb run, whose id is kept in `RUN/wandb/id`. wandb forgets nothing: what was
    logged between the checkpoint and the end of a killed run arrives twice, at the same `trainer/global_step` and with
    the same values, as a run goes on bit for bit; what it logged in the last seconds before SIGKILL may be missing.
    Offline, each start writes a folder of its own, which `wandb sync` sends to the same run.

    Args:
        project: of wandb.
        offline: keep everything here, as does WANDB_MODE=offline.
        entity: user or team; None for your own.
        group: of runs that belong together.
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
        """Begin, or go on, in a run's folder."""
        # Seconds between wandb's writes; with its own 15 a kill would lose more than is logged again
        os.environ.setdefault("WANDB_X_TRANSACTION_LOG_FLUSH_INTERVAL", "1")
        kept = folder / "wandb" / "id"
        text = ""
        if kept.exists():
            with open_file(kept, "r", encoding="utf-8", errors="replace") as file:
                text = file.read(100).strip()
        name = text if re.fullmatch(r"[\w-]{1,64}", text) else None  # it becomes a part of paths
        super().__init__(name=folder.name, save_dir=folder.absolute(), id=name, **self.options)
        name = self.experiment.id
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(f"{name}\n", encoding="utf-8")

    @rank_zero_only
    def finalize(self, status: str) -> None:
        super().finalize(status)
        self.experiment.finish(exit_code=0 if status == "success" else 1)


class RunTensorBoard(TensorBoardLogger):
    """TensorBoard, in `RUN/tensorboard`; what a run logged after the checkpoint that it goes on from is hidden."""

    package, install = "tensorboard", "pip install 'ganzoo[tensorboard]'"
    cure = "or train without it"

    def __init__(self) -> None:
        """Nothing, until it is opened."""

    def open(self, folder: Path, step: int) -> None:
        """Begin, or go on, in a run's folder."""
        super().__init__(folder, name="", version="tensorboard", purge_step=step + 1)

    @rank_zero_only
    def log_hyperparams(self, params: Any, metrics: Any = None, step: int | None = None) -> None:
        """The HPARAMS tab, beside both losses; Lightning's own would log a score of -1."""
        from torch.utils.tensorboard.summary import hparams

        self.hparams = params
        for summary in hparams(dict(_flat(params)), {f"{player[0].upper()}/loss": None for player in PLAYERS}):
            self.experiment.file_writer.add_summary(summary, step)


class Loggers(BatchEndCallback):
    """Opens loggers as soon as a run has its folder, so that one that is refused before leaves no trace.

    Args:
        folder: of the run, after whose own callback this one comes.
        config: YAML text of the resolved config.
        loggers: the trainer's, from the start of training on.
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
                rank_zero_warn(f"{what}. The training goes on without it")  # nobody may be there to mend it
            else:
                trainer.loggers = [*trainer.loggers, logger]


def split(given: Any) -> tuple[list[Logger], list[RunWandb | RunTensorBoard]]:
    """`trainer.logger` as Lightning's own loggers and those that wait for the run's folder.

    Raises:
        MisconfigurationException: a package is missing; jsonargparse would swallow what a constructor says of it.
    """
    loggers = [logger for logger in (given if isinstance(given, list) else [given]) if isinstance(logger, Logger)]
    mine = [logger for logger in loggers if isinstance(logger, RunWandb | RunTensorBoard)]
    for logger in mine:
        if find_spec(logger.package) is None:
            raise MisconfigurationException(f"logging/{logger.package} needs {logger.package}: {logger.install}")
    return [logger for logger in loggers if logger not in mine], mine


def _flat(config: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """`model.init_args.width` and so on, in the types that TensorBoard takes."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", str(value) if isinstance(value, list) else value
