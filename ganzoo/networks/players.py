"""A generator and a discriminator that fit each other, for papers that play their game with several architectures."""

from __future__ import annotations

from typing import Literal

from torch import nn

from ganzoo.networks.dcgan import DCGANDiscriminator, DCGANGenerator, Norm
from ganzoo.networks.mlp import ReLUDiscriminator, ReLUGenerator

Architecture = Literal["dcgan", "mlp"]


def players(
    architecture: Architecture, image_size: int, channels: int, z_dim: int, width: int, d_norm: Norm = "batch"
) -> tuple[nn.Module, nn.Module]:
    """G and D.

    Args:
        architecture: "dcgan", whose generator has batch norm; or "mlp", four linear layers with ReLU in each network,
            of any image size and without norms.
        image_size: pixels, H = W.
        channels: of the image.
        z_dim: size of the latent.
        width: feature maps of DCGAN's convolutions at half the image's size; units of a hidden layer of the MLP.
        d_norm: of DCGAN's discriminator.
    """
    if architecture == "mlp":
        return ReLUGenerator(image_size, channels, z_dim, width), ReLUDiscriminator(image_size, channels, width)
    return (
        DCGANGenerator(image_size, channels, z_dim, width),
        DCGANDiscriminator(image_size, channels, width, norm=d_norm),
    )
