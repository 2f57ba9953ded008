"""Consistency regularisation: D's scores of an image and of a changed one agree."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ganzoo.core.limits import Limits, NonNegative, Positive, sides
from ganzoo.core.types import Terms
from ganzoo.functional.consistency import flip_and_shift
from ganzoo.penalties.base import Penalty, View, like


class BCR(Penalty):
    """Penalises differences between D's scores of an image and of its mirrored, shifted copy: balanced consistency.

    D minimises `real` * E (D(x) - D(T x))^2 + `fake` * E (D(G(z)) - D(T G(z)))^2 (Zhao et al. 2020, arXiv:2002.04724,
    algorithm 1); with `fake` 0 this is the penalty of Zhang et al. 2020 (arXiv:1910.12027). T mirrors an image with
    probability 1/2, and shifts it by up to `shift` of its sides, with reflected borders. T must not change the content
    of an image: set `flip` to false for digits and text. Not for translators, whose D also sees the source.

    Args:
        real: weight of reals.
        fake: weight of fakes.
        shift: largest shift, as a share of the sides, 0 to 0.5, rounded down to pixels.
        flip: whether T mirrors.
    """

    fakes = True

    def __init__(
        self,
        real: NonNegative = 10.0,
        fake: NonNegative = 10.0,
        shift: Annotated[float, Limits(0, 0.5)] = 0.125,
        flip: bool = True,
    ) -> None:
        super().__init__()
        self.real, self.fake, self.shift, self.flip = real, fake, shift, flip

    def draw(self, n: int, shape: torch.Size, z: Any, player: str, generator: torch.Generator) -> dict[str, Any]:
        return {side: self.transforms(n, shape, generator) for side in ("real", "fake")}

    def transforms(self, n: int, shape: torch.Size, generator: torch.Generator) -> dict[str, Tensor]:
        """Arguments of `flip_and_shift`, uniform."""
        u = torch.rand(n, 3, device=generator.device, generator=generator)
        most = torch.tensor([int(self.shift * side) for side in shape[1:]], device=u.device)
        shift = (u[:, 1:] * (2 * most + 1)).long().clamp(max=2 * most) - most
        return {"flip": (u[:, 0] < 0.5) & self.flip, "shift": shift}

    def discriminator_terms(self, view: View) -> Terms:
        terms = {}
        sides = ("real", self.real, view.real, view.real_score), ("fake", self.fake, view.fake, view.fake_score)
        for side, weight, x, score in sides:
            if weight:
                other = view.score(flip_and_shift(x, **view.drawn[side]))
                terms[f"bcr_{side}"] = weight * (score() - other).square().mean()
        return terms

    def problem(self, model: Any) -> str | None:
        if model.source_channels is not None:
            return "D also sees the source, which is not transformed"
        height, width = sides(model.hparams.get("image_size", 64))
        if int(self.shift * max(height, width)) == 0 and not (self.flip and width > 1):
            return f"at {height}x{width} pixels T changes nothing; use larger images, or raise shift"
        return None


class ZCR(Penalty):
    """For neighbouring latents, penalises differences between D's scores, and rewards those between G's images.

    D minimises `discriminator` * E (D(G(z)) - D(G(z + `noise` * n)))^2, with n ~ N(0, 1). G minimises -`generator` *
    E (G(z) - G(z + `noise` * n))^2, a mean over images and pixels (Zhao et al. 2020, arXiv:2002.04724, algorithm 2).
    Together with `BCR` it is the paper's ICR. The defaults are StudioGAN's for BigGAN on CIFAR-10. Not for translators.

    Args:
        discriminator: weight of D's term.
        generator: weight of G's term.
        noise: standard deviation of the change of the latent.
    """

    fakes = True

    def __init__(self, discriminator: NonNegative = 20.0, generator: NonNegative = 0.5, noise: Positive = 0.05) -> None:
        super().__init__()
        self.discriminator, self.generator, self.noise = discriminator, generator, noise

    def draw(self, n: int, shape: torch.Size, z: Any, player: str, generator: torch.Generator) -> dict[str, Any]:
        return {"noise": like(z, n, generator)}

    def neighbours(self, view: View) -> Tensor:
        """G(z + noise n)."""
        return view.make(tree_map(lambda z, n: (z + self.noise * n).to(z.dtype), view.z, view.drawn["noise"]))

    def discriminator_terms(self, view: View) -> Terms:
        gap = view.fake_score() - view.score(self.neighbours(view))
        return {"zcr": self.discriminator * gap.square().mean()}

    def generator_terms(self, view: View) -> Terms:
        gap = (view.fake - self.neighbours(view)).float()
        return {"zcr": -self.generator * gap.square().mean()}

    def problem(self, model: Any) -> str | None:
        if model.source_channels is None:
            return None
        return "it translates, so its latent may have no effect"
