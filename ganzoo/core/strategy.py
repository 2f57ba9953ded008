"""Several processes without DDP's wrapper: only what the player's step has made is averaged.

Lightning's `ddp` wraps generator and discriminator in one reducer, which fails as soon as one of them takes no part in
a backward pass; `find_unused_parameters` works but sends both players' gradients with every backward.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, StrategyRegistry
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from ganzoo.core.lightning_fixes import sync_module_states


class GANStrategy(DDPStrategy):
    """`Trainer(strategy="gan")`: replicas start equal, and gradients are averaged just before each optimizer step.

    Any number of backward passes (penalties, double backward, accumulation) may come before it. A parameter without a
    gradient keeps `None`, so an optimizer skips it as it would in one process. In a notebook: start_method="fork".
    """

    strategy_name = "gan"

    def configure_ddp(self) -> None:
        assert self.model is not None
        sync_module_states(self.model)

    def pre_backward(self, loss: Tensor) -> None:
        pass  # the parent prepares the wrapper's reducer here

    def post_backward(self, loss: Tensor) -> None:
        pass

    @classmethod
    def register_strategies(cls, strategy_registry: Any) -> None:
        strategy_registry.register(cls.strategy_name, cls, description=(cls.__doc__ or "").splitlines()[0])


def average(tensors: list[Tensor]) -> None:
    """Replace each tensor by its mean over the processes, in place; one message per dtype."""
    groups: dict[torch.dtype, list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        groups[tensor.dtype].append(tensor)
    for group in groups.values():
        flat = torch.cat([tensor.reshape(-1) for tensor in group])
        dist.all_reduce(flat)
        parts = (flat / dist.get_world_size()).split([tensor.numel() for tensor in group])
        torch._foreach_copy_(group, [part.view_as(tensor) for part, tensor in zip(parts, group, strict=True)])


def check_trainer(trainer: Trainer, stage: str) -> None:
    """
    Raises:
        MisconfigurationException: its strategy cannot train two networks in turns, or its precision is none of ours.
    """
    strategy, precision = trainer.strategy, trainer.precision
    if stage == "fit" and not isinstance(strategy, SingleDeviceStrategy | GANStrategy):
        raise MisconfigurationException(
            f'{type(strategy).__name__} cannot train two networks in turns: use Trainer(strategy="gan")'
        )
    if precision.endswith("-true") and precision != "32-true":
        raise MisconfigurationException(f"precision {precision}: use 32-true, bf16-mixed or 16-mixed")


if GANStrategy.strategy_name not in StrategyRegistry:
    GANStrategy.register_strategies(StrategyRegistry)
