"""The base class of augmentations of what the discriminator sees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ganzoo.core.options import Option, made
from ganzoo.core.processes import rank_and_world, summed
from ganzoo.core.random import Numbers
from ganzoo.functional.schedules import cosine

INTERVAL = 4  # batches between two changes of an adaptive strength


class Strength(nn.Module):
    """Probability p of an augmentation: fixed, a function of the images seen, or adapted to the discriminator.

    An adaptive p rises while D overfits, that is, while the mean sign of its logits of reals, E sign(D(x)), exceeds the
    target, and falls otherwise: by the share of `ramp` images that D has seen since the last change, every 4 batches
    (Karras et al. 2020, arXiv:2006.06676, section 3).

    Args:
        p: fixed probability, or that of the first batch with `p_end`; None: adaptive, from 0.
        target: of E sign(D(x)), in (-1, 1), for an adaptive p; None: 0.6.
        p_end: p falls or rises from `p` to this along a cosine, over `ramp` images; None: p is fixed or adaptive.
        ramp: images in which an adaptive p can go from 0 to 1, or a scheduled one goes from p to p_end.

    Raises:
        ValueError: an argument is out of range, or two contradict each other.
    """

    p: Tensor
    signs: Tensor  # since the last change: sum of the signs, number of logits, number of images

    def __init__(self, p: float | None, target: float | None, p_end: float | None, ramp: float) -> None:
        super().__init__()
        if p is not None and target is not None:
            raise ValueError(f"p is {p} and target {target}: p is either given or adaptive; leave one of them out")
        if p is None and p_end is not None:
            raise ValueError(f"p_end is {p_end}, but p is not given: set p, where it starts")
        self.target = 0.6 if p is None and target is None else target
        self.first, self.last, self.ramp = p or 0.0, p_end, ramp
        self.reals: Tensor | None = None  # as the running equation shows them to D
        self.boundary, self.has_heard, self.has_adapted = 0.0, False, False  # since the start or a restart
        self.register_buffer("p", torch.tensor(self.first), persistent=False)
        self.register_buffer("signs", torch.zeros(3), persistent=False)

    def check(self, model: Any) -> None:
        """
        Raises:
            ValueError: nothing can control p.
        """
        if self.target is not None and model.boundary is None:
            raise ValueError(
                f"augment: p follows the signs of D's logits of reals, but {type(model).__name__} has no such logits: "
                "set p, for example to 0.2"
            )

    def hear(self, x: Tensor, output: Any) -> None:
        """Counts the signs of D's logits, if the images are the reals of a running update of D."""
        if self.target is not None and self.reals is not None and x is self.reals:
            logits = (output if isinstance(output, Tensor) else output[0]).detach()
            logits = logits[:, 0] if logits.ndim == 2 else logits  # others are of classes
            counts = [logits.new_full((), n) for n in (logits.numel(), len(x))]
            self.signs += torch.stack([(logits - self.boundary).sign().sum(), *counts])
            self.has_heard = True

    def schedule(self, images_seen: int) -> None:
        """Set a scheduled p for the next batch."""
        if self.last is not None:
            self.p.fill_(cosine(self.first, self.last, images_seen, self.ramp))

    def adapt(self, model: Any) -> None:
        """Before each batch: set p for it."""
        self.schedule(model.images_seen)
        if self.last is None and self.target is None:
            return
        step = model.trainer.global_step
        if self.target is not None and step and step % INTERVAL == 0 and (self.has_heard or self.has_adapted):
            self._follow(model)
        self.has_adapted = True
        model.observe("augment/p", self.p.clone())

    def _follow(self, model: Any) -> None:
        if not self.has_heard:
            raise ValueError(
                "augment: p follows the signs of discriminate(batch['image']), but discriminator_loss of "
                f"{type(model).__name__} does not call it: set p, for example to 0.2"
            )
        total, logits, images = self._total()
        model.observe("augment/sign", total / logits)
        self.p.add_((total / logits - self.target).sign() * images / self.ramp).clamp_(0, 1)
        self.signs.zero_()

    def _total(self) -> Tensor:
        return summed(self.signs.clone())

    def state(self) -> dict[str, Any]:
        """An adaptive p and the signs of all processes, for a checkpoint."""
        return {} if self.target is None else {"p": self.p.cpu(), "signs": self._total().cpu()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """
        Raises:
            ValueError: the state is damaged.
        """
        if self.target is None or state.keys() != {"p", "signs"}:
            return
        p, signs = state["p"], state["signs"]
        shapes = [value.shape if isinstance(value, Tensor) else None for value in (p, signs)]
        if shapes != [(), (3,)] or not 0 <= p <= 1 or not signs.isfinite().all():
            raise ValueError("the checkpoint's state of the augmentation is invalid; use another checkpoint")
        self.p.copy_(p)
        self.signs.copy_(signs / rank_and_world()[1])  # equal shares: DDP copies the first process's buffers to all
        self.has_heard = bool(signs[1])


class Augment(Option):
    """Random transforms of the discriminator's inputs while an equation is evaluated, in updates and on held-out
    images; elsewhere the identity.

    Within an equation, each call draws new transforms for each of its images, from keys in the batch, so they are the
    same with any number of processes and microbatches. `transform` is what subclasses implement.

    Attributes:
        strength: p of those that are applied with a probability; None for others.
    """

    def __init__(self) -> None:
        super().__init__()
        self.strength: Strength | None = None
        self.keys: Tensor | None = None  # [N] of the running equation; None outside of equations
        self.player, self.calls = 0, 0  # whose equation it is, and its draws so far
        self.held = False  # whether calls share one draw

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, C, H, W] -> as many, at least in float32."""
        return self.pair(x, None)[0]

    def pair(self, x: Tensor, y: Any) -> tuple[Tensor, Any]:
        """Images and their condition: sources [N, C', H, W] move with their images, labels are unchanged."""
        if self.keys is None:
            return x, y
        self.check_channels(x.shape[1])  # the model's arguments may not state how many channels these images have
        numbers = Numbers(self._keys(len(x)), self.player, self.calls)
        self.calls += not self.held
        beside = y.shape[1] if isinstance(y, Tensor) and y.ndim == 4 else 0
        with torch.autocast(x.device.type, enabled=False):
            both = torch.cat([x, y], 1) if beside else x
            both = both.float() if both.dtype in (torch.float16, torch.bfloat16) else both
            both = self.transform(both, numbers, x.shape[1])
        return (both[:, :-beside], both[:, -beside:]) if beside else (both, y)

    def transform(self, x: Tensor, numbers: Numbers, channels: int) -> Tensor:
        """Transformed images.

        Args:
            x: [N, C, H, W] in [-1, 1], at least float32.
            numbers: the random numbers to use.
            channels: of the image, the first ones; others belong to its source: they move and are cut out with it, but
                keep their colours.
        """
        return x

    def check_channels(self, channels: int) -> None:
        """
        Raises:
            ValueError: there is no such transform of images with this number of channels.
        """

    # In training

    def draw(self, model: Any, n: int, generator: torch.Generator) -> Any:
        """Random inputs of one update, for all processes together."""
        return {"keys": torch.randint(2**62, (n,), generator=generator, device=generator.device)}

    @contextmanager
    def shown(self, model: Any, batch: Any, player: str) -> Iterator[Any]:
        """The batch for an equation of a player; inside, images are transformed. Used by `GANModule.compute_loss`."""
        self.keys, self.player, self.calls = batch.get("keys"), int(player == "generator"), 0
        if self.strength and player == "discriminator" and model.training:
            self.strength.reals, self.strength.boundary = batch["image"], model.boundary
        try:
            yield batch
        finally:
            self.keys = None
            if self.strength:
                self.strength.reals = None

    @contextmanager
    def again(self, call: int) -> Iterator[None]:
        """All calls inside repeat the transforms of a call of this equation, counted from 0: of the last one,
        `calls - 1`."""
        before = self.calls, self.held
        self.calls, self.held = call, True
        try:
            yield
        finally:
            self.calls, self.held = before

    def heard(self, x: Tensor, output: Any) -> Any:
        """D's output for images (before their transform), unchanged; controls p, unless the call is a repeated one."""
        if self.strength and not self.held:
            self.strength.hear(x, output)
        return output

    def schedule(self, images_seen: int) -> None:
        """Set what is a function of the images seen, such as a scheduled p."""
        if self.strength:
            self.strength.schedule(images_seen)

    def adapt(self, model: Any) -> None:
        """Before each batch: set the strength for it."""
        if self.strength:
            self.strength.adapt(model)

    def check(self, model: Any) -> None:
        """
        Raises:
            ValueError: the augmentation does not fit the model.
        """
        if (channels := model.hparams.get("channels")) is not None:
            self.check_channels(channels)
        if self.strength:
            self.strength.check(model)

    # In checkpoints

    def state(self) -> dict[str, Any]:
        """What training changes, for all processes together; a collective call."""
        state = self.strength.state() if self.strength else {}
        return {**state, "of": type(self).__name__} if state else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state`; from the start if it is empty, or of another augmentation."""
        own = type(self).__name__
        if self.strength and state.get("of", own) == own:
            self.strength.restore({key: value for key, value in state.items() if key != "of"})

    def _keys(self, n: int) -> Tensor:
        """Keys [n]. With more images than keys, images i and i + N have the same."""
        assert self.keys is not None
        return self.keys.repeat(-(-n // len(self.keys)))[:n]


class Identity(Augment):
    """No augmentation."""

    def draw(self, model: Any, n: int, generator: torch.Generator) -> Any:
        return {}


def chosen(augment: Any) -> Augment:
    """The augmentation of a model's argument: an instance, its plain values, or None.

    Raises:
        ValueError: it is neither of these.
    """
    found = made(Augment, "augment", augment)
    if len(found) > 1:
        raise ValueError("augment is a list; it takes one augmentation, such as augment=DiffAugment()")
    return found[0] if found else Identity()
