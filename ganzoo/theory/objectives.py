"""Objectives of GANs: optima, and results of training."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.optim import RMSprop
from torch.optim.lr_scheduler import CosineAnnealingLR

from ganzoo.core.module import GANModule
from ganzoo.data.gaussians import Gaussians
from ganzoo.functional.divergences import F_DIVERGENCES, FDivergence, Gaussian
from ganzoo.functional.modes import GaussianModes, gaussian_modes
from ganzoo.networks.mlp import ReLUDiscriminator
from ganzoo.optim.adam import FusedAdam
from ganzoo.theory.base import DATA, DISCRIMINATOR, GENERATOR, panels
from ganzoo.theory.divergences import MODES, X, nearest, two_modes
from ganzoo.theory.frozen import RING
from ganzoo.theory.parts import Line, Look, trained
from ganzoo.variants.ebgan import EBGAN
from ganzoo.variants.gan import GAN, Divergence
from ganzoo.variants.lsgan import LSGAN
from ganzoo.variants.mlpgan import MLPGAN
from ganzoo.variants.wgan import WGAN
from ganzoo.variants.wgangp import WGANGP

# without "jensen-shannon", which is the same game as "gan"
ON_THE_LINE: tuple[Divergence, ...] = ("pearson", "kl", "gan", "hellinger", "reverse-kl")
NEAR = X[X.abs() < 6]  # beyond, p / q overflows
STARTS = (Gaussian(0.5, 1.0), Gaussian(1.2, 0.6))  # of G: between the modes, and on the larger one


# The family of f-GANs


def generator_gradients(member: FDivergence, ratio: Tensor) -> tuple[Tensor, Tensor]:
    """G's gradient with respect to log p / q [n] at its samples, for the optimal D: minimax, and non-saturating."""
    ratio = ratio.clone().requires_grad_()
    terms = member.fake(member.optimal(ratio)), member.activation(member.optimal(ratio))
    (minimax,), (other,) = (torch.autograd.grad(one.sum(), ratio) for one in terms)
    return minimax, other


def f_divergences() -> Figure:
    """Six members of the f-GAN family: f, the terms that D maximises, and G's gradient.

    D_f(p || q) is the mean of f(p / q) under q. D maximises the mean of the solid curve over data plus that of the
    dashed curve over fakes; the optimal output is V*, at p = q the dotted line. Right: G's gradient with respect to
    log(p / q) at its samples, for the optimal D. In minimax, reverse KL weights all samples equally, and Pearson hardly
    weights rejected ones; in the non-saturating game KL weights all equally (Nowozin et al. 2016, arXiv:1606.00709,
    table 2, figure 1, section 3.2).
    """
    figure, grid = panels(3, 3, 3.8, 2.9)
    u, ratio, v = (torch.linspace(a, b, 301, dtype=torch.float64) for a, b in ((0.01, 4), (-6, 3), (-4, 4)))
    for name, member in F_DIVERGENCES.items():
        curves = member.f(u), *generator_gradients(member, ratio)
        for axes, x, curve in zip(grid[0], (u, ratio, ratio), curves, strict=True):
            axes.plot(x, curve, ":" if name == "gan" else "-", label=name)
    grid[0, 0].set(title="f", xlabel="u = p / q", ylabel="f(u)", ylim=(-3, 5))
    for axes, title in zip(grid[0, 1:], ("G's gradient: minimax", "G's gradient: non-saturating"), strict=True):
        axes.set(title=title, xlabel="log(p / q) at a sample", yscale="log", ylim=(1e-3, 1e3))
    grid[0, 1].set_ylabel("-d loss / d log(p / q)")
    grid[0, 0].legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(0.08, 1.05))
    for axes, (name, member) in zip(grid[1:].flat, F_DIVERGENCES.items(), strict=True):
        axes.plot(v, member.activation(v), color=DATA, label="data: g(V)")
        axes.plot(v, -member.fake(v), "--", color=GENERATOR, label="fakes: -f*(g(V))")
        best = member.optimal(torch.zeros(())).item()
        axes.axvline(best, color=DISCRIMINATOR, linestyle=":", label="optimal V at p = q")
        axes.set(title=name, ylim=(-6, 6))
    for axes in grid[1:, 0]:
        axes.set_ylabel("D's objective")
    for axes in grid[2]:
        axes.set_xlabel("D's output V")
    grid[1, 0].legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(0, 1.05))
    return figure


# A generator with two parameters


def adam(lr: float, beta2: float = 0.999) -> Callable[[Any], FusedAdam]:
    return lambda params: FusedAdam(params, lr=lr, beta1=0.5, beta2=beta2)


class Bell(nn.Module):
    """G(z) = mean + std z, as images [N, 1, 1, 1]."""

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(mean))
        self.log_std = nn.Parameter(torch.tensor(std).log())

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return (self.mean + self.log_std.exp() * z)[:, :, None, None]

    def density(self) -> Gaussian:
        return Gaussian(self.mean.item(), self.log_std.exp().item())


class LineGAN(GAN):
    """A GAN whose generator is a Gaussian on a line, so that its density is known."""

    generator: Bell
    prior = "normal"

    def __init__(self, mean: float, std: float, width: int = 64, **game: Any) -> None:
        super().__init__(image_size=1, channels=1, z_dim=1, hidden=1, d_hidden=1, **game)
        self.generator = Bell(mean, std)
        self.discriminator = ReLUDiscriminator(1, 1, width, layers=3)

    def bound(self, log_p: Tensor, x: Tensor) -> float:
        """E_p g_f(V) - E_q f*(g_f(V)) by quadrature, for a log density [n] over x [n]."""
        with torch.no_grad():
            output = self.discriminator(x.float()[:, None]).double()
        return F_DIVERGENCES[self.divergence].bound(output, log_p, self.generator.density().log_density(x), x)


def play(divergence: Divergence, start: Gaussian, steps: int, seed: int = 0) -> list[Gaussian]:
    """G's density during the minimax game on two modes, with two D steps per G step."""

    def make() -> LineGAN:
        return LineGAN(
            *start,
            divergence=divergence,
            objective="minimax",
            n_critic=2,
            optimizer=adam(2e-2),
            discriminator_optimizer=adam(5e-3),
            lr_scheduler=partial(CosineAnnealingLR, T_max=steps),
        )

    watch = Look(range(1, steps + 1), lambda gan: gan.generator.density())
    means, weights = zip(*MODES, strict=True)
    trained(make, Line([Gaussian(mean, 0.5) for mean in means], weights, batch_size=256), steps, seed, watch)
    return [start, *watch.found.values()]


def landscape(divergence: Divergence, mean: Tensor, std: Tensor) -> Tensor:
    """D_f [n, m] between the two modes and Gaussians with means [m] and standard deviations [n]."""
    member, log_p = F_DIVERGENCES[divergence], two_modes(NEAR)
    return torch.tensor(
        [
            [member.divergence(log_p, Gaussian(m, s).log_density(NEAR), NEAR) for m in mean.tolist()]
            for s in std.tolist()
        ]
    )


def f_gans(steps: int = 800) -> Figure:
    """A generator with two parameters against two modes: the Gaussian found by each divergence's game.

    Contours: the divergence between the data and N(mean, std^2), by quadrature; crosses: its minima, except those at
    the smaller mode. Curves: minimax games of a network D with G(z) = mean + std z, from two starts; they end near
    minima of their divergences. Pearson and KL have one minimum, which covers both modes (KL's game is slow where G has
    no samples). Reverse KL is lowest at one mode, with a worse covering minimum. GAN and Hellinger are lowest where G
    covers both; their minimum at one mode is shallow, and whether a game stays there depends on the seed.
    "jensen-shannon" has the same game as "gan" (after the univariate example of Nowozin et al. 2016, arXiv:1606.00709,
    with another mixture and two D steps per G step).
    """
    figure, (grid,) = panels(len(ON_THE_LINE), 1, 2.9, 3.6, sharex=True, sharey=True)
    mean, std = torch.linspace(-2.2, 2.2, 45), torch.linspace(0.36, 2.2, 40)
    exact = nearest()
    for axes, name in zip(grid, ON_THE_LINE, strict=True):
        heights = landscape(name, mean, std)
        heights -= heights.min()
        axes.contour(mean, std, heights, levels=[0.01 * 2**i for i in range(9)], colors="lightgrey", linewidths=0.8)
        for start in STARTS:
            axes.plot(*zip(*play(name, start, steps), strict=True), color=GENERATOR, linewidth=1, label="game")
            axes.plot(*start, "o", color=GENERATOR, markersize=4, label="start")
        for _, q in exact[name]:
            axes.plot(*q, "x", color=DATA, label="minima of the divergence")
        axes.set(title=name, xlabel="mean of G", xlim=(-2.2, 2.2), ylim=(0.36, 2.2))
    grid[0].set_ylabel("standard deviation of G")
    lines = dict(zip(*reversed(grid[0].get_legend_handles_labels()), strict=True))
    grid[0].legend(lines.values(), lines.keys(), fontsize=8, frameon=False, loc="lower left")
    return figure


# A ring in the plane


MLP: dict[str, Any] = {**RING, "architecture": "mlp", "width": 64}
MAXOUT: dict[str, Any] = {**RING, "hidden": 64, "d_hidden": 32, "pieces": 3, "optimizer": adam(2e-3)}
RELU: dict[str, Any] = {**RING, "hidden": 64, "d_hidden": 64, "layers_g": 4, "layers_d": 4, "batch_norm": False}
ON_THE_RING: dict[str, Callable[[], GANModule]] = {
    "GAN, non-saturating": lambda: GAN(**MAXOUT),
    "GAN, minimax": lambda: GAN(**MAXOUT, objective="minimax"),
    "MLPGAN": lambda: MLPGAN(**RELU, optimizer=adam(2e-3)),
    "MLPGAN, hinge": lambda: MLPGAN(**RELU, objective="hinge", optimizer=adam(2e-3)),
    "LSGAN": lambda: LSGAN(**MLP, optimizer=adam(2e-3)),
    "WGAN": lambda: WGAN(**MLP, clip=0.1, n_critic=2, optimizer=lambda params: RMSprop(params, lr=1e-3)),
    "WGANGP": lambda: WGANGP(**MLP, penalty=1.0, n_critic=2, optimizer=adam(2e-3, beta2=0.9)),
    "EBGAN": lambda: EBGAN(**RING, layers_g=3, hidden=64, d_hidden=64, margin=0.5, optimizer=adam(1e-3)),
}


def on_the_ring(make: Callable[[], GANModule], steps: int) -> tuple[Tensor, GaussianModes]:
    """After a short training: 2,000 samples [N, 2] in the ring's units, and their number of modes."""
    ring = Gaussians(layout="ring", batch_size=256)
    gan = trained(make, ring, steps, seed=0)
    points = gan.sample(seeds=range(2000)).flatten(1) * ring.scale
    return points, gaussian_modes(points, ring.centers, ring.sigma)


def objectives(steps: int = 600) -> Figure:
    """Eight objectives on a ring of eight narrow Gaussians, after the same short training.

    Samples, and circles around the modes; titles: the number of modes with a sample within three standard deviations,
    and the share of samples within three standard deviations of any mode. One seed, a few hundred steps, small
    networks, and learning rates for so few steps: the figure illustrates training and does not rank the objectives.
    """
    figure, grid = panels(4, 2, 2.7, 2.9, sharex=True, sharey=True)
    ring = Gaussians(layout="ring")
    for axes, (name, make) in zip(grid.flat, ON_THE_RING.items(), strict=False):
        points, (modes, quality, _) = on_the_ring(make, steps)
        axes.plot(*points.T, ".", color=GENERATOR, markersize=2, alpha=0.3)
        axes.plot(*ring.centers.T, "o", color=DATA, markersize=6, markerfacecolor="none")
        axes.set(xlim=(-1.4, 1.4), ylim=(-1.4, 1.4), aspect="equal", xticks=(-1, 0, 1), yticks=(-1, 0, 1))
        axes.set_title(f"{name}\n{modes} of 8 modes, {quality:.0%} within 3 sigma", fontsize=9)
    for axes in grid[1]:
        axes.set_xlabel("x")
    for axes in grid[:, 0]:
        axes.set_ylabel("y")
    return figure
