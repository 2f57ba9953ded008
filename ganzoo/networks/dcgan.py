"""The convolutional networks of Radford et al. 2015 (arXiv:1511.06434, section 3 and figure 1).

Kernels are 5x5, as in the authors' Theano code (4x4 in their Torch code). Differences from that code: batch norm after
G's linear layer has a gain and shift per feature map, not per unit; its eps is torch's 1e-5 instead of 1e-8, and
samples use running statistics instead of their batch's; G's last, D's first and D's output layer have biases.
"""

from __future__ import annotations

from math import prod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ganzoo.core.limits import Size, sides
from ganzoo.layers.base import Conv2d
from ganzoo.layers.init import normal_
from ganzoo.networks.base import doublings, halvings, shape

Norm = Literal["batch", "layer", "none"]


class DCGANGenerator(nn.Module):
    """z [N, z_dim] -> 4x4 -> fractionally-strided 5x5 convolutions -> images [N, C, H, W] in [-1, 1].

    Args:
        image_size: 8, 16, 32, 64, ...; each doubling is one layer. For [height, width], see `layout`.
        channels: of the image.
        z_dim: size of the latent.
        width: feature maps of the last hidden layer; each earlier layer has twice as many.
        num_classes: number of labels y [N], appended to z as one-hot vectors; None if unconditional.
        first_norm: batch norm also after the linear layer, not only after each hidden convolution.
        resize: double sizes by repeating pixels before 3x3 convolutions, instead of fractionally-strided ones.
    """

    def __init__(
        self,
        image_size: Size = 64,
        channels: int = 3,
        z_dim: int = 100,
        width: int = 128,
        num_classes: int | None = None,
        first_norm: bool = True,
        resize: bool = False,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        n, *grid = layout(image_size)
        top = width * 2 ** (n - 1)
        first = _norm("batch", top) if first_norm else []
        self.project = nn.Linear(z_dim + (num_classes or 0), top * prod(grid), bias=not first)  # the norm has a bias
        layers: list[nn.Module] = [nn.Unflatten(1, (top, *grid)), *first, nn.ReLU()]
        while top > width:
            layers += [_up(top, top // 2, resize, bias=False), *_norm("batch", top // 2), nn.ReLU()]
            top //= 2
        self.layers = nn.Sequential(*layers, _up(width, channels, resize), nn.Tanh())
        normal_(self, 0.02)
        self.to(memory_format=torch.channels_last)  # a tenth faster on a CPU

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        if self.num_classes is not None:
            assert y is not None
            z = torch.cat([z, one_hot(y, self.num_classes).to(z.dtype)], 1)
        return self.layers(self.project(z))


class DCGANDiscriminator(nn.Module):
    """x [N, C, H, W] in [-1, 1] -> strided 5x5 convolutions -> 4x4 -> logits [N], or [N, outputs].

    Args:
        image_size: 8, 16, 32, 64, ...; each halving is one layer. For [height, width], see `layout`.
        channels: of the image.
        width: feature maps of the first layer, doubled in each further layer.
        outputs: size of the last, linear layer.
        norm: after each hidden layer but the first. Layers before it have no bias; those of WGAN-GP's authors do.
    """

    def __init__(
        self, image_size: Size = 64, channels: int = 3, width: int = 128, outputs: int = 1, norm: Norm = "batch"
    ) -> None:
        super().__init__()
        # In place: autograd keeps one tensor of a layer, not two
        layers: list[nn.Module] = [_down(channels, width), nn.LeakyReLU(0.2, inplace=True)]
        n, *grid = layout(image_size)
        for _ in range(n - 1):
            layers += [
                _down(width, 2 * width, bias=norm == "none"),
                *_norm(norm, 2 * width),
                nn.LeakyReLU(0.2, inplace=True),
            ]
            width *= 2
        self.layers = nn.Sequential(*layers)
        self.score = nn.Linear(width * prod(grid), outputs)
        normal_(self, 0.02)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        score = self.score(self.layers(x).flatten(1))
        return score.squeeze(1) if score.shape[1] == 1 else score


def layout(image_size: Size) -> tuple[int, int, int]:
    """(n, h, w) for images of h 2^n x w 2^n pixels, n >= 1: 4x4 for squares, otherwise 4 to 7 on the shorter side.

    Raises:
        ValueError: there is no such n.
    """
    if sides(image_size) == (1, 1):
        raise ValueError(
            "image_size 1: DCGAN's layers need images of 8, 16, 32, 64, ... pixels, not points; use other data, or "
            "fully connected networks (GAN, MLPGAN, or architecture mlp)"
        )
    squares = "DCGAN's layers double the size from 4 pixels up: it takes 8, 16, 32, 64, ..."
    others = "DCGAN's layers double the height and width, from a shorter side of 4 to 7 pixels up"
    height, width = shape(image_size, _fits, squares, others)
    n = doublings(height, width)
    return n, height >> n, width >> n


def _fits(height: int, width: int) -> bool:
    n = doublings(height, width)
    return n >= 1 and (height == width == 4 * 2**n or height != width and halvings(height, width) >= n)


def _norm(kind: Norm, channels: int) -> list[nn.Module]:
    if kind == "layer":
        return [nn.GroupNorm(1, channels)]  # over channels and pixels of each image
    return [nn.BatchNorm2d(channels)] if kind == "batch" else []


def _up(n_in: int, n_out: int, resize: bool, bias: bool = True) -> nn.Module:
    if resize:
        return Conv2d(n_in, n_out, 3, padding=1, bias=bias, up=True)
    return nn.ConvTranspose2d(n_in, n_out, 5, stride=2, padding=2, output_padding=1, bias=bias)


def _down(n_in: int, n_out: int, bias: bool = True) -> nn.Module:
    return nn.Conv2d(n_in, n_out, 5, stride=2, padding=2, bias=bias)
