"""A frozen discriminator, on the ring of Gaussians."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, Trainer
from matplotlib.figure import Figure
from torch import Tensor

from ganzoo.data import Gaussians
from ganzoo.functional.alarms import mean_distance
from ganzoo.functional.modes import gaussian_modes
from ganzoo.optim.adam import FusedAdam
from ganzoo.theory.base import DATA, GENERATOR, panels
from ganzoo.theory.parts import Look, seeded, trained
from ganzoo.variants.mlpgan import MLPGAN


class Freeze(Callback):
    """Sets D's learning rate to `rate` after a number of batches."""

    def __init__(self, after: int, rate: float = 0.0) -> None:
        self.after, self.rate = after, rate

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.after:
            for group in trainer.optimizers[0].param_groups:
                group["lr"] = self.rate


class Sample(NamedTuple):
    """A snapshot of a game on the ring of Gaussians, in units of the data's scale.

    Attributes:
        points: [500, 2], fakes, from the same latents at each time.
        diversity: mean distance between two fakes, divided by that between two reals.
        modes: number of Gaussians with a fake within 3 sigma.
        logit_gap: D's mean logit of fakes minus that of reals.
        surface: [S, S], D's logits on a grid over [-1.1, 1.1]^2.
    """

    points: Tensor
    diversity: float
    modes: int
    logit_gap: float
    surface: Tensor


RING: dict[str, Any] = {"image_size": 1, "channels": 2, "z_dim": 2}


def ring(batch_size: int = 1, seed: int = 0) -> Gaussians:
    return Gaussians("ring", n=10_000, batch_size=batch_size, seed=seed)


def ring_gan() -> MLPGAN:
    """configs/mlpgan/ring.yaml with other learning rates and no momentum; it has most modes after 800 batches."""
    return MLPGAN(
        **RING,
        layers_g=4,
        layers_d=4,
        hidden=128,
        d_hidden=128,
        batch_norm=False,
        optimizer=lambda params: FusedAdam(params, lr=5e-4, beta1=0.0),
        discriminator_optimizer=lambda params: FusedAdam(params, lr=2e-3, beta1=0.0),
    )


def frozen(steps: int, seed: int = 0, side: int = 60) -> dict[str, dict[int, Sample]]:
    """Arm -> batch -> sample."""
    data = ring()
    reals = data.make_dataset("val").images[:500]
    axis = torch.linspace(-1.1, 1.1, side)
    places = torch.cartesian_prod(axis, axis)[:, :, None, None]

    def look(model: MLPGAN) -> Sample:
        fakes = model.generate(model.latent(500, seeded(0)))
        points = fakes.flatten(1)
        modes = gaussian_modes(points * data.scale, data.centers, data.sigma).modes
        diversity = mean_distance(points) / mean_distance(reals.flatten(1))
        logit_gap = (model.discriminator(fakes).mean() - model.discriminator(reals).mean()).item()
        return Sample(points, diversity, modes, logit_gap, model.discriminator(places).view(side, side).T)

    found = {}
    for name, at in {"D trained": [], "D frozen after a quarter": [steps // 4], "D untrained": [0]}.items():
        camera = Look(range(0, steps + 1, max(1, steps // 40)), look)
        trained(ring_gan, ring(128, seed), steps, seed, camera, *map(Freeze, at))
        found[name] = camera.found
    return found


def frozen_discriminator(steps: int = 800) -> Figure:
    """A generator against a frozen discriminator: G collapses to the points with the highest logits.

    Top: the data's eight Gaussians (black crosses), fakes after the last batch, and D's logit as background (light:
    real). The best response to a fixed D is a single point for all latents: the game in the wrong order, max_D min_G
    (Goodfellow 2016, arXiv:1701.00160, section 5.1.1). If D continues to train, it lowers its logit there, and G moves
    elsewhere. Bottom: diversity during training, the mean distance between two fakes divided by that between two reals.
    Against an untrained D, G generates a single point. A trained and then frozen D has several maxima: with two of
    three seeds the fakes collapsed to one of them, with the third to a few. Diagnostics report "D is frozen", or
    "collapse" if D still changes a little.
    """
    found = frozen(steps)
    data = ring()
    figure, grid = panels(len(found), 2, 3.2, 3.0, sharey="row", gridspec_kw={"height_ratios": [3, 1.6]})
    for (above, below), (name, samples) in zip(grid.T, found.items(), strict=True):
        last = samples[max(samples)]
        above.imshow(last.surface.numpy(), extent=(-1.1, 1.1, -1.1, 1.1), origin="lower", cmap="Blues_r", alpha=0.6)
        above.plot(*(data.centers / data.scale).T, "+", color=DATA, markersize=8, label="data")
        above.plot(*last.points.T, ".", color=GENERATOR, markersize=4, label="fakes")
        above.set_title(f"{name}\n{last.modes} of 8 modes, diversity {last.diversity:.2f}", fontsize=10)
        above.set(xlabel="x1", xticks=[-1, 0, 1], yticks=[-1, 0, 1])
        below.plot(list(samples), [sample.diversity for sample in samples.values()], color=GENERATOR)
        below.set(xlabel="batches", ylim=(0, 1.2))
    grid[0, 0].set_ylabel("x2")
    grid[0, 0].legend(fontsize=8, loc="center", frameon=False)
    grid[1, 0].set_ylabel("diversity")
    return figure
