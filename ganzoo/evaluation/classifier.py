"""Networks and weights of the classifiers that come with ganzoo; trained by tests/campaigns/classifier.py."""

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
FACTORS = {"category": 8, "subcategory": 95, "tone": 6, "gender": 3, "role": 52}  # of the emoji: numbers of classes
PINNED = {  # sha256 of the weight files; "emoji-training" is for losses and frozen features, never for scores
    "digits": "427e6761e45e1f64c0fd4c016099dd1ae533d466c06892aae196181aea833bcf",
    "mnist5k": "245d81e002ed5db68a7dd9a45f9528e3a684accdfad1992837e948be85f1dbfa",
    "emoji": "da70ef14689af7c6d592bcd023463d3d4800fc6dad1a69ecb60602e79dd9a105",
    "emoji-training": "a295b07384fb2cdd2db5aef2dfc747f32a553478a01381b6f28a81e7c7f2ff6a",
}


class DigitNet(nn.Module):
    """[N, 1, S, S] in [-1, 1] -> features [N, d] >= 0 and logits [N, 10].

    Args:
        size: S, in pixels, a multiple of 4.
        num_features: d.
    """

    def __init__(self, size: int, num_features: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(*_block(1, 32), *_block(32, 32), nn.MaxPool2d(2)),
            *(*_block(32, 64), nn.MaxPool2d(2)),
            *(*_block(64, num_features), nn.AvgPool2d(size // 4), nn.Flatten()),
        )
        self.head = nn.Linear(num_features, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(x)
        return features, self.head(features)


class EmojiNet(nn.Module):
    """[N, 3, 32, 32] in [-1, 1] -> features [N, 64] >= 0 and logits by factor: {"tone": [N, 6], ...}.

    Args:
        factors: numbers of classes by factor.
    """

    def __init__(self, factors: dict[str, int]) -> None:
        super().__init__()
        widths = (3, 24, 24), (24, 48, 48), (48, 64, 64), (64, 64, 64)
        self.stages = nn.ModuleList(nn.Sequential(*_block(a, b), *_block(b, c)) for a, b, c in widths)
        self.heads = nn.ModuleDict({name: nn.Linear(64, n) for name, n in factors.items()})

    def maps(self, x: Tensor) -> list[Tensor]:
        """The outputs of the four stages: [N, 24, 32, 32], [N, 48, 16, 16], [N, 64, 8, 8], [N, 64, 4, 4]."""
        found = []
        for i, stage in enumerate(self.stages):
            x = stage(F.max_pool2d(x, 2) if i else x)
            found.append(x)
        return found

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        features = self.maps(x)[-1].mean((2, 3))
        return features, {name: head(features) for name, head in self.heads.items()}


def _block(n_in: int, n_out: int) -> list[nn.Module]:
    return [nn.Conv2d(n_in, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()]


def architecture(name: str) -> DigitNet | EmojiNet:
    """The untrained network of a shipped classifier."""
    return EmojiNet(FACTORS) if name.startswith("emoji") else DigitNet(**ARCHITECTURES[name])


def resized(images: Tensor, size: int) -> Tensor:
    """uint8 [N, C, H, W] -> float32 [N, C, size, size] in [-1, 1]: bilinear, antialiased."""
    x = images.float()
    if x.shape[-2:] != (size, size):
        x = F.interpolate(x, (size, size), mode="bilinear", antialias=True)
    return to_float(x)


def pinned(name: str) -> DigitNet | EmojiNet:
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
        network = architecture(name)
    network.load_state_dict(load(content))
    return network
