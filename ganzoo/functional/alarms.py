"""What tells a healthy game from a sick one, as functions of scores and of images: ranks, distances, clusters."""

from __future__ import annotations

import torch
from torch import Tensor


def auc(a: Tensor, b: Tensor) -> float:
    """Probability in [0, 1] that a score of a [n] is larger than one of b [m], ties counting half: the area under the
    ROC curve (Hanley and McNeil 1982)."""
    return ((a[:, None] > b).float().mean() + (a[:, None] == b).float().mean() / 2).item()


def mean_distance(x: Tensor) -> float:
    """Mean Euclidean distance between two different rows of x [n >= 2, d]."""
    distances = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")  # the other one's zeros are none
    return distances.sum().item() / (len(x) * (len(x) - 1))


def clusters(x: Tensor, k: int, iterations: int = 20) -> Tensor:
    """Centres [k, d] of rows x [n >= k, d] on the CPU: k-means from k-means++ (Arthur and Vassilvitskii 2007), the same
    for the same rows."""
    generator = torch.Generator().manual_seed(0)
    centres = x[:1]
    for _ in range(k - 1):
        far = torch.cdist(x, centres).min(1).values.square() + 1e-12  # equal rows can still be drawn
        centres = torch.cat([centres, x[torch.multinomial(far, 1, generator=generator)]])
    for _ in range(iterations):
        nearest = torch.cdist(x, centres).argmin(1)
        members = [x[nearest == i] for i in range(k)]
        centres = torch.stack([m.mean(0) if len(m) else c for m, c in zip(members, centres, strict=True)])
    return centres


def reached(real: Tensor, fake: Tensor, centres: Tensor, due: float) -> float:
    """Share in [0, 1] of the reals whose cluster holds at least `due` times as large a share of the fakes.

    After Richardson and Weiss 2018 (arXiv:1805.12462), who count the clusters whose shares differ.

    Args:
        real, fake: [n, d] and [m, d].
        centres: [k, d]; a row belongs to the nearest.
        due: in (0, 1]; 1 asks for as many fakes as reals.
    """
    p, q = (torch.bincount(torch.cdist(x, centres).argmin(1), minlength=len(centres)) / len(x) for x in (real, fake))
    return p[q >= due * p].sum().item()


def near_held_out(train: Tensor, held_out: Tensor, fake: Tensor) -> float:
    """How often a fake's nearest real is a held-out one, over what chance would give: about 1 if the generator has no
    way to know which reals it was trained on, however blurred its images are; 0 if it copies.

    Args:
        train, held_out, fake: [n, d], [l, d] and [m, d]; the first two from one distribution, with no row in common.
    """
    to_train, to_held_out = (torch.cdist(fake, x).min(1).values for x in (train, held_out))
    share = (to_held_out < to_train).float().mean().item()
    return share * (len(train) + len(held_out)) / len(held_out)
