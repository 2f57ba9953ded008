"""What no paper talks about: exact counting, counted randomness, optimizers, averaging, logs, several processes."""

from __future__ import annotations

import inspect
import os
from abc import abstractmethod
from collections.abc import Callable
from types import FrameType
from typing import Any, Literal, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils._pytree import tree_leaves, tree_map

from ganzoo.core import ema
from ganzoo.core.arguments import check_sizes, constructor_arguments, variant_name
from ganzoo.core.means import Means
from ganzoo.core.random import global_seed, mix
from ganzoo.core.still import Still
from ganzoo.core.strategy import GANStrategy, average
from ganzoo.core.types import Batch, Terms

Player = Literal["discriminator", "generator"]
PLAYERS: tuple[Player, Player] = ("discriminator", "generator")  # in the order of their optimizers
Equation = Callable[[Batch], Terms]
DATA_SAYS = {  # arguments that must agree with the data's attributes, and what it means when the data has none
    "image_size": "needs images of one size",
    "channels": "needs images of one number of channels",
    "num_classes": "needs labels, and the data has none: take other data, or ImageFolder's labels (--data.labels true)",
    "source_channels": "translates pictures, and the data has no sources: take PairedFolder, UnpairedFolder or Pairs",
}


class Turns(LightningModule):
    """Two players who take turns under Lightning's manual optimization; `GANModule` says what they play.

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
    """

    generator: nn.Module  # all that the generator's player moves
    discriminator: nn.Module
    ema: nn.Module | None  # the averaged generator
    augment: nn.Module  # of all that the discriminator sees
    num_classes: int | None
    source_channels: int | None
    images_seen: Tensor  # int64 scalar, over all processes; every schedule is a function of it

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
    ) -> None:
        super().__init__()
        arguments, self.not_saved = constructor_arguments(cast(FrameType, inspect.currentframe()))
        check_sizes({"n_critic": n_critic, "microbatches": microbatches, **arguments})
        for name, bound in {"clip_norm": clip_norm, "ema_half_life": ema_half_life, "ema_ramp_up": ema_ramp_up}.items():
            if bound is not None and bound <= 0:
                raise ValueError(f"{name} must be positive, or None for none; got {bound}")
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
        self.ema = None
        self.augment = nn.Identity()
        self.register_buffer("images_seen", torch.tensor(0))
        self._means = Means()  # of training, since the last log
        self._held_out = Means()
        self._held_out_images = 0  # of the held-out batch in hand
        self._observed: list[tuple[str, Tensor, int]] = []
        self._seed = global_seed()
        self._latents = torch.Generator()
        self._compiled: dict[Any, Equation] = {}

    # What an algorithm is written with

    def minimize(self, loss: Equation, batch: Batch, *, player: Player) -> None:
        """One optimizer step of one player on the sum of the loss's terms, while the other player stays still.

        Args:
            loss: an equation; called once a microbatch.
            batch: this process's share, to which is added what `draw` draws: fresh latents as `batch["z"]`.
            player: whose parameters move.
        """
        loss = self._compile(loss) if self.compile_losses else loss
        letter = player[0].upper()
        optimizer = self.trainer.optimizers[PLAYERS.index(player)]
        optimizer.zero_grad()
        with self._still[player].hold():
            for part in self._parts({**batch, **self._draw(size(batch))}):
                terms = loss(part)
                self._collect(self._means)
                loss_value = total(terms)
                self.manual_backward(loss_value / self.microbatches if self.microbatches > 1 else loss_value)
                self._means.add(f"{letter}/loss", loss_value)
                for name, term in terms.items() if len(terms) > 1 else ():
                    self._means.add(f"{letter}/{name}", term)
            # Not through Lightning's wrapper, which counts every player's step as a global step.
            self.trainer.strategy.optimizer_step(optimizer, closure=lambda: None)

    def due(self, every: int) -> bool:
        """Whether this batch, counted from 1 since the start of training, is an `every`-th one."""
        return (self.trainer.global_step + 1) % every == 0

    def observe(self, name: str, value: Tensor) -> None:
        """Log the mean of a scalar over the training batches until the next log; waits for no device.

        In validation and test it is the mean over the held-out images, logged as `val/<name>` and `test/<name>`.
        """
        if self.training or self._held_out_images:  # a list, which does not break a compiled loss into graphs
            self._observed.append((name, value.detach(), 1 if self.training else self._held_out_images))

    def publish(self, values: dict[str, float]) -> None:
        """Hand values to the loggers of a training, at this step.

        `self.log` would take a third of a millisecond a value, and is a step off in validation.
        """
        for logger in self.trainer.loggers:
            try:
                logger.log_metrics({"images": int(self.images_seen), **values}, step=self.trainer.global_step)
                logger.save()
            except Exception as error:  # whatever a logger's service does, days of training are worth more
                rank_zero_warn(f"{type(logger).__name__} did not take step {self.trainer.global_step}: {error}")

    # Around them, once a batch

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Plays one batch and counts it; a variant overrides `play`."""
        if not isinstance(batch, dict):
            raise MisconfigurationException(f"a batch is a dict such as {{'image': x}}, not a {type(batch).__name__}")
        for key, read in {"label": self.num_classes, "source": self.source_channels}.items():
            if read is not None and key not in batch:
                raise MisconfigurationException(
                    f"{type(self).__name__} reads batch[{key!r}], and these batches have only {', '.join(batch)}"
                )
        self._seed_generators(self.trainer.global_step)
        self.schedule(self._images)
        self.play(batch)
        self._count(size(batch) * self.trainer.world_size)
        for scheduler in self._schedulers:
            scheduler.step()
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and self.trainer.global_step % every == 0:
            self._log(self._means.pop(), prog_bar=True)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Both equations on held-out images, all networks in eval mode."""
        self._evaluate(batch, batch_idx)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Both equations on the test images, all networks in eval mode."""
        self._evaluate(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        self._collect(self._held_out)
        self._log({f"val/{name}": value for name, value in self._held_out.pop().items()})

    def on_test_epoch_end(self) -> None:
        self._collect(self._held_out)
        self._log({f"test/{name}": value for name, value in self._held_out.pop().items()})

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
        self._images = int(self.images_seen)  # on the host: reading the buffer would wait for the device each step
        self._compiled = {}  # a deep copy would play with the original's losses
        self._observed = []
        self._means.sums = {name: value.to(self.device) for name, value in self._means.sums.items()}
        self._schedulers = [config.scheduler for config in self.trainer.lr_scheduler_configs]
        networks = [self.generator, self.discriminator]
        self._still = {
            player: Still(networks, [p for group in optimizer.param_groups for p in group["params"]])
            for player, optimizer in zip(PLAYERS, self.trainer.optimizers, strict=True)
        }

    def on_train_start(self) -> None:
        loop = self.trainer.fit_loop
        epoch = loop.epoch_progress.current
        if loop.restarted_mid_epoch and epoch.completed == epoch.ready:
            # Lightning 2.6 does not count the epoch after a checkpoint at an epoch's last batch, so that those saved
            # in it would claim to be at its end, and a second resume would see other batches.
            loop.reset_restart_stage()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self.clip_norm is None:
            return
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            scaler.unscale_(optimizer)  # a fused optimizer would do it later, inside its step
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], self.clip_norm)

    def on_validation_start(self) -> None:
        self.average_statistics()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.average_statistics()
        means = {"sums": self._means.sums, "weights": self._means.weights}
        checkpoint["ganzoo"] = {"variant": variant_name(type(self)), "means": means}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint.get("ganzoo", {})
        if (name := str(saved.get("variant")).rsplit(".", 1)[-1]) != type(self).__name__:
            raise MisconfigurationException(f"the checkpoint is of {name}, not of {type(self).__name__}")
        self._means.sums, self._means.weights = saved["means"]["sums"], saved["means"]["weights"]

    # Helpers

    def _seed_generators(self, *counters: int) -> None:
        """What is drawn next is a function of (seed, counters), and of the rank where processes must differ."""
        if self._latents.device != self.device:
            self._latents = torch.Generator(self.device)
        self._latents.manual_seed(mix(self._seed, *counters))  # microseconds; `torch.manual_seed` takes a hundred
        noise = mix(self._seed, *counters, 1 + self.trainer.global_rank)
        torch.default_generator.manual_seed(noise)
        if self.device.type != "cpu":
            torch.get_device_module(self.device).manual_seed(noise)

    def _count(self, n: int) -> None:
        """n images and one global step, whatever the number of optimizer steps; the averaged generator follows."""
        self._images += n
        self.images_seen.add_(n)
        if self.ema is not None and self.ema_half_life is not None and self.due(self.n_critic):
            weight = ema.decay(n * self.n_critic, self._images, self.ema_half_life, self.ema_ramp_up)
            ema.update(self.ema, self.generator, weight)
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        progress.increment_ready()
        progress.increment_completed()

    def _draw(self, n: int) -> Batch:
        """This process's n latents: its slice of those of the global batch, which are the same on all processes."""
        rank, world = self.trainer.global_rank, self.trainer.world_size
        drawn = self.draw(n * world, self._latents)
        return drawn if world == 1 else tree_map(lambda t: t[rank * n : (rank + 1) * n], drawn)

    def _collect(self, means: Means) -> None:
        """Move what was observed into the means that it belongs to."""
        for name, value, weight in self._observed:
            means.add(name, value, weight=weight)
        self._observed.clear()

    def _parts(self, batch: dict[str, Any]) -> list[Batch]:
        k = self.microbatches
        if k == 1:
            return [cast(Batch, batch)]
        for tensor in tree_leaves(batch):
            if len(tensor) % k:
                raise MisconfigurationException(
                    f"microbatches: {k} does not divide each process's {len(tensor)} images"
                )
        return [tree_map(lambda t, i=i: t.chunk(k)[i], batch) for i in range(k)]

    def _compile(self, loss: Equation) -> Equation:
        if getattr(loss, "__self__", None) is not self:
            return torch.compile(loss)  # a lambda is new each time; the compiler knows it by its code
        if loss.__name__ not in self._compiled:
            self._compiled[loss.__name__] = torch.compile(loss)
        return self._compiled[loss.__name__]

    def _log(self, values: dict[str, float], prog_bar: bool = False) -> None:
        if self.trainer.sanity_checking or not values:
            return
        fitting = self.trainer.state.fn == TrainerFn.FITTING
        if fitting:
            self.publish(values)
        shown = {name: value for name, value in values.items() if not fitting or name.endswith("/loss")}
        self.log_dict(shown, prog_bar=prog_bar, logger=not fitting)  # for progress bars and callbacks that monitor

    def _evaluate(self, batch: Batch, batch_idx: int) -> None:
        with torch.inference_mode(False), torch.enable_grad():  # gradient penalties differentiate
            self._seed_generators(batch_idx)
            self._held_out_images = size(batch)
            batch = tree_map(torch.clone, batch)
            batch |= self.draw(size(batch), self._latents)
            for letter, loss in (("D", self.discriminator_loss), ("G", self.generator_loss)):
                self._held_out.add(f"{letter}/loss", total(loss(batch)), weight=self._held_out_images)

    def average_statistics(self) -> None:
        """BatchNorm's running statistics are each process's own while training; replicas must save the same."""
        if self.trainer.world_size > 1:
            norms = [m for m in self.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
            average([buffer for m in norms for buffer in (m.running_mean, m.running_var) if buffer is not None])

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":  # Lightning sets it 44 times a batch, and nn.Module looks at each for long
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    # What `GANModule` defines

    @abstractmethod
    def play(self, batch: Batch) -> None: ...

    @abstractmethod
    def schedule(self, images_seen: int) -> None: ...

    @abstractmethod
    def draw(self, n: int, generator: torch.Generator) -> Batch: ...

    @abstractmethod
    def discriminator_loss(self, batch: Batch) -> Terms: ...

    @abstractmethod
    def generator_loss(self, batch: Batch) -> Terms: ...


def size(batch: Any) -> int:
    """Images in a batch: the first size of its first tensor."""
    return len(batch["image"]) if "image" in batch else len(tree_leaves(batch)[0])


def total(terms: Terms) -> Tensor:
    """The sum that a player minimises."""
    first, *rest = terms.values()
    return sum(rest, first)
