"""Class losses of embeddings that compare the images of a batch: ContraGAN's and ReACGAN's.

Arguments are embeddings e [N, d], the proxies p [N, d] of their classes, and labels y [N]. Rows of e and p are scaled
to length 1 here, so e_i.p_i and e_i.e_j are cosines; a row of zeros has cosines 0. Computed in the dtype of e and p,
even under autocast.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize


def conditional_contrastive(e: Tensor, p: Tensor, y: Tensor, temperature: float) -> Tensor:
    """2C, a scalar: the mean of -log (P_i + S_i) / (P_i + A_i) (Kang & Park 2020, arXiv:2006.12681).

    P_i = exp(e_i.p_i / t); S_i and A_i are sums of exp(e_i.e_j / t) over j != i of the same class, and over all j != i.
    A batch of one class gives 0 and no gradient.
    """
    own, pairs = _cosines(e, p)
    logits = torch.cat([own[:, None], pairs], 1) / temperature
    others = ~torch.eye(len(y), dtype=torch.bool, device=y.device)
    same = (y[:, None] == y) & others
    return (_log_sum(logits, others) - _log_sum(logits, same)).mean()


def data_to_data(e: Tensor, p: Tensor, y: Tensor, margin: float, temperature: float) -> Tensor:
    """D2D-CE, a scalar: the mean of -log P_i / (P_i + R_i) (Kang et al. 2021, arXiv:2111.01118).

    P_i = exp(min(e_i.p_i - m_p, 0) / t); R_i is the sum of exp(max(e_i.e_j - m_n, 0) / t) over all j of other classes;
    m_p = `margin`, m_n = 1 - m_p. Easy pairs, e_i.p_i > m_p or e_i.e_j < m_n, have no gradient. A batch of one class
    gives 0 and no gradient.
    """
    own, pairs = _cosines(e, p)
    easy_own, easy_pairs = (own - margin).clamp(max=0), (pairs - (1 - margin)).clamp(min=0)
    others = easy_pairs.masked_fill(y[:, None] == y, -torch.inf)
    return cross_entropy(torch.cat([easy_own[:, None], others], 1) / temperature, torch.zeros_like(y))


def _cosines(e: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """e_i.p_i [N], and e_i.e_j [N, N]."""
    with torch.autocast(e.device.type, enabled=False):
        e, p = normalize(e, dim=1), normalize(p, dim=1)
        return (e * p).sum(1), e @ e.T


def _log_sum(logits: Tensor, chosen: Tensor) -> Tensor:
    """log of the sum of the exponentials [N] of the first column and of the chosen ones [N, N] of the others."""
    first = chosen.new_ones(len(chosen), 1)
    return logits.masked_fill(~torch.cat([first, chosen], 1), -torch.inf).logsumexp(1)
