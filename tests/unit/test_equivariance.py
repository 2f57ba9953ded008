"""Low-pass filters, shifts, rotations and equivariance of networks (Karras et al. 2021, arXiv:2106.12423)."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from torch.nn.functional import leaky_relu

from ganzoo.functional.equivariance import (
    low_pass,
    resample,
    rotated,
    rotation,
    rotation_db,
    rotation_kernel,
    rotation_squares,
    translation_db,
)
from ganzoo.theory.aliasing import (
    band_limited,
    equivariance,
    equivariance_db,
    filtered_leaky_relu,
    moving,
    rectified,
    translate,
)

KEEPS = low_pass(cutoff=0.25, half_width=0.15, taps=12, rate=2)


def waves(size, dx=0.0, dy=0.0):
    """A sum of three periodic waves, moved by (dx, dy) pixels, in closed form: [1, 1, size, size]."""
    at = torch.arange(size, dtype=torch.float64)
    y, x = torch.meshgrid(at - dy, at - dx, indexing="ij")
    turns = [(3, 1, 0.2), (0, 4, 1.0), (5, -2, 2.0)]
    return sum(torch.cos(2 * math.pi * (a * x + b * y) / size + phase) for a, b, phase in turns)[None, None]


def response(kernel, frequency, rate=1.0):
    at = torch.arange(len(kernel)) - (len(kernel) - 1) / 2
    return (kernel * torch.cos(2 * math.pi * frequency / rate * at)).sum().item()


# The filter


@pytest.mark.parametrize(
    ("cutoff", "half_width", "taps", "rate"),
    [(0.25, 0.1, 41, 1), (0.35, 0.15, 41, 2), (2, 1.7, 24, 16)],
)
def test_frequency_response_of_the_low_pass_filter(cutoff, half_width, taps, rate):
    kernel = low_pass(cutoff, half_width, taps, rate)
    assert len(kernel) == taps and kernel.dtype == torch.float64
    torch.testing.assert_close(kernel, kernel.flip(0))
    below, at, above = (response(kernel, cutoff + side * half_width, rate) for side in (-1, 0, 1))
    assert response(kernel, 0.0) == pytest.approx(1, abs=1e-12)
    assert at == pytest.approx(0.5, abs=1e-3)
    assert below == pytest.approx(1, abs=5e-4) and above == pytest.approx(0, abs=5e-4)


def test_a_wider_transition_band_attenuates_the_stop_band_more():
    narrow, wide = (abs(response(low_pass(0.25, half_width, 21), 0.45)) for half_width in (0.05, 0.15))
    assert wide < narrow / 10


# Resampling


@pytest.mark.parametrize("taps", [64, 65])
def test_upsampling_interpolates_a_band_limited_signal(taps):
    """An even number of taps samples a quarter of a pixel (half a sample of the finer grid) further left and up."""
    fine = resample(waves(32), low_pass(0.5, 0.3, taps, rate=2), up=2)
    offset = 0.0 if taps % 2 else -0.25
    expected = torch.stack([waves(32, -offset - i, -offset - j) for j in (0, 0.5) for i in (0, 0.5)])
    woven = fine.view(32, 2, 32, 2).permute(1, 3, 0, 2).reshape(4, 1, 1, 32, 32)
    torch.testing.assert_close(woven, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_upsampling_and_downsampling_preserve_a_band_limited_image(dtype):
    x = waves(32).to(dtype)
    kernel = low_pass(0.5, 0.3, 32, rate=2)
    again = filtered_leaky_relu(x, kernel, slope=1.0, gain=1.0)
    assert again.dtype == dtype and again.shape == x.shape
    torch.testing.assert_close(again, x, atol=2e-3, rtol=0)


def test_constant_padding_darkens_only_the_borders():
    x = torch.ones(2, 3, 16, 8)
    kept, faded = (resample(x, low_pass(0.25, 0.15, 7), padding=p) for p in ("circular", "constant"))
    torch.testing.assert_close(kept, x)
    torch.testing.assert_close(faded[:, :, 8, 4], kept[:, :, 8, 4])
    assert (faded[:, :, 0, 0] < 0.9 * kept[:, :, 0, 0]).all()


def test_filtered_leaky_relu_has_second_derivatives():
    x = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    kernel = low_pass(0.25, 0.2, 6, rate=2)
    torch.autograd.gradcheck(lambda x: filtered_leaky_relu(x, kernel), x)
    torch.autograd.gradgradcheck(lambda x: filtered_leaky_relu(x, kernel).square(), x)


# Shifts


@pytest.mark.parametrize("shift", [(0.3, 0.0), (0.0, -1.7), (2.5, 0.25)])
def test_subpixel_shifts_match_the_closed_form(shift):
    torch.testing.assert_close(translate(waves(16), *shift), waves(16, *shift))


def test_shifts_by_whole_pixels_are_rolls():
    x = torch.randn(2, 3, 8, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(translate(x, 2, -3), x.roll((-3, 2), (2, 3)))


def test_equivariance_in_decibels_matches_the_formula():
    """A constant f has the error of the shift itself; an image of twice the size moves by twice as many pixels."""
    x = waves(16)
    error = (x - waves(16, 1, 0)).square().mean().item()
    assert equivariance_db(lambda _: x, x, [(1, 0)]) == pytest.approx(10 * math.log10(4 / error))
    doubled = low_pass(0.5, 0.3, 65, rate=2)
    assert equivariance_db(lambda y: resample(y, doubled, up=2), x, [(0.7, 1.3)]) > 60
    assert equivariance_db(lambda y: y, x, [(0.7, 1.3)]) == math.inf


def test_equivariance_of_a_generator_leaves_out_what_enters_at_the_borders():
    """Whole pixels: those whose origin is outside. Fractions: also those for which Lanczos' filter lacks a sample."""
    x = waves(32)
    error = (x[..., :-1, 2:] - x[..., 1:, :-2]).square().mean().item()
    assert translation_db(lambda _: x, [(2, -1)]) == pytest.approx(10 * math.log10(4 / error))

    def spoilt(transform):
        y = moves(transform).clone()
        y[..., :4], y[..., -1:], y[..., :1, :], y[..., -4:, :] = 9.0, 9.0, 9.0, 9.0
        return y if transform[0, 2] else moves(transform)

    def moves(transform):
        return waves(32, *(-32 * transform[:2, 2].double()).tolist())

    assert translation_db(moves, [(2, -3), (0, 1)]) > 100 > translation_db(moves, [(1.6, -1.5)]) > 25
    assert translation_db(spoilt, [(1.6, -1.5)]) == translation_db(moves, [(1.6, -1.5)])


# Rotations


def turned(size, angle, frequency=(0.05, 0.03)):
    """A wave, rotated by an angle about the image's centre: [1, 1, size, size]."""
    at = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    y, x = torch.meshgrid(at, at, indexing="ij")
    c, s = math.cos(angle), math.sin(angle)
    wave = torch.cos(2 * math.pi * (frequency[0] * (c * x + s * y) + frequency[1] * (c * y - s * x)) + 0.3)
    return wave[None, None]


def window(at):
    return np.where(np.abs(at) < 3, np.sinc(at / 3), 0.0)


def band(x, y, angle, steps=4000):
    """The integral of exp(2 pi i f p) over the frequencies f that the pixels of an image and those of the rotated one
    represent: over f_y in closed form, over f_x by the midpoint rule."""
    c, s = math.cos(angle), math.sin(angle)
    fx = (np.arange(steps) + 0.5) / steps - 0.5
    edges = [np.stack([0 * fx - 0.5, 0 * fx + 0.5])]  # |f_y| < 1/2; and of the rotated f:
    edges += [
        np.sort([(c * fx - 0.5) / s, (c * fx + 0.5) / s], 0),
        np.sort([(-s * fx - 0.5) / c, (-s * fx + 0.5) / c], 0),
    ]
    low, high = np.max([e[0] for e in edges], 0), np.min([e[1] for e in edges], 0)
    length, middle = np.maximum(high - low, 0), (high + low) / 2
    waves = np.cos(2 * np.pi * (np.multiply.outer(x, fx) + np.multiply.outer(y, middle)))
    return (waves * length * np.sinc(np.multiply.outer(y, length))).mean(-1)


@pytest.mark.parametrize("rate", [1, 4])
@pytest.mark.parametrize("angle", [0.3, 2.5])
def test_the_kernel_of_a_rotation_is_its_definition(angle, rate):
    """One sample per pixel: the sinc along the axes is 1 at 0 and 0 at the others, and the other one is left."""
    at = np.arange(1 - 6 * rate, 6 * rate) / rate
    y, x = np.meshgrid(at, at, indexing="ij")
    c, s = math.cos(angle), math.sin(angle)
    near = np.arange(1 - 3 * rate, 3 * rate) / rate
    dx, dy = x[..., None, None] - near, y[..., None, None] - near[:, None]
    windows = (window(near) * window(near)[:, None] * window(c * dx - s * dy) * window(s * dx + c * dy)).sum((-2, -1))
    expected = windows * (band(x, y, angle) if rate > 1 else np.sinc(c * x - s * y) * np.sinc(s * x + c * y))
    for i in range(rate):
        for j in range(rate):
            expected[i::rate, j::rate] /= expected[i::rate, j::rate].sum()
    assert np.abs(rotation_kernel(angle, rate).numpy() - expected).max() < 1e-6


def test_the_kernel_without_a_rotation_is_a_windowed_sinc():
    at = np.arange(-23, 24) / 4
    near = np.arange(-11, 12) / 4
    expected = np.sinc(at) * (window(near) * window(at[:, None] - near)).sum(1)
    for i in range(4):
        expected[i::4] /= expected[i::4].sum()
    assert np.abs(rotation_kernel(0.0, 4).numpy() - np.outer(expected, expected)).max() < 1e-12
    turned = rotation_kernel(0.2, 4)
    torch.testing.assert_close(rotation_kernel(0.2 + math.pi / 2, 4), turned)
    torch.testing.assert_close(rotation_kernel(-0.2, 4), turned.T)


@pytest.mark.parametrize("angle", [0.3, 2.5])
def test_the_error_of_a_rotation_is_its_definition(angle):
    """The still image at the pixels' origins, interpolated between four samples per pixel, and the other one filtered;
    the pixels of which the filters read hardly any beyond the images."""
    side = 17
    one, other = np.random.default_rng(0).normal(size=(2, side, side))
    fine, coarse = (np.pad(rotation_kernel(a, rate).numpy(), 99) for a, rate in ((angle, 4), (-angle, 1)))
    c, s = math.cos(angle), math.sin(angle)
    at = np.arange(side) - (side - 1) / 2
    y, x = np.meshgrid(at, at, indexing="ij")
    errors = []
    for px, py in product(at, at):
        origin = c * px + s * py, c * py - s * px
        if max(map(abs, origin)) > 2.5 or max(abs(px), abs(py)) > 3:
            continue
        u, v = 4 * (origin[0] - x) + 122, 4 * (origin[1] - y) + 122  # 122: the centre
        i, j = np.floor(u).astype(int), np.floor(v).astype(int)
        found = sum(
            (fine[j + b, i + a] * (1 - abs(u - i - a)) * (1 - abs(v - j - b)) * one).sum()
            for a in (0, 1)
            for b in (0, 1)
        )
        i, j = (px - x).astype(int) + 104, (py - y).astype(int) + 104
        errors.append((found - (coarse[j, i] * other).sum()) ** 2)
    still, moved = (torch.from_numpy(image)[None, None] for image in (one, other))
    squares = rotation_squares(still, moved, angle)
    assert 20 < len(errors) == squares.numel()
    assert squares.mean().item() == pytest.approx(np.mean(errors))


@pytest.mark.parametrize("angle", [0.4, math.pi / 4, 2.0, 5.5])
def test_a_rotated_signal_is_recognised(angle):
    def images(transform):
        return turned(48, math.atan2(transform[0, 1], transform[0, 0]))

    assert 65 < rotation_db(images, [angle]) < 75, "the filters' limit"
    assert rotation_db(lambda transform: images(transform.T), [angle]) < 15
    assert rotation_db(lambda _: images(torch.eye(3)), [angle]) < 15


def test_frequencies_that_the_rotated_pixels_cannot_represent_are_removed():
    """At 45 degrees, a wave in the corner of the spectrum has 0.69 cycles per pixel along an axis."""
    angle = math.pi / 4
    corner, wave = turned(64, 0.0, (0.49, 0.49)), turned(64, 0.0)
    assert rotated(corner, angle)[..., 24:40, 24:40].abs().max() < 0.02
    assert rotated(wave, angle)[..., 24:40, 24:40].abs().max() > 0.9
    assert 10 * math.log10(4 / rotation_squares(wave + corner, turned(64, angle), angle).mean()) > 40


def test_a_point_is_rotated_from_x_to_y():
    x = torch.zeros(1, 1, 33, 33)
    x[0, 0, 16, 26] = 1.0  # to the right of the centre
    for angle, there in ((math.pi / 2, (26, 16)), (-math.pi / 2, (6, 16)), (math.pi / 4, (23, 23))):
        y = rotated(x, angle)
        assert divmod(int(y.argmax()), 33) == there
        right, down = (rotation(-angle)[:2, :2] @ torch.tensor([10.0, 0.0])).tolist()
        assert (16 + round(down), 16 + round(right)) == there


def test_images_that_have_no_valid_pixels_are_refused():
    for shape in ((12, 12), (32, 24)):
        with pytest.raises(
            ValueError, match=f"squares of 16 pixels or more, but these images are {shape[0]}x{shape[1]}"
        ):
            rotation_squares(torch.zeros(1, 1, *shape), torch.zeros(1, 1, *shape), 0.1)


# Equivariance of networks


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_filters_make_an_untrained_network_equivariant(seed):
    """EQ-T in dB; measured, 5 seeds: strided 19 to 22, pointwise 36 to 42, filtered 64 to 69."""
    strided, pointwise, filtered = (equivariance(kind, seed) for kind in ("strided", "pointwise", "filtered"))
    assert strided + 10 < pointwise < 45
    assert filtered > pointwise + 20 and filtered > 55


def test_shifts_by_whole_pixels_hide_aliasing():
    """Without strides, an error appears only for shifts by a fraction of a pixel."""
    shifts = torch.tensor([0.5, 1.0, 2.0])
    strided, pointwise, filtered = (moving(kind, shifts)[1] for kind in ("strided", "pointwise", "filtered"))
    assert pointwise[0] > 0.02 and pointwise[1:].max() < 1e-10
    assert strided[:2].min() > 0.05 and strided[2] < 1e-10
    assert filtered[0] < 0.003 and filtered[1:].max() < 1e-10


def test_the_output_of_a_filtered_network_moves_with_its_input():
    rows, _ = moving("filtered", torch.tensor([0.0, 3.0]))
    torch.testing.assert_close(rows[1], rows[0].roll(3))


def test_a_pointwise_leaky_relu_depends_on_the_phase_of_the_samples():
    curves = rectified()
    torch.testing.assert_close(curves["truth"], math.sqrt(2) * leaky_relu(curves["signal"], 0.2))
    torch.testing.assert_close(curves["sampled"][::16], curves["truth"][::16])
    torch.testing.assert_close(curves["later"][8::16], curves["truth"][8::16])
    pointwise = (curves["sampled"] - curves["later"]).square().mean().sqrt()
    filtered = (curves["filtered"] - curves["filtered, later"]).square().mean().sqrt()
    assert pointwise > 10 * filtered


def test_the_input_is_band_limited():
    spectrum = torch.fft.fft2(band_limited(16, 0.2, 0)).abs()
    at = torch.fft.fftfreq(16)
    assert spectrum[..., torch.hypot(at[:, None], at) > 0.2].max() < 1e-10
