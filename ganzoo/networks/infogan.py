"""What InfoGAN (Chen et al. 2016, arXiv:1606.03657) adds to a generator and to a discriminator."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ganzoo.core.types import full_precision


class CodedGenerator(nn.Module):
    """A generator of latents {z [N, z_dim], codes [N, n], category [N]}.

    Args:
        network: a generator of (z, y), where z ends with the codes and y is the category.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: dict[str, Tensor], y: Tensor | None = None) -> Tensor:
        return self.network(torch.cat([z["z"], z["codes"]], 1), z["category"])


class RecognitionDiscriminator(nn.Module):
    """x -> logits [N] and features [N, d]; `recognise` is Q, which reads the features.

    Args:
        layers: the trunk, x -> features of any shape.
        score: a linear layer on the flattened features.
        categories: values of the categorical code.
        codes: number of continuous codes.
        hidden: units of Q's hidden layer.
    """

    def __init__(self, layers: nn.Module, score: nn.Linear, categories: int, codes: int, hidden: int = 128) -> None:
        super().__init__()
        self.layers = layers
        self.score = score
        self.sizes = [categories, codes, codes]
        self.q = nn.Sequential(
            nn.Linear(score.in_features, hidden),
            nn.BatchNorm1d(hidden),
            nn.LeakyReLU(0.1),
            nn.Linear(hidden, sum(self.sizes)),
        )

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        features = self.layers(x).flatten(1)
        return self.score(features).squeeze(1), features

    def recognise(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The category's logits [N, K], and the means and the logarithms of the variances [N, n] of the codes."""
        logits, mean, log_variance = full_precision(self.q(features)).split(self.sizes, 1)
        return logits, mean, log_variance
