"""What is known to fail is refused before anything is downloaded, made or started."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.accelerators import AcceleratorRegistry
from torch import nn

from ganzoo.cli.errors import UserError, closest, one_line
from ganzoo.cli.paths import find_config
from ganzoo.core.strategy import GANStrategy
from ganzoo.core.turns import PLAYERS
from ganzoo.data import GANDataModule

LINKED = {  # named once, under `data`
    "image_size": "set data.image_size instead",
    "channels": "leave it out",
    "num_classes": "leave it out",
    "source_channels": "leave it out, or set data.source_channels",
}
REPLACED = {"gradient_clip_val": (None, "model.clip_norm"), "accumulate_grad_batches": (1, "model.microbatches")}
EXAMPLE = "python -m ganzoo info dcgan/digits shows how one looks"
LEAST = {
    "trainer.log_every_n_steps": 1,
    "samples.every_n_steps": 1,
    "samples.rows": 1,
    "samples.columns": 1,
    "samples.film_fps": 0,
    "diagnostics.every_n_steps": 0,
    "diagnostics.n": 11,
    "scores.n": 1,
    "scores.every_n_steps": 1,
    "scores.final_n": 0,
    "data.init_args.batch_size": 1,
    "data.init_args.image_size": 1,
    "data.init_args.num_workers": 0,
    "data.init_args.jitter": 0,
}


def find_configs(arguments: Sequence[str]) -> list[str]:
    """The configs first, so that the command line wins over them, and shipped ones by their files."""
    configs: list[str] = []
    others: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        key, equals, value = argument.partition("=")
        if key in ("--config", "-c"):
            configs += ["--config", str(find_config(value if equals else next(rest, "")))]
        else:
            others.append(argument)
    return [*configs, *others]


def check_arguments(arguments: Sequence[str]) -> None:
    """Configs are YAML that says something, and nobody sets what follows from the data.

    jsonargparse silently ignores a value that is given for the target of a link.
    """
    given = {argument.partition("=")[0].removeprefix("--").replace(".init_args.", ".") for argument in arguments}
    for flag, value in zip(arguments, arguments[1:], strict=False):
        if flag == "--config" and isinstance(model := _read(Path(value)).get("model"), dict):
            given |= {f"model.{key}" for key in {**model, **(model.get("init_args") or {})}}
    for section, cls in {"model": "DCGAN", "data": "Digits"}.items():
        below = next(
            (key for key in sorted(given) if key.startswith(f"{section}.") and not key.endswith(".help")), None
        )
        if below and not given & {section, "config"}:
            raise UserError(f"--{below} belongs to no class; name one before it, such as --{section} {cls}")
    for key, cure in LINKED.items():
        if f"model.{key}" in given:
            raise UserError(f"model.{key} follows from the data; {cure}")


def check_trainer(config: Any) -> None:
    """Settings that Lightning, or a division by zero, would refuse late or obscurely."""
    trainer = config.trainer
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
    if config.checkpoint.train_time_interval is not None:
        raise UserError(
            "checkpoint.train_time_interval writes nothing here; set checkpoint.every_n_train_steps instead"
        )
    for name in ("max_steps", "max_epochs"):
        if trainer[name] == 0:
            raise UserError(f"trainer.{name} is 0, so there is nothing to train; set it higher, or to -1 for no limit")
    for key, least in LEAST.items():
        if (value := config.get(key)) is not None and value < least:
            raise UserError(f"{key.replace('.init_args', '')} is {value}; it takes {least} or more")


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
    for name in ("discriminator_loss", "generator_loss", "latent"):
        if getattr(getattr(cls, name), "__isabstractmethod__", False):
            raise UserError(f"{cls.__name__} has no {name}; define it, as ganzoo/variants/gan.py does")
    for player in PLAYERS:
        if not isinstance(getattr(model, player, None), nn.Module):
            raise UserError(f"{cls.__name__} has no {player}; set self.{player} to a network in its __init__")
        if any(weight.numel() == 0 for weight in getattr(model, player).parameters()):
            raise UserError(f"a layer of {cls.__name__}'s {player} has no weights; no size under model can be 0")


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
    saved, here = ({k: w.shape for k, w in state.items()} for state in (checkpoint["state_dict"], model.state_dict()))
    if saved == here:
        return
    other = [
        f"model.{key} {value}, not {model.hparams[key]}"
        for key, value in checkpoint["hyper_parameters"].items()
        if key in model.hparams and model.hparams[key] != value
    ]
    cause = f"was trained with {', '.join(other)}" if other else f"does not fit {type(model).__name__}"
    raise UserError(f"{path} {cause}; use its run's config.yaml, or leave --ckpt_path out to start anew")


def _read(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or error
        raise UserError(f"{path}{line} is no YAML: {one_line(problem)}; {EXAMPLE}") from error
    if not isinstance(config, dict):
        what = "is empty" if config is None else f"holds a {type(config).__name__}, not options"
        raise UserError(f"{path} {what}; {EXAMPLE}")
    return config
