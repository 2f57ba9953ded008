"""SAGAN: Self-Attention Generative Adversarial Networks (Zhang et al. 2018, arXiv:1805.08318)."""

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


class SAGAN(GANModule):
    """min_D E max(0, 1 - D(x, y)) + E max(0, 1 + D(G(z), y));  min_G -E D(G(z), y)  (eq. 4).

    Both players have self-attention (eq. 1 to 3; `SelfAttention`) and spectral norm; G has conditional batch norm, D a
    projection of the class. D learns faster than G (two time-scale update rule) instead of more often (section 4).

    The fakes of an update have the labels of its real images. In the authors' code these are uniform, Adam's beta2 is
    0.999, and initial weights have gain 1 in all layers; here as SNGAN's, sqrt 2 within blocks.

    Args:
        image_size: pixels: 4, 5, 6 or 7 times a power of two from 2 to 128, such as 28, 32 or 64; or [height, width].
        channels: of the image.
        num_classes: number of classes.
        z_dim: size of the latent, standard normal.
        width: unit of the feature maps. Below 64x64, each layer of G has 4 `width`, and of D 2 `width`. From 64x64 up,
            G has 16 `width` at its smallest size to 1 `width` (below 128x128: 2) at its largest, and D 1 to 16 `width`.
        attention: largest side of the feature maps with attention, in both players: 32 is the paper's feat_32, the
            lowest FID in its table 1. It is at most half the image's side.
        optimizer: G's Adam.
        discriminator_optimizer: D's Adam.
        **game: see `GANModule`.

    Raises:
        ValueError: the networks do not support the image size, or `attention` is below D's smallest feature maps.
    """

    def __init__(
        self,
        image_size: Size = 32,
        channels: Count = 3,
        num_classes: Count = 10,
        z_dim: Count = 128,
        width: Count = 64,
        attention: Count = 32,
        optimizer: OptimizerCallable = lambda params: FusedAdam(params, lr=1e-4, beta1=0.0, beta2=0.9),
        discriminator_optimizer: OptimizerCallable | None = lambda params: FusedAdam(
            params, lr=4e-4, beta1=0.0, beta2=0.9
        ),
        **game: Any,
    ) -> None:
        super().__init__(optimizer=optimizer, discriminator_optimizer=discriminator_optimizer, **game)
        self.num_classes = num_classes
        self.z_dim = z_dim
        self.generator = ResidualGenerator(image_size, channels, z_dim, width, num_classes, True, attention)
        self.discriminator = ResidualDiscriminator(
            image_size, channels, width, num_classes, attention=attention, wide=True
        )

    def discriminator_loss(self, batch: Batch) -> Terms:
        real, fake = discriminate_both(self, batch["image"], self.fakes(batch), batch["label"])
        return {"real": hinge_real(real), "fake": hinge_fake(fake)}

    def generator_loss(self, batch: Batch) -> Terms:
        return {"fake": -self.discriminate(self.fakes(batch), batch["label"]).mean()}


def imagenet128(**arguments: Any) -> SAGAN:
    """The paper's networks for ImageNet at 128x128; it is trained with batches of 256."""
    return SAGAN(**{"image_size": 128, "num_classes": 1000, **arguments})
