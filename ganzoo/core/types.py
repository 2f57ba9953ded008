"""What a data module hands to a variant, and what a variant's equations hand back."""

from __future__ import annotations

from typing import Any, TypedDict

from torch import Tensor

Latent = Any  # what `GANModule.latent` returns: a tensor [n, z_dim], or any pytree of tensors with n as first size
Terms = dict[str, Tensor]  # weighted scalar terms of one loss: their sum is minimised, each one is logged


class Batch(TypedDict, total=False):
    """One process's share of a training batch; every tensor has N as its first size."""

    image: Tensor  # [N, C, H, W] in [-1, 1]; what the metrics call real
    label: Tensor  # [N] int64, of `image`
    source: Tensor  # [N, C', H, W] in [-1, 1]; what a translator (pix2pix, CycleGAN) reads
    labelled: tuple[Tensor, Tensor]  # (image, label): the few labelled images of semi-supervised learning
    z: Latent  # fresh latents: `minimize` adds all that `GANModule.draw` draws, so an equation draws nothing
    u: Tensor  # [N] uniform in [0, 1): places between reals and fakes, where a variant draws them
    fakes: tuple[Tensor, Tensor]  # (image, source): those that CycleGAN shows its discriminators, some of them older
