"""Learning rates and momenta as functions of the images seen."""

from __future__ import annotations

from collections.abc import Iterable

from torch.optim import SGD, Optimizer


def falling(first: float, images_seen: int, images: float | None) -> float:
    """From `first` in a straight line to 0 after so many images; constant where that is None."""
    return first if images is None else first * max(0.0, 1 - images_seen / images)


def anneal_sgd(optimizers: Iterable[Optimizer], images_seen: int, decay: float) -> None:
    """Set SGD as Goodfellow et al. (2014) and Mirza & Osindero (2014) train; other optimizers keep their rates.

    The learning rate is lr / decay^t after t updates of 100 images, at least 1e-6; the momentum rises by 0.2 over 250
    epochs of 50,000 images.
    """
    for optimizer in optimizers:
        if isinstance(optimizer, SGD):
            start = optimizer.defaults
            for group in optimizer.param_groups:
                group["lr"] = max(start["lr"] / decay ** (images_seen / 100), 1e-6)
                group["momentum"] = start["momentum"] + 0.2 * min(images_seen / (250 * 50_000), 1.0)
