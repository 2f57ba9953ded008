"""Penalties: scalars that an equation adds to its terms."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize


def gradient_penalty(f: Callable[[Tensor], Tensor], x: Tensor, fake: Tensor, u: Tensor) -> Tensor:
    """E (|grad f(x_u)| - 1)^2 at x_u = u x + (1 - u) fake (Gulrajani et al. 2017, arXiv:1704.00028, eq. 3).

    In float32 also under autocast. By `torch.func.grad`, which `torch.compile` can differentiate a second time.

    Args:
        f: images [N, C, H, W] -> scores [N]; no score may depend on another image.
        x: real images.
        fake: as many generated ones.
        u: [N] uniform in [0, 1).
    """
    with torch.autocast(x.device.type, enabled=False):
        between = torch.lerp(fake.float(), x.float(), u.view(-1, *[1] * (x.ndim - 1)))
        gradient = torch.func.grad(lambda x_u: f(x_u).sum())(between)
        return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def pull_away(codes: Tensor) -> Tensor:
    """Mean squared cosine over the pairs of distinct codes [N, d] (Zhao et al. 2016, arXiv:1609.03126, f_PT).

    Orthogonal codes have 0, parallel ones 1; a code of zeros is orthogonal to all, and a single code has no pair: 0.
    """
    n = len(codes)
    with torch.autocast(codes.device.type, enabled=False):
        unit = normalize(codes, dim=1)
        cosines = unit @ unit.T
    return (cosines.square().sum() - cosines.diagonal().square().sum()) / max(n * (n - 1), 1)
