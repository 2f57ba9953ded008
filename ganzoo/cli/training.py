"""`fit`, `validate` and `test`: LightningCLI with config names, run folders and one-line errors."""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import yaml
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, Namespace
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException

import ganzoo
from ganzoo.callbacks import loggers
from ganzoo.callbacks.base import time_left
from ganzoo.callbacks.checkpoints import Checkpoints
from ganzoo.callbacks.diagnostics import Diagnostics
from ganzoo.callbacks.monitors import Monitors
from ganzoo.callbacks.progress import GANProgress, clock
from ganzoo.callbacks.run_folder import RunFolder, RunLog
from ganzoo.callbacks.samples import Samples
from ganzoo.callbacks.scores import Scores
from ganzoo.checkpoint.pretrained import read_checkpoint
from ganzoo.checkpoint.sealed import in_order, newest
from ganzoo.cli import VERBS, preflight, resuming, trust
from ganzoo.cli import config as configs
from ganzoo.cli.cost import measure
from ganzoo.cli.errors import TRUST, UserError, at_start, causes, describe, mid_run, user_errors
from ganzoo.cli.parsing import Parser
from ganzoo.cli.paths import check_folder, find_checkpoint, own_files, run_of
from ganzoo.cli.streams import ignore_stdout_failures
from ganzoo.cli.summary import failed, summary
from ganzoo.core.arguments import DATA_SAYS
from ganzoo.core.environment import environment
from ganzoo.core.finite import NonFiniteError
from ganzoo.core.lightning_fixes import NoProfiler, quiet
from ganzoo.core.limits import ArgumentError, hints, takes_none
from ganzoo.core.module import GANModule
from ganzoo.core.player import parameters
from ganzoo.core.runs import lock, next_run, runs_of, take_next
from ganzoo.core.signals import RESUMABLE, exit_on_terminate
from ganzoo.core.strategy import GANStrategy
from ganzoo.core.text import one_line, path_of, printable, quoted

yaml.SafeDumper.add_multi_representer(Enum, lambda dumper, value: dumper.represent_data(value.value))  # `Timer` has one
DRY = "--dry-run"
CALLBACKS = {"samples": Samples, "scores": Scores, "diagnostics": Diagnostics, "checkpoint": Checkpoints}
MORE = (
    "Arguments of a class: --model.help DCGAN, --data.help ImageFolder, --model.optimizer.help SGD. "
    f"--trust PACKAGE: {TRUST}. fit --dry-run runs three batches and estimates the cost of the training."
)


class GANCLI(LightningCLI):
    """One verb of ganzoo's command line.

    Args:
        verb: fit, validate or test.
        arguments: those after the verb.
        dry: do not create a run folder, as nothing will be trained.
    """

    def __init__(self, verb: str, arguments: Sequence[str], dry: bool = False) -> None:
        self.verb, self.dry = verb, dry
        self.run: RunFolder | None = None
        self.home: Path | None = None  # the run to resume
        self.done = 0  # steps of the checkpoint
        self.notice = ""  # printed when training begins
        self.checkpoint: dict[str, Any] | None = None
        super().__init__(
            GANModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,  # RunFolder saves it
            # GANs have no validation loss to monitor; `limit_val_batches: 1.0` computes the losses on held-out images
            trainer_defaults={"max_epochs": -1, "default_root_dir": "runs", "devices": 1}
            | ({"limit_val_batches": 0} if verb == "fit" else {}),
            seed_everything_default=0,
            parser_class=Parser,
            parser_kwargs={
                "prog": f"python -m ganzoo {verb}",
                "usage": f"python -m ganzoo {verb} [--config NAME_OR_FILE] [--KEY VALUE ...]",
                "description": f"{verb}: {VERBS[verb].help}. {MORE}",
            },
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # hparams hold the variant's own plain arguments
            run=False,
            args=list(arguments),
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--ckpt_path",
            type=str | None,
            help="a checkpoint, a run (its newest checkpoint), or last (the newest run with the same config, if any); "
            "or a save_pretrained folder, whose networks a new run begins with"
            if self.verb == "fit"
            else "a checkpoint, a run (its newest checkpoint), or a save_pretrained folder",
        )
        for key in configs.LINKED:
            parser.link_arguments(
                "data",
                f"model.init_args.{key}",
                compute_fn=lambda d, key=key: self._linked(d, key),
                apply_on="instantiate",
            )
        for section, cls in CALLBACKS.items():
            parser.add_lightning_class_args(cls, section)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(args)  # LightningCLI would warn that it is given arguments
        preflight.check_config(self.config, self.verb)

    def before_instantiate_classes(self) -> None:
        if self.verb == "fit" and self.config.ckpt_path == "last":
            self._find_last()
        if self.config.ckpt_path == "":
            raise UserError("--ckpt_path is empty; name a run or a checkpoint, or leave it out")
        if self.config.ckpt_path:
            self._read_checkpoint()
        elif self.verb != "fit":
            raise UserError(f"{self.verb} needs trained weights; add --ckpt_path RUN")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self.config_init.trainer
        kwargs |= {"logger": False, "enable_model_summary": bool(config.enable_model_summary)}
        if self.verb != "fit":
            every = {key: config[key] or None for key in ("limit_val_batches", "limit_test_batches")}
            return self._trainer({**config, **kwargs, **every, "enable_checkpointing": False}, [])
        self.run = self._make_run()
        if config.limit_val_batches is None:
            kwargs["limit_val_batches"] = 0  # losses on held-out images are not worth the wait
        given, late = loggers.split(config.logger)
        if config.logger is not False:
            kwargs["logger"] = [self.run.metrics, *given]
        if config.profiler is None:
            kwargs["profiler"] = NoProfiler()
        kwargs["default_root_dir"] = str(self.run.folder)
        # Callbacks with state come before the run, whose last checkpoint contains it
        callbacks = [self.config_init.diagnostics, self.run, self.config_init.samples, self.config_init.scores]
        callbacks.append(Monitors())
        own_bar = any(isinstance(callback, ProgressBar) for callback in preflight.listed(config.callbacks))
        if config.enable_progress_bar is not False and not own_bar:
            callbacks.insert(2, GANProgress())
        callbacks.insert(2, loggers.Loggers(self.run.folder, self.run.texts["config.yaml"], late))
        if config.enable_checkpointing is not False:
            callbacks.append(self.config_init.checkpoint)
        else:
            self.config_init.scores.best = []
        return self._trainer({**config, **kwargs}, callbacks)

    def _trainer(self, config: dict[str, Any], callbacks: list[Any]) -> Trainer:
        callbacks = [*preflight.listed(config.pop("callbacks")), *callbacks]
        try:
            trainer = self.trainer_class(**config, callbacks=callbacks)
            if config["strategy"] == "auto" and trainer.num_devices * trainer.num_nodes > 1:
                trainer = self.trainer_class(**config | {"strategy": GANStrategy.strategy_name}, callbacks=callbacks)
        except Exception as error:  # Lightning and accelerators raise many kinds
            raise UserError(f"trainer: {one_line(error)}; python -m ganzoo checks lists the devices") from error
        if config["sync_batchnorm"] and trainer.strategy.root_device.type == "cpu":
            raise UserError("trainer.sync_batchnorm needs GPUs, but this training runs on CPUs; leave it out")
        return trainer

    def instantiate_classes(self) -> None:
        with self._discarding(), self._full_keys(), preflight.affordable(self.config.model):
            super().instantiate_classes()

    def after_instantiate_classes(self) -> None:
        with self._discarding():
            self._check()

    @contextmanager
    def _discarding(self) -> Iterator[None]:
        """Deletes the new run folder if an error occurs before training."""
        try:
            yield
        except BaseException:
            if self.run:
                self.run.discard()
            raise

    def _check(self) -> None:
        preflight.check_model(self.model)
        if self.checkpoint is not None:
            resuming.check_weights(self.config.ckpt_path, self.checkpoint, self.model)
            if Path(self.config.ckpt_path).is_dir():  # a new run begins with its networks
                networks = resuming.networks(self.checkpoint["state_dict"])
                self.model.load_state_dict({**self.model.state_dict(), **networks})
                self.model.origin = self.checkpoint["ganzoo"]["origin"]
                if self.verb == "fit":
                    self.notice = resuming.forgetting(self.model)
                self.config.ckpt_path = None
            self.checkpoint = None
        if self.verb == "fit" and self.trainer.is_global_zero:
            processes = self.trainer.num_devices * self.trainer.num_nodes
            with self._full_keys():
                preflight.check_data(self.datamodule, processes, self.model)

    def start(self) -> None:
        """Trains, or computes the losses."""
        method = getattr(self.trainer, self.verb)
        if self.notice:
            rank_zero_only(print)(printable(self.notice), file=sys.stderr)
        if self.verb == "fit" and (seen := getattr(self.datamodule, "seen", "")):
            rank_zero_only(print)(printable(f"pictures: {seen}"), file=sys.stderr)
        try:
            losses = method(self.model, datamodule=self.datamodule, ckpt_path=self.config.ckpt_path, weights_only=True)
        except SystemExit as error:
            if error.code == RESUMABLE:
                raise
            raise KeyboardInterrupt from error  # Lightning exits on Ctrl-C
        except Exception as error:
            if not (self.run and self.run.started) or isinstance(error, MisconfigurationException):
                raise UserError(at_start(error)) from error
            bad = isinstance(error, NonFiniteError)
            if (line := str(error) if bad else mid_run(error)) is None:
                raise
            raise UserError(line + self._how_to_resume(bad)) from error
        else:
            if losses == []:  # of `validate` and `test`
                raise UserError(f"the data has no images for {self.verb}; set data.val_fraction, or use other data")
        finally:
            if self.run:
                self.run.discard()

    def _read_checkpoint(self) -> None:
        path = self.config.ckpt_path = str(find_checkpoint(self.config.ckpt_path))
        if self.verb == "fit" and Path(path).is_file():
            self._find_home(Path(path))
        self.checkpoint = resuming.from_folder(path) if Path(path).is_dir() else read_checkpoint(Path(path))
        names = self.checkpoint["ganzoo"]["variant"], self.config.model.class_path
        saved, cls = (name.rpartition(".")[2] for name in names)
        if saved != cls:
            raise UserError(f"{path} is a checkpoint of {saved}, not {cls}; use --model {saved}, or another checkpoint")
        self.done = 0 if Path(path).is_dir() else int(self.checkpoint["global_step"])
        if self.verb == "fit":
            resuming.check_limits(path, self.checkpoint, self.config.trainer, new_run=self.home is None)

    def _find_home(self, checkpoint: Path) -> None:
        """Resumes a run in its own folder, unless the data or the model differ: then it starts a new run."""
        self.home = run_of(checkpoint)
        if self.home is None:
            return
        if other := resuming.difference(self.home / "config.yaml", self._text()):
            self.notice = f"{other} in {self.home}: continuing from {checkpoint} in a new run"
            self.home = None
            return
        try:
            lock(self.home)  # before reading: a process that trains in it may delete the checkpoint
        except OSError as error:
            cure = "to continue in a run of your own, copy the checkpoint and name the copy"
            raise UserError(f"{self.home} cannot be written ({describe(error)}); {cure}") from error
        self.notice = resuming.going_back(self.home, checkpoint)

    def _linked(self, datamodule: Any, key: str) -> Any:
        """The data's value for an argument of the model."""
        if not hasattr(datamodule, key):
            raise UserError(
                f"{type(datamodule).__name__} has no {key}; set self.image_size, self.channels and self.num_classes in "
                "its __init__, or derive it from ganzoo.data.GANDataModule"
            )
        value = getattr(datamodule, key)
        variant: Any = resolve_name(self.config.model.class_path)
        if value is None and not takes_none(hints(variant).get(key, Any)):
            raise UserError(f"{variant.__name__} {DATA_SAYS[key]}")
        return value

    @contextmanager
    def _full_keys(self) -> Iterator[None]:
        """Replaces the argument's name at the start of a constructor's message by its key, such as `model.n_critic`."""
        try:
            yield
        except ValueError as error:
            text = describe(error)
            word = re.match(r"\w*", text)[0]  # type: ignore[index]
            owner = next((cause.owner for cause in causes(error) if isinstance(cause, ArgumentError)), object)
            sections = tuple(f"{section}." for section, cls in CALLBACKS.items() if issubclass(owner, cls))
            sections = sections or (("data.",) if word in configs.LINKED else ("model.", "data."))
            options = [key.replace(".init_args.", ".") for key, _ in self.config.items() if key.startswith(sections)]
            whole = next((option for option in options if word and option.endswith(f".{word}")), word)
            text = whole + text[len(word) :]
            if any(option.startswith("data.data.") for option in options):  # pictures of an inner data module
                text = re.sub(r"(?<![\w.])data\.(corrupt|channels|range|background|cache_gb)\b", r"data.data.\1", text)
            raise UserError(text) from error

    def _find_last(self) -> None:
        """Finds the newest run with exactly this config, and its last intact checkpoint."""
        self.config.ckpt_path = None
        runs = runs_of(path_of(self.config.trainer.default_root_dir), self._text())
        if not runs:
            return
        self.home = runs[-1]
        lock(self.home)
        files = in_order(self.home / "checkpoints")
        if (last := newest(self.home / "checkpoints")) is not None:
            self.config.ckpt_path = str(last)
        elif files:
            raise UserError(f"{files[-1]} is damaged, as are all earlier ones; start a new run without --ckpt_path")
        for file in files[files.index(last) + 1 :] if last else ():
            if not file.name.startswith("best-"):
                print(f"{file} is damaged; continuing from {last}", file=sys.stderr)

    def _how_to_resume(self, lower: bool) -> str:
        """How to continue after an error stopped the training."""
        assert self.run is not None
        if (last := newest(self.run.checkpoints)) is None:
            return "; there is no checkpoint yet"
        cure = " and a lower learning rate, or let the run roll back: --checkpoint.rollbacks 3" if lower else ""
        return f"; the last good state is {last}: resume with --ckpt_path {quoted(last)}{cure}"

    def _make_run(self) -> RunFolder:
        config = self.config
        folder, made = self.home, list[Path]()
        parent = config.ckpt_path if folder is None else resuming.parent_of(folder)
        facts = environment() | ({"parent": parent} if parent else {})
        texts = {"config.yaml": self._text(), "environment.json": json.dumps(facts, indent=2) + "\n"}
        root = path_of(config.trainer.default_root_dir)
        check_folder(folder or root, "trainer.default_root_dir DIR")
        if folder is None:
            name = f"{type(self.model).__name__}-{getattr(self.datamodule, 'name', type(self.datamodule).__name__)}"
            folder, made = (next_run(root, name.lower()), made) if self.dry else take_next(root, name.lower())
        return RunFolder(folder, texts, RunLog(folder), made)

    def _text(self) -> str:
        """The resolved config as YAML."""
        config = self.config.clone()
        config.ckpt_path = None  # the saved config starts a new training
        with warnings.catch_warnings(action="ignore"):
            text = self.parser.dump(config, skip_unset=False, skip_validation=True)  # it was just parsed
        if match := re.search(r"(\w+): Unable to serialize", text):
            raise UserError(
                f"{match[1]} of {config.model.class_path} has no type annotation, so a config cannot store it; write "
                f"{match[1]}: OptimizerCallable = lambda params: ..., imported from lightning.pytorch.cli"
            )
        return text.rstrip() + "\n"


def build(verb: str, arguments: Sequence[str], dry: bool = False) -> GANCLI:
    """Creates the model, data and trainer of a command; for `dry` see `GANCLI`.

    Raises:
        UserError: an option or a config is invalid.
    """
    own_files()
    for name in ganzoo.VARIANTS:
        getattr(ganzoo, name)  # so that jsonargparse finds it by its bare name
    quiet()
    with user_errors():
        arguments, trusted = trust.take(arguments)
        trust.guard(trusted)
        arguments = configs.find_all(arguments)
        configs.check(arguments)
        return GANCLI(verb, arguments, dry)


def main(verb: str, arguments: Sequence[str]) -> int:
    dry = verb == "fit" and DRY in arguments
    with exit_on_terminate():
        cli = build(verb, [argument for argument in arguments if not (dry and argument == DRY)], dry)
        if dry:
            return dry_run(cli)
        if verb == "fit":
            ignore_stdout_failures()
        cli.start()
    if cli.run is None or cli.trainer.local_rank:  # Lightning treats other codes as failures
        return 0
    if cli.trainer.is_global_zero:
        print(summary(cli.run, cli.trainer), file=sys.stderr)
    return 1 if failed(cli.run, cli.trainer) else cli.run.code


def _epoch(trainer: Namespace, data: Any) -> int:
    """Batches of an epoch."""
    batches, most = len(data.train_dataloader()), trainer.overfit_batches or trainer.limit_train_batches or 1.0
    return min(batches, most) if isinstance(most, int) else int(batches * most)


def dry_run(cli: GANCLI) -> int:
    """Trains three batches, prints the cost of the whole training, and leaves no files."""
    config, trainer = cli.config_init.trainer, cli.trainer
    try:
        cost = measure(cli.model, cli.datamodule, 1, 2, accelerator=config.accelerator, precision=config.precision)
    except Exception as error:
        raise UserError(at_start(error)) from error
    limits = [trainer.max_steps] if trainer.max_steps > 0 else []
    if (epochs := trainer.max_epochs or -1) > 0:
        limits.append(epochs * _epoch(config, cli.datamodule))
    steps = max(0, min(limits) - cli.done) if limits else None
    print(f"{type(cli.model).__name__}: {parameters(cli.model)}; batches of {cost.images} images")
    one = " on one device, with the whole batch" if trainer.num_devices * trainer.num_nodes > 1 else ""
    print(f"{cost.seconds:.3g} s per step, peak memory {cost.memory / 1e6:,.0f} MB{one}")
    if steps is None and time_left(trainer):
        print("it would run until trainer.max_time: trainer.max_steps and trainer.max_epochs are not set")
    elif steps is None:
        print("it would run until Ctrl-C: trainer.max_steps, max_epochs and max_time are not set")
    else:
        seconds = steps * cost.seconds
        end = datetime.now() + timedelta(seconds=seconds)
        limit = ", unless trainer.max_time ends it before" if time_left(trainer) else ""
        print(
            f"{steps:,} {'more ' if cli.done else ''}steps would take {clock(seconds)}, without pictures and scores: "
            f"until {end:%Y-%m-%d %H:%M}{limit}"
        )
    return 0
