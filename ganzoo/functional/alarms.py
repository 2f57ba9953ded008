"""Statistics for the training diagnostics: AUC, distances, clusters."""

from __future__ import annotations

import warnings

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor


def auc(a: Tensor, b: Tensor) -> float:
    """Area under the ROC curve: probability in [0, 1] that a score of a [n] exceeds one of b [m], ties counting half
    (Hanley and McNeil 1982)."""
    from sklearn.metrics import roc_auc_score  # imported here, as it takes half a second

    return float(roc_auc_score([1] * len(a) + [0] * len(b), torch.cat([a, b])))


def mean_distance(x: Tensor) -> float:
    """Mean Euclidean distance between distinct rows of x [n >= 2, d]."""
    return torch.pdist(x).mean().item()


def clusters(x: Tensor, k: int) -> Tensor:
    """Centres [k, d] of a k-means clustering of rows x [n >= k, d] on the CPU; deterministic.

    One thread only: more would change the rounding, and deadlock in a forked process.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than k give equal centres
        return torch.from_numpy(KMeans(k, random_state=0).fit(x.numpy()).cluster_centers_)


def reached(real: Tensor, fake: Tensor, centres: Tensor, due: float) -> float:
    """Share in [0, 1] of the reals whose cluster holds at least `due` times as large a share of the fakes.

    Follows Richardson and Weiss 2018 (arXiv:1805.12462), who count clusters whose shares differ.

    Args:
        real, fake: [n, d] and [m, d].
        centres: [k, d]; each row belongs to its nearest centre.
        due: in (0, 1]; 1 requires at least the reals' share.
    """
    p, q = (torch.bincount(torch.cdist(x, centres).argmin(1), minlength=len(centres)) / len(x) for x in (real, fake))
    return p[q >= due * p].sum().item()


def near_held_out(train: Tensor, held_out: Tensor, fake: Tensor) -> float:
    """Share of fakes whose nearest real is a held-out one, divided by the share expected by chance.

    About 1 if the fakes are independent of the choice of training images, even if blurred; 0 for copies.

    Args:
        train, held_out, fake: [n, d], [l, d] and [m, d]; the first two are disjoint samples of one distribution.
    """
    to_train, to_held_out = (torch.cdist(fake, x).min(1).values for x in (train, held_out))
    share = (to_held_out < to_train).float().mean().item()
    return share * (len(train) + len(held_out)) / len(held_out)
