"""Statistics of scores and images that show how well a training goes: AUC, distances, clusters."""

from __future__ import annotations

import warnings

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor


def auc(a: Tensor, b: Tensor) -> float:
    """Probability in [0, 1] that a score of a [n] is larger than one of b [m], ties counting half: the area under the
    ROC curve (Hanley and McNeil 1982)."""
    from sklearn.metrics import roc_auc_score  # here, as the import takes half a second

    return float(roc_auc_score([1] * len(a) + [0] * len(b), torch.cat([a, b])))


def mean_distance(x: Tensor) -> float:
    """Mean Euclidean distance between two different rows of x [n >= 2, d]."""
    return torch.pdist(x).mean().item()


def clusters(x: Tensor, k: int) -> Tensor:
    """Centres [k, d] of rows x [n >= k, d] on the CPU by k-means, the same for the same rows.

    It runs on one thread: more threads would change the rounding, and would deadlock in a forked process.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # with fewer distinct rows than k some centres are equal
        return torch.from_numpy(KMeans(k, random_state=0).fit(x.numpy()).cluster_centers_)


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
    """Share of fakes whose nearest real is a held-out one, divided by the share expected by chance.

    About 1 if the fakes do not depend on which reals were in the training set, even if they are blurred; 0 for copies.

    Args:
        train, held_out, fake: [n, d], [l, d] and [m, d]; the first two from one distribution, with no row in common.
    """
    to_train, to_held_out = (torch.cdist(fake, x).min(1).values for x in (train, held_out))
    share = (to_held_out < to_train).float().mean().item()
    return share * (len(train) + len(held_out)) / len(held_out)
