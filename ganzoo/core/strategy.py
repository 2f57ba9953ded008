"""Data parallelism without DDP's wrapper: averages only the gradients of the player that is updated.

Lightning's `ddp` wraps generator and discriminator in one reducer, which fails if one of them takes no part in a
backward pass; `find_unused_parameters` works, but communicates both players' gradients in each backward pass.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelCheckpoint,
    SpikeDetection,
    StochasticWeightAveraging,
)
from lightning.pytorch.plugins import MixedPrecision, Precision
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, StrategyRegistry
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from ganzoo.core.lightning_fixes import saves_by_time, sync_module_states
from ganzoo.core.processes import rank_and_world

UNSUITED: dict[type[Callback], str] = {  # also for subclasses: the reason, and the alternative
    BaseFinetuning: "adds parameters to one optimizer during training, but a GAN has two; remove it",
    GradientAccumulationScheduler: "accumulates the gradients of one optimizer; set the model's microbatches instead",
    LearningRateFinder: "assumes one loss that decreases, but a GAN has two that need not; remove it",
    SpikeDetection: "monitors one loss; use ganzoo.callbacks.diagnostics.Diagnostics, which monitors both players",
    StochasticWeightAveraging: "changes the learning rate of one optimizer; set the model's ema_half_life instead",
}


class GANStrategy(DDPStrategy):
    """`Trainer(strategy="gan")`: replicas start equal, and gradients are averaged just before each optimizer step.

    It allows any number of backward passes per step (penalties, double backward, accumulation). A parameter without a
    gradient keeps `None`, so optimizers skip it as in a single process. In a notebook: start_method="fork".
    """

    strategy_name = "gan"

    def configure_ddp(self) -> None:
        assert self.model is not None
        sync_module_states(self.model)

    def pre_backward(self, loss: Tensor) -> None:
        pass  # the parent prepares DDP's reducer

    def post_backward(self, loss: Tensor) -> None:
        pass

    @classmethod
    def register_strategies(cls, strategy_registry: Any) -> None:
        strategy_registry.register(cls.strategy_name, cls, description=(cls.__doc__ or "").partition("\n")[0])


def average(tensors: list[Tensor]) -> None:
    """Replace each tensor by its mean over the processes, in place, with one all-reduce per dtype."""
    groups: dict[torch.dtype, list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        groups[tensor.dtype].append(tensor)
    for group in groups.values():
        flat = torch.cat([tensor.reshape(-1) for tensor in group])
        dist.all_reduce(flat)
        parts = (flat / dist.get_world_size()).split([tensor.numel() for tensor in group])
        torch._foreach_copy_(group, [part.view_as(tensor) for part, tensor in zip(parts, group, strict=True)])


def gather(rows: Tensor) -> Tensor:
    """Rows [n, ...] of all processes, [world size * n, ...], for a loss of the global batch that all of them compute.

    The gradient reaches this process's rows only, times the world size: with `average`, the parameters' gradients are
    those of the loss in one process. Without the factor they are smaller by the world size. Second derivatives, as in
    consensus optimization, lack the terms between processes.
    """
    rank, world_size = rank_and_world()
    if world_size == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(world_size)]
    dist.all_gather(parts, rows.detach().contiguous())
    parts[rank] = rows + (world_size - 1) * (rows - rows.detach())
    return torch.cat(parts)


def check_trainer(trainer: Trainer, stage: str) -> None:
    """
    Raises:
        MisconfigurationException: the strategy or a callback cannot train two networks alternately, or the precision is
            not supported.
    """
    strategy, precision, plugin = trainer.strategy, trainer.precision, type(trainer.precision_plugin)
    if stage == "fit":
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            check_callback(type(callback))
            if isinstance(callback, ModelCheckpoint) and saves_by_time(callback):
                raise MisconfigurationException(
                    "ModelCheckpoint: train_time_interval has no effect with two optimizers; use every_n_train_steps, "
                    "or checkpoint.every_minutes"
                )
    if stage == "fit" and not isinstance(strategy, SingleDeviceStrategy | GANStrategy):
        raise MisconfigurationException(
            f'{type(strategy).__name__} cannot train two networks alternately: use Trainer(strategy="gan")'
        )
    lightnings = plugin.__module__.startswith("lightning.") and plugin not in (Precision, MixedPrecision)
    if lightnings or (precision.endswith("-true") and precision != "32-true"):
        of = f" of {plugin.__name__}" if precision == "32-true" else ""
        raise MisconfigurationException(f"unsupported precision {precision}{of}: use 32-true, bf16-mixed or 16-mixed")


def check_callback(kind: type) -> None:
    """
    Raises:
        MisconfigurationException: callbacks of this class do not work with two players.
    """
    for base, why in UNSUITED.items():
        if issubclass(kind, base):
            raise MisconfigurationException(f"{kind.__name__} {why}")


if GANStrategy.strategy_name not in StrategyRegistry:
    GANStrategy.register_strategies(StrategyRegistry)
