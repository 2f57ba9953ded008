"""Densities with zeros, and output noise."""

from __future__ import annotations

import math

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ganzoo.functional.parzen import parzen_log_likelihood
from ganzoo.theory.base import DATA, GENERATOR, panels
from ganzoo.theory.parts import seeded

SPREAD = (1.0, 0.3)  # the data's standard deviations


def on_a_line(n: int = 2000, test: int = 500) -> tuple[Tensor, Tensor]:
    """Fakes [n, 2] of G(z) = (z, 0), z at even quantiles of N(0, 1); held-out data [test, 2] ~ N(0, diag(1, 0.3^2))."""
    z = torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n)
    data = torch.randn(test, 2, generator=seeded(0), dtype=torch.float64)
    return torch.stack([z, torch.zeros_like(z)], 1), data * torch.tensor(SPREAD)


def noisy_log_density(points: Tensor, sigma: float) -> Tensor:
    """log N(x; 0, 1 + sigma^2) N(y; 0, sigma^2), G's density with noise, at points [..., 2], in nats."""
    variances = points.new_tensor([1 + sigma**2, sigma**2])
    return -0.5 * (points.square() / variances + (2 * math.pi * variances).log()).sum(-1)


def density_support() -> Figure:
    """The density of a generator is zero off its support; output noise makes it positive.

    Left: G(z) = (z, 0) fills a line that contains no held-out point, so the data's log-likelihood is minus infinity,
    however close the line is. Middle: with noise of standard deviation sigma on G's output, the density is positive
    everywhere. Right: mean log-likelihood, exact and by Parzen windows on G's samples (as in Goodfellow et al. 2014,
    arXiv:1406.2661, section 5): the optimal sigma is the data's width across the line, here 0.3, and the likelihood
    falls without bound as sigma goes to 0. The score measures the noise as much as G.
    """
    fakes, points = on_a_line()
    sigmas = torch.logspace(-2, 0.5, 101).tolist()
    exact = [noisy_log_density(points, sigma).mean().item() for sigma in sigmas]
    best = sigmas[exact.index(max(exact))]
    figure, grid = panels(3, 1, 4.2, 3.6)
    side = torch.linspace(-3, 3, 121, dtype=torch.float64)
    plane = torch.stack(torch.meshgrid(side, side, indexing="xy"), -1)
    for axes in grid[0, :2]:
        axes.plot(*points.T, ".", color=DATA, markersize=2, label="held-out data")
        axes.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", xlabel="x", ylabel="y")
    grid[0, 0].plot([-3, 3], [0, 0], color=GENERATOR, linewidth=2, label="G's support")
    grid[0, 0].legend(loc="upper right", fontsize=8)
    grid[0, 0].set_title("no data on G's line: density 0")
    levels = noisy_log_density(plane, best).exp()
    grid[0, 1].contourf(side, side, levels, levels=8, cmap="Oranges", zorder=0)
    grid[0, 1].set_title(f"with noise of sigma {best:.2g} on G's output")
    grid[0, 2].plot(sigmas, exact, color=GENERATOR, label="exact")
    parzen = [parzen_log_likelihood(fakes, points, sigma).mean() for sigma in sigmas[::5]]
    grid[0, 2].plot(sigmas[::5], parzen, ".", color=DATA, label="Parzen window")
    grid[0, 2].axvline(best, color="gray", linewidth=0.8, linestyle="--", label=f"best sigma: {best:.2g}")
    grid[0, 2].set(xscale="log", ylim=(-20, 0), xlabel="sigma of the noise", ylabel="mean log-likelihood, nats")
    grid[0, 2].legend(fontsize=8)
    return figure
