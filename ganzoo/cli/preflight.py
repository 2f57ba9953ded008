"""Checks that detect errors before anything is downloaded, created or started."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pkgutil import resolve_name
from typing import Annotated, Any

import torch
from jsonargparse import Namespace
from lightning.pytorch import Callback
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.callbacks import (
    BasePredictionWriter,
    BatchSizeFinder,
    Checkpoint,
    ModelPruning,
    OnExceptionCheckpoint,
    ProgressBar,
    Timer,
)
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from ganzoo.cli.config import LINKED
from ganzoo.cli.errors import UserError, causes, describe, mid_run
from ganzoo.core.arguments import OPTIMISATION, check_schedulers
from ganzoo.core.batch import explain_batch_norm
from ganzoo.core.limits import ArgumentError, Count, CountFrom0, Limits, Rate, Share, check, machine_memory, refusal
from ganzoo.core.module import GANModule
from ganzoo.core.pixels import scaled
from ganzoo.core.player import PLAYERS
from ganzoo.core.strategy import GANStrategy, check_callback
from ganzoo.core.text import closest, one_line, path_of
from ganzoo.data import GANDataModule
from ganzoo.data.datasets import Images

PREDICT = "is for Trainer.predict, which ganzoo does not call; use python -m ganzoo sample"
TWO_OPTIMIZERS = "does not support two optimizers; set {} instead"
REFUSED = {  # option of Lightning's `Trainer` -> its default, and why other values are refused
    "accumulate_grad_batches": (1, TWO_OPTIMIZERS.format("model.microbatches")),
    "barebones": (False, "disables logs and checkpoints; to measure speed, use python -m ganzoo bench"),
    "fast_dev_run": (False, "disables logging; use fit --dry-run, or trainer.max_steps 1"),
    "gradient_clip_algorithm": (None, TWO_OPTIMIZERS.format("model.clip_norm")),
    "gradient_clip_val": (None, TWO_OPTIMIZERS.format("model.clip_norm")),
    "limit_predict_batches": (None, PREDICT),
    "model_registry": (None, "uploads checkpoints, which ganzoo does not support; leave it out"),
}
VALIDATION = {"check_val_every_n_epoch": (None, 1), "num_sanity_val_steps": (None, 0), "val_check_interval": (None,)}
UNFIT: dict[type[Callback], str] = {  # callbacks that the command line refuses, and why
    BasePredictionWriter: PREDICT,
    BatchSizeFinder: "changes data.batch_size, so the run's config would be wrong; try sizes with fit --dry-run",
    ModelPruning: "needs functions and parameters, which a config cannot store; use it from Python",
    OnExceptionCheckpoint: "may resume from another run's file; leave it out: every run saves its last state",
}
NOTHING = (Callback, Checkpoint, ProgressBar)  # bases that do nothing by themselves
Steps = Annotated[int, Limits(-1)]  # -1 is no limit
Batches = CountFrom0 | Share | None  # a number or a share


def trainer_limits(
    max_steps: Steps,
    max_epochs: Steps | None,
    min_steps: CountFrom0 | None,
    min_epochs: CountFrom0 | None,
    log_every_n_steps: Count | None,
    devices: Annotated[int, Limits(-1, 1024)] | list | str,
    num_nodes: Count,
    num_sanity_val_steps: Steps | None,
    check_val_every_n_epoch: Count | None,
    limit_train_batches: Batches,
    limit_val_batches: Batches,
    limit_test_batches: Batches,
    overfit_batches: Batches,
    reload_dataloaders_every_n_epochs: CountFrom0,
) -> None:
    """Limits of arguments that Lightning's `Trainer` would refuse late or obscurely."""


def seed_limits(seed_everything: Annotated[int, Limits(0, 2**32 - 1)] | bool) -> None:
    """Limits of Lightning's `seed_everything`."""


def check_config(config: Any, verb: str) -> None:
    """Refuses invalid settings that ganzoo's own classes do not check."""
    try:
        check(seed_limits, {"seed_everything": config.seed_everything})
        check(trainer_limits, vars(config.trainer))
    except ArgumentError as error:
        raise UserError(f"trainer.{error}" if error.owner is trainer_limits else str(error)) from error
    for key in _urls(vars(config)):
        raise UserError(f"{key} is a URL, which only loggers support; name a local folder or file")
    _check_names(config.trainer)
    _check_limits(config.trainer)
    _check_effects(config, verb)
    _check_callbacks(config.trainer.callbacks)
    for option in OPTIMISATION:
        if isinstance(given := _arguments(config.model).get(option), Namespace):
            try:
                check(resolve_name(given.class_path), vars(given.get("init_args") or Namespace()))
            except ArgumentError as error:
                raise UserError(f"model.{option}.{error}") from error
    if (weights := config.scores.weights) is not None and not path_of(weights).is_file():
        raise UserError(f"scores.weights: {weights} is not a file; give an existing one, or leave it out")


def _arguments(config: Any) -> Any:
    """The arguments of a class, which may have none."""
    return getattr(config, "init_args", None) or Namespace()


def _urls(value: Any, key: str = "") -> Iterator[str]:
    """Keys of strings that Lightning would open over a network through fsspec. Skips the arguments of users' own
    classes, the services of loggers, and `ckpt_path`, which `find_checkpoint` checks."""
    if isinstance(value, Namespace | dict):
        parts = vars(value) if isinstance(value, Namespace) else value
        if str(parts.get("class_path", "ganzoo")).partition(".")[0] in ("ganzoo", "lightning", "torch"):
            for name, part in parts.items():
                if name not in ("config", "ckpt_path"):
                    yield from _urls(part, f"{key}.{name}".removeprefix(".").replace(".init_args.", "."))
    elif isinstance(value, list):
        for part in value:
            yield from _urls(part, key)
    elif "://" in str(value) and (not key.startswith("trainer.logger.") or key.endswith("dir")):
        yield key


def _check_names(trainer: Any) -> None:
    """Refuses unknown accelerators and profilers, and strategies that cannot train two networks alternately."""
    choices = {
        "accelerator": ["auto", "gpu", *AcceleratorRegistry.available_accelerators()],
        "strategy": ["auto", GANStrategy.strategy_name],
        "profiler": ["simple", "advanced", "pytorch"],
    }
    for name, known in choices.items():
        if isinstance(value := trainer[name], str) and value not in known:
            raise UserError(f"no trainer.{name} {value!r}{closest(value, known, 'choose from ' + ', '.join(known))}")
    if isinstance(given := trainer.strategy, Namespace):
        cls: Any = resolve_name(given.class_path)
        if not issubclass(cls, SingleDeviceStrategy | GANStrategy):
            raise UserError(
                f"trainer.strategy: {cls.__name__} cannot train two networks alternately; choose auto or gan"
            )


def _check_limits(trainer: Any) -> None:
    for name, none in {"max_steps": "-1", "max_epochs": "-1", "limit_train_batches": "1.0"}.items():
        if trainer[name] == 0:
            raise UserError(
                f"trainer.{name} is 0, so there is nothing to train; set it higher, or to {none} for no limit"
            )
    for unit in ("steps", "epochs"):
        least, most = trainer[f"min_{unit}"] or 0, trainer[f"max_{unit}"] or -1
        if 0 < most < least:
            raise UserError(f"trainer.min_{unit} {least} is above trainer.max_{unit} {most}; raise the maximum")
    try:
        left = Timer(trainer.max_time).time_remaining()
    except (TypeError, MisconfigurationException) as error:
        raise UserError(f"trainer.max_time: {one_line(error)}; write it as DD:HH:MM:SS") from error
    if left is not None and left <= 0:
        raise UserError("trainer.max_time is 0, so there is nothing to train; set it higher, or to null for no limit")
    if trainer.val_check_interval == 0:
        raise UserError("trainer.val_check_interval is 0; set it to a fraction of an epoch, or a number of batches")


def _check_effects(config: Any, verb: str) -> None:
    """Refuses options that would have no effect."""
    trainer = config.trainer
    for name, (default, why) in REFUSED.items():
        if trainer[name] != default:
            raise UserError(f"trainer.{name} {why}")
    for name, idle in VALIDATION.items():
        if verb == "fit" and not (trainer.limit_val_batches or trainer.overfit_batches) and trainer[name] not in idle:
            raise UserError(f"trainer.{name} needs validation; also set trainer.limit_val_batches, for example to 1.0")
    if not trainer.use_distributed_sampler and issubclass(resolve_name(config.data.class_path), GANDataModule):
        raise UserError("trainer.use_distributed_sampler has no effect on ganzoo's data; leave it out")


def listed(given: Any) -> list[Any]:
    """`trainer.callbacks`, which may be None, one, or a list, as a list."""
    return given if isinstance(given, list) else [given] if given else []


def _check_callbacks(given: Any) -> None:
    for callback in listed(given):
        cls: Any = resolve_name(callback.class_path)
        try:
            check_callback(cls)
        except MisconfigurationException as error:
            raise UserError(f"trainer.callbacks: {error}") from error
        if cls in NOTHING:
            raise UserError(f"trainer.callbacks: {cls.__name__} does nothing by itself; name a subclass")
        for base, why in UNFIT.items():
            if issubclass(cls, base):
                raise UserError(f"trainer.callbacks: {cls.__name__} {why}")


@contextmanager
def affordable(config: Any) -> Iterator[None]:
    """Refuses networks whose weights and gradients exceed this machine's memory during construction, before that memory
    is used; or one weight an eighth of it, since layers fill a few tensors of its size.

    Args:
        config: the model's class and arguments; the message names the argument furthest above its default.
    """
    room = machine_memory() / 2
    most = room / 4

    def count(module: nn.Module, name: str, weight: nn.Parameter | None) -> None:
        nonlocal room
        size = 0 if weight is None else weight.numel() * weight.itemsize
        room -= size
        if room < 0 or size > most:
            raise MemoryError("out of memory")  # jsonargparse fails without a text

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    except Exception as error:  # jsonargparse wraps it
        found = [*causes(error)]
        large = any("overflow" in str(cause) or "out of memory" in (mid_run(cause) or "") for cause in found)
        if large and not any(isinstance(cause, OSError) for cause in found):  # a path may contain such a word
            cause = f"{_largest(config)} makes the model larger than this machine's memory"
            raise UserError(f"{cause}; lower it, or another large argument") from error
        raise
    finally:
        hook.remove()


def _largest(config: Any) -> str:
    """`model.width 1000000`: the integer argument that is the largest multiple of its default."""
    cls: Any = resolve_name(config.class_path)
    times = {}
    for name, parameter in inspect.signature(cls).parameters.items():
        value = _arguments(config).get(name)
        if name == "image_size" and isinstance(value, list):
            value = max(value)
        if type(value) is int and type(parameter.default) is int and parameter.default > 0:
            times[name] = value / parameter.default
    if not times:
        return f"{cls.__name__} with these arguments"
    name = max(times, key=lambda name: times[name])
    return f"{'data' if name in LINKED else 'model'}.{name} {config.init_args[name]}"


def check_model(model: nn.Module) -> None:
    """Checks that a variant has latents, networks with weights, and working optimizers."""
    cls = type(model)
    if getattr(cls, "latent", None) is GANModule.latent and not hasattr(model, "z_dim"):
        raise UserError(f"{cls.__name__} has no z_dim; set self.z_dim in its __init__, or define latent")
    for player in PLAYERS:
        if not isinstance(getattr(model, player, None), nn.Module):
            raise UserError(f"{cls.__name__} has no {player}; set self.{player} to a network in its __init__")
        if any(weight.numel() == 0 for weight in getattr(model, player).parameters()):
            raise UserError(f"a layer of {cls.__name__}'s {player} has no weights; set all sizes under model above 0")
    schedule = getattr(model, "lr_scheduler", None)
    for player, make in getattr(model, "make_optimizer", {}).items():
        option = "optimizer"
        try:
            _check_rates(optimizer := make([nn.Parameter(torch.zeros(1))]))
            option = "lr_scheduler"
            check_schedulers([] if schedule is None else [schedule(optimizer)])
        except Exception as error:  # from any class of torch, or the user's
            problem = describe(error).replace("learning rate", "lr")  # torch's words, the option's name
            raise UserError(f"model.{option} of the {player}: {problem}") from error


def _check_rates(optimizer: Any) -> None:
    """Refuses optimizer settings that would learn nothing, or diverge at the first step."""
    for name, value in optimizer.param_groups[0].items():
        if isinstance(value, float) and (problem := refusal(value, Rate if name == "lr" else float)) is not None:
            raise ValueError(f"{name} {problem}")


def check_data(data: Any, processes: int, model: GANModule) -> None:
    """Checks that the data exists, and that its batches divide into parts that the model can be trained on."""
    if not isinstance(data, GANDataModule):
        return
    parts = processes * model.microbatches * model.batch_parts
    if data.batch_size % parts:
        split = f" x {model.batch_parts} (parts for {type(model).__name__})" if model.batch_parts > 1 else ""
        multiple = max(data.batch_size // parts, 1) * parts
        raise UserError(
            f"data.batch_size {data.batch_size} is not divisible by {processes} (processes) x {model.microbatches} "
            f"(model.microbatches){split}; choose a multiple of {parts}, such as {multiple}"
        )
    data.prepare_data()
    loader = data.train_dataloader()
    if data.batch_size == parts:
        try:
            _check_one_picture(copy.deepcopy(model).train(), loader.data)
        except MisconfigurationException as error:
            raise UserError(f"data.batch_size {parts}: {error}; set it to {2 * parts} or more") from error


def _check_one_picture(model: Any, images: Images) -> None:
    batch = scaled(images.__getitems__([0]))
    batch |= model.draw(1, torch.Generator().manual_seed(0))
    for loss in (model.discriminator_loss, model.generator_loss):
        try:
            loss(batch)
        except Exception as error:  # others are raised again in training
            explain_batch_norm(error)
