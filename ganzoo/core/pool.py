"""A pool of earlier fakes, on which the discriminator is trained again."""

from __future__ import annotations

import torch
from torch import Tensor

from ganzoo.core.processes import of_all, rank_and_world

Share = dict[str, list[Tensor]]  # the images of one process by the name of their pool


class ImagePool:
    """The buffer of Shrivastava et al. 2017 (arXiv:1612.07828), as used in CycleGAN.

    While the pool fills, images are returned unchanged. Then, with probability 1/2, an image is exchanged for a random
    one of the pool.

    Args:
        capacity: maximum number of images; 0 returns all images unchanged.

    Attributes:
        images: those in the pool, each [C, H, W].

    Raises:
        ValueError: capacity is negative.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 0:
            raise ValueError(f"pool is {capacity}; it takes a number of images, or 0 for no pool")
        self.capacity = capacity
        self.images: list[Tensor] = []

    def __call__(self, images: Tensor) -> Tensor:
        """Images [N, C, H, W] -> as many, some from the pool; uses torch's global CPU generator."""
        if self.capacity == 0:
            return images
        out = []
        for image, place in zip(images, torch.randint(2 * self.capacity, (len(images),)).tolist(), strict=True):
            if len(self.images) < self.capacity:
                self.images.append(image.clone())  # a view would keep the whole batch in memory
                out.append(image)
            elif place < self.capacity:
                out.append(self.images[place].to(image))  # images of a checkpoint are on the CPU
                self.images[place] = image.clone()
            else:
                out.append(image)
        return torch.stack(out)


def shares(pools: dict[str, ImagePool]) -> list[Share]:
    """The images of each process, on the CPU, for a checkpoint, which one process writes."""
    mine = {name: [image.cpu() for image in pool.images] for name, pool in pools.items()}
    return of_all(mine)


def refill(pools: dict[str, ImagePool], saved: list[Share]) -> None:
    """Restore this process's pools; with more processes than were saved, some get the same images."""
    rank, _ = rank_and_world()
    for name, images in saved[rank % len(saved)].items():
        pools[name].images = images[: pools[name].capacity]
