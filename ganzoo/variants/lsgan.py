"""LSGAN: Least Squares Generative Adversarial Networks (Mao et al. 2016, arXiv:1611.04076)."""

from __future__ import annotations

from typing import Any, Literal

from lightning.pytorch.cli import OptimizerCallable

from ganzoo.core.limits import Count, Size
from ganzoo.core.module import GANModule
from ganzoo.core.types import Batch, Terms
from ganzoo.functional.losses import half_square
from ganzoo.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from ganzoo.networks.mlp import ReLUDiscriminator, ReLUGenerator
from ganzoo.optim.adam import FusedAdam


class LSGAN(GANModule):
    """min_D E (D(x) - b)^2 / 2 + E (D(G(z)) - a)^2 / 2;  min_G E (D(G(z)) - c)^2 / 2 (eq. 2).

    The optimal D is (b p_data + a p_g) / (p_data + p_g). With b - c = 1 and b - a = 2 the game minimises the Pearson
    chi-square divergence of p_data + p_g and 2 p_g: (a, b, c) = (-1, 1, 0) (eq. 8). c = b aims at fakes that D scores
    as real: (0, 1, 1) (eq. 9), used in the paper's experiments.

    The networks are DCGAN's; the paper's G has additional layers of stride 1 and generates 112x112 pixels.

    Args:
        image_size: pixels: 8, 16, 32, 64, ...; or [height, width], such as [64, 96]; any for "mlp".
        channels: of the image.
        z_dim: size of the latent, uniform in (-1, 1).
        width: feature maps of DCGAN's convolutions at half the image's size, or hidden units of the MLP.
        architecture: "dcgan", or "mlp" with four linear layers.
        a: D's target for fakes.
        b: D's target for reals.
        c: G's target for fakes.
        optimizer: Adam with the paper's learning rate for scenes; 2e-4 for Chinese characters.
        **game: see `GANModule`.

    Raises:
        ValueError: a equals b, or the networks do not support the image size.
    """

    prior = "uniform"

    def __init__(
        self,
        image_size: Size = 64,
        channels: Count = 3,
        z_dim: Count = 1024,
        width: Count = 64,
        architecture: Literal["dcgan", "mlp"] = "dcgan",
        a: float = 0.0,
        b: float = 1.0,
        c: float = 1.0,
        optimizer: OptimizerCallable = lambda params: FusedAdam(params, lr=1e-3, beta1=0.5),
        **game: Any,
    ) -> None:
        super().__init__(optimizer=optimizer, **game)
        if a == b:
            raise ValueError(f"a and b are both {a}: fakes and reals need different targets")
        self.z_dim = z_dim
        self.a, self.b, self.c = a, b, c
        self.boundary = (a + b) / 2 if a < b else None
        self.real_scores_higher = b > a
        G, D = (ReLUGenerator, ReLUDiscriminator) if architecture == "mlp" else (DCGANGenerator, DCGANDiscriminator)
        self.generator, self.discriminator = G(image_size, channels, z_dim, width), D(image_size, channels, width)

    def discriminator_loss(self, batch: Batch) -> Terms:
        real = self.discriminate(batch["image"])
        fake = self.discriminate(self.fakes(batch))
        return {"real": half_square(real, self.b), "fake": half_square(fake, self.a)}

    def generator_loss(self, batch: Batch) -> Terms:
        fake = self.discriminate(self.fakes(batch))
        return {"fake": half_square(fake, self.c)}
