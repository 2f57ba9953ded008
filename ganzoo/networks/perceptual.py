"""Distances between images and their reconstructions: of pixels, or of a frozen network's feature maps."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from ganzoo.networks.features import Features, perceptual_distance

Similarity = Literal["lpips", "emoji", "pixels"]
NETWORKS = {"lpips": "vgg16", "emoji": "emoji-training"}


class Perceptual(nn.Module):
    """Images x and targets [N, C, H, W] in [-1, 1] -> distances [N]; no gradient reaches the targets.

    In pixels the mean squared difference, otherwise the `perceptual_distance` by a frozen network.

    Args:
        similarity: "lpips": VGG16, which is downloaded, with the weights of LPIPS v0.1, which come with torchmetrics;
            "emoji": a classifier of emoji, with weights of 1; "pixels".
        channels: of the images.

    Raises:
        ValueError: the network reads other images.
    """

    def __init__(self, similarity: Similarity = "lpips", channels: int = 3) -> None:
        super().__init__()
        if similarity != "pixels" and channels not in (1, 3):
            raise ValueError(
                f"similarity is {similarity}, which compares grey or RGB images, but they have {channels} channels: "
                "use pixels"
            )
        name = NETWORKS.get(similarity)
        self.features = None if name is None else Features(name, channels, "set similarity to emoji or pixels")
        for i, weight in enumerate(fitted() if similarity == "lpips" else ()):
            self.register_buffer(f"weights{i}", weight[0], persistent=False)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        if self.features is None:
            return (x - target.detach()).square().mean((1, 2, 3))
        return perceptual_distance(self.features, x, target, list(self.buffers(recurse=False)) or None)


def fitted() -> list[Tensor]:
    """The weights of LPIPS v0.1 for the maps of VGG16: [1, n, 1, 1] each."""
    from torchmetrics.functional import image

    file = Path(image.__file__).parent / "lpips_models" / "vgg.pth"
    found = torch.load(file, map_location="cpu", weights_only=True)
    return [found[f"lin{i}.model.1.weight"] for i in range(5)]
