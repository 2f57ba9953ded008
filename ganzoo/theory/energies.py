"""Energies in EBGAN (Zhao, Mathieu, LeCun 2016, arXiv:1609.03126)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple, cast

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from ganzoo.core.frozen import evaluating
from ganzoo.data import Digits, Gaussians
from ganzoo.games.tabular import ebgan_play, ebgan_value
from ganzoo.networks.autoencoder import Energy, MLPAutoEncoder
from ganzoo.theory.base import DATA, DISCRIMINATOR, GENERATOR, panels, show
from ganzoo.theory.parts import Look, digits, seeded, seeding, train, trained
from ganzoo.variants.ebgan import EBGAN

# The margin


class Passthrough(nn.Module):
    """A player that returns its input; as D, it returns it as the energy, without a code."""

    def forward(self, x: Tensor, y: None = None) -> tuple[Tensor, Tensor]:
        return x, x


def hinge_terms(energies: Tensor, margin: float) -> dict[str, tuple[Tensor, Tensor]]:
    """Each term [n] of EBGAN's losses, and its derivative [n], for one real and one fake with the same energy."""
    game = EBGAN(image_size=1, channels=1, z_dim=1, hidden=1, d_hidden=1, margin=margin)
    game.generator, game.discriminator = nn.Identity(), Passthrough()
    terms = {
        "D, real": lambda e: game.discriminator_loss({"image": e, "z": e})["real"],
        "D, fake": lambda e: game.discriminator_loss({"image": e, "z": e})["fake"],
        "G, fake": lambda e: game.generator_loss({"z": e})["fake"],
    }
    return {
        name: (torch.vmap(term)(energies), torch.vmap(torch.func.grad(term))(energies)) for name, term in terms.items()
    }


def hinge() -> Figure:
    """EBGAN's losses: above the margin, fakes affect G's loss but not D's.

    L_D = D(x) + max(0, m - D(G(z))) and L_G = D(G(z)) (Zhao et al. 2016, arXiv:1609.03126, eq. 1 and 2), here m = 10. D
    always lowers the energy of reals, and raises that of fakes with slope 1 up to m. G lowers the energy of fakes with
    slope 1 everywhere. With the negative of D's term as loss (dashed), G would learn nothing from fakes above m.
    """
    margin = 10.0
    energies = torch.linspace(0, 20, 201, dtype=torch.float64)
    terms = hinge_terms(energies, margin)
    figure, grid = panels(2, 2, 4.4, 2.4, sharex=True, sharey="row")
    for row, axes in enumerate(grid):
        real, lifted, lowered = (terms[name][row] for name in ("D, real", "D, fake", "G, fake"))
        axes[0].plot(energies, real, color=DATA, label="real: D(x)")
        axes[0].plot(energies, lifted, color=DISCRIMINATOR, label="fake: max(0, m - D(G(z)))")
        axes[1].plot(energies, lowered, color=GENERATOR, label="fake: D(G(z))")
        axes[1].plot(energies, -lifted, "--", color=DISCRIMINATOR, label="minus D's term: -max(0, m - D(G(z)))")
        axes[0].set_ylabel(("loss of one image", "d loss / d energy")[row])
        for one in axes:
            one.axvline(margin, color="grey", linewidth=0.8, linestyle=":")
    for axes, title in zip(grid[0], ("L_D", "L_G"), strict=True):
        axes.set(title=title, ylim=(-11, 21))
        axes.text(margin, -10, " m", color="grey")
        axes.legend(fontsize=8, frameon=False, loc="upper left")
    for axes in grid[1]:
        axes.set(xlabel="energy of the image", yticks=(-1, 0, 1), ylim=(-1.2, 1.2), xticks=(0, 5, 10, 15, 20))
    return figure


# The energy at equilibrium


class TableGame(NamedTuple):
    """EBGAN with tables and m = 1: initially, and after each step."""

    value: Tensor  # V [steps + 1]
    real: Tensor  # mean energy of reals [steps + 1]
    fake: Tensor  # and of fakes
    energies: Tensor  # of all atoms [steps + 1, n]
    distance: Tensor  # sum |p_data - p_G| [steps + 1]


def table_games(starts: Sequence[float], steps: int) -> dict[float, TableGame]:
    """The game over 10 atoms, with D = start everywhere and a G far from the data."""
    p, q = (torch.randn(10, generator=seeded(k), dtype=torch.float64).softmax(0) for k in (0, 1))
    found = {}
    for start in starts:
        flat = torch.full_like(p, start)
        played = [(q, flat), *islice(ebgan_play(p, q, flat, margin=1), steps)]
        qs, energies = (torch.stack(values) for values in zip(*played, strict=True))
        value = torch.stack([ebgan_value(p, *now, margin=1) for now in played])
        found[start] = TableGame(value, energies @ p, (qs * energies).sum(1), energies, (qs - p).abs().sum(1))
    return found


def equilibrium_energies(steps: int = 1000) -> Figure:
    """Reals and fakes of EBGAN end at the same energy, which may be any in [0, m]; here m = 1, and D is constant at
    first.

    D and G are tables over ten atoms, and G starts far from the data; each colour is one game. At the equilibrium
    p_G = p_data and V = m (Zhao et al. 2016, arXiv:1609.03126, theorem 1), and D is constant (theorem 2). The theorem
    does not determine the constant: D's gradient p_data - p_G sums to 0, so the mean energy is conserved until an
    energy is clamped at 0 or m, as for the initial values 0, 0.1, 0.3, 0.9 and 1.
    """
    figure, (grid,) = panels(3, 1, 3.6, 3.4, sharex=True)
    time = torch.arange(1, steps + 2)
    starts = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
    for k, (start, game) in enumerate(table_games(starts, steps).items()):
        color = f"C{k}"
        grid[0].plot(time, game.value, color=color, linewidth=1, label=f"{start:g}")
        grid[1].plot(time, game.real, color=color, linewidth=1)
        grid[1].plot(time, game.fake, color=color, linewidth=1, linestyle="--")
        if start in (0.1, 0.5, 0.9):
            grid[2].plot(time, game.energies, color=color, linewidth=0.7)
    grid[0].axhline(1, color="grey", linewidth=0.8, linestyle=":")
    grid[0].legend(title="initial D", fontsize=8, title_fontsize=8, frameon=False, ncols=2)
    grid[0].set(title="value of the game", ylabel="V / m")
    grid[1].plot([], [], color="grey", label="reals")
    grid[1].plot([], [], color="grey", linestyle="--", label="fakes")
    grid[1].legend(fontsize=8, frameon=False)
    grid[1].set(title="mean energies", ylabel="energy / m", ylim=(-0.03, 1.03))
    grid[2].set(title="the ten energies of three games", ylabel="energy / m", ylim=(-0.03, 1.03))
    for axes in grid:
        axes.set(xscale="log", xlabel="steps + 1")
    return figure


# The game in the plane


class Moment(NamedTuple):
    """A snapshot of an EBGAN in the plane."""

    step: int
    plane: Tensor  # energies [n, n] over `AXIS` x `AXIS`
    points: Tensor  # fakes [k, 2]
    real: float  # mean energy of reals
    fake: float  # and of fakes


AXIS = torch.linspace(-1.2, 1.2, 97)


def landscape(steps: int, seed: int = 0) -> tuple[Tensor, float, list[Moment]]:
    """An EBGAN on the ring of eight Gaussians: some reals [400, 2], the margin, and 30 snapshots of its training.

    As `configs/ebgan/ring.yaml`, with a two-layer encoder: the energies of one layer are too smooth for eight modes.
    """
    data = Gaussians(layout="ring", n=10_000, batch_size=256, seed=seed)
    reals = data.make_dataset("train").images[:400]
    plane = torch.cartesian_prod(AXIS, AXIS)[:, :, None, None]

    def look(model: EBGAN) -> tuple[Tensor, Tensor, float, float]:
        fakes = model.sample(seeds=range(400))
        with evaluating(model.discriminator):
            everywhere, real, fake = (model.discriminator(x)[0] for x in (plane, reals, fakes))
        return everywhere.view(len(AXIS), len(AXIS)), fakes.flatten(1), real.mean().item(), fake.mean().item()

    def make() -> EBGAN:
        return EBGAN(image_size=1, channels=2, z_dim=2, layers_g=3, layers_d=3, hidden=128, d_hidden=128, margin=0.5)

    camera = Look(range(0, steps + 1, max(1, steps // 30)), look)
    trained(make, data, steps, seed, camera)
    return reals.flatten(1), 0.5, [Moment(step, *seen) for step, seen in camera.found.items()]


def energy_landscape(steps: int = 1500) -> Figure:
    """Energy over the plane during training: EBGAN on eight Gaussians (black); fakes are orange.

    D's auto-encoder (Zhao et al. 2016, arXiv:1609.03126) has low energy (white) at the data, and raises the energy of
    fakes while it is below m, the dotted line; fakes move towards low energy. At first the energy is the distance from
    the origin; then fakes follow local minima; then the region of low energy encloses the data, and the rest of the
    plane is far above m. The region of low energy connects the modes, and fakes also lie between them. Last panel: mean
    energies. That of fakes stays near m and above that of reals, so the game has not converged.
    """
    reals, margin, moments = landscape(steps)
    figure, grid = panels(3, 2, 3.2, 3.1)
    last = len(moments) - 1
    shown = [moments[round(share * last)] for share in (0, 1 / 15, 1 / 5, 1 / 2, 1)]
    levels = torch.linspace(0, 3 * margin, 31)
    for axes, moment in zip(grid.flat, shown, strict=False):
        heights = axes.contourf(AXIS, AXIS, moment.plane.T, levels=levels, extend="max", cmap="Blues")
        axes.contour(AXIS, AXIS, moment.plane.T, levels=[margin], colors=DISCRIMINATOR, linestyles=":", linewidths=1)
        axes.plot(*moment.points.T, ".", color=GENERATOR, markersize=2)
        axes.plot(*reals.T, ".", color=DATA, markersize=3)
        axes.set(aspect="equal", title=f"step {moment.step}", xlabel="x", ylabel="y")
    figure.colorbar(heights, ax=grid[0, 2], label="energy", ticks=[0, margin, 2 * margin, 3 * margin])
    axes = grid[1, 2]
    at = [moment.step for moment in moments]
    axes.plot(at, [moment.plane.mean() for moment in moments], color=DISCRIMINATOR, label="the plane")
    axes.plot(at, [moment.fake for moment in moments], color=GENERATOR, label="fakes")
    axes.plot(at, [moment.real for moment in moments], color=DATA, label="reals")
    axes.axhline(margin, color="grey", linestyle=":", linewidth=0.8, label="margin m")
    axes.set(title="mean energies", xlabel="step", ylabel="energy", ylim=(0, None))
    axes.legend(fontsize=8, frameon=False)
    return figure


# Energies of images


def image_sets() -> dict[str, Tensor]:
    """Training digits, held-out digits, and images without digits: shuffled pixels, noise."""
    generator = seeded(0)
    real, held_out = digits("train"), digits("test")
    order = torch.rand(len(held_out), 64, generator=generator).argsort(1)
    return {
        "training digits": real,
        "held-out digits": held_out,
        "shuffled pixels": held_out.flatten(1).gather(1, order).view_as(held_out),
        "noise": torch.rand(held_out.shape, generator=generator) * 2 - 1,
    }


def trained_on_reals(steps: int, seed: int = 0) -> Energy:
    """An auto-encoder with 32 units, trained to reconstruct digits only, without fakes."""
    x = digits("train")
    with seeding(seed):
        d = MLPAutoEncoder(8, 1, hidden=32)
    train(d, lambda: d(x)[0].mean(), steps)
    return d


def ebgan_digits(steps: int, seed: int = 0, **more: Any) -> EBGAN:
    """`configs/ebgan/digits.yaml`, without the averaged generator."""
    sizes = {"image_size": 8, "z_dim": 32, "layers_g": 4, "hidden": 256, "d_hidden": 64, "margin": 3.0, **more}
    return cast(EBGAN, trained(lambda: EBGAN(**sizes), Digits(seed=seed), steps, seed).eval())


def energies_of(d: nn.Module, sets: dict[str, Tensor]) -> dict[str, Tensor]:
    """Energies [N] of each set of images."""
    with torch.no_grad(), evaluating(d):
        return {name: d(images)[0] for name, images in sets.items()}


def noise_energies(steps: int = 1000) -> Figure:
    """Energies of images other than digits: an auto-encoder reconstructs digits better than noise, even without fakes.

    Left: an auto-encoder trained on digits only; right: EBGAN's D (Zhao et al. 2016, arXiv:1609.03126), trained with
    fakes. Held-out digits have the energies of training digits; noise and digits with shuffled pixels have higher ones.
    EBGAN's fakes have energies like its reals, near m. Bottom: images above their reconstructions, with energies.
    """
    sets, gan = image_sets(), ebgan_digits(steps)
    pairs: dict[str, tuple[Any, dict[str, Tensor]]] = {
        "auto-encoder trained on reals only": (trained_on_reals(steps), sets),
        "EBGAN's discriminator": (gan.discriminator, {**sets, "fakes": gan.sample(seeds=range(200))}),
    }
    colors = dict(zip([*sets, "fakes"], (DATA, "grey", "tab:purple", "tab:red", GENERATOR), strict=True))
    energies = {title: energies_of(d, images) for title, (d, images) in pairs.items()}
    top = max(e.max().item() for of_d in energies.values() for e in of_d.values())
    figure, grid = panels(2, 2, 5.2, 2.3, height_ratios=(2, 1))
    for (above, below), (title, (d, images)) in zip(grid.T, pairs.items(), strict=True):
        for name, energy in energies[title].items():
            bins = torch.linspace(0, top, 61)
            above.hist(energy, bins, density=True, histtype="step", color=colors[name], label=name)
        above.set(title=title, xlabel="energy", ylabel="density", xlim=(0, top))
        chosen = {name: [len(x) // 3, 2 * len(x) // 3] for name, x in images.items()}
        some = torch.cat([images[name][at] for name, at in chosen.items()])
        with torch.no_grad():
            show(below, torch.cat([some, d.decoder(d.encoder(some))]), len(some))
        labels = [(name, energies[title][name][k]) for name, at in chosen.items() for k in at]
        for k, (name, energy) in enumerate(labels):
            below.text(9 * k + 3.5, -1.5, f"{energy:.1f}", ha="center", fontsize=8, color=colors[name])
    grid[0, 1].axvline(gan.margin.item(), color="grey", linestyle=":", linewidth=0.8, label="margin m")
    for axes in grid[0]:
        axes.legend(fontsize=8, frameon=False)
    return figure
