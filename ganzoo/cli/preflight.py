"""What is known to fail is refused before anything is downloaded, made or started."""

from __future__ import annotations

import inspect
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from pkgutil import resolve_name
from typing import Annotated, Any

import torch
from jsonargparse import Namespace
from lightning.pytorch.accelerators import AcceleratorRegistry
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from ganzoo.cli import config as configs
from ganzoo.cli.config import LINKED
from ganzoo.cli.errors import UserError, causes, closest, describe, mid_run, one_line
from ganzoo.core.arguments import OPTIMISATION, check_schedulers
from ganzoo.core.limits import ArgumentError, Count, CountFrom0, Limits, Rate, Share, check, machine_memory, refusal
from ganzoo.core.module import GANModule
from ganzoo.core.player import PLAYERS
from ganzoo.core.strategy import GANStrategy
from ganzoo.data import GANDataModule

REPLACED = {"gradient_clip_val": (None, "model.clip_norm"), "accumulate_grad_batches": (1, "model.microbatches")}
Steps = Annotated[int, Limits(-1)]  # -1 is no limit
Batches = CountFrom0 | Share | None  # so many, or a share of them


def trainer(
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
) -> None:
    """Limits of Lightning's `Trainer`, which would refuse these late or obscurely."""


def seed(seed_everything: Annotated[int, Limits(0, 2**32 - 1)] | bool) -> None:
    """Limits of what Lightning seeds."""


def check_config(config: Any) -> None:
    """Refuse settings that belong to no class of ours."""
    try:
        check(seed, {"seed_everything": config.seed_everything})
        check(trainer, vars(config.trainer))
    except ArgumentError as error:
        raise UserError(f"trainer.{error}" if error.owner is trainer else str(error)) from error
    _check_trainer(config.trainer)
    for option in OPTIMISATION:
        if isinstance(given := config.model.init_args.get(option), Namespace):
            try:
                check(resolve_name(given.class_path), vars(given.get("init_args") or Namespace()))
            except ArgumentError as error:
                raise UserError(f"model.{option}.{error}") from error
    if (weights := config.scores.weights) is not None and not Path(weights).is_file():
        raise UserError(f"scores.weights: there is no file {weights}; name one, or leave it out")


def _check_trainer(trainer: Any) -> None:
    choices = {
        "accelerator": ["auto", "gpu", *AcceleratorRegistry.available_accelerators()],
        "strategy": ["auto", GANStrategy.strategy_name],
    }
    for name, known in choices.items():
        if isinstance(value := trainer[name], str) and value not in known:
            raise UserError(f"no trainer.{name} {value!r}{closest(value, known, 'there are ' + ', '.join(known))}")
    for name, (default, instead) in REPLACED.items():
        if trainer[name] != default:
            raise UserError(f"trainer.{name} cannot serve two optimizers; set {instead} instead")
    for name, none in {"max_steps": "-1", "max_epochs": "-1", "limit_train_batches": "1.0"}.items():
        if trainer[name] == 0:
            raise UserError(
                f"trainer.{name} is 0, so there is nothing to train; set it higher, or to {none} for no limit"
            )
    if isinstance(trainer.max_time, dict):
        try:
            timedelta(**trainer.max_time)
        except TypeError as error:
            raise UserError(f"trainer.max_time: {one_line(error)}; write it as DD:HH:MM:SS") from error
    if trainer.val_check_interval == 0:
        raise UserError("trainer.val_check_interval is 0; it takes a share of an epoch, or a number of batches")


def difference(file: Path, config: str) -> str | None:
    """What makes a training another one than a run: other data, or another model. How it is trained, which is what
    every variant and every data module takes, may change on the way.

    Args:
        file: the run's config.
        config: YAML of the training's.

    Returns:
        `data.path is 'dogs' here, and 'cats'`, or None.
    """
    before, now = configs.read(file), configs.load(config)
    sections = {"model": GANModule, "data": GANDataModule}
    found = (_difference(before.get(name, {}), now[name], name, _arguments(base)) for name, base in sections.items())
    return next((text for text in found if text is not None), None)


def _difference(before: Any, now: Any, key: str, but: set[str]) -> str | None:
    """The first one; what one of the two does not have is of another version of ganzoo."""
    if isinstance(before, dict) and isinstance(now, dict):
        names = sorted(name for name in now if name in before and name not in but)
        found = (_difference(before[name], now[name], f"{key}.{name}", but) for name in names)
        return next((text for text in found if text is not None), None)
    normal = _last_part if key.endswith(".class_path") else _absolute
    if normal(before) == normal(now):
        return None
    here, there = (one_line(repr(value))[:80] for value in (now, before))
    return f"{key.replace('.init_args', '')} is {here} here, and {there}"


def _arguments(base: type) -> set[str]:
    return set(inspect.signature(base).parameters)


def _last_part(name: Any) -> Any:
    """Of a class's name: modules move."""
    return name.rpartition(".")[2] if isinstance(name, str) else name


def _absolute(value: Any) -> Any:
    """Of a text, which may be a path."""
    return os.path.abspath(os.path.expanduser(value)) if isinstance(value, str) else value


@contextmanager
def affordable(config: Any) -> Iterator[None]:
    """Networks whose weights, with their gradients, do not fit into this machine's memory are refused while they are
    made, before that memory is touched.

    Args:
        config: the model's class and arguments, of which the message names the one that is furthest from its default.
    """
    room = machine_memory() / 2

    def count(module: nn.Module, name: str, weight: nn.Parameter | None) -> None:
        nonlocal room
        room -= 0 if weight is None else weight.numel() * weight.itemsize
        if room < 0:
            raise MemoryError

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    except Exception as error:  # jsonargparse wraps it in its own
        if any("overflow" in str(cause) or "out of memory" in (mid_run(cause) or "") for cause in causes(error)):
            cause = f"{_largest(config)} makes the model larger than this machine's memory"
            raise UserError(f"{cause}; lower it, or what else is large") from error
        raise
    finally:
        hook.remove()


def _largest(config: Any) -> str:
    """`model.width 1000000`, for the whole number that is the largest multiple of its default."""
    cls: Any = resolve_name(config.class_path)
    times = {}
    for name, parameter in inspect.signature(cls).parameters.items():
        value = config.init_args.get(name)
        if type(value) is int and type(parameter.default) is int and parameter.default > 0:
            times[name] = value / parameter.default
    name = max(times, key=lambda name: times[name])
    return f"{'data' if name in LINKED else 'model'}.{name} {config.init_args[name]}"


def check_folder(folder: Path, option: str) -> None:
    """It can be made and written to."""
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror}); choose another place: --{option} DIR"
        ) from error


def check_model(model: nn.Module) -> None:
    """A variant has all its parts."""
    cls = type(model)
    for name in ("discriminator_loss", "generator_loss"):
        if getattr(getattr(cls, name), "__isabstractmethod__", False):
            raise UserError(f"{cls.__name__} has no {name}; define it, as ganzoo/variants/gan.py does")
    if getattr(cls, "latent", None) is GANModule.latent and not hasattr(model, "z_dim"):
        raise UserError(f"{cls.__name__} has no z_dim; set self.z_dim in its __init__, or define latent")
    for player in PLAYERS:
        if not isinstance(getattr(model, player, None), nn.Module):
            raise UserError(f"{cls.__name__} has no {player}; set self.{player} to a network in its __init__")
        if any(weight.numel() == 0 for weight in getattr(model, player).parameters()):
            raise UserError(f"a layer of {cls.__name__}'s {player} has no weights; no size under model can be 0")
    schedule = getattr(model, "lr_scheduler", None)
    for player, make in getattr(model, "make_optimizer", {}).items():
        option = "optimizer"
        try:
            _check_rates(optimizer := make([nn.Parameter(torch.zeros(1))]))
            option = "lr_scheduler"
            check_schedulers([] if schedule is None else [schedule(optimizer)])
        except Exception as error:  # of any of torch's classes, or the user's
            raise UserError(f"model.{option}, of the {player}: {describe(error)}") from error


def _check_rates(optimizer: Any) -> None:
    """Refuse what would learn nothing, or diverge at the first step."""
    for name, value in optimizer.param_groups[0].items():
        if isinstance(value, float) and (problem := refusal(value, Rate if name == "lr" else float)) is not None:
            raise ValueError(f"{name} {problem}")


def check_data(data: Any, processes: int, microbatches: int) -> None:
    """The data is there, and its batches divide."""
    if not isinstance(data, GANDataModule):
        return
    parts = processes * microbatches
    if data.batch_size % parts:
        raise UserError(
            f"data.batch_size {data.batch_size} does not divide by {processes} (processes) x {microbatches} "
            f"(model.microbatches); choose a multiple of {parts}, such as {max(data.batch_size // parts, 1) * parts}"
        )
    data.prepare_data()
    data.train_dataloader()


def check_weights(path: str, checkpoint: dict[str, Any], model: Any) -> None:
    """A checkpoint's weights fit the model."""
    model.configure_model()  # adds the averaged generator
    states = checkpoint["state_dict"], model.state_dict()
    # of networks: a number of the model's own may be younger than the checkpoint, and is then filled in by its hook
    saved, here = ({k: w.shape for k, w in state.items() if "." in k} for state in states)
    if saved == here:
        return
    other = [
        f"model.{key} {value}, not {model.hparams[key]}"
        for key, value in checkpoint["hyper_parameters"].items()
        if key in model.hparams and model.hparams[key] != value
    ]
    cause = f"was trained with {', '.join(other)}" if other else f"does not fit {type(model).__name__}"
    raise UserError(f"{path} {cause}; use its run's config.yaml, or leave --ckpt_path out to start anew")
