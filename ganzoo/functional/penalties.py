"""Regularisation terms of losses."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize


def gradient_penalty(f: Callable[[Tensor], Tensor], x: Tensor, fake: Tensor, u: Tensor) -> Tensor:
    """E (|grad f(x_u)| - 1)^2 at x_u = u x + (1 - u) fake (Gulrajani et al. 2017, arXiv:1704.00028, eq. 3).

    Computed in float32, even under autocast. Uses `torch.func.grad`, since `torch.compile` can differentiate it again.

    Args:
        f: images [N, C, H, W] -> scores [N]; scores of different images are independent.
        x: real images.
        fake: as many generated images.
        u: [N] uniform in [0, 1).
    """
    with torch.autocast(x.device.type, enabled=False):
        between = torch.lerp(fake.float(), x.float(), u.view(-1, *[1] * (x.ndim - 1)))
        gradient = torch.func.grad(lambda x_u: f(x_u).sum())(between)
        return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def pull_away(codes: Tensor) -> Tensor:
    """Mean squared cosine similarity over pairs of codes [N, d] (f_PT, Zhao et al. 2016, arXiv:1609.03126).

    0 for orthogonal codes, 1 for parallel ones. A zero code counts as orthogonal to all; a single code gives 0.
    """
    n = len(codes)
    with torch.autocast(codes.device.type, enabled=False):
        unit = normalize(codes, dim=1)
        cosines = unit @ unit.T
    return (cosines.square().sum() - cosines.diagonal().square().sum()) / max(n * (n - 1), 1)
