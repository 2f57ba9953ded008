"""A pool of old fakes: a discriminator that is shown them, too, does not forget them."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

Share = dict[str, list[Tensor]]  # the images of one process's pools, by the pools' names


class ImagePool:
    """The buffer of Shrivastava et al. 2017 (arXiv:1612.07828), as CycleGAN uses it.

    While it fills, images come back as they are. Then each comes back with probability 1/2; in the other half of the
    cases a random one of the pool does, whose place it takes.

    Args:
        capacity: images kept; 0 gives back what comes in.

    Attributes:
        images: those kept, each [C, H, W].

    Raises:
        ValueError: capacity is negative.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 0:
            raise ValueError(f"pool: a number of images, 0 for none; got {capacity}")
        self.capacity = capacity
        self.images: list[Tensor] = []

    def __call__(self, images: Tensor) -> Tensor:
        """Images [N, C, H, W] -> as many, some of them older; draws from torch's global CPU generator."""
        if self.capacity == 0:
            return images
        out = []
        for image, place in zip(images, torch.randint(2 * self.capacity, (len(images),)).tolist(), strict=True):
            if len(self.images) < self.capacity:
                self.images.append(image.clone())  # a view would keep the whole batch
                out.append(image)
            elif place < self.capacity:
                out.append(self.images[place].to(image))  # a checkpoint's are on the CPU
                self.images[place] = image.clone()
            else:
                out.append(image)
        return torch.stack(out)


def shares(pools: dict[str, ImagePool]) -> list[Share]:
    """What the pools of each process hold, on the CPU: for a checkpoint, which one process writes for all."""
    mine = {name: [image.cpu() for image in pool.images] for name, pool in pools.items()}
    if not dist.is_initialized():
        return [mine]
    gathered = [mine] * dist.get_world_size()
    dist.all_gather_object(gathered, mine)
    return gathered


def refill(pools: dict[str, ImagePool], saved: list[Share]) -> None:
    """Give this process's pools their images again; where processes have become more, some get the same."""
    rank = dist.get_rank() if dist.is_initialized() else 0
    for name, images in saved[rank % len(saved)].items():
        pools[name].images = images[: pools[name].capacity]
