"""Losses as functions of the discriminator's logits; D = sigmoid(logit) is the probability of "real"."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import relu, softplus


def log_real(logits: Tensor) -> Tensor:
    """E log D, a scalar; log D = -softplus(-logit) does not overflow."""
    return -softplus(-logits).mean()


def log_fake(logits: Tensor) -> Tensor:
    """E log(1 - D), a scalar; log(1 - D) = -softplus(logit)."""
    return -softplus(logits).mean()


def log_smoothed(logits: Tensor, target: float) -> Tensor:
    """target E log D + (1 - target) E log(1 - D): one-sided label smoothing, for real images only.

    The optimum is D = target p / (p + q) for densities p of reals and q of fakes (Salimans et al. 2016,
    arXiv:1606.03498, section 3.4, without smoothing of fakes).
    """
    return target * log_real(logits) + (1 - target) * log_fake(logits)


def half_square(scores: Tensor, target: float) -> Tensor:
    """E (D - target)^2 / 2, a scalar (Mao et al. 2016, arXiv:1611.04076)."""
    return (scores - target).square().mean() / 2


def hinge_real(scores: Tensor) -> Tensor:
    """E max(0, 1 - D) over reals, a scalar (Lim & Ye 2017, arXiv:1705.02894); D minimises its sum with `hinge_fake`."""
    return relu(1 - scores).mean()


def hinge_fake(scores: Tensor) -> Tensor:
    """E max(0, 1 + D) over fakes, a scalar; G minimises -E D, whose gradient does not vanish where D rejects fakes."""
    return relu(1 + scores).mean()


def relativistic(higher: Tensor, lower: Tensor) -> Tensor:
    """-E log sigmoid(a - b) over pairs of scores a and b, a scalar (Jolicoeur-Martineau 2018, arXiv:1807.00734): D's
    loss of reals a and fakes b, and G's of fakes a and reals b."""
    return softplus(lower - higher).mean()
