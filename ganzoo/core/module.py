"""The base class of all variants: how one training batch is played, and what a variant may override."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from ganzoo.checkpoint.sealed import load_from_checkpoint
from ganzoo.core import consensus, ema, held_out, lightning_fixes, loss_log, pickling, sampling, training_state
from ganzoo.core.arguments import check_agreement, check_game, check_schedulers, constructor_arguments
from ganzoo.core.batch import Gate, check_pictures, microbatches, share, size
from ganzoo.core.compiler import Compiler
from ganzoo.core.finite import NonFiniteError, Watch
from ganzoo.core.frozen import evaluating
from ganzoo.core.limits import Count, NonNegative, Positive, check
from ganzoo.core.loss_log import Loss, LossLog
from ganzoo.core.player import PLAYERS, Player, PlayerName, clip_gradients
from ganzoo.core.random import Randomness
from ganzoo.core.strategy import check_trainer
from ganzoo.core.types import Batch, Equation, Latent, Terms, floats_as, full_precision
from ganzoo.optim.adam import initial


class GANModule(LightningModule):
    """A GAN: two networks, two equations, and the order of the updates.

    A variant sets `self.generator`, `self.discriminator` and `self.z_dim` in its `__init__` and writes the two
    equations. While one is minimised only that player's parameters require gradients, so no `detach` is needed. All
    random numbers of an equation are in the batch: it is a function of the weights and the batch. What else it keeps (a
    running mean, say) it changes only `if self.training`: validation asks the equations, too.

    Args:
        optimizer: makes the generator's optimizer from its parameters, and the discriminator's too.
        discriminator_optimizer: the discriminator's own, where it differs.
        lr_scheduler: makes a learning-rate scheduler for each optimizer; stepped once a batch.
        n_critic: batches, each with one discriminator update, per generator update.
        n_generator: generator updates per discriminator update, each with new latents.
        microbatches: parts a batch is split into, one after the other, to save memory; their gradients are averaged.
        clip_norm: largest norm of the gradient of a player's update; None for no clipping.
        ema_half_life: half-life, in images, of the averaged generator that samples then come from; None for none.
        ema_ramp_up: the half-life is at most this share of the images seen; None for a constant half-life.
        compile_losses: compile both equations with `torch.compile`.
        consensus: both players move at once, and along the consensus direction times this weight (gamma in Mescheder et
            al. 2017, arXiv:1705.10461; 0 is simultaneous play); None: they move in turns.
        share_fakes: run the generator once per batch: the discriminator is trained on the detached fakes, and the
            generator backpropagates through the same ones. False: new latents for each update.

    Raises:
        ValueError: an argument is out of its range, or does not go with another one.
    """

    generator: nn.Module  # all that the generator's player moves
    discriminator: nn.Module
    ema: nn.Module | None  # the averaged generator
    augment: nn.Module  # of all that the discriminator sees
    z_dim: int
    prior: str = "normal"  # of the latents: "normal", or "uniform" in (-1, 1)
    num_classes: int | None = None  # of the label that the generator reads; None: it reads none
    source_channels: int | None = None  # of the picture that it translates; None: it translates none
    images_seen: int  # over all processes; every schedule is a function of it
    unaveraged: int  # of them, since the averaged generator last moved
    players: dict[PlayerName, Player]  # while training
    compiler: Compiler  # while training
    direct: bool  # whether backward passes and optimizer steps do without Lightning, as none of its hooks is used
    asked: list[list[dict[str, Any]]]  # the optimizers' settings, before a checkpoint's are there

    def __init__(
        self,
        optimizer: OptimizerCallable,
        discriminator_optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        n_critic: Count = 1,
        n_generator: Count = 1,
        microbatches: Count = 1,
        clip_norm: Positive | None = None,
        ema_half_life: Positive | None = None,
        ema_ramp_up: Positive | None = None,
        compile_losses: bool = False,
        consensus: NonNegative | None = None,
        share_fakes: bool = False,
    ) -> None:
        game = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        arguments, self.not_saved = constructor_arguments(inspect.currentframe())
        check(type(self), {**game, **arguments})
        check_game(type(self), GANModule, game)
        self.save_hyperparameters(arguments)
        self.automatic_optimization = False
        self.make_optimizer = {"discriminator": discriminator_optimizer or optimizer, "generator": optimizer}
        self.lr_scheduler = lr_scheduler
        self.n_critic, self.n_generator, self.microbatches = n_critic, n_generator, microbatches
        self.clip_norm, self.ema_half_life, self.ema_ramp_up = clip_norm, ema_half_life, ema_ramp_up
        self.compile_losses, self.consensus, self.share_fakes = compile_losses, consensus, share_fakes
        self.ema, self.augment = None, nn.Identity()
        self.images_seen = self.unaveraged = 0
        self.players, self.asked = {}, []
        self.randomness, self.loss_log, self.watch = Randomness(), LossLog(), Watch()
        self.rollback: Callable[[NonFiniteError], None] | None = None  # of a callback that knows a good state
        self.register_state_dict_post_hook(training_state.add_images_seen)
        self.register_load_state_dict_pre_hook(training_state.take_images_seen)

    # One batch

    @lightning_fixes.inspected_once
    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Plays one batch and counts it; a variant overrides `play`."""
        trainer = self.trainer
        self.gate(batch, self)
        self.randomness.restart(self.device, trainer.global_step, rank=trainer.global_rank)
        self.schedule(self.images_seen)
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        logs = every and self.due(every)
        try:
            self.play(batch)
            if logs:
                self.watch.check(trainer.global_step + 1, self.scaler)
        except NonFiniteError as error:
            training_state.recover(self, error)
        except ValueError as error:
            check_pictures(error)
            raise
        n = size(batch) * trainer.world_size
        self.images_seen, self.unaveraged = self.images_seen + n, self.unaveraged + n
        self.average_generator()
        lightning_fixes.count_one_step(trainer)
        for config in trainer.lr_scheduler_configs:
            config.scheduler.step()  # type: ignore[call-arg]
        if logs:
            self.loss_log.log(self, self.loss_log.training.pop())

    def play(self, batch: Batch) -> None:
        """One batch of the game: a discriminator step, then, after every `n_critic`-th, `n_generator` generator steps.

        With `consensus` both at once instead.
        """
        if self.consensus is not None:
            return self.minimize_at_once(batch, consensus=self.consensus)
        for_d, for_g = self.shared(batch) if self.share_fakes else (batch, batch)
        self.discriminator_step(for_d)
        if self.generator_due():
            for _ in range(self.n_generator):
                self.generator_step(for_g)

    def discriminator_step(self, batch: Batch) -> None:
        self.minimize(self.discriminator_loss, batch, player="discriminator")

    def generator_step(self, batch: Batch) -> None:
        self.minimize(self.generator_loss, batch, player="generator")

    def minimize(self, loss: Equation, batch: Batch, *, player: PlayerName) -> None:
        """One optimizer step of one player on the sum of the loss's terms; the other player stays as it is.

        Args:
            loss: an equation; called once a microbatch.
            batch: this process's share, to which is added what `draw` draws.
            player: whose parameters move.

        Raises:
            NonFiniteError: a term or a gradient is not finite; on an accelerator it waits for the next log.
        """
        loss, mover, k = self.compiler(loss), self.players[player], self.microbatches
        mover.optimizer.zero_grad()
        with mover.active():
            terms = []
            for part in microbatches(self.with_draws(batch), k):
                found = self.compute_loss(loss, part, player)
                total = found.total / k if k > 1 else found.total
                total.backward() if self.direct else self.manual_backward(total)
                terms.append(found.values)
            self.settle(mover, found.names, terms[0] if k == 1 else torch.stack(terms).sum(0))
            mover.step(self.trainer.strategy, self.direct)

    def compute_loss(self, loss: Equation, batch: Batch, player: PlayerName) -> Loss:
        """An equation's terms and their sum, noted for the log."""
        found = Loss.of(loss(batch), player)
        self.loss_log.add(player, found)
        return found

    def settle(self, mover: Player, names: list[str], terms: Tensor) -> None:
        """Average gradients and terms over the processes, and check that they are finite."""
        trainer, scaled = self.trainer, self.scaler is not None
        terms = mover.sync_gradients(terms, trainer.world_size)
        mover.check_finite(self.watch, trainer.global_step + 1, names, terms, scaled)

    minimize_at_once = consensus.minimize_at_once  # both players from the same weights

    def due(self, every: int) -> bool:
        """Whether this batch, counted from 1 since the start of training, is an `every`-th one."""
        return every == 1 or (self.trainer.global_step + 1) % every == 0

    def generator_due(self) -> bool:
        """Whether the generator moves in this batch, too."""
        return self.due(self.n_critic)

    def average_generator(self) -> None:
        """The averaged generator follows the generator when that has moved, by the images seen since the last time."""
        mover = self.players["generator"]
        if self.ema is None or self.ema_half_life is None or not mover.moved or mover.ahead:
            return
        decay = ema.decay(self.unaveraged, self.images_seen, self.ema_half_life, self.ema_ramp_up)
        ema.update(self.ema, self.generator, decay)
        self.unaveraged, mover.moved = 0, False

    # The equations

    @abstractmethod
    def discriminator_loss(self, batch: Batch) -> Terms:
        """The weighted terms whose sum the discriminator minimises."""

    @abstractmethod
    def generator_loss(self, batch: Batch) -> Terms:
        """The weighted terms whose sum the generator minimises."""

    def discriminate(self, x: Tensor, y: Tensor | None = None) -> Any:
        """D as the equations see it: x [N, C, H, W] -> logits [N], or whatever D returns; at least in float32."""
        return full_precision(self.discriminator(self.augment(x), y))

    def fakes(self, batch: Batch) -> Any:
        """The fakes [N, C, H, W] of an update, not clamped: the batch's own, or what `make_fakes` makes of it."""
        return batch["fakes"] if "fakes" in batch else self.make_fakes(batch)

    def make_fakes(self, batch: Batch) -> Any:
        """What the generator makes of a training batch and its latents."""
        return self.synthesize(self.generator, batch)

    def shared(self, batch: Batch) -> tuple[Batch, Batch]:
        """The batch with the fakes of both players: without their graph for D, with it for G."""
        batch = self.with_draws(batch)
        with self.players["generator"].active():
            fakes = self.make_fakes(batch)
        return {**batch, "fakes": tree_map(Tensor.detach, fakes)}, {**batch, "fakes": fakes}

    def schedule(self, images_seen: int) -> None:
        """Set learning rates, momenta or weights for the coming batch: functions of the images seen before it."""

    def observe(self, name: str, value: Tensor) -> None:
        """Log the mean of a scalar over the training batches until the next log; waits for no device.

        In validation and test it is the mean over the held-out images, logged as `val/<name>` and `test/<name>`.
        """
        self.loss_log.observe(name, value, self.training)

    # What is drawn

    def latent(self, n: int, generator: torch.Generator | None = None) -> Latent:
        """n latents, a pytree of tensors [n, ...], on the random generator's device; on this module's if it is None.

        `z_dim` numbers of `prior`, unless a variant has other ones.
        """
        return {"normal": self.normal, "uniform": self.uniform}[self.prior](generator, n, self.z_dim)

    def draw(self, n: int, generator: torch.Generator) -> Batch:
        """What one update draws, for all processes together: latents, and whatever else its equation reads."""
        return {"z": self.latent(n, generator)}

    def with_draws(self, batch: Batch) -> Batch:
        """The batch, with this process's share of what one update draws; with shared fakes it has that already."""
        if self.share_fakes and "fakes" in batch:
            return batch
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        drawn = self.draw(size(batch) * world_size, self.randomness.shared)
        return {**batch, **share(drawn, rank, world_size)}

    def uniform(self, generator: torch.Generator | None, *shape: int) -> Tensor:
        """Uniform numbers in (-1, 1), for `latent`."""
        return torch.empty(shape, device=self.device_of(generator)).uniform_(-1, 1, generator=generator)

    def normal(self, generator: torch.Generator | None, *shape: int) -> Tensor:
        """Standard normal numbers, for `latent`."""
        return torch.randn(shape, device=self.device_of(generator), generator=generator)

    def device_of(self, generator: torch.Generator | None) -> torch.device:
        """Where `latent` and `draw` put what they draw."""
        return self.device if generator is None else generator.device

    # Sampling

    def synthesize(self, network: Any, batch: Batch) -> Any:
        """What a network, the generator or its average, makes of latents `z` and what else it reads."""
        return network(batch["z"]) if self.num_classes is None else network(batch["z"], batch["label"])

    @torch.no_grad()
    def generate(self, z: Latent, given: Batch | None = None) -> Tensor:
        """Images [N, C, H, W], float32 in [-1, 1], in eval mode, from the averaged generator where there is one.

        This is the one place where images are clamped.

        Args:
            z: latents, as `latent` draws them.
            given: what else the generator reads: `label`, or a translator's `source`.
        """
        batch = floats_as(self.dtype, {"z": z, **(given or {})})
        with self.sampler() as network:
            return self.synthesize(network, batch).float().clamp(-1, 1)

    @contextmanager
    def sampler(self) -> Iterator[Any]:
        """The network that samples come from, in eval mode: the averaged generator where there is one."""
        network = self.generator if self.ema is None else self.ema
        with evaluating(network):
            yield network

    sample, seeded = sampling.sample, sampling.seeded  # by seeds

    # What Lightning asks

    def setup(self, stage: str) -> None:
        self.asked = []
        check_trainer(self.trainer, stage)
        lightning_fixes.write_sealed_checkpoints(self.trainer)
        check_agreement(type(self).__name__, self.hparams, getattr(self.trainer, "datamodule", None))

    def configure_model(self) -> None:
        if self.ema is None and self.ema_half_life is not None:
            self.ema = ema.frozen_copy(self.generator)

    def configure_optimizers(self) -> Any:
        optimizers = [self.make_optimizer[player](getattr(self, player).parameters()) for player in PLAYERS]
        schedulers = [] if self.lr_scheduler is None else [self.lr_scheduler(optimizer) for optimizer in optimizers]
        check_schedulers(schedulers)
        return optimizers, [{"scheduler": scheduler} for scheduler in schedulers]

    def on_fit_start(self) -> None:
        self.asked = initial(self.trainer.optimizers)  # before a checkpoint's are there

    def on_train_start(self) -> None:
        trainer, networks = self.trainer, {player: getattr(self, player) for player in PLAYERS}
        lightning_fixes.skip_driver_lookup()
        lightning_fixes.count_finished_epoch(trainer)
        lightning_fixes.train_mode(self, *networks.values(), self.augment)
        training_state.take_settings(self)
        names = {p: name for name, p in self.named_parameters()}
        movers = zip(PLAYERS, trainer.optimizers, strict=True)
        self.players = {player: Player(player, networks, optimizer, names) for player, optimizer in movers}
        self.loss_log.start(self.device)
        self.gate, self.direct = Gate(), self.clip_norm is None and lightning_fixes.nobody_listens(self, GANModule)
        self.randomness, self.watch, self.compiler = Randomness(), Watch(), Compiler(self.compile_losses)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self.clip_norm is not None:
            clip_gradients(optimizer, self.clip_norm, self.scaler)

    validation_step = test_step = held_out.evaluate
    on_train_epoch_end = loss_log.refresh

    def on_validation_epoch_end(self) -> None:
        held_out.report(self, "val")

    def on_test_epoch_end(self) -> None:
        held_out.report(self, "test")

    def publish(self, values: dict[str, float]) -> None:
        """Hand values to the loggers of a training, at this step."""
        row = {"images": self.images_seen, **values}
        self.loss_log.each_logger(self.trainer, lambda logger: logger.log_metrics(row, step=self.trainer.global_step))

    @property
    def scaler(self) -> Any:
        """fp16's, or None."""
        return getattr(self.trainer.precision_plugin, "scaler", None)

    on_save_checkpoint, on_load_checkpoint = training_state.save, training_state.restore
    load_from_checkpoint = classmethod(load_from_checkpoint)  # type: ignore[assignment]
    __setattr__ = lightning_fixes.set_attribute
    __getstate__, __setstate__ = pickling.get_state, pickling.set_state
