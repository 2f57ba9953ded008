"""MLPGAN: the networks of the grid search, with GAN's losses and constant learning rates."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import ganzoo
from ganzoo.networks.mlp import ReLUDiscriminator, ReLUGenerator
from ganzoo.testing import fit
from tests.variants import small


def kinds(network):
    return "".join(
        {"Linear": "L", "BatchNorm1d": "B", "ReLU": "r", "Dropout": "d", "Tanh": "t"}[type(m).__name__]
        for m in network.layers
    )


def sgd(gan):
    """Class, lr, momentum, weight decay and nesterov of both optimizers."""
    made = [gan.make_optimizer[player](getattr(gan, player).parameters()) for player in ("generator", "discriminator")]
    keys = ("lr", "momentum", "weight_decay", "nesterov")
    return [(type(o).__name__, *(o.defaults[key] for key in keys)) for o in made]


BEST = "the best GAN of the grid, figure 4 (a)"
PAPER = [  # name, source, getter, expected value
    ("G's layers", BEST, lambda gan: kinds(gan.generator), "LBr" * 4 + "Lt"),
    ("D's layers", BEST, lambda gan: kinds(gan.discriminator), "LrL"),
    ("sizeG", BEST, lambda gan: units(gan.generator), [1600] * 4 + [784]),
    ("sizeD", BEST, lambda gan: units(gan.discriminator), [1024, 1]),
    ("optimizers", BEST, sgd, [("SGD", 0.01, 0, 0, False)] * 2),
    ("latents", "not in the paper: GAN's", lambda gan: gan.latent(3).shape, (3, 100)),
    ("prior", "not in the paper: DCGAN's", lambda gan: round(gan.latent(2000).abs().max().item(), 2), 1.0),
    ("turns", "one step each", lambda gan: (gan.n_critic, gan.n_generator), (1, 1)),
    ("G's weights", "N(0, .02)", lambda gan: stds(gan.generator), [0.02] * 5),
    ("D's weights", "N(0, .002)", lambda gan: stds(gan.discriminator), [0.002] * 2),
    ("batch norm's gains", "torch's", lambda gan: {m.weight.mean().item() for m in norms(gan)}, {1.0}),
    ("batch norm's momentum", "torch's", lambda gan: {(m.eps, m.momentum) for m in norms(gan)}, {(1e-5, 0.1)}),
]


def units(network):
    return [m.out_features for m in network.layers if isinstance(m, nn.Linear)]


def stds(network):
    assert not any(m.bias.any() for m in network.layers if isinstance(m, nn.Linear))
    return [round(m.weight.std().item(), 3) for m in network.layers if isinstance(m, nn.Linear)]


def norms(gan):
    return [m for m in gan.modules() if isinstance(m, nn.BatchNorm1d)]


@pytest.fixture(scope="module")
def paper():
    torch.manual_seed(0)
    return ganzoo.MLPGAN()


@pytest.mark.parametrize(("what", "where", "read", "value"), PAPER, ids=[what for what, *_ in PAPER])
def test_the_papers_numbers(paper, what, where, read, value):
    assert read(paper) == value, where


def test_the_first_discriminator_layer_and_the_generator_output_have_no_batch_norm():
    assert kinds(ReLUGenerator(4, 1, 3, 5, layers=3, batch_norm=True)) == "LBrLBrLt"
    assert kinds(ReLUDiscriminator(4, 1, 5, layers=4, batch_norm=True, dropout=0.5)) == "LrdLBrdLBrdL"
    assert kinds(ReLUDiscriminator(4, 1, 5, layers=3)) == "LrLrL"


def test_the_hinge_objective_is_that_of_geometric_gan():
    """D minimises E max(0, 1 - D(x)) + E max(0, 1 + D(G(z))), and G -E D(G(z)); here D(x) = x."""
    gan = ganzoo.MLPGAN(**small("MLPGAN"), objective="hinge")
    gan.discriminate = lambda x: x
    batch = {"image": torch.tensor([-1.0, 0.5, 3.0]), "fakes": torch.tensor([-4.0, -0.5, 1.5])}
    assert gan.discriminator_loss(batch) == {"real": (2 + 0.5) / 3, "fake": torch.tensor((0.5 + 2.5) / 3)}
    assert gan.generator_loss(batch) == {"fake": 1}


def test_the_relativistic_objective_compares_pairs():
    """D minimises E log(1 + e^(D(G(z)) - D(x))), and G E log(1 + e^(D(x) - D(G(z)))); here D(x) = x."""
    gan = ganzoo.MLPGAN(**small("MLPGAN"), objective="relativistic")
    gan.discriminate = lambda x: x
    real, fake = [-1.0, 0.5, 3.0], [-4.0, -0.5, 1.5]
    batch = {"image": torch.tensor(real), "fakes": torch.tensor(fake)}
    of_d, of_g = gan.discriminator_loss(batch), gan.generator_loss(batch)
    assert of_d.keys() == of_g.keys() == {"relativistic"}
    for found, sign in ((of_d, 1), (of_g, -1)):
        mean = sum(math.log1p(math.exp(sign * (b - a))) for a, b in zip(real, fake, strict=True)) / 3
        assert found["relativistic"].item() == pytest.approx(mean)


@pytest.mark.parametrize("bad", [{"layers_g": 0}, {"layers_d": 0}])
def test_networks_without_layers_are_refused(bad):
    with pytest.raises(ValueError, match="layers_[gd] is 0; it takes a whole number from 1"):
        ganzoo.MLPGAN(**small("MLPGAN"), **bad)


def test_learning_rates_are_constant():
    gan = ganzoo.MLPGAN(**small("MLPGAN"))
    trainer = fit(gan, steps=1)
    gan.schedule(10**7)
    for optimizer in trainer.optimizers:
        assert isinstance(optimizer, torch.optim.SGD)
        assert optimizer.param_groups[0]["lr"] == 0.01 and optimizer.param_groups[0]["momentum"] == 0


def test_dropout_is_only_in_the_discriminator():
    gan = ganzoo.MLPGAN(**small("MLPGAN"), dropout=0.25)
    assert [m.p for m in gan.discriminator.modules() if isinstance(m, nn.Dropout)] == [0.25]
    assert not any(isinstance(m, nn.Dropout) for m in gan.generator.modules())
