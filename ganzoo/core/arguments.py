"""Model arguments: those that checkpoints store, and checks for consistency with each other and with the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ganzoo.core.limits import constructor_of, normal_size
from ganzoo.core.options import plain

OPTIMISATION = {"optimizer", "discriminator_optimizer", "lr_scheduler"}  # arguments of the run, not of the model
DATA_SAYS = {  # arguments that must equal the data module's attribute -> message if that is None
    "image_size": "needs images of one size: let the data module resize them",
    "channels": "needs images that all have the same number of channels: let the data module convert them",
    "num_classes": "needs labels, but the data has none: use labelled data, or ImageFolder with --data.labels true",
    "source_channels": "translates images, but the data has no sources: use PairedFolder, UnpairedFolder or Pairs",
}


def constructor_arguments(frame: FrameType | None) -> tuple[dict[str, Any], list[str]]:
    """The plain arguments of the model whose base constructor runs in `frame`, options as plain values, and the names
    of the others.

    Those in `OPTIMISATION` are omitted. Lightning's `save_hyperparameters()` (2.6) without arguments would also save
    values that are not plain, which weights_only=True cannot load; arguments of base constructors, so a variant that
    fixes `n_critic` could not be rebuilt; and arguments of an object in whose constructor the model is created.
    """
    assert frame is not None
    arguments = {k: plain(v) for k, v in constructor_of(frame).items() if k not in OPTIMISATION}
    left_out = [name for name, value in arguments.items() if not is_plain(value)]
    if left_out:
        rank_zero_warn(f"{', '.join(left_out)}: not plain values, so checkpoints cannot store them")
    return {name: value for name, value in arguments.items() if is_plain(value)}, left_out


def variant_name(variant: type) -> str:
    """`module.Class`, a variant's name in checkpoints."""
    return f"{variant.__module__}.{variant.__qualname__}"


def is_plain(value: Any) -> bool:
    """Whether a value consists only of None, bools, numbers and strings, and lists, tuples and dicts of these."""
    if isinstance(value, dict):
        return all(isinstance(k, str) and is_plain(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or type(value) in (bool, int, float, str)  # numpy's float64 is a float, but not plain


def check_game(variant: type, base: type, game: Mapping[str, Any]) -> None:
    """Reject contradictory settings of the updates.

    Args:
        variant: the model's class.
        base: `GANModule`; with `consensus`, the variant must not override its update methods.
        game: the constructor arguments that determine the order of the updates.

    Raises:
        ValueError: two of them contradict each other.
    """
    if game["n_critic"] > 1 and game["n_generator"] > 1:
        raise ValueError(f"n_critic is {game['n_critic']} and n_generator {game['n_generator']}: one of them must be 1")
    alone = {"n_critic": 1, "n_generator": 1, "microbatches": 1, "compile_losses": False}
    if game["consensus"] is not None:
        for name in ("play", "discriminator_step", "generator_step"):
            if getattr(variant, name) is not getattr(base, name):
                raise ValueError(
                    f"consensus updates both players at once and cannot be combined with {variant.__name__}.{name}: "
                    "leave consensus out"
                )
        _need(game, "consensus, which updates both players at once,", alone)
    if game["share_fakes"]:
        _need(game, "share_fakes", {**alone, "consensus": None})
    if game["consensus"] is not None and (game["penalties"] or game["top_k"] < 1):
        other = "penalties" if game["penalties"] else "top_k"
        raise ValueError(f"consensus cannot be combined with {other}: leave one of them out")
    if game["top_k_half_life"] is not None and game["top_k"] == 1:
        raise ValueError("top_k_half_life has no effect with top_k 1: set top_k, for example to 0.5")


def _need(game: Mapping[str, Any], option: str, needed: Mapping[str, Any]) -> None:
    for name, value in needed.items():
        if game[name] != value:
            raise ValueError(f"{option} needs {name} {'null' if value is None else str(value).lower()}")


def check_schedulers(schedulers: Sequence[Any]) -> None:
    """
    Raises:
        MisconfigurationException: a scheduler cannot be stepped once per batch.
    """
    if any(isinstance(scheduler, ReduceLROnPlateau) for scheduler in schedulers):
        raise MisconfigurationException(
            "lr_scheduler: ReduceLROnPlateau needs a loss that converges, which a GAN does not have; use another one"
        )


def check_agreement(variant: str, arguments: Mapping[str, Any], data: Any) -> None:
    """
    Raises:
        MisconfigurationException: an argument of the model contradicts the data module.
    """
    for key, meaning in DATA_SAYS.items():
        mine = arguments.get(key)
        theirs = getattr(data, key, mine)
        if mine is not None and normal_size(mine) != normal_size(theirs):  # [64, 64] is 64
            raise MisconfigurationException(
                f"{key} is {mine}, but {theirs} in the data: make them equal"
                if theirs is not None
                else f"{variant} {meaning}"
            )
