"""InfoGAN: Interpretable Representation Learning by Information Maximizing GANs (Chen et al. 2016, arXiv:1606.03657)"""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn.functional import cross_entropy

from ganzoo.core.limits import Count, CountFrom0, NonNegative, Positive, Size
from ganzoo.core.module import GANModule
from ganzoo.core.types import Batch, Terms
from ganzoo.functional.losses import log_fake, log_real
from ganzoo.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from ganzoo.networks.infogan import CodedGenerator, RecognitionDiscriminator, columns
from ganzoo.optim.adam import FusedAdam


class InfoGAN(GANModule):
    """min_{G,Q} max_D V(D, G) - lambda L_I(G, Q), where Q predicts a part of the latent, the codes c, from the image.

    L_I = E log Q(c|G(z, c)) + H(c) <= I(c; G(z, c)), in nats; for a categorical code at most its entropy, log K. Q has
    D's trunk and two layers of its own; it is updated with D, which therefore also minimises -lambda L_I, as in the
    authors' code. Q is a softmax for each categorical code and a Gaussian for each continuous one. V is the
    non-saturating loss for G. The defaults are those of the authors' launcher for MNIST (openai/InfoGAN,
    launchers/run_mnist_exp.py). The paper's networks for MNIST are shallower, with 4x4 kernels and a hidden linear
    layer; here they are DCGAN's, and Q's slope is the paper's 0.1 (the code has 0.01).

    To see what a code means, vary it and keep the rest of the latent::

        z = model.seeded([0] * 10)  # ten identical latents
        z["category"] = torch.arange(10)  # or z["codes"][:, 0] = torch.linspace(-2, 2, 10)
        images = model.generate(z)  # [10, C, H, W] in [-1, 1]

    Args:
        image_size: pixels: 8, 16, 32, 64, ...; or [height, width], such as [64, 96].
        channels: of the image.
        z_dim: size of the latent's noise, uniform in (-1, 1).
        categories: number of values of the categorical code, equally likely; a list for several codes, which are then
            the columns of z["category"] [N, k]. They are learned without labels.
        codes: number of continuous codes, uniform in (-1, 1).
        category_weight: lambda of the categorical codes.
        codes_weight: lambda of the continuous codes.
        codes_variance: variance of Q's Gaussians, fixed as in the launcher; None: predicted by Q for each image and
            code. L_I is then unbounded as Q becomes certain, and needs a smaller weight.
        width: feature maps of the convolutions at half the image's size, doubled with each halving.
        optimizer: G's Adam.
        discriminator_optimizer: Adam of D and Q.
        **game: see `GANModule`.

    Raises:
        ValueError: `categories` is empty or has a number below 1, or the networks do not support the image size.
    """

    discriminator: RecognitionDiscriminator

    def __init__(
        self,
        image_size: Size = 32,
        channels: Count = 1,
        z_dim: Count = 62,
        categories: Count | list[int] = 10,
        codes: CountFrom0 = 2,
        category_weight: NonNegative = 1.0,
        codes_weight: NonNegative = 1.0,
        codes_variance: Positive | None = 1.0,
        width: Count = 64,
        optimizer: OptimizerCallable = lambda params: FusedAdam(params, lr=1e-3, beta1=0.5),
        discriminator_optimizer: OptimizerCallable | None = lambda params: FusedAdam(params, lr=2e-4, beta1=0.5),
        **game: Any,
    ) -> None:
        super().__init__(optimizer=optimizer, discriminator_optimizer=discriminator_optimizer, **game)
        self.categories = categories if isinstance(categories, list) else [categories]
        if not self.categories or any(isinstance(k, bool) or not isinstance(k, int) or k < 1 for k in self.categories):
            raise ValueError(f"categories is {categories}; it takes a whole number from 1 up, or a list: [10, 10]")
        self.several = isinstance(categories, list)
        self.z_dim = z_dim
        self.codes = codes
        self.category_weight = category_weight
        self.codes_weight = codes_weight
        inputs = z_dim + codes + sum(self.categories)
        self.generator = CodedGenerator(DCGANGenerator(image_size, channels, inputs, width), self.categories)
        d = DCGANDiscriminator(image_size, channels, width)
        self.discriminator = RecognitionDiscriminator(d.layers, d.score, self.categories, codes, codes_variance)

    def discriminator_loss(self, batch: Batch) -> Terms:
        real, _ = self.discriminate(batch["image"])
        fake, features = self.discriminate(self.fakes(batch))
        return {"real": -log_real(real), "fake": -log_fake(fake), "info": -self.information(features, batch["z"])}

    def generator_loss(self, batch: Batch) -> Terms:
        fake, features = self.discriminate(self.fakes(batch))
        return {"fake": -log_real(fake), "info": -self.information(features, batch["z"])}

    def information(self, features: Tensor, z: dict[str, Tensor]) -> Tensor:
        """lambda L_I, a scalar, in nats; the bounds for categorical and continuous codes are logged separately."""
        logits, mean, log_variance = self.discriminator.recognise(features)
        found = zip(logits, columns(z["category"]), self.categories, strict=True)
        category = torch.stack([math.log(values) - cross_entropy(q, c) for q, c, values in found]).sum()
        squares = (z["codes"] - mean).square() * (-log_variance).exp()
        each = math.log(2) - (math.log(2 * math.pi) + log_variance + squares) / 2  # a code's entropy is log 2
        codes = each.sum(1).mean()
        self.observe("info/category", category)
        self.observe("info/codes", codes)
        return self.category_weight * category + self.codes_weight * codes

    def latent(self, n: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        z, codes = (self.uniform(generator, n, size) for size in (self.z_dim, self.codes))
        drawn = [torch.randint(values, (n,), device=z.device, generator=generator) for values in self.categories]
        return {"z": z, "codes": codes, "category": torch.stack(drawn, 1) if self.several else drawn[0]}
