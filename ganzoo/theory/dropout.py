"""Dropout in D: in both players' updates, in D's updates only, or not at all."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from ganzoo.core.frozen import evaluating
from ganzoo.core.types import Batch
from ganzoo.data import Digits
from ganzoo.evaluation import evaluate
from ganzoo.theory.parts import trained
from ganzoo.variants.gan import GAN


class DropoutInDUpdates(GAN):
    """D's dropout is inactive in G's updates."""

    def generator_step(self, batch: Batch) -> None:
        with evaluating(self.discriminator):
            super().generator_step(batch)


class NoDropout(GAN):
    """D has no dropout."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        for module in self.discriminator.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0


DROPOUT: dict[str, type[GAN]] = {"in both steps": GAN, "in D's step": DropoutInDUpdates, "nowhere": NoDropout}


def dropout(steps: int, seed: int = 0) -> dict[str, float]:
    """FID on 8x8 digits, with the shipped classifier and 2,000 fakes, for dropout of D in both players' updates (text
    and code of Goodfellow et al. 2014), in D's only, and not at all; otherwise configs/gan/digits.yaml.
    """
    found = {}
    for name, variant in DROPOUT.items():
        data = Digits(batch_size=100, seed=seed)
        model = trained(partial(variant, image_size=8, hidden=400, d_hidden=120), data, steps, seed)
        found[name] = evaluate(model, data, ["fid"], n=2000).scores[0].value
    return found
