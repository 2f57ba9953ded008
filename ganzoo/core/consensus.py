"""Both players at once: gradients at the same weights, and the consensus direction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from ganzoo.core.frozen import kept
from ganzoo.core.player import Player
from ganzoo.core.strategy import average
from ganzoo.core.types import Batch

if TYPE_CHECKING:
    from ganzoo.core.module import GANModule


def minimize_at_once(self: GANModule, batch: Batch, *, consensus: float = 0.0) -> None:
    """One optimizer step of both players from the same weights and latents, which is simultaneous play.

    With `consensus` gamma above 0 both also go down gamma / 2 |v|^2, v being each player's gradient of its own loss by
    its own parameters, of the global batch. That takes second derivatives: two to three times the time.

    Raises:
        NonFiniteError: as in `minimize`.
        MisconfigurationException: there are microbatches, compiled losses, or fp16's scaled ones.
    """
    others = {"microbatches": self.microbatches > 1, "compile_losses": self.compile_losses}
    for name, given in {**others, "fp16 (take bf16-mixed)": self.scaler is not None}.items():
        if given:
            raise MisconfigurationException(f"players who move at once do without {name}")
    batch, players = self.with_draws(batch), list(self.players.values())
    losses = []
    for player, equation in zip(players, (self.discriminator_loss, self.generator_loss), strict=True):
        with kept(player.opponent_buffers):
            losses.append(self.compute_loss(equation, batch, player.name))
    set_gradients(players, [loss.total for loss in losses], consensus, self.trainer.world_size)
    for player, loss in zip(players, losses, strict=True):
        self.step(player, loss.names, loss.values)


def set_gradients(players: Sequence[Player], losses: Sequence[Tensor], gamma: float, world_size: int) -> None:
    """Give every parameter its gradient of its own player's loss, plus gamma times its gradient of |v|^2 / 2.

    v is the vector of all these gradients, of the global batch (Mescheder et al. 2017, arXiv:1705.10461, algorithm 2).

    Args:
        players: whose parameters are meant.
        losses: a scalar for each.
        gamma: 0 for no consensus; above that second derivatives are taken.
        world_size: number of processes, each with its share of the batch.
    """
    moving = [[p for p in player.parameters if p.requires_grad] for player in players]
    both = [p for own in moving for p in own]
    v: list[Tensor | None] = []
    for own, loss in zip(moving, losses, strict=True):
        v += torch.autograd.grad(loss, own, create_graph=gamma > 0, allow_unused=True)
    push: Sequence[Tensor | None] = [None] * len(both)
    if gamma:
        curved = [gradient for gradient in v if gradient is not None and gradient.requires_grad]
        fixed = [gradient.detach().clone() for gradient in curved]
        if world_size > 1:
            average(fixed)
        push = torch.autograd.grad(curved, both, fixed, allow_unused=True)  # J'v: the gradient of |v|^2 / 2
    for p, gradient, more in zip(both, v, push, strict=True):
        p.grad = None if gradient is None else gradient.detach().clone()  # a view of one number cannot be averaged
        if more is not None:
            p.grad = gamma * more if p.grad is None else p.grad.add(more, alpha=gamma)
