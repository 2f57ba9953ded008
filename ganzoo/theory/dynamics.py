"""What update rules do on games of two numbers."""

from __future__ import annotations

from matplotlib.figure import Figure

from ganzoo.games.games import Bilinear
from ganzoo.games.rules import RULES, trajectory
from ganzoo.theory.base import panels


def bilinear(steps: int = 1000) -> Figure:
    """f = xy under every update rule, from (1, 1); one player moves x down f, the other y up.

    Above each picture the distance from the equilibrium at the end, as a share of that at the start. Simultaneous
    steps leave; alternating ones orbit, and do not converge; of the others, some converge.
    """
    figure, grid = panels(5, 3, 2.2, 2.4, sharex=True, sharey=True)
    for axes, (name, rule) in zip(grid.flat, RULES.items(), strict=False):
        points = trajectory(Bilinear(), rule, (1, 1), steps)
        radius = points.norm(dim=1)
        axes.plot(*points.T, linewidth=0.7)
        axes.plot(0, 0, "+", color="black")
        axes.set(xlim=(-2, 2), ylim=(-2, 2), aspect="equal")
        axes.set_title(f"{name}\n{radius[-1] / radius[0]:.2g}", fontsize=9)
    for axes in grid.flat[len(RULES) :]:
        axes.set_visible(False)
    return figure
