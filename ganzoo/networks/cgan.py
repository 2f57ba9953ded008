"""The conditional fully connected networks of Mirza & Osindero 2014 (arXiv:1411.1784, section 4.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ganzoo.core.limits import Size, area, sides
from ganzoo.layers.maxout import Maxout


class CGANGenerator(nn.Module):
    """z [N, z_dim] in [0, 1], labels y [N] -> one ReLU layer each -> joint layer -> sigmoid -> [N, C, H, W] in [-1, 1].

    Args:
        image_size: pixels per side of a square, or [height, width].
        channels: of the image.
        num_classes: number of labels, encoded as one-hot vectors.
        z_dim: size of the latent.
        z_hidden: units of z's layer.
        y_hidden: units of y's layer.
        hidden: units of the joint layer.
        dropout: drop probability of hidden units.
    """

    def __init__(
        self,
        image_size: Size = 28,
        channels: int = 1,
        num_classes: int = 10,
        z_dim: int = 100,
        z_hidden: int = 200,
        y_hidden: int = 1000,
        hidden: int = 1200,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.z = nn.Sequential(nn.Linear(z_dim, z_hidden), nn.ReLU(), nn.Dropout(dropout))
        self.y = nn.Sequential(nn.Linear(num_classes, y_hidden), nn.ReLU(), nn.Dropout(dropout))
        self.joint = nn.Sequential(
            nn.Linear(z_hidden + y_hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, channels * area(image_size)),
            nn.Sigmoid(),
            nn.Unflatten(1, (channels, *sides(image_size))),
        )

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        classes = one_hot(y, self.num_classes).to(z.dtype)
        # centred, as otherwise z's constant mean would dominate the label
        own = torch.cat([self.z(2 * z - 1), self.y(classes)], 1)
        return 2 * self.joint(own) - 1  # the paper's pixels are in [0, 1]


class CGANDiscriminator(nn.Module):
    """x [N, C, H, W] in [-1, 1], labels y [N] -> separate maxout layers -> joint maxout layer -> logits [N].

    Args:
        image_size: pixels per side of a square, or [height, width].
        channels: of the image.
        num_classes: number of labels, encoded as one-hot vectors.
        hidden: units of x's layer (5 pieces) and of the joint layer (4 pieces).
        y_hidden: units of y's layer (5 pieces).
        dropout: drop probability of hidden units.
    """

    def __init__(
        self,
        image_size: Size = 28,
        channels: int = 1,
        num_classes: int = 10,
        hidden: int = 240,
        y_hidden: int = 50,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.x = nn.Sequential(Maxout(channels * area(image_size), hidden, pieces=5), nn.Dropout(dropout))
        self.y = nn.Sequential(Maxout(num_classes, y_hidden, pieces=5), nn.Dropout(dropout))
        self.joint = nn.Sequential(
            Maxout(hidden + y_hidden, hidden, pieces=4), nn.Dropout(dropout), nn.Linear(hidden, 1)
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x = (x.flatten(1) + 1) / 2
        classes = one_hot(y, self.num_classes).to(x.dtype)
        return self.joint(torch.cat([self.x(x), self.y(classes)], 1)).squeeze(1)
