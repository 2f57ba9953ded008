"""Classes and splits of pictures, from their files' names."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ganzoo.core.text import composed, visible
from ganzoo.data.archive import File, open_any
from ganzoo.data.base import Split
from ganzoo.data.finding import Tree, listing

SPLITS: tuple[Split, ...] = ("train", "val", "test")
SPLIT_LIKE = {"train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval"}
DATASET = "dataset.json"  # StyleGAN's file of labels
MOST_JSON, MOST_CLASSES = 1 << 26, 1_000_000  # its maximum bytes, and classes
VAL, TEST = 1, 2  # bits


def classify(root: Path, tree: Tree, names: Sequence[str]) -> tuple[list[str], list[int]]:
    """Class names, and the class of each of these pictures; warns about classes that none of them has.

    Raises:
        ValueError: A picture has no class, dataset.json is damaged, or the classes seem to be one level lower.
    """
    if (file := tree.others.get(DATASET)) is not None:
        numbers = _listed(file, names)
        classes = [str(number) for number in range(max(numbers, default=-1) + 1)]
    else:
        splits = tuple(f"{split}/" for split in SPLITS)
        depth = int(all(name.startswith(splits) for name in names))
        beside = [name for name in names if name.count("/") <= depth]
        if beside:
            below = f" or its folders {', '.join(SPLITS)}" if depth else ""
            raise ValueError(
                f"labels=True takes the class from the subfolder, but {len(beside)} pictures lie directly in "
                f"{visible(root.absolute())}{below}: {listing(beside)}.\n"
                "Move each into the subfolder of its class, or pass labels=False."
            )
        folders = [name for name in tree.folders if name.count("/") == depth and (not depth or name.startswith(splits))]
        classes = sorted({composed(name.split("/")[depth]) for name in folders}, key=natural)
        numbered = {name: number for number, name in enumerate(classes)}
        numbers = [numbered[composed(name.split("/")[depth])] for name in names]
        below_it = sorted({name.split("/")[depth + 1] for name in names if name.count("/") > depth + 1}, key=natural)
        if len(classes) == 1 and len(below_it) > 1:
            raise ValueError(
                f"all pictures in {visible(root.absolute())} would have one class, {visible(*classes)}, whose folder "
                f"has subfolders: {listing(below_it)}.\nIf these are the classes, give the folder {visible(*classes)} "
                "itself; otherwise pass labels=False."
            )
    used = set(numbers)
    if empty := [name for number, name in enumerate(classes) if number not in used]:
        warnings.warn(
            f"{len(empty)} of {len(classes)} classes in {visible(root.absolute())} have no readable picture: "
            f"{listing(empty)}.\nThey keep their numbers; remove their folders if they are not classes.",
            stacklevel=3,
        )
    return classes, numbers


def _listed(file: File, names: Sequence[str]) -> list[int]:
    """The classes of pictures in StyleGAN's dataset.json: {"labels": [["00000/img00000000.png", 6], ...]}."""
    cure = "write it with StyleGAN's dataset_tool.py, or pass labels=False"
    try:
        with open_any(file) as opened:
            content = opened.read(MOST_JSON + 1)
        if len(content) > MOST_JSON:
            raise ValueError(f"it has more than {MOST_JSON:,} bytes")
        pairs = json.loads(content)["labels"]
        numbers = {composed(name.replace("\\", "/")): number for name, number in pairs or ()}
    except (AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"{visible(file)} is not a list of labels ({error}): {cure}") from error
    if not numbers:
        raise ValueError(f"{visible(file)} has no labels: pass labels=False")
    bad = [name for name in names if (number := numbers.get(composed(name))) is None or type(number) is not int]
    if bad:
        raise ValueError(
            f"{visible(file)} has no class number for {len(bad)} pictures: {listing(bad)}.\nTo use them, {cure}."
        )
    found = [numbers[composed(name)] for name in names]
    if min(found) < 0 or max(found) >= MOST_CLASSES:
        raise ValueError(
            f"{visible(file)} has classes {min(found)} to {max(found)}, not 0 to at most {MOST_CLASSES - 1:,}"
        )
    return found


def natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """A key that sorts names with numbers by their value: "a2" before "a10", and otherwise as text."""
    parts = [part.lstrip("0") if i % 2 else part for i, part in enumerate(re.split("([0-9]+)", name))]
    return [(len(part) if i % 2 else 0, part) for i, part in enumerate(parts)], name  # 01 and 1 differ in the name


def places(names: Sequence[str]) -> list[float]:
    """What determines each picture's split: its folder, if all are splits, or else a hash of its name. Warns about
    folders that look like splits, but are not used as such."""
    if split_folders(names):
        return [{"train": 1.0, "val": -1.0, "test": -2.0}[name.split("/")[0]] for name in names]
    like, cure = _split_like(names), "rename them to train, val and test, and move all other pictures away"
    if not like and len(tops := _top_folders(names)) == 1 and "" not in tops:  # a folder or archive in another
        like = _split_like([name.partition("/")[2] for name in names])
        cure = f"give the folder {visible(*tops)} itself, with splits named train, val and test"
    if len(like) > 1:
        warnings.warn(
            f"the folders {', '.join(map(visible, like))} look like splits, but are not used as splits, so test "
            f"pictures may be trained on: {cure}",
            stacklevel=3,
        )
    return [fraction(name) for name in names]


def split_folders(names: Sequence[str]) -> bool:
    """Whether all pictures are in top-level folders train and val, train and test, or all three."""
    folders = _top_folders(names)
    return "train" in folders and len(folders) > 1 and folders <= set(SPLITS)


def _split_like(names: Sequence[str]) -> list[str]:
    """The top-level folders whose names are those of splits, in any spelling."""
    return sorted(folder for folder in _top_folders(names) if folder.casefold() in SPLIT_LIKE)


def _top_folders(names: Sequence[str]) -> set[str]:
    """The top-level folders; "" for pictures that are in none."""
    return {name.split("/")[0] if "/" in name else "" for name in names}


def held_out(place: Tensor, val_fraction: float) -> Tensor:
    """In which held-out splits pictures are, [N]: `VAL`, `TEST`, both, or 0 for train.

    Args:
        place: [N], from `places`.
        val_fraction: See `ImageFolder`.
    """
    found = torch.where(place < val_fraction, VAL | TEST, 0)
    if (place == -1).any() and (place == -2).any():
        found[place == -1], found[place == -2] = VAL, TEST
    return found


def of_split(held: Tensor, split: Split) -> Tensor:
    """Indices of a split's pictures, [n].

    Args:
        held: [N], from `held_out`.
        split: Name of the split.
    """
    chosen = held == 0 if split == "train" else held & (VAL if split == "val" else TEST) > 0
    return chosen.nonzero()[:, 0]


def fraction(name: str) -> float:
    """A hash of the name, in [0, 1), the same on every machine; the name may contain bytes that are not UTF-8."""
    text = composed(name).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest()) / 2**32
