"""MLPGAN: the GAN of Energy-based Generative Adversarial Network (Zhao et al. 2016, arXiv:1609.03126)."""

from __future__ import annotations

from typing import Any, Literal

from lightning.pytorch.cli import OptimizerCallable
from torch.optim import SGD

from ganzoo.core.limits import Count, Layers, Probability, Size
from ganzoo.core.module import GANModule
from ganzoo.core.types import Batch, Terms
from ganzoo.functional.losses import hinge_fake, hinge_real, log_fake, log_real, relativistic
from ganzoo.layers.init import normal_
from ganzoo.networks.mlp import ReLUDiscriminator, ReLUGenerator


class MLPGAN(GANModule):
    """The non-saturating GAN with fully connected ReLU networks, from EBGAN's grid search on MNIST.

    The defaults are the best of the grid's 6144 GANs. Batch norm is used everywhere except in G's output and after D's
    first layer; initial weights are N(0, .02) in G and N(0, .002) in D. Without batch norm the signal would vanish with
    such weights; then torch's default initialisation is used.

    Args:
        image_size: pixels, or [height, width].
        channels: of the image.
        z_dim: size of the latent, uniform in (-1, 1).
        layers_g: linear layers of G, the grid's nLayerG.
        layers_d: linear layers of D, nLayerD.
        hidden: units of G's hidden layers, sizeG.
        d_hidden: units of D's hidden layers, sizeD.
        dropout: drop probability of D's hidden units; the grid includes D with dropout (e.g. 0.5) and without.
        batch_norm: use batch norm.
        objective: "non-saturating", the grid's; "hinge" (Lim & Ye 2017, arXiv:1705.02894); or "relativistic", pairs of
            reals and fakes (Jolicoeur-Martineau 2018, arXiv:1807.00734), as R3GAN.
        optimizer: SGD with a constant learning rate; the grid also had Adam, and both at .01, .001 and .0001.
        **game: see `GANModule`.
    """

    prior = "uniform"

    def __init__(
        self,
        image_size: Size = 28,
        channels: Count = 1,
        z_dim: Count = 100,
        layers_g: Layers = 5,
        layers_d: Layers = 2,
        hidden: Count = 1600,
        d_hidden: Count = 1024,
        dropout: Probability = 0.0,
        batch_norm: bool = True,
        objective: Literal["non-saturating", "hinge", "relativistic"] = "non-saturating",
        optimizer: OptimizerCallable = lambda params: SGD(params, lr=0.01),
        **game: Any,
    ) -> None:
        super().__init__(optimizer=optimizer, **game)
        self.z_dim = z_dim
        self.objective = objective
        self.boundary = None if objective == "relativistic" else 0.0  # differences of scores: see R3GAN
        self.generator = ReLUGenerator(image_size, channels, z_dim, hidden, layers_g, batch_norm)
        self.discriminator = ReLUDiscriminator(image_size, channels, d_hidden, layers_d, batch_norm, dropout)
        if batch_norm:
            normal_(self.generator, 0.02)
            normal_(self.discriminator, 0.002)

    def discriminator_loss(self, batch: Batch) -> Terms:
        real = self.discriminate(batch["image"])
        fake = self.discriminate(self.fakes(batch))
        if self.objective == "hinge":
            return {"real": hinge_real(real), "fake": hinge_fake(fake)}
        if self.objective == "relativistic":
            return {"relativistic": relativistic(real, fake)}
        return {"real": -log_real(real), "fake": -log_fake(fake)}

    def generator_loss(self, batch: Batch) -> Terms:
        fake = self.discriminate(self.fakes(batch))
        if self.objective == "relativistic":
            return {"relativistic": relativistic(fake, self.discriminate(batch["image"]))}
        return {"fake": -fake.mean() if self.objective == "hinge" else -log_real(fake)}
