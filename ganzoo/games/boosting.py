"""Self-supervised boosting (Welling, Zemel & Hinton 2002, NIPS 15): density estimation by classification.

A random field log p(x) = sum_k f_k(x) - log Z is extended by features. Each round draws "fantasies" from the
field, fits a logistic classifier of data against fantasies, logit(x) = f(x) - c, and adds f to the field. It is a
GAN without a generator: the optimal classifier's logit is log p_data - log p, so adding it gives p_data up to
normalisation, and the next classifier's loss is log 2.

Features here are those of hidden units, softplus(w x + b), and of pixels, a x: the field is a restricted Boltzmann
machine, and each round adds units.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus


class RBM(NamedTuple):
    """p(x) ~ exp(visible x + sum_j softplus(weight_j x + hidden_j)) over binary x [N, d], with the units
    marginalised."""

    weight: Tensor  # [units, d]
    hidden: Tensor  # [units]
    visible: Tensor  # [d]

    @classmethod
    def of_pixels(cls, data: Tensor, units: int = 0, generator: torch.Generator | None = None) -> RBM:
        """Independent pixels with the means of the data, and `units` hidden units with small random weights."""
        mean = (data.double().sum(0) + 1) / (len(data) + 2)
        weight = 0.01 * torch.randn(units, data.shape[1], generator=generator, dtype=torch.float64)
        return cls(weight, torch.zeros(units, dtype=torch.float64), mean.logit())

    def log_density(self, x: Tensor) -> Tensor:
        """log p(x) + log Z [N]: minus the free energy."""
        return x @ self.visible + softplus(x @ self.weight.T + self.hidden).sum(1)

    def gibbs(self, x: Tensor, steps: int, generator: torch.Generator | None = None) -> Tensor:
        """x [N, d] after `steps` of block Gibbs sampling: hidden units given pixels, then pixels given hidden units."""
        for _ in range(steps):
            h = torch.bernoulli(torch.sigmoid(x @ self.weight.T + self.hidden), generator=generator)
            x = torch.bernoulli(torch.sigmoid(h @ self.weight + self.visible), generator=generator)
        return x

    def draw(self, n: int, steps: int, generator: torch.Generator | None = None) -> Tensor:
        """Fantasies [n, d]: `steps` of Gibbs sampling from independent pixels."""
        pixels = torch.sigmoid(self.visible).expand(n, -1)
        return self.gibbs(torch.bernoulli(pixels, generator=generator), steps, generator)

    def plus(self, feature: RBM) -> RBM:
        """Product of both fields (sum of log densities)."""
        weight, hidden = torch.cat([self.weight, feature.weight]), torch.cat([self.hidden, feature.hidden])
        return RBM(weight, hidden, self.visible + feature.visible)


class Classifier(NamedTuple):
    """D(x) = sigmoid(feature.log_density(x) - offset)."""

    feature: RBM
    offset: Tensor

    def loss(self, data: Tensor, fantasies: Tensor) -> Tensor:
        """Mean cross-entropy in nats, log 2 at chance; V(D) = -2 times this."""
        real, fake = (self.feature.log_density(x) - self.offset for x in (data, fantasies))
        return (softplus(-real).mean() + softplus(fake).mean()) / 2


def classify(
    data: Tensor, fantasies: Tensor, units: int, decay: float = 1e-3, generator: torch.Generator | None = None
) -> Classifier:
    """Logistic regression of data against fantasies; the logit is linear plus `units` softplus units.

    Args:
        data, fantasies: [N, d], of zeros and ones, float64.
        units: 0 for a linear classifier.
        decay: weight of the L2 penalty; without it, weights diverge if the data are separable.
    """
    d = data.shape[1]
    weight = 0.1 * torch.randn(units, d, generator=generator, dtype=torch.float64)
    weights = [weight, *(torch.zeros(n, dtype=torch.float64) for n in (units, d, 1))]
    for w in weights:
        w.requires_grad_()
    optimizer = torch.optim.LBFGS(weights, max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        *feature, offset = weights
        penalty = torch.stack([w.square().sum() for w in feature]).sum()
        total = Classifier(RBM(*feature), offset).loss(data, fantasies) + decay * penalty
        total.backward()
        return total.detach()

    optimizer.step(loss)
    *feature, offset = (w.detach() for w in weights)
    return Classifier(RBM(*feature), offset)


def boost(
    data: Tensor,
    held_out: Tensor,
    units: int = 2,
    steps: int = 100,
    decay: float = 3e-3,
    generator: torch.Generator | None = None,
) -> Iterator[tuple[RBM, float]]:
    """Self-supervised boosting, starting from independent pixels; an infinite iterator. Each feature is added with
    coefficient 1.

    Args:
        data, held_out: [N, d] and [M, d], of zeros and ones, float64.
        units: hidden units per feature.
        steps: steps of Gibbs sampling per round; chains continue from the previous round.
        decay: see `classify`.

    Yields:
        After each round: the field, and the classifier's loss on `held_out` and held-out fantasies.
    """
    rbm = RBM.of_pixels(data)
    fantasies = rbm.draw(len(data) + len(held_out), 0, generator)
    while True:
        fantasies = rbm.gibbs(fantasies[torch.randperm(len(fantasies), generator=generator)], steps, generator)
        d = classify(data, fantasies[: len(data)], units, decay, generator)
        rbm = rbm.plus(d.feature)
        yield rbm, d.loss(held_out, fantasies[len(data) :]).item()
