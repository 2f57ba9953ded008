"""Penalties against closed forms and finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ganzoo.functional.penalties import gradient_penalty


def batch(n=5):
    generator = torch.Generator().manual_seed(0)
    x, fake = (torch.randn(n, 1, 2, 3, generator=generator) for _ in range(2))
    return x, fake, torch.rand(n, generator=generator)


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_penalty_of_a_linear_critic_depends_on_its_weight_norm(scale):
    w = torch.randn(6) * scale
    penalty = gradient_penalty(lambda x: x.flatten(1) @ w, *batch())
    torch.testing.assert_close(penalty, (w.norm() - 1) ** 2)


def test_penalty_of_a_critic_with_unit_gradient_is_zero():
    w = torch.randn(6)
    assert gradient_penalty(lambda x: x.flatten(1) @ (w / w.norm()), *batch()) < 1e-12


def test_penalty_of_a_quadratic_critic_is_taken_at_the_interpolates():
    """f = a |x|^2 / 2 has the gradient a x: the penalty determines the interpolate, u real + (1 - u) fake."""
    x, fake, u = batch()
    a = torch.tensor(0.7, requires_grad=True)
    penalty = gradient_penalty(lambda x: a * x.square().sum((1, 2, 3)) / 2, x, fake, u)
    norms = torch.stack([(u[i] * x[i] + (1 - u[i]) * fake[i]).norm() for i in range(len(x))])
    torch.testing.assert_close(penalty, (0.7 * norms - 1).square().mean())
    (gradient,) = torch.autograd.grad(penalty, a)
    torch.testing.assert_close(gradient, (2 * (0.7 * norms - 1) * norms).mean())


def test_gradient_of_the_penalty_matches_finite_differences():
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(0))
    weight, given = critic[1].weight, batch()
    (exact,) = torch.autograd.grad(gradient_penalty(critic, *given), weight)
    step, direction = 1e-2, torch.randn_like(weight)
    penalties = []
    for sign in (1, -1):
        with torch.no_grad():
            weight.add_(direction, alpha=sign * step)
        penalties.append(gradient_penalty(critic, *given).item())
        with torch.no_grad():
            weight.sub_(direction, alpha=sign * step)
    assert (exact * direction).sum().item() == pytest.approx((penalties[0] - penalties[1]) / (2 * step), rel=1e-3)


def test_gradient_of_the_penalty_is_finite_for_a_constant_critic():
    a = torch.zeros((), requires_grad=True)
    penalty = gradient_penalty(lambda x: a * x.sum((1, 2, 3)), *batch())
    assert penalty == 1
    assert torch.autograd.grad(penalty, a)[0].isfinite()


def test_the_penalty_is_computed_in_float32_under_autocast():
    seen = []

    def critic(x):
        score = nn.functional.linear(x.flatten(1), torch.ones(1, 6)).squeeze(1)
        seen.append(score.dtype)
        return score

    x, fake, u = batch()
    with torch.autocast("cpu", torch.bfloat16):
        penalty = gradient_penalty(critic, x, fake.bfloat16(), u)
    assert seen == [torch.float32] and penalty.dtype == torch.float32
    torch.testing.assert_close(penalty, torch.tensor((6**0.5 - 1) ** 2))
