"""Self-supervised boosting (Welling, Zemel & Hinton 2002, NIPS 15): a density learned by telling data from fantasies.

A random field log p(x) = sum_k f_k(x) - log Z is grown by features. A round draws fantasies from the field as it is,
fits a feature f to a logistic classifier of data against fantasies, logit(x) = f(x) - c, and adds it to the field.
That is a GAN's game without a generator: where the classifier is optimal, its logit is log p_data - log p, so that the
field with the feature added is p_data up to its normaliser, and the next classifier's loss is log 2.

Here the features are a hidden unit's, softplus(w x + b), and pixels', a x: the field is a restricted Boltzmann machine,
and a round adds units to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus


class RBM(NamedTuple):
    """p(x) ~ exp(visible x + sum_j softplus(weight_j x + hidden_j)) over binary x [N, d], its units summed out."""

    weight: Tensor  # [units, d]
    hidden: Tensor  # [units]
    visible: Tensor  # [d]

    @classmethod
    def of_pixels(cls, data: Tensor, units: int = 0, generator: torch.Generator | None = None) -> RBM:
        """Independent pixels with the data's means, and `units` hidden units with weights near 0."""
        mean = (data.double().sum(0) + 1) / (len(data) + 2)
        weight = 0.01 * torch.randn(units, data.shape[1], generator=generator, dtype=torch.float64)
        return cls(weight, torch.zeros(units, dtype=torch.float64), mean.logit())

    def log_density(self, x: Tensor) -> Tensor:
        """log p(x) + log Z [N]: minus the free energy."""
        return x @ self.visible + softplus(x @ self.weight.T + self.hidden).sum(1)

    def gibbs(self, x: Tensor, steps: int, generator: torch.Generator | None = None) -> Tensor:
        """x [N, d] after `steps` of drawing all hidden units given the pixels, then all pixels given the units."""
        for _ in range(steps):
            h = torch.bernoulli(torch.sigmoid(x @ self.weight.T + self.hidden), generator=generator)
            x = torch.bernoulli(torch.sigmoid(h @ self.weight + self.visible), generator=generator)
        return x

    def draw(self, n: int, steps: int, generator: torch.Generator | None = None) -> Tensor:
        """Fantasies [n, d], `steps` away from independent pixels."""
        pixels = torch.sigmoid(self.visible).expand(n, -1)
        return self.gibbs(torch.bernoulli(pixels, generator=generator), steps, generator)

    def plus(self, feature: RBM) -> RBM:
        """The product of both fields: log densities add."""
        weight, hidden = torch.cat([self.weight, feature.weight]), torch.cat([self.hidden, feature.hidden])
        return RBM(weight, hidden, self.visible + feature.visible)


class Classifier(NamedTuple):
    """D(x) = sigmoid(feature.log_density(x) - offset)."""

    feature: RBM
    offset: Tensor

    def loss(self, data: Tensor, fantasies: Tensor) -> Tensor:
        """Mean cross entropy in nats, log 2 where D cannot tell them apart: V(D) is minus twice this."""
        real, fake = (self.feature.log_density(x) - self.offset for x in (data, fantasies))
        return (softplus(-real).mean() + softplus(fake).mean()) / 2


def classify(
    data: Tensor, fantasies: Tensor, units: int, decay: float = 1e-3, generator: torch.Generator | None = None
) -> Classifier:
    """Logistic regression of data against fantasies, whose logit is linear plus `units` softplus units.

    Args:
        data, fantasies: [N, d], of zeros and ones, float64.
        units: 0 is the linear classifier.
        decay: of the squared weights; without it a feature that separates the data perfectly grows without bound.
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
    """Self-supervised boosting from independent pixels on, without end; each feature's coefficient is 1.

    Args:
        data, held_out: [N, d] and [M, d], of zeros and ones, float64.
        units: of each feature.
        steps: of Gibbs sampling a round; the chains go on from the last round's.
        decay: see `classify`.

    Yields:
        After each round the field, and its classifier's loss on `held_out` and fantasies that it was not fitted to.
    """
    rbm = RBM.of_pixels(data)
    fantasies = rbm.draw(len(data) + len(held_out), 0, generator)
    while True:
        fantasies = rbm.gibbs(fantasies[torch.randperm(len(fantasies), generator=generator)], steps, generator)
        d = classify(data, fantasies[: len(data)], units, decay, generator)
        rbm = rbm.plus(d.feature)
        yield rbm, d.loss(held_out, fantasies[len(data) :]).item()
