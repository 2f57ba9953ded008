"""A player during training: the parameters that it updates, and the opponent's state that must not change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.optim import Optimizer

from ganzoo.core.finite import Watch, surely_finite
from ganzoo.core.frozen import frozen, kept
from ganzoo.core.strategy import average
from ganzoo.optim.game import looks_ahead

PlayerName = Literal["discriminator", "generator"]
RUNNING = ("running_mean", "running_var")  # statistics of norms, as named by torch
PLAYERS: tuple[PlayerName, PlayerName] = ("discriminator", "generator")  # in the order of their optimizers
LOSSES = ("D/loss", "G/loss")  # as they are logged


class Player:
    """One of the two players.

    Args:
        name: "discriminator" or "generator".
        networks: both players' networks.
        optimizer: of this player's parameters.
        names: of all parameters, for messages.

    Attributes:
        optimizer: as given.
        parameters: those of the optimizer.
        opponent_parameters: all other parameters of the two networks.
        opponent_buffers: the buffers of networks without parameters of this player.
        moved: whether the optimizer has stepped since this was last set to False.
    """

    def __init__(
        self,
        name: PlayerName,
        networks: Mapping[PlayerName, nn.Module],
        optimizer: Optimizer,
        names: Mapping[nn.Parameter, str],
    ) -> None:
        self.name, self.optimizer = name, optimizer
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        own = {id(p) for p in self.parameters}
        others = [net for net in networks.values() if not any(id(p) in own for p in net.parameters())]
        self.opponent_parameters = [p for net in networks.values() for p in net.parameters() if id(p) not in own]
        self.opponent_buffers = [buffer for net in others for buffer in net.buffers()]
        self.moved = False
        optimizer.register_step_post_hook(self._move)
        self._labelled = [(p, f"gradient of {names[p]}") for p in self.parameters]
        buffers = networks[name].named_buffers()
        self._statistics = [b for key, b in buffers if key.rpartition(".")[2] in RUNNING]  # differ between processes

    @contextmanager
    def active(self) -> Iterator[None]:
        """Freezes the opponent's parameters inside, and restores its buffers on exit."""
        with frozen(self.opponent_parameters), kept(self.opponent_buffers):
            yield

    @property
    def ahead(self) -> bool:
        """Whether the current parameters are extrapolated; the optimizer's next step returns from them."""
        return looks_ahead(self.optimizer)

    def sync_gradients(self, terms: Tensor, world_size: int) -> Tensor:
        """Average gradients and norms' running statistics over the processes, in place; returns the averaged terms
        [k]."""
        if world_size > 1:
            terms = terms.clone()
            average([*(p.grad for p in self.parameters if p.grad is not None), *self._statistics, terms])
        return terms

    def check_finite(self, watch: Watch, step: int, names: Sequence[str], terms: Tensor, scaled: bool) -> None:
        """Check the loss's terms and the norms of the gradients.

        Args:
            watch: records non-finite values, and raises or defers the error.
            step: number of the batch.
            names: of the terms [k].
            terms: [k].
            scaled: whether a gradient scaler handles non-finite gradients.

        Raises:
            NonFiniteError: on a CPU, a value is not finite.
        """
        moving = [] if scaled else [(p.grad, label) for p, label in self._labelled if p.grad is not None]
        norms = torch.stack(torch._foreach_norm([terms, *(gradient for gradient, _ in moving)]))
        if not surely_finite(norms):
            labels = [f"term {name!r}" for name in names] + [label for _, label in moving]
            watch.look(step, self.name, labels, torch.cat([terms, norms[1:]]))

    def step(self, strategy: Any, direct: bool = False) -> None:
        """One optimizer step, directly or through the Trainer's strategy; Lightning's wrapper of the optimizer would
        count it as a global step."""
        if direct:
            self.optimizer.step()
        else:
            strategy.optimizer_step(self.optimizer, closure=lambda: None)

    def _move(self, *_: Any) -> None:
        self.moved = True


def clip_gradients(optimizer: Optimizer, norm: float, scaler: Any) -> None:
    """Clip an optimizer's gradients to a maximum norm; `scaler` is fp16's, or None."""
    if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
        scaler.unscale_(optimizer)  # a fused optimizer would unscale them only in its step
    nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], norm)


def check_trained(model: Any, optimizers: Sequence[Optimizer]) -> None:
    """
    Raises:
        MisconfigurationException: no optimizer has a parameter, since it belongs to neither player.
    """
    trained = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    for name, p in model.named_parameters():
        if p.requires_grad and id(p) not in trained and not name.startswith("ema."):
            raise MisconfigurationException(
                f"{name} belongs to neither player, so it would not be trained: make it part of self.generator or "
                "self.discriminator, or freeze it with requires_grad_(False)"
            )


def parameters(model: Any) -> str:
    """`D 2,689 + G 104,129 parameters`."""
    sizes = [f"{p[0].upper()} {sum(w.numel() for w in getattr(model, p).parameters()):,}" for p in PLAYERS]
    return f"{' + '.join(sizes)} parameters"
