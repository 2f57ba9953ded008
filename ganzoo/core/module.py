"""The base class of all variants: how a training batch is processed, and what a variant may override."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from ganzoo.augment import Augment, chosen
from ganzoo.checkpoint.sealed import load_from_checkpoint
from ganzoo.core import consensus, ema, held_out, lightning_fixes, penalised, pickling, sampling, training_state
from ganzoo.core.arguments import check_agreement, check_game, check_schedulers, constructor_arguments
from ganzoo.core.batch import Gate, explain_batch_norm, labels, microbatches, size, with_draws
from ganzoo.core.compiler import Compiler
from ganzoo.core.finite import NonFiniteError, Watch
from ganzoo.core.frozen import evaluating, freeze
from ganzoo.core.limits import Count, CountFrom0, NonNegative, Positive, PositiveShare, check
from ganzoo.core.loss_log import Loss, LossLog, refresh
from ganzoo.core.options import made
from ganzoo.core.player import PLAYERS, Player, PlayerName, check_trained, clip_gradients
from ganzoo.core.random import Randomness
from ganzoo.core.strategy import check_trainer
from ganzoo.core.types import Batch, Equation, Latent, Terms, floats_as, full_precision
from ganzoo.networks.features import load_features
from ganzoo.optim.adam import for_more_steps, initial
from ganzoo.penalties import Penalty


class GANModule(LightningModule, ABC):
    """A GAN: two networks, two equations, and the order of the updates.

    A variant sets `self.generator`, `self.discriminator` and `self.z_dim` in its `__init__` and implements the two
    equations. During one player's update only its parameters require gradients, so no `detach` is needed. All random
    inputs of an equation are in the batch, so it is a function of the weights and the batch. Any other state (a running
    mean, say) may only change `if self.training`, since validation calls the equations, too.

    Args:
        optimizer: makes the generator's optimizer from its parameters, and by default the discriminator's.
        discriminator_optimizer: the discriminator's; None: made by `optimizer`.
        lr_scheduler: makes a learning-rate scheduler for each optimizer, stepped once per batch; None: the rates are
            constant, or those of the variant's `schedule`.
        n_critic: discriminator updates per generator update, each on a new batch.
        n_generator: generator updates per discriminator update, each with new latents.
        microbatches: parts into which a batch is split to save memory; their gradients are averaged.
        clip_norm: maximum gradient norm of an update; None for no clipping.
        ema_half_life: half-life, in images, of the averaged generator, which generates the samples; None: no averaging.
        ema_ramp_up: the half-life is at most this share of the images seen, so that the average forgets the initial
            weights early; None: it is constant.
        compile_losses: compile both equations with `torch.compile`.
        consensus: simultaneous updates with this weight of consensus optimization (gamma in Mescheder et al. 2017,
            arXiv:1705.10461; 0 for plain simultaneous updates); None: alternating updates.
        share_fakes: generate fakes once per batch: the discriminator is trained on them detached, and the generator
            backpropagates through them. False: new latents for each update.
        augment: random transforms of what the discriminator sees, such as `ADA()`; None: none. `python -m ganzoo list`
            names all.
        penalties: one or several terms added to the players' losses, such as `R1()`; None: none. `python -m ganzoo
            list` names all.
        top_k: share of its fakes on which the generator is trained, those that D scores highest in each microbatch of a
            process (Sinha et al. 2020, arXiv:2002.06224); 1 for all.
        top_k_half_life: images in which this share halves, from 1 down to `top_k`; None: `top_k` from the start. The
            paper's factor of 0.99 per epoch halves it in 69 epochs.
        freeze_d: number of D's layers, counted from the image, that are not trained, for fine-tuning (FreezeD, Mo et
            al. 2020, arXiv:2002.10964).

    Attributes:
        generator: G, with all of its trained parameters.
        discriminator: D, likewise.
        ema: the averaged generator; None: no averaging, or training has not begun.
        z_dim: size of the latent.
        prior: distribution of the latents: "normal", or "uniform" in (-1, 1).
        num_classes: classes of the generator's label; None if it takes no label.
        source_channels: channels of the generator's input image; None if it takes none.
        boundary: output of D that separates fakes from reals, 0 for logits; None without (no adaptive ADA).
        real_scores_higher: whether D's outputs are larger for reals than for fakes; False for energies.
        several_sizes: whether `make_fakes` returns a tuple: images, and the same images in other sizes.
        batch_parts: parts into which `play` splits a batch.
        more_steps: optimizer steps per update of a player on other losses than its main one.
        images_seen: training images so far, over all processes; schedules are functions of it.

    Raises:
        ValueError: an argument is out of range, or contradicts another one.
    """

    generator: nn.Module
    discriminator: nn.Module
    ema: nn.Module | None
    augment: Augment  # applied to the discriminator's inputs
    z_dim: int
    prior: str = "normal"
    num_classes: int | None = None
    class_names: Sequence[str] = ()  # in the order of the labels, from the data; empty if unknown
    absent: Sequence[int] = ()  # labels without training images, as far as the data knows
    readings: training_state.Readings = {}  # how files became "image" and "source"; empty if unknown
    origin: Mapping[str, str] = {}  # of converted weights: `file`, `sha256`, `licence`
    source_channels: int | None = None
    several_sizes: bool = False
    boundary: float | None = 0.0
    real_scores_higher: bool = True
    batch_parts: int = 1
    more_steps: Mapping[PlayerName, float] = {}
    images_seen: int
    unaveraged: int  # images seen since the last update of the averaged generator
    players: dict[PlayerName, Player]  # while training
    compiler: Compiler  # while training
    updates: dict[PlayerName, list[penalised.Update]]  # while training with penalties
    direct: bool  # backward passes and optimizer steps bypass Lightning, as none of its hooks is used
    asked: list[list[dict[str, Any]]]  # the optimizers' settings before a checkpoint was loaded

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
        augment: Augment | None = None,
        penalties: Penalty | list[Penalty] | None = None,
        top_k: PositiveShare = 1.0,
        top_k_half_life: Positive | None = None,
        freeze_d: CountFrom0 = 0,
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
        self.penalties = penalised.by_name(made(Penalty, "penalties", penalties))
        self.top_k, self.top_k_half_life, self.freeze_d = top_k, top_k_half_life, freeze_d
        self.ema, self.augment = None, chosen(augment)
        self.images_seen = self.unaveraged = 0
        self.players, self.asked, self.updates = {}, [], {}
        self.randomness, self.loss_log, self.watch = Randomness(), LossLog(), Watch()
        self.rollback: Callable[[NonFiniteError], None] | None = None  # set by `Checkpoints`
        self.register_state_dict_post_hook(training_state.add_images_seen)
        self.register_load_state_dict_pre_hook(training_state.take_images_seen)
        self.register_load_state_dict_pre_hook(penalised.take_state)

    # One batch

    @lightning_fixes.inspected_once
    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Processes one batch and counts it; variants override `play`."""
        trainer = self.trainer
        self.gate(batch, self)
        self.randomness.restart(self.device, trainer.global_step, rank=trainer.global_rank)
        self.schedule(self.images_seen)
        self.augment.adapt(self)
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        logs = every and self.due(every)
        try:
            self.play(batch)
            if logs:
                self.watch.check(trainer.global_step + 1, self.scaler)
        except NonFiniteError as error:
            training_state.recover(self, error)
        except ValueError as error:
            explain_batch_norm(error)
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
        """A discriminator step and, for every `n_critic`-th batch, `n_generator` generator steps; simultaneous with
        `consensus`."""
        if self.consensus is not None:
            return self.minimize_at_once(batch, consensus=self.consensus)
        for_d, for_g = self.shared(batch) if self.share_fakes else (batch, batch)
        self.discriminator_step(for_d)
        if self.generator_due():
            for _ in range(self.n_generator):
                self.generator_step(for_g)

    def discriminator_step(self, batch: Batch) -> None:
        """Updates the discriminator: one optimizer step on `discriminator_loss` and the penalties, and one for each
        longer interval of penalties that is due.
        """
        if self.penalties:
            return penalised.step(self, batch, "discriminator")
        self.minimize(self.discriminator_loss, batch, player="discriminator")

    def generator_step(self, batch: Batch) -> None:
        """Updates the generator: one optimizer step on `generator_loss`, of the `top_k` share of the fakes, and the
        penalties.
        """
        if self.penalties or self.top_k < 1:
            return penalised.step(self, batch, "generator")
        self.minimize(self.generator_loss, batch, player="generator")

    def minimize(self, loss: Equation, batch: Batch, *, player: PlayerName, interval: int | None = None) -> None:
        """One optimizer step of one player on the sum of the loss's terms; the other player is frozen.

        Args:
            loss: an equation; called once per microbatch.
            batch: this process's share; the random inputs of `draw` are added.
            player: whose parameters are updated.
            interval: minimise this loss in every `interval`-th update of the player only: its gradient is multiplied by
                `interval`, and its terms are left out of the logged `D/loss` or `G/loss`. None: the player's main loss.

        Raises:
            NonFiniteError: a term or a gradient is not finite; on an accelerator, raised at the next log.
            MisconfigurationException: `microbatches` does not divide the images of a process.
        """
        loss, mover, k = self.compiler(loss), self.players[player], self.microbatches
        mover.optimizer.zero_grad()
        with mover.active():
            terms = []
            for part in microbatches(self.with_draws(batch), k):
                found = self.compute_loss(loss, part, player, whole=interval is None)
                total = found.total if interval is None else interval * found.total
                total = total / k if k > 1 else total
                with torch.autocast(self.device.type, enabled=False):  # each derivative has its function's precision
                    total.backward() if self.direct else self.manual_backward(total)
                terms.append(found.values)
            self.settle(mover, found.names, terms[0] if k == 1 else torch.stack(terms).sum(0))
            mover.step(self.trainer.strategy, self.direct)

    def compute_loss(self, loss: Equation, batch: Batch, player: PlayerName, whole: bool = True) -> Loss:
        """An equation's terms and their sum, recorded for logging; the sum only if it is the player's `whole` loss."""
        with self.augment.shown(self, batch, player) as seen:
            found = Loss.of(loss(seen), player)
        self.loss_log.add(player, found, whole)
        return found

    def settle(self, mover: Player, names: list[str], terms: Tensor) -> None:
        """Average gradients and terms over the processes, and check that they are finite."""
        trainer, scaled = self.trainer, self.scaler is not None
        terms = mover.sync_gradients(terms, trainer.world_size)
        mover.check_finite(self.watch, trainer.global_step + 1, names, terms, scaled)

    minimize_at_once = consensus.minimize_at_once  # both players from the same weights

    def due(self, every: int) -> bool:
        """Whether this batch, counted from 1 since the start of training, is a multiple of `every`."""
        return every == 1 or (self.trainer.global_step + 1) % every == 0

    def generator_due(self) -> bool:
        """Whether the generator is updated in this batch."""
        return self.due(self.n_critic)

    def average_generator(self) -> None:
        """Updates the averaged generator if the generator has changed; the decay depends on `unaveraged`."""
        mover = self.players["generator"]
        if self.ema is None or self.ema_half_life is None or not mover.moved or mover.ahead:
            return
        decay = ema.decay(self.unaveraged, self.images_seen, self.ema_half_life, self.ema_ramp_up)
        ema.update(self.ema, self.generator, decay)
        self.unaveraged, mover.moved = 0, False

    # The equations

    @abstractmethod
    def discriminator_loss(self, batch: Batch) -> Terms:
        """Terms of the loss that the discriminator minimises.

        Args:
            batch: `image` [N, C, H, W] in [-1, 1]; `label`, `source` or `labelled`, if the data has them; and what
                `draw` returns, such as `z`.

        Returns:
            {name: weighted scalar}, at least float32. The loss is the sum; each term is logged by its name.
        """

    @abstractmethod
    def generator_loss(self, batch: Batch) -> Terms:
        """Terms of the loss that the generator minimises; arguments and result as of `discriminator_loss`."""

    def discriminate(self, x: Tensor, y: Tensor | None = None) -> Any:
        """D's outputs for images, as the equations use them; at least float32.

        Args:
            x: images [N, C, H, W], which are augmented here.
            y: labels [N] or sources [N, C', H, W], for a D that takes them.

        Returns:
            Logits [N], or the variant's own output: a map [N, h, w], or a tuple that begins with the scores.
        """
        return self.augment.heard(x, full_precision(self.discriminator(*self.augment.pair(x, y))))

    def fakes(self, batch: Batch) -> Any:
        """Fakes [N, C, H, W] of an update, not clamped: those in the batch, or else those of `make_fakes`."""
        return batch["fakes"] if "fakes" in batch else self.make_fakes(batch)

    def make_fakes(self, batch: Batch) -> Any:
        """The generator's images for a training batch and its latents."""
        return self.synthesize(self.generator, batch)

    def shared(self, batch: Batch) -> tuple[Batch, Batch]:
        """The batch with fakes for both players: detached for D, with their graph for G."""
        batch = self.with_draws(batch)
        with self.players["generator"].active():
            fakes = self.make_fakes(batch)
        return {**batch, "fakes": tree_map(Tensor.detach, fakes)}, {**batch, "fakes": fakes}

    def schedule(self, images_seen: int) -> None:
        """Sets learning rates, momenta or weights for the next batch, as functions of the images seen before it.

        Also called before held-out images are evaluated; `trainer.optimizers` is then empty, unless in training.
        """

    def observe(self, name: str, value: Tensor) -> None:
        """Logs the mean of a scalar over the batches until the next log, or, as `val/<name>` or `test/<name>`, over all
        held-out images, without synchronising devices."""
        self.loss_log.observe(name, value, self.training)

    # Random inputs

    def latent(self, n: int, generator: torch.Generator | None = None) -> Latent:
        """Latents: [n, z_dim] numbers of `prior`, or, in some variants, a pytree of tensors [n, ...].

        Args:
            n: number of latents.
            generator: source and device of the random numbers; None: torch's own, on the model's device.
        """
        return {"normal": self.normal, "uniform": self.uniform}[self.prior](generator, n, self.z_dim)

    def draw(self, n: int, generator: torch.Generator) -> Batch:
        """Random inputs of one update: the latents `z`, and whatever else the equations need.

        Args:
            n: number of images over all processes; the first size of each tensor.
            generator: source and device of the random numbers.
        """
        return {"z": self.latent(n, generator)}

    with_draws = with_draws  # the batch with this process's share of them
    labels = labels  # of a batch, which a real and its fake share; None if the model takes none

    def uniform(self, generator: torch.Generator | None, *shape: int) -> Tensor:
        """Uniform numbers in (-1, 1), for `latent`."""
        return torch.empty(shape, device=self.device_of(generator)).uniform_(-1, 1, generator=generator)

    def normal(self, generator: torch.Generator | None, *shape: int) -> Tensor:
        """Standard normal numbers, for `latent`."""
        return torch.randn(shape, device=self.device_of(generator), generator=generator)

    def device_of(self, generator: torch.Generator | None) -> torch.device:
        """Device for the random numbers of `latent` and `draw`."""
        return self.device if generator is None else generator.device

    # Sampling

    def synthesize(self, network: Any, batch: Batch) -> Any:
        """Images [N, C, H, W], not clamped to [-1, 1].

        Args:
            network: the generator or its average.
            batch: `z`, and `label` or `source`, if the generator takes them.
        """
        return network(batch["z"]) if self.num_classes is None else network(batch["z"], batch["label"])

    @torch.no_grad()
    def generate(self, z: Latent, given: Batch | None = None) -> Tensor:
        """Images [N, C, H, W], float32 in [-1, 1], in eval mode, from the averaged generator if there is one.

        Images are clamped here only.

        Args:
            z: latents, as drawn by `latent`.
            given: `label` int64 [N], or `source` [N, C', H, W] in [-1, 1]; None if the generator takes neither.
        """
        batch = self.inputs({"z": z, **(given or {})})
        with self.sampler() as network:
            return self.synthesize(network, batch).float().clamp(-1, 1)

    def inputs(self, given: Batch) -> Batch:
        """Inputs of the generator on the model's device, floats in its precision."""
        found: Batch = floats_as(self.dtype, given, self.device)
        return found

    @contextmanager
    def sampler(self) -> Iterator[Any]:
        """Context manager: the network that generates samples, in eval mode; its mode is restored on exit. It is the
        averaged generator, or the generator if there is no average.
        """
        network = self.generator if self.ema is None else self.ema
        with evaluating(network):
            yield network

    sample, seeded, truncate = sampling.sample, sampling.seeded, sampling.truncate  # by seeds
    take_standing_statistics = sampling.take_standing_statistics
    trained_labels = sampling.trained_labels

    # Lightning's hooks

    def setup(self, stage: str) -> None:
        self.asked = []
        check_trainer(self.trainer, stage)
        lightning_fixes.write_sealed_checkpoints(self.trainer)
        data = getattr(self.trainer, "datamodule", None)
        check_agreement(type(self).__name__, self.hparams, data)
        self.augment.check(self)
        penalised.check(self)
        freeze(self.discriminator, layers=self.freeze_d)
        load_features(self)
        training_state.take_from_data(self, data, stage)

    def configure_model(self) -> None:
        if self.ema is None and self.ema_half_life is not None:
            self.ema = ema.frozen_copy(self.generator)

    def configure_optimizers(self) -> Any:
        optimizers = [self.make_optimizer[player](getattr(self, player).parameters()) for player in PLAYERS]
        for player, optimizer in zip(PLAYERS, optimizers, strict=True):
            for_more_steps(optimizer, penalised.steps(self, player))
        schedulers = [] if self.lr_scheduler is None else [self.lr_scheduler(optimizer) for optimizer in optimizers]
        check_schedulers(schedulers)
        return optimizers, [{"scheduler": scheduler} for scheduler in schedulers]

    def on_fit_start(self) -> None:
        check_trained(self, self.trainer.optimizers)
        self.asked = initial(self.trainer.optimizers)  # before a checkpoint is loaded

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
        self.gate, self.direct = Gate(), self.clip_norm is None and lightning_fixes.hooks_unused(self, GANModule)
        self.randomness, self.watch, self.compiler = Randomness(), Watch(), Compiler(self.compile_losses)
        self.updates = penalised.updates(self)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self.clip_norm is not None:
            clip_gradients(optimizer, self.clip_norm, self.scaler)

    on_validation_start = on_test_start = held_out.start
    validation_step = test_step = held_out.evaluate
    on_train_epoch_end = refresh

    def on_validation_epoch_end(self) -> None:
        held_out.report(self, "val")

    def on_test_epoch_end(self) -> None:
        held_out.report(self, "test")

    def publish(self, values: dict[str, float]) -> None:
        """Passes values to the loggers of the training, at the current step."""
        row = {"images": self.images_seen, **values}
        self.loss_log.each_logger(self.trainer, lambda logger: logger.log_metrics(row, step=self.trainer.global_step))

    @property
    def scaler(self) -> Any:
        """The fp16 gradient scaler, or None."""
        return getattr(self.trainer.precision_plugin, "scaler", None)

    on_save_checkpoint, on_load_checkpoint = training_state.save, training_state.restore
    load_from_checkpoint = classmethod(load_from_checkpoint)  # type: ignore[assignment]
    __setattr__ = lightning_fixes.set_attribute
    __getstate__, __setstate__ = pickling.get_state, pickling.set_state
