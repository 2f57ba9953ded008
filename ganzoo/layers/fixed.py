"""Random layers that are not trained."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import conv2d


class FixedConv2d(nn.Module):
    """A 1x1 convolution, [N, n_in, H, W] -> [N, n_out, H, W], that keeps torch's first weights: they are buffers."""

    weight: Tensor
    bias: Tensor

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        for name, value in nn.Conv2d(n_in, n_out, 1).named_parameters():
            self.register_buffer(name, value.detach())

    def forward(self, x: Tensor) -> Tensor:
        return conv2d(x, self.weight, self.bias)
