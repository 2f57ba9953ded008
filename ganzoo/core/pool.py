"""A pool of old fakes: a discriminator that is shown them, too, does not forget them."""

from __future__ import annotations

import torch
from torch import Tensor


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
