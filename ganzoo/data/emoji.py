"""Colour pictures with known factors that come with ganzoo: Noto's emoji."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ganzoo.core.files import read_text
from ganzoo.core.limits import Count, Pixels
from ganzoo.core.random import mix
from ganzoo.data.base import GANDataModule, Split
from ganzoo.data.datasets import ArrayImages, Chosen, Images, Merged
from ganzoo.data.derived import halves
from ganzoo.data.order import unpaired
from ganzoo.data.paired import Sources

Factor = Literal["category", "tone", "gender", "role"]
Tone = Literal["yellow", "light", "medium-light", "medium", "medium-dark", "dark"]

FILES = Path(__file__).parent / "noto"  # built by tests/campaigns/emoji.py
PACKAGE = "emoji-datasource-google@16.0.0"  # of npm
ACROSS = 64  # pictures in a row of a sheet
PORTRAITS = ("person", "person-role", "person-fantasy")  # subcategories
GENDERS = ("person", "woman", "man")
TONES: tuple[Tone, ...] = ("yellow", "light", "medium-light", "medium", "medium-dark", "dark")


class Picture(NamedTuple):
    """Labels of one picture.

    Attributes:
        code: Code points, in hexadecimal, joined by "-".
        name: In the npm package emoji-datasource-google, without the tone.
        category: One of 8, such as "People & Body".
        subcategory: One of 95, such as "person-role".
        tone: Index in `TONES`; None for pictures without a single skin tone.
        gender: One of `GENDERS`; None for pictures other than people.
        role: Of people, such as "farmer"; None for other pictures.
        base: Code points without the tone.
        split: "train", "val" or "test"; the same for all pictures of a role, or of a base without a role.
    """

    code: str
    name: str
    category: str
    subcategory: str
    tone: int | None
    gender: str | None
    role: str | None
    base: str
    split: Split


@cache
def pictures() -> tuple[Picture, ...]:
    """The labels of all pictures, in Unicode's order."""
    _, *rows = json.loads(read_text(FILES / "labels.json"))
    return tuple(Picture(*row) for row in rows)


@cache
def classes(factor: str) -> tuple[str, ...]:
    """The names of a factor's classes; roles are those of the portraits."""
    if factor in (known := {"gender": GENDERS, "tone": TONES}):
        return known[factor]
    found = (getattr(p, factor) for p in pictures() if factor != "role" or p.subcategory in PORTRAITS)
    return tuple(sorted({*found}) if factor == "role" else dict.fromkeys(found))


def class_of(picture: Picture, factor: Factor) -> int:
    """The class of a picture: its place in `classes(factor)`."""
    return picture.tone or 0 if factor == "tone" else classes(factor).index(getattr(picture, factor))


@cache
def sheet(name: str) -> Tensor:
    """The pictures of a sheet on white: uint8 [N, 3, S, S]."""
    with Image.open(FILES / name) as file:
        pixels = np.asarray(file.convert("RGBA")).astype(np.uint32)
    colour, alpha = pixels[..., :3], pixels[..., 3:]
    colour = (colour * alpha + 255 * (255 - alpha) + 127) // 255
    side = colour.shape[1] // ACROSS
    tiles = colour.astype(np.uint8).reshape(-1, side, ACROSS, side, 3).transpose(0, 2, 4, 1, 3)
    return torch.from_numpy(tiles.reshape(-1, 3, side, side))


class Emoji(GANDataModule):
    """Noto's emoji on white: 32x32 (portraits also 64x64), three channels, with known factors.

    3,501 pictures in 8 categories; or the 817 portraits, aligned people with a skin tone, a gender and a role. Flags,
    skin components and exact copies are left out.

    Splits, independent of the seed: train 2,607 (portraits: 628), val 389 (96), test 505 (93). Siblings share a split:
    people by role (52 among the portraits), other pictures by base emoji. Hence val and test have no role of train.

    Args:
        subset: "all", or "portraits" (the subcategories person, person-role and person-fantasy).
        label: The factor that is the class: "category" (8 classes) of all; "tone" (6), "gender" (3) or "role" (52) of
            the portraits. None: "category" of all, "tone" of the portraits.
        image_size: Pixels per side: 32, or 64 for the portraits.
        limit: Maximum number of training pictures, spread evenly over roles (other pictures: subcategories); None for
            all.
        **kwargs: See `GANDataModule`.

    Attributes:
        classes: The names of the classes.

    Raises:
        ValueError: The subset does not have this factor, or not this size.
    """

    image_size: int
    channels = 3
    held_out_alike = False

    def __init__(
        self,
        subset: Literal["all", "portraits"] = "all",
        label: Factor | None = None,
        image_size: Pixels = 32,
        limit: Count | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        known: tuple[Factor, ...] = ("category",) if subset == "all" else ("tone", "gender", "role")
        factor = label or known[0]
        if factor not in known:
            cure = "set subset to portraits" if subset == "all" else f"choose {', '.join(known[:-1])} or {known[-1]}"
            raise ValueError(f"label is {factor}, which the subset {subset} does not have: {cure}")
        _check_size(subset, image_size)
        self.subset, self.label, self.image_size, self.limit = subset, factor, image_size, limit
        self.name = ("Emoji" if subset == "all" else "Portraits") + (f"-{limit}" if limit else "")
        self.classes = classes(factor)
        self.num_classes = len(self.classes)
        self.extractor = f"emoji-{factor}"

    def make_dataset(self, split: Split) -> ArrayImages:
        chosen = of(self.subset, split)
        if split == "train" and self.limit:
            chosen = spread(chosen, self.limit)
        labels = torch.tensor([class_of(pictures()[i], self.label) for i in chosen])
        return ArrayImages(images_of(chosen, self.image_size), labels)


class Tones(GANDataModule):
    """Portraits of one skin tone as sources, and the same people in another as images: translation with known targets.

    Without `paired`, training batches are unpaired as for CycleGAN: images and sources come from two fixed, disjoint
    halves of the training portraits, each shuffled on its own, as a function of (seed, epoch). val and test stay
    paired, so that translations can be compared with their targets. Portraits and splits are those of `Emoji`: train
    104 pairs, val 16 and test 15. Labels are the tone of the images.

    Args:
        source: Tone of the sources.
        target: Tone of the images.
        paired: Whether training batches are paired.
        image_size: Pixels per side: 32 or 64.
        batch_size: Images per training batch, over all processes; at most 52 if unpaired.
        **kwargs: See `GANDataModule`.

    Raises:
        ValueError: Both tones are the same, or there are no portraits of this size.
    """

    image_size: int
    channels = source_channels = 3
    held_out_alike = False
    num_classes = len(TONES)
    extractor = "emoji-tone"

    def __init__(
        self,
        source: Tone = "light",
        target: Tone = "dark",
        paired: bool = True,
        image_size: Pixels = 32,
        batch_size: Count = 16,
        **kwargs: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, **kwargs)
        if source == target:
            raise ValueError(f"source and target are both {source}: choose two different tones")
        _check_size("portraits", image_size)
        self.source, self.target, self.paired, self.image_size = source, target, paired, image_size
        self.name = f"Tones-{source}-{target}" + ("" if paired else "-unpaired")

    def make_dataset(self, split: Split) -> Images:
        return Merged(*self._read(split))

    def partners(self, split: Split) -> bool:
        return self.paired or split != "train"

    def training_images(self, seed: int) -> Images:
        if self.paired:
            return super().training_images(seed)
        return unpaired(*self._read("train"), self.flipped, seed)

    def _read(self, split: Split) -> tuple[Images, Images]:
        """Images and sources; in pairs, unless they are unpaired training images."""
        found: list[Images] = []
        for tone in (self.target, self.source):
            chosen = [i for i in of("portraits", split) if pictures()[i].base in _toned()]
            chosen = [i for i in chosen if pictures()[i].tone == TONES.index(tone)]
            labels = torch.full([len(chosen)], TONES.index(tone))
            found.append(ArrayImages(images_of(chosen, self.image_size), labels))
        images, sources = found
        if self.partners(split):
            return images, Sources(sources)
        first, second = halves(len(images))
        return Chosen(images, first), Sources(Chosen(sources, second))


def of(subset: str, split: Split) -> list[int]:
    """Indices of a subset's pictures of a split."""
    return [i for i, p in enumerate(pictures()) if p.split == split and (subset == "all" or p.subcategory in PORTRAITS)]


def spread(chosen: list[int], most: int) -> list[int]:
    """At most this many of the pictures: in a fixed random order, one of each role or subcategory in turn."""
    earlier = Counter[str]()  # pictures of the same group
    turns = []
    for i in sorted(chosen, key=mix):
        group = pictures()[i].role or pictures()[i].subcategory
        turns.append((earlier[group], i))
        earlier[group] += 1
    return sorted(i for _, i in sorted(turns, key=lambda turn: turn[0])[:most])


def images_of(chosen: list[int], image_size: int) -> Tensor:
    """The pictures of these indices, uint8 [N, 3, S, S]; of 64x64, all must be portraits."""
    if image_size == 32:
        return sheet("all-32.webp")[chosen]
    portraits = [i for i, p in enumerate(pictures()) if p.subcategory in PORTRAITS]
    place = {i: k for k, i in enumerate(portraits)}
    return sheet("portraits-64.webp")[[place[i] for i in chosen]]


@cache
def _toned() -> frozenset[str]:
    """The bases of the portraits that exist in several tones."""
    return frozenset(p.base for p in pictures() if p.subcategory in PORTRAITS and p.tone)


def _check_size(subset: str, image_size: int) -> None:
    sizes = (32,) if subset == "all" else (32, 64)
    if image_size not in sizes:
        raise ValueError(
            f"image_size is {image_size}, but the subset {subset} has {' and '.join(map(str, sizes))} pixels per side: "
            f"for other sizes, run npm pack {PACKAGE}, unpack the file, and use ImageFolder on package/img/google/64"
        )
