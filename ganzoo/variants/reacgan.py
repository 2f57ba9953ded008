"""ReACGAN: Rebooting ACGAN: Auxiliary Classifier GANs with Stable Training (Kang et al. 2021, arXiv:2111.01118)."""

from __future__ import annotations

from functools import partial
from typing import Any

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from ganzoo.core.batch import discriminate_both
from ganzoo.core.limits import Count, NonNegative, Positive, Share, Size
from ganzoo.core.module import GANModule
from ganzoo.core.strategy import gather
from ganzoo.core.types import Batch, Terms
from ganzoo.functional.contrastive import data_to_data
from ganzoo.functional.losses import hinge_fake, hinge_real
from ganzoo.networks.biggan import BigGANGenerator
from ganzoo.networks.residual import ContrastiveDiscriminator
from ganzoo.optim.adam import FusedAdam


class ReACGAN(GANModule):
    """The hinge loss plus `class_weight` times D2D-CE, the data-to-data cross-entropy: D minimises it for reals, G for
    fakes.

    D2D-CE replaces ACGAN's cross-entropy. It compares the similarity of an image's embedding to the proxy of its class
    with those to the batch's images of other classes. Embeddings and proxies have length 1, so that no gradient
    explodes, and similarities beyond a margin have no gradient. D's score does not depend on the label. The fakes of an
    update have the classes of its real images.

    D2D-CE compares the images of a microbatch, of all processes in training, and of one process in validation; it is 0
    if they all have one class.

    The networks are BigGAN's; D has two linear heads, for score and embedding. Numbers are those of the authors' code
    for CIFAR-10, without its averaged generator, which configs/reacgan/cifar10.yaml has; for ImageNet see
    `imagenet128`. Differences from that code: D2D-CE is the paper's equation, while the code multiplies R_i by a
    number between e^(-m_p / t) and 1, since it subtracts the largest similarity only there; and its in-place ReLU also
    changes the input x of the shortcuts of D's blocks to relu(x). Its labels of fakes are drawn at random, and its
    norms have other eps: 1e-4 (batch) and 1e-6 (spectral) instead of torch's 1e-5 and 1e-12.

    Args:
        image_size: pixels: 4, 5, 6 or 7 times a power of two from 2 to 128, such as 28, 32 or 64; or [height, width].
        channels: of the image.
        num_classes: number of classes.
        z_dim: size of the latent, standard normal; a multiple of k + 1 if 4 to 7 pixels are doubled k times: of 4 at
            32x32, of 6 at 128x128.
        width: unit of the feature maps: at 32x32, G has 4 `width` of them, and D 2.
        d_width: as `width`, for D; None: the same.
        embedding: size of G's embedding of the label.
        attention: largest side of the feature maps with attention, in both players, at most half the image's side.
        embed_dim: size of D's embeddings and proxies.
        class_weight: lambda.
        margin: m_p, for the similarity to the proxy; that for images of other classes, m_n, is 1 - m_p.
        temperature: t of D2D-CE.
        n_critic: discriminator updates per generator update, each on a new batch.
        optimizer: Adam.
        **game: see `GANModule`.

    Raises:
        ValueError: the networks do not support the image size, they cannot split z_dim, or `attention` is below D's
            smallest feature maps.
    """

    def __init__(
        self,
        image_size: Size = 32,
        channels: Count = 3,
        num_classes: Count = 10,
        z_dim: Count = 80,
        width: Count = 96,
        d_width: Count | None = None,
        embedding: Count = 128,
        attention: Count = 16,
        embed_dim: Count = 512,
        class_weight: NonNegative = 0.5,
        margin: Share = 0.98,
        temperature: Positive = 0.5,
        n_critic: Count = 5,
        optimizer: OptimizerCallable = lambda params: FusedAdam(params, lr=0.00028284271, beta1=0.5, eps=1e-6),
        **game: Any,
    ) -> None:
        super().__init__(optimizer=optimizer, n_critic=n_critic, **game)
        self.num_classes = num_classes
        self.z_dim = z_dim
        self.class_weight, self.margin, self.temperature = class_weight, margin, temperature
        self.generator = BigGANGenerator(image_size, channels, z_dim, width, num_classes, embedding, attention)
        self.discriminator = ContrastiveDiscriminator(
            image_size, channels, num_classes, d_width or width, embed_dim, attention
        )

    def discriminator_loss(self, batch: Batch) -> Terms:
        y = batch["label"]
        (real, e, p), (fake, _, _) = discriminate_both(self, batch["image"], self.fakes(batch), y)
        return {"real": hinge_real(real), "fake": hinge_fake(fake), "class": self.class_loss(e, p, y)}

    def generator_loss(self, batch: Batch) -> Terms:
        y = batch["label"]
        fake, e, p = self.discriminate(self.fakes(batch), y)
        return {"fake": -fake.mean(), "class": self.class_loss(e, p, y)}

    def class_loss(self, e: Tensor, p: Tensor, y: Tensor) -> Tensor:
        """The weighted D2D-CE of embeddings e [N, d] with proxies p [N, d] and labels y [N]."""
        if self.training:
            e, p, y = gather(e), gather(p), gather(y)
        return self.class_weight * data_to_data(e, p, y, self.margin, self.temperature)


def imagenet128(**arguments: Any) -> ReACGAN:
    """The authors' model for ImageNet at 128x128, trained for 500,000 updates of G with batches of 256.

    The averaged generator has their decay of 0.9999 per update of G: half in 6,931 updates of two batches. Its
    half-life is at most 5 % of the images seen; their averaging starts after 20,000 updates.
    """
    authors = {
        "image_size": 128,
        "num_classes": 1000,
        "z_dim": 120,
        "attention": 64,
        "embed_dim": 2048,
        "class_weight": 1.0,
        "n_critic": 2,
        "optimizer": partial(FusedAdam, lr=5e-5, beta1=0.0, eps=1e-6),
        "discriminator_optimizer": partial(FusedAdam, lr=2e-4, beta1=0.0, eps=1e-6),
        "ema_half_life": 6931 * 2 * 256.0,
        "ema_ramp_up": 0.05,
    }
    return ReACGAN(**{**authors, **arguments})
