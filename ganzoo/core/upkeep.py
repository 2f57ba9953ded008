"""Around the turns of a training: arguments, optimizers, what checkpoints hold, loggers, a way back."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, Literal, cast

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.io.wrapper import _WrappingCheckpointIO
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ganzoo.core import ema
from ganzoo.core.arguments import constructor_arguments, variant_name
from ganzoo.core.checkpoint import CheckpointIO
from ganzoo.core.finite import NonFiniteError, Watch, check_weights
from ganzoo.core.means import Means
from ganzoo.core.random import global_seed
from ganzoo.core.ranges import check
from ganzoo.core.still import Still
from ganzoo.core.strategy import GANStrategy
from ganzoo.core.types import Batch, Terms

Player = Literal["discriminator", "generator"]
PLAYERS: tuple[Player, Player] = ("discriminator", "generator")  # in the order of their optimizers
DATA_SAYS = {  # arguments that must agree with the data's attributes, and what it means when the data has none
    "image_size": "needs images of one size",
    "channels": "needs images of one number of channels",
    "num_classes": "needs labels, and the data has none: take other data, or ImageFolder's labels (--data.labels true)",
    "source_channels": "translates pictures, and the data has no sources: take PairedFolder, UnpairedFolder or Pairs",
}


class Upkeep(LightningModule):
    """What every variant takes beside its paper's own arguments, and what Lightning asks of it.

    Args:
        optimizer: makes the generator's optimizer from its parameters, and the discriminator's too.
        discriminator_optimizer: the discriminator's own, where it differs.
        lr_scheduler: makes a learning-rate scheduler for each optimizer; stepped once a batch.
        n_critic: batches, each with one discriminator update, per generator update.
        microbatches: parts a batch is split into, one after the other, to save memory; their gradients are averaged.
        clip_norm: largest norm of the gradient of a player's update; None for no clipping.
        ema_half_life: half-life, in images, of the averaged generator that samples then come from; None for none.
        ema_ramp_up: the half-life is at most this share of the images seen; None for a constant half-life.
        compile_losses: compile both equations with `torch.compile`.
        consensus: both players move at once, and along the consensus direction times this weight (gamma in Mescheder et
            al. 2017, arXiv:1705.10461; 0 is simultaneous play); None: they move in turns.

    Raises:
        ValueError: an argument is out of its range, or does not go with another one.
    """

    generator: nn.Module  # all that the generator's player moves
    discriminator: nn.Module
    ema: nn.Module | None  # the averaged generator
    augment: nn.Module  # of all that the discriminator sees
    num_classes: int | None
    source_channels: int | None
    images_seen: Tensor  # int64 scalar, over all processes; every schedule is a function of it
    images_played: int  # the same on the host while training, where reading it waits for no device

    def __init__(
        self,
        optimizer: OptimizerCallable,
        discriminator_optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        n_critic: int = 1,
        microbatches: int = 1,
        clip_norm: float | None = None,
        ema_half_life: float | None = None,
        ema_ramp_up: float | None = None,
        compile_losses: bool = False,
        consensus: float | None = None,
    ) -> None:
        super().__init__()
        arguments, self.not_saved = constructor_arguments(cast(FrameType, inspect.currentframe()))
        check(type(self), {"n_critic": n_critic, "microbatches": microbatches, **arguments})
        for name, bound in {"clip_norm": clip_norm, "ema_half_life": ema_half_life, "ema_ramp_up": ema_ramp_up}.items():
            if bound is not None and bound <= 0:
                raise ValueError(f"{name} must be positive, or None for none; got {bound}")
        if consensus is not None:
            _check_at_once(type(self), n_critic=n_critic, microbatches=microbatches, compile_losses=compile_losses)
        self.save_hyperparameters(arguments)
        self.automatic_optimization = False
        self.make_optimizer = {"discriminator": discriminator_optimizer or optimizer, "generator": optimizer}
        self.lr_scheduler = lr_scheduler
        self.n_critic = n_critic
        self.microbatches = microbatches
        self.clip_norm = clip_norm
        self.ema_half_life = ema_half_life
        self.ema_ramp_up = ema_ramp_up
        self.compile_losses = compile_losses
        self.consensus = consensus
        self.ema = None
        self.augment = nn.Identity()
        self.register_buffer("images_seen", torch.tensor(0))
        self._means = Means()  # of training, since the last log
        self._held_out = Means()
        self._held_out_images = 0  # of the held-out batch in hand
        self._observed: list[tuple[str, Tensor, int]] = []
        self._failed: set[str] = set()  # loggers
        self._seed = global_seed()
        self._latents = torch.Generator()
        self._compiled: dict[str, Callable[[Batch], Terms]] = {}  # the equations
        self._watch = Watch()
        self.rescue: Callable[[NonFiniteError], None] | None = None  # of a callback, which may know a way back

    # Loggers

    def publish(self, values: dict[str, float]) -> None:
        """Hand values to the loggers of a training, at this step.

        `self.log` would take a third of a millisecond a value, and is a step off in validation.
        """
        row = {"images": int(self.images_seen), **values}
        self.each_logger(lambda logger: logger.log_metrics(row, step=self.trainer.global_step))

    def each_logger(self, hand_over: Callable[[Logger], None]) -> None:
        """Hand something to the loggers of a training; one that fails does not stop it, and is named once."""
        for logger in self.trainer.loggers:
            try:
                hand_over(logger)
                logger.save()  # a killed run has lost nothing that is older than its checkpoint
            except Exception as error:  # whatever a logger's service does, days of training are worth more
                if (name := type(logger).__name__) not in self._failed:
                    self._failed.add(name)
                    rank_zero_warn(f"{name} did not take all of step {self.trainer.global_step}: {error}")

    def _log(self, values: dict[str, float], prog_bar: bool = False) -> None:
        if self.trainer.sanity_checking or not values:
            return
        fitting = self.trainer.state.fn == TrainerFn.FITTING
        if fitting:
            self.publish(values)
        shown = {name: value for name, value in values.items() if not fitting or name.endswith("/loss")}
        self.log_dict(shown, prog_bar=prog_bar, logger=not fitting)  # for progress bars and callbacks that monitor

    # Lightning's hooks

    def configure_model(self) -> None:
        if self.ema is None and self.ema_half_life is not None:
            self.ema = ema.frozen_copy(self.generator)

    def configure_optimizers(self) -> Any:
        optimizers = [self.make_optimizer[player](getattr(self, player).parameters()) for player in PLAYERS]
        schedulers = [] if self.lr_scheduler is None else [self.lr_scheduler(optimizer) for optimizer in optimizers]
        if any(isinstance(scheduler, ReduceLROnPlateau) for scheduler in schedulers):
            raise MisconfigurationException(
                "lr_scheduler: ReduceLROnPlateau needs a loss to watch, which a GAN has not"
            )
        return optimizers, [{"scheduler": scheduler} for scheduler in schedulers]

    def setup(self, stage: str) -> None:
        strategy = self.trainer.strategy
        if stage == "fit" and not isinstance(strategy, SingleDeviceStrategy | GANStrategy):
            raise MisconfigurationException(
                f'{type(strategy).__name__} cannot train two networks in turns: use Trainer(strategy="gan")'
            )
        plugin = strategy.checkpoint_io
        if type(plugin) is TorchCheckpointIO:
            strategy.checkpoint_io = CheckpointIO()
        elif isinstance(plugin, _WrappingCheckpointIO) and type(plugin.checkpoint_io) is TorchCheckpointIO:
            plugin._checkpoint_io = CheckpointIO()  # its setter does nothing any more
        data = getattr(self.trainer, "datamodule", None)
        for key in DATA_SAYS:
            if (mine := self.hparams.get(key)) not in (None, theirs := getattr(data, key, mine)):
                raise MisconfigurationException(
                    f"{key} is {mine}, that of the data {theirs}: make them equal"
                    if theirs is not None
                    else f"{type(self).__name__} {DATA_SAYS[key]}"
                )
        if self.trainer.precision.endswith("-true") and self.trainer.precision != "32-true":
            raise MisconfigurationException(f"precision {self.trainer.precision}: use 32-true, bf16-mixed or 16-mixed")

    def on_fit_start(self) -> None:
        # Lightning sets it to "1"; then each `Optimizer.step` asks the driver anew whether there is a GPU: 0.2 ms.
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
        if not self.training:  # `load` gives a model in eval mode, to sample from; Lightning would leave it there
            for module in (self.generator, self.discriminator, self.augment):
                module.train()
            self.training = True
        self._seed = global_seed()
        self.images_played = int(self.images_seen)
        self._compiled = {}  # a deep copy would play with the original's losses
        self._observed = []
        self._means.sums = {name: value.to(self.device) for name, value in self._means.sums.items()}
        self._schedulers = [config.scheduler for config in self.trainer.lr_scheduler_configs]
        self._watch = Watch()
        self._asked = settings(self.trainer.optimizers)
        networks = [self.generator, self.discriminator]
        names = {p: name for name, p in self.named_parameters()}
        self._moving, self._statistics, self._still = {}, {}, {}
        for player, optimizer in zip(PLAYERS, self.trainer.optimizers, strict=True):
            moving = [p for group in optimizer.param_groups for p in group["params"]]
            self._moving[player] = {f"gradient of {names[p]}": p for p in moving}
            self._statistics[player] = _statistics(getattr(self, player))
            self._still[player] = Still(networks, moving)

    def on_train_start(self) -> None:
        if not self._schedulers:  # a learning rate that was changed since the checkpoint counts
            set_all(self.trainer.optimizers, self._asked)
        loop = self.trainer.fit_loop
        epoch = loop.epoch_progress.current
        if loop.restarted_mid_epoch and epoch.completed == epoch.ready:
            # Lightning 2.6 does not count the epoch after a checkpoint at an epoch's last batch, so that those saved
            # in it would claim to be at its end, and a second resume would see other batches.
            loop.reset_restart_stage()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self.clip_norm is None:
            return
        scaler = self._scaler
        if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            scaler.unscale_(optimizer)  # a fused optimizer would do it later, inside its step
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], self.clip_norm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """
        Raises:
            NonFiniteError: there is something not finite, so that the file that is there is worth more.
        """
        self._watch.check(self.trainer.global_step, self._scaler)
        check_weights(self.trainer.global_step, self)
        own = {"variant": variant_name(type(self)), "seed": self._seed, "means": self._means.shares()}
        checkpoint["ganzoo"] = own

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint.get("ganzoo", {})
        if (name := str(saved.get("variant")).rsplit(".", 1)[-1]) != type(self).__name__:
            raise MisconfigurationException(f"the checkpoint is of {name}, not of {type(self).__name__}")
        self._means.take(saved["means"])
        if self._trainer is not None and saved["seed"] != global_seed():
            rank_zero_warn(
                f"the checkpoint's run had the seed {saved['seed']}, this one has {global_seed()}, and so other random "
                f"numbers; for the same, call seed_everything({saved['seed']}) first"
            )

    # Helpers

    def go_back(self, error: NonFiniteError) -> None:
        """To the last good state, if a callback knows one; the counters go on, and with them the randomness.

        Raises:
            NonFiniteError: there is none.
        """
        if self.rescue is None:
            raise error
        self.rescue(error)
        self.images_seen.fill_(self.images_played)
        self._watch, self._means = Watch(), Means()
        self._observed.clear()

    @property
    def _scaler(self) -> Any:
        """fp16's, or None."""
        return getattr(self.trainer.precision_plugin, "scaler", None)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":  # Lightning sets it 44 times a batch, and nn.Module looks at each for long
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)


def _check_at_once(variant: type, **given: int) -> None:
    for name in ("play", "discriminator_step", "generator_step"):
        if getattr(variant, name).__module__ != "ganzoo.core.module":
            raise ValueError(f"consensus, which moves players at once, has no place beside {variant.__name__}.{name}")
    for name, allowed in {"n_critic": 1, "microbatches": 1, "compile_losses": False}.items():
        if given[name] != allowed:
            raise ValueError(f"consensus, which moves players at once, needs {name} {str(allowed).lower()}")


def settings(optimizers: Sequence[Optimizer]) -> list[list[dict[str, Any]]]:
    """Learning rates and all else that the optimizers' constructors were given, for each of their groups."""
    return [[{key: group[key] for key in o.defaults} for group in o.param_groups] for o in optimizers]


def set_all(optimizers: Sequence[Optimizer], given: list[list[dict[str, Any]]]) -> None:
    """Set what `settings` gave."""
    for optimizer, groups in zip(optimizers, given, strict=True):
        for group, own in zip(optimizer.param_groups, groups, strict=True):
            group.update(own)


def _statistics(network: nn.Module) -> list[Tensor]:
    """BatchNorm's running statistics, which each process makes of its own images."""
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm)]
    return [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var) if buffer is not None]
