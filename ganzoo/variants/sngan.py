"""SNGAN: Spectral Normalization for Generative Adversarial Networks (Miyato et al. 2018, arXiv:1802.05957)."""

from __future__ import annotations

from typing import Any, Literal

from lightning.pytorch.cli import OptimizerCallable

from ganzoo.core.batch import discriminate_both
from ganzoo.core.limits import Count, Size
from ganzoo.core.module import GANModule
from ganzoo.core.types import Batch, Terms
from ganzoo.functional.losses import hinge_fake, hinge_real
from ganzoo.networks.residual import ResidualDiscriminator, ResidualGenerator
from ganzoo.networks.sndcgan import SNDCGANDiscriminator, SNDCGANGenerator
from ganzoo.optim.adam import FusedAdam


class SNGAN(GANModule):
    """min_D E max(0, 1 - D(x)) + E max(0, 1 + D(G(z)));  min_G -E D(G(z))  (eq. 16, 17).

    Each weight W of D is divided by its spectral norm (algorithm 1), so D's Lipschitz constant is bounded. Without
    `augment`, `penalties` and `microbatches`, an update of D is one forward pass of reals and fakes together, with one
    power iteration, as in algorithm 1; the authors' code has two, and one in G's update. Its batch norms have an eps of
    2e-5, torch's have 1e-5.

    The authors' code begins with G, whose batches have 128 fakes, and adds uniform noise of one grey level to the
    images. Its D for 32x32 images has no bias in the output layer; D has it here, as in the paper's table.

    Args:
        image_size: pixels: 4, 5, 6 or 7 times a power of two from 2 to 128, such as 28, 32 or 64; or [height, width].
        channels: of the image.
        z_dim: size of the latent, standard normal.
        width: "resnet": unit of the feature maps. Below 64x64, each layer of G has 4 `width`, and of D 2 `width`. From
            64x64 up, G has 16 `width` at its smallest size to 1 `width` (below 128x128: 2) at its largest, and D 1 to
            16 `width`. "dcgan": feature maps at full resolution.
        architecture: "resnet", residual blocks (table 4), or "dcgan" (table 3).
        n_critic: discriminator updates per generator update, each on a new batch.
        optimizer: the paper's Adam for residual networks. Its rate falls linearly to 0 in configs/sngan/cifar10.yaml.
        **game: see `GANModule`.

    Raises:
        ValueError: the networks do not support the image size.
    """

    def __init__(
        self,
        image_size: Size = 32,
        channels: Count = 3,
        z_dim: Count = 128,
        width: Count = 64,
        architecture: Literal["resnet", "dcgan"] = "resnet",
        n_critic: Count = 5,
        optimizer: OptimizerCallable = lambda params: FusedAdam(params, lr=2e-4, beta1=0.0, beta2=0.9),
        **game: Any,
    ) -> None:
        super().__init__(optimizer=optimizer, n_critic=n_critic, **game)
        self.z_dim = z_dim
        dcgan = SNDCGANGenerator, SNDCGANDiscriminator
        G, D = (ResidualGenerator, ResidualDiscriminator) if architecture == "resnet" else dcgan
        self.generator, self.discriminator = G(image_size, channels, z_dim, width), D(image_size, channels, width)

    def discriminator_loss(self, batch: Batch) -> Terms:
        real, fake = discriminate_both(self, batch["image"], self.fakes(batch))
        return {"real": hinge_real(real), "fake": hinge_fake(fake)}

    def generator_loss(self, batch: Batch) -> Terms:
        return {"fake": -self.discriminate(self.fakes(batch)).mean()}
