"""Training and data shared by the figures."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from ganzoo.core.module import GANModule
from ganzoo.core.pixels import to_float
from ganzoo.core.random import mix
from ganzoo.data import ArrayImages, Digits, GANDataModule
from ganzoo.data.base import Split
from ganzoo.data.labels import SPLITS
from ganzoo.functional.divergences import Gaussian
from ganzoo.testing import fit


def seeded(seed: int) -> torch.Generator:
    """A new random generator with this seed."""
    return torch.Generator().manual_seed(seed)


@contextmanager
def seeding(seed: int) -> Iterator[None]:
    """Inside, all random numbers follow from the seed; the caller's random state is restored."""
    before = os.environ.pop("PL_GLOBAL_SEED", None)
    with torch.random.fork_rng(devices=[]):
        os.environ["PL_GLOBAL_SEED"] = str(seed)  # of latents and dropout: `ganzoo.core.random.global_seed`
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also reseed GPUs
        try:
            yield
        finally:
            del os.environ["PL_GLOBAL_SEED"]
            if before is not None:
                os.environ["PL_GLOBAL_SEED"] = before


def train(network: nn.Module, loss: Callable[[], Tensor], steps: int, lr: float = 1e-2) -> None:
    """Trains with Adam; the learning rate decays to 0 by a cosine."""
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        schedule.step()


def digits(split: Split) -> Tensor:
    """scikit-learn's digits [N, 1, 8, 8] in [-1, 1], sorted by class."""
    data = Digits().make_dataset(split)
    return to_float(data.images[cast(Tensor, data.labels()).argsort(stable=True)])


class Look(Callback):
    """Stores the result of `look(model)` after each of the batches `at`, counted from 1; 0 is before the first."""

    def __init__(self, at: Collection[int], look: Callable[[Any], Any]) -> None:
        self.at, self.look = at, look
        self.found: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on_train_batch_end(trainer, pl_module)

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step in self.at:
            self.found[trainer.global_step] = self.look(pl_module)


def trained(
    make: Callable[[], GANModule], data: GANDataModule, steps: int, seed: int, *callbacks: Callback, **trainer: Any
) -> GANModule:
    """A model trained for `steps` batches; weights, latents and dropout follow from the seed."""
    with seeding(seed):
        model = make()
        fit(model, data, steps=steps, callbacks=callbacks, **trainer)
    return model


class Line(GANDataModule):
    """50,000 samples of a one-dimensional mixture of Gaussians, as "images" [1, 1, 1]; the label is the component."""

    image_size = 1
    channels = 1
    extractor = None  # points, no images

    def __init__(self, mixture: Sequence[Gaussian], weights: Sequence[float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mixture, self.weights = torch.tensor(mixture), torch.tensor(weights)
        self.num_classes = len(mixture)

    def make_dataset(self, split: Split) -> ArrayImages:
        generator = seeded(mix(SPLITS.index(split)))
        which = torch.multinomial(self.weights, 50_000, replacement=True, generator=generator)
        mean, std = self.mixture[which].T
        points = mean + std * torch.randn(len(which), generator=generator)
        return ArrayImages(points.view(-1, 1, 1, 1), which)
