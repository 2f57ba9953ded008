"""Auto-encoders with the reconstruction error as energy (Zhao et al. 2016, arXiv:1609.03126)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ganzoo.core.limits import Size, area, sides
from ganzoo.core.types import full_precision
from ganzoo.networks.base import halvings, shape


class Energy(nn.Module):
    """x [N, C, H, W] -> (|Dec(Enc(x)) - x|, Enc(x)): energies [N], Euclidean norms over pixels; codes [N, d]."""

    encoder: nn.Module
    decoder: nn.Module

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        code = self.encoder(x)
        difference = full_precision(self.decoder(code)) - x
        return difference.flatten(1).norm(dim=1), code.flatten(1)


class MLPAutoEncoder(Energy):
    """Linear layers with ReLU after all but the last, and batch norm after all but the first and last.

    Args:
        image_size: pixels per side of a square, or [height, width].
        channels: of the image.
        hidden: units of each of the encoder's layers.
        layers: linear layers of encoder and decoder together; the decoder has one.
        dropout: drop probability of the encoder's units.

    Raises:
        ValueError: fewer than two layers.
    """

    def __init__(
        self, image_size: Size = 28, channels: int = 1, hidden: int = 1024, layers: int = 2, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if layers < 2:
            raise ValueError(f"layers_d is {layers}; an auto-encoder takes 2 or more")
        pixels = channels * area(image_size)
        encoder: list[nn.Module] = [nn.Flatten(), nn.Linear(pixels, hidden), nn.ReLU(), nn.Dropout(dropout)]
        for _ in range(layers - 2):
            encoder += [nn.Linear(hidden, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(dropout)]
        self.encoder = nn.Sequential(*encoder)
        self.decoder = nn.Sequential(nn.Linear(hidden, pixels), nn.Unflatten(1, (channels, *sides(image_size))))


class ConvAutoEncoder(Energy):
    """Strided 4x4 convolutions and a mirrored decoder; ReLU and batch norm as in `MLPAutoEncoder`.

    64 pixels are halved three times, with 64-128-256 feature maps at the default width; 128 four times.

    Args:
        image_size: 16, 32, 64 or 128; or [height, width], both multiples of 8, the shorter from 16 to 120, or multiples
            of 16, the shorter 128.
        channels: of the image.
        width: feature maps of the first layer, doubled in each further layer.

    Raises:
        ValueError: another image size.
    """

    def __init__(self, image_size: Size = 64, channels: int = 3, width: int = 64) -> None:
        super().__init__()
        squares = "the convolutional auto-encoder takes 16, 32, 64 or 128; for others use mlp"
        others = (
            "the convolutional auto-encoder takes multiples of 8, the shorter side from 16 to 128; for others use mlp"
        )
        layers = _layers(*shape(image_size, _fits, squares, others))
        maps = [channels, *(width * 2**k for k in range(layers))]
        encoder: list[nn.Module] = []
        decoder: list[nn.Module] = []
        for k, (n_in, n_out) in enumerate(zip(maps[:-1], maps[1:], strict=True)):
            norm_down, norm_up = ([nn.BatchNorm2d(n_out)], [nn.BatchNorm2d(n_in), nn.ReLU()]) if k else ([], [])
            encoder += [nn.Conv2d(n_in, n_out, 4, stride=2, padding=1), *norm_down, nn.ReLU()]
            decoder = [nn.ConvTranspose2d(n_out, n_in, 4, stride=2, padding=1), *norm_up, *decoder]
        self.encoder, self.decoder = nn.Sequential(*encoder), nn.Sequential(*decoder)
        self.to(memory_format=torch.channels_last)


def _layers(height: int, width: int) -> int:
    return 4 if min(height, width) == 128 else 3


def _fits(height: int, width: int) -> bool:
    if height == width:
        return height in (16, 32, 64, 128)
    return 16 <= min(height, width) <= 128 and halvings(height, width) >= _layers(height, width)
