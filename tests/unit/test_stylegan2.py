"""StyleGAN2: the papers' numbers, the official networks' outputs, operations by definition, the course of a batch.

`tests/data/stylegan2.npz` has weights, inputs and outputs of the official networks at 16x16 pixels.
"""

from __future__ import annotations

import json
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.functional import conv2d, softplus

import ganzoo
from ganzoo.augment import ADA
from ganzoo.callbacks.run_folder import RunLog
from ganzoo.checkpoint.layouts import stylegan2_key
from ganzoo.functional.penalties import path_lengths, squared_gradients
from ganzoo.layers.equalised import EqualisedConv2d, EqualisedLinear, leaky
from ganzoo.layers.minibatch import MinibatchStdDev
from ganzoo.layers.modulated import ModulatedConv2d, modulated_conv2d
from ganzoo.networks.stylegan2 import (
    HalvingBlock,
    Mapping,
    StyleGAN2Discriminator,
    StyleGAN2Generator,
    Synthesis,
    ToImage,
)
from ganzoo.optim.game import ExtraAdam
from ganzoo.testing import NoiseImages, fit
from ganzoo.variants.stylegan2 import auto, cifar, paper256, paper512, paper1024, stylegan2
from tests.paper import all_of, begins, optimizers, prior, spread
from tests.variants import small

DATA = Path(__file__).parents[1] / "data" / "stylegan2.npz"


def stylegan(**more):
    torch.manual_seed(0)
    return ganzoo.StyleGAN2(**{**small("StyleGAN2"), "num_classes": None, **more})


@cache
def made(make=stylegan2, **arguments):
    with torch.device("meta"):
        return make(**arguments)


def millions(gan):
    """Parameters of G and D, with the digits that NVIDIA's numbers have."""
    return tuple(round(sum(p.numel() for p in n.parameters()) / 1e6, 3) for n in (gan.generator, gan.discriminator))


def settings(gan):
    """What the presets set: a layer's maps, mapping layers, group, residual D, mixing, path length."""
    d, g = gan.discriminator.blocks, gan.generator
    compare = next((m.group for m in d if isinstance(m, MinibatchStdDev)), 1)
    first = d[0].weight.shape[0] * gan.hparams["image_size"]
    return first, len(g.mapping.layers), compare, d[1].skip is not None, gan.mixing, gan.path_weight


@cache
def synthesis():
    torch.manual_seed(0)
    return Synthesis(8, 3, d=8, maps=2048, width=256)


def rate(gan):
    return gan.make_optimizer["generator"]([nn.Parameter(torch.zeros(1))]).defaults["lr"]


ADAMS = [(0.0, pytest.approx(0.990585, abs=5e-7)), (0.0, pytest.approx(0.991992, abs=5e-7))]
PAPER = {
    "Adam": (lambda: optimizers(made(), "kind"), ["FusedAdam"] * 2),
    "learning rates, corrected": (lambda: optimizers(made(), "lr"), [pytest.approx(0.0018824, abs=5e-8), 0.0016]),
    "betas, corrected": (lambda: optimizers(made(), "betas"), ADAMS),
    "eps": (lambda: optimizers(made(), "eps", "weight_decay"), [1e-8, 1e-8, 0, 0]),
    "one step of each": (lambda: (made().n_critic, made().n_generator), (1, 1)),
    "R1": (lambda: (made().gamma, made().r1_interval), (10.0, 16)),
    "path lengths": (lambda: (made().path_weight, made().path_interval), (2.0, 4)),
    "mixing": (lambda: made().mixing, 0.9),
    "z of 512": (lambda: (made().z_dim, prior(stylegan(z_dim=512).latent(1000))), (512, "standard normal")),
    "half-life": (lambda: (made().ema_half_life, made().ema_ramp_up), (10_000.0, None)),
    # NVIDIA's code: its networks and `cfg_specs`
    "weights N(0, 1)": (lambda: spread(synthesis(), ModulatedConv2d), begins(0.0, 1.0)),
    "first maps N(0, 1)": (
        lambda: [f(synthesis().const).item() for f in (torch.mean, torch.std)],
        pytest.approx([0.0, 1.0], abs=0.06),
    ),
    "biases of styles": (lambda: all_of(synthesis(), "style.bias"), {1.0}),
    "strengths of noise, other biases": (lambda: all_of(synthesis(), r"strength|\d\.bias"), {0.0}),
    "1024": (lambda: millions(made()), (30.370, 29.013)),
    "512": (lambda: millions(made(paper512)), (30.277, 28.983)),
    "256": (lambda: millions(made(paper256)), (24.767, 24.001)),
    "128": (lambda: millions(made(auto, image_size=128, batch_size=32)), (22.949, 23.882)),
    "64": (lambda: millions(made(auto, image_size=64, batch_size=64)), (22.244, 23.407)),
    "CIFAR-10": (lambda: millions(made(cifar)), (19.948, 20.721)),
    "CIFAR-10, labels": (lambda: millions(made(cifar, num_classes=10)), (20.215, 23.090)),
    "augmentation": (
        lambda: [type(made(f).augment).__name__ for f in (stylegan2, paper256, cifar)],
        ["Identity", "ADA", "ADA"],
    ),
}
PRESETS = {  # image size, gamma, learning rate, half-life, ramp-up, and `settings`
    "stylegan2": (stylegan2, (1024, 10.0, 2e-3, 10_000, None), (32768, 8, 4, True, 0.9, 2.0)),
    "paper256": (paper256, (256, 1.0, 2.5e-3, 20_000, None), (16384, 8, 8, True, 0.9, 2.0)),
    "paper512": (paper512, (512, 0.5, 2.5e-3, 20_000, None), (32768, 8, 8, True, 0.9, 2.0)),
    "paper1024": (paper1024, (1024, 2.0, 2e-3, 10_000, None), (32768, 8, 4, True, 0.9, 2.0)),
    "cifar": (cifar, (32, 0.01, 2e-3, 500_000, 0.05), (512 * 32, 2, 32, False, 0.0, 0.0)),
    "auto": (
        partial(auto, image_size=256, batch_size=16),
        (256, pytest.approx(0.0002 * 256**2 / 16), 2.5e-3, 5_000, 0.05),
        (16384, 2, 4, True, 0.9, 2.0),
    ),
    "auto, large": (
        partial(auto, image_size=512, batch_size=32),
        (512, pytest.approx(0.0002 * 512**2 / 32), 2.5e-3, 10_000, 0.05),
        (32768, 2, 4, True, 0.9, 2.0),
    ),
    "auto, 1024": (
        partial(auto, image_size=1024, batch_size=32),
        (1024, pytest.approx(0.0002 * 1024**2 / 32), 2e-3, 10_000, 0.05),
        (32768, 2, 4, True, 0.9, 2.0),
    ),
}


@pytest.mark.parametrize(("find", "number"), PAPER.values(), ids=PAPER)
def test_numbers_of_the_paper(find, number):
    assert find() == number


@pytest.mark.parametrize(("make", "numbers", "others"), PRESETS.values(), ids=PRESETS)
def test_published_settings(make, numbers, others):
    gan = made(make)
    assert (gan.hparams["image_size"], gan.gamma, rate(gan), gan.ema_half_life, gan.ema_ramp_up) == numbers
    assert settings(gan) == others
    assert made(make, gamma=3.0).gamma == 3.0


def test_auto_counts_the_shorter_side():
    assert made(auto, image_size=(256, 512), batch_size=16).gamma == pytest.approx(2e-4 * 256**2 / 16)


def test_adam_of_cifar_is_corrected_for_path_lengths_that_it_lacks():
    """As in NVIDIA's code: D's 1/17 less for R1, G's 1/5 less."""
    assert optimizers(made(cifar), "lr") == [pytest.approx(0.0025 * 16 / 17), 0.002]
    assert optimizers(made(cifar), "betas") == ADAMS
    with_lengths = made(cifar, path_weight=2.0)  # not twice
    assert (optimizers(with_lengths, "lr")[1], optimizers(with_lengths, "betas")) == (pytest.approx(0.002), ADAMS)


def test_without_penalties_there_is_no_correction():
    assert optimizers(made(gamma=0.0, path_weight=0.0), "lr", "betas") == [2e-3, 2e-3, (0.0, 0.99), (0.0, 0.99)]
    assert optimizers(made(n_generator=2), "lr")[1] == pytest.approx(0.002 * 8 / 9)


# The official networks


@cache
def official(tag):
    """G, D and the arrays of a tag."""
    arrays = {k.removeprefix(f"{tag}/"): torch.from_numpy(v) for k, v in np.load(DATA).items() if k.startswith(tag)}
    classes = 5 if tag == "cond" else None
    g = StyleGAN2Generator(16, 3, 16, maps=128, width=16, mapping_layers=2, num_classes=classes)
    d = StyleGAN2Discriminator(16, 3, maps=128, width=16, num_classes=classes)
    for name, network in (("G", g), ("D", d)):
        theirs = {key: stylegan2_key(key, {"image_size": 16}) for key in network.state_dict()}
        network.load_state_dict({key: arrays.pop(f"{name}/{theirs[key]}") for key in theirs})
    assert not [key for key in arrays if key.startswith(("G/", "D/"))]
    return g.eval(), d.eval(), arrays


@pytest.mark.parametrize("tag", ["uncond", "cond"])
def test_networks_compute_what_the_official_ones_do(tag):
    g, d, found = official(tag)
    z, y, x = found["z"], found.get("label"), found["image"]
    psi = torch.full((8,), 0.7)
    w = g.mapping(z, y)
    close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        close(w[:, None].expand(-1, 6, -1), found["w"])
        close(torch.lerp(g.w_mean, w, psi[:, None])[:, None].expand(-1, 6, -1), found["w_trunc07"])
        close(g(z, y), x)
        close(g(z, y, psi), found["image_trunc07"])
        close(d(x, y)[:, None], found["d_out"])
    close(squared_gradients(lambda x: d(x, y), x), found["r1"])
    directions = found["pl_noise"] * 16  # the file's are divided by the root of the number of pixels
    close(path_lengths(g.synthesis, found["w"], directions), found["pl_length"])


# Operations by their definitions, in float64


def doubles(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def twice(function, *inputs):
    """First and second derivatives against differences; the second in random directions."""
    assert gradcheck(function, inputs) and gradgradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize("up", [False, True])
def test_modulated_convolution_is_one_with_weights_for_each_image(up):
    torch.manual_seed(0)
    x, w, s = doubles(2, 2, 3, 2), doubles(3, 2, 3, 3), doubles(2, 2)
    own = w[None] * s[:, None, :, None, None]  # [N, O, I, k, k]
    own = 1.5 * own / (own.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
    wide, own, padding = x, own, 1
    if up:
        wide = torch.zeros(2, 2, 5, 3, dtype=torch.float64)
        wide[:, :, ::2, ::2] = x
        own, padding = own.flip(3, 4), 2  # a transposed convolution
    expected = torch.cat([conv2d(wide[n : n + 1], own[n], padding=padding) for n in range(2)])
    torch.testing.assert_close(modulated_conv2d(x, w, s, up, gain=1.5), expected)
    twice(partial(modulated_conv2d, up=up, gain=1.5), x, w, s)


def test_the_modulation_of_small_styles_has_an_epsilon_of_1e_8():
    w, s = torch.ones(1, 1, 1, 1, dtype=torch.float64), torch.full((1, 1), 1e-4, dtype=torch.float64)
    found = modulated_conv2d(torch.ones(1, 1, 1, 1, dtype=torch.float64), w, s)
    assert found.item() == pytest.approx(1e-4 / (1e-8 + 1e-8) ** 0.5)


def test_equalised_layers_are_their_definition():
    torch.manual_seed(0)
    linear = EqualisedLinear(3, 2, bias=1.0, rate=0.01, active=True).double()
    assert linear.weight.std() > 20 and torch.equal(linear.bias.data, torch.full((2,), 100.0, dtype=torch.float64))
    x = doubles(4, 3)
    inner = x @ linear.weight.T * (0.01 / 3**0.5) + 0.01 * linear.bias
    torch.testing.assert_close(linear(x), 2**0.5 * torch.where(inner > 0, inner, 0.2 * inner))
    plain = EqualisedLinear(3, 2).double()
    torch.testing.assert_close(plain(x), x @ plain.weight.T / 3**0.5)
    conv = EqualisedConv2d(2, 3, 3, stride=2, padding=1, gain=0.5).double()
    nn.init.normal_(conv.bias)
    image = doubles(2, 2, 4, 5)
    inner = conv2d(image, conv.weight / 18**0.5, conv.bias, 2, 1)
    torch.testing.assert_close(conv(image), 0.5**0.5 * torch.where(inner > 0, inner, 0.2 * inner))
    bare = EqualisedConv2d(2, 3, 1, active=False, gain=0.5).double()
    torch.testing.assert_close(bare(image), conv2d(image, bare.weight / 2**0.5) / 2)
    for layer, given in ((linear, x), (conv, image), (bare, image)):
        twice(layer, given)


def test_blocks_without_residuals_are_their_definition():
    torch.manual_seed(0)
    block, x = HalvingBlock(2, 3, residual=False).double(), doubles(2, 2, 4, 6)
    first, blur, second = block.main
    for conv in (first, second):
        nn.init.normal_(conv.bias)
    taps = torch.tensor([1.0, 3, 3, 1]).double() / 8

    def active(x):
        return 2**0.5 * torch.where(x > 0, x, 0.2 * x)

    h = active(conv2d(x, first.weight / 18**0.5, first.bias, padding=1)).flatten(0, 1)[:, None]
    h = conv2d(h, torch.outer(taps, taps)[None, None], padding=2).unflatten(0, (2, 2))[:, :, 0]
    torch.testing.assert_close(block(x), active(conv2d(h, second.weight / 18**0.5, second.bias, stride=2)))


def test_minibatch_deviation_is_that_of_strided_groups():
    torch.manual_seed(0)
    x = doubles(6, 2, 2, 1)
    out = MinibatchStdDev(4)(x)  # 3 divides 6
    torch.testing.assert_close(out[:, :2], x)
    for i in range(6):
        group = x[i % 2 :: 2]  # two groups of three
        deviation = sum(
            ((group[:, c, h, 0] - group[:, c, h, 0].mean()).square().mean() + 1e-8).sqrt() / 4
            for c in range(2)
            for h in range(2)
        )
        torch.testing.assert_close(out[i, 2], deviation.expand(2, 1))
    assert torch.equal(MinibatchStdDev(8)(x), MinibatchStdDev(6)(x))
    assert torch.allclose(MinibatchStdDev(4)(x[:1])[:, 2], torch.tensor(1e-4).double())
    twice(MinibatchStdDev(4), x)


def test_path_lengths_are_those_of_the_jacobian():
    torch.manual_seed(0)
    w, y, a = doubles(2, 3, 2), torch.randn(2, 1, 2, 2).double(), doubles(6, 4)

    def images(w, a=a):
        return (w.flatten(1).square() @ a).view(-1, 1, 2, 2)

    lengths = path_lengths(images, w, y)
    for n in range(2):
        jacobian = torch.autograd.functional.jacobian(lambda w: images(w[None])[0].flatten(), w[n])  # [4, 3, 2]
        pulled = torch.einsum("pld,p->ld", jacobian, y[n].flatten() / 2)  # four pixels
        torch.testing.assert_close(lengths[n], pulled.square().sum(1).mean().sqrt())
    assert gradcheck(lambda w, a: path_lengths(partial(images, a=a), w, y), (w, a))


def test_networks_have_second_derivatives():
    torch.manual_seed(0)
    g, d = (
        StyleGAN2Generator(8, 1, 3, width=2, mapping_layers=1).double(),
        StyleGAN2Discriminator(8, 1, width=2).double(),
    )
    for conv in g.synthesis.convs:
        conv.strength.data.fill_(0.5)
    twice(lambda z: g(z), doubles(1, 3))
    assert gradgradcheck(d, doubles(2, 1, 8, 8), fast_mode=True)


def test_the_mapping_normalises_latents_and_labels():
    torch.manual_seed(0)
    mapping = Mapping(3, 3, layers=1, num_classes=2)
    z, y = torch.randn(4, 3), torch.tensor([0, 1, 1, 0])
    torch.testing.assert_close(mapping(z, y), mapping(7 * z, y))
    with torch.no_grad():
        before = mapping(z, y)
        mapping.embed.weight *= 7
        torch.testing.assert_close(mapping(z, y), before)
    assert not torch.allclose(mapping(z, y), mapping(z, 1 - y))


# The course of a batch


class Watched(ganzoo.StyleGAN2):
    """Records each update: its equation, player, interval, batch, and the weights of its terms."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.seen = []

    def minimize(self, loss, batch, *, player, interval=None):
        def watched(part):
            self.seen.append((loss.__name__, player[0], interval, part))
            return loss(part)

        super().minimize(watched, batch, player=player, interval=interval)


def watched(**more):
    torch.manual_seed(0)
    intervals = {"r1_interval": 3, "path_interval": 2}
    return Watched(**{**small("StyleGAN2"), "num_classes": None, **intervals, **more})


@pytest.mark.parametrize(
    ("more", "order"),
    [
        ({}, "g d g p d g d r g p d g d g p d r"),
        ({"n_critic": 2}, "d g d d r g p d d g d r"),
        ({"n_generator": 2, "gamma": 0.0}, "g g d g g p d g g d g g p d g g d g g p d"),
        ({"path_weight": 0.0}, "g d g d g d r g d g d g d r"),
    ],
)
def test_g_plays_first_and_penalties_have_updates_of_their_own(more, order):
    model = watched(**more)
    fit(model, steps=6)
    letters = {"generator_loss": "g", "discriminator_loss": "d", "path_loss": "p", "r1_loss": "r"}
    assert " ".join(letters[name] for name, *_ in model.seen) == order
    for name, player, interval, part in model.seen:
        assert player == {"g": "g", "p": "g", "d": "d", "r": "d"}[letters[name]]
        assert interval == {"path_loss": 2 * model.n_generator, "r1_loss": 3}.get(name)
        assert len(part["z"]) == len(part["image"]) == 8
    fakes = [part["z"] for name, *_, part in model.seen]
    assert len({tuple(z.flatten().tolist()) for z in fakes}) == len(fakes)  # new latents for each update


def test_penalties_of_every_batch_are_logged_beside_the_losses(tmp_path):
    model = ganzoo.StyleGAN2(**{**small("StyleGAN2"), "num_classes": None, "r1_interval": 1, "path_interval": 1})
    fit(model, steps=2, logger=RunLog(tmp_path), log_every_n_steps=1)
    found = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert found["D/loss"] == pytest.approx(found["D/real"] + found["D/fake"])
    assert {"D/r1", "G/loss", "G/path"} <= found.keys()


def test_losses_and_penalties_by_the_networks_outputs():
    gan = stylegan(num_classes=3, gamma=0.7, path_weight=0.3, group=1).eval()
    x, y = 2 * torch.rand(5, 1, 8, 8) - 1, torch.tensor([0, 2, 1, 1, 0])
    batch = {"image": x, "label": y, **gan.draw(5, torch.Generator().manual_seed(1))}
    batch["directions"] = torch.randn(5, 1, 8, 8)
    g, d = gan.generator, gan.discriminator
    w = gan.styles(batch)
    fakes = g.synthesis(w, batch["noise"])
    assert torch.equal(gan.fakes(batch), fakes)
    torch.testing.assert_close(gan.generator_loss(batch), {"fake": softplus(-d(fakes, y)).mean()})
    expected = {"real": softplus(-d(x, y)).mean(), "fake": softplus(d(fakes, y)).mean()}
    torch.testing.assert_close(gan.discriminator_loss(batch), expected)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(d(x, y).sum(), x)
    torch.testing.assert_close(gan.r1_loss(batch)["r1"], 0.35 * gradient.square().sum((1, 2, 3)).mean())
    noise = [layer[::2] for layer in batch["noise"]]
    lengths = path_lengths(partial(g.synthesis, noise=noise), w[::2], batch["directions"][::2])
    for moved in (0.01, 0.01 + 0.99 * 0.01):  # a running mean from 0
        mean = moved * lengths.mean().detach()
        torch.testing.assert_close(gan.path_loss(batch)["path"], 0.3 * (lengths - mean).square().mean())
        torch.testing.assert_close(gan.path_mean, mean)


def test_noise_images_are_drawn_in_training_and_constant_in_samples():
    gan = stylegan(image_size=[8, 12])
    for conv in gan.generator.synthesis.convs:
        conv.strength.data.fill_(1.0)
    sizes = [list(conv.noise.shape) for conv in gan.generator.synthesis.convs]
    assert sizes == [[4, 6], [8, 12], [8, 12]]
    batch = gan.draw(50, torch.Generator().manual_seed(0))
    assert [list(noise.shape) for noise in batch["noise"]] == [[50, 1, *size] for size in sizes]
    assert all(abs(noise.std() - 1) < 0.1 for noise in batch["noise"])
    fakes = gan.fakes(batch)
    assert not torch.allclose(fakes, gan.fakes({**batch, "noise": [n.flip(0) for n in batch["noise"]]}))
    constant = gan.generator.synthesis(gan.styles(batch)[:3])
    single = gan.generator.synthesis(
        gan.styles(batch)[:3], [c.noise.expand(3, 1, -1, -1) for c in gan.generator.synthesis.convs]
    )
    torch.testing.assert_close(constant, single)
    assert torch.equal(gan.sample(seeds=[3]), gan.sample(seeds=[3]))


def test_a_share_of_the_fakes_has_two_styles():
    """The layer of the change is uniform from the second to the last one."""
    gan = stylegan(image_size=16)
    batch = gan.draw(6000, torch.Generator().manual_seed(0))
    z, first = batch["mixed"]
    counts = torch.bincount(first, minlength=7) / 6000
    assert counts[0] == 0 and torch.allclose(counts[1:6], torch.tensor(0.18), atol=0.02)
    assert counts[6] == pytest.approx(0.1, abs=0.02)
    few = {"z": batch["z"][:9], "mixed": (z[:9], first[:9])}
    w, other = gan.generator.mapping(few["z"]), gan.generator.mapping(z[:9])
    styles = gan.styles(few)
    for n in range(9):
        for layer in range(6):
            assert torch.equal(styles[n, layer], (w if layer < first[n] else other)[n])
    plain = stylegan(mixing=0.0)
    plain.load_state_dict(stylegan().state_dict())
    batch = plain.draw(4, torch.Generator().manual_seed(0))
    assert torch.equal(plain.styles(batch)[:, 3], plain.generator.mapping(batch["z"]))


def test_the_mean_of_w_is_that_of_new_latents():
    model = watched()
    moved = []
    mapping, average = model.generator.mapping.forward, model.move_w_mean

    def move(batch):
        before, w = model.generator.w_mean.clone(), []
        model.generator.mapping.forward = lambda z, y: w.append(mapping(z, y)) or w[-1]
        average(batch)
        model.generator.mapping.forward = mapping
        torch.testing.assert_close(model.generator.w_mean, 0.998 * before + 0.002 * w[0].mean(0))
        moved.append(len(w[0]))

    model.move_w_mean = move
    fit(model, steps=3)
    assert moved == [8] * 3 and torch.equal(model.ema.w_mean, model.generator.w_mean)


def test_truncation_moves_w_towards_its_mean():
    gan = stylegan(ema_half_life=None)
    gan.generator.w_mean.normal_()
    mean = gan.generator.synthesis(gan.generator.w_mean.expand(1, 4, -1)).detach().clamp(-1, 1)
    whole, half, none = (gan.sample(seeds=[3, 4], truncation=psi) for psi in (1.0, 0.5, 1e-6))
    torch.testing.assert_close(whole, gan.sample(seeds=[3, 4]))
    torch.testing.assert_close(none, mean.expand(2, -1, -1, -1), rtol=0, atol=1e-4)
    w = gan.generator.mapping(gan.seeded([3, 4]))
    w = gan.generator.w_mean + 0.5 * (w - gan.generator.w_mean)
    torch.testing.assert_close(half, gan.generator.synthesis(w[:, None].expand(-1, 4, -1)).detach().clamp(-1, 1))


def test_truncation_works_with_weights_in_half_precision():
    gan = stylegan().bfloat16()
    assert gan.sample(seeds=[3], truncation=0.7).isfinite().all()


def test_half_precision_is_bounded_and_close():
    gan = stylegan(width=16).eval()
    z, x = gan.latent(4), torch.rand(4, 1, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert leaky(torch.full((1,), 1e4).bfloat16()) == 256 and leaky(torch.full((1,), 1e4)) == 1e4
        large = torch.full((1, 16, 8, 8), 1e6)
        assert [HalvingBlock(16, 16).main[i](large).abs().max() for i in (0, 2)] == [256, 181]
        assert ToImage(16, 1, 3)(large, torch.randn(1, 3)).abs().max() == 256
        image, score = gan.generator(z), gan.discriminator(x)
    assert image.dtype == score.dtype == torch.float32
    torch.testing.assert_close(image, gan.generator(z), rtol=0.1, atol=0.1)
    torch.testing.assert_close(score, gan.discriminator(x), rtol=0.1, atol=0.1)


def test_large_weights_do_not_overflow_in_fp16():
    """Sums of products would; the norms divide by the same factors."""
    torch.manual_seed(0)
    x, w, s = torch.randn(2, 64, 4, 4), 30 * torch.randn(4, 64, 3, 3), 300 * torch.randn(2, 64)
    with torch.autocast("cpu", torch.float16):
        half = modulated_conv2d(x.half(), w, s)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), modulated_conv2d(x, w, s), rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"maps": 7}, "maps is 7, but feature maps of 8 pixels have maps / 8 channels"),
        ({"image_size": 4}, "image_size 4: StyleGAN2 doubles .*; try 8"),
        ({"image_size": [8, 15]}, r"image_size \[8, 15\]: .*; try \[8, 14\]"),
        ({"mixing": 1.5}, "mixing is 1.5; it takes a number from 0 to 1"),
        ({"consensus": 1.0}, "consensus .* cannot be combined with StyleGAN2.play"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(bad, words):
    with pytest.raises(ValueError, match=words):
        stylegan(**bad)


def test_optimizers_of_paired_steps_are_refused():
    with pytest.raises(MisconfigurationException, match="StyleGAN2's lazy regularization takes steps of its own"):
        fit(stylegan(optimizer=lambda params: ExtraAdam(params, lr=1e-3)), steps=1)
    plain = stylegan(optimizer=lambda params: ExtraAdam(params, lr=1e-3), gamma=0.0, path_weight=0.0)
    fit(plain, steps=1)


def test_ada_follows_the_signs_of_real_logits():
    gan = stylegan(augment=ADA(target=-0.9, ramp=100.0, color=0.0))
    fit(gan, NoiseImages(gan), steps=6)
    assert gan.augment.strength.p > 0.2


def test_labels_can_be_ignored():
    assert stylegan(num_classes=3).num_classes == 3
    gan = stylegan(num_classes=3, conditional=False)
    assert gan.num_classes is None and gan.discriminator.mapping is None and gan.generator.mapping.embed is None


def test_shared_fakes_take_one_forward_pass_of_the_synthesis():
    """G's fakes have a graph, D's do not."""
    calls = []
    for share in (False, True):
        torch.manual_seed(0)
        gan = ganzoo.StyleGAN2(**{**small("StyleGAN2"), "num_classes": None}, share_fakes=share, path_weight=0.0)
        made, seen = [], []
        gan.generator.synthesis.register_forward_hook(lambda m, x, y, made=made: made.append(y))
        d_loss, g_loss = gan.discriminator_loss, gan.generator_loss
        gan.discriminator_loss = lambda batch, seen=seen, loss=d_loss: seen.append(batch) or loss(batch)
        gan.generator_loss = lambda batch, seen=seen, loss=g_loss: seen.append(batch) or loss(batch)
        fit(gan, steps=2)
        calls.append(len(made))
        if share:
            assert [batch["fakes"].requires_grad for batch in seen] == [True, False] * 2
    assert calls[0] == calls[1] + 2
