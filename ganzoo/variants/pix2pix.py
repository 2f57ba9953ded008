"""Pix2Pix: Image-to-Image Translation with Conditional Adversarial Networks (Isola et al. 2016, arXiv:1611.07004)."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.nn.functional import l1_loss

from ganzoo.core.limits import Count, NonNegative, Size, sides
from ganzoo.core.module import GANModule
from ganzoo.core.types import Batch, Terms
from ganzoo.functional.losses import log_fake, log_real
from ganzoo.networks.patch import PatchDiscriminator
from ganzoo.networks.unet import UNet
from ganzoo.optim.adam import FusedAdam


class Pix2Pix(GANModule):
    """min_G max_D L_cGAN(G, D) + 100 L1(G) (eq. 4), on pairs of a source x and an image y.

    L_cGAN = E log D(x, y) + E log(1 - D(x, G(x, z))) (eq. 1), L1 = E |y - G(x, z)| (eq. 3). D classifies patches; its
    loss is halved, which the paper does to slow it down, although Adam hardly depends on it. G maximises log D(x, G(x,
    z)). The noise z is dropout, in sampling too: `latent` draws the masks, so a seed determines an image, as in all
    variants.

    Arguments for the paper's ablations: L1 (`gan=0`), GAN (`conditional=False, l1=0`), cGAN (`l1=0`), L1+GAN
    (`conditional=False`), L1+cGAN; in section 4.2, L1 and L1+cGAN with an encoder-decoder (`skips=False`).

    Args:
        image_size: pixels: 4, 8, 16, ...; or [height, width], such as [64, 96]; of the source as well.
        channels: of the image.
        source_channels: of the source.
        width: feature maps of both networks' first layers.
        receptive_field: of D's logits, in pixels: 1 ("PixelGAN"), 7, 16, 34, 70, 142, 286; None: the paper's 70, or the
            largest that does not exceed the image.
        conditional: D takes source and image (eq. 1), or the image only (eq. 2).
        skips: G is a U-Net; False for the paper's encoder-decoder without skip connections.
        l1: weight of the L1 term.
        gan: weight of the adversarial term; with 0, D is still trained but has no effect on G.
        optimizer: Adam as in section 3.3.
        **game: see `GANModule`.

    Raises:
        ValueError: both weights are 0, or the networks do not support the image size.
        MisconfigurationException: at the start of training: the data is unpaired.
    """

    generator: UNet

    def __init__(
        self,
        image_size: Size = 256,
        channels: Count = 3,
        source_channels: Count = 3,
        width: Count = 64,
        receptive_field: Count | None = None,
        conditional: bool = True,
        skips: bool = True,
        l1: NonNegative = 100.0,
        gan: NonNegative = 1.0,
        optimizer: OptimizerCallable = lambda params: FusedAdam(params, lr=2e-4, beta1=0.5),
        **game: Any,
    ) -> None:
        super().__init__(optimizer=optimizer, **game)
        if l1 == gan == 0:
            raise ValueError("l1 and gan are the weights of G's two loss terms: they must not both be 0")
        self.size = sides(image_size)
        self.source_channels = source_channels
        self.l1 = l1
        self.gan = gan
        self.generator = UNet(image_size, channels, source_channels, width, skips)
        given = source_channels if conditional else None
        self.discriminator = PatchDiscriminator(image_size, channels, given, width, receptive_field)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if not getattr(getattr(self.trainer, "datamodule", None), "paired", True):
            raise MisconfigurationException(
                "Pix2Pix needs pairs, but the data is unpaired: use PairedFolder, Pairs with data.paired true, or the "
                "model CycleGAN"
            )

    def discriminator_loss(self, batch: Batch) -> Terms:
        source = batch["source"]
        real = self.discriminate(batch["image"], source)
        fake = self.discriminate(self.fakes(batch), source)
        return {"real": -log_real(real) / 2, "fake": -log_fake(fake) / 2}

    def generator_loss(self, batch: Batch) -> Terms:
        source = batch["source"]
        image = self.fakes(batch)
        terms = {}
        if self.gan:
            terms["gan"] = -self.gan * log_real(self.discriminate(image, source))
        if self.l1:
            terms["l1"] = self.l1 * l1_loss(image, batch["image"])
        return terms

    def latent(self, n: int, generator: torch.Generator | None = None) -> list[Tensor]:
        """Dropout masks [n, C, h, w], one for each layer of G with dropout: 0 or 2 with equal probability."""
        device = self.device_of(generator)
        masks = (torch.randint(2, (n, *shape), generator=generator, device=device) for shape in self.generator.noise)
        return [2.0 * mask for mask in masks]

    def synthesize(self, network: Any, batch: Batch) -> Tensor:
        """
        Raises:
            ValueError: the sources do not have the model's image size.
        """
        source, size = batch["source"], self.size
        if source.shape[2:] != size:
            here, given = ("x".join(map(str, shape)) for shape in (size, source.shape[2:]))
            raise ValueError(f"this Pix2Pix translates {here} pixels, not {given}: resize the sources")
        return network(batch["z"], source)
