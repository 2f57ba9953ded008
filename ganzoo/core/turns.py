"""Two players who take turns: what no paper talks about, batch by batch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves, tree_map

from ganzoo.core import ema
from ganzoo.core.finite import NonFiniteError
from ganzoo.core.means import Means
from ganzoo.core.random import mix
from ganzoo.core.strategy import average
from ganzoo.core.types import Batch, Terms
from ganzoo.core.upkeep import PLAYERS, Player, Upkeep

Equation = Callable[[Batch], Terms]


class Turns(Upkeep):
    """Two players who take turns under Lightning's manual optimization; `GANModule` says what they play.

    One batch is one step, whatever is played in it; what is random in it is a function of (seed, step).
    """

    # What an algorithm is written with

    def minimize(self, loss: Equation, batch: Batch, *, player: Player) -> None:
        """One optimizer step of one player on the sum of the loss's terms, while the other player stays still.

        Args:
            loss: an equation; called once a microbatch.
            batch: this process's share, to which is added what `draw` draws: fresh latents as `batch["z"]`.
            player: whose parameters move.

        Raises:
            NonFiniteError: a term or a gradient is not finite; on an accelerator it waits for the next log.
        """
        loss = self._compile(loss) if self.compile_losses else loss
        optimizer = self.trainer.optimizers[PLAYERS.index(player)]
        optimizer.zero_grad()
        with self._still[player].hold():
            seen = []
            for part in self._parts({**batch, **self._draw(size(batch))}):
                terms, loss_value = self._ask(loss, part, player)
                self.manual_backward(loss_value / self.microbatches if self.microbatches > 1 else loss_value)
                seen.append(torch.stack([term.detach().float() for term in terms.values()]))
            self._settle(player, list(terms), seen[0] if len(seen) == 1 else torch.stack(seen).sum(0))
            self._step(optimizer)

    def minimize_at_once(self, batch: Batch, *, consensus: float = 0.0) -> None:
        """One optimizer step of both players from the same weights and latents, which is simultaneous play.

        With `consensus` gamma above 0 both also go down gamma / 2 |v|^2, v being each player's gradient of its own loss
        by its own parameters, of the global batch (Mescheder et al. 2017, arXiv:1705.10461, algorithm 2). That takes
        second derivatives: two to three times the time.

        Raises:
            NonFiniteError: as in `minimize`.
            MisconfigurationException: there are microbatches, compiled losses, or fp16's scaled ones.
        """
        for name, given in {
            "microbatches": self.microbatches > 1,
            "compile_losses": self.compile_losses,
            "fp16 (take bf16-mixed)": self._scaler is not None,
        }.items():
            if given:
                raise MisconfigurationException(f"players who move at once do without {name}")
        batch = cast(Batch, {**batch, **self._draw(size(batch))})
        moving = {player: [p for p in self._moving[player].values() if p.requires_grad] for player in PLAYERS}
        both = [p for player in PLAYERS for p in moving[player]]
        v: list[Tensor | None] = []
        terms: dict[Player, Terms] = {}
        for player, loss in zip(PLAYERS, (self.discriminator_loss, self.generator_loss), strict=True):
            with self._still[player].keep():
                terms[player], loss_value = self._ask(loss, batch, player)
            v += torch.autograd.grad(loss_value, moving[player], create_graph=consensus > 0, allow_unused=True)
        push: Sequence[Tensor | None] = [None] * len(both)
        if consensus:
            curved = [gradient for gradient in v if gradient is not None and gradient.requires_grad]
            fixed = [gradient.detach().clone() for gradient in curved]
            if self.trainer.world_size > 1:
                average(fixed)
            push = torch.autograd.grad(curved, both, fixed, allow_unused=True)  # J'v: the gradient of |v|^2 / 2
        for p, gradient, more in zip(both, v, push, strict=True):
            p.grad = None if gradient is None else gradient.detach().clone()  # a view of one number cannot be averaged
            if more is not None:
                p.grad = consensus * more if p.grad is None else p.grad.add(more, alpha=consensus)
        for player, own in terms.items():
            self._settle(player, list(own), torch.stack([term.detach().float() for term in own.values()]))
        for optimizer in self.trainer.optimizers:
            self._step(optimizer)

    def due(self, every: int) -> bool:
        """Whether this batch, counted from 1 since the start of training, is an `every`-th one."""
        return (self.trainer.global_step + 1) % every == 0

    def observe(self, name: str, value: Tensor) -> None:
        """Log the mean of a scalar over the training batches until the next log; waits for no device.

        In validation and test it is the mean over the held-out images, logged as `val/<name>` and `test/<name>`.
        """
        if self.training or self._held_out_images:  # a list, which does not break a compiled loss into graphs
            self._observed.append((name, value.detach(), 1 if self.training else self._held_out_images))

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
        self.schedule(self.images_played)
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        logs = every and self.due(every)
        try:
            self.play(batch)
            if logs:
                self._watch.check(self.trainer.global_step + 1, self._scaler)
        except NonFiniteError as error:
            self.go_back(error)
        self._count(size(batch) * self.trainer.world_size)
        for scheduler in self._schedulers:
            scheduler.step()
        if logs:
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
        self.images_played += n
        self.images_seen.add_(n)
        if self.ema is not None and self.ema_half_life is not None and self.due(self.n_critic):
            weight = ema.decay(n * self.n_critic, self.images_played, self.ema_half_life, self.ema_ramp_up)
            ema.update(self.ema, self.generator, weight)
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        progress.increment_ready()
        progress.increment_completed()

    def _draw(self, n: int) -> Batch:
        """This process's n latents: its slice of those of the global batch, which are the same on all processes."""
        rank, world = self.trainer.global_rank, self.trainer.world_size
        drawn = self.draw(n * world, self._latents)
        return drawn if world == 1 else tree_map(lambda t: t[rank * n : (rank + 1) * n], drawn)

    def _ask(self, loss: Equation, batch: Batch, player: Player) -> tuple[Terms, Tensor]:
        """An equation's terms and their sum, all of them noted for the log."""
        terms = loss(batch)
        self._collect(self._means)
        loss_value, letter = total(terms), player[0].upper()
        if loss_value.ndim:
            wrong = next(f"{name!r} has shape {list(term.shape)}" for name, term in terms.items() if term.ndim)
            raise MisconfigurationException(f"the {player}'s terms are scalars, and {wrong}: take its mean")
        self._means.add(f"{letter}/loss", loss_value)
        for name, term in terms.items() if len(terms) > 1 else ():
            self._means.add(f"{letter}/{name}", term)
        return terms, loss_value

    def _step(self, optimizer: Optimizer) -> None:
        # Not through Lightning's wrapper, which counts every player's step as a global step.
        self.trainer.strategy.optimizer_step(optimizer, closure=lambda: None)

    def _settle(self, player: Player, names: list[str], terms: Tensor) -> None:
        """Make a player's gradients and running statistics those of all processes, and look at them."""
        moving = self._moving[player]
        if self.trainer.world_size > 1:
            average([*(p.grad for p in moving.values() if p.grad is not None), *self._statistics[player], terms])
        names = [f"term {name!r}" for name in names]
        if self._scaler is None:  # which skips steps of infinite gradients
            gradients = {name: p.grad for name, p in moving.items() if p.grad is not None}
            names += gradients
            terms = torch.cat([terms, torch.stack(torch._foreach_norm(list(gradients.values())))])
        self._watch.look(self.trainer.global_step + 1, player, names, terms)

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

    def _evaluate(self, batch: Batch, batch_idx: int) -> None:
        with torch.inference_mode(False), torch.enable_grad():  # gradient penalties differentiate
            self._seed_generators(batch_idx)
            self._held_out_images = size(batch)
            batch = tree_map(torch.clone, batch)
            batch |= self.draw(size(batch), self._latents)
            for letter, loss in (("D", self.discriminator_loss), ("G", self.generator_loss)):
                self._held_out.add(f"{letter}/loss", total(loss(batch)), weight=self._held_out_images)

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
