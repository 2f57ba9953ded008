"""Types of batches, latents and equations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

Latent = Any  # result of `GANModule.latent`: a tensor [n, z_dim], or any pytree of tensors with n as first size
Terms = dict[str, Tensor]  # weighted scalar terms of a loss: their sum is minimised, each is logged


class Batch(TypedDict, total=False):
    """One process's share of a training batch; the first size of every tensor is N."""

    image: Tensor  # [N, C, H, W] in [-1, 1]; the reals
    label: Tensor  # [N] int64, classes of `image`
    source: Tensor  # [N, C', H, W] in [-1, 1]; input of a translator (pix2pix, CycleGAN)
    labelled: tuple[Tensor, Tensor]  # (image, label): labelled images for semi-supervised learning
    z: Latent  # latents: `minimize` adds them and all else from `GANModule.draw`, so equations draw nothing
    u: Tensor  # [N] uniform in [0, 1): interpolation weights of reals and fakes, if the variant draws them
    perturbation: Tensor  # [N, 2, C, H, W] normal: added to reals and fakes, for gradients by differences of scores
    noise: list[Tensor]  # [N, 1, h, w] standard normal, for the layers of a generator that adds it
    soft: Tensor  # [N, 2, ...] uniform in [0.8, 1): margins of FastGAN's hinge loss, for reals and fakes
    quadrant: Tensor  # [N] int64, 0 to 3: the part of an image that a decoder reconstructs
    mixed: Any  # style mixing: second latents, and for each image the first layer that has their style
    directions: Tensor  # [N, C, H, W] normal: y of StyleGAN2's path lengths |J' y|
    keys: Tensor  # [N] int64 seeds of the augmentation, if there is one
    pseudo: Any  # random inputs of the fakes that replace reals, with APA
    drawn: dict[str, Any]  # random inputs of each penalty, by its name
    fakes: Any  # returned by `GANModule.fakes` if present: shared by both players, or from a pool


Equation = Callable[[Batch], Terms]


def full_precision(output: Any) -> Any:
    """A tensor or pytree of tensors in at least float32: half precision is too coarse for means and squares."""
    return _map(lambda t: t.float() if t.dtype in (torch.bfloat16, torch.float16) else t, output)


def floats_as(dtype: Any, tree: Any, device: Any = None) -> Any:
    """A pytree with its floating-point tensors converted to a dtype, and all on a device, if one is given."""
    return _map(lambda t: t.to(device or t.device, dtype if t.is_floating_point() else t.dtype), tree)


def _map(change: Callable[[Tensor], Tensor], tree: Any) -> Any:
    if isinstance(tree, Tensor):  # the usual case; `tree_map` is slow
        return change(tree)
    return tree_map(lambda leaf: change(leaf) if isinstance(leaf, Tensor) else leaf, tree)
