"""Truncated latents (Brock et al. 2018, arXiv:1809.11096, section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.special import ndtr, ndtri


def truncated(z: Tensor, bound: float) -> Tensor:
    """Standard normal numbers -> numbers of the normal distribution restricted to [-bound, bound].

    Quantiles are mapped to quantiles, which is the distribution of drawing numbers beyond the bound again, as the paper
    does. Each number keeps its sign and its order, so the images of a seed at several bounds are comparable.
    """
    below = ndtr(torch.tensor(-bound, dtype=torch.float64))
    quantile = below + (1 - 2 * below) * ndtr(z.cpu().double())  # not every device has double precision
    return ndtri(quantile).clamp(-bound, bound).to(z)
