"""Augmentation of what the discriminator sees: each operation against loops, its random numbers, and training."""

from __future__ import annotations

import functools
import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from ganzoo.augment import ADA, APA, DiffAugment
from ganzoo.augment.diffaugment import shaded
from ganzoo.core.random import Numbers
from ganzoo.functional.transforms import BANK, CENTRE, SYM2, SYM6, erased, filtered, moved, recoloured, warped


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


def test_shaded_images():
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
    torch.testing.assert_close(shaded(x, brightness, saturation, contrast), expected)


def reflected(k, size):
    while not 0 <= k <= size - 1:
        k = -k if k < 0 else 2 * (size - 1) - k
    return k


def doubled(row, m):
    """Fine pixel m of a row that continues by reflection: it takes part of pixel k with tap m + 5 - 2k."""
    taps = range((m - 6) // 2, (m + 5) // 2 + 1)
    return sum(2**0.5 * SYM6[m + 5 - 2 * k] * row[reflected(k, len(row))] for k in taps if 0 <= m + 5 - 2 * k < 12)


def warped_by_loops(x, linear, offset):
    """Doubled, sampled bilinearly at each fine pixel of the result, and halved."""
    height, width = x.shape

    @functools.cache
    def fine(i, j):
        return doubled([doubled(row, j) for row in x.tolist()], i)

    def at(place, size):  # of a point, relative to the centre, in fine pixels
        place += (size - 1) / 2
        near = -3 <= place <= size + 2
        return 2 * (place if near else reflected(place, size)) + CENTRE

    def sampled(i, j):
        v = (j - CENTRE) / 2 - (width - 1) / 2, (i - CENTRE) / 2 - (height - 1) / 2
        right, down = (linear[k][0] * v[0] + linear[k][1] * v[1] + offset[k] for k in range(2))
        right, down = at(right, width), at(down, height)
        left, top = math.floor(right), math.floor(down)
        a, b = right - left, down - top
        upper = (1 - a) * fine(top, left) + a * fine(top, left + 1)
        return (1 - b) * upper + b * ((1 - a) * fine(top + 1, left) + a * fine(top + 1, left + 1))

    rows = [[sampled(i, j) for j in range(-5, 2 * width + 5)] for i in range(-5, 2 * height + 5)]
    halved = [[sum(SYM6[t] / 2**0.5 * row[2 * j + t] for t in range(12)) for j in range(width)] for row in rows]
    return torch.tensor(
        [[sum(SYM6[t] / 2**0.5 * halved[2 * i + t][j] for t in range(12)) for j in range(width)] for i in range(height)]
    )


def test_warped_images():
    x = images(2, 1, 4, 5)
    linear = torch.tensor([[[0.8, -0.5], [0.7, 0.9]], [[-2.0, 0.3], [0.1, 1.4]]], dtype=x.dtype)
    offset = torch.tensor([[1.3, -0.4], [-7.0, 2.6]], dtype=x.dtype)
    expected = [warped_by_loops(x[n, 0], linear[n].tolist(), offset[n].tolist()) for n in range(2)]
    torch.testing.assert_close(warped(x, linear, offset)[:, 0], torch.stack(expected).to(x.dtype))


def turned(n, a, b, c, d):
    return torch.tensor([[a, b], [c, d]], dtype=torch.float64).expand(n, 2, 2)


def test_warping_by_nothing_by_pixels_and_by_a_mirror():
    x, still = images(2, 3, 16, 24), torch.zeros(2, 2, dtype=torch.float64)
    torch.testing.assert_close(warped(x, turned(2, 1, 0, 0, 1), still), x)
    by = torch.tensor([[3.0, -2.0]], dtype=x.dtype).expand(2, 2)
    torch.testing.assert_close(warped(x, turned(2, 1, 0, 0, 1), by)[:, :, 2:, :-3], x[:, :, :-2, 3:])
    i, j = torch.meshgrid(torch.arange(16.0), torch.arange(24.0), indexing="ij")
    smooth = (torch.sin(i / 4) * torch.cos(j / 5 + 1)).double().expand(2, 1, 16, 24)
    mirrored = warped(smooth, turned(2, -1, 0, 0, 1), still)
    assert (mirrored - smooth.flip(3)).abs()[..., 3:-3].max() < 3e-3  # the filter is not quite symmetric
    quarter = warped(smooth, turned(2, 0, 1, -1, 0), still)[..., 4:20]
    assert (quarter - smooth[..., 4:20].rot90(-1, (2, 3))).abs()[..., 3:-3, 3:-3].max() < 3e-3


def test_wavelets_are_orthonormal_with_vanishing_moments():
    """Which defines them: SYM6 of the least asymmetric filters, SYM2 of the shortest."""
    for taps, moments in ((SYM6, 6), (SYM2, 2)):
        for k in range(moments):
            product = sum(a * b for a, b in zip(taps[2 * k :], taps, strict=False))
            assert product == pytest.approx(float(k == 0), abs=1e-11)
            moment = sum((-1) ** n * n**k * tap for n, tap in enumerate(taps))
            assert moment == pytest.approx(0, abs=1e-7)
        assert len(taps) == 2 * moments and sum(taps) == pytest.approx(2**0.5)
    assert pytest.approx(sum(n * tap for n, tap in enumerate(SYM6)) / sum(SYM6) - 5) == CENTRE


def response(taps, frequency):
    """Of a symmetric filter."""
    return sum(tap * math.cos((i - len(taps) // 2) * frequency) for i, tap in enumerate(taps))


def test_the_four_bands_are_those_of_the_wavelet():
    def low(w):  # |H(w)|^2 / 2 of SYM2
        return math.cos(w / 2) ** 4 * (2 - math.cos(w))

    for w in (0.0, 0.2, 0.6, 1.3, 2.2, math.pi):
        below = [low(w), low(w) * low(2 * w), low(w) * low(2 * w) * low(4 * w)]
        expected = [below[2], below[1] - below[2], below[0] - below[1], 1 - below[0]]
        assert [response(taps, w) for taps in BANK] == pytest.approx(expected, abs=1e-9)
    assert [response(taps, w) > 0.5 for taps, w in zip(BANK, (0.2, 0.55, 1.1, 2.4), strict=True)] == [True] * 4


def test_filtered_images():
    x, gains = images(2, 1, 3, 4), torch.tensor([[1, 0.5, 2, 0], [0.3, 1, 1, 4]], dtype=torch.float64)
    expected = torch.zeros_like(x)
    for n in range(2):
        taps = [sum(float(gains[n, b]) * BANK[b][t] for b in range(4)) for t in range(43)]
        for i in range(3):
            for j in range(4):
                for a in range(43):
                    row = x[n, 0, reflected(i + a - 21, 3)].tolist()
                    expected[n, 0, i, j] += taps[a] * sum(taps[b] * row[reflected(j + b - 21, 4)] for b in range(43))
    torch.testing.assert_close(filtered(x, gains), expected)
    torch.testing.assert_close(filtered(x, torch.full((2, 4), 3.0, dtype=x.dtype)), 9 * x)


def test_recoloured_images():
    x, matrix, offset = images(2, 3, 2, 2), images(2, 3, 3, seed=1), images(2, 3, seed=2)
    expected = torch.empty_like(x)
    for n, c, i, j in pixels(x):
        expected[n, c, i, j] = offset[n, c] + sum(matrix[n, c, k] * x[n, k, i, j] for k in range(3))
    torch.testing.assert_close(recoloured(x, matrix, offset), expected)


# DiffAugment


def test_diffaugment_is_colour_then_translation_then_cutout():
    """With the largest and smallest random numbers, by hand."""
    u = torch.tensor([[0.0] * 7, [1 - 2**-24] * 7, [0.5] * 7], dtype=torch.float64)
    x = images(3, 3, 16, 24)
    expected = shaded(x, u[:, 0] - 0.5, 2 * u[:, 1], 0.5 + u[:, 2])
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
    torch.testing.assert_close(grey, shaded(x[:, :1], u[:, 0] - 0.5, torch.ones(4), u[:, 2] + 0.5))
    rgba = color.transform(x, numbers(4), 4)
    assert torch.equal(rgba[:, 3], x[:, 3])
    assert torch.equal(rgba[:, :3], color.transform(x[:, :3], numbers(4), 3))


# ADA


def product(matrices):
    return functools.reduce(torch.matmul, matrices)


def test_adas_geometry_is_the_product_of_its_inverse_transforms():
    """In the order of appendix B, for images with all of them."""
    n, height, width = 200, 12, 12
    ada = ADA(p=1.0)
    linear, offset = ada.placement(numbers(n), height, width, torch.float64)
    again = numbers(n)
    _, u, normal = again.uniform(8), again.uniform(6), again.normal(4)

    def matrix(a, b, c, d, right=0.0, down=0.0):
        return torch.tensor([[a, b, right], [c, d, down], [0, 0, 1]], dtype=torch.float64)

    def turn(angle):
        return matrix(math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle))

    for i in range(n):
        v, z = u[i].tolist(), normal[i].tolist()
        scale, ratio = 2 ** (0.2 * z[0]), 2 ** (0.2 * z[1])
        shift = [round((2 * a - 1) / 8 * side) for a, side in zip(v[2:4], (width, height), strict=True)]
        inverses = [
            matrix(-1 if v[0] < 0.5 else 1, 0, 0, 1),
            turn(math.pi / 2 * math.floor(4 * v[1])),
            matrix(1, 0, 0, 1, -shift[0], -shift[1]),
            matrix(1 / scale, 0, 0, 1 / scale),
            turn((2 * v[4] - 1) * math.pi),
            matrix(1 / ratio, 0, 0, ratio),
            turn((2 * v[5] - 1) * math.pi),
            matrix(1, 0, 0, 1, -z[2] / 8 * width, -z[3] / 8 * height),
        ]
        expected = product(inverses)
        torch.testing.assert_close(linear[i], expected[:2, :2], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(offset[i], expected[:2, 2], atol=1e-4, rtol=1e-4)


def test_adas_colours_are_the_product_of_its_transforms():
    n, ada = 100, ADA(p=1.0)
    matrix, offset = ada.colours(numbers(n), 3, torch.float64)
    again = numbers(n)
    u, normal = again.uniform(7), again.normal(3)
    v = torch.full((3,), 3**-0.5, dtype=torch.float64)
    onto, still = torch.outer(v, v), torch.eye(3, dtype=torch.float64)
    cross = torch.tensor([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]], dtype=torch.float64)
    for i in range(n):
        angle, light = (2 * float(u[i, 6]) - 1) * math.pi, 0.2 * float(normal[i, 0])
        steps = [2 ** (0.5 * float(normal[i, 1])) * still]  # contrast, luma flip, hue (Rodrigues), saturation
        steps += [still - 2 * onto] if u[i, 5] < 0.5 else []
        steps += [onto + math.cos(angle) * (still - onto) + math.sin(angle) * cross]
        steps += [onto + 2 ** float(normal[i, 2]) * (still - onto)]
        expected = product(steps[::-1])
        torch.testing.assert_close(matrix[i], expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            offset[i], expected @ torch.full((3,), light, dtype=torch.float64), atol=1e-5, rtol=0
        )
    grey, light = ada.colours(numbers(n), 1, torch.float64)
    torch.testing.assert_close(grey[:, 0, 0], (0.5 * normal[:, 1]).exp2().double())
    torch.testing.assert_close(light[:, 0], (0.2 * normal[:, 0] * (0.5 * normal[:, 1]).exp2()).double())


def test_adas_gains_keep_the_power_of_an_image():
    n = 50
    gains = ADA(p=1.0, filter=1.0).gains(numbers(n), torch.float64)
    again = numbers(n)
    _, normal = again.uniform(4), again.normal(4)
    power = [10 / 13, 1 / 13, 1 / 13, 1 / 13]
    for i in range(n):
        expected = [1.0] * 4
        for band in range(4):
            t = [2 ** float(normal[i, band]) if b == band else 1.0 for b in range(4)]
            norm = sum(w * a * a for w, a in zip(power, t, strict=True)) ** 0.5
            expected = [g * a / norm for g, a in zip(expected, t, strict=True)]
        assert gains[i].tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("p", "multiples"), [*[(p, [1.0] * 6) for p in (0.0, 0.3, 1.0)], (0.9, [0.5, 0.4, 0.3, 0.2, 0.6, 0.7])]
)
def test_each_of_adas_transforms_has_probability_p(p, multiples):
    """Times the multiple of its category."""
    names = ("pixel", "geometry", "color", "filter", "noise", "cutout")
    n, near, multiple = 20_000, {"abs": 0.012}, dict(zip(names, multiples, strict=True))
    pixel, geometry, color, bands, noise, cut = (p * m for m in multiples)

    def ada(*chosen):
        return ADA(p=p, **{name: multiple[name] if name in chosen else 0.0 for name in names})

    linear, _ = ada("pixel").placement(numbers(n), 8, 8, torch.float32)
    assert (torch.linalg.det(linear) < 0).float().mean() == pytest.approx(pixel / 2, **near)
    assert (linear[:, 0, 0].abs() < 0.5).float().mean() == pytest.approx(pixel / 2, **near)  # a quarter turn or three
    linear, offset = ada("geometry").placement(numbers(n), 8, 8, torch.float32)
    still = torch.isclose(linear, torch.eye(2)).all(1).all(1)
    assert still.float().mean() == pytest.approx((1 - geometry) ** 3, **near)  # scale, rotations, aspect
    assert (offset == 0).all(1).float().mean() == pytest.approx(1 - geometry, **near)
    matrix, offset = ada("color").colours(numbers(n), 3, torch.float32)
    kept = torch.isclose(matrix, torch.eye(3), atol=1e-6).all(1).all(1).float().mean()
    assert kept == pytest.approx((1 - color) ** 3 * (1 - color / 2), **near)
    assert (offset == 0).all(1).float().mean() == pytest.approx(1 - color, **near)
    kept = torch.isclose(ada("filter").gains(numbers(n), torch.float32), torch.ones(4)).all(1).float().mean()
    assert kept == pytest.approx((1 - bands) ** 4, **near)
    x = torch.ones(n, 1, 8, 8)
    erased = ada("cutout").transform(x, numbers(n), 1) == 0
    assert erased.flatten(1).any(1).float().mean() == pytest.approx(cut, **near)
    added = ada("noise").transform(x, numbers(n), 1) - x
    assert added.flatten(1).any(1).float().mean() == pytest.approx(noise, **near)
    assert added.square().mean().sqrt() == pytest.approx(0.1 * noise**0.5, rel=0.03)


def test_adas_cutout_is_half_of_each_side_around_a_uniform_centre():
    n = 1000
    ada = ADA(p=1.0, pixel=0, geometry=0, color=0, cutout=1)
    left = ada.transform(torch.ones(n, 1, 8, 12), numbers(n), 1)[:, 0]
    _, down, right = numbers(n).uniform(3).unbind(1)
    for i in range(0, n, 50):
        for row in range(8):
            for column in range(12):
                inside = abs((row + 0.5) / 8 - down[i]) < 0.25 and abs((column + 0.5) / 12 - right[i]) < 0.25
                assert left[i, row, column] == float(not inside)


def test_without_probability_ada_changes_nothing():
    x = images(3, 4, 9, 14)
    everything = ADA(p=0.0, filter=1, noise=1, cutout=1)
    torch.testing.assert_close(everything.transform(x, numbers(3), 4), x, rtol=0, atol=1e-6)


def test_images_that_are_not_square_are_not_laid_on_their_side():
    linear, _ = ADA(p=1.0, geometry=0).placement(numbers(100), 8, 12, torch.float32)
    assert (linear[:, 0, 0].abs() > 0.99).all() and (linear[:, 1, 1] < 0).any()


def test_mirrors_and_turns_leak_at_probability_1_only():
    """Then all eight orientations of an image are equally likely, whichever the data has; below, its own is most."""
    n = 20_000
    for p in (0.8, 1.0):
        linear, _ = ADA(p=p, geometry=0).placement(numbers(n), 8, 8, torch.float32)
        found, counts = linear.round().long().flatten(1).unique(dim=0, return_counts=True)
        own = (found == torch.tensor([1, 0, 0, 1])).all(1)
        mirrored = found[:, 0] * found[:, 3] - found[:, 1] * found[:, 2] < 0
        turns = (found == torch.tensor([-1, 0, 0, 1])).all(1) | own  # by none
        expected = torch.where(mirrored, p / 2, 1 - p / 2) * torch.where(turns, 1 - 3 * p / 4, p / 4)
        assert len(found) == 8 and (counts / n - expected).abs().max() < 0.01
        assert expected[own].item() == pytest.approx(0.24 if p < 1 else 0.125)


@pytest.mark.parametrize("make", [DiffAugment, lambda: ADA(p=0.9, filter=1, noise=1, cutout=1)])
def test_transforms_are_differentiable_twice(make):
    x = images(1, 3, 4, 3).requires_grad_()
    transform = make()

    def shown(x):
        return transform.transform(x, numbers(1), 3)

    assert gradcheck(shown, x) and gradgradcheck(shown, x)
    assert torch.autograd.grad(shown(x).sum(), x)[0].any()


# The controller


class ScriptedModel(SimpleNamespace):
    """Stands for a model: its D takes the share `1 - p / 2` of reals for real, so E sign(D(x)) = 1 - p."""

    boundary, training, images_seen, hparams = 0.5, True, 0, {}

    def __init__(self, augment, n=100):
        super().__init__(augment=augment, n=n, trainer=SimpleNamespace(global_step=0), seen=[])

    def observe(self, name, value):
        self.seen.append((name, float(value)))

    def logits(self):
        share = 1 - float(self.augment.strength.p) / 2
        return torch.where(torch.arange(self.n) < self.n * share, 0.6, 0.4)

    def batch(self, logits=None):
        self.augment.adapt(self)
        batch = {"image": torch.zeros(self.n, 1, 2, 2), "keys": keys(self.n)}
        for player in ("discriminator", "generator"):
            with self.augment.shown(self, batch, player) as seen:
                output = self.logits() if logits is None else logits
                assert self.augment.heard(seen["image"], output) is output
                self.augment.heard(seen["image"].clone(), -output if isinstance(output, Tensor) else output)  # a fake
        self.images_seen += self.n
        self.trainer.global_step += 1


def test_the_default_transforms_are_the_papers():
    """bgc: all pixel, geometric and colour transforms."""
    ada = ADA()
    assert (ada.pixel, ada.geometry, ada.color, ada.filter, ada.noise, ada.cutout) == (1, 1, 1, 0, 0, 0)


def test_the_controllers_defaults_are_the_papers():
    for strength in (ADA().strength, APA().strength):
        assert (strength.target, strength.ramp, strength.first, strength.last) == (0.6, 500_000, 0, None)


def test_the_controller_reaches_its_target():
    """At its speed: 4 batches of 100 images change p by 400 / 10,000; then it stays within one such step."""
    model = ScriptedModel(ADA(target=0.62, ramp=10_000.0))
    found = []
    for _ in range(80):
        model.batch()
        found.append(float(model.augment.strength.p))
    assert found[:9] == pytest.approx([0, 0, 0, 0, 0.04, 0.04, 0.04, 0.04, 0.08])
    assert all(abs(p - 0.38) <= 0.041 for p in found[44:]) and 0.35 < sum(found[44:]) / 36 < 0.41
    assert model.seen[-1] == ("augment/p", found[-1]) and ("augment/sign", 1.0) in model.seen


@pytest.mark.parametrize(("sign", "end"), [(1.0, 1.0), (-1.0, 0.0)])
def test_p_stays_within_0_and_1(sign, end):
    model = ScriptedModel(ADA(ramp=1000.0))
    for _ in range(40):
        model.batch(logits=torch.full((100,), 0.5 + sign))
    assert model.augment.strength.p == end


@pytest.mark.parametrize("shape", [(100,), (100, 3, 3), (100, 11)])
def test_signs_of_patches_count_and_those_of_classes_do_not(shape):
    logits = torch.where(torch.arange(math.prod(shape)).view(shape) % 11 == 0, 1.0, 0.0)
    for output in (logits, (logits, torch.zeros(100, 5))):
        model = ScriptedModel(ADA())
        model.batch(logits=output)
        counted = logits[:, 0] if len(shape) == 2 else logits
        expected = [float((2 * counted - 1).sum()), counted.numel(), 100]
        assert model.augment.strength.signs.tolist() == pytest.approx(expected)


def test_a_given_p_is_kept_or_follows_its_schedule():
    """A quarter of a cosine's way after a third of the images."""
    fixed, scheduled = ScriptedModel(ADA(p=0.3)), ScriptedModel(ADA(p=0.1, p_end=0.5, ramp=1200.0))
    found = []
    for _ in range(16):
        fixed.batch()
        scheduled.batch()
        assert fixed.augment.strength.p == pytest.approx(0.3)
        found.append(float(scheduled.augment.strength.p))
    assert [found[i] for i in (0, 4, 6, 8, 12, 15)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.5])


def test_a_discriminator_that_is_not_heard_is_an_error():
    model = ScriptedModel(ADA())
    model.trainer.global_step = 4
    model.augment.adapt(model)  # the first batch after a checkpoint without augmentation
    model.trainer.global_step = 8
    with pytest.raises(
        ValueError, match="discriminator_loss of ScriptedModel does not call it: set p, for example to 0.2"
    ):
        model.augment.adapt(model)


@pytest.mark.parametrize("world", [1, 2])
def test_signs_are_shared_by_the_processes(monkeypatch, world):
    """DDP makes their buffers equal after the state is restored."""
    monkeypatch.setattr("ganzoo.augment.base.rank_and_world", lambda: (0, world))
    augment = ADA()
    augment.restore({"p": torch.tensor(0.25), "signs": torch.tensor([24.0, 32.0, 16.0])})
    assert (world * augment.strength.signs).tolist() == [24, 32, 16] and augment.strength.p == 0.25


def test_the_state_of_the_controller_is_restored():
    model, again = ScriptedModel(ADA(ramp=10_000.0)), ScriptedModel(ADA(ramp=10_000.0))
    for _ in range(11):
        model.batch()
    state = model.augment.state()
    assert state["p"] == pytest.approx(0.08) and state["signs"].tolist() == pytest.approx([276, 300, 300])
    again.augment.restore(state)
    again.trainer.global_step = 11
    for _ in range(5):
        model.batch()
        again.batch()
    assert model.augment.strength.p == again.augment.strength.p and torch.equal(
        model.augment.strength.signs, again.augment.strength.signs
    )
    again.augment.restore({})  # of a training without augmentation
    again.augment.restore({**state, "of": "APA", "p": torch.tensor(0.9)})
    assert again.augment.strength.p == model.augment.strength.p
    fixed = ADA(p=0.3)
    fixed.restore(state)
    assert fixed.strength.p == pytest.approx(0.3) and fixed.state() == {}
    for p, signs in ((torch.tensor(1.5), state["signs"]), (state["p"], torch.zeros(2)), (0.5, state["signs"])):
        with pytest.raises(ValueError, match="state of the augmentation is invalid; use another checkpoint"):
            again.augment.restore({"p": p, "signs": signs})


# APA


def test_apa_shows_fakes_with_the_labels_of_the_reals_that_they_replace():
    """To D, in training, with probability p."""
    n = 4000
    model = ScriptedModel(APA(p=0.3), n)
    model.generator = "the generator"
    model.draw = lambda n, generator: {"z": torch.arange(float(n))}
    model.synthesize = lambda network, batch: (batch["z"] + 10_000 * batch["label"])[:, None, None, None]
    batch = {"image": torch.full((n, 1, 1, 1), -1.0), "label": torch.arange(n) % 7, "z": torch.zeros(n)}
    batch |= model.augment.draw(model, n, torch.Generator().manual_seed(0))
    with model.augment.shown(model, batch, "discriminator") as seen:
        shown = seen["image"].flatten()
        assert seen["label"] is batch["label"] and seen["z"] is batch["z"]
        assert model.augment(seen["image"]) is seen["image"]
    fakes = torch.arange(float(n)) + 10_000 * batch["label"]
    replaced = shown != -1
    assert torch.equal(shown[replaced], fakes[replaced]) and replaced.float().mean() == pytest.approx(0.3, abs=0.03)
    for player, training in (("generator", True), ("discriminator", False)):
        model.training = training
        with model.augment.shown(model, batch, player) as seen:
            assert seen["image"] is batch["image"]


# Draws within an update


def active(augment, n, player=0):
    augment.keys, augment.player, augment.calls = keys(n), player, 0
    return augment


def test_every_call_has_its_own_draw_and_may_be_repeated():
    x = images(4, 3, 16, 16).float()
    augment = active(DiffAugment(), 4)
    first, second, third = augment(x), augment(x), augment(x)
    with augment.again(1):
        assert torch.equal(augment(x), second) and torch.equal(augment(x), second)
    assert augment.calls == 3
    different = [first, second, third, active(augment, 4, player=1)(x)]
    assert all(not torch.equal(a[i], b[i]) for i in range(4) for a in different for b in different if a is not b)
    replay = active(augment, 4)
    assert all(torch.equal(replay(x), expected) for expected in (first, second, third))
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
        (lambda: ADA(p=1.2), "p is 1.2; it takes a number from 0 to 1"),
        (lambda: APA(p=-0.1), "p is -0.1; it takes a number from 0 to 1"),
        (lambda: ADA(target=1.0), r"target is 1.0; it takes a number in \(-1, 1\)"),
        (lambda: APA(target=-1.0), r"target is -1.0; it takes a number in \(-1, 1\)"),
        (lambda: ADA(p=0.2, target=0.6), "p is 0.2 and target 0.6: p is either given or adaptive; leave one of them"),
        (lambda: ADA(p_end=0.5), "p_end is 0.5, but p is not given: set p, where it starts"),
        (lambda: ADA(ramp=0.0), "ramp is 0.0; it takes a number above 0"),
        (lambda: ADA(color=-1.0), "color is -1.0; it takes a number from 0 up"),
        (lambda: ADA(pixel=0, geometry=0, color=0), "pixel, geometry, color, filter, noise and cutout are 0: leave"),
        (lambda: DiffAugment(translation=1.5), "translation is 1.5; it takes a number from 0 to 1"),
        (lambda: DiffAugment(cutout=-1), "cutout is -1; it takes a number from 0 to 1"),
        (lambda: DiffAugment(False, 0, 0), "color is false, translation 0 and cutout 0: leave augment out"),
    ],
)
def test_arguments_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()
