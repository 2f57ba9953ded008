"""EBGAN: Energy-based Generative Adversarial Network (Zhao, Mathieu, LeCun 2016, arXiv:1609.03126)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn.functional import relu

from ganzoo.core.limits import Count, Layers, NonNegative, Positive, Probability, Size
from ganzoo.core.module import GANModule
from ganzoo.core.types import Batch, Terms
from ganzoo.functional.penalties import pull_away
from ganzoo.functional.schedules import falling
from ganzoo.layers.init import normal_
from ganzoo.networks.autoencoder import ConvAutoEncoder, MLPAutoEncoder
from ganzoo.networks.dcgan import DCGANGenerator
from ganzoo.networks.mlp import ReLUGenerator
from ganzoo.optim.adam import FusedAdam


class EBGAN(GANModule):
    """D is an auto-encoder, and its reconstruction error is the energy D(x) = |Dec(Enc(x)) - x|.

    L_D = E D(x) + E max(0, m - D(G(z)));  L_G = E D(G(z)), plus f_PT(Enc(G(z))) in EBGAN-PT. The gradient reaches G
    through both sides of the difference, the input and the target of the reconstruction.

    The energy is the Euclidean norm, as in section 2.3, not its square or a mean over pixels; it is unknown for which
    of these the paper's margins were tuned. Reconstructions are initially about 0, so a black MNIST image has an energy
    of 28, and m = 10 lies between this and the energy of a well reconstructed digit; a black 64x64 image in three
    channels has 110.9, above the margins 20 and 80 of the configs for CelebA and LSUN. A mean square is at most 4 if
    images and reconstructions are in [-1, 1], below these margins; a sum of squares would start at 784. The norm, and
    with it a suitable margin, grows with the square root of the number of pixels.

    The defaults are the best EBGAN of the paper's grid on MNIST, figure 4 (b). The best EBGAN-PT, figure 4 (c), differs
    only in `pull_away_weight`, 0.1.

    Args:
        image_size: pixels, or [height, width]; for "dcgan" 16, 32, 64 or 128, or such as [64, 96].
        channels: of the image.
        z_dim: size of the latent, uniform in (-1, 1).
        architecture: "mlp", the paper's for MNIST (section 4.1), or "dcgan", with the paper's feature maps for LSUN and
            CelebA; DCGAN's G has 5x5 kernels, the paper's 4x4.
        layers_g: linear layers of G, the grid's nLayerG; "mlp" only.
        layers_d: linear layers of Enc and Dec together, 2 or more, of which Dec has one: nLayerD; "mlp" only.
        hidden: units of G's hidden layers, sizeG; for "dcgan" feature maps at half the image's size.
        d_hidden: units of Enc's layers, sizeD; for "dcgan" feature maps at half the image's size.
        dropout: drop probability of Enc's units; "mlp" only.
        margin: m; fakes with a higher energy do not contribute to D's loss.
        margin_images: images over which the margin decays linearly to 0; None for a constant margin.
        pull_away_weight: weight of the pull-away term f_PT (0.1 in EBGAN-PT); pairs are within a process's microbatch.
        optimizer: Adam as in the paper's grid.
        **game: see `GANModule`.

    Raises:
        ValueError: `layers_d` is below 2, or "dcgan" does not support the image size.
    """

    margin: Tensor  # current value; a buffer, so that it is saved in checkpoints

    prior = "uniform"
    boundary = None  # energies have no sign
    real_scores_higher = False

    def __init__(
        self,
        image_size: Size = 28,
        channels: Count = 1,
        z_dim: Count = 100,
        architecture: Literal["mlp", "dcgan"] = "mlp",
        layers_g: Layers = 5,
        layers_d: Layers = 2,
        hidden: Count = 800,
        d_hidden: Count = 1024,
        dropout: Probability = 0.0,
        margin: NonNegative = 10.0,
        margin_images: Positive | None = None,
        pull_away_weight: NonNegative = 0.0,
        optimizer: OptimizerCallable = lambda params: FusedAdam(params, lr=1e-3),
        **game: Any,
    ) -> None:
        super().__init__(optimizer=optimizer, **game)
        self.z_dim = z_dim
        self.first_margin, self.margin_images = margin, margin_images
        self.pull_away_weight = pull_away_weight
        self.register_buffer("margin", torch.tensor(float(margin)))
        if architecture == "dcgan":
            self.generator = DCGANGenerator(image_size, channels, z_dim, hidden)
            self.discriminator = ConvAutoEncoder(image_size, channels, d_hidden)
        else:
            self.generator = ReLUGenerator(image_size, channels, z_dim, hidden, layers_g, batch_norm=True)
            self.discriminator = MLPAutoEncoder(image_size, channels, d_hidden, layers_d, dropout)
        normal_(self.generator, 0.02)
        normal_(self.discriminator, 0.002)

    def discriminator_loss(self, batch: Batch) -> Terms:
        real, _ = self.discriminate(batch["image"])
        fake, _ = self.discriminate(self.fakes(batch))
        return {"real": real.mean(), "fake": relu(self.margin - fake).mean()}

    def generator_loss(self, batch: Batch) -> Terms:
        fake, code = self.discriminate(self.fakes(batch))
        terms = {"fake": fake.mean()}
        if self.pull_away_weight:
            terms["pull_away"] = self.pull_away_weight * pull_away(code)
        return terms

    def schedule(self, images_seen: int) -> None:
        """The margin falls linearly, from `margin` to 0 at `margin_images`."""
        self.margin.fill_(falling(self.first_margin, images_seen, self.margin_images))
