"""Sampling by seeds: methods of `GANModule`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ganzoo.core import pixels
from ganzoo.core.drawing import to_pil
from ganzoo.core.limits import Count, Positive, refusal
from ganzoo.core.pixels import to_uint8
from ganzoo.core.random import mix
from ganzoo.core.types import Batch, Latent, floats_as
from ganzoo.layers.standing import batch_norms, standing

if TYPE_CHECKING:
    from ganzoo.core.module import GANModule


Output = Literal["pt", "np", "pil"]


def seeded(model: GANModule, seeds: Sequence[int]) -> Latent:
    """One latent for each seed (any whole number), on the model's device. They are drawn on the CPU, since random
    numbers differ between kinds of GPU."""
    generator = torch.Generator()
    rows = [model.latent(1, generator.manual_seed(mix(seed))) for seed in seeds]
    return tree_map(lambda *row: torch.cat(row).to(model.device), *rows)


def truncate(model: GANModule, z: Latent, truncation: float) -> Latent:
    """Latents for more typical, less diverse images, in variants that have truncation.

    Args:
        z: as drawn by `latent`.
        truncation: above 0: the bound of z's numbers (BigGAN), or psi, 1 for no truncation (StyleGAN2, StyleGAN3).

    Raises:
        ValueError: the variant has no truncation.
    """
    raise ValueError(f"truncation: {type(model).__name__} has none; leave it out")


@torch.no_grad()
def take_standing_statistics(
    model: GANModule,
    passes: Count = 16,
    batch_size: Count = 256,
    truncation: Positive | None = None,
    seed: int = 0,
) -> None:
    """Replaces the statistics of the batch norms that generate images by means over `passes` batches of fakes (Brock et
    al. 2018, arXiv:1809.11096, section 3).

    Each pass draws new latents, and labels uniformly from those with training images. The model keeps the statistics;
    call the method again for another truncation.

    Args:
        passes: number of batches.
        batch_size: images of a batch.
        truncation: of the latents, as in `sample`; None: none.
        seed: of latents and labels.

    Raises:
        ValueError: the generator has no batch norm or translates pictures, the variant has no truncation, or an
            argument is out of range.
    """
    refuse(passes=(passes, Count), batch_size=(batch_size, Count), truncation=(truncation, Positive | None))
    name, random = type(model).__name__, torch.Generator().manual_seed(seed)
    if model.source_channels is not None:
        raise ValueError(f"standing_statistics: {name} translates pictures, and its images need sources; leave it out")
    with model.sampler() as network:
        if not batch_norms(network):
            raise ValueError(f"standing_statistics: {name}'s generator has no batch norm; leave it out")
        with standing(network):
            for _ in range(passes):
                z = model.latent(batch_size, random)
                z = z if truncation is None else model.truncate(z, truncation)
                batch: Batch = {"z": z}
                if model.num_classes is not None:
                    usual = torch.tensor(model.trained_labels())
                    batch["label"] = usual[torch.randint(len(usual), (batch_size,), generator=random)]
                batch = tree_map(lambda t: t.to(model.device), batch)
                model.synthesize(network, floats_as(model.dtype, batch))


def refuse(**given: tuple[Any, Any]) -> None:
    """Raises a ValueError for the first argument whose value is not of its type: name=(value, type)."""
    for name, (value, kind) in given.items():
        if (problem := refusal(value, kind)) is not None:
            raise ValueError(f"{name} {problem}")


def sample(
    model: GANModule,
    n: int | None = None,
    *,
    seeds: Sequence[int] | None = None,
    label: int | Sequence[int] | None = None,
    source: Tensor | None = None,
    truncation: Positive | None = None,
    output_type: Output = "pt",
    batch_size: Count = 256,
) -> Any:
    """New images; a seed gives the same image on every device and in any batch.

    Args:
        n: number of images; None: as many as there are seeds, else sources, else labels, else 1.
        seeds: whole numbers, one per image; None: random ones.
        label: class of all images, or of each; None: derived from the seed, of the classes with training images.
        source: input images [n, C', H, W], floats in [-1, 1]; for a translator only.
        truncation: above 0, see `truncate`: lower values give more typical, less diverse images; None: no truncation.
        output_type: "pt" a float tensor [n, C, H, W] in [-1, 1] on the CPU; "np" a uint8 array [n, H, W, C]; "pil" a
            list of PIL images.
        batch_size: number of images generated at once.

    Raises:
        ValueError: the numbers of images, seeds, labels and sources disagree, the model does not take one of these, an
            argument is out of range, or "pil" cannot show the images (points, or more than 4 channels).
    """
    refuse(
        n=(n, int | None),
        truncation=(truncation, Positive | None),
        output_type=(output_type, Output),
        batch_size=(batch_size, Count),
    )
    labels = None if label is None else whole("label", label)
    seeds = None if seeds is None else whole("seeds", seeds)
    if n is None:
        sources = source if isinstance(source, Tensor) else None  # others are refused below
        n = next((len(given) for given in (seeds, sources, labels) if given is not None), 1)
    if n < 1:
        raise ValueError(f"n is {n}; it takes a whole number from 1 up")
    seeds = torch.randint(2**31, (n,)).tolist() if seeds is None else seeds
    if len(seeds) != n:
        raise ValueError(f"{n} images need {n} seeds, got {len(seeds)}")
    given: dict[str, Tensor] = {}
    if labels is not None or model.num_classes is not None:
        given["label"] = labels_of(model, labels, seeds)
    if source is not None or model.source_channels is not None:
        given["source"] = sources_of(model, source, n)
    parts = []
    for start in range(0, n, batch_size):
        part = slice(start, start + batch_size)
        its_given = cast(Batch, {key: value[part].to(model.device) for key, value in given.items()})
        z = model.seeded(seeds[part])
        z = z if truncation is None else model.truncate(z, truncation)
        parts.append(model.generate(z, its_given).float().cpu())
    images = torch.cat(parts)
    if output_type == "np":
        return to_uint8(images).permute(0, 2, 3, 1).numpy()
    return to_pil(images) if output_type == "pil" else images


def whole(name: str, given: Any) -> list[int]:
    """A whole number, or an iterable, array or tensor of them, as a list."""
    if isinstance(given, Tensor | np.ndarray):
        given = given.tolist()
    values = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    for value in values:
        if (problem := refusal(value, int)) is not None:
            raise ValueError(f"{name} {problem}")
    return [int(value) for value in values]


def trained_labels(model: GANModule) -> list[int]:
    """The labels that have training images, of which samples are drawn; none if the model takes no label."""
    return sorted({*range(model.num_classes or 0)} - {*model.absent})


def labels_of(model: GANModule, labels: Sequence[int] | None, seeds: Sequence[int]) -> Tensor:
    """Labels [n] of n seeds; those derived from the seeds if None."""
    if model.num_classes is None:
        raise ValueError(f"{type(model).__name__} takes no label: it is not conditional")
    if labels is None:
        usual = model.trained_labels()
        labels = [usual[mix(seed, 1) % len(usual)] for seed in seeds]
    n = len(seeds)
    labels = list(labels) * (n if len(labels) == 1 else 1)
    if len(labels) != n or not all(0 <= y < model.num_classes for y in labels):
        raise ValueError(f"give one label, or {n}, each from 0 to {model.num_classes - 1}; got {labels}")
    return torch.tensor(labels)


def sources_of(model: GANModule, source: Tensor | None, n: int) -> Tensor:
    """The source images, after a check of their number, channels and range."""
    name, channels = type(model).__name__, model.source_channels
    if channels is None:
        raise ValueError(f"{name} takes no source: it generates images from latents")
    if source is None:
        raise ValueError(f"{name} translates images: give source=[N, {channels}, H, W] in [-1, 1]")
    if not isinstance(source, Tensor):
        raise ValueError(f"the sources are of type {type(source).__name__}; {name} needs a tensor")
    if source.ndim != 4 or source.shape[:2] != (n, channels):
        raise ValueError(f"{name} needs {n} sources [{n}, {channels}, H, W], not {list(source.shape)}")
    problem = (
        "torch.uint8, not floats in [-1, 1]: use x / 127.5 - 1"
        if source.dtype == torch.uint8
        else pixels.refusal(source)
    )
    if problem is not None:
        raise ValueError(f"the sources are {problem}")
    return source
