"""What a differentiable game is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.func import jacrev


class Game(ABC):
    """Each player owns a part of the point [d] and moves it to make its own loss smaller.

    Attributes:
        sizes: how many coordinates each player owns, in their order; in a GAN the generator is the first player, the
            discriminator the last.
    """

    sizes: tuple[int, ...]

    @abstractmethod
    def losses(self, point: Tensor) -> Tensor:
        """Each player's loss [players] at a point [d]; differentiable."""

    def v(self, point: Tensor) -> Tensor:
        """Where everybody goes [d]: minus each player's gradient of its own loss by its own part.

        The vector field of Mescheder et al. 2017 (arXiv:1705.10461).
        """
        return -(jacrev(self.losses)(point) * self.turns).sum(0)

    def jacobian(self, point: Tensor) -> Tensor:
        """The field's derivative [d, d]; near a point where v = 0, its eigenvalues say what the game does."""
        return jacrev(self.v)(point)

    @cached_property
    def turns(self) -> Tensor:
        """Who owns what: bool [players, d]."""
        return torch.block_diag(*(torch.ones(1, size) for size in self.sizes)).bool()


def array(values: Any) -> Tensor:
    """Numbers as a float64 tensor."""
    return torch.as_tensor(values, dtype=torch.float64)
