"""The linear classifier on D's features: pooled features by hand, the SVM by its definition."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn
from torch.nn.functional import leaky_relu, max_pool2d, relu

import ganzoo
from ganzoo.core.pixels import to_float
from ganzoo.data import Digits
from ganzoo.evaluation.linear import grid_features, linear_accuracy
from ganzoo.networks.dcgan import DCGANDiscriminator
from ganzoo.testing import fit


def digits(split, n=None):
    data = Digits(image_size=8).dataset(split)
    return to_float(data.images[:n]), data.labels()[:n]


def test_features_are_all_layers_max_pooled_to_4x4():
    """At 32 pixels D has maps of 16, 8 and 4 pixels, pooled over blocks of 4, 2 and 1."""
    torch.manual_seed(0)
    d = DCGANDiscriminator(32, 1, width=2)
    d.layers[3].running_mean.fill_(0.1)  # of the first batch norm, used in eval mode
    x = torch.randn(5, 1, 32, 32)
    before = copy.deepcopy(d.state_dict())
    found = grid_features(d.train(), x, batch_size=2)
    with torch.no_grad():
        layers = copy.deepcopy(d).eval().layers
        one = leaky_relu(layers[0](x), 0.2)
        two = leaky_relu(layers[3](layers[2](one)), 0.2)
        three = leaky_relu(layers[6](layers[5](two)), 0.2)
    expected = [max_pool2d(h, size).flatten(1) for h, size in ((one, 4), (two, 2), (three, 1))]
    torch.testing.assert_close(found, torch.cat(expected, 1))
    assert found.shape == (5, (2 + 4 + 8) * 16)
    assert d.training and all(torch.equal(value, before[key]) for key, value in d.state_dict().items())


def test_fully_connected_networks_are_refused():
    with pytest.raises(ValueError, match="Sequential has no convolutional layers"):
        grid_features(nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.ReLU()), torch.zeros(2, 1, 8, 8))


class Pixels(nn.Module):
    """Two pixels of an image plus 1, each expanded to a 4x4 map."""

    def __init__(self):
        super().__init__()
        self.relu = nn.ReLU()

    def forward(self, x, y=None):
        return self.relu(x[:, :, :1, :2].permute(0, 3, 1, 2).expand(-1, -1, 4, 4) + 1)


@pytest.mark.parametrize("C", [0.01, 1.0])
def test_the_classifier_is_an_l2_svm(C):
    """min |w|^2 / 2 + C sum max(0, 1 - y f(x))^2, where w includes the intercept, as in scikit-learn."""
    generator = torch.Generator().manual_seed(0)
    images = 2 * torch.rand(60, 1, 8, 8, generator=generator) - 1
    labels = (images[:, 0, 0, 0] + 0.3 * torch.randn(60, generator=generator) > 0).long()
    x = relu(images[:, 0, 0, :2] + 1).repeat_interleave(16, 1).double().numpy()
    x, y = np.hstack([x, np.ones((60, 1))]), 2 * labels.numpy() - 1

    def loss(w):
        return w @ w / 2 + C * (np.maximum(0, 1 - y * (x @ w)) ** 2).sum()

    w = minimize(loss, np.zeros(33), method="BFGS", options={"gtol": 1e-6}).x
    other = 2 * torch.rand(400, 1, 8, 8, generator=generator) - 1
    z = relu(other[:, 0, 0, :2] + 1).repeat_interleave(16, 1).double().numpy() @ w[:-1] + w[-1]
    sure = np.abs(z) > 1e-3
    decided = torch.from_numpy((z > 0)[sure]).long()
    found = linear_accuracy(Pixels(), (images, labels), [(other[sure], decided), (other[sure], 1 - decided)], C)
    assert found == [1.0, 0.0] and sure.sum() > 350


def test_an_untrained_network_classifies_digits_above_chance():
    """Chance is 0.1: the pooled grid keeps positions."""
    torch.manual_seed(0)
    (found,) = linear_accuracy(DCGANDiscriminator(8, 1, width=8), digits("train", 500), [digits("test", 200)], C=10.0)
    assert found > 0.5


@pytest.mark.slow
def test_features_of_a_trained_d_classify_digits():
    torch.manual_seed(0)
    model = ganzoo.DCGAN(image_size=8, channels=1, width=32)
    fit(model, Digits(image_size=8, batch_size=64), steps=500)
    (found,) = linear_accuracy(model.discriminator, digits("train"), [digits("test")])
    assert found > 0.9
