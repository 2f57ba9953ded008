"""MLPGAN: the grid's networks, with GAN's game at constant rates."""

from __future__ import annotations

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


def test_the_best_gan_of_the_grid():
    gan = ganzoo.MLPGAN()
    assert kinds(gan.generator) == "LBr" * 4 + "Lt" and kinds(gan.discriminator) == "LrL"
    shapes = [(m.in_features, m.out_features) for m in gan.modules() if isinstance(m, nn.Linear)]
    assert shapes == [(100, 1600), *[(1600, 1600)] * 3, (1600, 784), (784, 1024), (1024, 1)]
    for network, std in ((gan.generator, 0.02), (gan.discriminator, 0.002)):
        for m in network.modules():
            if isinstance(m, nn.Linear):
                assert m.weight.std().item() == pytest.approx(std, rel=0.1) and (m.bias == 0).all()


def test_batch_norm_is_not_where_images_are_read_or_made():
    assert kinds(ReLUGenerator(4, 1, 3, 5, layers=3, batch_norm=True)) == "LBrLBrLt"
    assert kinds(ReLUDiscriminator(4, 1, 5, layers=4, batch_norm=True, dropout=0.5)) == "LrdLBrdLBrdL"
    assert kinds(ReLUDiscriminator(4, 1, 5, layers=3)) == "LrLrL"


@pytest.mark.parametrize("bad", [{"layers_g": 0}, {"layers_d": 0}])
def test_a_network_has_a_layer(bad):
    with pytest.raises(ValueError, match="layers_[gd] is 0; it takes a whole number from 1"):
        ganzoo.MLPGAN(**small("MLPGAN"), **bad)


def test_rates_are_constant():
    gan = ganzoo.MLPGAN(**small("MLPGAN"))
    trainer = fit(gan, steps=1)
    gan.schedule(10**7)
    for optimizer in trainer.optimizers:
        assert isinstance(optimizer, torch.optim.SGD)
        assert optimizer.param_groups[0]["lr"] == 0.01 and optimizer.param_groups[0]["momentum"] == 0


def test_dropout_is_the_discriminators_alone():
    gan = ganzoo.MLPGAN(**small("MLPGAN"), dropout=0.25)
    assert [m.p for m in gan.discriminator.modules() if isinstance(m, nn.Dropout)] == [0.25]
    assert not any(isinstance(m, nn.Dropout) for m in gan.generator.modules())
