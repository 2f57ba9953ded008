"""`fit`, `validate` and `test`: LightningCLI with short names, a folder for each run, and errors of one line."""

from __future__ import annotations

import inspect
import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

import ganzoo
from ganzoo import data
from ganzoo.callbacks.progress import GANProgress
from ganzoo.callbacks.samples import Samples
from ganzoo.cli.errors import UserError, explain
from ganzoo.cli.paths import find_checkpoint, find_config, next_run, run_of
from ganzoo.cli.run import RunFolder, RunLog
from ganzoo.core.module import GANModule
from ganzoo.core.strategy import GANStrategy
from ganzoo.hub import read_checkpoint

LINKED = ("image_size", "channels", "num_classes")  # named once, under `data`
METHODS = {
    "fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule"},
    "validate": {"model", "dataloaders", "datamodule"},
    "test": {"model", "dataloaders", "datamodule"},
}
SETUP_ERRORS = (ValueError, TypeError, OSError, RuntimeError, ImportError, MisconfigurationException)


class Parser(LightningArgumentParser):
    """Raises one clear line where jsonargparse prints fifty."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)  # `--trainer.max_step` is a typo

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UserError(explain(str(ex or message), _options(self), _classes())) from ex


class GANCLI(LightningCLI):
    """One verb of ganzoo's command line.

    Args:
        verb: fit, validate or test.
        arguments: what follows it.
    """

    def __init__(self, verb: str, arguments: Sequence[str]) -> None:
        self.verb = verb
        self.run: RunFolder | None = None
        super().__init__(
            GANModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,  # RunFolder does it
            # GANs have no validation loss to watch; `limit_val_batches: 1.0` brings the losses on held-out images
            trainer_defaults={"max_epochs": -1, "default_root_dir": "runs"}
            | ({"limit_val_batches": 0} if verb == "fit" else {}),
            seed_everything_default=0,
            parser_class=Parser,
            parser_kwargs={"prog": "python -m ganzoo"},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # hparams hold the variant's own plain arguments
            args=[verb, *arguments],
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        return {self.verb: METHODS[self.verb]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for key in LINKED:
            parser.link_arguments(
                "data", f"model.init_args.{key}", compute_fn=lambda d, key=key: _linked(d, key), apply_on="instantiate"
            )
        parser.add_lightning_class_args(Samples, "samples")
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "checkpoint.filename": "{step:08d}",
                "checkpoint.auto_insert_metric_name": False,
                "checkpoint.every_n_train_steps": 1000,
            }
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Nothing: what is on the command line wins over what is in a checkpoint."""

    def before_instantiate_classes(self) -> None:
        config = self.config[self.verb]
        if config.get("ckpt_path"):
            config.ckpt_path = str(find_checkpoint(config.ckpt_path))
            checkpoint = read_checkpoint(Path(config.ckpt_path))
            cls = config.model.class_path.rsplit(".", 1)[-1]
            if (saved := checkpoint["ganzoo"]["variant"].rsplit(".", 1)[-1]) != cls:
                raise UserError(f"--ckpt_path {config.ckpt_path} is of {saved}, but --model is {cls}")

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except SETUP_ERRORS as error:
            raise UserError(explain(str(error))) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self.config_init[self.verb].trainer
        callbacks = [self._get(self.config_init, key) for key in self._parser(self.verb).callback_keys]
        kwargs["enable_model_summary"] = bool(config.enable_model_summary)
        kwargs["logger"] = False
        if config.strategy == "auto" and _world_size(config) > 1:
            kwargs["strategy"] = GANStrategy.strategy_name
        if self.verb != "fit":
            callbacks = []
        else:
            self.run = self._make_run()
            if config.limit_val_batches is None:
                kwargs["limit_val_batches"] = 0  # the losses on held-out images are nothing to wait for
            if config.logger is not False:
                given = config.logger if isinstance(config.logger, list) else [config.logger]
                kwargs["logger"] = [self.run.metrics, *[logger for logger in given if isinstance(logger, Logger)]]
            for callback in callbacks:
                if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                    callback.dirpath = str(self.run.last.parent)
            callbacks = [self.run, GANProgress(), *callbacks]
        return self._instantiate_trainer({**config, **kwargs}, callbacks)

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except SETUP_ERRORS as error:
            if self.run is None or self.run.started and not isinstance(error, MisconfigurationException):
                raise
            raise UserError(str(error)) from error
        finally:
            if self.run is not None:
                self.run.discard()

    def _make_run(self) -> RunFolder:
        config = self.config[self.verb]
        folder = run_of(Path(config.ckpt_path)) if config.ckpt_path else None
        if folder is None:
            name = f"{type(self.model).__name__}-{getattr(self.datamodule, 'name', type(self.datamodule).__name__)}"
            folder = next_run(Path(config.trainer.default_root_dir), name.lower())
        text = self._parser(self.verb).dump(config)
        return RunFolder(folder, text, RunLog(folder))


def main(verb: str, arguments: Sequence[str]) -> int:
    sys.path.insert(0, "")  # the user's own variants lie in the working folder
    for name in ganzoo.VARIANTS:
        getattr(ganzoo, name)  # so that jsonargparse finds it by its bare name
    _quiet()
    arguments = _find_configs(arguments)
    _refuse_linked(arguments)
    cli = GANCLI(verb, arguments)
    if cli.run is not None and cli.trainer.is_global_zero:
        print(cli.run.summary(cli.trainer), file=sys.stderr)
        return 130 if cli.run.interrupted else 0
    return 0


def _find_configs(arguments: Sequence[str]) -> list[str]:
    """The arguments, with the names of shipped configs replaced by their files."""
    found: list[str] = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key in ("--config", "-c") and equals:
            argument = f"{key}={find_config(value)}"
        elif found and found[-1] in ("--config", "-c"):
            argument = str(find_config(argument))
        found.append(argument)
    return found


def _refuse_linked(arguments: Sequence[str]) -> None:
    """jsonargparse silently ignores a value given for the target of a link."""
    given = set()
    for flag, value in zip(arguments, [*arguments[1:], ""], strict=True):
        key, _, inline = flag.partition("=")
        given.add(key.removeprefix("--").replace(".init_args.", "."))
        if key in ("--config", "-c"):
            config = yaml.safe_load(Path(inline or value).read_text())
            model = config.get("model") if isinstance(config, dict) else None
            if isinstance(model, dict):
                given |= {f"model.{key}" for key in {**model, **(model.get("init_args") or {})}}
    for key in LINKED:
        if f"model.{key}" in given:
            raise UserError(f"model.{key} follows from the data: set data.{key}, where the data set leaves a choice")


def _linked(datamodule: Any, key: str) -> Any:
    if not hasattr(datamodule, key):
        raise UserError(
            f"{type(datamodule).__name__} has no {key!r}; derive it from ganzoo.data.GANDataModule, which "
            "says what a data module has to name"
        )
    return getattr(datamodule, key)


def _options(parser: LightningArgumentParser) -> list[str]:
    """Names of options to choose the closest one from."""
    names = [(ganzoo, name) for name in ganzoo.VARIANTS] + [(data, name) for name in data.__all__]
    classes = [cls for module, name in names if inspect.isclass(cls := getattr(module, name))]
    parameters = {name for cls in classes for base in cls.__mro__ for name in _parameters(base)}
    return [*(action.dest for action in parser._actions), *sorted(parameters - {"self", "args", "kwargs", "game"})]


def _parameters(cls: type) -> list[str]:
    try:
        return list(inspect.signature(cls.__init__).parameters)
    except (TypeError, ValueError):
        return []


def _classes() -> list[str]:
    return [*ganzoo.VARIANTS, *data.__all__]


def _world_size(config: Any) -> int:
    probe = Trainer(
        accelerator=config.accelerator,
        devices=config.devices,
        num_nodes=config.num_nodes,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    return probe.num_devices * probe.num_nodes


def _quiet() -> None:
    """Lightning's notices that tell a user of ganzoo nothing."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for message in (
        ".*LeafSpec.*",
        ".*does not have many workers.*",
        ".*no pre-optimization state.*",
        ".*Checkpoint directory.*exists and is not empty.*",
        ".*number of training batches.*smaller than the logging interval.*",
    ):
        warnings.filterwarnings("ignore", message)
