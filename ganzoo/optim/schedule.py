"""Learning rates and momenta as functions of the images seen."""

from __future__ import annotations

from collections.abc import Iterable

from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ganzoo.functional.schedules import falling


class LinearTail(LambdaLR):
    """Constant learning rate, then linear decay to 0 over the last steps of a training.

    Used by Rasmus et al. (2015, arXiv:1507.02672) for the ladder network, and in the code of Salimans et al. (2016) for
    CIFAR-10.

    Args:
        optimizer: wrapped optimizer.
        total_iters: steps until the rate is 0.
        falling_iters: length of the decay in steps.
    """

    def __init__(self, optimizer: Optimizer, total_iters: int, falling_iters: int) -> None:
        super().__init__(optimizer, lambda step: min(1.0, falling(total_iters / falling_iters, step, total_iters)))


def anneal_sgd(optimizers: Iterable[Optimizer], images_seen: int, decay: float) -> None:
    """SGD schedule of Goodfellow et al. (2014) and Mirza & Osindero (2014); other optimizers are unaffected.

    The learning rate is lr / decay^t after t updates of 100 images, at least 1e-6; momentum increases by 0.2 over 250
    epochs of 50,000 images, up to the papers' 0.7.
    """
    for optimizer in optimizers:
        if isinstance(optimizer, SGD):
            start = optimizer.defaults
            for group in optimizer.param_groups:
                group["lr"] = max(start["lr"] * decay ** (-images_seen / 100), 1e-6)
                rise = 0.2 * min(images_seen / (250 * 50_000), 1.0)
                group["momentum"] = max(start["momentum"], min(start["momentum"] + rise, 0.7))
