"""Wrappers that add InfoGAN's codes to a generator and Q to a discriminator (Chen et al. 2016, arXiv:1606.03657)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ganzoo.core.types import full_precision


class CodedGenerator(nn.Module):
    """A generator whose latents are {z [N, z_dim], codes [N, n], category [N], or [N, k] for k categorical codes}.

    Args:
        network: a generator that takes z, the codes, and one-hot categories, concatenated.
        categories: number of values of each categorical code.
    """

    def __init__(self, network: nn.Module, categories: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.categories = list(categories)

    def forward(self, z: dict[str, Tensor], y: Tensor | None = None) -> Tensor:
        found = zip(columns(z["category"]), self.categories, strict=True)
        categories = [one_hot(c, values).to(z["z"].dtype) for c, values in found]
        return self.network(torch.cat([z["z"], z["codes"], *categories], 1))


def columns(category: Tensor) -> tuple[Tensor, ...]:
    """The categorical codes [N] each, from [N] (one code) or [N, k]."""
    return (category,) if category.ndim == 1 else category.unbind(1)


class RecognitionDiscriminator(nn.Module):
    """x -> logits [N] and features [N, d]; `recognise` is Q on the features.

    Q has torch's initial weights; the authors' are N(0, .02).

    Args:
        layers: the trunk; features of any shape.
        score: a linear layer on the flattened features.
        categories: number of values of each categorical code.
        codes: number of continuous codes.
        variance: of Q's Gaussians; None: predicted by Q.
    """

    def __init__(
        self,
        layers: nn.Module,
        score: nn.Linear,
        categories: Sequence[int],
        codes: int,
        variance: float | None = None,
    ) -> None:
        super().__init__()
        self.layers = layers
        self.score = score
        self.variance = variance
        self.sizes = [*categories, codes, 0 if variance else codes]
        self.q = nn.Sequential(
            nn.Linear(score.in_features, 128),
            nn.BatchNorm1d(128),
            nn.LeakyReLU(0.1),
            nn.Linear(128, sum(self.sizes)),
        )

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        features = self.layers(x).flatten(1)
        return self.score(features).squeeze(1), features

    def recognise(self, features: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Logits [N, K] of each categorical code; means and log variances [N, n] of the continuous codes."""
        *logits, mean, log_variance = full_precision(self.q(features)).split(self.sizes, 1)
        if self.variance:
            log_variance = torch.full_like(mean, math.log(self.variance))
        return logits, mean, log_variance
