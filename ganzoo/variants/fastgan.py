"""FastGAN: Towards Faster and Stabilized GAN Training for High-fidelity Few-shot Image Synthesis (Liu et al. 2021,
arXiv:2101.04775)."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn.functional import relu

from ganzoo.augment import Augment, DiffAugment
from ganzoo.core.limits import Count, NonNegative, Positive, Size
from ganzoo.core.module import GANModule
from ganzoo.core.types import Batch, Terms, full_precision
from ganzoo.networks.fastgan import FastGANDiscriminator, FastGANGenerator
from ganzoo.networks.perceptual import Perceptual, Similarity
from ganzoo.optim.adam import FusedAdam


class FastGAN(GANModule):
    """min_D E max(0, s - D(x)) + E max(0, s + D(G(z))) + w sum_i E LPIPS(R_i(f_i(x)), T_i(x));  min_G -E D(G(z)).

    For 100 to 2,000 images. In G, low-resolution feature maps scale the channels of high-resolution ones. D is also an
    encoder: three decoders R_i reconstruct reals from its feature maps f_i, two of them the whole image at a smaller
    size, and one a random quadrant (sections 3.1 and 3.2).

    The hinge's margins s are random, uniform in [0.8, 1) for each logit. G makes each image twice, large and small, and
    D judges both. D sees augmented images, and the decoders reconstruct what it saw. Samples are the large images,
    without the noise that G's layers have in training, so that the latent determines an image.

    The authors' code sums the reconstruction loss over a batch of 8, while the hinge loss is a mean; here both are
    means, and w is 8. Both of its players use the same fakes, equally augmented, as `share_fakes` does but for the
    augmentation. It chooses one quadrant for a batch; here each image has its own. It takes every second, fourth, ...
    pixel of a real as its small image; here these are means, without aliasing. Its images of 256 and 512 pixels are not
    bounded; here tanh bounds all. Its G samples in training mode, with batch statistics; here batch norm has running
    statistics, of the weights before averaging: `standing_statistics` replaces them.

    The paper's images have 256, 512 and 1024 pixels; D sees 50,000 batches of 8. Networks for smaller images, from 32
    pixels up, lack the largest layers: see the table in `networks/fastgan.py`.

    Args:
        image_size: pixels: 4, 5, 6 or 7 times a power of two from 8 to 256, such as 32 or 80; or [height, width].
        channels: of the image.
        z_dim: size of the latent, standard normal.
        width: unit of the feature maps of both players; see `networks/fastgan.py`.
        d_width: D's unit; None: `width`.
        similarity: the reconstruction loss. "lpips": LPIPS with VGG16, whose weights are downloaded; "emoji": features
            of a classifier of emoji, which comes with ganzoo; "pixels": mean squared error.
        reconstruction: w.
        ema_half_life: as in `GANModule`; the authors' decay of 0.999 per batch of 8 halves in 693 batches.
        augment: as in `GANModule`; the paper's colours and shifts.
        optimizer: the authors' Adam.
        **game: see `GANModule`.

    Raises:
        ValueError: the networks do not support the image size, or the loss its channels.
    """

    several_sizes = True

    generator: FastGANGenerator
    discriminator: FastGANDiscriminator

    def __init__(
        self,
        image_size: Size = 256,
        channels: Count = 3,
        z_dim: Count = 256,
        width: Count = 64,
        d_width: Count | None = None,
        similarity: Similarity = "lpips",
        reconstruction: NonNegative = 8.0,
        ema_half_life: Positive | None = 5544.0,
        augment: Augment | None = DiffAugment(cutout=0.0),  # noqa: B008
        optimizer: OptimizerCallable = lambda params: FusedAdam(params, lr=2e-4, beta1=0.5),
        **game: Any,
    ) -> None:
        super().__init__(optimizer=optimizer, ema_half_life=ema_half_life, augment=augment, **game)
        self.z_dim = z_dim
        self.reconstruction = reconstruction
        self.generator = FastGANGenerator(image_size, channels, z_dim, width)
        self.discriminator = FastGANDiscriminator(image_size, channels, d_width or width)
        self.distance = Perceptual(similarity, channels)

    def discriminator_loss(self, batch: Batch) -> Terms:
        margin = batch["soft"]
        real, made, seen = self.discriminate(batch["image"], batch["quadrant"])
        fake = self.discriminate(self.fakes(batch))
        distance = self.distance(made.flatten(0, 1), seen.flatten(0, 1)).view(-1, 3).sum(1)
        return {
            "real": relu(margin[:, 0] - real).mean(),
            "fake": relu(margin[:, 1] + fake).mean(),
            "reconstruction": self.reconstruction * distance.mean(),
        }

    def generator_loss(self, batch: Batch) -> Terms:
        return {"fake": -self.discriminate(self.fakes(batch)).mean()}

    def discriminate(self, x: Tensor | tuple[Tensor, Tensor], y: Tensor | None = None) -> Any:
        """D's logits [N, 2, h, w] of images, or of G's large and small images, which are augmented independently.

        With quadrants y [N], also the reconstructions, and what D saw, each [N, 3, C, h, w].
        """
        if isinstance(x, Tensor):
            return super().discriminate(x, y)
        image, small = map(self.augment, x)
        return full_precision(self.discriminator(image, small=small))

    def make_fakes(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """G's large and small images."""
        return self.generator(batch["z"], batch["noise"])

    def synthesize(self, network: Any, batch: Batch) -> Tensor:
        image, _ = network(batch["z"], batch.get("noise"))
        return image

    def draw(self, n: int, generator: torch.Generator) -> Batch:
        """Latents, noise, the margins and the quadrants."""
        device = self.device_of(generator)
        margins = torch.rand(n, 2, *self.discriminator.logits, device=device, generator=generator)
        return {
            "z": self.latent(n, generator),
            "noise": [self.normal(generator, n, 1, *size) for size in self.generator.noise],
            "soft": 0.8 + 0.2 * margins,
            "quadrant": torch.randint(4, (n,), device=device, generator=generator),
        }
