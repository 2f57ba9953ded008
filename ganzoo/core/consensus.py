"""Simultaneous updates of both players, and consensus optimization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from ganzoo.core.frozen import kept
from ganzoo.core.strategy import average
from ganzoo.core.types import Batch

if TYPE_CHECKING:
    from ganzoo.core.module import GANModule


def minimize_at_once(model: GANModule, batch: Batch, *, consensus: float = 0.0) -> None:
    """One simultaneous optimizer step of both players, from the same weights and latents.

    With `consensus` gamma > 0, both also minimise gamma / 2 |v|^2, where v concatenates, for the global batch, each
    player's gradient of its own loss with respect to its own parameters. The second derivatives increase the time two
    to three times.

    Raises:
        NonFiniteError: as in `minimize`.
        MisconfigurationException: combined with microbatches, compiled losses or the loss scaling of fp16.
    """
    others = {"microbatches": model.microbatches > 1, "compile_losses": model.compile_losses}
    for name, given in {**others, "fp16 (use bf16-mixed)": model.scaler is not None}.items():
        if given:
            raise MisconfigurationException(f"simultaneous updates do not support {name}")
    batch, players = model.with_draws(batch), list(model.players.values())
    losses, v = [], []
    for player, equation in zip(players, (model.discriminator_loss, model.generator_loss), strict=True):
        with kept(player.opponent_buffers):
            loss = model.compute_loss(equation, batch, player.name)
        moving = [p for p in player.parameters if p.requires_grad]
        with torch.autocast(model.device.type, enabled=False):  # as in `minimize`
            gradients = torch.autograd.grad(loss.total, moving, create_graph=consensus > 0, allow_unused=True)
        v += list(zip(moving, gradients, strict=True))
        losses.append((loss.names, loss.values))
    set_gradients(v, consensus, model.trainer.world_size)
    for player, (names, values) in zip(players, losses, strict=True):
        model.settle(player, names, values)
    for player in players:
        player.step(model.trainer.strategy)


def set_gradients(v: Sequence[tuple[Tensor, Tensor | None]], gamma: float, world_size: int) -> None:
    """Set each parameter's gradient to that of its player's loss plus gamma times that of |v|^2 / 2.

    |v|^2 is that of the global batch (Mescheder et al. 2017, arXiv:1705.10461, algorithm 2).

    Args:
        v: both players' parameters, each with the gradient of its player's loss; differentiable unless gamma is 0.
        gamma: 0 for plain simultaneous updates.
        world_size: number of processes, each with its share of the batch.
    """
    push: Sequence[Tensor | None] = [None] * len(v)
    if gamma:
        curved = [gradient for _, gradient in v if gradient is not None and gradient.requires_grad]
        fixed = [gradient.detach().clone() for gradient in curved]
        if world_size > 1:
            average(fixed)
        with torch.autocast(v[0][0].device.type, enabled=False):
            push = torch.autograd.grad(curved, [p for p, _ in v], fixed, allow_unused=True)  # J'v
    for (p, gradient), more in zip(v, push, strict=True):
        # in the parameter's memory order, as `backward` makes it: fused optimizers read both in the order of storage
        p.grad = None if gradient is None else torch.empty_like(p).copy_(gradient.detach())
        if more is not None:
            p.grad = torch.empty_like(p).copy_(gamma * more) if p.grad is None else p.grad.add_(more, alpha=gamma)
