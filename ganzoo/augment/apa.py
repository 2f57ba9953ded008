"""APA: Deceive D: Adaptive Pseudo Augmentation (Jiang et al. 2021, arXiv:2111.06849)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import torch
from torch import Tensor

from ganzoo.augment.base import Augment, Strength
from ganzoo.core.limits import Limits, Positive, Share
from ganzoo.core.random import Numbers


class APA(Augment):
    """Shows D fakes instead of reals, each with a probability p that follows D's overfitting.

    The authors take the fakes of G's last update, so these may have other labels than the reals that they replace. Here
    G makes new ones with the labels, or from the sources, of these reals. In translation without pairs, images are
    replaced, but not sources. p stays at most 1; the paper's has no upper limit.

    Args:
        p: fixed probability, or that of the first batch with `p_end`; None: adaptive, from 0.
        target: of E sign(D(x)) over the images shown as real, in (-1, 1), for an adaptive p; None: the paper's 0.6.
        p_end: p falls or rises from `p` to this along a cosine, over `ramp` images; None: p is fixed or adaptive.
        ramp: images in which an adaptive p can go from 0 to 1, or a scheduled one goes from p to p_end.

    Raises:
        ValueError: an argument is out of range, or two contradict each other.
    """

    strength: Strength

    def __init__(
        self,
        p: Share | None = None,
        target: Annotated[float, Limits(-1, 1, above=True, below=True)] | None = None,
        p_end: Share | None = None,
        ramp: Positive = 500_000.0,
    ) -> None:
        super().__init__()
        self.strength = Strength(p, target, p_end, ramp)

    def pair(self, x: Tensor, y: Any) -> tuple[Tensor, Any]:
        return x, y

    def draw(self, model: Any, n: int, generator: torch.Generator) -> Any:
        return {**super().draw(model, n, generator), "pseudo": model.draw(n, generator)}

    @contextmanager
    def shown(self, model: Any, batch: Any, player: str) -> Iterator[Any]:
        if player == "discriminator" and model.training:
            real = batch["image"]
            with torch.no_grad():
                fake = model.synthesize(model.generator, {**batch, **batch["pseudo"]}).to(real.dtype)
            replaced = Numbers(batch["keys"]).uniform(1, 1, 1) < self.strength.p
            batch = {**batch, "image": torch.where(replaced, fake, real)}
        with super().shown(model, batch, player) as batch:
            yield batch
