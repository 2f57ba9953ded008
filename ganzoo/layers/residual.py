"""Residual blocks of generators and discriminators.

Gulrajani et al. 2017 (arXiv:1704.00028, appendix F) and Miyato et al. 2018 (arXiv:1802.05957, appendix B); the deep
ones: Brock et al. 2018 (arXiv:1809.11096, appendix B). `conv` makes the convolutions: `Conv2d`, or `SpectralConv2d`;
`norm` makes the norm of n features, which is called with the features and the block's condition, if any.

Sizes double by repeating pixels, and halve by 2x2 means. A 1x1 convolution commutes with both, so shortcuts have it at
the smaller size, whatever order their papers draw. No ReLU is in place, since the shortcut reads the same x.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, relu

from ganzoo.layers.base import Conv2d

Make = Callable[..., nn.Module]


def twice(x: Tensor) -> Tensor:
    """[N, n, H, W] -> [N, n, 2H, 2W], each pixel repeated."""
    return interpolate(x, scale_factor=2.0)


def halved(x: Tensor) -> Tensor:
    """[N, n, H, W] -> [N, n, H/2, W/2], means of 2x2 pixels."""
    return avg_pool2d(x, 2)


class UpBlock(nn.Module):
    """x [N, n_in, H, W] -> [N, n_out, 2H, 2W]: norm, ReLU, x2, conv, norm, ReLU, conv; shortcut x2, 1x1 conv."""

    def __init__(self, n_in: int, n_out: int, norm: Make, conv: Make = Conv2d) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(n_in), norm(n_out)
        self.conv1, self.conv2 = conv(n_in, n_out, 3, padding=1, up=True), conv(n_out, n_out, 3, padding=1)
        self.shortcut = conv(n_in, n_out, 1)

    def forward(self, x: Tensor, *c: Tensor) -> Tensor:
        h = self.conv1(relu(self.norm1(x, *c)))
        h = self.conv2(relu(self.norm2(h, *c)))
        return h + twice(self.shortcut(x))


class DownBlock(nn.Module):
    """x [N, n_in, H, W] -> [N, n_out, H/2, W/2]: ReLU, conv, ReLU, conv, halving; shortcut 1x1 conv, halving.

    Args:
        n_in: feature maps of x.
        n_out: of the output.
        hidden: between the two convolutions.
        conv: see above.
        first: x is an image, which no ReLU precedes.
        down: False keeps the size, and x itself is the shortcut if n_in is n_out.
    """

    def __init__(
        self, n_in: int, n_out: int, hidden: int, conv: Make = Conv2d, first: bool = False, down: bool = True
    ) -> None:
        super().__init__()
        self.first, self.down = first, down
        self.conv1, self.conv2 = conv(n_in, hidden, 3, padding=1), conv(hidden, n_out, 3, padding=1, down=down)
        self.shortcut = conv(n_in, n_out, 1) if down or n_in != n_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(relu(self.conv1(x if self.first else relu(x))))
        return h + self.shortcut(halved(x) if self.down else x)


class DeepUpBlock(nn.Module):
    """x [N, n_in, H, W] -> [N, n_out, H, W], or twice the size, by a bottleneck of n_in / 4 feature maps.

    Norm, ReLU, 1x1 conv; norm, ReLU, x2, conv; norm, ReLU, conv; norm, ReLU, 1x1 conv. The shortcut drops the last
    n_in - n_out feature maps.
    """

    def __init__(self, n_in: int, n_out: int, norm: Make, conv: Make = Conv2d, up: bool = False) -> None:
        super().__init__()
        hidden = max(1, n_in // 4)
        self.n_out, self.up = n_out, up
        self.norms = nn.ModuleList(map(norm, (n_in, hidden, hidden, hidden)))
        self.conv1, self.conv4 = conv(n_in, hidden, 1), conv(hidden, n_out, 1)
        self.conv2, self.conv3 = conv(hidden, hidden, 3, padding=1, up=up), conv(hidden, hidden, 3, padding=1)

    def forward(self, x: Tensor, *c: Tensor) -> Tensor:
        norm1, norm2, norm3, norm4 = self.norms
        h = relu(norm2(self.conv1(relu(norm1(x, *c))), *c))
        h = self.conv3(relu(norm3(self.conv2(h), *c)))
        h = self.conv4(relu(norm4(h, *c)))
        x = x[:, : self.n_out]
        return h + (twice(x) if self.up else x)


class DeepDownBlock(nn.Module):
    """x [N, n_in, H, W] -> [N, n_out, H, W], or half the size, by a bottleneck of n_out / 4 feature maps.

    ReLU, 1x1 conv; ReLU, conv; ReLU, conv; ReLU, halving, 1x1 conv. The shortcut is halved, and a 1x1 convolution of
    it adds n_out - n_in feature maps.
    """

    def __init__(self, n_in: int, n_out: int, conv: Make = Conv2d, down: bool = False) -> None:
        super().__init__()
        hidden = max(1, n_out // 4)
        self.down = down
        self.conv1, self.conv4 = conv(n_in, hidden, 1), conv(hidden, n_out, 1)
        self.conv2, self.conv3 = (conv(hidden, hidden, 3, padding=1) for _ in range(2))
        self.more = conv(n_in, n_out - n_in, 1) if n_out > n_in else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(relu(self.conv1(relu(x))))
        h = relu(self.conv3(relu(h)))
        x, h = (halved(x), halved(h)) if self.down else (x, h)
        skip = x if self.more is None else torch.cat([x, self.more(x)], 1)
        return self.conv4(h) + skip
