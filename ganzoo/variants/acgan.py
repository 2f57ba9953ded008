"""ACGAN: Conditional Image Synthesis with Auxiliary Classifier GANs (Odena et al. 2016, arXiv:1610.09585)."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn.functional import cross_entropy

from ganzoo.core.limits import Count, Size
from ganzoo.core.module import GANModule
from ganzoo.core.types import Batch, Terms
from ganzoo.functional.losses import log_fake, log_real
from ganzoo.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from ganzoo.optim.adam import FusedAdam


class ACGAN(GANModule):
    """D predicts the source (real or fake), L_S (eq. 2), and the class, L_C (eq. 3); it does not take the label as
    input.

    L_S = E log P(real|x) + E log P(fake|G(z, c)) and L_C = E log P(c|x) + E log P(c|G(z, c)). D maximises L_S + L_C,
    and G maximises L_C - L_S; in practice G maximises E log P(real|G(z, c)) instead of minimising
    E log P(fake|G(z, c)).

    The fakes of an update have the classes of its real images, so they follow the data's class distribution p_c.

    G is the paper's for CIFAR-10 (appendix; no norm after the linear layer), except for the latent's distribution,
    which is DCGAN's. D is DCGAN's with K additional outputs; the paper's has six layers, dropout, and in some runs
    noise on its activations.

    Args:
        image_size: pixels: 8, 16, 32, 64, ...; or [height, width], such as [64, 96].
        channels: of the image.
        num_classes: number of classes.
        z_dim: size of the latent, uniform in (-1, 1); the label is appended as a one-hot vector.
        width: feature maps of the convolutions at half the image's size, doubled with each halving.
        optimizer: the paper's Adam.
        **game: see `GANModule`.

    Raises:
        ValueError: the networks do not support the image size.
    """

    prior = "uniform"

    def __init__(
        self,
        image_size: Size = 32,
        channels: Count = 3,
        num_classes: Count = 10,
        z_dim: Count = 100,
        width: Count = 96,
        optimizer: OptimizerCallable = lambda params: FusedAdam(params, lr=2e-4, beta1=0.5),
        **game: Any,
    ) -> None:
        super().__init__(optimizer=optimizer, **game)
        self.num_classes = num_classes
        self.z_dim = z_dim
        self.generator = DCGANGenerator(image_size, channels, z_dim, width, num_classes, first_norm=False)
        self.discriminator = DCGANDiscriminator(image_size, channels, width, outputs=1 + num_classes)

    def discriminate(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits of the source [N] and of the classes [N, K]."""
        logits = super().discriminate(x)
        return logits[:, 0], logits[:, 1:]

    def discriminator_loss(self, batch: Batch) -> Terms:
        x, c = batch["image"], batch["label"]
        real, real_class = self.discriminate(x)
        fake, fake_class = self.discriminate(self.fakes(batch))
        return {
            "real": -log_real(real),
            "fake": -log_fake(fake),
            "real_class": cross_entropy(real_class, c),
            "fake_class": cross_entropy(fake_class, c),
        }

    def generator_loss(self, batch: Batch) -> Terms:
        c = batch["label"]
        fake, fake_class = self.discriminate(self.fakes(batch))
        return {"fake": -log_real(fake), "fake_class": cross_entropy(fake_class, c)}
