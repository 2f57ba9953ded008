"""ProjectionGAN: cGANs with Projection Discriminator (Miyato & Koyama 2018, arXiv:1802.05637)."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.cli import OptimizerCallable

from ganzoo.core.batch import discriminate_both
from ganzoo.core.limits import Count, Size
from ganzoo.core.module import GANModule
from ganzoo.core.types import Batch, Terms
from ganzoo.functional.losses import hinge_fake, hinge_real
from ganzoo.networks.residual import ResidualDiscriminator, ResidualGenerator
from ganzoo.optim.adam import FusedAdam


class ProjectionGAN(GANModule):
    """min_D E max(0, 1 - D(x, y)) + E max(0, 1 + D(G(z, y), y));  min_G -E D(G(z, y), y).

    D(x, y) = v_y' phi(x) + psi(phi(x)) (figure 1d): the features' inner product with a vector of the class,
    plus a score that does not depend on it. G has conditional batch norm; D has spectral norm, also in the table of the
    v_y. The fakes of an update have the labels of its real images; those of the authors' code are uniform. Further
    differences from that code are SNGAN's.

    Args:
        image_size: pixels: 4, 5, 6 or 7 times a power of two from 2 to 128, such as 28, 32 or 64; or [height, width].
        channels: of the image.
        num_classes: number of classes.
        z_dim: size of the latent, standard normal.
        width: unit of the feature maps. Below 64x64, each layer of G has 4 `width`, and of D 2 `width`. From 64x64 up,
            G has 16 `width` at its smallest size to 1 `width` (below 128x128: 2) at its largest, and D 1 to 16 `width`.
        n_critic: discriminator updates per generator update, each on a new batch.
        optimizer: the paper's Adam. Its rate falls linearly to 0 in configs/projectiongan/cifar10.yaml.
        **game: see `GANModule`.

    Raises:
        ValueError: the networks do not support the image size.
    """

    def __init__(
        self,
        image_size: Size = 32,
        channels: Count = 3,
        num_classes: Count = 10,
        z_dim: Count = 128,
        width: Count = 64,
        n_critic: Count = 5,
        optimizer: OptimizerCallable = lambda params: FusedAdam(params, lr=2e-4, beta1=0.0, beta2=0.9),
        **game: Any,
    ) -> None:
        super().__init__(optimizer=optimizer, n_critic=n_critic, **game)
        self.num_classes = num_classes
        self.z_dim = z_dim
        self.generator = ResidualGenerator(image_size, channels, z_dim, width, num_classes)
        self.discriminator = ResidualDiscriminator(image_size, channels, width, num_classes)

    def discriminator_loss(self, batch: Batch) -> Terms:
        real, fake = discriminate_both(self, batch["image"], self.fakes(batch), batch["label"])
        return {"real": hinge_real(real), "fake": hinge_fake(fake)}

    def generator_loss(self, batch: Batch) -> Terms:
        return {"fake": -self.discriminate(self.fakes(batch), batch["label"]).mean()}


def imagenet128(**arguments: Any) -> ProjectionGAN:
    """The paper's networks for ImageNet at 128x128."""
    return ProjectionGAN(**{"image_size": 128, "num_classes": 1000, **arguments})
