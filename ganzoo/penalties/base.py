"""What a penalty is, and what it sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ganzoo.core.options import Option
from ganzoo.core.types import Terms
from ganzoo.layers.minibatch import MinibatchDiscrimination, MinibatchStdDev
from ganzoo.layers.noise import GaussianNoise
from ganzoo.layers.spectral import is_spectral

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


@dataclass
class View:
    """One evaluation of an equation, as a penalty sees it.

    Attributes:
        real: images [N, C, H, W].
        fake: images [N, C, H, W]; without a graph in D's update.
        z: the fakes' latents.
        drawn: the penalty's random inputs, from `Penalty.draw`.
        score: D's scores of images, given the batch's labels or sources: [N, C, H, W] -> [N]; means over patches;
            larger for reals.
        real_score: D's scores of `real` in the equation, [N]; evaluated now if it has none.
        fake_score: D's scores of `fake`, likewise.
        beside: D's scores of images near `real` ("image") or `fake` ("fakes"), under the same random transforms.
        make: fakes from other latents.
        mean: the mean of a tensor over the processes.
        networks: of both players.
        training: whether the penalty may change its state.
    """

    real: Tensor
    fake: Tensor
    z: Any
    drawn: dict[str, Any]
    score: Callable[[Tensor], Tensor]
    real_score: Callable[[], Tensor]
    fake_score: Callable[[], Tensor]
    beside: Callable[[str, Tensor], Tensor]
    make: Callable[[Any], Tensor]
    mean: Callable[[Tensor], Tensor]
    networks: dict[str, nn.Module]
    training: bool


class Penalty(Option):
    """A term that any variant can add to the losses of its players.

    A subclass implements `discriminator_terms` or `generator_terms`, or both, and begins its `__init__` with
    `super().__init__()`. Its buffers are part of checkpoints.

    Attributes:
        interval: batches per update of D on the penalty; above 1, in a separate optimizer step. 1 for terms of G.
        scores: whether it needs D's scores; then it is refused for several discriminators.
        fakes: whether it needs fakes as images, not only their scores.
        name: of its terms in the log.
    """

    interval: int = 1
    scores: bool = True
    fakes: bool = False

    @property
    def name(self) -> str:
        """Name of its terms in the log."""
        return type(self).__name__.lower()

    def draw(self, n: int, shape: torch.Size, z: Any, player: str, generator: torch.Generator) -> dict[str, Any]:
        """Random inputs of one update for all processes together: a pytree of tensors [n, ...].

        Args:
            n: number of images.
            shape: of an image, [C, H, W].
            z: one latent [1, ...].
            player: that is updated.
            generator: to draw from.
        """
        return {}

    def discriminator_terms(self, view: View) -> Terms:
        """Weighted terms of the discriminator's loss."""
        return {}

    def generator_terms(self, view: View) -> Terms:
        """Weighted terms of the generator's loss."""
        return {}

    def stepped(self, player: str) -> None:
        """Called after a player's updates in a batch."""

    def problem(self, model: Any) -> str | None:
        """Why it cannot be used with a model, in words that follow the model's name and a colon; None if it can."""
        return None

    def concerns(self, player: str) -> bool:
        """Whether it adds terms to a player's loss."""
        return getattr(type(self), f"{player}_terms") is not getattr(Penalty, f"{player}_terms")


def like(tree: Any, n: int, generator: torch.Generator) -> Any:
    """Standard normal numbers [n, ...] for each floating-point tensor [1, ...] of a pytree; zeros for others."""

    def draw(tensor: Tensor) -> Tensor:
        shape = (n, *tensor.shape[1:])
        if not tensor.is_floating_point():
            return torch.zeros(shape, dtype=tensor.dtype, device=tensor.device)
        return torch.randn(shape, device=tensor.device, generator=generator)

    return tree_map(draw, tree)


def mixes_images(network: nn.Module) -> str | None:
    """What makes a network's score of an image depend on the other images of the batch; None if nothing does."""
    for module in network.modules():
        tracks = getattr(module, "running_mean", None) is not None and not isinstance(module, INSTANCE_NORMS)
        if isinstance(module, BATCH_NORMS) or tracks:
            return "batch norm"
        if isinstance(module, MinibatchDiscrimination):
            return "minibatch discrimination"
        if isinstance(module, MinibatchStdDev):
            return "minibatch standard deviation"
    return None


def is_random(network: nn.Module) -> str | None:
    """What makes a network's scores random in training; None if nothing does."""
    for module in network.modules():
        if isinstance(module, DROPOUTS) and module.p:
            return "dropout"
        if isinstance(module, GaussianNoise) and module.std:
            return "noise"
    return None


def moves(network: nn.Module) -> str | None:
    """What makes two scores of the same image differ in training; None if nothing does."""
    return (
        "spectral norm, whose power iteration advances at each score"
        if any(is_spectral(m) for m in network.modules())
        else None
    )
