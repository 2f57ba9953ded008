"""The networks of R3GAN (Huang et al. 2025, arXiv:2501.05441, section 3): no norms, no tanh."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import gcd, prod

import torch
from torch import Tensor, nn

from ganzoo.core.limits import Size
from ganzoo.layers.fir import FIRDown, FIRUp
from ganzoo.layers.resnext import EXPANSION, SLOPE, ResNeXtBlock
from ganzoo.networks.base import residual_layout


class R3GANGenerator(nn.Module):
    """z [N, z_dim], y [N] -> stages of residual blocks, each of twice the size -> images [N, C, H, W], not bounded.

    Args:
        image_size: see `residual_layout`.
        channels: of the image.
        z_dim: size of the latent.
        widths: feature maps of each stage, from the smallest size: `stage_widths`.
        blocks: of a stage.
        group_size: feature maps of a group of the 3x3 convolutions; None: no groups.
        num_classes: number of labels; None if unconditional.
        embedding: size of a label's embedding, an input beside the latent.
    """

    def __init__(
        self,
        image_size: Size = 32,
        channels: int = 3,
        z_dim: int = 64,
        widths: Sequence[int] = (768, 768, 768, 768),
        blocks: int = 2,
        group_size: int | None = 16,
        num_classes: int | None = None,
        embedding: int = 64,
    ) -> None:
        super().__init__()
        _, *grid = residual_layout(image_size)
        self.embed = None if num_classes is None else nn.Embedding(num_classes, embedding)
        start = _Start(z_dim + (0 if self.embed is None else embedding), widths[0], grid)
        heads = [start, *(_transition(a, b, up=True) for a, b in pairwise(widths))]
        self.stages = nn.Sequential(
            *(
                nn.Sequential(head, *(ResNeXtBlock(n, group_size) for _ in range(blocks)))
                for head, n in zip(heads, widths, strict=True)
            )
        )
        self.out = nn.Conv2d(widths[-1], channels, 1, bias=False)
        fixup_(self)
        self.to(memory_format=torch.channels_last)  # a sixth faster on a CPU

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.out(self.stages(z if self.embed is None else torch.cat([z, self.embed(y)], 1)))


class R3GANDiscriminator(nn.Module):
    """x [N, C, H, W], y [N] -> stages of residual blocks, each of half the size: h [N, n] -> scores [N].

    With labels, h has as many numbers as the last stage, and the score is h'v_y with a row v_y of a table for each
    class.

    Args:
        image_size: see `residual_layout`.
        channels: of the image.
        widths: feature maps of each stage, from the largest size.
        blocks: of a stage.
        group_size: as in `R3GANGenerator`.
        num_classes: number of labels; None if unconditional.
    """

    def __init__(
        self,
        image_size: Size = 32,
        channels: int = 3,
        widths: Sequence[int] = (768, 768, 768, 768),
        blocks: int = 2,
        group_size: int | None = 16,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        _, *grid = residual_layout(image_size)
        self.first = nn.Conv2d(channels, widths[0], 1, bias=False)
        end = _End(widths[-1], 1 if num_classes is None else widths[-1], grid)
        tails = [*(_transition(a, b, up=False) for a, b in pairwise(widths)), end]
        self.stages = nn.Sequential(
            *(
                nn.Sequential(*(ResNeXtBlock(n, group_size) for _ in range(blocks)), tail)
                for tail, n in zip(tails, widths, strict=True)
            )
        )
        self.table = None if num_classes is None else nn.Embedding(num_classes, widths[-1])
        fixup_(self)
        self.to(memory_format=torch.channels_last)  # a sixth faster on a CPU

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.stages(self.first(x))
        return h.squeeze(1) if self.table is None else (h * self.table(y)).sum(1)


class _Start(nn.Module):
    """z [N, n] -> [N, width, h, w]: learned feature maps, each times a number that is linear in z."""

    def __init__(self, n: int, width: int, grid: Sequence[int]) -> None:
        super().__init__()
        self.basis = nn.Parameter(torch.randn(width, *grid))
        self.linear = nn.Linear(n, width, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        return self.basis * self.linear(z)[:, :, None, None]


class _End(nn.Module):
    """[N, width, h, w] -> [N, n]: a weighted sum of the pixels of each feature map, and a linear layer."""

    def __init__(self, width: int, n: int, grid: Sequence[int]) -> None:
        super().__init__()
        self.basis = nn.Conv2d(width, width, tuple(grid), groups=width, bias=False)  # type: ignore[arg-type]
        self.linear = nn.Linear(width, n, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        return self.linear(self.basis(h).flatten(1))


def _transition(a: int, b: int, up: bool) -> nn.Sequential:
    """From a to b feature maps, of twice or half the size; the 1x1 convolution is at the smaller one."""
    width = [] if a == b else [nn.Conv2d(a, b, 1, bias=False)]
    return nn.Sequential(*width, FIRUp()) if up else nn.Sequential(FIRDown(), *width)


def fixup_(network: nn.Module) -> None:
    """Normal weights of standard deviation gain / sqrt(fan-in), and biases 0; in place.

    In residual blocks the gain is L^(-1/4) times that of a leaky ReLU, L being their number, and the last convolution
    is 0 (Fix-up, Zhang et al. 2019, arXiv:1901.09321). Elsewhere it is 1. A table of embeddings is a linear layer of a
    one-hot vector; that of D, whose products with h are summed over n numbers, has gain n^(-1/2).
    """
    blocks = [m for m in network.modules() if isinstance(m, ResNeXtBlock)]
    gain = (2 / (1 + SLOPE**2)) ** 0.5 * len(blocks) ** -0.25
    scaled = {id(conv) for block in blocks for conv in (block.conv1, block.conv2)}
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = prod(module.weight.shape[1:])
            nn.init.normal_(module.weight, 0.0, (gain if id(module) in scaled else 1.0) * fan_in**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            classes, n = module.weight.shape
            of_d = module is getattr(network, "table", None)
            nn.init.normal_(module.weight, 0.0, (classes * (n if of_d else 1)) ** -0.5)
    for block in blocks:
        nn.init.zeros_(block.conv3.weight)


def stage_widths(image_size: Size, width: int | list[int], wide_to: int, group_size: int | None) -> list[int]:
    """Feature maps of each stage, from the smallest size: `width` for those of a shorter side of up to `wide_to`
    pixels, and half as many for each size above; or a list of all.

    Raises:
        ValueError: a stage's feature maps do not divide into groups, or the list has another length.
    """
    n, *grid = residual_layout(image_size)
    if isinstance(width, list):
        if len(width) != n + 1 or any(type(w) is not int or w < 1 or EXPANSION * w % (group_size or 1) for w in width):
            of = f"whose doubles divide into groups of {group_size}" if group_size else "from 1 up"
            raise ValueError(f"width is {width}; a list has {n + 1} numbers {of}, one for each stage")
        return width
    halved = [sum(min(grid) << j > wide_to for j in range(1, i + 1)) for i in range(n + 1)]
    found, least = [width >> k for k in halved], 2 ** halved[-1]
    if group_size is not None:
        least *= group_size // gcd(group_size, EXPANSION)
    if width % least:
        inner = EXPANSION * width / 2 ** halved[-1]
        raise ValueError(
            f"width is {width}: "
            + (
                f"a stage has {inner / EXPANSION:g} feature maps, and its blocks {inner:g}, in groups of {group_size}"
                if group_size
                else f"it cannot be halved {halved[-1]} times"
            )
            + f"; try {max(1, round(width / least)) * least}"
        )
    return found
