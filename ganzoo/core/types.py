"""What a data module hands to a variant, and what a variant's equations hand back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

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
    fakes: Any  # what `GANModule.fakes` gives, where it was made before: shared by both players, or taken from a pool


Equation = Callable[[Batch], Terms]


def full_precision(output: Any) -> Any:
    """A tensor, or a pytree of tensors, at least in float32: means and squares of half precision are too coarse."""
    return _map(lambda t: t.float() if t.dtype in (torch.bfloat16, torch.float16) else t, output)


def floats_as(dtype: Any, tree: Any) -> Any:
    """A pytree with its tensors of floating-point numbers in another type."""
    return _map(lambda t: t.to(dtype) if t.is_floating_point() else t, tree)


def _map(change: Callable[[Tensor], Tensor], tree: Any) -> Any:
    if isinstance(tree, Tensor):  # the usual case, without torch's slow way
        return change(tree)
    return tree_map(lambda leaf: change(leaf) if isinstance(leaf, Tensor) else leaf, tree)
