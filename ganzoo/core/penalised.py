"""Updates with penalties: their terms, their random inputs, and the batches in which they are due."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from ganzoo.core.batch import share, size
from ganzoo.core.player import PLAYERS, PlayerName
from ganzoo.core.processes import rank_and_world, summed
from ganzoo.core.types import Batch, Terms
from ganzoo.optim.game import takes_pairs
from ganzoo.penalties.base import Penalty, View

if TYPE_CHECKING:
    from ganzoo.core.module import GANModule


class Update:
    """Updates of a player: in every batch on its equation and penalties, or at longer intervals on penalties alone.

    Args:
        model: the model.
        player: that is updated.
        interval: of the penalties.
    """

    def __init__(self, model: GANModule, player: PlayerName, interval: int = 1) -> None:
        self.model, self.player, self.interval = model, player, interval
        self.penalties = [p for p in penalties_of(model) if p.interval == interval and p.concerns(player)]

    def step(self, batch: Batch) -> None:
        """The update, if this batch is due."""
        model = self.model
        if model.due(self.interval):
            given = self.drawn(batch, model.trainer.global_rank, model.trainer.world_size)
            with listening(model):
                interval = self.interval if self.interval > 1 else None
                model.minimize(self.loss, given, player=self.player, interval=interval)

    def loss(self, batch: Batch) -> Terms:
        """The terms of the equation and the penalties, on the same fakes and scores; a function of weights and batch,
        like any equation."""
        model = self.model
        selects = self.player == "generator" and model.top_k < 1 and model.training
        if self.penalties or selects:
            batch = {**batch, "fakes": model.fakes(batch)}
        if selects:
            batch = best(model, batch)
        heard = listen(model, batch) if self.penalties else {}
        terms: Terms = {} if self.interval > 1 else getattr(model, f"{self.player}_loss")(batch)
        for penalty in self.penalties:
            view = see(model, batch, penalty.name, heard)
            terms = terms | getattr(penalty, f"{self.player}_terms")(view)
        return terms

    def drawn(self, batch: Batch, rank: int = 0, world_size: int = 1) -> Batch:
        """The batch with this process's share of the penalties' random inputs.

        They come from a generator of their own, so an update's other random inputs are those without penalties.
        """
        if not self.penalties:
            return batch
        generator = self.model.randomness.apart
        n, shape, z = size(batch) * world_size, batch["image"].shape[1:], self.model.latent(1, generator)
        found: Any = {p.name: p.draw(n, shape, z, self.player, generator) for p in self.penalties}
        return {**batch, "drawn": cast(Any, share(found, rank, world_size))}


def best(model: GANModule, batch: Batch) -> Batch:
    """The part of a batch with the fakes that D scores highest."""
    n = size(batch)
    with torch.no_grad():
        found = scores(model, model.discriminate(batch["fakes"], condition(model, batch)))
    chosen = found.topk(math.ceil(n * top_share(model) - 1e-6)).indices
    return cast(Batch, tree_map(lambda t: t[chosen] if len(t) == n else t, batch))


def top_share(model: GANModule) -> float:
    """Share of the fakes on which the generator is trained now."""
    if model.top_k_half_life is None:
        return model.top_k
    return max(model.top_k, 0.5 ** (model.images_seen / model.top_k_half_life))


def updates(model: GANModule) -> dict[PlayerName, list[Update]]:
    """All updates of a model with penalties or top-k, in their order in a batch; empty without."""
    if not model.penalties and model.top_k == 1:
        return {}
    intervals = sorted({1} | {p.interval for p in penalties_of(model)})
    return {
        "discriminator": [Update(model, "discriminator", k) for k in intervals],
        "generator": [Update(model, "generator")],
    }


def step(model: GANModule, batch: Batch, player: PlayerName) -> None:
    """A player's update, with penalties."""
    for update in model.updates[player]:
        update.step(batch)
    for penalty in penalties_of(model):
        penalty.stepped(player)


def held_out(model: GANModule, player: PlayerName, batch: Batch) -> Terms:
    """The terms that a player's update has in every batch (without lazy penalties), for held-out images."""
    update = Update(model, player)
    with listening(model):
        return update.loss(update.drawn(batch))


def by_name(penalties: Sequence[Penalty]) -> Any:
    """A module of the penalties; an empty dict, and no module, if there are none.

    Raises:
        ValueError: two have the same name.
    """
    if not penalties:
        return {}
    found = nn.ModuleDict({penalty.name: penalty for penalty in penalties})
    for penalty in penalties:
        if found[penalty.name] is not penalty:
            raise ValueError(f"penalties: {type(penalty).__name__} is given twice; leave one out")
    return found


def take_state(model: GANModule, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Hook of `load_state_dict`: penalties that are not in the state start anew, and those that only it has are left
    out, so that a training may continue with others."""
    own, start = model.penalties.state_dict() if model.penalties else {}, f"{prefix}penalties."
    for key in [key for key in state if key.startswith(start) and key.removeprefix(start) not in own]:
        del state[key]
    for key, value in own.items():
        state.setdefault(start + key, value)


def penalties_of(model: GANModule) -> Sequence[Penalty]:
    return cast(Any, list(model.penalties.values()))


def steps(model: GANModule, player: PlayerName) -> float:
    """Optimizer steps of a player per update, on average: on its loss, the variant's own and those of penalties."""
    intervals = {p.interval for p in penalties_of(model)} if player == "discriminator" else set()
    return 1 + model.more_steps.get(player, 0) + sum(1 / k for k in intervals if k > 1)


def check(model: GANModule) -> None:
    """
    Raises:
        MisconfigurationException: an option does not work with the model, or with D's optimizer.
    """
    penalties, variant = penalties_of(model), type(model).__name__
    if model.top_k < 1 and (several(model) or model.source_channels is not None):
        what = "several discriminators" if several(model) else "a source for each fake, which all have to be translated"
        raise MisconfigurationException(f"top_k does not work with {variant}: it has {what}; leave top_k out")
    if model.freeze_d and several(model):
        raise MisconfigurationException(
            f"freeze_d does not work with {variant}: it has several discriminators; leave freeze_d out"
        )
    for penalty in penalties:
        name = type(penalty).__name__
        if (problem := refusal(penalty, model)) is not None:
            problem += "" if ";" in problem else "; leave the penalty out"
            raise MisconfigurationException(f"penalties: {name} does not work with {variant}: {problem}")
        if penalty.interval > 1 and penalty.concerns("generator"):
            raise MisconfigurationException(
                f"penalties: {name} has interval {penalty.interval}, but only terms of D can have one above 1; set "
                "interval 1"
            )
    for player in PLAYERS:
        if steps(model, player) > 1 and takes_pairs(model.make_optimizer[player]([nn.Parameter(torch.zeros(1))])):
            what, cure = "penalties: an interval above 1", "set interval 1"
            if model.more_steps.get(player):
                what, cure = f"optimizer: {variant}'s lazy regularization", "use another optimizer"
            raise MisconfigurationException(
                f"{what} takes steps of its own, but ExtraAdam needs two steps per update; {cure}"
            )


def refusal(penalty: Penalty, model: GANModule) -> str | None:
    """Why a penalty does not work with a model; None if it does."""
    if penalty.scores and several(model):
        return "it has several discriminators"
    if penalty.fakes and model.several_sizes:
        return "G makes images of several sizes"
    return penalty.problem(model)


def several(model: GANModule) -> bool:
    """Whether it has several discriminators, which may score images of different sizes."""
    return isinstance(model.discriminator, nn.ModuleList | nn.ModuleDict)


def see(model: GANModule, batch: Batch, name: str, heard: dict[str, Any]) -> View:
    """What a penalty sees of a batch; `heard` has D's outputs in the equation."""
    score = partial(_score, model, condition(model, batch))

    def known(key: str) -> Tensor:
        return scores(model, heard[key]) if key in heard else score(batch[key])  # type: ignore[literal-required]

    def beside(key: str, x: Tensor) -> Tensor:
        with model.augment.again(cast(Any, model.discriminate).calls[key]):
            return score(x)

    return View(
        real=batch["image"],
        fake=batch["fakes"],
        z=batch["z"],
        drawn=batch["drawn"][name],
        score=score,
        real_score=partial(known, "image"),
        fake_score=partial(known, "fakes"),
        beside=beside,
        make=lambda z: model.make_fakes({**batch, "z": z}),
        mean=_over_processes if model.training else _unchanged,
        networks={player: getattr(model, player) for player in PLAYERS},
        training=model.training,
    )


def condition(model: GANModule, batch: Batch) -> Tensor | None:
    """The second argument of `discriminate`: the sources or labels of a conditional model."""
    if model.source_channels is not None:
        return batch["source"]
    return model.labels(batch)


def scores(model: GANModule, output: Any) -> Tensor:
    """D's scores [N] of its output, a tensor or a tuple that starts with it: means over patches; larger for reals."""
    first: Tensor = tree_leaves(output)[0]
    found = first.flatten(1).mean(1) if first.ndim > 1 else first
    return found if model.real_scores_higher else -found


class Listener:
    """Replaces `model.discriminate` during an equation, and keeps D's outputs for the batch's reals and fakes, so that
    penalties need not evaluate D on them again, and which calls of the augmentation they were."""

    def __init__(self, model: GANModule) -> None:
        self.discriminate, self.augment = model.discriminate, model.augment
        self.wanted: dict[str, Any] = {}
        self.heard: dict[str, Any] = {}
        self.calls: dict[str, int] = {}

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        output = self.discriminate(x, *args, **kwargs)
        for key, images in self.wanted.items():
            if x is images and not self.augment.held:  # a repeated call is a penalty's own
                self.heard[key], self.calls[key] = output, self.augment.calls - 1
        return output


@contextmanager
def listening(model: GANModule) -> Iterator[None]:
    """Installs a `Listener`."""
    object.__setattr__(model, "discriminate", Listener(model))
    try:
        yield
    finally:
        object.__delattr__(model, "discriminate")


def listen(model: GANModule, batch: Batch) -> dict[str, Any]:
    """D's outputs from now on for this batch's `image` and `fakes`, by these keys."""
    listener: Any = model.discriminate
    listener.wanted, listener.heard, listener.calls = {"image": batch["image"], "fakes": batch["fakes"]}, {}, {}
    return listener.heard


def _score(model: GANModule, y: Tensor | None, x: Tensor) -> Tensor:
    return scores(model, model.discriminate(x, y))


def _over_processes(value: Tensor) -> Tensor:
    return summed(value) / rank_and_world()[1]


def _unchanged(value: Tensor) -> Tensor:
    return value
