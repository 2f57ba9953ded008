"""GAN: Generative Adversarial Nets (Goodfellow et al. 2014, arXiv:1406.2661)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.optim import SGD

from ganzoo.core.module import GANModule
from ganzoo.core.schedule import anneal_sgd
from ganzoo.core.types import Batch, Terms
from ganzoo.functional.losses import log_fake, log_real
from ganzoo.networks.mlp import MaxoutDiscriminator, MLPGenerator

Objective = Literal["non-saturating", "minimax", "maximum-likelihood"]


class GAN(GANModule):
    """min_G max_D V(D, G) = E log D(x) + E log(1 - D(G(z))) (eq. 1), played by multilayer perceptrons.

    D learns with dropout, which stays on while G learns. The paper's k discriminator steps per generator step are
    `n_critic`; it used 1. Losses and turns are the text's (eq. 1, algorithm 1); the authors' code halves D's loss and
    lets both players step on the same samples.

    Args:
        image_size: pixels, H = W.
        channels: of the image.
        z_dim: size of the latent, uniform in (-1, 1).
        hidden: units of each of G's two hidden layers.
        d_hidden: units of each of D's two maxout layers.
        pieces: linear pieces of a maxout unit.
        objective: G minimises -E log D(G(z)) ("non-saturating", the paper's advice), E log(1 - D(G(z))) ("minimax",
            eq. 1), or -E exp(logit D(G(z))) ("maximum-likelihood", Goodfellow 2016, arXiv:1701.00160, eq. 14).
        optimizer: the paper's SGD; `schedule` moves its learning rate and momentum.
        game: what every variant takes.
    """

    def __init__(
        self,
        image_size: int = 28,
        channels: int = 1,
        z_dim: int = 100,
        hidden: int = 1200,
        d_hidden: int = 240,
        pieces: int = 5,
        objective: Objective = "non-saturating",
        optimizer: OptimizerCallable = lambda params: SGD(params, lr=0.1, momentum=0.5),
        **game: Any,
    ) -> None:
        super().__init__(optimizer=optimizer, **game)
        self.z_dim = z_dim
        self.objective = objective
        self.generator = MLPGenerator(image_size, channels, z_dim, hidden)
        self.discriminator = MaxoutDiscriminator(image_size, channels, d_hidden, pieces)

    def discriminator_loss(self, batch: Batch) -> Terms:
        real = self.discriminate(batch["image"])
        fake = self.discriminate(self.generator(batch["z"]))
        return {"real": -log_real(real), "fake": -log_fake(fake)}

    def generator_loss(self, batch: Batch) -> Terms:
        fake = self.discriminate(self.generator(batch["z"]))
        if self.objective == "minimax":
            return {"fake": log_fake(fake)}
        if self.objective == "maximum-likelihood":
            return {"fake": -fake.exp().mean()}
        return {"fake": -log_real(fake)}

    def schedule(self, images_seen: int) -> None:
        if self.lr_scheduler is None:
            anneal_sgd(self.trainer.optimizers, images_seen, decay=1.000004)

    def latent(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return self.uniform(generator, n, self.z_dim)
