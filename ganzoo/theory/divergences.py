"""The optimal discriminator, V, divergences and distances of known densities."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ganzoo.functional.divergences import (
    F_DIVERGENCES,
    Gaussian,
    gaussian_hellinger,
    gaussian_kl,
    gaussian_pearson,
    gaussian_wasserstein_1,
    jensen_shannon,
    optimal_logits,
    value,
)
from ganzoo.games import tabular
from ganzoo.games.base import array
from ganzoo.games.rules import gradient, trajectory
from ganzoo.theory.base import DATA, DISCRIMINATOR, GENERATOR, panels
from ganzoo.variants.gan import GAN

X = torch.linspace(-16, 16, 4001, dtype=torch.float64)
LOG_4 = math.log(4)
STAGES = (Gaussian(2.5, 0.6), Gaussian(1.0, 0.8), Gaussian(0.0, 1.0))  # of G; the last one is the data
MODES = ((-1.5, 0.4), (1.5, 0.6))  # mean and weight; each has the standard deviation 1/2
SIGMAS = (0.1, 0.3, 1.0)  # of the noise on parallel lines
THETA = torch.arange(-80, 81, dtype=torch.float64) / 40


# D* and V


class Stage(NamedTuple):
    """Densities and D* = p / (p + q) over X [n]; V(D*) and JSD(p, q)."""

    p: Tensor
    q: Tensor
    d: Tensor
    v: float
    jsd: float


def stages() -> list[Stage]:
    """Densities of G approaching the data."""
    log_p, found = STAGES[-1].log_density(X), []
    for q in STAGES:
        log_q = q.log_density(X)
        best = optimal_logits(log_p, log_q)
        v, jsd = value(best, log_p, log_q, X), jensen_shannon(log_p, log_q, X)
        found.append(Stage(log_p.exp(), log_q.exp(), best.sigmoid(), v, jsd))
    return found


def optimal_discriminator() -> Figure:
    """The optimal discriminator is D* = p / (p + q), and V(D*) = -log 4 + 2 JSD(p, q).

    G's density q approaches the data's density p. D* is high where p > q and 1/2 where p = q. If G equals the data, D*
    is 1/2 everywhere, and V(D*) = -log 4, its minimum (Goodfellow et al. 2014, arXiv:1406.2661, figure 1, proposition
    1, theorem 1).
    """
    figure, (grid,) = panels(3, 1, 3.6, 3.6, sharex=True, sharey=True)
    for axes, stage in zip(grid, stages(), strict=True):
        axes.plot(X, stage.p, ":", color=DATA, linewidth=2.5, label="data p")
        axes.plot(X, stage.q, color=GENERATOR, label="generator q")
        axes.plot(X, stage.d, "--", color=DISCRIMINATOR, label="D* = p / (p + q)")
        axes.axhline(0.5, color="lightgrey", linewidth=0.5, zorder=0)
        axes.set(xlim=(-3.5, 4.5), ylim=(0, 1.05), xlabel="x")
        bound = f"-log 4 + 2 · {stage.jsd:.3f} = {2 * stage.jsd - LOG_4:.3f}"
        axes.set_title(f"V(D*) = {stage.v:.3f}\n{bound}", fontsize=10)
    grid[0].set_ylabel("density; D")
    grid[2].legend(fontsize=9, frameon=False, loc="upper center")
    return figure


# Density space


class Descent(NamedTuple):
    """The data's probabilities [n], G's after each step [steps + 1, n], and V(D*) [steps + 1]."""

    p: Tensor
    q: Tensor
    v: Tensor


def descents(steps: int) -> dict[str, Descent]:
    """G as a table of 10 atoms against the optimal D, starting from the data's mirror image."""
    p = torch.softmax(array([1, 2, 3, 3, 2, 1, 0, -1, -2, -2]), 0)
    densities, points = [p.flip(0)], trajectory(tabular.TabularGAN(p), gradient, p.flip(0).log(), steps, lr=1.0)
    for _ in range(steps):
        densities.append(tabular.density_step(p, densities[-1]))
    both = {"mirror descent on q": torch.stack(densities), "gradient descent on logits": torch.softmax(points, 1)}
    return {name: Descent(p, q, torch.stack([tabular.value(p, one) for one in q])) for name, q in both.items()}


def density_space(steps: int = 300) -> Figure:
    """In the space of densities the game converges: V decreases at each step, to -log 4.

    G is a table of ten probabilities, and D is always D*. V is convex in the density, and a mirror descent step of size
    1 halves the distance to the data. In the logits of a softmax V also decreases, but slowly where q is small, since
    the gradient with respect to a logit is multiplied by q (Goodfellow et al. 2014, arXiv:1406.2661, proposition 2).
    Networks have no such guarantee.
    """
    figure, (grid,) = panels(3, 1, 4, 3.6)
    moments = ((0, 1, 3, 10), (0, 30, 100, 300))
    for axes, at, (name, (p, q, v)) in zip(grid, moments, descents(steps).items(), strict=False):
        for n, colour in zip(at, ("moccasin", "sandybrown", GENERATOR, "saddlebrown"), strict=True):
            if n <= steps:
                axes.plot(range(10), q[n], ".-", color=colour, label=f"q after {n} steps")
        axes.plot(range(10), p, ":", color=DATA, linewidth=2.5, label="data p")
        axes.set(title=name, xlabel="atom", ylabel="probability", ylim=(0, 0.5))
        axes.legend(fontsize=8, frameon=False, loc="upper center", ncols=2)
        grid[2].loglog(range(1, steps + 1), v[1:] + LOG_4, label=name)
    grid[2].set(title="distance of V from its minimum", xlabel="step", ylabel="V(D*) + log 4, nats", ylim=(1e-6, 1))
    grid[2].legend(fontsize=8, frameon=False)
    return figure


# Saturation


class Passthrough(torch.nn.Module):
    """A player that returns its input."""

    def forward(self, x: Tensor, y: None = None) -> Tensor:
        return x


def generator_losses(logits: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """For each of GAN's objectives, G's loss [n] and its derivative [n] as functions of D's logits [n] of G(z)."""
    found = {}
    for objective in ("minimax", "non-saturating", "maximum-likelihood"):
        gan = GAN(image_size=1, hidden=1, d_hidden=1, objective=objective)
        gan.generator, gan.discriminator = Passthrough(), Passthrough()

        def loss(logit: Tensor, gan: GAN = gan) -> Tensor:
            return gan.generator_loss({"z": logit})["fake"]

        found[objective] = torch.vmap(loss)(logits), torch.vmap(torch.func.grad(loss))(logits)
    return found


def saturation() -> Figure:
    """G's loss and gradient as functions of D's logit: minimax saturates where D rejects fakes, as at the start of
    training.

    Left: G's loss; right: its gradient with respect to the logit. Where D is certain that an image is fake, minimax has
    the gradient D = sigmoid(logit), about e^logit, and the non-saturating loss 1 - D, about 1. Maximum likelihood has
    the gradient e^logit everywhere: few samples that D considers real dominate it, hence its variance (Goodfellow 2016,
    arXiv:1701.00160, figure 16).
    """
    logits = torch.linspace(-8, 3, 221, dtype=torch.float64)
    figure, (grid,) = panels(2, 1, 4.6, 3.6, sharex=True)
    for name, (loss, slope) in generator_losses(logits).items():
        grid[0].plot(logits, loss, label=name)
        grid[1].plot(logits, -slope, label=name)
    grid[0].set(title="G's loss", ylim=(-8, 8.5), ylabel="loss of one sample")
    grid[1].set(title="G's gradient", yscale="log", ylim=(1e-4, 30), ylabel="-d loss / d logit")
    for axes in grid:
        axes.axvspan(-8, -4, color="whitesmoke", zorder=0)
        axes.axvline(0, color="lightgrey", linewidth=0.5, zorder=0)
        axes.set_xlabel("D's logit at G(z); 0 means D = 1/2")
    grid[0].text(-6, -7.5, "D rejects fakes", ha="center", color="grey", fontsize=9)
    grid[0].legend(fontsize=8, frameon=False)
    return figure


# The closest Gaussian


def nearest_gaussian(log_p: Tensor, f: Callable[[Tensor], Tensor], x: Tensor, start: Gaussian) -> Gaussian:
    """The Gaussian q that minimises D_f(p || q), by descent from `start`, for log densities `log_p` [n] over x [n]."""
    weights = array([start.mean, math.log(start.std)]).requires_grad_()
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe", tolerance_change=1e-12)

    def loss() -> Tensor:
        optimizer.zero_grad()
        mean, log_std = weights
        log_q = -(((x - mean) / log_std.exp()) ** 2) / 2 - log_std - math.log(2 * math.pi) / 2
        total = torch.trapezoid(log_q.exp() * f((log_p - log_q).exp()), x)
        total.backward()
        return total.detach()

    optimizer.step(loss)
    return Gaussian(weights[0].item(), weights[1].exp().item())


def two_modes(x: Tensor) -> Tensor:
    """Log density [n] of a mixture of two Gaussians."""
    return torch.stack([Gaussian(mean, 0.5).log_density(x) + math.log(weight) for mean, weight in MODES]).logsumexp(0)


def nearest() -> dict[str, list[tuple[float, Gaussian]]]:
    """For each f-divergence, (D_f, q) of descents from the larger mode and from a wide start, in ascending order."""
    x = X[X.abs() < 6]  # beyond, p / q overflows
    log_p, starts = two_modes(x), (Gaussian(1.2, 0.6), Gaussian(0.3, 1.5))
    found = {}
    for name, member in F_DIVERGENCES.items():
        ends = [nearest_gaussian(log_p, member.f, x, start) for start in starts]
        one, other = sorted((member.divergence(log_p, q.log_density(x), x), q) for q in ends)
        found[name] = [one] if abs(one[1].std - other[1].std) < 1e-3 else [one, other]
    return found


def covers_or_picks() -> Figure:
    """The Gaussian closest to a mixture of two modes: KL and Pearson cover both modes, reverse KL selects one.

    Solid: the closest Gaussian; dashed: another local minimum; legends give the divergence. Hellinger,
    Jensen-Shannon and "gan" (Jensen-Shannon minus log 4) have minima of both kinds, and for these modes the covering
    one is lower: a GAN that selects a mode does not minimise its divergence (Nowozin et al. 2016, arXiv:1606.00709,
    section 2.5; Goodfellow 2016, arXiv:1701.00160, section 3.2.5).
    """
    figure, grid = panels(3, 2, 3.6, 2.8, sharex=True, sharey=True)
    for axes, (name, ends) in zip(grid.flat, nearest().items(), strict=True):
        axes.fill_between(X, two_modes(X).exp(), color="lightgrey", label="data p")
        for (divergence, q), style, text in zip(ends, ("-", "--"), ("closest", "local minimum"), strict=False):
            axes.plot(X, q.log_density(X).exp(), style, color=GENERATOR, label=f"{text}: {divergence:.3f}")
        axes.set(xlim=(-4.5, 4.5), ylim=(0, 1.0), title=name)
        axes.legend(fontsize=8, frameon=False, loc="upper left")
    for axes in grid[-1]:
        axes.set_xlabel("x")
    for axes in grid[:, 0]:
        axes.set_ylabel("density")
    return figure


# Parallel lines


def lines(theta: Tensor) -> dict[str, Tensor]:
    """W and JSD [n] of two parallel lines at distance theta [n], and JSD with Gaussian noise of SIGMAS on both.

    Both are uniform along the lines, so the problem reduces to two points.
    """
    points = [(array([1, 0]), array([0, 1]) if one else array([1, 0])) for one in theta]
    found = {
        "W": array([gaussian_wasserstein_1(Gaussian(0, 0), Gaussian(one, 0)) for one in theta.tolist()]),
        "JSD": torch.stack([(tabular.value(p, q) + LOG_4) / 2 for p, q in points]),
    }
    for sigma in SIGMAS:
        means = (theta / sigma / 2).tolist()  # symmetric, in units of sigma: JSD is invariant
        both = [[Gaussian(side * mean, 1.0).log_density(X) for side in (-1, 1)] for mean in means]
        found[f"sigma {sigma}"] = array([jensen_shannon(log_p, log_q, X) for log_p, log_q in both])
    return found


def parallel_lines() -> Figure:
    """Disjoint lines have a JSD of log 2 at any distance, so G gets no gradient.

    The points (0, u) against (theta, u), u uniform in [0, 1]: W = |theta| has a gradient everywhere; JSD is constant,
    and jumps to 0 where the lines coincide. With noise on both, the densities overlap and JSD has a gradient, but only
    within a few standard deviations of the noise (Arjovsky et al. 2017, arXiv:1701.07875, example 1; Arjovsky & Bottou
    2017, arXiv:1701.04862, section 3).
    """
    figure, (grid,) = panels(3, 1, 3.8, 3.4, sharex=True)
    found = lines(THETA)
    without = THETA != 0
    grid[0].plot(THETA, found["W"], color="tab:green", label="W")
    grid[0].plot(THETA, torch.where(without, found["JSD"], math.nan), color=DISCRIMINATOR, label="JSD")
    grid[0].plot(THETA[~without], found["JSD"][~without], "o", color=DISCRIMINATOR)
    grid[0].set(title="without noise", ylabel="distance")
    for sigma, style in zip(SIGMAS, (":", "--", "-"), strict=True):
        jsd = found[f"sigma {sigma}"]
        (slope,) = torch.gradient(jsd, spacing=(THETA,))
        grid[1].plot(THETA, jsd, style, color=DISCRIMINATOR, label=f"JSD, sigma {sigma}")
        grid[2].plot(THETA, slope.abs(), style, color=DISCRIMINATOR, label=f"JSD, sigma {sigma}")
    grid[1].axhline(math.log(2), color="lightgrey", linewidth=0.5, zorder=0)
    grid[1].set(title="with noise on both lines", ylabel="JSD, nats", ylim=(0, 1))
    grid[2].axhline(1, color="tab:green", label="W, without noise")
    grid[2].set(title="gradient with respect to theta", ylabel="|slope|", yscale="log", ylim=(1e-3, 100))
    for axes in grid:
        axes.set_xlabel("theta")
        axes.legend(fontsize=8, frameon=False, loc="upper center")
    return figure


# Closed forms and bounds


def closed(theta: float) -> dict[str, float]:
    """Divergences of N(0, 1), the data, and N(theta, 1); "jensen-shannon" is 2 JSD, by quadrature."""
    p, q = Gaussian(0.0, 1.0), Gaussian(theta, 1.0)
    return {
        "kl": gaussian_kl(p, q),
        "reverse-kl": gaussian_kl(q, p),
        "pearson": gaussian_pearson(p, q),
        "hellinger": gaussian_hellinger(p, q),
        "jensen-shannon": 2 * jensen_shannon(p.log_density(X), q.log_density(X), X),
        "W1": gaussian_wasserstein_1(p, q),
    }


def stale_bound(name: str, theta: float, trained_at: float) -> float:
    """The bound for N(theta, 1) against N(0, 1) of the output optimal for N(trained_at, 1): at most D_f."""
    log_p, log_then, log_q = (Gaussian(mean, 1.0).log_density(X) for mean in (0.0, trained_at, theta))
    return F_DIVERGENCES[name].bound(F_DIVERGENCES[name].optimal(log_p - log_then), log_p, log_q, X)


def bounds() -> Figure:
    """Divergences of N(0, 1) and N(theta, 1), and the bound given by a D that is optimal for another theta.

    First panel: all divergences; Jensen-Shannon (2 JSD) and Hellinger flatten, as they are bounded by 2 log 2 and 2.
    Other panels: the discriminator of an f-GAN gives a lower bound. A D trained for G at 1 (dot) gives the exact
    divergence and slope there, so G can follow it for a small step. Elsewhere the bound is too low, even negative: G
    minimises the bound, not the divergence, and D must be retrained (Nowozin et al. 2016, arXiv:1606.00709, eq. 4).
    """
    figure, grid = panels(3, 2, 3.8, 3.2)
    theta = torch.linspace(0, 4, 81, dtype=torch.float64).tolist()
    curves = [closed(one) for one in theta]
    for name in curves[0]:
        style = "--" if name == "reverse-kl" else "-"  # equal to KL for these densities
        grid[0, 0].plot(theta, [one[name] for one in curves], style, label=name)
    grid[0, 0].set(title="all divergences", yscale="log", ylim=(1e-2, 30))
    for axes, name in zip(grid.flat[1:], [name for name in curves[0] if name in F_DIVERGENCES], strict=True):
        top = 1.1 * closed(2.0)[name]
        axes.plot(theta, [one[name] for one in curves], color=DATA, label="divergence")
        axes.plot(
            theta, [stale_bound(name, one, 1.0) for one in theta], color=DISCRIMINATOR, label="bound, D trained at 1"
        )
        axes.plot(1, closed(1.0)[name], "o", color=DISCRIMINATOR)
        axes.set(title=name, xlim=(0, 2), ylim=(-top / 2, top))
        axes.axhline(0, color="lightgrey", linewidth=0.5, zorder=0)
    for axes in grid.flat:
        axes.set(xlabel="theta", ylabel="divergence")
        axes.legend(fontsize=8, frameon=False)
    return figure
