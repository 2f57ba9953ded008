"""Self-supervised boosting (Welling, Zemel, Hinton 2002, NIPS 15), a predecessor of GANs."""

from __future__ import annotations

import math
from itertools import islice
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ganzoo.games.boosting import RBM, boost, classify
from ganzoo.theory.base import DATA, DISCRIMINATOR, panels, show
from ganzoo.theory.parts import digits, seeded


class Boosted(NamedTuple):
    """Results of self-supervised boosting on digits."""

    losses: list[float]  # of the classifier on held-out digits, per round
    reals: Tensor  # [n, 1, 8, 8] of -1 and 1, as are the fantasies
    fantasies: dict[int, Tensor]  # number of completed rounds -> samples of the field
    adversaries: dict[int, float]  # held-out loss of a stronger classifier, with 20 units


def boosted(rounds: int, seed: int = 0) -> Boosted:
    """A field trained on binary digits by `rounds` of boosting, with snapshots at the start, middle and end."""
    data, *rest = ((digits(split) > 0).double().flatten(1) for split in ("train", "val", "test"))
    data, held_out = data[torch.randperm(len(data), generator=seeded(0))[:700]], torch.cat(rest)
    fields, losses = zip(*islice(boost(data, held_out, generator=seeded(seed)), rounds), strict=True)
    fantasies, adversaries = {}, {}
    for n in sorted({0, rounds // 2, rounds}):
        field = (RBM.of_pixels(data), *fields)[n]
        drawn = field.draw(len(data) + len(held_out), 200, seeded(1))
        d = classify(data, drawn[: len(data)], 20, generator=seeded(2))
        adversaries[n] = d.loss(held_out, drawn[len(data) :]).item()
        fantasies[n] = as_images(drawn[:64])
    return Boosted(list(losses), as_images(data[:64]), fantasies, adversaries)


def as_images(x: Tensor) -> Tensor:
    """Binary [N, 64] -> [N, 1, 8, 8] with values -1 and 1."""
    return 2 * x.view(-1, 1, 8, 8).float() - 1


def boosting(steps: int = 16) -> Figure:
    """Adversarial training without a generator: the classifier's log odds are added to the model.

    Self-supervised boosting (Welling, Zemel, Hinton 2002, NIPS 15): each round trains a logistic classifier of digits
    against samples of the field ("fantasies"), and adds its logit to the field's log density. As the fantasies approach
    the digits, the classifier's loss on held-out digits rises towards log 2, chance level. A classifier with 20 units
    instead of 2 still does better than chance.
    """
    found = boosted(steps)
    figure, (grid,) = panels(5, 1, 2.5, 2.9)
    grid[0].plot(range(steps), found.losses, ".-", color=DISCRIMINATOR, label="2 units")
    grid[0].plot(list(found.adversaries), list(found.adversaries.values()), "x", color=DATA, label="20 units")
    grid[0].legend(fontsize=8, frameon=False, loc="lower right")
    grid[0].axhline(math.log(2), color="grey", linestyle=":", linewidth=0.8)
    grid[0].text(0, 0.7, "log 2", color="grey")
    grid[0].set(title="classifier", xlabel="completed rounds", ylabel="held-out loss, nats", ylim=(0, 0.76))
    for axes, (n, fantasies) in zip(grid[1:], found.fantasies.items(), strict=False):
        show(axes, fantasies, 8)
        axes.set_title(f"fantasies, round {n}")
    show(grid[4], found.reals, 8)
    grid[4].set_title("digits")
    return figure
