"""The theory where it meets networks: real variants, trained for seconds, and measured against what is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.optim import RMSprop
from torch.optim.lr_scheduler import CosineAnnealingLR

from ganzoo.core.module import GANModule
from ganzoo.core.optim import FusedAdam
from ganzoo.core.random import mix
from ganzoo.core.still import evaluating
from ganzoo.core.types import Batch
from ganzoo.data import ArrayImages, Digits, GANDataModule, Gaussians
from ganzoo.data.base import Split
from ganzoo.evaluation import evaluate
from ganzoo.functional.alarms import mean_distance
from ganzoo.functional.divergences import Gaussian, jensen_shannon, wasserstein_1
from ganzoo.functional.modes import gaussian_modes
from ganzoo.testing import fit
from ganzoo.theory.base import DATA, DISCRIMINATOR, GENERATOR, panels
from ganzoo.variants.gan import GAN
from ganzoo.variants.mlpgan import MLPGAN
from ganzoo.variants.wgan import WGAN
from ganzoo.variants.wgangp import WGANGP


class Look(Callback):
    """Keeps what `look` finds in the model after each of the batches `at`, counted from 1."""

    def __init__(self, at: Collection[int], look: Callable[[Any], Any]) -> None:
        self.at, self.look = at, look
        self.found: dict[int, Any] = {}

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step in self.at:
            self.found[trainer.global_step] = self.look(pl_module)


def train(
    make: Callable[[], GANModule], data: GANDataModule, steps: int, seed: int, *callbacks: Callback, **trainer: Any
) -> GANModule:
    """A model, its weights drawn from the seed, after so many batches."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make()
        fit(model, data, steps=steps, callbacks=callbacks, **trainer)
    return model


# A density on a line

HUMPS = (Gaussian(-0.3, 0.2), Gaussian(0.25, 0.13))  # equally likely
EDGES = torch.linspace(-1, 1, 101, dtype=torch.float64)
X = (EDGES[1:] + EDGES[:-1]) / 2


def log_data(x: Tensor) -> Tensor:
    return torch.stack([hump.log_density(x) for hump in HUMPS]).logsumexp(0) - math.log(len(HUMPS))


class Line(GANDataModule):
    """Points on a line as "images" [1, 1, 1]."""

    image_size = 1
    channels = 1
    num_classes = None
    extractor = None  # points, no images

    def make_dataset(self, split: Split) -> ArrayImages:
        generator = torch.Generator().manual_seed(mix(("train", "val", "test").index(split)))
        which = torch.randint(len(HUMPS), (20_000,), generator=generator)
        mean, std = torch.tensor(HUMPS)[which].T
        points = mean + std * torch.randn(len(which), generator=generator)
        return ArrayImages(points.clamp(-1, 1).view(-1, 1, 1, 1))


class Snapshot(NamedTuple):
    """The game on a line after some batches; densities and D on the grid X.

    Attributes:
        log_fakes: of the share of evenly spaced latents that G sends into each of the grid's cells.
        d: what D says.
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
        """Mean of |D - D*| over data and fakes, half of each."""
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
    """Batch -> what there is then. G's learning rate is 3e-4; both fall to 0 along half a cosine."""

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
    train(make, Line(batch_size=512, seed=seed), steps, seed, camera)
    return camera.found


def one_dimension(steps: int = 1500) -> Figure:
    """Figure 1 of Goodfellow et al. 2014 (arXiv:1406.2661), measured: a GAN learns a density on a line.

    Above, the densities of data and fakes; in the middle, D as it is and D* = p_data / (p_data + p_g) for the fakes of
    that moment; below, where G sends evenly spaced latents. D follows D*, G climbs D, and at the end the densities
    nearly meet and D is near 1/2. It stays apart where the fakes end: uniform latents have no tails.

    That D follows is no matter of course: its learning rate is ten times G's, it takes two steps to G's one, neither
    has momentum, and both rates fall to 0. With G's rate D says 1/2 from the start, and it means nothing.
    """
    found = snapshots(steps, seed=1)
    figure, grid = panels(len(found), 3, 2.6, 1.9, sharex=True, sharey="row")
    p = log_data(X).exp()
    for (densities, ds, lines), (step, shot) in zip(grid.T, found.items(), strict=True):
        densities.plot(X, p, color=DATA, label="data")
        densities.plot(X, shot.log_fakes.exp(), color=GENERATOR, label="fakes")
        densities.set_title(f"batch {step:,}: JSD {shot.jsd:.2f}", fontsize=10)
        known = p + shot.log_fakes.exp() > 0.02
        ds.axhline(0.5, color="lightgrey", linewidth=0.8)
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


# A discriminator that stands still


class Freeze(Callback):
    """Sets D's learning rate to `rate` after so many batches."""

    def __init__(self, after: int, rate: float = 0.0) -> None:
        self.after, self.rate = after, rate

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.after:
            for group in trainer.optimizers[0].param_groups:
                group["lr"] = self.rate


class Sample(NamedTuple):
    """What a game on the ring of Gaussians has come to, in units of the data's scale.

    Attributes:
        points: [500, 2], fakes of the same latents at each time.
        diversity: mean distance between two fakes, over that between two reals.
        modes: Gaussians with a fake within 3 sigma.
        pleased: D's mean logit of the fakes, less that of the reals.
        surface: [S, S], D's logits on a grid over [-1.1, 1.1]^2.
    """

    points: Tensor
    diversity: float
    modes: int
    pleased: float
    surface: Tensor


RING: dict[str, Any] = {"image_size": 1, "channels": 2, "z_dim": 2}


def ring(batch_size: int = 1, seed: int = 0) -> Gaussians:
    return Gaussians("ring", n=10_000, batch_size=batch_size, seed=seed)


def ring_gan() -> MLPGAN:
    """As in configs/mlpgan/ring.yaml, with other rates, and no momentum, so that it has most modes in 800 batches."""
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
        fakes = model.generate(model.latent(500, torch.Generator().manual_seed(0)))
        points = fakes.flatten(1)
        modes = gaussian_modes(points * data.scale, data.centers, data.sigma).modes
        diversity = mean_distance(points) / mean_distance(reals.flatten(1))
        pleased = (model.discriminator(fakes).mean() - model.discriminator(reals).mean()).item()
        return Sample(points, diversity, modes, pleased, model.discriminator(places).view(side, side).T)

    found = {}
    for name, still in {"D learns": [], "D frozen after a quarter": [steps // 4], "D never learns": [0]}.items():
        camera = Look(range(0, steps + 1, max(1, steps // 40)), look)
        train(ring_gan, ring(128, seed), steps, seed, camera, *map(Freeze, still))
        found[name] = camera.found
    return found


def frozen_discriminator(steps: int = 800) -> Figure:
    """A generator against a discriminator that stands still: G goes where D says "real", and nobody minds the crowd.

    Above, the eight Gaussians of the data (black crosses), fakes after the last batch, and D's logit as background, the
    lighter the more real. The best answer to a fixed D is one point, D's favourite, for all latents: the game in the
    wrong order, max_D min_G (Goodfellow 2016, arXiv:1701.00160, section 5.1.1). A learning D marks such a point down,
    and G moves on. Below, the diversity over training: the mean distance between two fakes over that between two reals.
    To a D without training G gives a single point. A trained one that is frozen has several peaks: with two of three
    seeds the fakes fell on one, with the third they stayed on many.
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


# What D's loss says


class Said(NamedTuple):
    """After some batches: the Wasserstein-1 distance of 400 fakes to 400 reals, and what D says of the same points."""

    distance: float
    said: float


def transport(a: Tensor, b: Tensor) -> float:
    """The exact Wasserstein-1 distance of the points a and b, both [n, d]: the mean length of the best matching."""
    lengths = torch.cdist(a, b)
    rows, columns = linear_sum_assignment(lengths)
    return lengths[rows, columns].mean().item()


CRITICS: dict[str, Callable[[], GANModule]] = {
    "WGAN": lambda: WGAN(
        **RING,
        width=64,
        architecture="mlp",
        clip=0.1,
        optimizer=lambda params: RMSprop(params, lr=1e-4),
        discriminator_optimizer=lambda params: RMSprop(params, lr=1e-3),
    ),
    "WGANGP": lambda: WGANGP(
        **RING,
        width=64,
        architecture="mlp",
        penalty=1.0,
        optimizer=lambda params: FusedAdam(params, lr=2e-4, beta1=0.0, beta2=0.9),
        discriminator_optimizer=lambda params: FusedAdam(params, lr=1e-3, beta1=0.0, beta2=0.9),
    ),
    "GAN": ring_gan,
}


def critics(name: str, steps: int, seed: int = 0) -> dict[int, Said]:
    """Batch -> distance, and the critic's estimate of it or the loss of GAN's D."""
    reals = ring().make_dataset("val").images[:400]

    def look(model: GANModule) -> Said:
        fakes = model.generate(model.latent(len(reals), torch.Generator().manual_seed(0)))
        real, fake = model.discriminator(reals), model.discriminator(fakes)
        said = softplus(-real).mean() + softplus(fake).mean() if isinstance(model, GAN) else real.mean() - fake.mean()
        return Said(transport(reals.flatten(1), fakes.flatten(1)), said.item())

    camera = Look(range(0, steps + 1, max(1, steps // 40)), look)
    train(CRITICS[name], ring(256, seed), steps, seed, camera)
    return camera.found


def critic_loss(steps: int = 1000) -> Figure:
    """Does D's loss say how far the fakes are from the data? A Wasserstein critic's does, on the ring of Gaussians.

    Above, the exact Wasserstein-1 distance, by the best matching of 400 fakes with 400 reals; below, what the critic
    makes of the same points, E f(x) - E f(G(z)), or the loss of GAN's D. WGAN's critic (Arjovsky et al. 2017,
    arXiv:1701.07875) knows the distance up to a factor, the Lipschitz constant that its clip allows, and that drifts;
    WGAN-GP's (Gulrajani et al. 2017, arXiv:1704.00028) knows it itself, to a fifth, once fakes are near: its penalty,
    here 1, lets slopes exceed 1 at first. Both take five steps to G's one; their first 100 batches say nothing. The
    loss of GAN's D moves the other way, as log 4 - 2 JSD does, and is the same, .9, at distances of .9 and .4.
    """
    figure, grid = panels(len(CRITICS), 2, 3.4, 2.2, sharex=True)
    for (above, below), name in zip(grid.T, CRITICS, strict=True):
        found = critics(name, steps)
        batches, distances, said = list(found), *zip(*found.values(), strict=True)
        above.plot(batches, distances, color=DATA)
        above.set(title=name, ylim=(0, 1))
        below.plot(batches, said, color=DISCRIMINATOR, label="the critic")
        if name == "WGANGP":
            below.plot(batches, distances, ":", color=DATA, label="exact")
            below.legend(fontsize=8, frameon=False)
        below.set(xlabel="batches", ylabel="loss of D" if name == "GAN" else "E f(x) - E f(G(z))")
        below.set_ylim(bottom=0)
    grid[0, 0].set_ylabel("exact distance")
    return figure


# Dropout in D


class Steady(GAN):
    """D's dropout is off while G learns."""

    def generator_step(self, batch: Batch) -> None:
        with evaluating(self.discriminator):
            super().generator_step(batch)


class Plain(GAN):
    """D has no dropout."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        for module in self.discriminator.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0


DROPOUT: dict[str, type[GAN]] = {"in both steps": GAN, "in D's step": Steady, "nowhere": Plain}


def dropout(steps: int, seed: int = 0) -> dict[str, float]:
    """FID on 8x8 digits, by the shipped classifier, 2,000 fakes, for D with dropout in both players' steps (the text of
    Goodfellow et al. 2014 and its code), in its own alone, and nowhere; all else as in configs/gan/digits.yaml."""
    found = {}
    for name, variant in DROPOUT.items():
        data = Digits(batch_size=100, seed=seed)
        model = train(partial(variant, image_size=8, hidden=400, d_hidden=120), data, steps, seed)
        found[name] = evaluate(model, data, ["fid"], n=2000).scores[0].value
    return found
