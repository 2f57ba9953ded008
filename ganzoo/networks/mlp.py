"""Fully connected networks: those of Goodfellow et al. 2014 (arXiv:1406.2661), and plain ReLU networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ganzoo.core.limits import Size, area, sides
from ganzoo.layers.maxout import Maxout


class MLPGenerator(nn.Module):
    """z [N, z_dim] -> two ReLU layers -> sigmoid -> images [N, C, H, W] in [-1, 1]; initial weights U(-.05, .05),
    biases 0; see `start_at`."""

    def __init__(self, image_size: Size = 28, channels: int = 1, z_dim: int = 100, hidden: int = 1200) -> None:
        super().__init__()
        self.shape = (channels, *sides(image_size))
        self.layers = nn.Sequential(
            nn.Linear(z_dim, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, channels * area(image_size)),
            nn.Sigmoid(),
        )
        uniform_(self, 0.05)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return 2 * self.layers(z).unflatten(1, self.shape) - 1  # the paper's pixels are in [0, 1]

    @torch.no_grad()
    def start_at(self, pixels: Tensor) -> None:
        """Initialise the last biases, if still 0: with zero weights the output is these pixels [C, H, W] in [-1, 1]."""
        *_, last, _ = self.layers
        assert isinstance(last, nn.Linear)
        if not last.bias.any():
            last.bias.copy_(((pixels.flatten() + 1) / 2).logit(1e-7))  # as in the authors' code


class MaxoutDiscriminator(nn.Module):
    """x [N, C, H, W] in [-1, 1] -> two maxout layers with dropout -> logits [N]; initial weights U(-.005, .005),
    biases 0."""

    def __init__(self, image_size: Size = 28, channels: int = 1, hidden: int = 240, pieces: int = 5) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Dropout(0.2),
            Maxout(channels * area(image_size), hidden, pieces),
            nn.Dropout(0.5),
            Maxout(hidden, hidden, pieces),
            nn.Dropout(0.5),
            nn.Linear(hidden, 1),
        )
        uniform_(self, 0.005)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.layers((x.flatten(1) + 1) / 2).squeeze(1)


class ReLUGenerator(nn.Module):
    """z [N, z_dim] -> linear layers, ReLU between them -> tanh -> images [N, C, H, W] in [-1, 1].

    Args:
        image_size: pixels per side of a square, or [height, width].
        channels: of the image.
        z_dim: size of the latent.
        hidden: units of each hidden layer.
        layers: number of linear layers, including the last.
        batch_norm: after each hidden layer.
    """

    def __init__(
        self,
        image_size: Size = 28,
        channels: int = 1,
        z_dim: int = 100,
        hidden: int = 512,
        layers: int = 4,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.shape = (channels, *sides(image_size))
        self.layers = nn.Sequential(
            *relu_stack(z_dim, hidden, channels * area(image_size), layers, batch_norm), nn.Tanh()
        )

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.layers(z).unflatten(1, self.shape)


class ReLUDiscriminator(nn.Module):
    """x [N, C, H, W] in [-1, 1] -> linear layers, ReLU between them -> logits [N].

    Args:
        image_size: pixels per side of a square, or [height, width].
        channels: of the image.
        hidden: units of each hidden layer.
        layers: number of linear layers, including the last.
        batch_norm: after each hidden layer but the first.
        dropout: drop probability of hidden units.
    """

    def __init__(
        self,
        image_size: Size = 28,
        channels: int = 1,
        hidden: int = 512,
        layers: int = 4,
        batch_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        n_in = channels * area(image_size)
        self.layers = nn.Sequential(*relu_stack(n_in, hidden, 1, layers, batch_norm, dropout, first_norm=False))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.layers(x.flatten(1)).squeeze(1)


def relu_stack(
    n_in: int,
    hidden: int,
    n_out: int,
    layers: int,
    batch_norm: bool = False,
    dropout: float = 0.0,
    first_norm: bool = True,
) -> list[nn.Module]:
    """`layers` linear layers, with batch norm, ReLU and dropout after each but the last.

    Without `first_norm` the first layer has no batch norm, as usual in discriminators.
    """
    stack: list[nn.Module] = []
    for i in range(layers - 1):
        norm = [nn.BatchNorm1d(hidden)] if batch_norm and (i > 0 or first_norm) else []
        stack += [nn.Linear(n_in, hidden), *norm, nn.ReLU()]
        stack += [nn.Dropout(dropout)] if dropout else []
        n_in = hidden
    return [*stack, nn.Linear(n_in, n_out)]


def uniform_(network: nn.Module, bound: float) -> None:
    """Draw every linear layer's weights from U(-bound, bound) and set its biases to 0, in place."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.uniform_(module.weight, -bound, bound)
            nn.init.zeros_(module.bias)
