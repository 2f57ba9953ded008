"""GANs over a finite set: densities are tables, and everything is known exactly."""

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
    """V(D, G) = E_p log D + E_q log(1 - D), a scalar (eq. 1).

    With the best discriminator, which is the default, it is -log 4 + 2 JSD(p, q) (theorem 1), convex in q.
    """
    d = best_discriminator(p, q) if d is None else d
    return (torch.xlogy(p, d) + torch.xlogy(q, 1 - d)).sum()


def density_step(p: Tensor, q: Tensor, lr: float = 1.0) -> Tensor:
    """The generator after one step in the space of densities, where V(D*, .) is convex (section 4.2).

    The gradient of V by q is log(1 - D*), D* being the best there is; the step is that of mirror descent, which stays
    among densities: q (1 - D*)^-lr, normalised. With lr = 1 it is (p + q) / 2: each step halves the distance.
    """
    return torch.softmax(q.log() - lr * torch.log1p(-best_discriminator(p, q)), 0)


class TabularGAN(Game):
    """G is a table, q = softmax(point), and D the best there is, so that one player is left, who minimises V(D*, .).

    Goodfellow et al. 2014, section 4.2. Convex in q; in the softmax's logits V still falls with every small step, to
    -log 4, slowly where q has died out. Networks have no such guarantee.

    Args:
        p: probabilities [n] of the data.
    """

    def __init__(self, p: Any) -> None:
        self.p = array(p)
        self.sizes = (len(self.p),)

    def losses(self, point: Tensor) -> Tensor:
        return value(self.p, torch.softmax(point, 0))[None]


def ebgan_value(p: Tensor, q: Tensor, energy: Tensor, margin: float) -> Tensor:
    """V = E_p D + E_q max(0, m - D), what EBGAN's discriminator minimises (eq. 3).

    The best energies are 0 where p >= q and m elsewhere (lemma 1; where p = q any in [0, m] is as good). With them V is
    m sum min(p, q) = m (1 - TV(p, q)), TV being the total variation.
    """
    return p @ energy + q @ (margin - energy).relu()


def ebgan_play(p: Tensor, q: Tensor, energy: Tensor, margin: float, lr: float = 1.0) -> Iterator[tuple[Tensor, Tensor]]:
    """EBGAN played by two tables: (q, energy) after each step, without end. G minimises E_q D, D `ebgan_value`.

    Section 2.2: at a Nash equilibrium q = p and V = m (theorem 1), and D is a constant almost everywhere (theorem 2);
    but *any* constant in [0, m]. Reals and fakes end at the same energy, which the theorem does not determine: as long
    as no energy is clamped at 0 or m, D's gradient p - q sums to 0, so that the mean of the energies stays as it was
    at the start, and the constant is this mean.

    For energies in [0, m] the game is bilinear, E_p D - E_q D, and plain steps would leave the equilibrium. So both
    take extragradient's: G a mirror step in the space of densities, D a step that is kept in [0, m].

    Args:
        p: probabilities [n] of the data.
        q: those of the generator at first, none of them 0.
        energy: D at first [n], in [0, margin].
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
