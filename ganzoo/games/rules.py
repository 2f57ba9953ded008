"""Update rules in discrete steps, on any game.

A rule is an infinite iterator: `rule(game, point, **settings)` yields the point after each step; `trajectory` collects
the first ones. With alternating updates the last player, a GAN's discriminator, moves first, as in `GANModule.play`.
The defaults are those of the standard example: f = xy, from (1, 1), 1000 steps with lr 0.1. The final radius, as a
multiple of the initial one, is

- `gradient`, simultaneous: 144.8; it grows by sqrt(1 + lr^2) per step, so a smaller lr only delays divergence;
- `gradient`, alternating: between 1 and 1.0513 at all times, without convergence; the mean of its points converges as
  1 / steps, to 0.005;
- `gradient`, alternating with momentum -0.3: 0.265; with momentum 0.3: 4432;
- `extragradient`: 0.0069 = (1 - lr^2 + lr^4)^(steps / 2); `optimistic`: 0.0063; `lookahead`: 0.023;
- `consensus`: 8e-44; it uses second derivatives;
- `historical_averaging`: 0.0032 with weight 0.1, and only 0.42 with 1;
- `adam`, with lr 0.01: 0.70 alternating, 0.74 simultaneous, neither converged nor decreasing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from ganzoo.games.base import Game, array

Points = Iterator[Tensor]
Rule = Callable[..., Points]


def trajectory(game: Game, rule: Rule, start: Any, steps: int, **settings: Any) -> Tensor:
    """The points [steps + 1, d] of a rule, including the start.

    Args:
        game: the game.
        rule: a rule of this module.
        start: point [d].
        steps: number of steps.
        **settings: arguments of the rule.
    """
    point = array(start)
    return torch.stack([point, *islice(rule(game, point, **settings), steps)])


def averaged(points: Tensor) -> Tensor:
    """Running mean of the points, excluding the start: [steps + 1, d] -> [steps, d]."""
    return points[1:].cumsum(0) / torch.arange(1, len(points))[:, None]


def gradient(game: Game, point: Tensor, lr: float = 0.1, beta: float = 0.0, alternating: bool = False) -> Points:
    """x' = x + lr v(x) + beta (x - x before): gradient descent of all players, simultaneous or alternating.

    Polyak momentum. On f = xy negative momentum makes alternating updates converge, but not simultaneous ones (Gidel
    et al. 2019, arXiv:1807.04740).
    """
    before = point
    while True:
        old = point
        for mine in turns(game, alternating):
            point = torch.where(mine, point + lr * game.v(point) + beta * (old - before), point)
        before = old
        yield point


def extragradient(game: Game, point: Tensor, lr: float = 0.1, alternating: bool = False) -> Points:
    """x' = x + lr v(x + lr v(x)): the gradient of an extrapolated point (Korpelevich 1976).

    Two gradients per step. Alternating: all players extrapolate in turn, then all update in turn.
    """
    return _extra(game, point, lambda v, mine: lr * v, alternating)


def optimistic(game: Game, point: Tensor, lr: float = 0.1) -> Points:
    """x' = x + 2 lr v(x) - lr v(x before) (Daskalakis et al. 2018, arXiv:1711.00141); the first step is lr v(x).

    One gradient per step: the previous one replaces the extrapolation.
    """
    before = game.v(point)
    while True:
        now = game.v(point)
        point = point + lr * (2 * now - before)
        before = now
        yield point


def consensus(game: Game, point: Tensor, lr: float = 0.1, gamma: float = 1.0) -> Points:
    """x' = x + lr (v - gamma J^T v), with the Jacobian J of v (Mescheder et al. 2017, arXiv:1705.10461).

    J^T v is the gradient of |v|^2 / 2. The rule is attracted to all stationary points, including unstable ones.
    """
    while True:
        v = game.v(point)
        point = point + lr * (v - gamma * game.jacobian(point).T @ v)
        yield point


def lookahead(
    game: Game, point: Tensor, k: int = 5, alpha: float = 0.5, inner: Rule = gradient, **settings: Any
) -> Points:
    """After k steps of an inner rule, interpolates all players with weight alpha towards the inner result.

    Zhang et al. 2019 (arXiv:1907.08610); for games Chavdarova et al. 2021 (arXiv:2006.14567). Counts inner steps; the
    inner rule restarts without momentum after each interpolation.
    """
    while True:
        slow = point
        for step, point in enumerate(islice(inner(game, slow, **settings), k), start=1):
            if step == k:
                point = torch.lerp(slow, point, alpha)
            yield point


def historical_averaging(game: Game, point: Tensor, lr: float = 0.1, weight: float = 0.1) -> Points:
    """Each player's loss plus weight |x - mean of its points so far|^2 (Salimans et al. 2016, arXiv:1606.03498, 3.3).

    The mean, over the current and all earlier points, is treated as a constant.
    """
    total, n = torch.zeros_like(point), 0
    while True:
        total, n = total + point, n + 1
        point = point + lr * (game.v(point) - 2 * weight * (point - total / n))
        yield point


def adam(
    game: Game,
    point: Tensor,
    lr: float = 0.01,
    beta1: float = 0.5,
    beta2: float = 0.999,
    eps: float = 1e-8,
    alternating: bool = True,
    optimistic: bool = False,
) -> Points:
    """Adam (Kingma & Ba 2015, arXiv:1412.6980) for each player; its steps keep a size of about lr.

    `optimistic`: twice each step minus the previous one (Daskalakis et al. 2018, algorithm 1).
    """
    moments = Moments(point, lr, beta1, beta2, eps)
    last = torch.zeros_like(point)
    while True:
        for mine in turns(game, alternating):
            move = moments.move(game.v(point), mine)
            point = torch.where(mine, point + (2 * move - last if optimistic else move), point)
            last = torch.where(mine, move, last)
        yield point


def extra_adam(
    game: Game,
    point: Tensor,
    lr: float = 0.01,
    beta1: float = 0.5,
    beta2: float = 0.999,
    eps: float = 1e-8,
    alternating: bool = False,
) -> Points:
    """Extragradient with Adam's steps; both update its moments (Gidel et al. 2019, arXiv:1802.10551, alg. 4)."""
    return _extra(game, point, Moments(point, lr, beta1, beta2, eps).move, alternating)


RULES: dict[str, Rule] = {  # by name; settings other than the defaults are bound
    "simultaneous": gradient,
    "alternating": partial(gradient, alternating=True),
    "momentum 0.3, alternating": partial(gradient, beta=0.3, alternating=True),
    "momentum -0.3, simultaneous": partial(gradient, beta=-0.3),
    "momentum -0.3, alternating": partial(gradient, beta=-0.3, alternating=True),
    "extragradient": extragradient,
    "optimistic": optimistic,
    "consensus": consensus,
    "lookahead": lookahead,
    "historical averaging": historical_averaging,
    "Adam": adam,
    "optimistic Adam": partial(adam, optimistic=True),
    "ExtraAdam": extra_adam,
}


def turns(game: Game, alternating: bool) -> list[Tensor]:
    """Masks [d] of the players in order of their updates: the last player first, or one mask of all."""
    return list(game.turns.flip(0)) if alternating else [game.turns.any(0)]


class Moments:
    """Adam's running means of the gradient and its square, with bias correction."""

    def __init__(self, point: Tensor, lr: float, beta1: float, beta2: float, eps: float) -> None:
        self.lr, self.betas, self.eps = lr, (beta1, beta2), eps
        self.means = [torch.zeros_like(point), torch.zeros_like(point)]
        self.steps = torch.zeros_like(point)

    def move(self, v: Tensor, mine: Tensor) -> Tensor:
        """Adam's step [d] along v for the coordinates in `mine`."""
        self.steps = self.steps + mine
        first, second = (
            (mean.copy_(torch.where(mine, torch.lerp(power, mean, beta), mean)) / (1 - beta**self.steps))
            for mean, beta, power in zip(self.means, self.betas, (v, v * v), strict=True)
        )
        return self.lr * first / (second.sqrt() + self.eps)


def _extra(game: Game, point: Tensor, move: Callable[[Tensor, Tensor], Tensor], alternating: bool) -> Points:
    while True:
        ahead = point
        for mine in turns(game, alternating):
            ahead = torch.where(mine, ahead + move(game.v(ahead), mine), ahead)
        for mine in turns(game, alternating):
            point = torch.where(mine, point + move(game.v(ahead), mine), point)
            ahead = torch.where(mine, point, ahead)
        yield point
