"""Objectives as functions of the discriminator's logits; D = sigmoid(logit) is the probability of "real"."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus


def log_real(logits: Tensor) -> Tensor:
    """E log D, a scalar; log D = -softplus(-logit) does not overflow."""
    return -softplus(-logits).mean()


def log_fake(logits: Tensor) -> Tensor:
    """E log(1 - D), a scalar; log(1 - D) = -softplus(logit)."""
    return -softplus(logits).mean()
