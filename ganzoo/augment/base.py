"""The base class of augmentations of what the discriminator sees."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ganzoo.core.options import Option, made
from ganzoo.core.random import Numbers


class Augment(Option):
    """Random transforms of the discriminator's inputs, during updates only; elsewhere the identity.

    Within an equation, each call draws new transforms for each of its images, from keys in the batch, so they are the
    same with any number of processes and microbatches. `transform` is what subclasses implement.
    """

    keys: Tensor | None = None  # [N] of the running equation; None outside of an update
    player = 0  # whose equation it is
    calls = 0  # draws in the running equation
    held = False  # whether calls share one draw

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, C, H, W] -> as many, at least in float32."""
        return self.pair(x, None)[0]

    def pair(self, x: Tensor, y: Any) -> tuple[Tensor, Any]:
        """Images and their condition: sources [N, C', H, W] move with their images, labels are unchanged."""
        if self.keys is None:
            return x, y
        self.check_channels(x.shape[1])  # of images of which the model's arguments say nothing
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
            channels: of the image, the first ones; others belong to its source, and only move.
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
        try:
            yield batch
        finally:
            self.keys = None

    @contextmanager
    def same(self) -> Iterator[None]:
        """All calls inside draw the same transforms, such as those of the two terms of a finite difference."""
        self.held = True
        try:
            yield
        finally:
            self.held, self.calls = False, self.calls + 1

    def heard(self, x: Tensor, output: Any) -> Any:
        """D's output for images (before their transform), unchanged."""
        return output

    def adapt(self, model: Any) -> None:
        """Before each batch: set the strength for it."""

    def check(self, model: Any) -> None:
        """
        Raises:
            ValueError: the augmentation does not fit the model.
        """
        if (channels := model.hparams.get("channels")) is not None:
            self.check_channels(channels)

    # In checkpoints

    def state(self) -> dict[str, Any]:
        """What training changes, for all processes together; a collective call."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state`; from the start if it is empty, or of another augmentation."""

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
    found = copy.deepcopy(made(Augment, "augment", augment))  # its state is the model's own
    if len(found) > 1:
        raise ValueError("augment is a list; it takes one augmentation, such as augment=DiffAugment()")
    return found[0] if found else Identity()
