"""DCGAN: Unsupervised Representation Learning with Deep Convolutional GANs (Radford et al. 2015, arXiv:1511.06434)."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.cli import OptimizerCallable

from ganzoo.core.limits import Count, Size
from ganzoo.core.module import GANModule
from ganzoo.core.types import Batch, Terms
from ganzoo.functional.losses import log_fake, log_real
from ganzoo.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from ganzoo.optim.adam import FusedAdam


class DCGAN(GANModule):
    """The non-saturating GAN of Goodfellow et al. (2014) with all-convolutional networks and batch norm.

    D maximises E log D(x) + E log(1 - D(G(z))), G maximises E log D(G(z)).

    Where the paper is silent, the authors' Theano code (dcgan_code) is followed: 5x5 kernels, initial batch-norm gains
    N(1, .02). In that code there is also an L2 penalty of 1e-5, and a batch updates only one of the players; here, as
    in their Torch code (dcgan.torch), there is neither. Further differences are documented with the networks.

    Args:
        image_size: pixels: 8, 16, 32, 64, ...; or [height, width], such as [64, 96].
        channels: of the image.
        z_dim: size of the latent, uniform in (-1, 1).
        width: feature maps of the convolutions at half the image's size, doubled with each halving.
        optimizer: Adam as in section 4, "details of adversarial training".
        **game: see `GANModule`.

    Raises:
        ValueError: the networks do not support the image size.
    """

    prior = "uniform"

    def __init__(
        self,
        image_size: Size = 64,
        channels: Count = 3,
        z_dim: Count = 100,
        width: Count = 128,
        optimizer: OptimizerCallable = lambda params: FusedAdam(params, lr=2e-4, beta1=0.5),
        **game: Any,
    ) -> None:
        super().__init__(optimizer=optimizer, **game)
        self.z_dim = z_dim
        self.generator = DCGANGenerator(image_size, channels, z_dim, width)
        self.discriminator = DCGANDiscriminator(image_size, channels, width)

    def discriminator_loss(self, batch: Batch) -> Terms:
        real = self.discriminate(batch["image"])  # separate batches, for separate batch-norm statistics
        fake = self.discriminate(self.fakes(batch))
        return {"real": -log_real(real), "fake": -log_fake(fake)}

    def generator_loss(self, batch: Batch) -> Terms:
        fake = self.discriminate(self.fakes(batch))
        return {"fake": -log_real(fake)}
