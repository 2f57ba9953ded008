"""Penalties against closed forms and finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ganzoo.functional.consistency import flip_and_shift
from ganzoo.functional.penalties import (
    between,
    gradient_penalty,
    lecam,
    off_diagonal,
    squared_differences,
    squared_gradients,
)


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


def critic():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(0))


def by_loops(network, x):
    """|grad D(x)|^2 of each image in float64: for D = v tanh(W x + b) + c it is |W' (v (1 - tanh^2))|^2."""
    (w, b), (v, _) = ([p.double() for p in layer.parameters()] for layer in (network[1], network[3]))
    squares = []
    for image in x.double().flatten(1):
        slope = v[0] * (1 - torch.tanh(w @ image + b) ** 2)
        squares.append(sum((w[:, j] @ slope) ** 2 for j in range(6)))
    return torch.stack(squares)


def test_squared_gradients_and_their_derivatives_match_float64_loops():
    network, (x, _, _) = critic(), batch()
    squares, loops = squared_gradients(network, x), by_loops(network, x)
    torch.testing.assert_close(squares.double(), loops, rtol=1e-5, atol=0)
    for weight in (network[1].weight, network[1].bias, network[3].weight):
        (mine,), (theirs,) = (torch.autograd.grad(s.sum(), weight, retain_graph=True) for s in (squares, loops))
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_squared_gradients_are_float32_under_autocast():
    network, (x, _, _) = critic(), batch()
    with torch.autocast("cpu", torch.bfloat16):
        half = squared_gradients(network, x.bfloat16())
    torch.testing.assert_close(half, squared_gradients(network, x.bfloat16().float()), rtol=0, atol=0)


def test_the_mean_of_squared_differences_is_the_squared_gradient():
    """Over 20,000 draws: within four standard errors, of sqrt(2 / n) each; a step of 1e-2 adds 1e-4 by curvature."""
    network, (x, _, _), n = critic(), batch(), 20_000
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for image, exact in zip(x, by_loops(network, x), strict=True):
            noise = torch.randn(n, *image.shape, generator=generator)
            found = squared_differences(network(image[None]), network(image + 0.01 * noise), 0.01)
            assert found.mean().item() == pytest.approx(exact.item(), rel=4 * (2 / n) ** 0.5 + 1e-3)
            assert found.std().item() == pytest.approx(2**0.5 * exact.item(), rel=0.1)


def test_between_is_the_line_from_fake_to_real():
    x, fake, u = batch()
    loops = [
        [u[i] * a + (1 - u[i]) * b for a, b in zip(x[i].flatten(), fake[i].flatten(), strict=True)] for i in range(5)
    ]
    torch.testing.assert_close(between(x, fake, u).flatten(1), torch.tensor(loops))


def test_lecam_is_one_sided():
    real, fake = torch.tensor([3.0, -1.0, 0.5]), torch.tensor([2.0, 0.0, -4.0])
    found = lecam(real, fake, torch.tensor(1.0), torch.tensor(-0.5))
    assert found.item() == pytest.approx((3.5**2 + 0 + 1.0**2) / 3 + (0 + 1.0**2 + 5.0**2) / 3)


@pytest.mark.parametrize("n", [4, 9])
def test_off_diagonal_matches_loops_and_brocks_gradient(n):
    weight = torch.randn(n, 3, 2, dtype=torch.double, requires_grad=True)
    rows = weight.flatten(1)
    loops = sum((rows[i] @ rows[j]) ** 2 for i in range(n) for j in range(n) if i != j)
    torch.testing.assert_close(off_diagonal(weight), loops)
    (gradient,) = torch.autograd.grad(off_diagonal(weight), weight)
    products = rows @ rows.T
    torch.testing.assert_close(gradient.flatten(1), 4 * (products - products.diag().diag()) @ rows)
    assert off_diagonal(3 * torch.eye(4)) == 0


def test_images_are_mirrored_and_shifted_as_by_loops():
    x = torch.arange(2 * 2 * 4 * 5.0).view(2, 2, 4, 5)
    flip, shift = torch.tensor([True, False]), torch.tensor([[1, -2], [-3, 0]])
    expected = torch.empty_like(x)
    for n in range(2):
        for i in range(4):
            for j in range(5):
                row, column = abs(i - int(shift[n, 0])), abs(j - int(shift[n, 1]))
                row, column = (6 - row if row > 3 else row), (8 - column if column > 4 else column)
                expected[n, :, i, j] = x[n, :, row, 4 - column if flip[n] else column]
    assert torch.equal(flip_and_shift(x, flip, shift), expected)
    assert torch.equal(flip_and_shift(x, flip, torch.zeros(2, 2, dtype=torch.long))[0], x[0].flip(-1))
    assert torch.equal(flip_and_shift(x, ~flip, shift.abs())[1, :, 3, 4], x[1, :, 0, 0])
