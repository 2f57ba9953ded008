"""Batches: size, splitting, and checks against the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from ganzoo.core import limits
from ganzoo.core.pixels import UNIT, is_points, never_negative, refusal
from ganzoo.core.types import Batch
from ganzoo.layers.minibatch import MinibatchStdDev

if TYPE_CHECKING:
    from ganzoo.core.module import GANModule


def size(batch: Any) -> int:
    """Number of images in a batch: the first size of `image`, or else of the first tensor."""
    return len(batch["image"]) if "image" in batch else len(tree_leaves(batch)[0])


class Gate:
    """Checks the keys of every batch of a training; images, labels and groups only in the first batch, since checking
    them takes time, and later batches of a loader have the same format."""

    def __init__(self) -> None:
        self.first = True

    def __call__(self, batch: Any, model: GANModule) -> None:
        check_batch(batch, model, self.first)
        if self.first and size(batch) >= model.microbatches:
            warn_of_lone_images(model.discriminator, size(batch) // model.microbatches)
        self.first = False


def check_batch(batch: Any, model: GANModule, values: bool) -> None:
    """Reject a batch that is not a `Batch`, or lacks an input of the model's networks.

    Args:
        batch: any object.
        model: `num_classes` and `source_channels` determine the required keys; its arguments `image_size`, `channels`
            and `source_channels` determine the image shapes.
        values: whether to check the images and labels, too.

    Raises:
        MisconfigurationException: the batch is rejected.
    """
    if not isinstance(batch, dict):
        raise MisconfigurationException(
            f"a batch must be a dict such as {{'image': x}}, not a {type(batch).__name__}: let the data set return "
            "{'image': x}, or {'image': x, 'label': y}"
        )
    for key, read in ("image", 1), ("label", model.num_classes), ("source", model.source_channels):
        if read is not None and key not in batch:
            raise MisconfigurationException(
                f"{type(model).__name__} needs batch[{key!r}], but the batches have only {', '.join(map(str, batch))}: "
                "let the data set return it"
            )
    if values:
        _check_values(batch, model.hparams, model.num_classes)


def _check_values(batch: dict[str, Any], arguments: Mapping[str, Any], num_classes: int | None) -> None:
    pixels, channels = arguments.get("image_size"), arguments.get("channels")
    _check_images(batch["image"], "batch['image']", channels, pixels)
    if "source" in batch:
        _check_images(batch["source"], "batch['source']", arguments.get("source_channels"))
    if num_classes is not None:
        _check_labels(batch["label"], "batch['label']", len(batch["image"]), num_classes)
    if "labelled" in batch:
        image, label = batch["labelled"]
        _check_images(image, "batch['labelled'][0]", channels, pixels)
        _check_labels(label, "batch['labelled'][1]", len(image), arguments.get("num_classes"))


def _check_images(images: Any, name: str, channels: int | None, pixels: Any = None) -> None:
    if not isinstance(images, Tensor):
        raise MisconfigurationException(f"{name} is a {type(images).__name__}, not a tensor [N, C, H, W] in [-1, 1]")
    problem = refusal(images)
    if problem is None and images.dtype != torch.get_default_dtype() and not _autocast(images):
        cure = "x / 127.5 - 1" if images.dtype == torch.uint8 else "x.float()"
        problem = f"{images.dtype}, but the model needs {torch.get_default_dtype()} in [-1, 1]: use {cure}"
    if problem is None and (images != images[0, 0, 0, 0]).any() and never_negative(images):
        problem = UNIT  # the range of a constant batch is unknown
    if problem is None and not is_points(images):  # points: their shape depends on the user's networks
        found = list(images.shape[1:])
        size = limits.sides(pixels) if limits.refusal(pixels, limits.Size) is None else (None, None)
        asked = [a if isinstance(a, int) else b for a, b in zip((channels, *size), found, strict=True)]
        if asked != found:
            problem = (
                f"[N, {', '.join(map(str, found))}], but the model needs [N, {', '.join(map(str, asked))}]: "
                "give the model their channels and image_size"
            )
    if problem is not None:
        raise MisconfigurationException(f"the images of {name} are {problem}")


def warn_of_lone_images(discriminator: nn.Module, n: int) -> None:
    """Warns if D compares none of the n images of a process and microbatch, although it has a layer for it."""
    for layer in discriminator.modules():
        if isinstance(layer, MinibatchStdDev) and layer.group != 1 and layer.images(n) == 1:
            rank_zero_warn(
                f"D compares no images, since no number from 2 to {layer.group or 4} divides the {n} of a process and "
                "microbatch; use a multiple of 4"
            )


def _autocast(images: Tensor) -> bool:
    """Whether images are in half precision under autocast, which accepts them."""
    return images.dtype in (torch.float16, torch.bfloat16) and torch.is_autocast_enabled(images.device.type)


def _check_labels(labels: Any, name: str, n: int, num_classes: int | None) -> None:
    whole = isinstance(labels, Tensor) and labels.dtype == torch.int64 and list(labels.shape) == [n]
    if not whole:
        found = f"{labels.dtype} {list(labels.shape)}" if isinstance(labels, Tensor) else f"a {type(labels).__name__}"
        raise MisconfigurationException(f"{name} is {found}; labels must be torch.int64 [{n}], one per image")
    low, high = (int(bound) for bound in labels.aminmax())
    if low < 0 or num_classes is not None and high >= num_classes:
        last = "" if num_classes is None else f" to {num_classes - 1}"
        raise MisconfigurationException(
            f"{name} has labels from {low} to {high}; the model's classes are 0{last}: number the classes from 0, or "
            "change num_classes"
        )


def explain_batch_norm(error: Exception) -> None:
    """Explain torch's error for a batch norm on a single image.

    Raises:
        MisconfigurationException: the error is of that kind.
    """
    if "more than 1 value per channel" in str(error):
        raise MisconfigurationException(
            "batch norm needs at least two images in each microbatch of each process: raise batch_size, or lower "
            "microbatches"
        ) from error


def discriminate_both(model: GANModule, x: Tensor, fakes: Tensor, y: Tensor | None = None) -> tuple[Any, Any]:
    """D's outputs for reals and for fakes with the same labels y, in one forward pass; for a D without batch norm.

    Penalties and augmentations, which recognise the reals and the fakes, need two.
    """
    if model.penalties or model.augment.keys is not None:
        return model.discriminate(x, y), model.discriminate(fakes, y)
    n, labels = len(x), None if y is None else torch.cat([y, y])
    both = model.discriminate(torch.cat([x, fakes]), labels)
    return tree_map(lambda t: t[:n], both), tree_map(lambda t: t[n:], both)


def microbatches(batch: Batch, k: int) -> list[Batch]:
    """k equal parts of a batch, in order.

    Raises:
        MisconfigurationException: k does not divide the number of images.
    """
    if k == 1:
        return [batch]
    for tensor in tree_leaves(batch):
        if len(tensor) % k:
            raise MisconfigurationException(
                f"microbatches: {k} does not divide the {len(tensor)} images of a process: choose a divisor, or change "
                "batch_size; if this is an epoch's last batch, give its DataLoader drop_last=True"
            )
    return [cast(Batch, tree_map(lambda t, i=i: t.chunk(k)[i], batch)) for i in range(k)]


def labels(model: GANModule, batch: Batch) -> Tensor | None:
    """Labels [N] of a batch, which a real and its fake share; None if the generator takes none."""
    return None if model.num_classes is None else batch["label"]


def with_draws(model: GANModule, batch: Batch) -> Batch:
    """The batch with this process's share of the random inputs of an update; unchanged if it has shared fakes."""
    if model.share_fakes and "fakes" in batch:
        return batch
    rank, world_size = model.trainer.global_rank, model.trainer.world_size
    n, random = size(batch) * world_size, model.randomness
    drawn = model.draw(n, random.shared) | model.augment.draw(model, n, random.apart)
    return {**batch, **share(cast(Batch, drawn), rank, world_size)}


def more_normal(model: GANModule, batch: Batch, *shape: int) -> Tensor:
    """Standard normal numbers [N, *shape], this process's share of those for all; independent of what `draw` draws."""
    rank, world_size = model.trainer.global_rank, model.trainer.world_size
    numbers = model.normal(model.randomness.apart, size(batch) * world_size, *shape)
    return share({"z": numbers}, rank, world_size)["z"]


def share(drawn: Batch, rank: int, world_size: int) -> Batch:
    """One process's slice of the random inputs drawn for all processes."""
    if world_size == 1:
        return drawn

    def part(tensor: Tensor) -> Tensor:
        n = len(tensor) // world_size
        return tensor[rank * n : (rank + 1) * n]

    return cast(Batch, tree_map(part, drawn))
