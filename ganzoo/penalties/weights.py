"""Regularisation of weights."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ganzoo.core.limits import NonNegative
from ganzoo.core.types import Terms
from ganzoo.functional.penalties import off_diagonal
from ganzoo.layers.equalised import EqualisedLinear
from ganzoo.penalties.base import Penalty, View

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LINEAR = (nn.Linear, EqualisedLinear)
OTHERS = (nn.LayerNorm, nn.RMSNorm, nn.Bilinear)


class Orthogonal(Penalty):
    """Penalises inner products of the rows of each layer's weights, but not their lengths.

    The term is weight times the sum over layers of |W W'|^2 without the diagonal of W W' (Brock et al. 2018,
    arXiv:1809.11096, eq. 3). W is the weight of a convolution or linear layer, [outputs, all else]. The authors' code
    has half of the gradient, so their weight of 1e-4 is 5e-5 here.

    Args:
        weight: beta.
        player: whose layers: "generator", as in the paper, "discriminator", or "both".
    """

    scores = False

    def __init__(
        self, weight: NonNegative = 1e-4, player: Literal["generator", "discriminator", "both"] = "generator"
    ) -> None:
        super().__init__()
        self.weight, self.player = weight, player

    def discriminator_terms(self, view: View) -> Terms:
        return self.of(view.networks["discriminator"])

    def generator_terms(self, view: View) -> Terms:
        return self.of(view.networks["generator"])

    def of(self, network: nn.Module) -> Terms:
        """The term of a network."""
        layers = [layer for layer in network.modules() if _has_rows(layer)]
        return {"orthogonal": self.weight * torch.stack([off_diagonal(_rows(layer)) for layer in layers]).sum()}

    def concerns(self, player: str) -> bool:
        return self.player in (player, "both")


def _has_rows(layer: nn.Module) -> bool:
    """Whether it is a trained linear layer or convolution, whose weight has at least three dimensions."""
    if isinstance(layer, OTHERS) or not isinstance(weight := getattr(layer, "weight", None), Tensor):
        return False
    return weight.requires_grad and (isinstance(layer, LINEAR) or weight.ndim > 2)


def _rows(layer: nn.Module) -> Tensor:
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return weight.transpose(0, 1) if isinstance(layer, TRANSPOSED) else weight
