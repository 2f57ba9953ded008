"""ImprovedGAN: Improved Techniques for Training GANs (Salimans et al. 2016, arXiv:1606.03498)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ganzoo.core import ema
from ganzoo.core.frozen import evaluating
from ganzoo.core.limits import Count, CountFrom0, Limits, NonNegative, PositiveShare, Size
from ganzoo.core.module import GANModule
from ganzoo.core.types import Batch, Terms
from ganzoo.functional.losses import log_fake, log_real, log_smoothed
from ganzoo.layers.history import HistoricalAverage
from ganzoo.networks.improved import (
    ConvolutionalDiscriminator,
    DeconvolutionalGenerator,
    NoisyDiscriminator,
    SoftplusGenerator,
)
from ganzoo.optim.adam import EpsInRootAdam

Objective = Literal["feature-matching", "non-saturating"]


class ImprovedGAN(GANModule):
    """D classifies K classes, with generated images as class K + 1, whose logit is 0; G matches features.

    D minimises -E log p(y | x, y <= K) - E log D(x) - E log(1 - D(G(z))), with D = Z / (Z + 1) and Z = sum_k exp l_k
    (section 5). The first term needs `batch["labelled"]`, from the data module `SemiSupervised`. G minimises |E f(x) -
    E f(G(z))|^2, where f is D's last hidden layer before its noise (section 3.1), and x are the images of D's last
    update (in the authors' code, other images). As in that code, this is divided by the number of features, and for
    "conv" is the mean absolute difference instead. With one class and no labels D is an ordinary discriminator. The
    defaults are those of semi-supervised MNIST, with the sizes of the authors' code (openai/improved-gan,
    mnist_svhn_cifar10), which the paper does not state.

    `val/error` is the share of wrongly classified held-out images. Batch statistics (feature matching, minibatch
    discrimination, batch norm) are those of a microbatch of a process's share.

    Args:
        image_size: pixels, or [height, width].
        channels: of the image.
        num_classes: number of classes; None, for data without labels, is the same as 1.
        architecture: "mlp", the paper's for MNIST, or "conv", for CIFAR-10.
        z_dim: size of the latent, uniform in [0, 1).
        hidden: units of G's hidden layers; for "conv" feature maps of the last one (128 in the authors' code).
        d_hidden: units of D's first layer, 4 or more; for "conv" feature maps (96 in the authors' code).
        objective: of G: "feature-matching", for the best classifier; or "non-saturating", -E log D(G(z)), together with
            minibatch discrimination for the best samples (the authors' code has E log(1 - D(G(z))), and three G steps
            per D step: `n_generator` 3).
        unsupervised_weight: weight of D's terms without labels; 0 gives the supervised baseline. The authors' code has
            0.5, half of the paper's equation.
        kernels: number B of kernels of minibatch discrimination (section 3.2); 0 for none.
        historical_weight: weight of historical averaging of both players (section 3.3); 0 for none.
        real_target: D's target for real images; 0.9 is one-sided label smoothing (section 3.4), 1 none.
        reference: size of the reference batch of G's virtual batch norm (section 3.5), 2 or more; 0: batch norm.
        averaging: weight of D's current weights in each update of the classifier, a moving average of D.
        optimizer: the authors' Adam, with their learning rate for MNIST; 3e-4 for CIFAR-10.
        **game: see `GANModule`.

    Raises:
        ValueError: `reference` is 1, or "conv" does not support the image size: multiples of 8, 16 or more.
    """

    def __init__(
        self,
        image_size: Size = 28,
        channels: Count = 1,
        num_classes: Count | None = 10,
        architecture: Literal["mlp", "conv"] = "mlp",
        z_dim: Count = 100,
        hidden: Count = 500,
        d_hidden: Annotated[int, Limits(4)] = 1000,  # some layers have a quarter as many units
        objective: Objective = "feature-matching",
        unsupervised_weight: NonNegative = 1.0,
        kernels: CountFrom0 = 0,
        historical_weight: NonNegative = 0.0,
        real_target: PositiveShare = 1.0,
        reference: CountFrom0 = 0,
        averaging: PositiveShare = 1e-4,
        optimizer: OptimizerCallable = lambda params: EpsInRootAdam(params, lr=3e-3, beta1=0.5),
        **game: Any,
    ) -> None:
        super().__init__(optimizer=optimizer, **game)
        if reference == 1:
            raise ValueError("reference is 1; it takes 2 or more, or 0 for plain batch norm")
        self.classes, self.z_dim, self.objective = num_classes or 1, z_dim, objective
        self.absolute = architecture == "conv"
        self.unsupervised_weight, self.historical_weight = unsupervised_weight, historical_weight
        self.real_target, self.averaging = real_target, averaging
        mlp, conv = (SoftplusGenerator, NoisyDiscriminator), (DeconvolutionalGenerator, ConvolutionalDiscriminator)
        G, D = mlp if architecture == "mlp" else conv
        self.generator = G(image_size, channels, z_dim, hidden, reference)
        self.discriminator = D(image_size, channels, self.classes, d_hidden, kernels)
        self.classifier = ema.frozen_copy(self.discriminator)
        players = {"discriminator": self.discriminator, "generator": self.generator} if historical_weight else {}
        self.history = nn.ModuleDict({name: HistoricalAverage(net.parameters()) for name, net in players.items()})

    def discriminator_loss(self, batch: Batch) -> Terms:
        real, _, _ = self.discriminate(batch["image"])  # separate from the fakes, for minibatch discrimination
        fake, _, _ = self.discriminate(self.fakes(batch))
        terms = {
            "real": -self.unsupervised_weight * log_smoothed(real, self.real_target),
            "fake": -self.unsupervised_weight * log_fake(fake),
        }
        if "labelled" in batch and self.classes > 1:
            x, y = batch["labelled"]
            terms["labelled"] = cross_entropy(self.discriminate(x)[1], y)
        if "label" in batch and self.classes > 1 and not self.training:
            self.observe("error", (self.classify(batch["image"]) != batch["label"]).float().mean())
        return terms | self._historical("discriminator")

    def generator_loss(self, batch: Batch) -> Terms:
        fake, _, features = self.discriminate(self.fakes(batch))
        if self.objective == "non-saturating":
            return {"fake": -log_real(fake)} | self._historical("generator")
        _, _, real = self.discriminate(batch["image"])
        difference = real.mean(0) - features.mean(0)
        distance = difference.abs() if self.absolute else difference.square()
        return {"features": distance.mean()} | self._historical("generator")

    def play(self, batch: Batch) -> None:
        super().play(batch)
        if not self.players["discriminator"].ahead:
            ema.update(self.classifier, self.discriminator, 1 - self.averaging)
        for player, average in self.history.items():
            cast(HistoricalAverage, average).update(getattr(self, player).parameters())

    @torch.no_grad()
    def classify(self, x: Tensor) -> Tensor:
        """Classes [N] of images [N, C, H, W] in [-1, 1], by the averaged discriminator in eval mode."""
        with evaluating(self.classifier):
            return self.classifier(x)[1].argmax(1)

    def latent(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.rand(n, self.z_dim, device=self.device_of(generator), generator=generator)

    def _historical(self, player: str) -> Terms:
        if not self.history:
            return {}
        return {"history": self.historical_weight * self.history[player](getattr(self, player).parameters())}
