"""CGAN: Conditional Generative Adversarial Nets (Mirza & Osindero 2014, arXiv:1411.1784)."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.optim import SGD

from ganzoo.core.limits import Count, Probability, Size
from ganzoo.core.module import GANModule
from ganzoo.core.types import Batch, Terms
from ganzoo.functional.losses import log_fake, log_real
from ganzoo.networks.cgan import CGANDiscriminator, CGANGenerator
from ganzoo.optim.schedule import anneal_sgd


class CGAN(GANModule):
    """min_G max_D V(D, G) = E log D(x|y) + E log(1 - D(G(z|y)|y)) (eq. 2), with multilayer perceptrons.

    The fakes of an update have the labels of its real images. G minimises -E log D(G(z|y)|y), as recommended by
    Goodfellow et al. (2014). Layers follow the paper; where it is silent, momentum increases as in `GAN`, and weights
    have torch's default initialisation.

    Args:
        image_size: pixels, or [height, width].
        channels: of the image.
        num_classes: number of classes.
        z_dim: size of the latent, uniform in [0, 1).
        z_hidden: units of G's layer on z.
        y_hidden: units of G's layer on the label.
        hidden: units of G's joint layer.
        d_hidden: units of D's maxout layer on x, and of its joint layer.
        d_y_hidden: units of D's maxout layer on the label.
        dropout: drop probability of G's hidden units in training; samples use all units.
        d_dropout: drop probability of D's hidden units.
        optimizer: the paper's SGD; `schedule` sets its learning rate and momentum.
        **game: see `GANModule`.
    """

    def __init__(
        self,
        image_size: Size = 28,
        channels: Count = 1,
        num_classes: Count = 10,
        z_dim: Count = 100,
        z_hidden: Count = 200,
        y_hidden: Count = 1000,
        hidden: Count = 1200,
        d_hidden: Count = 240,
        d_y_hidden: Count = 50,
        dropout: Probability = 0.5,
        d_dropout: Probability = 0.5,
        optimizer: OptimizerCallable = lambda params: SGD(params, lr=0.1, momentum=0.5),
        **game: Any,
    ) -> None:
        super().__init__(optimizer=optimizer, **game)
        self.num_classes = num_classes
        self.z_dim = z_dim
        self.generator = CGANGenerator(image_size, channels, num_classes, z_dim, z_hidden, y_hidden, hidden, dropout)
        self.discriminator = CGANDiscriminator(image_size, channels, num_classes, d_hidden, d_y_hidden, d_dropout)

    def discriminator_loss(self, batch: Batch) -> Terms:
        y = batch["label"]
        real = self.discriminate(batch["image"], y)
        fake = self.discriminate(self.fakes(batch), y)
        return {"real": -log_real(real), "fake": -log_fake(fake)}

    def generator_loss(self, batch: Batch) -> Terms:
        y = batch["label"]
        fake = self.discriminate(self.fakes(batch), y)
        return {"fake": -log_real(fake)}

    def schedule(self, images_seen: int) -> None:
        if self.lr_scheduler is None:
            anneal_sgd(self.trainer.optimizers, images_seen, decay=1.00004)

    def latent(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.rand(n, self.z_dim, device=self.device_of(generator), generator=generator)
