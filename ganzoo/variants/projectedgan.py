"""ProjectedGAN: Projected GANs Converge Faster (Sauer et al. 2021, arXiv:2111.01007)."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.cli import OptimizerCallable

from ganzoo.augment import Augment, DiffAugment
from ganzoo.core.limits import Count, Positive, Size
from ganzoo.core.module import GANModule
from ganzoo.core.types import Batch, Terms
from ganzoo.functional.losses import hinge_fake, hinge_real
from ganzoo.networks.features import Features
from ganzoo.networks.projected import ProjectedDiscriminator
from ganzoo.networks.residual import ResidualGenerator
from ganzoo.optim.adam import FusedAdam


class ProjectedGAN(GANModule):
    def __init__(
        self,
        image_size: Size = 256,
        channels: Count = 3,
        num_classes: Count | None = None,
        z_dim: Count = 256,
        width: Count = 128,
        d_width: Count = 64,
        features: str = "efficientnet_b0",
        ema_half_life: Positive | None = 20_000.0,
        augment: Augment | None = DiffAugment(cutout=0.2),  # noqa: B008
        optimizer: OptimizerCallable = lambda params: FusedAdam(params, lr=2e-4, beta1=0.0, beta2=0.99),
        **game: Any,
    ) -> None:
        super().__init__(optimizer=optimizer, ema_half_life=ema_half_life, augment=augment, **game)
        self.num_classes = num_classes
        self.z_dim = z_dim
        network = Features(features, channels)
        self.generator = ResidualGenerator(image_size, channels, z_dim, width)
        self.discriminator = ProjectedDiscriminator(
            network, network.source.channels, network.sizes(image_size), d_width, num_classes
        )

    def discriminator_loss(self, batch: Batch) -> Terms:
        y = batch["label"] if self.num_classes is not None else None
        real, fake = self.discriminate(batch["image"], y), self.discriminate(self.fakes(batch), y)
        return {"real": hinge_real(real), "fake": hinge_fake(fake)}

    def generator_loss(self, batch: Batch) -> Terms:
        y = batch["label"] if self.num_classes is not None else None
        return {"fake": -self.discriminate(self.fakes(batch), y).mean()}
