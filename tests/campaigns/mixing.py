"""What style mixing moves in portraits: for each layer, how much of the colours comes from the image with fine styles.

python -m tests.campaigns.mixing STYLEGAN2 --out .github/pictures/mixing.png

Images have the styles of one latent below a layer, and those of another one from it on. Noto's portraits are aligned,
so hair, face and clothes are at known places. The share of a place is the slope of a regression: of the change of its
mean colour by mixing on the difference of both images.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ganzoo.checkpoint.pretrained import load
from ganzoo.core.drawing import picture
from ganzoo.variants.stylegan2 import StyleGAN2
from tests.campaigns.translation import inputs

PLACES = {"hair": (4, 14, 22, 42), "face": (24, 44, 24, 40), "clothes": (54, 62, 12, 52)}  # y, x: 64ths of a side
TILE = 64  # minimum width of an image, in pixels


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m tests.campaigns.mixing", description=__doc__)
    parser.add_argument("stylegan2", help="a run, a checkpoint, or a folder of weights")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.png")
    parser.add_argument("--pairs", type=int, default=500, help="of latents, for the table")
    parser.add_argument(
        "--rows", type=int, default=4, help="pairs in the picture: coarse on the left, fine on the right"
    )
    options = parser.parse_args(arguments)
    model = load(options.stylegan2)
    if not isinstance(model, StyleGAN2):
        parser.error(f"{type(model).__name__} given where StyleGAN2 is expected")
    mixed = mixes(model, options.pairs)
    found = shares(mixed)
    print(f"| {' | '.join(['fine from layer', 'at pixels', *found])} |")
    print("|---" * (2 + len(found)) + "|")
    for layer in range(1, len(mixed) - 1):
        pixels = model.generator.synthesis.sizes[min(layer, len(mixed) - 3)][0]
        print(f"| {layer} | {pixels} | {' | '.join(f'{share[layer]:.2f}' for share in found.values())} |")
    tiles = mixed.flip(0)[:, : options.rows].transpose(0, 1).flatten(0, 1)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    picture(tiles, columns=len(mixed), tile=TILE).save(options.out, optimize=True)
    return 0


def mixes(model: StyleGAN2, pairs: int) -> Tensor:
    """Images [L + 1, N, C, H, W]: those of the fine styles alone, ..., those of the coarse styles alone."""
    z, given = inputs(model, range(2 * pairs))
    of = [{key: tensor[i::2] for key, tensor in {"z": z, **given}.items()} for i in range(2)]
    return torch.stack([model.mix(*of, first) for first in range(model.generator.synthesis.layers + 1)])


def shares(mixed: Tensor) -> dict[str, list[float]]:
    """For each place and first fine layer, the share of the fine image: 1 at first, 0 at last."""
    found, (height, width) = {}, mixed.shape[3:]
    for place, (top, bottom, left, right) in PLACES.items():
        y, x = slice(top * height // 64, bottom * height // 64), slice(left * width // 64, right * width // 64)
        colours = mixed[..., y, x].double().mean((3, 4))
        difference, change = colours[0] - colours[-1], colours - colours[-1]
        found[place] = ((change * difference).sum((1, 2)) / difference.square().sum()).tolist()
    return found


if __name__ == "__main__":
    sys.exit(main())
