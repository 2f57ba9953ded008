"""Scores from a classifier's predictions p(y|x) for generated images x; entropies are in nats."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ganzoo.functional.base import double


class SplitEntropy:
    """Inception score exp(E_x KL(p(y|x) || p(y))) (Salimans et al. 2016, arXiv:1606.03498) of a stream of images.

    The images are split into `splits` parts of equal size, at random, as torch-fidelity does: images sorted by class,
    split in order, would have few classes in each. Only the sums of p and of p log p are stored for each part, since
    E_x KL(p(y|x) || p(y)) = H(p(y)) - E_x H(p(y|x)).

    Args:
        n: images in total, at least `splits`.
        splits: parts; 10 is the convention.
    """

    def __init__(self, n: int, splits: int = 10) -> None:
        self.n, self.splits = n, splits
        self.seen = 0
        order = torch.from_numpy(np.random.RandomState(2020).permutation(n))  # torch-fidelity's
        self.part = torch.empty_like(order)  # of each image
        self.part[order] = (torch.arange(n) * splits + splits - 1) // n
        self.p = self.p_log_p = torch.zeros(())

    def update(self, logits: Tensor) -> None:
        """The next images' logits [b, K].

        Raises:
            ValueError: n is too small for the splits, there are more than n images, or a logit is not finite.
        """
        log_p = _log_softmax(logits)
        if not 0 < self.splits <= self.n:
            raise ValueError(
                f"an Inception score of {self.splits} splits needs n >= {self.splits} images, not {self.n}"
            )
        if self.seen + len(log_p) > self.n:
            raise ValueError(f"{self.seen + len(log_p)} rows of logits exceed n = {self.n} of an Inception score")
        if self.seen == 0:
            self.p = log_p.new_zeros(self.splits, log_p.shape[1])
            self.p_log_p = log_p.new_zeros(self.splits)
        p = log_p.exp()
        p_log_p = (p * log_p).sum(1)
        part = self.part[self.seen : self.seen + len(log_p)].to(log_p.device)
        self.p.index_add_(0, part, p)
        self.p_log_p.index_add_(0, part, p_log_p)
        self.seen += len(log_p)

    def compute(self) -> tuple[float, float]:
        """Mean and population standard deviation over the splits; each score is in [1, K].

        Raises:
            ValueError: there were fewer than n images.
        """
        if self.seen < self.n:
            raise ValueError(f"an Inception score of n = {self.n} got only {self.seen} rows of logits")
        count = self.part.bincount(minlength=self.splits).to(self.p.device)
        q = self.p / count[:, None]
        scores = (self.p_log_p / count - torch.xlogy(q, q).sum(1)).exp()
        return scores.mean().item(), scores.std(correction=0).item()


def ebgan_score(logits: Tensor) -> float:
    """I' = E_x KL(p(y) || p(y|x)) >= 0 of logits [N, K] (EBGAN: Zhao et al. 2016, arXiv:1609.03126, section 4.1).

    The paper uses it for its grid search only. The 2 after I' in the paper is a footnote mark, not an exponent.
    """
    log_p = _log_softmax(logits)
    q = log_p.exp().mean(0)
    return (torch.xlogy(q, q) - q * log_p.mean(0)).sum().item()


def _log_softmax(logits: Tensor) -> Tensor:
    return double(logits, "logits").log_softmax(1)
