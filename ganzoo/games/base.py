"""Differentiable games."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.func import jacrev


class Game(ABC):
    """Each player controls some coordinates of a point [d] and minimises its own loss.

    Attributes:
        sizes: number of coordinates of each player, in order; in a GAN the generator is the first player, the
            discriminator the last.
    """

    sizes: tuple[int, ...]

    @abstractmethod
    def losses(self, point: Tensor) -> Tensor:
        """Each player's loss [players] at a point [d]; differentiable."""

    def v(self, point: Tensor) -> Tensor:
        """Gradient vector field [d]: minus the gradient of each player's loss with respect to its own coordinates.

        v of Mescheder et al. 2017 (arXiv:1705.10461).
        """
        return -(jacrev(self.losses)(point) * self.turns).sum(0)

    def jacobian(self, point: Tensor) -> Tensor:
        """Jacobian of v [d, d]; its eigenvalues at a stationary point determine local convergence."""
        return jacrev(self.v)(point)

    @cached_property
    def turns(self) -> Tensor:
        """Which coordinates each player controls: bool [players, d]."""
        return torch.block_diag(*(torch.ones(1, size) for size in self.sizes)).bool()


def array(values: Any) -> Tensor:
    """Numbers as a float64 tensor."""
    return torch.as_tensor(values, dtype=torch.float64)
