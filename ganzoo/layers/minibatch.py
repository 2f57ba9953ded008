"""Layers that compare the images of a batch: minibatch discrimination and minibatch standard deviation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ganzoo.layers.base import not_half


class MinibatchDiscrimination(nn.Module):
    """Appends to each row x_i of [N, A] its similarity to the rows of the batch: [N, A + B] (Salimans et al. 2016,
    arXiv:1606.03498, section 3.2).

    M_i = x_i T is a B x C matrix, and o(x_i)_b = sum_j exp(-|M_ib - M_jb|_1) over all rows j, including i. Reals
    and fakes need separate batches. T is initialised such that the distances are about 1; for much larger ones the
    gradient of the exponential vanishes. The authors' layer also has weight norm and a bias, and leaves out j = i.

    Args:
        in_features: A.
        kernels: B.
        dims: C.
    """

    def __init__(self, in_features: int, kernels: int = 100, dims: int = 5) -> None:
        super().__init__()
        self.kernels = kernels
        self.weight = nn.Parameter(torch.randn(in_features, kernels * dims) / (dims * in_features**0.5))

    def forward(self, x: Tensor) -> Tensor:
        m = (x @ self.weight).unflatten(1, (self.kernels, -1)).transpose(0, 1)  # [B, N, C]
        distances = torch.cdist(m, m, p=1)  # [B, N, N]
        return torch.cat([x, (-distances).exp().sum(2).T], 1)


class MinibatchStdDev(nn.Module):
    """Appends to feature maps [N, C, H, W] one of how much the images of a group differ: [N, C + 1, H, W].

    It is constant: the standard deviation over the images, averaged over maps and pixels (Karras et al. 2018,
    arXiv:1710.10196, section 3). A batch of N has N / G groups of G images, of which group j has the images j,
    j + N / G, j + 2 N / G, ...; G is the largest divisor of N up to `group`.

    Args:
        group: images of a group; None: all.
    """

    def __init__(self, group: int | None = 4) -> None:
        super().__init__()
        self.group = group

    def images(self, n: int) -> int:
        """Images of a group in a batch of n."""
        return next((size for size in range(min(self.group or n, n), 0, -1) if n % size == 0), 1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        group = self.images(n)
        groups = not_half(x).unflatten(0, (group, -1))  # [G, N / G, C, H, W]
        deviation = (groups.var(0, correction=0) + 1e-8).sqrt().mean((1, 2, 3))  # [N / G]
        return torch.cat([x, deviation.repeat(group).to(x.dtype)[:, None, None, None].expand(-1, 1, height, width)], 1)
