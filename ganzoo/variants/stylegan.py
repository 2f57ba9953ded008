"""What StyleGAN2 and StyleGAN3 have in common: a mean of w, the logistic loss, and lazy R1."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from ganzoo.core.batch import more_normal
from ganzoo.core.module import GANModule
from ganzoo.core.strategy import gather
from ganzoo.core.types import Batch, Latent, Terms
from ganzoo.functional.losses import log_fake, log_real
from ganzoo.functional.penalties import squared_gradients
from ganzoo.networks.stylegan2 import StyleGenerator

W_DECAY = 0.998  # of the mean of w, per update


class StyleGAN(GANModule):
    """min_D E f(D(G(z))) + E f(-D(x)) + gamma / 2 E |grad D(x)|^2;  min_G E f(-D(G(z))), with f(t) = log(1 + e^t).

    G is updated first. R1 is lazy: every `r1_interval` batches, D has a separate optimizer step on `r1_interval` times
    the penalty.

    Args:
        z_dim: size of the latent and of w.
        num_classes: number of classes; None: unconditional.
        gamma: weight of R1; 0: none.
        r1_interval: batches per update on R1.
        optimizer: Adam; its rate and betas are corrected for the separate updates on penalties.
        **game: see `GANModule`.
    """

    generator: StyleGenerator

    def __init__(
        self,
        z_dim: int,
        num_classes: int | None,
        gamma: float,
        r1_interval: int,
        optimizer: OptimizerCallable,
        **game: Any,
    ) -> None:
        super().__init__(optimizer=optimizer, **game)
        self.z_dim, self.num_classes = z_dim, num_classes
        self.gamma, self.r1_interval = gamma, r1_interval
        self.more_steps = {"discriminator": 1 / r1_interval if gamma else 0.0}

    def play(self, batch: Batch) -> None:
        """G's update and what follows it; then D's and, if due, its penalty."""
        for_d, for_g = self.shared(batch) if self.share_fakes else (batch, batch)
        if self.generator_due():
            for _ in range(self.n_generator):
                self.generator_step(for_g)
            self.after_generator(batch)
        self.discriminator_step(for_d)
        if self.gamma and self.due(self.r1_interval):
            self.minimize(self.r1_loss, batch, player="discriminator", interval=self.r1_interval)

    @abstractmethod
    def after_generator(self, batch: Batch) -> None:
        """Further updates of G, and of its running means."""

    def generator_loss(self, batch: Batch) -> Terms:
        return {"fake": -log_real(self.discriminate(self.fakes(batch), self.labels(batch)))}

    def discriminator_loss(self, batch: Batch) -> Terms:
        y = self.labels(batch)
        real, fake = self.discriminate(batch["image"], y), self.discriminate(self.fakes(batch), y)
        return {"real": -log_real(real), "fake": -log_fake(fake)}

    def r1_loss(self, batch: Batch) -> Terms:
        squares = squared_gradients(partial(self.discriminate, y=self.labels(batch)), batch["image"])
        return {"r1": self.gamma / 2 * squares.mean()}

    @torch.no_grad()
    def move_w_mean(self, batch: Batch) -> Tensor:
        """Updates the mean of w by the w of new latents of all processes, with this batch's labels.

        Returns:
            w [N, d] of this process.
        """
        w = self.generator.mapping(more_normal(self, batch, self.z_dim), self.labels(batch))
        self.generator.w_mean.lerp_(gather(w).mean(0), 1 - W_DECAY)
        return w

    def synthesize(self, network: Any, batch: Batch) -> Tensor:
        z, psi = batch["z"] if isinstance(batch["z"], tuple) else (batch["z"], None)
        return network(z, self.labels(batch), psi)

    def truncate(self, z: Latent, truncation: float) -> Latent:
        """z and psi = `truncation` [N], with which `synthesize` replaces w by w_mean + psi (w - w_mean).

        1: no truncation.
        """
        return z, z.new_full((len(z),), truncation)
