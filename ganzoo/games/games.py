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

    The vector field is linear, `matrix @ point`. For positive definite A and C the origin is the only equilibrium, and
    all rules but Adam converge to it for small steps; for A = C = 0 see `Bilinear`.

    Args:
        a: [n, n]
        b: [n, m]
        c: [m, m]

    Attributes:
        matrix: of the vector field, [n + m, n + m].
    """

    def __init__(self, a: Any, b: Any, c: Any) -> None:
        self.a, self.b, self.c = array(a), array(b), array(c)
        n, m = self.sizes = tuple(self.b.shape)
        if self.a.shape != (n, n) or self.c.shape != (m, m):
            raise ValueError(f"for b [{n}, {m}], a must be [{n}, {n}] and c [{m}, {m}]")
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
    """min_x max_y x'My; by default f = xy, whose field (-y, x) rotates around the equilibrium at 0.

    Infinitesimal steps keep the radius; the effect of finite ones depends on the rule (Goodfellow 2016,
    arXiv:1701.00160, section 8.2; Gidel et al. 2019, arXiv:1802.10551).

    Args:
        matrix: M [n, m].
    """

    def __init__(self, matrix: Any = ((1.0,),)) -> None:
        n, m = array(matrix).shape
        super().__init__(torch.zeros(n, n), matrix, torch.zeros(m, m))


class DiracGAN(Game):
    """Data at 0, generated samples at theta, a discriminator with logit psi x; the point is (theta, psi).

    Mescheder et al. 2018 (arXiv:1801.04406), section 2; psi has the opposite sign, since a high logit means "real"
    here. The equilibrium is 0. Without penalty and noise, the Jacobian there has eigenvalues +-i s with s = 1/2, or 1
    for "wasserstein", which without clipping is f = xy up to the sign of psi: trajectories rotate (those of
    "non-saturating" approach 0 with a radius of order 1 / sqrt(time)). R1 with weight g gives
    -g / 2 +- sqrt(g^2 / 4 - s^2), noise n gives -n^2 / 4 +- sqrt(n^4 / 16 - s^2): the game converges. Noise has no
    effect on "wasserstein", since it keeps the mean logits. "wgan-gp" drives psi to +-1, where there is no equilibrium:
    the game rotates, or, with a logarithm, stops at theta = +-2 weight, far from the data.

    Args:
        objective: "minimax" log(1 - D(fake)), "non-saturating" -log D(fake), or "wasserstein" without a logarithm.
        penalty: added to D's loss: "r1" weight / 2 psi^2 (equal to R2 here), or "wgan-gp"
            weight / 2 (|psi| - 1)^2.
        weight: of the penalty.
        noise: standard deviation of instance noise on reals and fakes (Sønderby et al. 2017,
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
