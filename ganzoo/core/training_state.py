"""Training state in a checkpoint besides weights and optimizers: counters, seed, means of the losses."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from ganzoo.checkpoint.bounds import foreign_path
from ganzoo.core import from_data
from ganzoo.core.arguments import variant_name
from ganzoo.core.finite import NonFiniteError, Watch, check_weights
from ganzoo.core.lightning_fixes import attached
from ganzoo.core.player import PLAYERS
from ganzoo.core.random import global_seed
from ganzoo.core.readings import Readings as Readings
from ganzoo.core.restored import MOST, check_counters, check_finite, check_optimizer
from ganzoo.optim.adam import set_all

if TYPE_CHECKING:
    from ganzoo.core.module import GANModule

SEEN = "images_seen"  # key in a state_dict
MOST_STEPS = 10_000_000  # limit for replaying a schedule on resuming, at 10 us per step


def save(model: GANModule, checkpoint: dict[str, Any]) -> None:
    """
    Raises:
        NonFiniteError: a weight or a loss is not finite; the existing file is kept.
    """
    step = model.trainer.global_step
    model.watch.check(step, model.scaler)
    check_weights(step, model)
    checkpoint["state_dict"][SEEN] = torch.tensor(model.images_seen)  # a callback may have replaced the state_dict
    checkpoint["ganzoo"] = {
        "variant": variant_name(type(model)),
        "seed": model.randomness.seed,
        "unaveraged": model.unaveraged,
        "means": model.loss_log.training.shares(),
        "augment": model.augment.state(),
        **from_data.stored(model),
    }


def restore(model: GANModule, checkpoint: dict[str, Any]) -> None:
    """
    Raises:
        MisconfigurationException: the checkpoint is of another variant, or training cannot resume from it.
    """
    saved = checkpoint.get("ganzoo", {})
    if (name := str(saved.get("variant")).rsplit(".", 1)[-1]) != type(model).__name__:
        raise MisconfigurationException(
            f"the checkpoint contains a {name}, not a {type(model).__name__}; load it with its own class"
        )
    if attached(model):
        _forget_foreign_paths(model.trainer, checkpoint)
        if model.trainer.state.fn == TrainerFn.FITTING:
            _check(model, checkpoint)
    _take_back(model, saved)
    model.unaveraged = _unaveraged(model, checkpoint, saved)
    model.loss_log.training.take(saved.get("means", []))
    model.augment.restore(saved.get("augment", {}))
    if attached(model) and saved["seed"] != global_seed():
        rank_zero_warn(
            f"the checkpoint's run used the seed {saved['seed']}, but this one uses {global_seed()}, so the random "
            f"numbers differ; for the same numbers, call seed_everything({saved['seed']}) first"
        )


def _check(model: GANModule, checkpoint: dict[str, Any]) -> None:
    check_counters(checkpoint)
    check_finite(checkpoint["state_dict"], dict(model.named_parameters()))
    states = checkpoint.get("optimizer_states")
    if type(model).configure_optimizers.__module__ != "ganzoo.core.module":
        return  # the order of a variant's own optimizers is unknown
    if not isinstance(states, list) or len(states) != len(PLAYERS):
        raise MisconfigurationException("the checkpoint lacks the states of two optimizers; use another checkpoint")
    for player, state in zip(PLAYERS, states, strict=True):
        check_optimizer(player, model.make_optimizer[player], list(getattr(model, player).parameters()), state)


def _forget_foreign_paths(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Drop callback states with paths outside of the folder of the callback or the run. Callbacks remove and
    overwrite the files named in their states, such as a checkpoint that is no longer the best; others could belong
    to another run or user."""
    # folders that the user gave to callbacks
    own = {c.state_key: getattr(c, "dirpath", None) for c in trainer.callbacks}  # type: ignore[attr-defined]
    run = trainer.log_dir or trainer.default_root_dir  # a collective call
    states, kept = checkpoint.get("callbacks"), {}
    for key, state in states.items() if isinstance(states, dict) else ():
        folder = str(own.get(key) or run)
        if (path := foreign_path(state, folder)) is None:
            kept[key] = state
        else:
            rank_zero_warn(f"the state of {str(key)[:60]!r} is ignored: its path {path!r} is outside of {folder}")
    if states is not None:
        checkpoint["callbacks"] = kept


def _unaveraged(model: GANModule, checkpoint: dict[str, Any], saved: dict[str, Any]) -> int:
    """Images since the last update of the averaged generator. Older checkpoints lack the number; for them it is
    estimated as the images since the generator's last update."""
    if isinstance(images := saved.get("unaveraged"), int) and 0 <= images <= MOST:
        return images
    seen, step = int(checkpoint["state_dict"].get(SEEN, 0)), int(checkpoint.get("global_step", 0))
    return seen // max(step, 1) * (step % model.n_critic)


def take_from_data(model: GANModule, data: Any, stage: str) -> None:
    """Set the model's classes, and how pictures are read, to those of its training data.

    Raises:
        MisconfigurationException: other data has other classes, or is read differently.
    """
    found = from_data.of(data, model.hparams.get("num_classes") or model.num_classes)
    if stage != "fit":
        return from_data.agreed(from_data.known(model), found).give(model)
    model.class_names = found.class_names or model.class_names
    model.readings = found.readings if hasattr(data, "readings") else model.readings
    find = getattr(data, "absent", None)
    model.absent = find() if callable(find) and model.num_classes is not None else ()


def _take_back(model: GANModule, saved: dict[str, Any]) -> None:
    """Set classes and readings to those of a checkpoint; they must agree with the data's, if it is attached. A label
    is absent only if neither training has images of it."""
    try:
        found = from_data.saved(saved, model.hparams)
    except ValueError as error:
        raise MisconfigurationException(f"the checkpoint is damaged: {error}; use another one") from error
    mine = from_data.known(model)
    fitting = attached(model) and model.trainer.state.fn == TrainerFn.FITTING
    absent = [label for label in found.absent if not fitting or label in mine.absent]
    from_data.agreed(replace(found, absent=absent), mine).give(model)


def take_settings(model: GANModule) -> None:
    """Apply a learning rate or schedule that was changed since the checkpoint: each rate becomes what it would be if
    the new settings had been used from the first step."""
    trainer, configs = model.trainer, model.trainer.lr_scheduler_configs
    if not model.asked or (configs and not (model.lr_scheduler and trainer.ckpt_path)):
        return
    if configs and trainer.global_step > MOST_STEPS:
        rank_zero_warn(
            f"the learning rates of the checkpoint are kept: new settings are not applied after {MOST_STEPS:,} steps"
        )
        return
    set_all(trainer.optimizers, model.asked)
    for config, optimizer in zip(configs, trainer.optimizers, strict=False):
        for group in optimizer.param_groups:
            group.pop("initial_lr", None)
        with warnings.catch_warnings(action="ignore"):  # the optimizers have not stepped yet
            config.scheduler = model.lr_scheduler(optimizer)  # type: ignore[misc]
            for _ in range(trainer.global_step):
                config.scheduler.step()  # type: ignore[call-arg]


def recover(model: GANModule, error: NonFiniteError) -> None:
    """Roll back to the last good state, if a callback provides one.

    Counts of steps and images, and hence the random numbers, continue.

    Raises:
        NonFiniteError: there is no such state.
    """
    if model.rollback is None:
        raise error
    seen = model.images_seen
    model.rollback(error)
    model.images_seen, model.unaveraged = seen, 0
    model.watch = Watch()
    model.loss_log.restart()


def add_images_seen(model: GANModule, state: dict[str, Any], prefix: str, _: Any) -> None:
    """Hook of `state_dict`: adds the images seen. Not a buffer, which other code might average."""
    state[prefix + SEEN] = torch.tensor(model.images_seen)


def take_images_seen(
    model: GANModule, state: dict[str, Any], prefix: str, _: Any, __: bool, missing: list[str], *rest: list[str]
) -> None:
    """Hook of `load_state_dict`: the counterpart of `add_images_seen`."""
    if (seen := state.pop(prefix + SEEN, None)) is None:
        missing.append(prefix + SEEN)
    elif isinstance(seen, Tensor) and seen.dtype == torch.int64 and seen.shape == () and 0 <= seen <= MOST:
        model.images_seen = int(seen)
    else:
        rest[-1].append(f"{prefix}{SEEN} is not a whole number from 0 up")
