"""The networks of Salimans et al. 2016 (arXiv:1606.03498, section 6) for MNIST and CIFAR-10.

Sizes, activations and trained parameters follow the authors' code (openai/improved-gan, mnist_svhn_cifar10).
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from ganzoo.core.limits import Size, area, sides
from ganzoo.core.types import full_precision
from ganzoo.layers.init import normal_
from ganzoo.layers.minibatch import MinibatchDiscrimination
from ganzoo.layers.noise import GaussianNoise
from ganzoo.layers.virtual_norm import VirtualBatchNorm
from ganzoo.layers.weight_norm import fixed_weight_norm
from ganzoo.networks.base import halvings, shape


class _Generator(nn.Module):
    """z [N, z_dim] -> layers -> images [N, C, H, W] in [-1, 1]; the reference batch, if any, is passed along.

    Args:
        layers: map latents to images in [0, 1].
        z_dim: size of the latent, uniform in [0, 1).
        reference: size of the reference batch of virtual batch norm, drawn once at construction; 0 for plain batch
            norm.
    """

    reference: Tensor

    def __init__(self, layers: list[nn.Module], z_dim: int, reference: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.register_buffer("reference", torch.rand(reference, z_dim))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return 2 * self.layers(torch.cat([self.reference, z]))[len(self.reference) :] - 1


class SoftplusGenerator(_Generator):
    """z [N, z_dim] -> two softplus layers with batch norm -> sigmoid -> images [N, C, H, W].

    Batch norm has a bias and no gain. The last layer has weight norm with trained lengths, initially 1.

    Args:
        image_size: pixels per side of a square, or [height, width].
        channels: of the image.
        z_dim: size of the latent.
        hidden: units of each hidden layer.
        reference: latents in the reference batch of virtual batch norm; 0 for plain batch norm.
    """

    def __init__(
        self, image_size: Size = 28, channels: int = 1, z_dim: int = 100, hidden: int = 500, reference: int = 0
    ) -> None:
        layers: list[nn.Module] = []
        for n_in in (z_dim, hidden):
            layers += [nn.Linear(n_in, hidden, bias=False), *_norm(nn.BatchNorm1d, hidden, reference), nn.Softplus()]
        last = nn.Linear(hidden, channels * area(image_size))
        for layer in (*layers, last):
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(last.bias)
        nn.init.ones_(weight_norm(last).parametrizations.weight.original0)
        unflatten = nn.Unflatten(1, (channels, *sides(image_size)))
        super().__init__([*layers, last, nn.Sigmoid(), unflatten], z_dim, reference)


class DeconvolutionalGenerator(_Generator):
    """z [N, z_dim] -> an eighth of the height and width -> three 5x5 transposed convolutions with batch norm -> images.

    Batch norm has a bias and no gain, and is per unit after the first layer; initial weights are N(0, 0.05). The last
    layer has weight norm with trained lengths. The authors' code also scales that layer to outputs of deviation 0.1
    before the tanh, on its first images; here it begins with about 1. The sigmoid is the paper's tanh of half its
    input: tanh(x) = 2 sigmoid(2 x) - 1.

    Args:
        image_size: pixels, or [height, width]: 16, 24, 32, ...; 8 is too small for D.
        channels: of the image.
        z_dim: size of the latent.
        hidden: feature maps of the last hidden layer; each earlier layer has twice as many.
        reference: latents in the reference batch of virtual batch norm; 0 for plain batch norm.

    Raises:
        ValueError: another image size.
    """

    def __init__(
        self, image_size: Size = 32, channels: int = 3, z_dim: int = 100, hidden: int = 128, reference: int = 0
    ) -> None:
        what = "three layers double the size, so it takes 16, 24, 32, ..."
        height, width = shape(image_size, lambda h, w: halvings(h, w) >= 3 and min(h, w) >= 16, what)
        grid, maps = (height // 8, width // 8), [4 * hidden, 2 * hidden, hidden]
        units = maps[0] * prod(grid)
        layers: list[nn.Module] = [nn.Linear(z_dim, units, bias=False), *_norm(nn.BatchNorm1d, units, reference)]
        layers += [nn.ReLU(), nn.Unflatten(1, (maps[0], *grid))]
        for n_in, n_out in zip(maps, maps[1:], strict=False):
            up = nn.ConvTranspose2d(n_in, n_out, 5, stride=2, padding=2, output_padding=1, bias=False)
            layers += [up, *_norm(nn.BatchNorm2d, n_out, reference), nn.ReLU()]
        last = nn.ConvTranspose2d(maps[-1], channels, 5, stride=2, padding=2, output_padding=1)
        for layer in (*layers, last):
            if isinstance(layer, nn.Linear | nn.ConvTranspose2d):  # not the norms
                normal_(layer, 0.05)
        super().__init__([*layers, weight_norm(last, dim=1), nn.Sigmoid()], z_dim, reference)
        self.to(memory_format=torch.channels_last)  # a quarter faster on a CPU


class Bias(nn.Module):
    """x [N, features, ...] -> x + b: batch norm's affine map without the gain."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias.view(-1, *[1] * (x.ndim - 2))


def _norm(kind: type[nn.BatchNorm1d | nn.BatchNorm2d], features: int, reference: int) -> list[nn.Module]:
    if reference:
        return [VirtualBatchNorm(features, reference)]
    return [kind(features, eps=1e-6, affine=False), Bias(features)]


class _Discriminator(nn.Module):
    """x [N, C, H, W] in [-1, 1] -> features -> logits of D and of K classes.

    Class K + 1, "generated", has logit 0, so D(x) = Z / (Z + 1) with Z = sum_k exp l_k, and D's logit is log Z. All
    layers have weight norm; only the last one's lengths are trained.

    Args:
        layers: map images to the features [N, d] of the last hidden layer.
        last: applied between the features and minibatch discrimination.
        size: number d of features.
        num_classes: K.
        kernels: of the minibatch discrimination; 0 for none.

    Returns:
        D's logits [N], the classes' logits [N, K], and the features [N, d].
    """

    def __init__(self, layers: list[nn.Module], last: nn.Module, size: int, num_classes: int, kernels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        minibatch = [MinibatchDiscrimination(size, kernels)] if kernels else []
        self.classes = nn.Sequential(last, *minibatch, weight_norm(_he_init(nn.Linear(size + kernels, num_classes))))

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        features = self.layers(x)
        logits = full_precision(self.classes(features))
        return logits.logsumexp(1), logits, features


class NoisyDiscriminator(_Discriminator):
    """x [N, C, H, W] -> five ReLU layers with input noise -> logits of D, logits of K classes, features.

    Args:
        image_size: pixels per side of a square, or [height, width].
        channels: of the image.
        num_classes: K.
        hidden: units of the first layer; the others have 1/2, 1/4, 1/4 and 1/4 as many.
        kernels: of the minibatch discrimination before the last layer; 0 for none.
    """

    def __init__(
        self, image_size: Size = 28, channels: int = 1, num_classes: int = 10, hidden: int = 1000, kernels: int = 0
    ) -> None:
        sizes = [channels * area(image_size), hidden, hidden // 2, hidden // 4, hidden // 4, hidden // 4]
        layers: list[nn.Module] = [nn.Flatten(), GaussianNoise(0.3)]
        for n_in, n_out in zip(sizes, sizes[1:], strict=False):
            layers += [fixed_weight_norm(_he_init(nn.Linear(n_in, n_out))), nn.ReLU(), GaussianNoise(0.5)]
        super().__init__(layers[:-1], layers[-1], sizes[-1], num_classes, kernels)

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        return super().forward((x + 1) / 2)  # the paper's pixels are in [0, 1]


class ConvolutionalDiscriminator(_Discriminator):
    """x [N, C, H, W] -> nine convolutions, leaky ReLU, dropout -> mean over pixels -> logits of D, logits of K classes,
    features.

    With minibatch discrimination the input has Gaussian noise instead of dropout.

    Args:
        image_size: pixels per side of a square, or [height, width].
        channels: of the image.
        num_classes: K.
        hidden: feature maps of the first three layers; the other six have twice as many.
        kernels: of the minibatch discrimination before the last layer; 0 for none.
    """

    def __init__(
        self, image_size: Size = 32, channels: int = 3, num_classes: int = 10, hidden: int = 96, kernels: int = 0
    ) -> None:
        layers: list[nn.Module] = [GaussianNoise(0.2) if kernels else nn.Dropout(0.2)]
        for n_in, n_out in ((channels, hidden), (hidden, 2 * hidden)):
            for start, stride in ((n_in, 1), (n_out, 1), (n_out, 2)):
                layers += _leaky(nn.Conv2d(start, n_out, 3, stride, padding=1))
            layers.append(nn.Dropout(0.5))
        for kernel in (3, 1, 1):
            layers += _leaky(nn.Conv2d(2 * hidden, 2 * hidden, kernel))
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        super().__init__(layers, nn.Identity(), 2 * hidden, num_classes, kernels)
        self.to(memory_format=torch.channels_last)


def _leaky(layer: nn.Conv2d) -> list[nn.Module]:
    return [fixed_weight_norm(_he_init(layer, slope=0.2)), nn.LeakyReLU(0.2)]


def _he_init(layer: Any, slope: float = 0.0) -> Any:
    """He initialisation (2015, arXiv:1502.01852), zero biases: torch's default weights are too small compared with the
    noise. (The authors' code instead scales them to the first 500 images.)"""
    nn.init.kaiming_normal_(layer.weight, slope, nonlinearity="leaky_relu")
    nn.init.zeros_(layer.bias)
    return layer
