"""Latent arithmetic (Radford et al. 2015, arXiv:1511.06434, section 6.3.2)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import pad

import ganzoo
from ganzoo.core.module import GANModule
from ganzoo.core.pixels import to_float, to_uint8
from ganzoo.data import Digits
from ganzoo.evaluation.extractors import Classifier
from ganzoo.theory.base import GENERATOR, panels
from ganzoo.theory.parts import seeded

TRAITS = ("slant", "height", "side", "ink")


def traits(images: Tensor) -> dict[str, Tensor]:
    """Four measures [N] of digits [N, 1, S, S] in [-1, 1], in units where the image spans [-1, 1].

    "slant": horizontal shift of the ink per unit of height; "height" and "side": vertical and horizontal position of
    its centre; "ink": its amount, from 0 to 1.
    """
    ink = (images[:, 0].double().clamp(-1, 1) + 1) / 2
    mass = ink / ink.sum((1, 2), keepdim=True)
    at = torch.linspace(-1, 1, ink.shape[-1], dtype=torch.float64)
    x, y = mass.sum(1) @ at, mass.sum(2) @ at
    dx, dy = at - x[:, None], at - y[:, None]
    slant = -torch.einsum("nij,ni,nj->n", mass, dy, dx) / torch.einsum("nij,ni->n", mass, dy.square())
    return {"slant": slant, "height": -y, "side": x, "ink": ink.mean((1, 2))}


def digits(images: Tensor) -> tuple[Tensor, Tensor]:
    """The class of each image [N] and its probability [N], by the shipped classifier."""
    probabilities = Classifier("digits")(to_uint8(images))["logits"].softmax(1)
    return probabilities.argmax(1), probabilities.amax(1)


class Samples(NamedTuple):
    """A model's samples of `latents` [N, z_dim]: `images`, their `traits`, and for each digit with enough confident
    samples the `rows` of these; and the training images, `reals`, at the same size.
    """

    model: GANModule
    latents: Tensor
    images: Tensor
    traits: dict[str, Tensor]
    rows: dict[int, Tensor]
    reals: Tensor


def samples(model: GANModule, n: int = 2000, seed: int = 0) -> Samples:
    """n samples; those with a classifier probability of at least 90 % are used; a digit needs 50 of them."""
    latents = model.latent(n, seeded(seed))
    images = model.generate(latents)
    digit, sure = digits(images)
    rows = {k: ((digit == k) & (sure > 0.9)).nonzero()[:, 0] for k in range(10)}
    often = {k: found for k, found in rows.items() if len(found) >= 50}
    reals = to_float(Digits(image_size=images.shape[-1]).make_dataset("train").images)
    return Samples(model, latents, images, traits(images), often, reals)


class Draws(NamedTuple):
    """Rows of exemplars [draws, exemplars] for a - b + c, c's `digit`, and the expected direction (1, -1) of the trait,
    `way`.

    a and b are samples of one digit, from the highest and lowest fifth of the trait or vice versa; c is any sample of
    another digit. By chance, the trait changes in either direction equally often.
    """

    a: Tensor
    b: Tensor
    c: Tensor
    digit: Tensor
    way: Tensor


def exemplars(pool: Samples, trait: str, k: int = 3, draws: int = 300, contrast: bool = True, seed: int = 0) -> Draws:
    """Without `contrast`, a and b are arbitrary samples of their digit."""
    generator = seeded(seed)
    ordered = {digit: rows[pool.traits[trait][rows].argsort()] for digit, rows in pool.rows.items()}

    def some(rows: Tensor) -> Tensor:
        return rows[torch.randint(len(rows), (k,), generator=generator)]

    found = []
    for draw in range(draws):
        one, other = (list(ordered)[i] for i in torch.randperm(len(ordered), generator=generator)[:2])
        rows, way = ordered[one], 1 - 2 * (draw % 2)
        low, high = (rows[: len(rows) // 5], rows[-(len(rows) // 5) :]) if contrast else (rows, rows)
        a, b = (high, low) if way > 0 else (low, high)
        found.append((some(a), some(b), some(ordered[other]), torch.tensor(other), torch.tensor(way)))
    return Draws(*map(torch.stack, zip(*found, strict=True)))


class Arithmetic(NamedTuple):
    """Images of a - b + c, and their evaluation.

    Attributes:
        images: one per draw.
        moved: share of draws whose trait, compared with that of c's mean, changed in the expected direction.
        kept: share classified as c's digit.
        distance: mean distance to the nearest training image, divided by that of the model's samples.
    """

    images: Tensor
    moved: float
    kept: float
    distance: float


def arithmetic(pool: Samples, trait: str, drawn: Draws, pixels: bool = False) -> Arithmetic:
    """G(mean a - mean b + mean c) of latents, or the same sum of pixels (Radford et al. 2015, section 6.3.2)."""

    def image(x: Tensor) -> Tensor:
        return x.clamp(-1, 1) if pixels else pool.model.generate(x)

    a, b, c = ((pool.images if pixels else pool.latents)[rows].mean(1) for rows in drawn[:3])
    result, start = image(a - b + c), image(c)
    step = traits(result)[trait] - traits(start)[trait]
    near, usual = (
        torch.cdist(x.flatten(1), pool.reals.flatten(1)).amin(1).mean().item()
        for x in (result, pool.images[: len(result)])
    )
    moved, kept = step * drawn.way > 0, digits(result)[0] == drawn.digit
    return Arithmetic(result, moved.double().mean().item(), kept.double().mean().item(), near / usual)


ARITHMETICS = {  # exemplars for each of a, b and c; pixels; contrast
    "latents, single exemplars": (1, False, True),
    "latents, means of 3": (3, False, True),
    "latents, means of 9": (9, False, True),
    "pixels, means of 3": (3, True, True),
    "latents, means of 3, no contrast": (3, False, False),
}


def latent_arithmetic() -> Figure:
    """Latent arithmetic: slanted 7s minus upright 7s plus 1s (Radford et al. 2015, arXiv:1511.06434, 6.3.2).

    With the shipped dcgan-digits and means of three exemplars; the result is surrounded by its neighbours within ±0.25.
    The same sum of pixels is an overlay. Bottom: over 300 draws of digits and exemplars, slant and position of the ink
    change in the expected direction in over 80 %, its amount in fewer; for a and b without contrast the direction is
    random. Single exemplars change the traits, too, but lose the digit and leave the neighbourhood of real digits: the
    variance of a - b + c is three times that of a latent, and about that of a latent for means of three. Even with
    three, the digit is kept in only half of the draws.
    """
    pool = samples(ganzoo.load("dcgan-digits"))
    figure, grid = panels(3, 2, 4.2, 3.6)
    drawn = slanted(pool)
    generator = seeded(0)
    means = [pool.latents[rows].mean(1) for rows in drawn[:3]]
    rows = [
        torch.cat([pool.images[row[0]], pool.model.generate(mean)]) for row, mean in zip(drawn[:3], means, strict=True)
    ]
    _mosaic(grid[0, 0], torch.cat(rows), 4)
    size = pool.images.shape[-1] + 1
    grid[0, 0].set_yticks([(i + 0.5) * size for i in range(3)], ["slanted 7\na", "upright 7\n- b", "typical 1\n+ c"])
    grid[0, 0].set_xticks([1.5 * size, 3.5 * size], ["three exemplars", "G(mean z)"])
    for axes, pixels in zip(grid[0, 1:], (False, True), strict=True):
        a, b, c = ((pool.images if pixels else pool.latents)[rows].mean(1) for rows in drawn[:3])
        noise = torch.rand((9, *(a - b + c)[0].shape), generator=generator) / 2 - 0.25
        noise[4] = 0
        around = a - b + c + noise
        _mosaic(axes, around.clamp(-1, 1) if pixels else pool.model.generate(around), 3)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title("a - b + c in pixels" if pixels else "G(a - b + c)")
        axes.set_xlabel("centre: no noise; around it: noise of up to ± 0.25")
    colours = ("tab:olive", GENERATOR, "tab:brown", "tab:gray", "lightgray")
    for number, (name, (k, pixels, contrast)) in enumerate(ARITHMETICS.items()):
        outcomes = [arithmetic(pool, trait, exemplars(pool, trait, k, contrast=contrast), pixels) for trait in TRAITS]
        places = [i + (number - 2) * 0.16 for i in range(len(TRAITS))]
        for axes, measure, bottom in zip(grid[1], ("moved", "kept", "distance"), (0, 0, 1), strict=True):
            heights = [getattr(outcome, measure) - bottom for outcome in outcomes]
            axes.bar(places, heights, 0.16, bottom, color=colours[number], label=name)
    for axes, label in zip(
        grid[1],
        ("share with the expected change", "share classified as c's digit", "distance from training images"),
        strict=True,
    ):
        axes.set_xticks(range(len(TRAITS)), TRAITS)
        axes.set_ylabel(label)
        axes.set_xlabel("trait that differs between a and b")
    grid[1, 0].axhline(0.8, color="black", linewidth=0.7, linestyle="--")
    grid[1, 0].axhline(0.5, color="black", linewidth=0.7, linestyle=":")
    grid[1, 2].axhline(1, color="black", linewidth=0.7, linestyle=":")
    grid[1, 2].set_title("relative to that of the model's samples", fontsize=9)
    figure.legend(*grid[1, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def slanted(pool: Samples, a: int = 7, c: int = 1, k: int = 3) -> Draws:
    """A hand-picked draw: slanted a, upright b, and c of average slant."""
    slant = pool.traits["slant"]
    ones = pool.rows[c][slant[pool.rows[c]].argsort()]
    ordered = pool.rows[a][slant[pool.rows[a]].argsort()]
    middle = len(ones) // 2
    some = ones[middle : middle + k]
    return Draws(ordered[-k:][None], ordered[:k][None], some[None], torch.tensor([c]), torch.tensor([1]))


def _mosaic(axes: Any, images: Tensor, columns: int) -> None:
    """Digits in rows, separated by a white line."""
    size = images.shape[-1] + 1
    framed = pad(-images[:, 0], (0, 1, 0, 1), value=1.0)
    whole = framed.unflatten(0, (-1, columns)).transpose(1, 2).reshape(-1, columns * size)
    axes.imshow(whole, cmap="gray", vmin=-1, vmax=1, extent=(0, columns * size, len(whole), 0))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
