"""LAPGAN: Deep Generative Image Models using a Laplacian Pyramid of Adversarial Networks (Denton et al. 2015, arXiv:1506.05751)."""  # noqa: E501

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.optim import SGD

from ganzoo.core.limits import Count, Size, sides
from ganzoo.core.module import GANModule
from ganzoo.core.types import Batch, Terms, full_precision
from ganzoo.functional.losses import log_fake, log_real
from ganzoo.functional.pyramid import expand, gaussian_pyramid
from ganzoo.networks.base import halvings
from ganzoo.networks.laplacian import Cascade, ResidualDiscriminator, ResidualGenerator
from ganzoo.networks.mlp import ReLUDiscriminator, ReLUGenerator


class LAPGAN(GANModule):
    """One conditional GAN per level of a Laplacian pyramid, and an unconditional one for its coarsest image.

    With I_0 = x, I_{k+1} = d(I_k), l_k = u(I_{k+1}) and h_k = I_k - l_k, level k < K plays (eq. 2)
    min_G max_D E log D_k(h_k, l_k) + E log(1 - D_k(G_k(z_k, l_k), l_k)), with the non-saturating loss for G; D_k takes
    the sum of its arguments, and h_k + l_k = I_k. Level K has no l: it plays the unconditional game on I_K.

    Levels are trained on real l_k and share nothing, so training them at the same time, as here, equals training them
    one by one (but `clip_norm` applies to all their gradients together). Sampling starts from the coarsest level.

    D's loss is halved: in the authors' code it is the mean cross-entropy of a batch of half reals and half fakes. Their
    128 images are 64 of each; here they are 128 of each. The paper's class-conditional version is omitted.

    Args:
        image_size: pixels, or [height, width]; multiples of 2^levels.
        channels: of the image.
        levels: K, number of halvings. The paper's pyramids are 8, 14, 28 for CIFAR-10 and 4, ..., 64 for LSUN.
        z_dim: size of the coarsest level's latent; the other levels' latents are single-channel noise images. All are
            uniform in (-1, 1).
        width: feature maps of the convolutions.
        hidden: units of each of the two hidden layers of the coarsest level's G.
        d_hidden: units of each of the two hidden layers of its D.
        optimizer: the paper's SGD; `schedule` sets its learning rate and momentum.
        **game: see `GANModule`.

    Raises:
        ValueError: image_size cannot be halved `levels` times.
    """

    generator: Cascade
    discriminator: nn.ModuleList
    boundary = None  # of a discriminator for each level

    def __init__(
        self,
        image_size: Size = 32,
        channels: Count = 3,
        levels: int = 2,
        z_dim: Count = 100,
        width: Count = 64,
        hidden: Count = 1200,
        d_hidden: Count = 600,
        optimizer: OptimizerCallable = lambda params: SGD(params, lr=0.02, momentum=0.5),
        **game: Any,
    ) -> None:
        super().__init__(optimizer=optimizer, **game)
        h, w = sides(image_size)
        most = halvings(h, w)
        if not 0 <= levels <= most:
            raise ValueError(f"levels {levels}: image_size {image_size} can be halved {most} times, so use 0 to {most}")
        self.levels = levels
        self.z_dim = z_dim
        self.sizes = [[h >> k, w >> k] for k in range(levels + 1)]
        self.generator = Cascade([ResidualGenerator(channels, width) for _ in range(levels)])
        self.generator.append(ReLUGenerator(self.sizes[-1], channels, z_dim, hidden, layers=3))
        self.discriminator = nn.ModuleList([ResidualDiscriminator(size, channels, width) for size in self.sizes[:-1]])
        self.discriminator.append(ReLUDiscriminator(self.sizes[-1], channels, d_hidden, layers=3, dropout=0.5))

    def discriminator_loss(self, batch: Batch) -> Terms:
        reals = gaussian_pyramid(batch["image"], self.levels)
        terms = {}
        for k, (real, fake) in enumerate(zip(reals, self.fakes(batch), strict=True)):
            terms[f"real_{k}"] = -log_real(self.discriminate(real, level=k)) / 2
            terms[f"fake_{k}"] = -log_fake(self.discriminate(fake, level=k)) / 2
        return terms

    def generator_loss(self, batch: Batch) -> Terms:
        fakes = enumerate(self.fakes(batch))
        return {f"fake_{k}": -log_real(self.discriminate(fake, level=k)) for k, fake in fakes}

    def discriminate(self, x: Tensor, y: Tensor | None = None, level: int = 0) -> Tensor:
        return full_precision(self.discriminator[level](self.augment(x)))

    def make_fakes(self, batch: Batch) -> list[Tensor]:
        """l_k + G_k(z_k, l_k) of the real l_k at each level, then G_K(z_K)."""
        z, reals = batch["z"], gaussian_pyramid(batch["image"], self.levels)
        lows = [expand(coarse) for coarse in reals[1:]]
        *finer, coarsest = self.generator
        return [low + g(z_k, low) for g, z_k, low in zip(finer, z, lows, strict=False)] + [coarsest(z[-1])]

    def schedule(self, images_seen: int) -> None:
        """SGD as in section 4.1, an epoch being 50,000 images: lr / (1 + 4e-5)^epochs; momentum rises by 0.0008 an
        epoch to at most 0.8. Other optimizers, and a given `lr_scheduler`, keep their rates."""
        epochs = images_seen // 50_000
        for optimizer in self.trainer.optimizers:
            if isinstance(optimizer, SGD) and self.lr_scheduler is None:
                for group in optimizer.param_groups:
                    group["lr"] = optimizer.defaults["lr"] / (1 + 4e-5) ** epochs
                    first = optimizer.defaults["momentum"]
                    group["momentum"] = max(first, min(first + 0.0008 * epochs, 0.8))

    def latent(self, n: int, generator: torch.Generator | None = None) -> list[Tensor]:
        shapes = [*((n, 1, *size) for size in self.sizes[:-1]), (n, self.z_dim)]
        return [self.uniform(generator, *shape) for shape in shapes]
