"""Networks and weights of the digit classifiers that come with ganzoo; trained by tests/campaigns/classifier.py."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load
from torch import Tensor, nn

from ganzoo.core.pixels import to_float

WEIGHTS = Path(__file__).parent / "weights"
ARCHITECTURES: dict[str, dict[str, int]] = {
    "digits": {"size": 16, "num_features": 64},
    "mnist5k": {"size": 28, "num_features": 128},
}
PINNED = {  # sha256 of the weight files; other weights would give other scores
    "digits": "427e6761e45e1f64c0fd4c016099dd1ae533d466c06892aae196181aea833bcf",
    "mnist5k": "245d81e002ed5db68a7dd9a45f9528e3a684accdfad1992837e948be85f1dbfa",
}


class DigitNet(nn.Module):
    """[N, 1, S, S] in [-1, 1] -> features [N, d] >= 0 and logits [N, 10].

    Args:
        size: S, in pixels, a multiple of 4.
        num_features: d.
    """

    def __init__(self, size: int, num_features: int) -> None:
        super().__init__()

        def block(n_in: int, n_out: int) -> list[nn.Module]:
            return [nn.Conv2d(n_in, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()]

        self.body = nn.Sequential(
            *(*block(1, 32), *block(32, 32), nn.MaxPool2d(2)),
            *(*block(32, 64), nn.MaxPool2d(2)),
            *(*block(64, num_features), nn.AvgPool2d(size // 4), nn.Flatten()),
        )
        self.head = nn.Linear(num_features, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(x)
        return features, self.head(features)


def digit_input(images: Tensor, size: int) -> Tensor:
    """uint8 [N, 1, H, W] -> float32 [N, 1, size, size] in [-1, 1]: bilinear, antialiased."""
    x = images.float()
    if x.shape[-2:] != (size, size):
        x = F.interpolate(x, (size, size), mode="bilinear", antialias=True)
    return to_float(x)


def pinned(name: str) -> DigitNet:
    """The network with the weights that come with ganzoo.

    Args:
        name: a key of `PINNED`.

    Raises:
        ValueError: the weight file has been modified.
    """
    path = WEIGHTS / f"{name}.safetensors"
    content = path.read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != PINNED[name]:
        raise ValueError(
            f"{path} has been changed (sha256 {found[:8]}..., not {PINNED[name][:8]}...): reinstall ganzoo"
        )
    with torch.random.fork_rng(devices=[]):
        network = DigitNet(**ARCHITECTURES[name])
    network.load_state_dict(load(content))
    return network
