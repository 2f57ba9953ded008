"""GANs over a finite set: densities are tables, and all quantities are exact."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ganzoo.games.base import Game, array


def best_discriminator(p: Tensor, q: Tensor) -> Tensor:
    """D* = p / (p + q) (Goodfellow et al. 2014, arXiv:1406.2661, prop. 1); 1/2 where both are 0.

    Args:
        p: probabilities [n] of the data.
        q: those of the generator.
    """
    both = p + q
    return torch.where(both > 0, p / both, 0.5)


def value(p: Tensor, q: Tensor, d: Tensor | None = None) -> Tensor:
    """V(D, G) = E_p log D + E_q log(1 - D), a scalar (Goodfellow et al. 2014, arXiv:1406.2661, eq. 1).

    With the best discriminator, which is the default, it is -log 4 + 2 JSD(p, q) (theorem 1), convex in q.
    """
    d = best_discriminator(p, q) if d is None else d
    return (torch.xlogy(p, d) + torch.xlogy(q, 1 - d)).sum()


def density_step(p: Tensor, q: Tensor, lr: float = 1.0) -> Tensor:
    """The generator after one step in the space of densities, where V(D*, .) is convex (section 4.2).

    The gradient of V with respect to q is log(1 - D*) for the optimal D*; the mirror descent step is q (1 - D*)^-lr,
    normalised. With lr = 1 it is (p + q) / 2: each step halves the distance. No number of q may be 0.
    """
    return torch.softmax(q.log() - lr * torch.log1p(-best_discriminator(p, q)), 0)


class TabularGAN(Game):
    """G is a table, q = softmax(point), and the only player, since D is always optimal; it minimises V(D*, .).

    Goodfellow et al. 2014, section 4.2. V is convex in q; in the logits it still decreases with every small step, to
    -log 4, slowly where q is near 0. Networks have no such guarantee.

    Args:
        p: probabilities [n] of the data.
    """

    def __init__(self, p: Any) -> None:
        self.p = array(p)
        self.sizes = (len(self.p),)

    def losses(self, point: Tensor) -> Tensor:
        return value(self.p, torch.softmax(point, 0))[None]


def ebgan_value(p: Tensor, q: Tensor, energy: Tensor, margin: float) -> Tensor:
    """V = E_p D + E_q max(0, m - D), minimised by D in EBGAN (Zhao et al. 2016, arXiv:1609.03126, eq. 3).

    Optimal energies are 0 where p >= q and m elsewhere (lemma 1; any in [0, m] where p = q). They give
    V = m sum min(p, q) = m (1 - TV(p, q)), with the total variation TV.
    """
    return p @ energy + q @ (margin - energy).relu()


def ebgan_play(p: Tensor, q: Tensor, energy: Tensor, margin: float, lr: float = 1.0) -> Iterator[tuple[Tensor, Tensor]]:
    """EBGAN with two tables: yields (q, energy) after each step, infinitely. G minimises E_q D, D `ebgan_value`.

    Zhao et al. 2016 (arXiv:1609.03126), section 2.2: at a Nash equilibrium q = p and V = m (theorem 1), and D is
    constant almost everywhere (theorem 2), which may be *any* constant in [0, m]. Unless an energy is clamped at 0 or
    m, D's gradient p - q sums to 0, so the mean energy keeps its initial value, and the constant equals this value.

    For energies in [0, m] the game is bilinear, E_p D - E_q D, and gradient steps diverge. Both players therefore use
    extragradient: G mirror steps in the space of densities, D steps projected to [0, m].

    Args:
        p: probabilities [n] of the data.
        q: initial probabilities of the generator, none of them 0.
        energy: initial energies [n], in [0, margin].
        margin: m.
        lr: of both players.
    """
    while True:
        q_ahead, energy_ahead = q, energy
        for _ in range(2):
            q_ahead, energy_ahead = (
                torch.softmax(q.log() - lr * energy_ahead, 0),
                (energy - lr * (p - q_ahead)).clamp(0, margin),
            )
        q, energy = q_ahead, energy_ahead
        yield q, energy
