"""Losses as functions of the discriminator's outputs, tensors of any shape; each is a scalar, a mean over all outputs.

A logit is an output whose sigmoid D is the probability of "real". A score s is an output that is used as it is.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import relu, softplus


def log_real(logits: Tensor) -> Tensor:
    """E log D, D = sigmoid(logit); log D = -softplus(-logit) does not overflow.

    With `log_fake`: V(D, G) of Goodfellow et al. 2014 (arXiv:1406.2661, eq. 1).
    """
    return -softplus(-logits).mean()


def log_fake(logits: Tensor) -> Tensor:
    """E log(1 - D), D = sigmoid(logit); log(1 - D) = -softplus(logit) does not overflow."""
    return -softplus(logits).mean()


def log_smoothed(logits: Tensor, target: float) -> Tensor:
    """target E log D + (1 - target) E log(1 - D): one-sided label smoothing (Salimans et al. 2016, arXiv:1606.03498,
    section 3.4, without smoothing of fakes).

    Its sum with `log_fake` of fakes is maximal for D = target p / (p + q), with densities p of reals and q of fakes.

    Args:
        logits: of reals.
        target: D's target for reals, in (0, 1]; 1: no smoothing.
    """
    return target * log_real(logits) + (1 - target) * log_fake(logits)


def half_square(scores: Tensor, target: float) -> Tensor:
    """E (s - target)^2 / 2 of scores s (Mao et al. 2016, arXiv:1611.04076, eq. 2)."""
    return (scores - target).square().mean() / 2


def hinge_real(scores: Tensor) -> Tensor:
    """E max(0, 1 - s) of reals' scores s (Lim & Ye 2017, arXiv:1705.02894).

    D minimises its sum with `hinge_fake`.
    """
    return relu(1 - scores).mean()


def hinge_fake(scores: Tensor) -> Tensor:
    """E max(0, 1 + s) of fakes' scores s.

    G minimises -E s, whose gradient does not vanish for fakes that D rejects.
    """
    return relu(1 + scores).mean()


def relativistic(higher: Tensor, lower: Tensor) -> Tensor:
    """-E log sigmoid(higher - lower) over pairs of scores (Jolicoeur-Martineau 2018, arXiv:1807.00734).

    Args:
        higher: scores that are to be larger: of reals for D's loss, of fakes for G's.
        lower: the others, of the same shape.
    """
    return softplus(lower - higher).mean()
