"""Minibatches in EBGAN: diverse gradients, and the pull-away term (Zhao et al. 2016, arXiv:1609.03126)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import normalize, relu, softplus

from ganzoo.functional.losses import log_fake, log_real
from ganzoo.functional.penalties import pull_away as f_pt
from ganzoo.networks.autoencoder import MLPAutoEncoder
from ganzoo.theory.base import DISCRIMINATOR, panels, show
from ganzoo.theory.energies import ebgan_digits
from ganzoo.theory.parts import digits, seeded, seeding

# Diversity of gradients


class Diversity(NamedTuple):
    """Cosines [n, n] between the gradients of a minibatch of n images."""

    weights: Tensor  # on the encoder's first weights, of reals
    output: Tensor  # on G's output, of fakes

    def ranks(self) -> tuple[float, float]:
        """Effective rank, n^2 / sum of squared cosines: n if all are orthogonal, 1 if all are parallel."""
        weights, output = (len(cosines) ** 2 / cosines.square().sum().item() for cosines in self)
        return weights, output


LOSSES = ("energy", "logistic")


def diversity(steps: int, seed: int = 0) -> dict[int, dict[str, Diversity]]:
    """64 digits, sorted by class, against 64 noise images: each loss's gradients after 0, 1, 2, 4 ... and `steps`
    steps.

    Both losses have the same encoder, followed by a decoder for the energy, or a logit for the logistic loss.
    """
    x = digits("train")[::22][:64]
    fakes = torch.rand(64, 1, 8, 8, generator=seeded(0)) * 2 - 1
    with seeding(seed):
        auto_encoder: Any = MLPAutoEncoder(8, 1, hidden=64)
        logistic: Any = nn.Sequential(MLPAutoEncoder(8, 1, hidden=64).encoder, nn.Linear(64, 1), nn.Flatten(0))
    optimizer = torch.optim.Adam([*auto_encoder.parameters(), *logistic.parameters()], 1e-3)  # each has its own weights

    def cosines(loss: Callable[[Tensor], Tensor], weight: Tensor) -> Diversity:
        of_weights = torch.stack([torch.autograd.grad(loss(one[None]).sum(), weight)[0] for one in x])
        g = fakes.clone().requires_grad_()
        (of_output,) = torch.autograd.grad(loss(g).sum(), g)
        rows = (normalize(gradients.flatten(1).double()) for gradients in (of_weights, of_output))
        return Diversity(*(row @ row.T for row in rows))

    found = {}
    for step in range(steps + 1):
        if step == steps or step & (step - 1) == 0:  # 0 and powers of 2
            energy = cosines(lambda one: auto_encoder(one)[0], auto_encoder.encoder[1].weight)
            entropy = cosines(lambda one: softplus(-logistic(one)), logistic[0][1].weight)
            found[step] = dict(zip(LOSSES, (energy, entropy), strict=True))
        loss = auto_encoder(x)[0].mean() + relu(10 - auto_encoder(fakes)[0]).mean()
        loss = loss - log_real(logistic(x)) - log_fake(logistic(fakes))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return found


def gradient_diversity(steps: int = 500) -> Figure:
    """In a minibatch the gradients of an energy are diverse, those of a logistic loss are similar.

    Cosines between the gradients of 64 digits, sorted by class, with respect to D's first weights: a logistic loss has
    two targets, a reconstruction as many as images (Zhao et al. 2016, arXiv:1609.03126, section 2.3). The effective
    rank is n^2 over the sum of squared cosines, 64 if all are orthogonal. Before training the ranks are 7 to 12 for the
    energy and 4 to 6 for the logistic loss; after it, 33 to 36 and 4 to 5. This does not hold for G: gradients with
    respect to the pixels of 64 fakes (here noise) are diverse at first for an energy, but finally have an effective
    rank of little more than 1, as for the logistic loss.
    """
    found = diversity(steps)
    figure, grid = panels(3, 2, 3.2, 3.0)
    colors = dict(zip(LOSSES, (DISCRIMINATOR, "tab:green"), strict=True))
    for row, step in zip(grid, (0, steps), strict=True):
        for axes, (loss, one) in zip(row, found[step].items(), strict=False):
            heat = axes.imshow(one.weights.numpy(), cmap="RdBu_r", vmin=-1, vmax=1)
            axes.set_title(f"{loss}, step {step}: rank {one.ranks()[0]:.1f}", fontsize=10)
            axes.set(xticks=(), yticks=(), xlabel="digits", ylabel="digits")
    figure.colorbar(heat, ax=grid[:, 1], label="cosine between gradients w.r.t. D's weights", shrink=0.7)
    for k, (axes, title) in enumerate(zip(grid[:, 2], ("D's weights", "fakes"), strict=True)):
        for loss in LOSSES:
            ranks = [one[loss].ranks()[k] for one in found.values()]
            axes.plot(list(found), ranks, ".-", color=colors[loss], label=loss)
        axes.set_xscale("symlog", linthresh=1)
        axes.set(title=f"gradients w.r.t. {title}", xlabel="step", ylabel="effective rank (at most 64)", ylim=(0, None))
        axes.legend(fontsize=8, frameon=False)
    return figure


# The pull-away term


class Pulled(NamedTuple):
    """Fakes of an EBGAN trained with a pull-away term."""

    fakes: Tensor  # [n, 1, 8, 8]
    cosines: Tensor  # of their codes [n, n]
    term: float  # f_PT of their codes
    reached: int  # training digits that are nearest to some fake


def spread(images: Tensor, data: Tensor) -> int:
    """Number of rows of `data` that are nearest to some of `images`."""
    return len(torch.cdist(images.flatten(1), data.flatten(1)).argmin(1).unique())


def pulled(weights: Sequence[float], steps: int, seed: int = 0) -> dict[float, Pulled]:
    """400 fakes of an EBGAN on digits for each weight of the pull-away term."""
    real, found = digits("train"), {}
    for weight in weights:
        model = ebgan_digits(steps, seed, pull_away_weight=weight)
        fakes = model.sample(seeds=range(400))
        with torch.no_grad():
            codes = model.discriminator(fakes)[1]
        unit = normalize(codes)
        found[weight] = Pulled(fakes, unit @ unit.T, f_pt(codes).item(), spread(fakes, real))
    return found


def angles(n: int = 91) -> tuple[Tensor, Tensor]:
    """f_PT [n] of two codes, for angles [n] from 0 to 90 degrees."""
    degrees = torch.linspace(0, 90, n, dtype=torch.float64)
    pairs = torch.stack([torch.stack([a.cos(), a.sin()]) for a in degrees.deg2rad()])
    return degrees, torch.stack([f_pt(torch.stack([pair.new_tensor([1, 0]), pair])) for pair in pairs])


def pull_away(steps: int = 1000) -> Figure:
    """The pull-away term penalises codes of similar direction.

    f_PT is the mean squared cosine over pairs of a minibatch's codes (Zhao et al. 2016, arXiv:1609.03126, section 2.4):
    1 if all are parallel, 0 if all are orthogonal. The other panels: EBGAN on digits, with the term's weight 0, the
    paper's 0.1, and larger values up to 5: cosines of the codes of 64 fakes, and the fakes. "Reached" counts the
    training digits nearest to some of 400 fakes; 400 held-out digits reach more. After this short training the effect
    of the paper's weight is within the variation between seeds; a weight of 5 lowers f_PT and reaches more digits.
    """
    figure, grid = panels(4, 2, 2.7, 2.8)
    grid[0, 0].plot(*angles(), color=DISCRIMINATOR)
    grid[0, 0].plot([0, 90], [1, 0], "o", color=DISCRIMINATOR)
    grid[0, 0].set(title="two codes", xlabel="angle in degrees", ylabel="f_PT", xticks=(0, 45, 90))
    real, held_out = digits("train"), torch.cat([digits("val"), digits("test")])
    show(grid[1, 0], held_out[::6][:64], 8)
    grid[1, 0].set_title(f"held-out digits\nreached: {spread(held_out, real)} of {len(real):,}", fontsize=9)
    for (above, below), (weight, found) in zip(grid.T[1:], pulled((0, 0.1, 5), steps).items(), strict=True):
        heat = above.imshow(found.cosines[:64, :64].numpy(), cmap="magma", vmin=0, vmax=1)
        above.set(xticks=(), yticks=(), xlabel="fakes", ylabel="fakes")
        above.set_title(f"weight {weight:g}\nf_PT = {found.term:.2f}", fontsize=9)
        show(below, found.fakes[:64], 8)
        below.set_title(f"fakes\nreached: {found.reached}", fontsize=9)
    figure.colorbar(heat, ax=grid[0, 3], label="cosine between codes")
    return figure
