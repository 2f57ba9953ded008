"""A looping video of StyleGAN3-T beside StyleGAN2 while their inputs move by fractions of a pixel.

python -m tests.campaigns.translation STYLEGAN3 STYLEGAN2 --out .github/pictures/translation.webp

The input of StyleGAN3 consists of waves, which move exactly. StyleGAN2 has no such input, so its constant input of 4x4
pixels, as a periodic signal, is moved by the same share of the image, and its noise, which would stay in place, is left
out. What then stays in place is due to its layers. The file is a WebP, since a GIF's palette would add a pattern that
does not move.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ganzoo.checkpoint.pretrained import load
from ganzoo.core.drawing import picture
from ganzoo.core.types import Batch
from ganzoo.functional.equivariance import Images, translation, translation_db
from ganzoo.theory.aliasing import translate
from ganzoo.variants.stylegan2 import StyleGAN2
from ganzoo.variants.stylegan3 import StyleGAN3

TILE = 128  # minimum width of an image, in pixels


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m tests.campaigns.translation", description=__doc__)
    parser.add_argument("stylegan3", help="a run, a checkpoint, or a folder of weights: on the left")
    parser.add_argument("stylegan2", help="likewise: on the right")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.webp")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one row for each, of class 0, 1, ...")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--radius", type=float, default=3.0, help="of the circle that images move along, in pixels")
    parser.add_argument("--quality", type=int, default=90, help="of the WebP")
    options = parser.parse_args(arguments)
    columns = []
    path = circle(options.radius, options.frames)
    for kind, images_of in ((StyleGAN3, of_stylegan3), (StyleGAN2, of_stylegan2)):
        model = load(getattr(options, kind.__name__.lower()))
        if not isinstance(model, kind):
            parser.error(f"{type(model).__name__} given where {kind.__name__} is expected")
        images = images_of(model, options.seeds)
        height, width = images(torch.eye(3)).shape[2:]
        columns.append([images(translation(dx / width, dy / height)) for dx, dy in path])
        print(f"{kind.__name__}: {translation_db(images, path[1:]):.1f} dB, EQ-T_frac of the frames")
    if columns[0][0].shape != columns[1][0].shape:
        parser.error("the images of both must have the same size and channels")
    tiles = (torch.stack(both, 1).flatten(0, 1).clamp(-1, 1) for both in zip(*columns, strict=True))
    first, *others = (picture(frame, columns=2, tile=TILE) for frame in tiles)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    first.save(options.out, save_all=True, append_images=others, duration=50, loop=0, quality=options.quality)
    print(f"{options.out}: {len(path)} frames, {options.out.stat().st_size / 1e3:.0f} kB")
    return 0


def circle(radius: float, frames: int) -> list[tuple[float, float]]:
    """(dx, dy) of a path from the origin and back, in pixels."""
    angles = [2 * math.pi * i / frames for i in range(frames)]
    return [(radius * math.sin(angle), radius * (1 - math.cos(angle))) for angle in angles]


def inputs(model: Any, seeds: Sequence[int]) -> tuple[Tensor, Batch]:
    """Latents, and the labels 0, 1, ... of a conditional model."""
    labels = None if model.num_classes is None else torch.arange(len(seeds)) % model.num_classes
    return model.seeded(seeds), {} if labels is None else {"label": labels}


def of_stylegan3(model: StyleGAN3, seeds: Sequence[int]) -> Images:
    z, given = inputs(model, seeds)
    return lambda transform: model.moved(z, given, transform.expand(len(z), 3, 3))


def of_stylegan2(model: StyleGAN2, seeds: Sequence[int]) -> Images:
    """Images of the moved constant, without noise."""
    z, given = inputs(model, seeds)
    with model.sampler() as network:
        network = deepcopy(network).eval()
    const = network.synthesis.const.detach()[None]
    noise = [torch.zeros(1, 1, *size) for size in network.synthesis.sizes]
    height, width = const.shape[2:]

    @torch.no_grad()
    def images(transform: Tensor) -> Tensor:
        dx, dy = (-transform[:2, 2]).tolist()
        network.synthesis.const.data = translate(const, dx * width, dy * height)[0]
        return network.synthesis(network.synthesis.repeated(network.mapping(z, model.labels({"z": z, **given}))), noise)

    return images


if __name__ == "__main__":
    sys.exit(main())
