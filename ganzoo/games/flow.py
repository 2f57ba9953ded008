"""Continuous-time gradient flow: the limit of small learning rates."""

from __future__ import annotations

from typing import Any

import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from ganzoo.games.base import Game, array


def flow(game: Game, start: Any, times: Any) -> Tensor:
    """Solution of dx/dt = v(x), by a Runge-Kutta method of order 8 with relative tolerance 1e-10.

    The saddle of f = xy is a centre of this flow: trajectories are circles. Divergence and convergence of update rules
    there are effects of finite step sizes (Goodfellow 2016, arXiv:1701.00160, section 8.2).

    Args:
        game: defines the field.
        start: point [d] at times[0].
        times: [n], increasing; one step of a rule with learning rate lr corresponds to a time of lr.

    Returns:
        The points [n, d].

    Raises:
        FloatingPointError: the integration failed.
    """
    times = array(times).numpy()
    solution = solve_ivp(
        lambda t, x: game.v(array(x)).numpy(),
        (times[0], times[-1]),
        array(start).numpy(),
        method="DOP853",
        t_eval=times,
        rtol=1e-10,
        atol=1e-12,
    )
    if not solution.success:
        raise FloatingPointError(solution.message)
    return torch.from_numpy(solution.y.T.copy())
