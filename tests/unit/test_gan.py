"""GAN: the numbers of the paper and of its authors' code, and the initial output biases."""

from __future__ import annotations

import math

import pytest
import torch
import yaml
from torch import nn

import ganzoo
from ganzoo.cli.paths import configs
from ganzoo.data import Digits, Gaussians
from ganzoo.data.vision import MNIST
from ganzoo.layers.maxout import Maxout
from ganzoo.networks.mlp import MaxoutDiscriminator, MLPGenerator
from ganzoo.testing import NoiseImages, fit
from ganzoo.variants.gan import mean_pixels
from tests.paper import layers as lines
from tests.variants import small

CODE = "github.com/goodfeli/adversarial, mnist.yaml"
SIGNS = {"Linear": "L", "ReLU": "r", "Sigmoid": "s", "Dropout": "d", "Maxout": "M"}


@pytest.fixture(scope="module")
def gan():
    torch.manual_seed(0)
    return ganzoo.GAN()


def rates(gan):
    (g, d) = (
        gan.make_optimizer[player](getattr(gan, player).parameters()) for player in ("generator", "discriminator")
    )
    return [(type(o).__name__, o.defaults["lr"], o.defaults["momentum"], o.defaults["weight_decay"]) for o in (g, d)]


def linear(network):
    return [m for m in network.modules() if isinstance(m, nn.Linear)]


def bounds(network):
    """Bounds of the uniform initial weights, from their largest absolute values; checks their standard deviations."""
    for m in linear(network):
        assert not m.bias.any()
        if m.weight.numel() > 10_000:
            assert m.weight.std().item() * math.sqrt(3) == pytest.approx(m.weight.abs().max().item(), rel=0.02)
    return [round(m.weight.abs().max().item(), 3) for m in linear(network)]


def signs(network):
    return "".join(SIGNS[type(m).__name__] for m in network.layers)


def at(gan, images):
    """Learning rate and momentum of each optimizer after a number of images."""
    gan.schedule(images)
    return [(o.param_groups[0]["lr"], o.param_groups[0]["momentum"]) for o in gan.trainer.optimizers]


@pytest.fixture(scope="module")
def training():
    """A small GAN with a trainer, whose optimizers `schedule` sets."""
    gan = ganzoo.GAN(image_size=4, hidden=4, d_hidden=4)
    gan.trainer = fit(gan, NoiseImages(gan), steps=1)
    return gan


PAPER = [  # name, source, function, value; images of 28x28 pixels and batches of 100 are MNIST's
    ("G's layers", CODE, lambda g, _: signs(g.generator), "LrLrLs"),
    ("G's units", CODE, lambda g, _: [m.out_features for m in linear(g.generator)], [1200, 1200, 784]),
    ("G's latents", CODE, lambda g, _: (linear(g.generator)[0].in_features, g.latent(2).shape[1]), (100, 100)),
    ("G's weights", CODE, lambda g, _: bounds(g.generator), [0.05, 0.05, 0.05]),
    ("D's layers", CODE, lambda g, _: signs(g.discriminator), "dMdMdL"),
    ("D's units", CODE, lambda g, _: [m.out_features for m in linear(g.discriminator)], [1200, 1200, 1]),
    ("D's pieces", CODE, lambda g, _: [m.pieces for m in g.discriminator.modules() if isinstance(m, Maxout)], [5, 5]),
    ("D's weights", CODE, lambda g, _: bounds(g.discriminator), [0.005, 0.005, 0.005]),
    (
        "D's dropout",
        CODE,
        lambda g, _: [m.p for m in g.discriminator.layers if isinstance(m, nn.Dropout)],
        [0.2, 0.5, 0.5],
    ),
    ("optimizers", CODE, lambda g, _: rates(g), [("SGD", 0.1, 0.5, 0)] * 2),
    ("rates at first", CODE, lambda _, t: at(t, 0), [(0.1, 0.5)] * 2),
    ("rates after an update", CODE, lambda _, t: at(t, 100), [(0.1 / 1.000004, 0.5 + 0.2 * 100 / 12.5e6)] * 2),
    ("rates after 125 epochs", CODE, lambda _, t: at(t, 6_250_000), [(0.1 / 1.000004**62_500, 0.6)] * 2),
    ("rates at last", CODE, lambda _, t: at(t, 10**10), [(1e-6, 0.7)] * 2),
    ("k", "algorithm 1", lambda g, _: (g.n_critic, g.n_generator), (1, 1)),
    ("objective", "section 3", lambda g, _: (g.objective, g.divergence), ("non-saturating", "gan")),
]


def test_network_defaults_match_the_variant(gan):
    assert lines(MLPGenerator()) == lines(gan.generator) and lines(MaxoutDiscriminator()) == lines(gan.discriminator)


@pytest.mark.parametrize(("what", "where", "read", "value"), PAPER, ids=[what for what, *_ in PAPER])
def test_numbers_of_the_paper(gan, training, what, where, read, value):
    found = read(gan, training)
    if isinstance(value, list) and isinstance(value[0], tuple):
        found, value = ([list(row) for row in rows] for rows in (found, value))
        for a, b in zip(found, value, strict=True):
            assert a == [pytest.approx(x, rel=1e-7) if isinstance(x, float) else x for x in b], where
    else:
        assert found == value, where


def test_latents_are_uniform_with_variance_1(gan):
    """theano_rng.uniform(-sqrt 3, sqrt 3) in the authors' Generator.get_noise."""
    z = gan.latent(2000, torch.Generator().manual_seed(0))
    bound = math.sqrt(3)
    assert z.max().item() == pytest.approx(bound, rel=1e-3) and z.min().item() == pytest.approx(-bound, rel=1e-3)
    assert z.var().item() == pytest.approx(1, rel=0.01) and z.mean().item() == pytest.approx(0, abs=0.01)


def test_networks_compute_with_pixels_in_0_1(gan):
    """As pylearn2's MNIST: the input of D's layers and the output of G's sigmoid."""
    black_and_white = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 28, 28)
    read = []
    with gan.discriminator.layers.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0])):
        gan.discriminator(black_and_white)
    assert torch.equal(read[0], torch.tensor([0.0, 1.0]).view(2, 1).expand(2, 784))
    given = []
    z = gan.latent(3)
    with gan.generator.layers.register_forward_hook(lambda *call: given.append(call[2])):
        images = gan.generator(z)
    assert torch.equal(images.flatten(1), 2 * given[0] - 1)


def test_output_biases_of_g_start_at_the_logits_of_the_mean_pixels(tmp_path):
    """As pylearn2's init_sigmoid_bias_from_marginals, clamped to 1e-7; also in the averaged generator."""
    data = Digits(batch_size=100)
    mean = data.dataset("train").images.double().mean(0).flatten() / 255
    expected = torch.logit(mean.clamp(1e-7, 1 - 1e-7)).float()
    assert expected.min() == pytest.approx(math.log(1e-7), rel=1e-3) and expected.max() > 0
    gan = ganzoo.GAN(8, hidden=8, d_hidden=8, ema_half_life=100.0)
    trainer = fit(gan, data, steps=0)
    for network in (gan.generator, gan.ema):
        torch.testing.assert_close(network.layers[-2].bias.detach(), expected)
        assert not network.layers[0].bias.any() and not network.layers[2].bias.any()
    trainer = fit(gan, data, steps=2)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    bias = gan.generator.layers[-2].bias.detach().clone()
    assert not torch.equal(bias, expected)
    again = ganzoo.GAN(8, hidden=8, d_hidden=8, ema_half_life=100.0)
    fit(again, data, steps=2, ckpt_path=tmp_path / "a.ckpt")  # no steps left
    assert torch.equal(again.generator.layers[-2].bias, bias), "training went on from the mean pixels"
    torch.testing.assert_close(ganzoo.load(tmp_path / "a.ckpt").generator.layers[-2].bias.detach(), bias)


def test_output_biases_are_not_set_if_nonzero_or_without_a_data_module():
    gan = ganzoo.GAN(8, hidden=8, d_hidden=8)
    with torch.no_grad():
        gan.generator.layers[-2].bias.fill_(2.0)
    fit(gan, Digits(), steps=0)
    assert (gan.generator.layers[-2].bias == 2).all()
    other = ganzoo.GAN(8, hidden=8, d_hidden=8)
    fit(other, Digits().train_dataloader(), steps=0)
    assert not other.generator.layers[-2].bias.any()


def test_mean_pixels_of_all_and_of_some_images():
    points = Gaussians("grid", n=2500).dataset("train")
    torch.testing.assert_close(mean_pixels(points), points.images.double().mean(0))
    digits = Digits().dataset("train")
    some = digits.images[::3].double().mean(0) / 127.5 - 1  # 466 of 1,397
    torch.testing.assert_close(mean_pixels(digits, at_most=500), some, rtol=0, atol=1e-6)


def test_weights_without_z_bound_keep_their_prior():
    """They were trained on latents in (-1, 1), which old files do not record."""
    gan = ganzoo.GAN(**small("GAN"))
    old = {name: weight for name, weight in gan.state_dict().items() if name != "z_bound"}
    other = ganzoo.GAN(**small("GAN"))
    other.load_state_dict(old)
    z = other.latent(1000)
    assert 0.99 < z.abs().max() <= 1
    third = ganzoo.GAN(**small("GAN"))
    third.load_state_dict(other.state_dict())
    assert third.z_bound == 1


def test_the_mnist_config_trains_250_epochs_of_50_000_images():
    config = yaml.safe_load(configs()["gan/mnist"].read_text())
    images = config["trainer"]["max_steps"] * config["data"]["init_args"]["batch_size"]
    assert config["data"]["init_args"]["batch_size"] == 100
    assert images == 250 * round(60_000 * (1 - MNIST().val_fraction)) == 250 * 50_000
