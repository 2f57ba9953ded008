"""What the measurements share."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from ganzoo.core.images import to_float
from ganzoo.data import Digits
from ganzoo.data.base import Split


def seeded(seed: int) -> torch.Generator:
    """A random generator of one's own."""
    return torch.Generator().manual_seed(seed)


def train(network: nn.Module, loss: Callable[[], Tensor], steps: int, lr: float = 1e-2) -> None:
    """Adam with a learning rate that falls to 0 along half a cosine."""
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        schedule.step()


def digits(split: Split) -> Tensor:
    """scikit-learn's [N, 1, 8, 8] in [-1, 1], ordered by class."""
    data = Digits().make_dataset(split)
    return to_float(data.images[cast(Tensor, data.labels()).argsort(stable=True)])
