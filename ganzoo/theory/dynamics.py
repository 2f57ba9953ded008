"""Update rules on games with two parameters."""

from __future__ import annotations

import math

import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor

from ganzoo.games.base import array
from ganzoo.games.flow import flow
from ganzoo.games.games import Bilinear, DiracGAN
from ganzoo.games.rules import RULES, averaged, gradient, trajectory
from ganzoo.theory.base import DATA, GENERATOR, panels

START, LR = (1.0, 1.0), 0.1
OUTCOMES = {  # of the rules on f = xy, after 1000 steps
    "diverging or periodic": (
        "momentum 0.3, alternating",
        "simultaneous",
        "momentum -0.3, simultaneous",
        "alternating",
        "infinitesimal steps",
    ),
    "converging": (
        "momentum -0.3, alternating",
        "lookahead",
        "extragradient",
        "optimistic",
        "alternating, averaged",
        "historical averaging",
        "consensus",
    ),
    "Adam: neither": ("Adam", "optimistic Adam", "ExtraAdam"),
}
FACTORS = {  # per step, for z = x + iy, whose field is iz (lookahead: geometric mean of five steps)
    "simultaneous": 1 + 1j * LR,
    "infinitesimal steps": 1.0,
    "extragradient": 1 + 1j * LR - LR**2,
    "consensus": 1 + 1j * LR - LR,
    "lookahead": (0.5 + 0.5 * (1 + 1j * LR) ** 5) ** (1 / 5),
}
DIRAC = {
    "minimax": DiracGAN(),
    "non-saturating": DiracGAN("non-saturating"),
    "Wasserstein": DiracGAN("wasserstein"),
    "WGAN-GP": DiracGAN("wasserstein", penalty="wgan-gp"),
    "minimax with R1, weight 1/2": DiracGAN(penalty="r1", weight=0.5),
    "minimax with instance noise, sigma 1": DiracGAN(noise=1.0),
}


def orbits(steps: int) -> dict[str, Tensor]:
    """Trajectories [steps + 1, 2] on f = xy from (1, 1) of every rule and of the flow, and the running mean of
    alternating steps."""
    found = {name: trajectory(Bilinear(), rule, START, steps) for name, rule in RULES.items()}
    means = averaged(found["alternating"])
    found["alternating, averaged"] = torch.cat([array(START)[None], means])
    found["infinitesimal steps"] = flow(Bilinear(), START, LR * torch.arange(steps + 1, dtype=torch.float64))
    return found


def shares(points: Tensor) -> Tensor:
    """Distances from the equilibrium [n], divided by the first one."""
    return points.norm(dim=1) / points[0].norm()


def bilinear(steps: int = 1000) -> Figure:
    """f = xy under every update rule, from (1, 1): G minimises over x, D maximises over y.

    Trajectories start at the circle (dark); the cross is the equilibrium. The number is the final distance from it, as
    a multiple of the initial one; panels are sorted by it. Simultaneous steps diverge; alternating and infinitesimal
    steps circle, and only the running mean converges; extragradient, optimistic, lookahead, averaging and second-order
    rules converge. Adam has lr 0.01, all others 0.1 (Goodfellow 2016, arXiv:1701.00160, section 8.2; Gidel et al. 2019,
    arXiv:1802.10551).
    """
    figure, grid = panels(5, 3, 2.5, 2.6, sharex=True, sharey=True)
    found = sorted(orbits(steps).items(), key=lambda item: -shares(item[1])[-1])
    for axes, (name, points) in zip(grid.flat, found, strict=True):
        path = LineCollection(list(torch.stack([points[:-1], points[1:]], 1).numpy()), cmap="plasma", linewidth=0.8)
        path.set_array(range(steps))
        axes.add_collection(path)
        axes.plot(*START, "o", color="black", markersize=4)
        axes.plot(0, 0, "+", color="black")
        axes.set(xlim=(-2, 2), ylim=(-2, 2), aspect="equal")
        axes.set_title(f"{name}\ndistance × {shares(points)[-1]:.4g}", fontsize=9)
    for axes in grid[-1]:
        axes.set_xlabel("x (G)")
    for axes in grid[:, 0]:
        axes.set_ylabel("y (D)")
    figure.colorbar(path, ax=grid, label="step", aspect=40)
    return figure


def radius(steps: int = 1000) -> Figure:
    """Distance from the equilibrium of f = xy, step by step; dots are closed forms.

    With z = x + iy the vector field is iz, so simultaneous steps, extragradient and consensus multiply z by a constant
    in each step, lookahead in every five: |1 + i lr| > 1 for simultaneous steps, |1 + i lr - lr^2| < 1 for
    extragradient. Alternating steps conserve x^2 + y^2 + lr xy, an ellipse. Consensus, which uses second derivatives,
    leaves the plotted range, down to 8e-44. Adam (lr 0.01, other axis limits) normalises the step size and does not
    converge.
    """
    figure, grid = panels(3, 1, 4.2, 4.2, sharex=True)
    found = orbits(steps)
    for axes, (outcome, names) in zip(grid.flat, OUTCOMES.items(), strict=True):
        for name in names:
            (line,) = axes.plot(shares(found[name]), label=name, linewidth=1.2)
            if name in FACTORS:
                at = torch.arange(0, steps + 1, max(5, steps // 100 * 5))
                axes.plot(at, abs(FACTORS[name]) ** at.double(), ".", color=line.get_color(), markersize=5)
        axes.axhline(1, color="grey", linewidth=0.5)
        axes.set(title=outcome, xlabel="step", yscale="log", ylim=(1e-3, 1e4))
        axes.legend(fontsize=8, frameon=False)
    grid[0, 2].set(yscale="linear", ylim=(0, 1.5))
    grid[0, 0].set_ylabel("relative distance from the equilibrium")
    return figure


def doubling(lr: float) -> int:
    """Simultaneous steps on f = xy until the distance from the equilibrium has doubled."""
    return next(n for n, point in enumerate(gradient(Bilinear(), array(START), lr), 1) if point.norm() >= math.sqrt(8))


def learning_rate(steps: int = 1000) -> Figure:
    """A smaller learning rate only delays divergence: simultaneous steps on f = xy diverge at any rate.

    Left and middle, against lr * steps, in which the continuous flow (grey) stays at 1: simultaneous steps grow as
    (1 + lr^2)^(steps / 2); alternating steps stay between 1 and sqrt((2 + lr) / (2 - lr)), without convergence. Right:
    the steps until the distance has doubled, about 1.39 / lr^2: half the rate takes four times the steps.
    """
    figure, (grid,) = panels(3, 1, 4, 3.6)
    time = LR * steps
    for axes, alternating in zip(grid, (False, True), strict=False):
        for lr in (0.2, 0.1, 0.05, 0.02):
            r = shares(trajectory(Bilinear(), gradient, START, round(time / lr), lr=lr, alternating=alternating))
            axes.plot(lr * torch.arange(len(r)), r, label=f"lr {lr}", linewidth=1)
        axes.plot([0, time], [1, 1], color="grey", label="flow")
        axes.set(title=("alternating" if alternating else "simultaneous") + " steps", xlabel="lr · steps")
        axes.set_ylabel("relative distance from the equilibrium")
        axes.legend(fontsize=8, frameon=False, loc="upper left")
    grid[0].set(yscale="log", ylim=(0.8, 2e4))
    grid[1].set(ylim=(0.99, 1.17))
    rates = [0.4, 0.2, 0.1, 0.05, 0.02]
    grid[2].loglog(rates, [doubling(lr) for lr in rates], "o", color=DATA, label="measured")
    grid[2].loglog(rates, [math.log(4) / lr**2 for lr in rates], ":", color=DATA, label="log 4 / lr²")
    grid[2].set(title="simultaneous: doubling time", xlabel="lr", ylabel="steps")
    grid[2].set_xticks(rates, rates, minor=False)
    grid[2].minorticks_off()
    grid[2].legend(fontsize=8, frameon=False)
    return figure


def eigenvalues(game: DiracGAN) -> list[complex]:
    """Eigenvalues of the Jacobian of the vector field at the equilibrium 0; negative real parts mean local
    convergence."""
    return torch.linalg.eigvals(game.jacobian(array((0.0, 0.0)))).tolist()


def dirac(steps: int = 400) -> Figure:
    """The Dirac-GAN: data at 0, generated samples at theta, D's logit is psi x.

    Arrows: the vector field. Line: alternating steps of 0.1 from the circle. Lambda: eigenvalues of the field's
    Jacobian at the equilibrium, the cross. Without a penalty they are imaginary and trajectories rotate (those of the
    non-saturating loss approach the equilibrium ever more slowly). R1 and instance noise give them a negative real part
    (the same one here) and trajectories converge. WGAN-GP drives psi to 1 or -1, where there is no equilibrium
    (Mescheder et al. 2018, arXiv:1801.04406).
    """
    figure, grid = panels(3, 2, 3.2, 3.65, sharex=True, sharey=True)
    axis = torch.linspace(-2, 2, 40, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    for axes, (name, game) in zip(grid.flat, DIRAC.items(), strict=True):
        theta, psi = torch.vmap(game.v)(points).T.reshape(2, 40, 40).mT  # rows: psi
        axes.streamplot(axis.numpy(), axis.numpy(), theta.numpy(), psi.numpy(), color="lightgrey", density=0.8)
        axes.plot(*trajectory(game, gradient, START, steps, alternating=True).T, color=GENERATOR, linewidth=1)
        axes.plot(*START, "o", color=GENERATOR, markersize=5)
        axes.plot(0, 0, "+", color=DATA, markersize=9)
        axes.set(xlim=(-2, 2), ylim=(-2, 2), aspect="equal")
        axes.set_title(f"{name}\n{_spectrum(game)}", fontsize=9)
    for axes in grid[-1]:
        axes.set_xlabel("theta (G)")
    for axes in grid[:, 0]:
        axes.set_ylabel("psi (D)")
    return figure


def _spectrum(game: DiracGAN) -> str:
    if game.penalty == "wgan-gp":
        return "no λ: field discontinuous at psi = 0"
    real, imaginary = (max(getattr(one, part) for one in eigenvalues(game)) for part in ("real", "imag"))
    return f"λ = {f'{real:.2f} ' if real < -1e-9 else ''}± {imaginary:.2f} i"
