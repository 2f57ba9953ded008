"""Batches: their size, their parts, and what a model asks of them."""

from __future__ import annotations

from typing import Any, cast

from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from ganzoo.core.types import Batch


def size(batch: Any) -> int:
    """Images in a batch: the first size of its first tensor."""
    return len(batch["image"]) if "image" in batch else len(tree_leaves(batch)[0])


def check_batch(batch: Any, variant: str, **reads: int | None) -> None:
    """Refuse a batch without the keys that the variant's generator reads: those that are not None.

    Raises:
        MisconfigurationException: it is no dict, or lacks one of the keys.
    """
    if not isinstance(batch, dict):
        raise MisconfigurationException(f"a batch is a dict such as {{'image': x}}, not a {type(batch).__name__}")
    for key, read in reads.items():
        if read is not None and key not in batch:
            raise MisconfigurationException(
                f"{variant} reads batch[{key!r}], and these batches have only {', '.join(batch)}"
            )


def check_pictures(error: Exception) -> None:
    """Say what torch means where a batch norm meets one picture, whose mean it would take away from itself.

    Raises:
        MisconfigurationException: the error comes from such a norm.
    """
    if "more than 1 value per channel" in str(error):
        raise MisconfigurationException(
            "a batch norm needs two pictures or more: in each batch, each of its microbatches, and each process's share"
        ) from error


def microbatches(batch: Batch, k: int) -> list[Batch]:
    """k equal parts of a batch, one after the other.

    Raises:
        MisconfigurationException: k does not divide the number of images.
    """
    if k == 1:
        return [batch]
    for tensor in tree_leaves(batch):
        if len(tensor) % k:
            raise MisconfigurationException(f"microbatches: {k} does not divide each process's {len(tensor)} images")
    return [cast(Batch, tree_map(lambda t, i=i: t.chunk(k)[i], batch)) for i in range(k)]


def share(drawn: Batch, rank: int, world_size: int) -> Batch:
    """One process's slice of what was drawn for all of them together."""
    if world_size == 1:
        return drawn

    def part(tensor: Tensor) -> Tensor:
        n = len(tensor) // world_size
        return tensor[rank * n : (rank + 1) * n]

    return cast(Batch, tree_map(part, drawn))
