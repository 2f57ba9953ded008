"""Equivariance of generators whose input can be moved and rotated (Karras et al. 2021, arXiv:2106.12423)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from ganzoo.core.limits import Count
from ganzoo.core.random import mix
from ganzoo.core.types import Batch
from ganzoo.evaluation.determinism import ieee_float32
from ganzoo.evaluation.interfaces import BLOCK, NOT_FINITE, Figures, Given, Metric, States
from ganzoo.functional.equivariance import (
    SMALLEST,
    decibels,
    rotation,
    rotation_squares,
    translation,
    translation_squares,
)

REACH = 1 / 8  # of translations to each side, in units of the image's side
Compare = Callable[[Tensor, Tensor], Tensor]  # still and moved images -> square differences [N, K]


@dataclass(frozen=True)
class Equivariance(Metric):
    """Peak signal-to-noise ratio, in dB, between images of a moved input and the moved images of the still input.

    The mean square error is that over the valid pixels and channels of all latents, each with moves of its own; the
    peak is 2, the range of images in [-1, 1]. Images are those of the averaged generator, not clamped and not rounded.
    Classes of a conditional model are drawn uniformly.

    Attributes:
        latents: the paper takes 50,000. 1,000 of 64 pixels take a few minutes on one core.
        moves: per latent; the paper takes 1.
        seed: of latents, classes and moves.
    """

    latents: Count = 1000
    moves: Count = 1
    seed: int = 0

    needs = {"fake": ("model",)}
    error = "standard error over latents"

    def count(self, fakes: int) -> int:
        return self.latents

    def check(self, given: Given) -> None:
        self.check_generator(given)
        if not given.moves:
            raise ValueError(
                f"{self.name} moves the generator's input, which no other variant than StyleGAN3 allows; "
                f"evaluate a StyleGAN3, or leave {self.name} out"
            )

    def compute(self, states: States) -> Figures:
        model = states["fake"]["model"]
        device, random = torch.device(model.device), torch.Generator().manual_seed(mix(self.seed))
        z = model.latent(self.latents, random)
        draws = torch.rand(self.latents, self.moves, 2, generator=random, dtype=torch.float64)
        usual = torch.tensor(model.trained_labels())
        labels = usual[torch.randint(len(usual), (self.latents,), generator=random)] if len(usual) else None
        blocks = []
        with ieee_float32(device):
            for rows in torch.arange(self.latents).split(BLOCK):
                given: Batch = {} if labels is None else {"label": labels[rows].to(device)}
                blocks.append(self._errors(model, z[rows].to(device), given, draws[rows]))
        sums, counts = torch.cat(blocks).unbind(1)
        if not sums.isfinite().all():
            raise ValueError(NOT_FINITE)
        mean = (sums.sum() / counts.sum()).item()
        error = None
        if self.latents > 1 and mean > 0:
            of_a_ratio = (sums - mean * counts).std().item() / counts.mean().item()
            error = 10 / math.log(10) * of_a_ratio / math.sqrt(self.latents) / mean
        return {self.name: (decibels(mean), error)}

    def _errors(self, model: Any, z: Tensor, given: Batch, draws: Tensor) -> Tensor:
        """Sums of square errors and numbers of values, [N, 2] float64, of a block, for the uniform numbers `draws`
        [N, moves, 2]."""
        still = model.moved(z, given, torch.eye(3, device=z.device).expand(len(z), 3, 3))
        device = "cpu" if z.device.type == "mps" else z.device  # MPS has no float64
        found = torch.zeros(len(z), 2, dtype=torch.float64, device=device)
        for draw in draws.unbind(1):
            moves = [self.move(u, v, *still.shape[2:]) for u, v in draw.tolist()]
            moved = model.moved(z, given, torch.stack([transform for transform, _ in moves]).to(z.device))
            for i, (_, compare) in enumerate(moves):
                squares = compare(still[i : i + 1], moved[i : i + 1])
                found[i] += torch.stack([squares.sum(), squares.new_tensor(squares.numel())])
        return found.cpu()

    @abstractmethod
    def move(self, u: float, v: float, height: int, width: int) -> tuple[Tensor, Compare]:
        """The transform [3, 3] of a move by two uniform numbers in [0, 1), and what compares still and moved images."""


@dataclass(frozen=True)
class EQTInt(Equivariance):
    """EQ-T: equivariance to translations by whole pixels, up to an eighth of the image to each side, in dB.

    High for a constant image, too. The mean is over the pixels whose origin is inside the image.
    """

    whole: ClassVar[bool] = True

    name = "eqt_int"
    figures = {"eqt_int": "higher"}
    paper = "Karras et al. 2021, arXiv:2106.12423, eq. 3 and appendix E"

    def move(self, u: float, v: float, height: int, width: int) -> tuple[Tensor, Compare]:
        dx, dy = (REACH * (2 * share - 1) * length for share, length in ((u, width), (v, height)))
        if self.whole:
            dx, dy = round(dx), round(dy)
        return translation(dx / width, dy / height), partial(translation_squares, dx=dx, dy=dy)


@dataclass(frozen=True)
class EQTFrac(EQTInt):
    """EQ-T_frac: equivariance to translations by fractions of pixels, else as eqt_int, in dB.

    The still image is moved by Lanczos' filter of 3 lobes, which limits the score of images with details of few pixels.
    """

    whole: ClassVar[bool] = False

    name = "eqt_frac"
    figures = {"eqt_frac": "higher"}
    paper = "Karras et al. 2021, arXiv:2106.12423, appendix E"


@dataclass(frozen=True)
class EQR(Equivariance):
    """EQ-R: equivariance to rotations by any angle, in dB.

    High for a constant image, too. Both images are filtered, see `rotation_squares`, which limits the score: 70 dB for
    a wave of 0.06 cycles per pixel, 40 to 50 dB for 0.2.
    """

    name = "eqr"
    figures = {"eqr": "higher"}
    paper = "Karras et al. 2021, arXiv:2106.12423, appendix E"

    def check(self, given: Given) -> None:
        super().check(given)
        height, width = given.image_size
        if height != width or height < SMALLEST:
            raise ValueError(f"eqr needs squares of {SMALLEST} pixels or more, but these images are {height}x{width}")

    def move(self, u: float, v: float, height: int, width: int) -> tuple[Tensor, Compare]:
        angle = 2 * math.pi * u
        return rotation(angle), partial(rotation_squares, angle=angle)
