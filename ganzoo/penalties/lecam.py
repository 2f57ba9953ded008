"""The LeCam divergence as a regulariser."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ganzoo.core.limits import NonNegative, Probability
from ganzoo.core.types import Terms
from ganzoo.functional.penalties import lecam
from ganzoo.penalties.base import Penalty, View


class LeCam(Penalty):
    """Keeps scores of reals near or below the average score of fakes, and conversely; for few images.

    D minimises `weight` * (E max(0, D(x) - a_F)^2 + E max(0, a_R - D(G(z)))^2), where a_R and a_F are moving averages
    of its mean scores of reals and fakes (Tseng et al. 2021, arXiv:2104.03310, in the one-sided form of the authors'
    code). The averages include the current batch, and are unbiased from the start, like Adam's; the authors' BigGAN
    has decay .9, and starts after 1000 steps instead. With `microbatches`, each part sees its own mean and those of
    earlier batches.

    Args:
        weight: lambda, the authors' for hinge losses; for StyleGAN2 they have 3e-7 to 1e-6.
        decay: of the averages, per batch.
    """

    means: Tensor  # a_R, a_F
    updates: Tensor
    pending: Tensor  # sums of this batch's microbatches: mean scores of reals, of fakes, and their number

    def __init__(self, weight: NonNegative = 0.3, decay: Probability = 0.99) -> None:
        super().__init__()
        self.weight, self.decay = weight, decay
        self.register_buffer("means", torch.zeros(2))
        self.register_buffer("updates", torch.tensor(0))
        self.register_buffer("pending", torch.zeros(3))
        self.rate = math.log(decay) if decay else -math.inf

    def discriminator_terms(self, view: View) -> Terms:
        real, fake = view.real_score(), view.fake_score()
        means = self.means
        if view.training:
            now = view.mean(torch.stack([real.detach().mean(), fake.detach().mean()]))
            means = torch.lerp(self.means, now, self.share())
            self.pending += torch.cat([now, now.new_ones(1)])
        return {"lecam": self.weight * lecam(real, fake, *means.unbind())}

    def share(self) -> Tensor:
        """Weight of the next batch, the t-th, in the averages: (1 - decay) / (1 - decay^t)."""
        return (self.decay - 1) / torch.expm1(self.rate * (self.updates + 1))

    def stepped(self, player: str) -> None:
        if player == "discriminator":
            self.means.lerp_(self.pending[:2] / self.pending[2], self.share())
            self.updates += 1
            self.pending.zero_()
