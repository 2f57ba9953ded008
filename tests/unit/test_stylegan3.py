"""StyleGAN3: the authors' numbers, the official networks' outputs, filters and operations by definition, equivariance.

`tests/data/stylegan3.npz` has weights, inputs and outputs of official generators at 16x16 pixels: `t`, `r`.
"""

from __future__ import annotations

import math
import re
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import j1
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.functional import conv2d, leaky_relu, softplus

import ganzoo
from ganzoo.augment import ADA
from ganzoo.checkpoint.layouts import UNNAMED, stylegan3_filters, stylegan3_key
from ganzoo.functional.equivariance import low_pass, radial_low_pass, rotation_db, translation_db
from ganzoo.functional.equivariance import rotation as turn
from ganzoo.layers.filtered import FilteredLeaky
from ganzoo.layers.minibatch import MinibatchStdDev
from ganzoo.networks.stylegan3 import Band, FilteredLayer, FourierInput, StyleGAN3Generator, bands
from ganzoo.testing import fit
from ganzoo.variants.stylegan3 import afhqv2, ffhq, ffhq256, other
from tests.paper import all_of, begins, optimizers, prior, spread
from tests.variants import small

DATA = Path(__file__).parents[1] / "data" / "stylegan3.npz"
close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)


def stylegan(**more):
    torch.manual_seed(0)
    return ganzoo.StyleGAN3(**{**small("StyleGAN3"), "num_classes": None, **more})


@cache
def made(make=ffhq, **arguments):
    with torch.device("meta"):
        return make(**arguments)


@cache
def synthesis():
    torch.manual_seed(0)
    return StyleGAN3Generator(16, 3, 8, maps=256, width=64, layers=3).synthesis


def parameters(gan):
    """Of G, in millions, with the digits that NVIDIA's numbers have, and of D."""
    return tuple(round(sum(p.numel() for p in n.parameters()) / 1e6, 3) for n in (gan.generator, gan.discriminator))


def numbers(gan):
    """What the presets set."""
    rates = optimizers(gan, "lr")
    averaging = gan.ema_half_life, gan.ema_ramp_up, gan.blur_images
    return gan.hparams["image_size"], gan.gamma, rates[1], rates[0] * 17 / 16, averaging, type(gan.augment).__name__


ADAMS = [(0.0, pytest.approx(0.990585, abs=5e-7)), (0.0, 0.99)]
AVERAGES = {32: (10_000.0, 0.05, 200_000.0), 64: (20_000.0, 0.05, 400_000.0)}
PAPER = {
    "Adam": (lambda: optimizers(made(), "kind"), ["FusedAdam"] * 2),
    "betas": (lambda: optimizers(made(), "betas"), ADAMS),
    "eps": (lambda: optimizers(made(), "eps", "weight_decay"), [1e-8, 1e-8, 0, 0]),
    "one step of each": (lambda: (made().n_critic, made().n_generator), (1, 1)),
    "R1": (lambda: made().r1_interval, 16),
    "z of 512": (lambda: (made().z_dim, prior(stylegan(z_dim=512).latent(1000))), (512, "standard normal")),
    "mapping": (lambda: len(made().generator.mapping.layers), 2),
    "layers": (lambda: len(made().generator.synthesis.layers), 14),
    "group": (lambda: [m.group for m in made().discriminator.modules() if isinstance(m, MinibatchStdDev)], [4]),
    "R's blur": (lambda: (made(rotation=True).blur, made().blur), (10.0, 0.0)),
    "R's kernels": (lambda: {layer.weight.shape[2] for layer in made(rotation=True).generator.synthesis.layers}, {1}),
    # NVIDIA's code; D is StyleGAN2's
    "weights N(0, 1)": (lambda: spread(synthesis(), FilteredLayer), begins(0.0, 1.0)),
    "weights of the input N(0, 1)": (lambda: spread(synthesis(), FourierInput), begins(0.0, 1.0)),
    "biases of styles": (lambda: all_of(synthesis(), "style.bias"), {1.0}),
    "other biases": (lambda: all_of(synthesis(), r"layers\.\d\.bias|image\.bias"), {0.0}),
    "T, 1024": (lambda: parameters(made()), (22.313, 29.013)),
    "R, 1024": (lambda: parameters(made(rotation=True)), (15.093, 29.013)),
    "T, 256": (lambda: parameters(made(ffhq256)), (23.320, 24.001)),
    "R, 256": (lambda: parameters(made(ffhq256, rotation=True)), (15.780, 24.001)),
    # its settings
    "FFHQ": (lambda: numbers(made()), (1024, 32.8, 2.5e-3, 2e-3, AVERAGES[32], "Identity")),
    "FFHQ, R": (lambda: numbers(made(rotation=True)), (1024, 32.8, 2.5e-3, 2e-3, AVERAGES[32], "Identity")),
    "FFHQ-U 256": (lambda: numbers(made(ffhq256)), (256, 1.0, 2.5e-3, 2.5e-3, AVERAGES[64], "Identity")),
    "AFHQv2": (lambda: numbers(made(afhqv2)), (512, 8.2, 2.5e-3, 2e-3, AVERAGES[32], "ADA")),
    "AFHQv2, R": (lambda: numbers(made(afhqv2, rotation=True))[1], 16.4),
    "other": (lambda: [numbers(made(other, image_size=128 << k))[1] for k in range(4)], [0.5, 2.0, 8.0, 32.0]),
    "other, ADA": (lambda: type(made(other, image_size=128).augment), ADA),
}


@pytest.mark.parametrize(("find", "number"), PAPER.values(), ids=PAPER)
def test_numbers_of_the_paper(find, number):
    found = find()
    assert found == (pytest.approx(number) if isinstance(number, float) else number)


def test_presets_can_be_changed():
    for make in (ffhq, ffhq256, afhqv2, partial(other, 128)):
        assert (made(make, gamma=3.0).gamma, made(make, z_dim=64).z_dim) == (3.0, 64)


def test_bands_at_1024_pixels_grow_geometrically():
    """16 samples at first; the image's sampling rate from the 11th layer on."""
    found = bands(1024, 14, 32768, 512)
    ratios = [b.cutoff / a.cutoff for a, b in zip(found, found[1:13], strict=False)]
    assert ratios == pytest.approx([256 ** (1 / 12)] * 12)
    assert [round(band.cutoff, 6) for band in found[::12]] == [2, 512] and found[13].cutoff == 512
    assert [band.rate for band in found] == [16, 16, 32, 32, 64, 128, 128, 256, 256, 512, *[1024] * 4]
    assert [band.size - band.rate for band in found] == [20] * 13 + [0]
    assert [band.half_width for band in found[:12]] == pytest.approx([b.rate / 2 - b.cutoff for b in found[:12]])
    assert found[-1].half_width == pytest.approx(512 * (2**0.3 - 1))
    assert [band.maps for band in found[::4]] == [512, 512, 203, 32]


# The official networks


@cache
def official(tag):
    """G and the arrays of a tag."""
    arrays = {k.removeprefix(f"{tag}/"): torch.from_numpy(v) for k, v in np.load(DATA).items() if k.startswith(tag)}
    theirs = {re.sub(UNNAMED, r"\1", key[2:]): arrays.pop(key) for key in list(arrays) if key.startswith("G/")}
    factor = 2 if tag == "r" else 1
    g = StyleGAN3Generator(16, 3, 16, 128 // factor, 16 // factor, layers=6, rotation=tag == "r")
    g.load_state_dict({key: theirs.pop(stylegan3_key(key, {"layers": 6, "image_size": 16})) for key in g.state_dict()})
    return g.eval(), arrays, theirs


@pytest.mark.parametrize("tag", ["t", "r"])
def test_networks_compute_what_the_official_ones_do(tag):
    g, found, filters = official(tag)
    with torch.no_grad():
        close(g.synthesis.repeated(g.mapping(found["z"])), found["w"])
        close(g(found["z"]), found["image"], rtol=0, atol=1e-6)
    ours = stylegan3_filters(g)
    assert ours.keys() == filters.keys()
    for name, kernel in ours.items():
        close(kernel, filters[name], rtol=1e-6, atol=1e-6)


# Filters and operations by their definitions, in float64


def doubles(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def response(kernel, x, y, rate):
    """Of a filter to a wave of x and y periods for each unit of length."""
    at = (torch.arange(len(kernel)) - (len(kernel) - 1) / 2) / rate
    return (kernel * torch.cos(2 * math.pi * (at * x + at[:, None] * y))).sum().item()


def test_the_radial_filter_is_a_jinc_in_a_kaiser_window():
    cutoff, half_width, taps, rate = 3.0, 2.0, 24, 16.0
    kernel = radial_low_pass(cutoff, half_width, taps, rate)
    plain = low_pass(cutoff, half_width, taps, rate)
    at = (np.arange(taps) - 11.5) / rate
    sinc = np.sin(2 * np.pi * cutoff * at) / at
    window = plain.numpy() / sinc
    r = np.sqrt(at**2 + at[:, None] ** 2)
    expected = np.outer(window, window) * j1(2 * np.pi * cutoff * r) / r
    torch.testing.assert_close(kernel, torch.from_numpy(expected / expected.sum()))


@pytest.mark.parametrize("angle", [0.0, 0.4, math.pi / 4])
def test_the_radial_filter_passes_the_same_frequencies_in_all_directions(angle):
    kernel = radial_low_pass(3.0, 2.5, 24, 16.0)
    passed, half, stopped = (response(kernel, f * math.cos(angle), f * math.sin(angle), 16) for f in (0.5, 3.0, 5.5))
    assert passed == pytest.approx(1, abs=0.01) and stopped == pytest.approx(0, abs=0.01)
    assert half == pytest.approx(0.5, abs=0.08)
    separable = torch.outer(*2 * [low_pass(3.0, 2.5, 24, 16.0)])
    assert response(separable, 2.5, 2.5, 16) > 2 * abs(response(kernel, 2.5, 2.5, 16))  # beyond 3 diagonally


def test_filters_of_a_layer_pass_and_stop_what_the_paper_says():
    """Between two layers of 1024 pixels: at f_c about half is left, and at f_t nothing."""
    a, b = bands(1024, 14, 64, 1)[4:6]
    leaky = FilteredLayer(a, b, 2, 3, False).leaky
    fine = 2 * max(a.rate, b.rate)
    assert (leaky.up, leaky.down) == (fine // a.rate, fine // b.rate)
    for kernel, band, factor in ((leaky.first, a, leaky.up), (leaky.second, b, 1)):
        kernel = torch.outer(kernel, kernel).double() / factor**2
        flat, half, stopped = (response(kernel, f, 0.0, fine) for f in (0, band.cutoff, band.cutoff + band.half_width))
        assert flat == pytest.approx(1) and 0.5 < half < 0.7 and abs(stopped) < 0.005


def naive(x, first, second, up, down, out):
    """Written out: zeros between the samples, zeros around them, both filters at the fine rate, every `down`-th."""
    n, c, h, _ = x.shape
    fine = x.new_zeros(n, c, h * up, h * up)
    fine[:, :, ::up, ::up] = x
    needed = (out - 1) * down + len(second)
    total = needed + len(first) - 1 - h * up
    before = (total + up) // 2

    def filtered(x, taps):
        kernel = taps if taps.ndim == 2 else torch.outer(taps, taps)
        return conv2d(x.flatten(0, 1)[:, None], kernel.flip(0, 1)[None, None].to(x)).unflatten(0, (n, c))[:, :, 0]

    padded = nn.functional.pad(fine, (before, total - before) * 2)
    return filtered(leaky_relu(up**2 * filtered(padded, first), 0.2), second)[:, :, ::down, ::down]


OPERATIONS = {  # up, down, input, output, radial
    "same size": (2, 2, 6, 4, False),
    "doubled": (4, 2, 5, 6, False),
    "radial": (2, 2, 4, 4, True),
    "cropped": (2, 2, 18, 3, False),
}


@pytest.mark.parametrize(("up", "down", "size", "out", "radial"), OPERATIONS.values(), ids=OPERATIONS)
def test_the_filtered_nonlinearity_is_its_definition(up, down, size, out, radial):
    torch.manual_seed(0)
    first = low_pass(0.5, 0.3, 6 * up, up)
    second = (radial_low_pass if radial else low_pass)(0.5, 0.3, 6 * down, up)
    layer = FilteredLeaky(first, second, up, down, size, out)
    layer.first, layer.second = up * first, second  # float64
    assert (layer.unread > 0) == (size == 18)
    x = doubles(2, 2, size, size)
    y, expected = layer(x), naive(x, first, second, up, down, out)
    assert y.shape == (2, 2, out, out)
    torch.testing.assert_close(y, expected)
    direction = torch.randn_like(y)
    (ours,), (theirs,) = (torch.autograd.grad(z, x, direction) for z in (y, expected))
    torch.testing.assert_close(ours, theirs)
    few = x.detach()[:1, :1].requires_grad_()
    assert gradcheck(layer, few, fast_mode=True) and gradgradcheck(layer, few, fast_mode=True)
    mapped = torch.func.vmap(torch.func.grad(lambda x, d: (layer(x[None]) * d).sum()))(x.detach(), direction)
    torch.testing.assert_close(mapped, ours)


def test_the_filtered_nonlinearity_keeps_a_byte_for_each_fine_sample():
    layer = FilteredLeaky(low_pass(0.5, 0.3, 12, 2), low_pass(0.5, 0.3, 12, 2), 2, 2, 10, 8)
    kept = {}

    def keep(tensor):
        kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    x = torch.randn(3, 2, 10, 10, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(x)
    assert sum(kept.values()) == 3 * 2 * (7 * 2 + 12) ** 2 + 2 * 12 * 4  # and the two filters


def test_networks_have_second_derivatives():
    torch.manual_seed(0)
    g = StyleGAN3Generator(16, 1, 3, width=2, mapping_layers=1, layers=3).double()
    for layer in g.synthesis.normalised():
        nn.init.normal_(layer.bias)
    nn.init.normal_(g.synthesis.input.affine.weight)
    z = doubles(1, 3)
    assert gradcheck(g, z, fast_mode=True) and gradgradcheck(g, z, fast_mode=True)


def test_input_waves_are_turned_and_moved_by_w():
    torch.manual_seed(0)
    layer = FourierInput(Band(2.0, 6.0, 8, 12, 5), 3).double()
    nn.init.normal_(layer.affine.weight)
    w = doubles(2, 3)
    r = (w @ layer.affine.weight.T / 3**0.5 + layer.affine.bias).tolist()
    found, at = layer(w), (torch.arange(12) + 0.5 - 6).double() / 8
    layer.transform[0, 2] = 0.3
    shifted = layer(w)
    for n, (c, s, x, y) in enumerate(r):
        length = math.hypot(c, s)
        c, s, x, y = c / length, s / length, x / length, y / length
        for dx, images in ((0.0, found), (0.3, shifted)):
            px, py = (at + dx - x)[None, :], (at - y)[:, None]
            qx, qy = c * px - s * py, s * px + c * py
            waves = torch.stack(
                [
                    torch.sin(2 * math.pi * (fx * qx + fy * qy + phase)) * min(1, max(0, (4 - math.hypot(fx, fy)) / 2))
                    for (fx, fy), phase in zip(layer.freqs.tolist(), layer.phases.tolist(), strict=True)
                ]
            )
            expected = torch.einsum("oc,chw->ohw", layer.weight / 5**0.5, waves)
            torch.testing.assert_close(images[n], expected)


def test_frequencies_of_the_input_are_uniform_in_the_disc_of_the_cutoff():
    torch.manual_seed(0)
    layer = FourierInput(Band(2.0, 6.0, 16, 36, 500), 3)
    areas = (layer.freqs.norm(dim=1) / 2).square().sort().values  # uniform, as exp(-n^2 / 2) of normal n
    assert areas[-1] < 1
    close(areas, (torch.arange(500) + 0.5) / 500, rtol=0, atol=0.06)
    assert layer.phases.min() > -0.5 and layer.phases.max() < 0.5 and layer.phases.std() == pytest.approx(12**-0.5, 0.1)
    w = torch.randn(2, 3)
    assert torch.equal(layer(w)[0], layer(w)[1])  # at first


# Equivariance


def images(rotation, transform, filtered=True):
    """Of a wide band, to show aliasing, in float64."""
    torch.manual_seed(0)
    g = StyleGAN3Generator(32, 1, 4, maps=64, width=8, mapping_layers=1, layers=5, rotation=rotation).double().eval()
    if not filtered:
        for layer in g.synthesis.layers[1:]:
            one = torch.zeros_like(layer.leaky.second[0] if layer.leaky.second.ndim == 2 else layer.leaky.second)
            one[len(one) // 2] = 1.0
            layer.leaky.second = one
    g.synthesis.input.transform.copy_(transform)
    return g(torch.randn(2, 4, generator=torch.Generator().manual_seed(1)).double()).detach()


def decibels(a, b):
    return 10 * math.log10((b.max() - b.min()) ** 2 / (a - b).square().mean())


@pytest.mark.parametrize(("shift", "more"), [((1, -2), 25), ((0.4, 1.5), 8)])
@pytest.mark.parametrize("rotation", [False, True])
def test_images_move_with_their_waves_and_without_filters_far_less(rotation, shift, more):
    """In decibels of EQ-T; a fraction of a pixel is limited by the interpolation."""
    span = (still := images(rotation, torch.eye(3))).max() - still.min()
    filtered, aliased = (translation_db(partial(images, rotation, filtered=on), [shift], span) for on in (True, False))
    assert filtered > aliased + more and filtered > (60 if more == 25 else 25)


def test_images_of_r_turn_with_their_waves():
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    for rotation, equal in ((True, True), (False, False)):
        still, turned = images(rotation, torch.eye(3)), images(rotation, quarter)
        both = [decibels(turned, still.rot90(k, (2, 3))) for k in (1, -1)]
        assert (max(both) > 100) == equal, both


def test_r_is_equivariant_to_rotations_by_any_angle_and_t_is_not():
    """In decibels of EQ-R."""

    def score(**arguments):
        span = (still := images(transform=torch.eye(3), **arguments)).max() - still.min()
        return rotation_db(lambda transform: images(transform=transform, **arguments), [0.7], span)

    assert score(rotation=True) > 50
    assert score(rotation=True, filtered=False) < 40
    assert score(rotation=False) < 25


@pytest.mark.parametrize("ema", [None, 100.0])
def test_moved_images_are_those_of_the_transformed_input(ema):
    """For each image its own transform; not clamped."""
    gan = stylegan(num_classes=3, ema_half_life=ema)
    gan.configure_model()
    network = gan.ema or gan.generator
    network.synthesis.image.bias.data += 9.0
    z, y = gan.latent(2), torch.tensor([2, 0])
    transforms = torch.stack([turn(0.3), turn(-1.0)])
    moved = gan.moved(z, {"label": y}, transforms)
    assert moved.max() > 1 and not moved.requires_grad and gan.generator.training
    for i in (0, 1):
        network.synthesis.input.transform.copy_(transforms[i])
        close(gan.generate(z, {"label": y})[i], moved[i].clamp(-1, 1))
        close(gan.eval().synthesize(network, {"z": z, "label": y})[i], moved[i])
        gan.train()


# The course of a batch


class Watched(ganzoo.StyleGAN3):
    """Records each update: its equation, player and interval."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.seen = []

    def minimize(self, loss, batch, *, player, interval=None):
        self.seen.append((loss.__name__, player, interval))
        super().minimize(loss, batch, player=player, interval=interval)


def test_running_squares_count_the_images_of_all_batches_and_processes(monkeypatch):
    """Every eighth batch, which is every fourth update of G, of four images on each of three processes."""
    model, weights = Watched(**{**small("StyleGAN3"), "num_classes": None}, n_critic=2, square_half_life=500), []
    monkeypatch.setattr("ganzoo.variants.stylegan3.gather", lambda squares: torch.cat([squares] * 3))
    monkeypatch.setattr(model.generator.synthesis, "move_squares", lambda squares, weight: weights.append(weight))
    monkeypatch.setattr(model, "move_w_mean", lambda batch: torch.zeros(4, model.z_dim))
    for step in range(20):
        monkeypatch.setattr(model, "_trainer", SimpleNamespace(world_size=3, global_step=step))
        model.after_generator({"image": torch.zeros(4, 1, 16, 16)})
    assert weights == [pytest.approx(1 - 0.5 ** (8 * 4 * 3 / 500))] * 2


def test_g_plays_first_r1_is_lazy_and_means_move_in_training():
    torch.manual_seed(0)
    model = Watched(**{**small("StyleGAN3"), "num_classes": None})
    assert model.more_steps == {"discriminator": 0.5}
    moves, after, synthesis = [], model.after_generator, model.generator.synthesis

    def move(batch):
        before, squares, styles = [layer.square.clone() for layer in synthesis.normalised()], [], []
        hooks = [
            layer.register_forward_pre_hook(lambda _, given: squares.append(given[0].square().mean()))
            for layer in synthesis.normalised()
        ]
        mapped = model.generator.mapping.register_forward_hook(lambda *found: styles.append(found[2]))
        w_mean = model.generator.w_mean.clone()
        after(batch)
        for hook in (*hooks, mapped):
            hook.remove()
        torch.testing.assert_close(model.generator.w_mean, 0.998 * w_mean + 0.002 * styles[0].mean(0))
        moves.append(squares)
        weight = 1 - 0.5 ** (32 / 20_000)
        for layer, old, new in zip(synthesis.normalised(), before, squares, strict=bool(squares)):
            torch.testing.assert_close(layer.square, old + weight * (new - old), rtol=1e-6, atol=0)

    model.after_generator = move
    fit(model, steps=4)
    turns = ("generator_loss", "generator", None), ("discriminator_loss", "discriminator", None)
    assert model.seen == 2 * [*turns, *turns, ("r1_loss", "discriminator", 2)]
    assert [len(squares) for squares in moves] == [0, 0, 0, 4]
    averages = [layer.square for layer in model.ema.synthesis.normalised()]
    assert averages == [layer.square for layer in synthesis.normalised()] and averages[0] != 1


def test_losses_and_penalty_by_the_networks_outputs():
    gan = stylegan(num_classes=3, gamma=0.7, group=1).eval()
    x, y = 2 * torch.rand(3, 1, 16, 16) - 1, torch.tensor([0, 2, 1])
    batch = {"image": x, "label": y, **gan.draw(3, torch.Generator().manual_seed(1))}
    g, d = gan.generator, gan.discriminator
    fakes = g.synthesis(g.synthesis.repeated(g.mapping(batch["z"], y)))
    close(gan.generator_loss(batch), {"fake": softplus(-d(fakes, y)).mean()})
    expected = {"real": softplus(-d(x, y)).mean(), "fake": softplus(d(fakes, y)).mean()}
    close(gan.discriminator_loss(batch), expected)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(d(x, y).sum(), x)
    close(gan.r1_loss(batch)["r1"], 0.35 * gradient.square().sum((1, 2, 3)).mean())


def test_a_layer_is_divided_by_the_root_of_its_mean_square():
    gan = stylegan()
    for layer in gan.generator.synthesis.normalised():
        w, x = torch.randn(2, 6), torch.randn(2, layer.style.weight.shape[0], 36, 36)
        with torch.no_grad():
            layer.bias.zero_()
            before = layer(x, w)
            layer.square.fill_(4.0)
            close(layer(x, w), before / 2)


def test_d_of_r_sees_blurred_images_at_first():
    gan = stylegan(rotation=True, blur=2.0, blur_images=100.0, group=1)
    x = torch.rand(2, 1, 16, 16)
    for seen, sigma in ((0, 2.0), (50, 1.0), (85, 0.3), (100, 0.0), (200, 0.0)):
        gan.schedule(seen)
        at = torch.arange(-math.floor(3 * sigma), math.floor(3 * sigma) + 1)
        taps = torch.exp2(-((at / max(sigma, 1e-9)) ** 2))
        kernel = torch.outer(taps, taps) / taps.sum() ** 2
        blurred = conv2d(x, kernel[None, None], padding=len(at) // 2)
        close(gan.discriminate(x), gan.discriminator(blurred), rtol=1e-4, atol=1e-5)
        assert (seen >= 85) == torch.allclose(gan.discriminate(x), gan.discriminator(x), rtol=1e-4)
    plain = stylegan(blur=2.0, group=1)
    plain.schedule(0)
    assert torch.equal(plain.discriminate(x), plain.discriminator(x))


def test_r_trains_with_blur_and_ada():
    gan = stylegan(rotation=True, blur=1.0, blur_images=20.0, augment=ADA(target=-0.9, ramp=100.0, color=0.0))
    fit(gan, steps=6)
    assert gan.augment.strength.p > 0 and not gan.blurs


def test_half_precision_is_close():
    gan = stylegan(width=16).eval()
    z = gan.latent(4)
    with torch.autocast("cpu", torch.bfloat16):
        image = gan.generator(z)
        layer, w = gan.generator.synthesis.layers[0], torch.randn(1, 6)
        x = layer(torch.full((1, layer.weight.shape[1], 36, 36), 1e6), w)[0, :, 18, 18].float()
    assert image.dtype == torch.float32
    close(image, gan.generator(z), rtol=0.1, atol=0.1)
    close(x, torch.where(x > 0, 256.0, -0.2 * 256), rtol=0.02, atol=0)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"maps": 15}, "maps is 15, but layers of 16 pixels have maps / 16 channels"),
        ({"image_size": 8}, "image_size 8: StyleGAN3 makes squares of 16, 32, 64, ... pixels; try 16"),
        ({"image_size": 48}, "image_size 48: StyleGAN3 makes squares .*; try 32|; try 64"),
        ({"image_size": [16, 32]}, r"image_size \[16, 32\]: StyleGAN3 makes squares .*; try"),
        ({"layers": 2}, "layers is 2; StyleGAN3 needs 3 or more"),
        ({"consensus": 1.0}, "consensus .* cannot be combined with StyleGAN3.play"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(bad, words):
    with pytest.raises(ValueError, match=words):
        stylegan(**bad)


def test_labels_can_be_ignored():
    gan = stylegan(num_classes=3, conditional=False)
    assert gan.num_classes is None and gan.discriminator.mapping is None and gan.generator.mapping.embed is None
