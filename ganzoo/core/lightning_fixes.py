"""Workarounds for Lightning, each with the versions that need it and the reason.

`tests/contract/test_lightning_fixes.py` has a test for each, which fails once Lightning no longer needs it.
"""

from __future__ import annotations

import inspect
import logging
import os
import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.overrides.distributed import _sync_module_states
from lightning.pytorch.plugins import MixedPrecision, Precision
from lightning.pytorch.plugins.io.wrapper import _WrappingCheckpointIO
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import Strategy

from ganzoo.checkpoint.sealed import CheckpointIO


def stops(trainer: Trainer) -> bool:
    """Whether training ends after this batch on request: not before `min_steps` and `min_epochs`. Lightning (2.0 to
    2.6.6) only tells by a private name."""
    return trainer.should_stop and trainer.fit_loop._can_stop_early


def count_one_step(trainer: Trainer) -> None:
    """Count a batch as one global step. Lightning (2.0 to 2.6.6) counts each step of each optimizer under manual
    optimization, so the optimizers are stepped through the strategy, which counts none, and this counts the batch."""
    progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
    progress.increment_ready()
    progress.increment_completed()


def count_finished_epoch(trainer: Trainer) -> None:
    """Count the finished epoch when training resumes from a checkpoint of an epoch's last batch. Lightning (2.5 to
    2.6.6) does not: checkpoints saved in the next epoch would be marked as saved at its end, and runs resumed from them
    would get other batches."""
    loop = trainer.fit_loop
    epoch = loop.epoch_progress.current
    if loop.restarted_mid_epoch and epoch.completed == epoch.ready:
        loop.reset_restart_stage()


def write_sealed_checkpoints(trainer: Trainer) -> None:
    """Make `CheckpointIO` write all checkpoints of a Trainer, including those of other callbacks. In a plugin that
    wraps another one (AsyncCheckpointIO), Lightning (2.0 to 2.6.6) cannot replace the inner one: its setter does
    nothing."""
    strategy = trainer.strategy
    plugin = strategy.checkpoint_io
    if type(plugin) is TorchCheckpointIO:
        strategy.checkpoint_io = CheckpointIO()
    elif isinstance(plugin, _WrappingCheckpointIO) and type(plugin.checkpoint_io) is TorchCheckpointIO:
        plugin._checkpoint_io = CheckpointIO()


def train_mode(model: LightningModule, *networks: Any) -> None:
    """Set a loaded model, which is in eval mode, to train mode. Lightning (2.2 to 2.6.6) would train it in eval
    mode."""
    if not model.training:
        for network in networks:
            network.train()
        model.training = True


def skip_driver_lookup() -> None:
    """Reset an environment variable that Lightning (2.0 to 2.6.6) sets to "1" when imported: with that value, each
    `Optimizer.step` queries the driver for GPUs, which takes 0.2 ms."""
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"


def inspected_once(step: Any) -> Any:
    """Cache the signature of `training_step`. Lightning (2.0 to 2.6.6) inspects it in every batch, which is slow
    unless the function has the attribute `__signature__`."""
    step.__signature__ = inspect.signature(step)
    return step


def set_attribute(module: Any, name: str, value: Any) -> None:
    """Set `_current_fx_name` without type checks. Lightning (2.0 to 2.6.6) sets it before and after every hook, and
    nn.Module.__setattr__ checks the type of every value, which is slow."""
    if name == "_current_fx_name":
        object.__setattr__(module, name, value)
    else:
        LightningModule.__setattr__(module, name, value)


def skip_sigterm_broadcast(trainer: Trainer) -> None:
    """Skip the broadcast of SIGTERM that Lightning (2.6) makes in every batch with several processes; `RunFolder`
    makes it at each log."""
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = _nothing  # type: ignore[method-assign]


def show(trainer: Trainer, values: dict[str, float]) -> None:
    """Pass values to progress bars and to callbacks that monitor them. `LightningModule.log` (2.0 to 2.6.6) takes a
    third of a millisecond per value."""
    trainer.progress_bar_metrics.update(values)
    trainer.callback_metrics.update({name: torch.tensor(value) for name, value in values.items()})


def save_nothing_now(callback: ModelCheckpoint, trainer: Trainer) -> None:
    """Defer a checkpoint whose monitored value does not exist yet, for which Lightning (2.0 to 2.6.6) would end the
    training, or is old."""
    callback._last_global_step_saved = trainer.global_step


def saves_by_time(callback: ModelCheckpoint) -> bool:
    """Whether checkpoints are due by time, which Lightning (2.0 to 2.6.6) ignores under manual optimization."""
    return callback._train_time_interval is not None


def saves_now(callback: ModelCheckpoint, trainer: Trainer) -> bool:
    """Whether a checkpoint is due at this batch. The interval of Lightning (2.0 to 2.6.6) is not public."""
    n = callback._every_n_train_steps
    return n >= 1 and trainer.global_step % n == 0


def saved_since(callback: ModelCheckpoint, step: int) -> bool:
    """Whether a checkpoint was written, or deferred, at this step or later."""
    return callback._last_global_step_saved >= step


def check_when_asked(callback: EarlyStopping) -> None:
    """Leave out the checks at the end of epochs and validations: Lightning (2.0 to 2.6.6) would count a score in each
    of them, measured once."""
    callback.on_train_epoch_end = callback.on_validation_end = None  # type: ignore[assignment, method-assign]


def check_as_usual(callback: EarlyStopping) -> None:
    """Undo `check_when_asked`."""
    for hook in ("on_train_epoch_end", "on_validation_end"):
        vars(callback).pop(hook, None)


def check_now(callback: EarlyStopping, trainer: Trainer) -> None:
    """Check the monitored value. The method of Lightning (2.0 to 2.6.6) is not public."""
    callback._run_early_stopping_check(trainer)


def attached(model: LightningModule) -> bool:
    """Whether a model is attached to a Trainer. The public property of Lightning (2.0 to 2.6.6) raises if it is not."""
    return model._trainer is not None


def sync_module_states(module: Any) -> None:
    """Copy the parameters and buffers of rank 0 to all processes. Lightning (2.0 to 2.6.6) has no public name for
    it."""
    _sync_module_states(module)


def hooks_unused(model: LightningModule, base: type[LightningModule]) -> bool:
    """Whether backward passes and optimizer steps may bypass Lightning (2.0 to 2.6.6), whose three hooks around them
    cost 0.1 ms per step. Requires that no callback overrides the hooks, that the model's class overrides neither the
    hooks nor `backward`, `manual_backward` and `optimizer_step`, and that strategy and precision plugin add nothing,
    such as fp16's scaler."""
    trainer, hooks = model.trainer, ("on_before_backward", "on_after_backward", "on_before_optimizer_step")
    precision, strategy = trainer.precision_plugin, type(trainer.strategy)
    empty = {None, *(getattr(Callback, hook) for hook in hooks)}
    used = [getattr(callback, hook) for callback in trainer.callbacks for hook in hooks]  # type: ignore[attr-defined]
    same = [*hooks, "backward", "manual_backward", "optimizer_step"]
    return (
        all(getattr(hook, "__func__", hook) in empty for hook in used)
        and all(getattr(type(model), name) is getattr(base, name) for name in same)
        and (strategy.backward, strategy.optimizer_step) == (Strategy.backward, Strategy.optimizer_step)
        and (type(precision) is Precision or (type(precision) is MixedPrecision and precision.scaler is None))
    )


class BatchEndCallback(Callback):
    """A callback whose only hook per batch is the one at its end. Lightning (2.0 to 2.6.6) calls every callable hook
    of every callback, about eight per batch, even empty ones, but skips a hook that is None."""

    on_train_batch_start: Any = None
    on_before_zero_grad: Any = None
    on_before_backward: Any = None
    on_after_backward: Any = None
    on_before_optimizer_step: Any = None


class NoProfiler(PassThroughProfiler):
    """A profiler without overhead. Lightning (2.0 to 2.6.6) enters a generator-based context manager around each hook
    even without profiling."""

    _nowhere: AbstractContextManager[Any] = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[Any]:  # type: ignore[override]
        return self._nowhere


def quiet() -> None:
    """Silence notices of Lightning (2.0 to 2.6.6) that do not concern users of ganzoo."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in ("callbacks", "profilers"):  # tables of times or layers, shown on request
        logging.getLogger(f"lightning.pytorch.{name}").setLevel(logging.INFO)
    for message in (
        ".*LeafSpec.*",
        ".*have no logger configured.*",
        ".*does not have many workers.*",
        ".*DataLoader will create .* worker processes.*",
        ".*no pre-optimization state.*",
        ".*Checkpoint directory.*exists and is not empty.*",
        ".*number of training batches.*smaller than the logging interval.*",
        ".*callbacks used to create the checkpoint.*",
        ".*dirpath has changed.*",
        ".*requested to overfit.*",  # `Loader` repeats its batches, shuffled or not
        ".*in eval mode at the start of training.*",  # the averaged generator
        ".*`lr_scheduler.step\\(\\)` before.*",  # the generator may step later than the first batch
    ):
        warnings.filterwarnings("ignore", message)


def _nothing() -> None:
    pass
