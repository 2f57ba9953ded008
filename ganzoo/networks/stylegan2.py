"""The networks of StyleGAN2 (Karras et al. 2020, arXiv:1912.04958, configuration F): mapping, synthesis, D."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ganzoo.core.limits import Size
from ganzoo.layers.base import is_half
from ganzoo.layers.equalised import GAIN, LARGEST, EqualisedConv2d, EqualisedLinear, leaky
from ganzoo.layers.fir import FIRBlur, FIRDown, FIRUp
from ganzoo.layers.minibatch import MinibatchStdDev
from ganzoo.layers.modulated import ModulatedConv2d
from ganzoo.layers.pixelnorm import PixelNorm
from ganzoo.networks.base import doubled, maps_by_size


class StyleGenerator(nn.Module):
    """z [N, d], y [N] -> w [N, d] -> images [N, C, H, W]: a mapping, the mean of w, and a `synthesis` by a subclass.

    Args:
        z_dim: d.
        mapping_layers: layers of the mapping.
        num_classes: number of labels; None if unconditional.
    """

    w_mean: Tensor
    synthesis: Any  # w [N, L, d] -> images, with a method `repeated`: w [N, d] -> [N, L, d]

    def __init__(self, z_dim: int, mapping_layers: int, num_classes: int | None) -> None:
        super().__init__()
        self.mapping = Mapping(z_dim, z_dim, mapping_layers, num_classes)
        self.register_buffer("w_mean", torch.zeros(z_dim))  # of w over latents and labels

    def forward(self, z: Tensor, y: Tensor | None = None, truncation: Tensor | None = None) -> Tensor:
        """Images of w; or of w_mean + psi (w - w_mean), psi = `truncation` [N]."""
        w = self.mapping(z, y)
        if truncation is not None:
            w = torch.lerp(self.w_mean.to(w), w, truncation.to(w)[:, None])
        return self.synthesis(self.synthesis.repeated(w))


class StyleGAN2Generator(StyleGenerator):
    """z [N, d], y [N] -> w [N, d] -> images [N, C, H, W], not bounded, with constant noise.

    Args:
        image_size: 4, 5, 6 or 7 times a power of two from 2 up; or [height, width] with such a shorter side.
        channels: of the image.
        z_dim: d.
        maps, width: feature maps: see `feature_maps`.
        mapping_layers: layers of the mapping.
        num_classes: number of labels; None if unconditional.
    """

    def __init__(
        self,
        image_size: Size = 1024,
        channels: int = 3,
        z_dim: int = 512,
        maps: int = 32768,
        width: int = 512,
        mapping_layers: int = 8,
        num_classes: int | None = None,
    ) -> None:
        super().__init__(z_dim, mapping_layers, num_classes)
        self.synthesis = Synthesis(image_size, channels, z_dim, maps, width)


class Mapping(nn.Module):
    """z [N, a] and y [N] -> w [N, d]: fully connected layers, whose learning rate is a hundredth of the others'.

    The latent is scaled to length sqrt a, and the label's embedding, which is concatenated to it, to sqrt d.

    Args:
        a: size of the latent; 0: labels are the only input.
        d: size of w, of all layers and of the embedding.
        layers: their number.
        num_classes: number of labels; None if there are none.
    """

    def __init__(self, a: int, d: int, layers: int = 8, num_classes: int | None = None) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.embed = None if num_classes is None else EqualisedLinear(num_classes, d)
        self.normalise = PixelNorm()
        sizes = [a + (0 if num_classes is None else d), *[d] * layers]
        self.layers = nn.Sequential(*(EqualisedLinear(m, n, rate=0.01, active=True) for m, n in pairwise(sizes)))

    def forward(self, z: Tensor | None, y: Tensor | None = None) -> Tensor:
        inputs = [] if z is None else [z]
        if self.embed is not None:
            assert y is not None and self.num_classes is not None
            inputs.append(self.embed(one_hot(y, self.num_classes).to(self.embed.weight.dtype)))
        return self.layers(torch.cat([self.normalise(x) for x in inputs], 1))


class Synthesis(nn.Module):
    """w [N, L, d] -> images [N, C, H, W]: feature maps of 4 pixels, doubled n times, and an image at each size.

    The first size has one convolution, each other size two, of which the first doubles it. The images of all sizes are
    added up, each sum doubled in turn (figure 7b). Convolution i has the style w_i. The image of a size has the style
    of the next convolution, so L is 2 n + 2.

    Args:
        as `StyleGAN2Generator`; d is the size of w.
    """

    def __init__(self, image_size: Size, channels: int, d: int, maps: int, width: int) -> None:
        super().__init__()
        n, *grid = layout(image_size)
        self.layers = 2 * n + 2
        widths = feature_maps(image_size, maps, width)
        self.const = nn.Parameter(torch.randn(widths[0], *grid))
        # convolution 0 is of the first size; 2 k - 1 doubles to size k, 2 k keeps it
        self.sizes = [[side << ((i + 1) // 2) for side in grid] for i in range(2 * n + 1)]  # of the noise images
        shapes = [(widths[i // 2], widths[(i + 1) // 2], i % 2 == 1) for i in range(2 * n + 1)]
        self.convs = nn.ModuleList(
            StyledConv(a, b, d, size, up) for (a, b, up), size in zip(shapes, self.sizes, strict=True)
        )
        self.images = nn.ModuleList(ToImage(a, channels, d) for a in widths)
        self.up = FIRUp()
        self.to(memory_format=torch.channels_last)  # half the time on a CPU

    def repeated(self, w: Tensor) -> Tensor:
        """w [N, d] -> [N, L, d]."""
        return w[:, None].expand(-1, self.layers, -1)

    def mixed(self, w: Tensor, other: Tensor, first: Tensor) -> Tensor:
        """w [N, d] -> [N, L, d], replaced by the other from the layer `first` [N] on."""
        replaced = torch.arange(self.layers, device=w.device) >= first[:, None]
        return torch.where(replaced[:, :, None], other[:, None], w[:, None])

    def forward(self, w: Tensor, noise: Sequence[Tensor] | None = None) -> Tensor:
        """Images with the given noise [N, 1, h, w] for each convolution; None: with constant noise."""
        x, image = self.const.expand(len(w), -1, -1, -1), torch.zeros(())
        for i, conv in enumerate(self.convs):
            x = conv(x, w[:, i], None if noise is None else noise[i])
            if i % 2 == 0:  # the last of its size
                more = self.images[i // 2](x, w[:, i + 1])
                image = more if i == 0 else self.up(image) + more
        return image


class StyledConv(nn.Module):
    """x [N, a, h, w], w [N, d] -> leaky(modulated 3x3 convolution + noise + bias) [N, b, ...].

    Args:
        a: inputs.
        b: outputs.
        d: size of w.
        size: height and width of the output.
        up: double the size: the convolution's input has zeros between pixels, its output is filtered.
    """

    noise: Tensor

    def __init__(self, a: int, b: int, d: int, size: Sequence[int], up: bool) -> None:
        super().__init__()
        self.style = EqualisedLinear(d, a, bias=1.0)
        self.conv = ModulatedConv2d(a, b, 3, up, gain=GAIN)
        self.bias = nn.Parameter(torch.zeros(b))
        self.strength = nn.Parameter(torch.zeros(()))  # of the noise
        self.register_buffer("noise", torch.randn(*size))  # constant noise, for samples
        self.blur = FIRBlur(padding=1, gain=4.0) if up else None

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None = None) -> Tensor:
        x = self.conv(x, self.style(w))
        x = x if self.blur is None else self.blur(x)
        noise = self.noise if noise is None else noise
        x = x + (GAIN * self.strength * noise).to(x.dtype) + (GAIN * self.bias).to(x.dtype)[:, None, None]
        return leaky(x)


class ToImage(nn.Module):
    """x [N, a, H, W], w [N, d] -> [N, C, H, W], at least in float32: a modulated 1x1 convolution, whose weights are not
    divided by their norm, and a bias.

    Args:
        a: inputs.
        channels: C.
        d: size of w.
    """

    def __init__(self, a: int, channels: int, d: int) -> None:
        super().__init__()
        self.style = EqualisedLinear(d, a, bias=1.0)
        self.conv = EqualisedConv2d(a, channels, 1, active=False)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        image = self.conv(x * self.style(w).to(x.dtype)[:, :, None, None])
        image = image + self.bias.to(image.dtype)[:, None, None]
        return image.clamp(-LARGEST, LARGEST).float() if is_half(image) else image


class StyleGAN2Discriminator(nn.Module):
    """x [N, C, H, W], y [N] -> blocks, each of which halves the size -> scores [N].

    With labels, the score is h'v(y) / sqrt n, n numbers h and a mapping v of the label (projection).

    Args:
        image_size: as in the generator.
        channels: of the image.
        maps: as in the generator.
        width: as in the generator.
        num_classes: number of labels; None if unconditional.
        group: images that are compared: see `MinibatchStdDev`; 1: none.
        residual: blocks are residual.
    """

    def __init__(
        self,
        image_size: Size = 1024,
        channels: int = 3,
        maps: int = 32768,
        width: int = 512,
        num_classes: int | None = None,
        group: int = 4,
        residual: bool = True,
    ) -> None:
        super().__init__()
        widths = feature_maps(image_size, maps, width)
        last, area = widths[0], prod(layout(image_size)[1:])
        compare = [MinibatchStdDev(group)] if group > 1 else []
        self.blocks = nn.Sequential(
            EqualisedConv2d(channels, widths[-1], 1),
            *(HalvingBlock(a, b, residual) for a, b in pairwise(widths[::-1])),
            *compare,
            EqualisedConv2d(last + len(compare), last, 3, padding=1),
        )
        self.linear = EqualisedLinear(last * area, last, active=True)
        self.out = EqualisedLinear(last, 1 if num_classes is None else last)
        self.mapping = None if num_classes is None else Mapping(0, last, num_classes=num_classes)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.out(self.linear(self.blocks(x).flatten(1)))
        return h.squeeze(1) if self.mapping is None else (h * self.mapping(None, y)).sum(1) * h.shape[1] ** -0.5


class HalvingBlock(nn.Module):
    """x [N, a, H, W] -> [N, b, H/2, W/2]: two 3x3 convolutions, of which the second halves the filtered input; with a
    1x1 convolution of the halved input beside them if `residual`, both divided by sqrt 2.
    """

    def __init__(self, a: int, b: int, residual: bool = True) -> None:
        super().__init__()
        gain = 0.5**0.5 if residual else 1.0
        self.main = nn.Sequential(
            EqualisedConv2d(a, a, 3, padding=1), FIRBlur(padding=2), EqualisedConv2d(a, b, 3, stride=2, gain=gain)
        )
        self.skip = nn.Sequential(FIRDown(), EqualisedConv2d(a, b, 1, active=False, gain=gain)) if residual else None

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x) if self.skip is None else self.skip(x) + self.main(x)


def layout(image_size: Size) -> tuple[int, int, int]:
    """(n, h, w), n from 1 up: see `doubled`."""
    return doubled(image_size, "StyleGAN2 doubles the height and width", 1)


def feature_maps(image_size: Size, maps: int, width: int) -> list[int]:
    """Feature maps at each size: see `maps_by_size`."""
    n, *grid = layout(image_size)
    return maps_by_size(n, min(grid), maps, width)
