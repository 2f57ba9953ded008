"""Penalties of the gradient of D's score with respect to the image."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor
from torch.nn.functional import relu

from ganzoo.core.limits import Count, Limits, NonNegative
from ganzoo.core.types import Terms
from ganzoo.functional.penalties import between, squared_differences, squared_gradients
from ganzoo.penalties.base import Penalty, View, is_random, mixes_images, moves

Step = Annotated[float, Limits(1e-4, 1)]  # smaller ones vanish in float32


class _OfGradients(Penalty):
    """Base class: the score of an image must not depend on the other images of the batch."""

    def problem(self, model: Any) -> str | None:
        cause = mixes_images(model.discriminator)
        return cause and f"D has {cause}, so an image's score has no gradient of its own; use a D without it"


class R1(_OfGradients):
    """Penalises the squared norm of the gradient of D's score with respect to the image, at reals.

    D minimises weight / 2 E |grad D(x)|^2 (Mescheder et al. 2018, arXiv:1801.04406, eq. 9). With `interval` k > 1 it
    does so in every k-th batch only, times k, in an optimizer step of its own; D's Adam then has the learning rate r lr
    and the decays beta^r, with r = k / (k + 1) (Karras et al. 2020, StyleGAN2, arXiv:1912.04958, appendix B).

    Training refuses it (MisconfigurationException) if D has batch norm, minibatch discrimination or minibatch standard
    deviation, since an image's score then depends on other images; and with `difference`, if D has dropout, noise or
    spectral norm.

    Args:
        weight: gamma.
        interval: k, batches per update on the penalty; 1: part of every update of D.
        difference: eps, 1e-4 to 1: E ((D(x + eps n) - D(x)) / eps)^2 with n ~ N(0, 1) replaces the squared gradient,
            to which it is equal up to O(eps^2). It needs no second derivatives, but a single n has a relative standard
            deviation of sqrt 2. A paper's term lambda (D(x + eps n) - D(x))^2 has lambda = `weight` / (2 eps^2). None:
            the gradient itself.
    """

    def __init__(self, weight: NonNegative = 10.0, interval: Count = 1, difference: Step | None = None) -> None:
        super().__init__()
        self.weight, self.interval, self.difference = weight, interval, difference

    def draw(self, n: int, shape: torch.Size, z: Any, player: str, generator: torch.Generator) -> dict[str, Any]:
        if self.difference is None:
            return {}
        return {"noise": torch.randn((n, *shape), device=generator.device, generator=generator)}

    def discriminator_terms(self, view: View) -> Terms:
        return {self.name: self.weight / 2 * self.squares(view, "image").mean()}

    def squares(self, view: View, key: str) -> Tensor:
        """The squared gradient's norm, or its estimate, of each real ("image") or fake ("fakes"), [N]."""
        x, score = (view.real, view.real_score) if key == "image" else (view.fake, view.fake_score)
        if self.difference is None:
            return squared_gradients(view.score, x)
        before = score()
        half = torch.is_autocast_enabled(x.device.type)  # too coarse for differences
        with torch.autocast(x.device.type, enabled=False):
            before = view.beside(key, x.float()) if half else before
            after = view.beside(key, x.float() + self.difference * view.drawn["noise"])
            return squared_differences(before, after, self.difference)

    def problem(self, model: Any) -> str | None:
        cause = None if self.difference is None else is_random(model.discriminator) or moves(model.discriminator)
        return super().problem(model) or (
            cause and f"D has {cause}, so two of its scores differ even for the same image; leave difference out"
        )


class R2(R1):
    """Penalises the squared norm of the gradient of D's score with respect to the image, at fakes.

    As `R1`, with G(z) instead of x (Mescheder et al. 2018, arXiv:1801.04406, eq. 10).

    Args:
        weight: gamma.
        interval: as in `R1`.
        difference: as in `R1`.
    """

    fakes = True

    def discriminator_terms(self, view: View) -> Terms:
        return {self.name: self.weight / 2 * self.squares(view, "fakes").mean()}


class GradientPenalty(_OfGradients):
    """Penalises the norm of D's gradient at points between reals and fakes, if it differs from `norm`.

    D minimises `weight` * E (|grad D(x_u)| - `norm`)^2 with x_u = u x + (1 - u) G(z) and u uniform in [0, 1);
    zero-centred with `norm` 0 (Thanh-Tung et al. 2019, arXiv:1902.03984). With `one_sided`, only norms above `norm` are
    penalised: `weight` * E max(0, |grad D(x_u)| - `norm`)^2 (Petzka et al. 2018, arXiv:1709.08894). `WGANGP` has the
    two-sided penalty of norm 1 in its equation.

    Args:
        weight: lambda.
        norm: of the gradient, at which the penalty is 0.
        one_sided: do not penalise shorter gradients.
        interval: as in `R1`.
    """

    fakes = True

    def __init__(
        self, weight: NonNegative = 10.0, norm: NonNegative = 0.0, one_sided: bool = False, interval: Count = 1
    ) -> None:
        super().__init__()
        self.weight, self.norm, self.one_sided, self.interval = weight, norm, one_sided, interval

    @property
    def name(self) -> str:
        return "gradient_penalty"

    def draw(self, n: int, shape: torch.Size, z: Any, player: str, generator: torch.Generator) -> dict[str, Any]:
        return {"u": torch.rand(n, device=generator.device, generator=generator)}

    def discriminator_terms(self, view: View) -> Terms:
        squares = squared_gradients(view.score, between(view.real, view.fake, view.drawn["u"]))
        if self.norm:
            excess = squares.clamp(min=1e-12).sqrt() - self.norm  # the root has no derivative at 0
            squares = (relu(excess) if self.one_sided else excess).square()
        return {self.name: self.weight * squares.mean()}
