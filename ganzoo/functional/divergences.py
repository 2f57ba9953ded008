"""Divergences between two densities p (data) and q (generator) on a line, in nats and float64.

Integrals use the trapezoidal rule on an even grid x [n]; for smooth densities that vanish at both ends the error is
about 1e-12. Densities are passed as logarithms [n].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

LOG_2 = math.log(2)


class Gaussian(NamedTuple):
    """N(mean, std^2)."""

    mean: float
    std: float

    def log_density(self, x: Tensor) -> Tensor:
        return -0.5 * ((x.double() - self.mean) / self.std) ** 2 - math.log(self.std * math.sqrt(2 * math.pi))


# Closed forms


def gaussian_kl(p: Gaussian, q: Gaussian) -> float:
    """KL(p || q); the reverse KL is gaussian_kl(q, p)."""
    return math.log(q.std / p.std) + (p.std**2 + (p.mean - q.mean) ** 2) / (2 * q.std**2) - 0.5


def gaussian_pearson(p: Gaussian, q: Gaussian) -> float:
    """Integral of (p - q)^2 / q; infinite if std_p >= sqrt(2) std_q."""
    left = 2 * q.std**2 - p.std**2
    if left <= 0:
        return math.inf
    return q.std**2 / (p.std * math.sqrt(left)) * math.exp((p.mean - q.mean) ** 2 / left) - 1


def gaussian_hellinger(p: Gaussian, q: Gaussian) -> float:
    """Integral of (sqrt p - sqrt q)^2, from 0 to 2."""
    square = p.std**2 + q.std**2
    return 2 - 2 * math.sqrt(2 * p.std * q.std / square) * math.exp(-((p.mean - q.mean) ** 2) / (4 * square))


def gaussian_wasserstein_1(p: Gaussian, q: Gaussian) -> float:
    """E |(mean_p - mean_q) + (std_p - std_q) z|, z ~ N(0, 1): optimal transport in 1-D matches quantiles."""
    shift, scale = abs(p.mean - q.mean), abs(p.std - q.std)
    if scale == 0:
        return shift
    ratio = shift / scale
    return scale * math.sqrt(2 / math.pi) * math.exp(-(ratio**2) / 2) + shift * math.erf(ratio / math.sqrt(2))


# By quadrature


def integral(values: Tensor, x: Tensor) -> float:
    return torch.trapezoid(values.double(), x.double()).item()


def expectation(values: Tensor, log_density: Tensor, x: Tensor) -> float:
    """Integral of density times values; values at points of zero density count as 0, even if inf or nan."""
    return integral(torch.where(log_density == -math.inf, 0, log_density.exp() * values), x)


def kl(log_p: Tensor, log_q: Tensor, x: Tensor) -> float:
    """KL(p || q), infinite if q = 0 where p > 0."""
    return expectation(log_p - log_q, log_p, x)


def jensen_shannon(log_p: Tensor, log_q: Tensor, x: Tensor) -> float:
    """JSD = (KL(p || m) + KL(q || m)) / 2 for m = (p + q) / 2, from 0 to log 2."""
    log_m = torch.logaddexp(log_p, log_q) - LOG_2
    return (kl(log_p, log_m, x) + kl(log_q, log_m, x)) / 2


def wasserstein_1(log_p: Tensor, log_q: Tensor, x: Tensor) -> float:
    """Integral of the absolute difference of the cumulative distributions."""
    difference = torch.cumulative_trapezoid(log_p.exp() - log_q.exp(), x)
    return integral(difference.abs(), x[1:])


def value(logits: Tensor, log_p: Tensor, log_q: Tensor, x: Tensor) -> float:
    """V(D) = E_p log D + E_q log(1 - D) (Goodfellow et al. 2014, arXiv:1406.2661, eq. 1) for D = sigmoid(logits) [n].

    At most -log 4 + 2 JSD, attained by D* (theorem 1).
    """
    return expectation(logsigmoid(logits), log_p, x) + expectation(logsigmoid(-logits), log_q, x)


def optimal_logits(log_p: Tensor, log_q: Tensor) -> Tensor:
    """log p - log q: D* = sigmoid of it = p / (p + q) (proposition 1)."""
    return log_p - log_q


# The f-GAN family


class FDivergence(NamedTuple):
    """D_f(p || q) = integral of q f(p / q), and its variational bound E_p T - E_q f*(T), T = g_f(V).

    Nowozin et al. 2016 (arXiv:1606.00709), eq. 4 and 6, tables 1 and 2. The compositions are written
    out by hand, to avoid overflow and to stay inside the domain of f*. All activations increase with V: a large output
    means "real". The bound equals D_f at V = V*.

    The paper's "Pearson chi^2" is f(u) = (u - 1)^2, the integral of (p - q)^2 / q; its "Jensen-Shannon" is 2 JSD; its
    "GAN" is 2 JSD - log 4, so f(1) is not 0.

    Attributes:
        f: the convex function of u = p / q that defines the divergence.
        conjugate: f*(t) = sup_u (u t - f(u)).
        activation: g_f(V), maps the reals into the domain of f*; the integrand of E_p.
        fake: f*(g_f(V)), the integrand of E_q.
        optimal: V* as a function of log p - log q, so that g_f(V*) = f'(p / q).
    """

    f: Callable[[Tensor], Tensor]
    conjugate: Callable[[Tensor], Tensor]
    activation: Callable[[Tensor], Tensor]
    fake: Callable[[Tensor], Tensor]
    optimal: Callable[[Tensor], Tensor]

    def divergence(self, log_p: Tensor, log_q: Tensor, x: Tensor) -> float:
        """D_f(p || q) by quadrature; nan if p / q overflows on the grid: use a shorter grid."""
        return integral(log_q.exp() * self.f((log_p - log_q).exp()), x)

    def bound(self, output: Tensor, log_p: Tensor, log_q: Tensor, x: Tensor) -> float:
        """E_p g_f(V) - E_q f*(g_f(V)) by quadrature, for the outputs V [n]."""
        return expectation(self.activation(output), log_p, x) - expectation(self.fake(output), log_q, x)


def _identity(v: Tensor) -> Tensor:
    return v


F_DIVERGENCES = {
    "kl": FDivergence(
        f=lambda u: torch.xlogy(u, u),
        conjugate=lambda t: (t - 1).exp(),
        activation=_identity,
        fake=lambda v: (v - 1).exp(),
        optimal=lambda ratio: 1 + ratio,
    ),
    "reverse-kl": FDivergence(
        f=lambda u: -u.log(),
        conjugate=lambda t: -1 - (-t).log(),
        activation=lambda v: -(-v).exp(),
        fake=lambda v: v - 1,
        optimal=_identity,
    ),
    "pearson": FDivergence(
        f=lambda u: (u - 1).square(),
        conjugate=lambda t: t.square() / 4 + t,
        activation=_identity,
        fake=lambda v: v.square() / 4 + v,
        optimal=lambda ratio: 2 * ratio.expm1(),
    ),
    "hellinger": FDivergence(
        f=lambda u: (u.sqrt() - 1).square(),
        conjugate=lambda t: t / (1 - t),
        activation=lambda v: -(-v).expm1(),
        fake=torch.expm1,
        optimal=lambda ratio: ratio / 2,
    ),
    "jensen-shannon": FDivergence(
        f=lambda u: torch.xlogy(u, u) - (u + 1) * ((u + 1) / 2).log(),
        conjugate=lambda t: -(2 - t.exp()).log(),
        activation=lambda v: LOG_2 + logsigmoid(v),
        fake=lambda v: softplus(v) - LOG_2,
        optimal=_identity,
    ),
    "gan": FDivergence(
        f=lambda u: torch.xlogy(u, u) - (u + 1) * (u + 1).log(),
        conjugate=lambda t: -(-t.exp()).log1p(),
        activation=lambda v: -softplus(-v),
        fake=softplus,
        optimal=_identity,
    ),
}
