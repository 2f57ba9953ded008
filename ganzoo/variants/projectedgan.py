"""ProjectedGAN: Projected GANs Converge Faster (Sauer et al. 2021, arXiv:2111.01007)."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from ganzoo.augment import Augment, DiffAugment
from ganzoo.core.limits import Count, Positive, Size
from ganzoo.core.module import GANModule
from ganzoo.core.types import Batch, Terms
from ganzoo.functional.losses import hinge_fake, hinge_real
from ganzoo.networks.features import Features
from ganzoo.networks.projected import ProjectedDiscriminator, ProjectedGenerator
from ganzoo.optim.adam import FusedAdam


class ProjectedGAN(GANModule):
    """min_D E max(0, 1 - D_l(P_l(x))) + E max(0, 1 + D_l(P_l(G(z))));  min_G -E D_l(P_l(G(z))),  means over l  (eq. 3).

    D sees an image through a frozen network that was trained to classify others: P_l mixes its feature maps by random
    projections, across channels and scales, and has no trained weights either. Each D_l returns a map of logits; there
    are four (with "vgg16" five), and the means are over all logits of all maps.

    D sees augmented images by default; smaller ones are enlarged for the feature network. It is torchvision's
    EfficientNet-B0, whose maps have the channels of the paper's Lite0. As in the paper, its inputs are normalised as
    when it was trained. Do not compute scores with the same features. Features of ImageNet in D also bias FID by
    Inception.

    G is FastGAN's; the samples are without the noise that its layers have in training, so that a latent determines an
    image. A label conditions G's norms, and D by projection (`networks/projected.py`).

    Args:
        image_size: pixels: 4, 5, 6 or 7 times a power of two from 2 to 256, such as 28, 32 or 64; or [height, width].
        channels: of the image, 1 or 3.
        num_classes: number of classes; None: unconditional.
        conditional: whether to use labels, if there are any.
        z_dim: size of the latent, standard normal.
        width: unit of G's feature maps, those at 128 pixels.
        d_width: maps of D's finest mixture; other mixtures and the heads have up to 8 times as many.
        lite: G without noise, with half of the convolutions.
        features: "efficientnet_b0" or "vgg16", trained on ImageNet, with weights that are downloaded; or
            "emoji-training", a classifier of emoji, which comes with ganzoo.
        ema_half_life: half-life, in images, of the averaged generator: the authors' 10,000 / 32 times the batch of 64.
        augment: what D sees; None: the images.
        optimizer: Adam.
        **game: see `GANModule`.

    Raises:
        ValueError: the features are unknown or read other images, or freeze_d is set.
    """

    generator: ProjectedGenerator

    def __init__(
        self,
        image_size: Size = 256,
        channels: Count = 3,
        num_classes: Count | None = None,
        conditional: bool = True,
        z_dim: Count = 256,
        width: Count = 128,
        d_width: Count = 64,
        lite: bool = False,
        features: str = "efficientnet_b0",
        ema_half_life: Positive | None = 20_000.0,
        augment: Augment | None = DiffAugment(cutout=0.2),  # noqa: B008
        optimizer: OptimizerCallable = lambda params: FusedAdam(params, lr=2e-4, beta1=0.0, beta2=0.99),
        **game: Any,
    ) -> None:
        super().__init__(optimizer=optimizer, ema_half_life=ema_half_life, augment=augment, **game)
        if self.freeze_d:
            raise ValueError(
                "freeze_d does not work with ProjectedGAN: its feature network is frozen already, and its heads are "
                "parallel; leave freeze_d out"
            )
        self.num_classes = classes = num_classes if conditional else None
        self.z_dim = z_dim
        frozen = Features(features, channels)
        self.generator = ProjectedGenerator(image_size, channels, z_dim, width, lite, classes)
        maps = frozen.source.channels, frozen.sizes(image_size)
        self.discriminator = ProjectedDiscriminator(frozen, *maps, d_width, classes)

    def discriminator_loss(self, batch: Batch) -> Terms:
        y = self.labels(batch)
        real, fake = self.discriminate(batch["image"], y), self.discriminate(self.fakes(batch), y)
        return {"real": hinge_real(real), "fake": hinge_fake(fake)}

    def generator_loss(self, batch: Batch) -> Terms:
        return {"fake": -self.discriminate(self.fakes(batch), self.labels(batch)).mean()}

    def synthesize(self, network: Any, batch: Batch) -> Tensor:
        return network(batch["z"], self.labels(batch), batch.get("noise", ()))

    def draw(self, n: int, generator: Any) -> Batch:
        """Latents, and noise for G's layers."""
        noise = [self.normal(generator, n, 1, *size) for size in self.generator.noise]
        return {"z": self.latent(n, generator), "noise": noise}
