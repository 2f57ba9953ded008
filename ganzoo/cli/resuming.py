"""Resuming: whether a training continues a run, and whether a checkpoint's weights fit its model."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ganzoo.checkpoint.pretrained import read
from ganzoo.checkpoint.sealed import newest, step_of
from ganzoo.cli import config as configs
from ganzoo.cli.config import LINKED
from ganzoo.cli.errors import UserError
from ganzoo.core.files import read_text
from ganzoo.core.module import GANModule
from ganzoo.core.text import one_line
from ganzoo.data import GANDataModule

HOW_READ = {"cache_gb", "corrupt", "download"}  # how pictures are obtained, which does not change them


def difference(file: Path, config: str) -> str | None:
    """The first difference in model or data between a training and a run. The arguments of `GANModule` and
    `GANDataModule`, which say how it is trained, and `HOW_READ` may differ.

    Args:
        file: the run's config.
        config: the training's config, as YAML.

    Returns:
        `data.path is 'dogs' here, and 'cats'`, or None.
    """
    before, now = configs.read(file), configs.load(config)
    free = {"model": _arguments(GANModule), "data": _arguments(GANDataModule) | HOW_READ}
    found = (_difference(before.get(name, {}), now[name], name, but) for name, but in free.items())
    return next((text for text in found if text is not None), None)


def _difference(before: Any, now: Any, key: str, but: set[str]) -> str | None:
    """The first difference; ignores keys of only one of the two, which come from another version of ganzoo."""
    if isinstance(before, dict) and isinstance(now, dict):
        names = sorted(name for name in now if name in before and name not in but)
        found = (_difference(before[name], now[name], f"{key}.{name}", but) for name in names)
        return next((text for text in found if text is not None), None)
    normal = _last_part if key.endswith(".class_path") else _absolute
    if normal(before) == normal(now):
        return None
    here, there = (one_line(repr(value))[:80] for value in (now, before))
    return f"{key.replace('.init_args', '')} is {here} here, but {there}"


def _arguments(base: type) -> set[str]:
    return set(inspect.signature(base).parameters)


def _last_part(name: Any) -> Any:
    """The class name of a class path: classes may move to other modules."""
    return name.rpartition(".")[2] if isinstance(name, str) else name


def _absolute(value: Any) -> Any:
    """A string as an absolute path, since it may be a path."""
    return os.path.abspath(os.path.expanduser(value)) if isinstance(value, str) else value


def from_folder(folder: str) -> dict[str, Any]:
    """A `save_pretrained` folder in the form of a checkpoint, without training state."""
    (variant, arguments, weights, slim), facts = read(folder)
    if slim:
        raise UserError(
            f"{folder} has no discriminator; to train further, give a run, a .ckpt, or a folder that has one"
        )
    own = {"variant": variant, "origin": facts.origin}
    return {"ganzoo": own, "hyper_parameters": arguments, "state_dict": weights, "global_step": 0}


def going_back(run: Path, checkpoint: Path) -> str:
    """A notice if the run has later states than the checkpoint that it is resumed from; otherwise an empty string."""
    last = newest(run / "checkpoints")
    if last is None or step_of(last) <= step_of(checkpoint):
        return ""
    return (
        f"{run} goes back to step {step_of(checkpoint):,}: its later logs, grids and checkpoints are removed, but "
        "for kept- and best- ones until a better score replaces them (a copy of the checkpoint outside of the run "
        "would start a new run)"
    )


def parent_of(run: Path) -> Any:
    """The checkpoint with which a run began, if any."""
    try:
        return json.loads(read_text(run / "environment.json")).get("parent")
    except (OSError, ValueError, AttributeError):  # lost or damaged: other facts are written anew
        return None


def forgetting(model: GANModule) -> str:
    """A notice if a new run loses the averaged generator that it begins with; otherwise an empty string."""
    if model.ema is None or model.ema_ramp_up is None:
        return ""
    return (
        "model.ema_ramp_up forgets the folder's averaged generator within a few batches; add --model.ema_ramp_up null "
        "to keep it"
    )


def check_limits(path: str, checkpoint: Mapping[str, Any], trainer: Any, new_run: bool) -> None:
    """Refuses a training that would already be over. A finished run may be asked again to continue, as it is by
    unattended trainings."""
    step, most = checkpoint["global_step"], trainer.max_steps
    if 0 < most < step + new_run:
        raise UserError(f"{path} is at step {step} of {most}; to continue, add --trainer.max_steps {2 * step}")
    epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"] if "loops" in checkpoint else 0
    if new_run and 0 < (most := trainer.max_epochs or -1) <= epochs:
        raise UserError(f"{path} is at epoch {epochs} of {most}; to continue, add --trainer.max_epochs {2 * epochs}")


def networks(state: Mapping[str, Any]) -> dict[str, Any]:
    """The weights of networks; load hooks fill in the model's own numbers and its penalties."""
    return {name: w for name, w in state.items() if "." in name and not name.startswith("penalties.")}


def check_weights(path: str, checkpoint: dict[str, Any], model: Any) -> None:
    """Checks that a checkpoint's weights fit the model."""
    model.configure_model()  # adds the averaged generator
    states = checkpoint["state_dict"], model.state_dict()
    saved, own = ({name: w.shape for name, w in networks(state).items()} for state in states)
    if saved == own:
        return
    free = inspect.signature(GANModule).parameters  # which determine no network, but for an average
    here = model.hparams
    other = [
        f"{'' if key == 'num_classes' else 'data.' if key in LINKED else 'model.'}{key} {value}, not {here[key]}"
        for key, value in checkpoint["hyper_parameters"].items()
        if key in here and here[key] != value
        if key not in free or (key == "ema_half_life" and None in (value, here[key]))
    ]
    cause = f"was trained with {', '.join(other)}" if other else f"does not fit {type(model).__name__}"
    of_folder = "set these" if other else "write or download it again"
    cure = of_folder if Path(path).is_dir() else "use its run's config.yaml"
    raise UserError(f"{path} {cause}; {cure}, or leave --ckpt_path out to start a new run")
