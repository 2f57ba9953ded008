"""What is known to fail is refused before anything is downloaded, made or started."""

from __future__ import annotations

import inspect
import json
import math
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import AcceleratorRegistry
from torch import nn

from ganzoo.callbacks.checkpoints import Checkpoints
from ganzoo.callbacks.diagnostics import Diagnostics
from ganzoo.callbacks.samples import Samples
from ganzoo.callbacks.scores import Scores
from ganzoo.cli import trust
from ganzoo.cli.errors import UserError, closest, describe, mid_run, nearest, one_line
from ganzoo.cli.paths import configs as shipped_trainings
from ganzoo.cli.paths import find_config
from ganzoo.core.module import GANModule
from ganzoo.core.player import PLAYERS
from ganzoo.core.ranges import check, machine_memory
from ganzoo.core.strategy import GANStrategy
from ganzoo.data import GANDataModule

LINKED = {  # named once, under `data`
    "image_size": "set data.image_size instead",
    "channels": "leave it out",
    "num_classes": "leave it out",
    "source_channels": "leave it out, or set data.source_channels",
}
RENAMED = {"samples.film_fps": "samples.video_fps"}
REPLACED = {"gradient_clip_val": (None, "model.clip_norm"), "accumulate_grad_batches": (1, "model.microbatches")}
EXAMPLE = "python -m ganzoo info dcgan/digits shows how one looks"
ANY = math.inf
RANGES = {  # of what belongs to no network and no data, whose own are in ganzoo.core.ranges
    "seed_everything": (0, 2**32 - 1),
    "trainer.max_steps": (-1, ANY),
    "trainer.max_epochs": (-1, ANY),
    "trainer.min_steps": (0, ANY),
    "trainer.min_epochs": (0, ANY),
    "trainer.log_every_n_steps": (1, ANY),
    "trainer.devices": (-1, 1024),
    "trainer.num_nodes": (1, ANY),
    "trainer.num_sanity_val_steps": (-1, ANY),
    "trainer.check_val_every_n_epoch": (1, ANY),
    "samples.every_n_steps": (1, ANY),
    "samples.rows": (1, 100),
    "samples.columns": (1, 100),
    "samples.video_fps": (0, 100),
    "diagnostics.every_n_steps": (0, ANY),
    "diagnostics.n": (11, 10_000),
    "scores.n": (1, 1_000_000),
    "scores.every_n_steps": (1, ANY),
    "scores.final_n": (0, 1_000_000),
    "checkpoint.every_n_steps": (1, ANY),
    "checkpoint.keep_last": (1, ANY),
    "checkpoint.keep_every_n_images": (1, ANY),
    "checkpoint.rollbacks": (0, ANY),
}
GROUPS = {
    "trainer": Trainer,
    "samples": Samples,
    "scores": Scores,
    "diagnostics": Diagnostics,
    "checkpoint": Checkpoints,
}


def find_configs(arguments: Sequence[str]) -> list[str]:
    """The configs first, so that the command line wins over them, and shipped ones by their files.

    Shipped trainings come first of all, since what is added to them wins if it is later.
    """
    configs: list[Path] = []
    others: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        key, equals, value = argument.partition("=")
        if key in ("--config", "-c"):
            configs.append(find_config(value if equals else next(rest, "")))
        else:
            others.append(argument)
    trainings = set(shipped_trainings().values())
    configs.sort(key=lambda path: path not in trainings)
    return [*(word for path in configs for word in ("--config", str(path))), *others]


def check_arguments(arguments: Sequence[str]) -> None:
    """Configs are YAML that says something, and nobody sets what follows from the data.

    jsonargparse silently ignores a value that is given for the target of a link.
    """
    given = {argument.partition("=")[0].removeprefix("--").replace(".init_args.", ".") for argument in arguments}
    for flag, value in zip(arguments, arguments[1:], strict=False):
        if flag != "--config":
            continue
        config = read_config(Path(value))
        for section in GROUPS:
            if not isinstance(options := config.get(section, {}), dict):
                raise UserError(f"{value}: {section} is {_shown(options)}; write its options below it, indented")
            given |= {f"{section}.{option}" for option in options}
        _check_shape(value, "", config, whole=arguments.count("--config") == 1 and not given & {"model", "data"})
        if isinstance(model := config.get("model"), dict):
            given |= {f"model.{key}" for key in {**model, **(model.get("init_args") or {})}}
    for old, new in RENAMED.items():
        if old in given:
            raise UserError(f"{old} is now {new}; write that instead")
    for section, cls in {"model": "DCGAN", "data": "Digits"}.items():
        below = next(
            (key for key in sorted(given) if key.startswith(f"{section}.") and not key.endswith(".help")), None
        )
        if below and not given & {section, "config"}:
            raise UserError(f"--{below} belongs to no class; name one before it, such as --{section} {cls}")
    for key, cure in LINKED.items():
        if f"model.{key}" in given:
            raise UserError(f"model.{key} follows from the data; {cure}")


def check_values(config: Any) -> None:
    """Every option has the type that its class says, and is in its range."""
    for section, cls in GROUPS.items():
        _check(section, cls, config[section])
    for key, (least, most) in RANGES.items():
        value = config.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and not least <= value <= most:
            takes = f"{least} or more" if most == ANY else f"{least} to {most}"
            raise UserError(f"{key} is {value}; it takes {takes}")
    for section in ("model", "data", "trainer"):
        _check_classes(section, config[section])


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
    if (weights := config.scores.weights) is not None and not Path(weights).is_file():
        raise UserError(f"scores.weights: there is no file {weights}; name one, or leave it out")


def affordable(cls: type[Any], *args: Any, **kwargs: Any) -> Any:
    """A variant whose weights, with their gradients, fit into this machine's memory: counted before any is made."""
    given = inspect.signature(cls).parameters
    sizes = {
        name: value / given[name].default
        for name, value in kwargs.items()
        if name in given and type(value) is int and type(given[name].default) is int and given[name].default > 0
    }
    largest = max(sizes, key=lambda name: sizes[name], default="")
    whole = f"{'data' if largest in LINKED else 'model'}.{largest} {kwargs.get(largest)}"
    cure = f"{whole} makes {cls.__name__} larger than this machine's memory; lower it, or what else is large"
    size: float
    try:
        with torch.device("meta"):
            size = 2 * sum(weight.numel() * weight.itemsize for weight in cls(*args, **kwargs).parameters())
    except Exception as error:  # some constructors cannot be tried without memory; the real one says what is wrong
        size = ANY if "overflow" in str(error) else 0
    if size > machine_memory():
        raise UserError(cure)
    try:
        return cls(*args, **kwargs)
    except (MemoryError, RuntimeError) as error:
        if (mid_run(error) or "").startswith("out of memory"):
            raise UserError(cure) from error
        raise


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
    for player, make in getattr(model, "make_optimizer", {}).items():
        option = "optimizer"
        try:
            optimizer = make([nn.Parameter(torch.zeros(1))])
            option = "lr_scheduler"
            if (schedule := getattr(model, "lr_scheduler", None)) is not None:
                schedule(optimizer)
        except Exception as error:  # of any of torch's classes, or the user's
            raise UserError(f"model.{option}, of the {player}: {describe(error)}") from error


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


def _check(section: str, cls: type, arguments: Any) -> None:
    try:
        check(cls, vars(arguments))
    except ValueError as error:
        raise UserError(f"{section}.{error}") from error


def _check_classes(key: str, value: Any) -> None:
    """The arguments of a class that a config names, and of those below it."""
    if isinstance(value, list):
        for item in value:
            _check_classes(key, item)
    if not isinstance(value, Namespace):
        return
    arguments = value
    if isinstance(name := value.get("class_path"), str):
        module, _, name = name.rpartition(".")
        arguments = value.get("init_args") or Namespace()
        if isinstance(cls := getattr(import_module(module), name), type):
            _check(key, cls, arguments)
    for name, item in vars(arguments).items():
        _check_classes(f"{key}.{name}", item)


def _check_shape(file: str, key: str, value: Any, whole: bool) -> None:
    """Wherever a config names a class, it does so in the one way that there is.

    Args:
        file: the config.
        key: what lies above the value.
        value: of the key.
        whole: whether every class is named there, none in another config or on the command line.
    """
    if not isinstance(value, dict):
        return
    for name in ("class_path", "init_args"):
        if not key and name in value:
            raise UserError(f"{file}: {name} stands beside model and data; indent it, as what is below one of them")
        wrong = [other for other in value if str(other) != name and nearest(str(other), [name], 0.8)]
        if key and wrong and name not in value:
            raise UserError(f"{file}: no option {key}.{wrong[0]}; did you mean {name}?")
    if whole and "class_path" not in value and ("init_args" in value or key in ("model", "data")):
        raise UserError(f"{file}: {key} names no class; begin with class_path, and put its arguments below init_args")
    if "class_path" in value and not (isinstance(path := value["class_path"], str) and path):
        raise UserError(f"{file}: {key}.class_path is {_shown(path)}; it takes the name of a class")
    if not isinstance(arguments := value.get("init_args", {}), dict):
        raise UserError(f"{file}: {key}.init_args is {_shown(arguments)}; write arguments below it, indented")
    for name, item in {**value, **arguments}.items():
        for inner in item if isinstance(item, list) else [item]:
            if name != "init_args":
                _check_shape(file, f"{key}.{name}".lstrip("."), inner, whole)


def _shown(value: Any) -> str:
    """A value as a config has it."""
    return "empty" if value is None or value == "" else json.dumps(value, default=str)[:80]


class _Loader(yaml.SafeLoader):
    """PyYAML takes the last of two values that are given to one key, and says nothing."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value} is there twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_config(path: Path) -> dict[str, Any]:
    """What a YAML file says, if that is a dict of a size that a config may have."""
    try:
        trust.check_values(config := yaml.load(path.read_text(), _Loader))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or error
        raise UserError(f"{path}{line} is no YAML: {one_line(problem)}; {EXAMPLE}") from error
    if not isinstance(config, dict):
        what = "is empty" if config is None else f"holds a {type(config).__name__}, not options"
        raise UserError(f"{path} {what}; {EXAMPLE}")
    if "config" in config:
        raise UserError(f"{path} names another config; name both on the command line: --config A --config B")
    return config
