"""Games with two players: f = xy and other quadratic ones, and the Dirac-GAN."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ganzoo.games.base import Game, array


class Quadratic(Game):
    """min_x max_y f(x, y) = x'Ax / 2 + x'By - y'Cy / 2, for a point (x, y).

    The field is linear, `matrix @ point`. For positive definite A and C the origin is the one equilibrium, and small
    enough steps of every rule but Adam's find it; for A = C = 0 see `Bilinear`.

    Args:
        a: [n, n]
        b: [n, m]
        c: [m, m]

    Attributes:
        matrix: the field's, [n + m, n + m].
    """

    def __init__(self, a: Any, b: Any, c: Any) -> None:
        self.a, self.b, self.c = array(a), array(b), array(c)
        n, m = self.sizes = tuple(self.b.shape)
        if self.a.shape != (n, n) or self.c.shape != (m, m):
            raise ValueError(f"b is [{n}, {m}], so a is [{n}, {n}] and c [{m}, {m}]")
        rows = [-(self.a + self.a.T) / 2, -self.b], [self.b.T, -(self.c + self.c.T) / 2]
        self.matrix = torch.cat([torch.cat(row, 1) for row in rows])

    def losses(self, point: Tensor) -> Tensor:
        x, y = point.split(self.sizes)
        f = x @ self.a @ x / 2 + x @ self.b @ y - y @ self.c @ y / 2
        return torch.stack([f, -f])

    def v(self, point: Tensor) -> Tensor:
        return self.matrix @ point

    def jacobian(self, point: Tensor) -> Tensor:
        return self.matrix


class Bilinear(Quadratic):
    """min_x max_y x'My; by default f = xy, where the field (-y, x) turns about the equilibrium at 0.

    Infinitesimal steps keep the radius; what finite ones do depends on the rule (Goodfellow 2016, arXiv:1701.00160,
    section 8.2; Gidel et al. 2019, arXiv:1802.10551).

    Args:
        matrix: M [n, m].
    """

    def __init__(self, matrix: Any = ((1.0,),)) -> None:
        n, m = array(matrix).shape
        super().__init__(torch.zeros(n, n), matrix, torch.zeros(m, m))


class DiracGAN(Game):
    """Data at 0, a generator that puts all it has at theta, a discriminator whose logit is psi x: point (theta, psi).

    Mescheder et al. 2018 (arXiv:1801.04406), section 2; their psi has the other sign, for here a high logit means
    "real". The equilibrium is 0. Without penalty and noise the field's Jacobian there has the eigenvalues +-i s with
    s = 1/2, or 1 for "wasserstein", which without its clipping is f = xy but for psi's sign: the game turns (the
    non-saturating one inwards, ever more slowly, its radius as 1 / sqrt(time)). R1 of weight g makes them
    -g / 2 +- sqrt(g^2 / 4 - s^2), noise n makes them -n^2 / 4 +- sqrt(n^4 / 16 - s^2): the game converges.
    Noise does not help "wasserstein", whose mean logits it leaves alone. "wgan-gp" pulls psi to +-1, where nothing is
    at rest: the game turns, or, with a logarithm, stops at theta = +-2 weight, far from the data.

    Args:
        objective: "minimax" log(1 - D(fake)), "non-saturating" -log D(fake), or "wasserstein" without a logarithm.
        penalty: what D adds to its loss: "r1" weight / 2 psi^2 (R2 is the same here), or "wgan-gp"
            weight / 2 (|psi| - 1)^2.
        weight: of the penalty.
        noise: standard deviation of Gaussian noise on reals and fakes, instance noise (Sønderby et al. 2017,
            arXiv:1610.04490).
    """

    sizes = (1, 1)

    def __init__(
        self,
        objective: Literal["minimax", "non-saturating", "wasserstein"] = "minimax",
        penalty: Literal["r1", "wgan-gp"] | None = None,
        weight: float = 1.0,
        noise: float = 0.0,
    ) -> None:
        self.objective, self.penalty, self.weight = objective, penalty, weight
        nodes, weights = np.polynomial.hermite_e.hermegauss(40 if noise else 1)  # E over the normal distribution
        self.noise = noise * array(nodes)
        self.mean = array(weights / weights.sum())

    def losses(self, point: Tensor) -> Tensor:
        theta, psi = point
        real = psi * self.noise
        fake = psi * (theta + self.noise)
        log = (lambda logit: logit) if self.objective == "wasserstein" else logsigmoid
        d_loss = -self.mean @ (log(real) + log(-fake))
        g_loss = self.mean @ (-log(fake) if self.objective == "non-saturating" else log(-fake))
        if self.penalty is not None:
            slope = psi.abs() - 1 if self.penalty == "wgan-gp" else psi
            d_loss = d_loss + self.weight / 2 * slope**2
        return torch.stack([g_loss, d_loss])
