"""Augmentation of what the discriminator sees: each operation against loops, its random numbers, and training."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from ganzoo.augment import DiffAugment
from ganzoo.augment.diffaugment import recoloured
from ganzoo.core.random import Numbers
from ganzoo.functional.transforms import erased, moved


def images(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def keys(n, seed=0):
    return torch.randint(2**62, (n,), generator=torch.Generator().manual_seed(seed))


def numbers(n, seed=0):
    return Numbers(keys(n, seed))


def pixels(x):
    """The indices of all pixels."""
    return [(n, c, i, j) for n, c, i, j in torch.cartesian_prod(*map(torch.arange, x.shape)).tolist()]


class Scripted:
    """Random numbers that are given, in turn."""

    def __init__(self, *values):
        self.values = list(values)

    def uniform(self, *shape):
        return self.values.pop(0)


# Random numbers


def test_numbers_are_those_of_splitmix64():
    """Of the reference in whole numbers, for a key and a counter."""

    def final(h):
        h = ((h ^ (h >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        h = ((h ^ (h >> 27)) * 0x94D049BB133111EB) % 2**64
        return h ^ (h >> 31)

    gamma, key = 0x9E3779B97F4A7C15, 2**61 + 12345
    start = final((key + 3 * gamma) % 2**64)
    expected = [(final((start + n * gamma) % 2**64) >> 40) / 2**24 for n in (1, 2, 3, 4)]
    found = Numbers(torch.tensor([5, key]), 2)
    assert found.uniform(1)[1].tolist() == expected[:1]
    assert found.uniform(3)[1].tolist() == expected[1:]


def test_numbers_are_uniform_normal_and_unrelated():
    n = 20_000
    draws = torch.cat([numbers(n).uniform(3), Numbers(keys(n), 1).uniform(3), Numbers(keys(n), 1, 0).uniform(3)], 1)
    assert draws.min() >= 0 and draws.max() < 1
    assert (draws.mean(0) - 0.5).abs().max() < 0.01 and (draws.var(0) - 1 / 12).abs().max() < 0.003
    normal = numbers(n).normal(4)
    draws = torch.cat([draws - 0.5, normal], 1)
    correlations = torch.corrcoef(draws.T) - torch.eye(13)
    assert correlations[:9, :9].abs().max() < 0.03 and correlations[9:, 9:].abs().max() < 0.03
    assert normal.mean(0).abs().max() < 0.03 and (normal.std(0) - 1).abs().max() < 0.02
    assert (normal.abs() < 1).float().mean() == pytest.approx(math.erf(math.sqrt(0.5)), abs=0.01)


def test_numbers_of_an_image_do_not_depend_on_the_batch():
    whole, part = numbers(8), Numbers(keys(8)[5:7])
    for shape in ((2,), (3, 2)):
        assert torch.equal(whole.uniform(*shape)[5:7], part.uniform(*shape))


# Each operation against loops


def test_moved_images():
    x, down, right = images(3, 2, 4, 6), torch.tensor([0, 2, -7]), torch.tensor([-1, 3, 0])
    expected = torch.zeros_like(x)
    for n, c, i, j in pixels(x):
        a, b = i - down[n], j - right[n]
        if 0 <= a < 4 and 0 <= b < 6:
            expected[n, c, i, j] = x[n, c, a, b]
    assert torch.equal(moved(x, down, right), expected)


def test_erased_images():
    x, bounds = images(2, 3, 4, 6), [(-1, 2), (2, 9), (1, 0), (3, 6)]
    expected = x.clone()
    for n, c, i, j in pixels(x):
        if bounds[0][n] <= i < bounds[1][n] and bounds[2][n] <= j < bounds[3][n]:
            expected[n, c, i, j] = 0
    assert torch.equal(erased(x, *map(torch.tensor, bounds)), expected)
    assert (expected == 0).sum() == 3 * (2 * 2 + 2 * 6)


def test_recoloured_images():
    x = images(2, 3, 2, 3)
    brightness, saturation, contrast = (torch.tensor(v, dtype=x.dtype) for v in ([0.3, -0.2], [1.7, 0], [0.6, 1.4]))
    expected = torch.empty_like(x)
    for n in range(2):
        bright = x[n] + brightness[n]
        saturated = torch.empty_like(bright)
        for c in range(3):
            for i in range(2):
                for j in range(3):
                    grey = sum(bright[k, i, j] for k in range(3)) / 3
                    saturated[c, i, j] = grey + (bright[c, i, j] - grey) * saturation[n]
        mean = sum(saturated.flatten()) / 18
        expected[n] = mean + (saturated - mean) * contrast[n]
    torch.testing.assert_close(recoloured(x, brightness, saturation, contrast), expected)


# DiffAugment


def test_diffaugment_is_colour_then_translation_then_cutout():
    """With the largest and smallest random numbers, by hand."""
    u = torch.tensor([[0.0] * 7, [1 - 2**-24] * 7, [0.5] * 7], dtype=torch.float64)
    x = images(3, 3, 16, 24)
    expected = recoloured(x, u[:, 0] - 0.5, 2 * u[:, 1], 0.5 + u[:, 2])
    expected = moved(expected, torch.tensor([-2, 2, 0]), torch.tensor([-3, 3, 0]))  # 1/8 of the sides
    expected[0, :, :4, :6] = expected[1, :, 12:, 18:] = expected[2, :, 4:12, 6:18] = 0
    assert torch.equal(DiffAugment().transform(x, Scripted(u), 3), expected)


@pytest.mark.parametrize("share", [0.5, 0.3])
def test_each_pixel_is_erased_by_a_centre_within_the_image(share):
    """The centre is uniform from border to border: H + 1 places for an even side, H pixels for an odd one."""
    ones = torch.ones(40_000, 1, 10, 10)
    left = DiffAugment(color=False, translation=0, cutout=share).transform(ones, numbers(len(ones)), 1)
    side = int(10 * share + 0.5)
    starts = [centre - side // 2 for centre in range(11 if side % 2 == 0 else 10)]
    covered = torch.tensor([sum(start <= i < start + side for start in starts) / len(starts) for i in range(10)])
    assert (left.mean(0)[0] - (1 - covered[:, None] * covered)).abs().max() < 0.02


def test_shifts_are_uniform():
    x = torch.zeros(20_000, 1, 1, 33)
    x[..., 16] = 1
    where = DiffAugment(color=False, cutout=0).transform(x, numbers(len(x)), 1)[:, 0, 0].mean(0)
    assert (where[12:21] - 1 / 9).abs().max() < 0.01 and where.sum() == pytest.approx(1, abs=1e-5)


def test_grey_has_no_saturation_and_alpha_no_colour():
    x = images(4, 4, 8, 8)
    color = DiffAugment(translation=0, cutout=0)
    grey = color.transform(x[:, :1], numbers(4), 1)
    u = numbers(4).uniform(7).double()
    torch.testing.assert_close(grey, recoloured(x[:, :1], u[:, 0] - 0.5, torch.ones(4), u[:, 2] + 0.5))
    rgba = color.transform(x, numbers(4), 4)
    assert torch.equal(rgba[:, 3], x[:, 3])
    assert torch.equal(rgba[:, :3], color.transform(x[:, :3], numbers(4), 3))


@pytest.mark.parametrize("make", [DiffAugment])
def test_transforms_are_differentiable_twice(make):
    x = images(2, 3, 5, 4).requires_grad_()
    transform = make()

    def shown(x):
        return transform.transform(x, numbers(2), 3)

    assert gradcheck(shown, x) and gradgradcheck(shown, x)
    assert torch.autograd.grad(shown(x).sum(), x)[0].any()


# Draws within an update


def active(augment, n, player=0):
    augment.keys, augment.player, augment.calls = keys(n), player, 0
    return augment


def test_every_call_has_its_own_draw_and_same_shares_one():
    x = images(4, 3, 16, 16).float()
    augment = active(DiffAugment(), 4)
    first, second = augment(x), augment(x)
    with augment.same():
        third, again = augment(x), augment(x)
    fourth = augment(x)
    assert torch.equal(third, again)
    different = [first, second, third, fourth, active(augment, 4, player=1)(x)]
    assert all(not torch.equal(a[i], b[i]) for i in range(4) for a in different for b in different if a is not b)
    replay = active(augment, 4)
    assert all(torch.equal(replay(x), expected) for expected in (first, second, third, fourth))
    augment.keys = None
    assert augment(x) is x


def test_pairs_in_one_call_share_a_transform():
    x = images(3, 3, 16, 16).float()
    together = active(DiffAugment(color=False), 3)(torch.cat([x, 2 * x]))
    assert torch.equal(2 * together[:3], together[3:])


def test_sources_move_with_their_images():
    """But keep their colours, whatever their channels."""
    x = images(4, 3, 16, 16).float()
    shown, source = active(DiffAugment(), 4).pair(x, x.repeat(1, 2, 1, 1)[:, :5])
    moving, _ = active(DiffAugment(color=False), 4).pair(x, None)
    assert torch.equal(source, moving.repeat(1, 2, 1, 1)[:, :5]) and not torch.equal(shown, moving)
    label = torch.arange(4)
    assert active(DiffAugment(), 4).pair(x, label)[1] is label


def test_half_precision_is_transformed_in_float32():
    x = images(2, 3, 8, 8).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(active(DiffAugment(), 2)(x), active(DiffAugment(), 2)(x.float()))


# Bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DiffAugment(translation=1.5), "translation is 1.5; it takes a number from 0 to 1"),
        (lambda: DiffAugment(cutout=-1), "cutout is -1; it takes a number from 0 to 1"),
        (lambda: DiffAugment(False, 0, 0), "color is false, translation 0 and cutout 0: leave augment out"),
    ],
)
def test_arguments_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()
