"""BigGAN: Large Scale GAN Training for High Fidelity Natural Image Synthesis (Brock et al. 2018, arXiv:1809.11096)."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.cli import OptimizerCallable

from ganzoo.core.batch import discriminate_both
from ganzoo.core.limits import Count, Size
from ganzoo.core.module import GANModule
from ganzoo.core.types import Batch, Latent, Terms
from ganzoo.functional.losses import hinge_fake, hinge_real
from ganzoo.functional.truncation import truncated
from ganzoo.networks.biggan import BigGANDeepDiscriminator, BigGANDeepGenerator, BigGANGenerator
from ganzoo.networks.residual import ResidualDiscriminator
from ganzoo.optim.adam import FusedAdam
from ganzoo.penalties import Orthogonal


class BigGAN(GANModule):
    """min_D E max(0, 1 - D(x, y)) + E max(0, 1 + D(G(z, y), y));  min_G -E D(G(z, y), y)  (section 3).

    SAGAN, larger: a class embedding shared by all norms of G, chunks of the latent in all of its blocks (skip-z),
    orthogonal initial weights, two updates of D per update of G, large batches, an averaged generator. The last two are
    arguments of the run: `microbatches` and `ema_half_life`; batch norm has the statistics of a microbatch. The paper's
    orthogonal regularization of G (eq. 3) is an option of any variant.

    Samples trade diversity for quality: `model.sample(16, truncation=0.5)` restricts the latent's numbers to
    [-0.5, 0.5] (section 3.1). For standing statistics, call `take_standing_statistics` first.

    The fakes of an update have the labels of its real images; those of the authors' code are uniform.

    Args:
        image_size: pixels: 4, 5, 6 or 7 times a power of two from 2 to 128, such as 28, 32 or 64; or [height, width].
        channels: of the image.
        num_classes: number of classes.
        z_dim: size of the latent, standard normal; a multiple of k + 1 if 4 to 7 pixels are doubled k times: of 4 at
            32x32, of 6 at 128x128. Any size if `deep`.
        width: base number of feature maps, the paper's ch. Below 64x64, all layers of G have 4 ch, and of D 2 ch
            (`deep`: 4 ch). From 64x64 up, G has 16 ch at its smallest size to ch (below 128x128: 2 ch) at its
            largest, and D has ch to 16 ch.
        embedding: size of the shared class embedding.
        attention: largest side of the feature maps with attention, in both players, at most half the image's side.
        deep: BigGAN-deep: twice as many blocks, with bottlenecks, and the whole latent in each of them.
        n_critic: discriminator updates per generator update, each on a new batch.
        optimizer: G's Adam.
        discriminator_optimizer: D's Adam.
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
        z_dim: Count = 120,
        width: Count = 96,
        embedding: Count = 128,
        attention: Count = 64,
        deep: bool = False,
        n_critic: Count = 2,
        optimizer: OptimizerCallable = lambda params: FusedAdam(params, lr=5e-5, beta1=0.0),
        discriminator_optimizer: OptimizerCallable | None = lambda params: FusedAdam(params, lr=2e-4, beta1=0.0),
        **game: Any,
    ) -> None:
        super().__init__(
            optimizer=optimizer, discriminator_optimizer=discriminator_optimizer, n_critic=n_critic, **game
        )
        self.num_classes = num_classes
        self.z_dim = z_dim
        G = BigGANDeepGenerator if deep else BigGANGenerator
        self.generator = G(image_size, channels, z_dim, width, num_classes, embedding, attention)
        self.discriminator = (
            BigGANDeepDiscriminator(image_size, channels, width, num_classes, attention)
            if deep
            else ResidualDiscriminator(
                image_size, channels, width, num_classes, attention=attention, wide=True, orthogonal=True
            )
        )

    def discriminator_loss(self, batch: Batch) -> Terms:
        real, fake = discriminate_both(self, batch["image"], self.fakes(batch), batch["label"])
        return {"real": hinge_real(real), "fake": hinge_fake(fake)}

    def generator_loss(self, batch: Batch) -> Terms:
        return {"fake": -self.discriminate(self.fakes(batch), batch["label"]).mean()}

    def truncate(self, z: Latent, truncation: float) -> Latent:
        """Latents whose numbers are from the normal distribution restricted to [-truncation, truncation]."""
        return truncated(z, truncation)


def imagenet128(**arguments: Any) -> BigGAN:
    """The paper's model for ImageNet at 128x128 (table 4), with its penalty on G; it is trained with batches of 2048.

    The averaged generator has the paper's decay of 0.9999 per update of G: half in 6,931 updates of two batches. Its
    half-life is at most 5 % of the images seen; in the authors' launch script, averaging starts after 20,000 updates,
    and Adam's eps is 1e-6 instead of 1e-8.
    """
    paper = {"image_size": 128, "num_classes": 1000, "z_dim": 120, "width": 96}
    averaging = {"ema_half_life": 6931 * 2 * 2048.0, "ema_ramp_up": 0.05}
    return BigGAN(**{"penalties": [Orthogonal()], **paper, **averaging, **arguments})


def deep_imagenet128(**arguments: Any) -> BigGAN:
    """BigGAN-deep for ImageNet at 128x128, table 7."""
    return imagenet128(**{"z_dim": 128, "width": 128, "deep": True, **arguments})
