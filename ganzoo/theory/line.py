"""A GAN that learns a one-dimensional density, with densities and D to plot."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR

from ganzoo.functional.divergences import Gaussian, jensen_shannon, wasserstein_1
from ganzoo.optim.adam import FusedAdam
from ganzoo.theory.base import DATA, DISCRIMINATOR, GENERATOR, panels
from ganzoo.theory.parts import Line, Look, trained
from ganzoo.variants.mlpgan import MLPGAN

HUMPS = (Gaussian(-0.3, 0.2), Gaussian(0.25, 0.13))  # equally likely
EDGES = torch.linspace(-1, 1, 101, dtype=torch.float64)
X = (EDGES[1:] + EDGES[:-1]) / 2


def log_data(x: Tensor) -> Tensor:
    return torch.stack([hump.log_density(x) for hump in HUMPS]).logsumexp(0) - math.log(len(HUMPS))


class Snapshot(NamedTuple):
    """The game after some batches; densities and D on the grid X.

    Attributes:
        log_fakes: log density of the fakes, estimated by the share of evenly spaced latents in each cell of the grid.
        d: D(x).
        z: latents, evenly spaced.
        fakes: G(z).
    """

    log_fakes: Tensor
    d: Tensor
    z: Tensor
    fakes: Tensor

    @property
    def best(self) -> Tensor:
        """D* = p_data / (p_data + p_g), proposition 1."""
        return torch.sigmoid(log_data(X) - self.log_fakes)

    @property
    def from_best(self) -> float:
        """Mean of |D - D*| over data and fakes in equal parts."""
        return _mean((self.d - self.best).abs(), (log_data(X).exp() + self.log_fakes.exp()) / 2)

    @property
    def from_half(self) -> float:
        """Mean of |D - 1/2| over the data."""
        return _mean((self.d - 0.5).abs(), log_data(X).exp())

    @property
    def jsd(self) -> float:
        return jensen_shannon(log_data(X), self.log_fakes, X)

    @property
    def w1(self) -> float:
        return wasserstein_1(log_data(X), self.log_fakes, X)


def _mean(values: Tensor, density: Tensor) -> float:
    return (values * density).sum().item() * (X[1] - X[0]).item()


def snapshots(steps: int, seed: int = 0, d_rate: float = 3e-3) -> dict[int, Snapshot]:
    """Batch -> snapshot. G's learning rate is 3e-4; both rates decay to 0 by a cosine."""

    def look(model: MLPGAN) -> Snapshot:
        z = torch.linspace(-1, 1, 100_001)[:, None]
        fakes = model.generate(z).flatten().double()
        density = torch.histogram(fakes, EDGES, density=True).hist
        logits = model.discriminator(X.float().view(-1, 1, 1, 1))
        return Snapshot(density.log(), torch.sigmoid(logits.double()), z[:, 0], fakes)

    def make() -> MLPGAN:
        return MLPGAN(
            image_size=1,
            channels=1,
            z_dim=1,
            layers_g=4,
            layers_d=4,
            hidden=64,
            d_hidden=64,
            batch_norm=False,
            n_critic=2,
            optimizer=lambda params: FusedAdam(params, lr=3e-4, beta1=0.0),
            discriminator_optimizer=lambda params: FusedAdam(params, lr=d_rate, beta1=0.0),
            lr_scheduler=lambda optimizer: CosineAnnealingLR(optimizer, steps),
        )

    at = {max(1, steps // share) for share in (30, 15, 8, 4, 1)}
    camera = Look(at, look)
    trained(make, Line(HUMPS, (0.5, 0.5), batch_size=512, seed=seed), steps, seed, camera)
    return camera.found


def one_dimension(steps: int = 1500) -> Figure:
    """Figure 1 of Goodfellow et al. 2014 (arXiv:1406.2661), measured: a GAN learns a one-dimensional density.

    Top: densities of data and fakes; middle: D, and D* = p_data / (p_data + p_g) for the current fakes; bottom: G's
    output for evenly spaced latents. D follows D*, G follows D's gradient, and at the end the densities nearly agree
    and D is near 1/2, except at the ends of the fakes: uniform latents give no tails.

    D follows D* with a learning rate ten times G's; also, it has two steps per G step, neither player has momentum, and
    both rates decay to 0. With G's learning rate, D stays near 1/2 from the start, which is then no sign of
    convergence.
    """
    found = snapshots(steps, seed=1)
    figure, grid = panels(len(found), 3, 2.6, 1.9, sharex=True, sharey="row")
    p = log_data(X).exp()
    for (densities, ds, lines), (step, shot) in zip(grid.T, found.items(), strict=True):
        densities.plot(X, p, color=DATA, label="data")
        densities.plot(X, shot.log_fakes.exp(), color=GENERATOR, label="fakes")
        densities.set_title(f"batch {step:,}: JSD {shot.jsd:.2f}, W1 {shot.w1:.2f}", fontsize=9)
        known = p + shot.log_fakes.exp() > 0.02
        ds.axhline(0.5, color="lightgrey", linewidth=0.8)
        ds.set_title(f"|D - D*| {shot.from_best:.2f}, |D - 1/2| {shot.from_half:.2f}", fontsize=8)
        ds.plot(X, shot.d, color=DISCRIMINATOR, label="D")
        ds.plot(X[known], shot.best[known], ":", color="black", label="D*")
        chosen = slice(None, None, 2500)
        z, fakes = shot.z[chosen], shot.fakes[chosen]
        lines.plot(
            torch.stack([z, fakes.float()]).numpy(), [[0.0] * len(z), [1.0] * len(z)], color=GENERATOR, linewidth=0.5
        )
        lines.set_xlabel("x, z")
    grid[0, 0].set(ylabel="density", ylim=(0, 3), xlim=(-1, 1))
    grid[1, 0].set(ylabel="D(x)", ylim=(0, 1))
    grid[2, 0].set(yticks=[0, 1], yticklabels=["z", "x = G(z)"], ylim=(0, 1))
    for axes in grid[:2, 0]:
        axes.legend(fontsize=8, loc="upper right", frameon=False)
    return figure
