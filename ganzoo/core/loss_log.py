"""Logging in training: means of losses and other scalars, and the loggers that receive them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from ganzoo.core.lightning_fixes import show
from ganzoo.core.player import LOSSES
from ganzoo.core.processes import of_all, rank_and_world, summed
from ganzoo.core.types import Terms


class Loss(NamedTuple):
    """Value of an equation.

    Attributes:
        total: sum of the terms, a scalar.
        names: of the terms.
        row: [1 + k], detached, float32: the total and the terms; [1] for a single term.
    """

    total: Tensor
    names: list[str]
    row: Tensor

    @property
    def values(self) -> Tensor:
        """The terms [k], detached."""
        return self.row if len(self.names) == 1 else self.row[1:]

    @classmethod
    def of(cls, terms: Terms, player: str) -> Loss:
        """
        Raises:
            MisconfigurationException: a term is not a scalar.
        """
        first, *rest = terms.values()
        total = sum(rest, first)
        if total.ndim:
            wrong = next(f"{name!r} has shape {list(term.shape)}" for name, term in terms.items() if term.ndim)
            raise MisconfigurationException(f"the {player}'s loss terms must be scalars, but {wrong}: use its mean")
        shown = [total, *terms.values()] if rest else [total]
        return cls(total, list(terms), torch.stack([term.detach().float() for term in shown]))


class Means:
    """Weighted means of named scalars, kept on their device; reading all of them synchronises once."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], tuple[Tensor, int]] = {}  # names -> (weighted sums [k], sum of the weights)

    def add(self, names: Sequence[str], values: Tensor, weight: int = 1) -> None:
        """Add one value per name: `values` is [k]."""
        names, values = tuple(names), values.detach().float()
        values = values if weight == 1 else values * weight
        if names in self._sums:
            sums, weights = self._sums[names]
            values, weight = sums + values, weights + weight
        self._sums[names] = values, weight

    def pop(self) -> dict[str, float]:
        """The means over all processes; resets them."""
        means = self.read()
        self._sums = {}
        return means

    def read(self) -> dict[str, float]:
        """The means over all processes."""
        if not self._sums:
            return {}
        sums = torch.cat([values for values, _ in self._sums.values()])
        weights = [weight for names, (_, weight) in self._sums.items() for _ in names]
        table = summed(torch.stack([sums, torch.tensor(weights).to(sums)]))
        found: dict[str, list[float]] = {}
        for name, (value, weight) in zip((n for names in self._sums for n in names), table.T.tolist(), strict=True):
            so_far = found.get(name, [0.0, 0.0])
            found[name] = [so_far[0] + value, so_far[1] + weight]
        return {name: value / weight for name, (value, weight) in found.items()}

    def shares(self) -> list[list[dict[str, Any]]]:
        """The sums of each process, on the CPU, for a checkpoint, which one process writes."""
        mine = [{"names": list(n), "sums": s.cpu(), "weight": w} for n, (s, w) in self._sums.items()]
        return of_all(mine)

    def to(self, device: torch.device) -> None:
        """Move the sums to another device."""
        self._sums = {names: (sums.to(device), weight) for names, (sums, weight) in self._sums.items()}

    def take(self, shares: list[Any]) -> None:
        """Restore the sums of `shares`; if the number of processes has changed, the first process takes all of them."""
        rank, world = rank_and_world()
        same = len(shares) == world
        counts = int(same or rank == 0)  # other processes need the names, with sums and weights of 0
        self._sums = {}
        for row in (row for share in ([shares[rank]] if same else shares) for row in _rows(share)):
            if row["sums"].shape != (len(row["names"]),) or not 0 <= row["weight"] < 2**40:
                raise ValueError(f"the checkpoint's mean of {row['names']} is invalid; use another checkpoint")
            names, sums, weight = tuple(row["names"]), row["sums"] * counts, row["weight"] * counts
            before = self._sums.get(names, (torch.zeros_like(sums), 0))
            self._sums[names] = before[0] + sums, before[1] + weight


class LossLog:
    """The means of training and validation, and their logging.

    Attributes:
        training: means since the last log.
        held_out: means of the current validation or test.
        held_out_images: images in the current held-out batch; 0 outside of validation and test.
    """

    def __init__(self) -> None:
        self.training, self.held_out, self.held_out_images = Means(), Means(), 0
        self._observed: list[tuple[str, Tensor, int]] = []
        self._failed: set[str] = set()  # names of loggers

    def add(self, player: str, loss: Loss, whole: bool = True) -> None:
        """Add a player's loss and, if there are several, its terms, after the scalars observed before; only the terms
        unless they are the `whole` loss."""
        self.collect(self.training)
        names, row = (["loss", *loss.names], loss.row) if len(loss.names) > 1 else (["loss"], loss.row)
        if not whole:
            names, row = loss.names, loss.values
        self.training.add([f"{player[0].upper()}/{name}" for name in names], row)

    def observe(self, name: str, value: Tensor, training: bool) -> None:
        """Store a scalar until `collect` adds it to training or held-out means; outside of both it is discarded."""
        if training or self.held_out_images:  # appending to a list causes no graph break in a compiled loss
            self._observed.append((name, value.detach(), 1 if training else self.held_out_images))

    def start(self, device: torch.device) -> None:
        """Start or resume training on a device, and discard scalars observed earlier."""
        self._observed.clear()
        self.training.to(device)

    def collect(self, means: Means) -> None:
        """Move observed scalars to the given means."""
        for name, value, weight in self._observed:
            means.add((name,), value[None], weight)
        self._observed.clear()

    def restart(self) -> None:
        """Discard all training values since the last log."""
        self.training = Means()
        self._observed.clear()

    def log(self, module: Any, values: dict[str, float]) -> None:
        """Log values to loggers, progress bars and monitoring callbacks.

        In a fit, the latter two get only the losses, and loggers get the values through `module.publish`, since
        `self.log` is off by one step in validation.
        """
        trainer = module.trainer
        if trainer.sanity_checking or not values:
            return
        fitting = trainer.state.fn == TrainerFn.FITTING
        if fitting:
            module.publish(values)
        shown = {name: value for name, value in values.items() if not fitting or name.endswith("/loss")}
        if trainer.training:
            show(trainer, shown)
        else:
            module.log_dict(shown, logger=not fitting)

    def each_logger(self, trainer: Trainer, hand_over: Callable[[Logger], None]) -> None:
        """Call a function for each logger; a failing logger does not stop the training, and is reported once."""
        for logger in trainer.loggers:
            try:
                hand_over(logger)
                logger.save()  # so that a killed run keeps all values from before its checkpoint
            except Exception as error:  # loggers may raise anything
                if (name := type(logger).__name__) not in self._failed:
                    self._failed.add(name)
                    rank_zero_warn(f"{name} could not log all values of step {trainer.global_step}: {error}")


def refresh(model: Any) -> None:
    """Update the mean losses since the last log for callbacks that monitor them."""
    trainer = model.trainer
    watched = {getattr(callback, "monitor", None) for callback in trainer.callbacks}
    if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking and watched & {*LOSSES}:
        show(trainer, {name: value for name, value in model.loss_log.training.read().items() if name in LOSSES})


def _rows(share: Any) -> list[dict[str, Any]]:
    """Rows of one process's share; checkpoints before November 2026 have {"sums": {name: scalar}, "weights": {name:
    number}}."""
    if isinstance(share, dict):
        return [{"names": [n], "sums": s[None], "weight": share["weights"][n]} for n, s in share["sums"].items()]
    return share
