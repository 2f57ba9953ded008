"""LadderEBGAN: Energy-based GAN, semi-supervised with a ladder network (Zhao et al. 2016, arXiv:1609.03126, 4.2)."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.nn.functional import cross_entropy, relu

from ganzoo.core.frozen import evaluating
from ganzoo.core.limits import Count, Layers, NonNegative, Positive, Size
from ganzoo.core.module import GANModule
from ganzoo.core.types import Batch, Terms, full_precision
from ganzoo.functional.schedules import falling
from ganzoo.layers.init import normal_
from ganzoo.networks.ladder import Ladder
from ganzoo.networks.mlp import ReLUGenerator
from ganzoo.optim.adam import FusedAdam

NEEDS = "LadderEBGAN needs some labelled images: use SemiSupervised, which wraps other data"


class LadderEBGAN(GANModule):
    """EBGAN whose D is a ladder network (Rasmus et al. 2015, arXiv:1507.02672), for semi-supervised learning.

    The energy is the denoising cost of the ladder's bottom layer, the pixels. D also minimises the denoising costs of
    the other layers on `batch["image"]` and the cross-entropy of its noisy path on `batch["labelled"]`. Fakes act as a
    regulariser: the paper finds it crucial that the margin decays; with a margin of 0, D is trained as a plain ladder
    network.

    `error` is the classification error: of the noisy path on the labelled images in training, and of the clean path on
    held-out images (`val/error`). Needs the data module `SemiSupervised`.

    The paper searched for the margin's initial value and decay; the defaults here are this project's.

    Args:
        image_size: pixels, or [height, width].
        channels: of the image.
        num_classes: number of classes; the generator is unconditional.
        z_dim: size of the latent, uniform in (-1, 1).
        layers_g: linear layers of G.
        hidden: units of G's hidden layers.
        d_hidden: units of the ladder's third to fifth hidden layer; the second has twice as many, the first four times.
        noise: standard deviation of the ladder's noise, on pixels in [0, 1] and on its normalised layers.
        denoising: weights of the layers' denoising costs, from the pixels upwards. The paper uses the bottom layer
            only; 5000 is the ladder authors' weight for 100 labels; with all layers: 1000, 10, and five times 0.1.
        margin: initial m, in units of the weighted cost.
        margin_images: images over which the margin decays linearly to 0; None for a constant margin.
        optimizer: EBGAN's Adam, for G.
        discriminator_optimizer: the ladder's Adam.
        **game: see `GANModule`.

    Raises:
        ValueError: `denoising` has no weight, more than 7, or a negative one.
        MisconfigurationException: at the start of training: the data has no labelled images; use `SemiSupervised`.
    """

    discriminator: Ladder
    margin: Tensor  # current value; a buffer, so that it is saved in checkpoints
    prior = "uniform"
    boundary = None  # energies have no sign
    real_scores_higher = False

    def __init__(
        self,
        image_size: Size = 28,
        channels: Count = 1,
        num_classes: Count = 10,
        z_dim: Count = 100,
        layers_g: Layers = 5,
        hidden: Count = 800,
        d_hidden: Count = 250,
        noise: NonNegative = 0.3,
        denoising: tuple[float, ...] = (5000.0,),
        margin: NonNegative = 100.0,
        margin_images: Positive | None = 3e6,
        optimizer: OptimizerCallable = lambda params: FusedAdam(params, lr=1e-3),
        discriminator_optimizer: OptimizerCallable | None = lambda params: FusedAdam(params, lr=2e-3),
        **game: Any,
    ) -> None:
        super().__init__(optimizer=optimizer, discriminator_optimizer=discriminator_optimizer, **game)
        self.z_dim = z_dim
        self.first_margin, self.margin_images = margin, margin_images
        self.register_buffer("margin", torch.tensor(float(margin)))
        self.generator = ReLUGenerator(image_size, channels, z_dim, hidden, layers_g, batch_norm=True)
        normal_(self.generator, 0.02)
        self.discriminator = Ladder(image_size, channels, num_classes, d_hidden, noise, denoising)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if not getattr(getattr(self.trainer, "datamodule", None), "labelled", True):
            raise MisconfigurationException(NEEDS)

    def discriminator_loss(self, batch: Batch) -> Terms:
        if "labelled" not in batch:
            raise MisconfigurationException(NEEDS)
        # Only real images update the running statistics, with which held-out images are classified (the ladder's
        # authors: labelled ones).
        real, above = full_precision(self.discriminator(self.augment(batch["image"]), track=True))
        fake, _ = self.discriminate(self.fakes(batch))
        image, label = batch["labelled"]
        logits = full_precision(self.discriminator.classify(self.augment(image)))
        # Held-out images are classified as they are, not augmented
        found = logits.argmax(1) if self.training else self.classify(image)
        self.observe("error", (found != label).float().mean())
        return {
            "real": real.mean(),
            "fake": relu(self.margin - fake).mean(),
            "above": above.mean(),
            "label": cross_entropy(logits, label),
        }

    def generator_loss(self, batch: Batch) -> Terms:
        fake, _ = self.discriminate(self.fakes(batch))
        return {"fake": fake.mean()}

    def schedule(self, images_seen: int) -> None:
        """The margin falls linearly, from `margin` to 0 at `margin_images`."""
        self.margin.fill_(falling(self.first_margin, images_seen, self.margin_images))

    @torch.no_grad()
    def classify(self, x: Tensor) -> Tensor:
        """Classes [N] of images [N, C, H, W] in [-1, 1], by the clean path in eval mode."""
        with evaluating(self.discriminator):
            return self.discriminator.classify(x).argmax(1)
