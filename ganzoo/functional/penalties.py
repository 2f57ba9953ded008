"""Regularisation terms of losses."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize, relu


def gradient_penalty(f: Callable[[Tensor], Tensor], x: Tensor, fake: Tensor, u: Tensor) -> Tensor:
    """E (|grad f(x_u)| - 1)^2 at x_u = u x + (1 - u) fake (Gulrajani et al. 2017, arXiv:1704.00028, eq. 3).

    Computed in float32, even under autocast. Uses `torch.func.grad`, since `torch.compile` can differentiate it again.

    Args:
        f: images [N, C, H, W] -> scores [N]; scores of different images are independent.
        x: real images.
        fake: as many generated images, [N, C, H, W].
        u: [N] uniform in [0, 1).
    """
    with torch.autocast(x.device.type, enabled=False):
        gradient = torch.func.grad(lambda x_u: f(x_u).sum())(between(x, fake, u))
        return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def pull_away(codes: Tensor) -> Tensor:
    """Mean squared cosine similarity over pairs of codes [N, d] (f_PT, Zhao et al. 2016, arXiv:1609.03126).

    0 for orthogonal codes, 1 for parallel ones. A zero code counts as orthogonal to all; a single code gives 0.
    """
    n = len(codes)
    with torch.autocast(codes.device.type, enabled=False):
        unit = normalize(codes, dim=1)
        cosines = unit @ unit.T
    return (cosines.square().sum() - cosines.diagonal().square().sum()) / max(n * (n - 1), 1)


def squared_gradients(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """|grad f(x)|^2 of each image [N]: R1 is half its mean over reals, R2 over fakes (Mescheder et al. 2018,
    arXiv:1801.04406, eq. 9 and 10).

    Computed in float32, even under autocast, and differentiable again.

    Args:
        f: images [N, C, H, W] -> scores [N]; scores of different images are independent.
        x: images.
    """
    return scores_and_squared_gradients(f, x)[1]


def scores_and_squared_gradients(f: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """f(x) [N], and `squared_gradients` of it, by one evaluation of f; both differentiable."""

    def total(images: Tensor) -> tuple[Tensor, Tensor]:
        scores = f(images)
        return scores.sum(), scores

    with torch.autocast(x.device.type, enabled=False):
        gradient, scores = torch.func.grad(total, has_aux=True)(x.float())
        return scores, gradient.flatten(1).square().sum(1)


def path_lengths(images: Callable[[Tensor], Tensor], w: Tensor, y: Tensor) -> Tensor:
    """Path lengths [N]: the root of the mean over layers l of |J_l^T y|^2, where J_l is the Jacobian of the image with
    respect to w_l, and y a random direction (Karras et al. 2020, StyleGAN2, arXiv:1912.04958, eq. 4).

    Computed in float32, even under autocast, and differentiable again. y is divided by the square root of the number
    of pixels, so that the lengths of large images are comparable.

    Args:
        images: w -> images [N, C, H, W]; images of different w are independent.
        w: [N, L, d], one for each layer.
        y: [N, C, H, W] standard normal.
    """
    with torch.autocast(w.device.type, enabled=False):
        y = y / (y.shape[2] * y.shape[3]) ** 0.5
        gradient = torch.func.grad(lambda styles: (images(styles) * y).sum())(w)
        return gradient.square().sum(2).mean(1).sqrt()


def squared_differences(before: Tensor, after: Tensor, step: float) -> Tensor:
    """((D(x + step n) - D(x)) / step)^2 of each image [N], whose expectation over n ~ N(0, 1) is |grad D(x)|^2 up to
    O(step^2). A single n has a relative standard deviation of sqrt 2.

    Args:
        before: D(x) [N], float32.
        after: D(x + step n) [N], float32.
        step: standard deviation of the noise.
    """
    return ((after - before) / step).square()


def between(x: Tensor, fake: Tensor, u: Tensor) -> Tensor:
    """u x + (1 - u) fake, float32 [N, C, H, W], for u [N]."""
    return torch.lerp(fake.float(), x.float(), u.view(-1, *[1] * (x.ndim - 1)))


def lecam(real: Tensor, fake: Tensor, real_mean: Tensor, fake_mean: Tensor) -> Tensor:
    """E max(0, D(x) - a_F)^2 + E max(0, a_R - D(G(z)))^2, as in the code of Tseng et al. 2021 (arXiv:2104.03310).

    The paper's eq. 6 has no maximum, so it also penalises scores of reals below a_F, and of fakes above a_R.

    Args:
        real: scores of reals [N].
        fake: scores of fakes [N].
        real_mean: a_R, a moving average of D's mean score of reals.
        fake_mean: a_F, likewise of fakes.
    """
    return relu(real - fake_mean).square().mean() + relu(real_mean - fake).square().mean()


def off_diagonal(weight: Tensor) -> Tensor:
    """Sum of the squared scalar products of different rows of W [outputs, ...], flattened (Brock et al. 2018,
    arXiv:1809.11096, eq. 3): 0 if they are orthogonal, whatever their lengths."""
    rows = weight.flatten(1)
    with torch.autocast(weight.device.type, enabled=False):
        products = rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows  # of equal norm
    return products.square().sum() - rows.square().sum(1).square().sum()
