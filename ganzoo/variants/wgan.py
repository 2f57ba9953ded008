"""WGAN: Wasserstein GAN (Arjovsky et al. 2017, arXiv:1701.07875)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch.optim import RMSprop

from ganzoo.core.limits import Count, Positive, Size
from ganzoo.core.module import GANModule
from ganzoo.core.types import Batch, Terms
from ganzoo.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from ganzoo.networks.mlp import ReLUDiscriminator, ReLUGenerator


class WGAN(GANModule):
    """min_G max_f E f(x) - E f(G(z)) over critics f with weights in [-clip, clip] (algorithm 1).

    At the optimal f the difference is the Wasserstein-1 distance times the Lipschitz constant that the clipping allows:
    the logged `wasserstein` is comparable within a run, not between critics. All parameters of the critic are clipped,
    including batch norm's, but not running statistics. The networks are DCGAN's; the authors' code has 4x4 kernels, no
    biases, and an MLP whose G has no tanh. It clips before D's updates instead of after them. The authors report that
    momentum, as in Adam, makes the critic unstable.

    Args:
        image_size: pixels: 8, 16, 32, 64, ...; or [height, width], such as [64, 96]; any for "mlp".
        channels: of the image.
        z_dim: size of the latent, standard normal.
        width: feature maps of DCGAN's convolutions at half the image's size, or hidden units of the MLP (512 in the
            paper).
        architecture: "dcgan", or "mlp" with four linear layers.
        clip: largest absolute weight of the critic.
        n_critic: critic updates per generator update, each on a new batch.
        burst: number of critic updates, instead of `n_critic`, before each of G's first 25 updates, and after 500,
            1000, ... updates of G: 100 in the authors' code (WassersteinGAN, main.py). None: always `n_critic`, as in
            algorithm 1.
        optimizer: RMSProp as in algorithm 1.
        **game: see `GANModule`.

    Raises:
        ValueError: the networks do not support the image size.
    """

    boundary = None  # a critic's scores have no sign

    def __init__(
        self,
        image_size: Size = 64,
        channels: Count = 3,
        z_dim: Count = 100,
        width: Count = 64,
        architecture: Literal["dcgan", "mlp"] = "dcgan",
        clip: Positive = 0.01,
        n_critic: Count = 5,
        burst: Count | None = None,
        optimizer: OptimizerCallable = lambda params: RMSprop(params, lr=5e-5),
        **game: Any,
    ) -> None:
        super().__init__(optimizer=optimizer, n_critic=n_critic, **game)
        self.z_dim = z_dim
        self.clip = clip
        self.burst = burst
        G, D = (ReLUGenerator, ReLUDiscriminator) if architecture == "mlp" else (DCGANGenerator, DCGANDiscriminator)
        self.generator, self.discriminator = G(image_size, channels, z_dim, width), D(image_size, channels, width)

    def discriminator_loss(self, batch: Batch) -> Terms:
        real = self.discriminate(batch["image"]).mean()
        fake = self.discriminate(self.fakes(batch)).mean()
        self.observe("wasserstein", real - fake)
        return {"real": -real, "fake": fake}

    def generator_loss(self, batch: Batch) -> Terms:
        return {"fake": -self.discriminate(self.fakes(batch)).mean()}

    def generator_due(self) -> bool:
        if self.burst is None:
            return super().generator_due()
        return burst_due(self.trainer.global_step + 1, self.n_critic, self.burst)

    def discriminator_step(self, batch: Batch) -> None:
        super().discriminator_step(batch)
        with torch.no_grad():
            for p in self.discriminator.parameters():
                p.clamp_(-self.clip, self.clip)


def burst_due(batches: int, n_critic: int, burst: int) -> bool:
    """Whether G is updated after this number of batches; see WGAN's `burst`.

    A burst precedes each of G's first 25 updates, and then every 500th update from the 501st.
    """
    bursts, first_500 = 25, 25 * burst + 475 * n_critic
    if batches > first_500:
        bursts, batches = 1, (batches - first_500 - 1) % (burst + 499 * n_critic) + 1
    since = batches - bursts * burst
    return since % n_critic == 0 if since > 0 else batches % burst == 0
