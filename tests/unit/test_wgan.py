"""WGAN: the critic's weights stay in their box, and its loss is a distance."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim import RMSprop
from torch.utils.data import DataLoader

import ganzoo
from ganzoo.testing import fit
from tests.contract.test_turns import Remember
from tests.variants import small


def wgan(**more):
    torch.manual_seed(0)
    return ganzoo.WGAN(**small("WGAN"), **more)


def test_the_equations_are_those_of_the_paper():
    gan = wgan().eval()
    x, z = torch.rand(5, 1, 16, 16) * 2 - 1, gan.latent(5)
    with torch.no_grad():
        real, fake = (gan.discriminator(images).mean() for images in (x, gan.generator(z)))
        d, g = gan.discriminator_loss({"image": x, "z": z}), gan.generator_loss({"z": z})
    torch.testing.assert_close(sum(d.values()), fake - real)
    torch.testing.assert_close(sum(g.values()), -fake)


@pytest.mark.parametrize("clip", [0.01, 0.003])
def test_every_parameter_of_the_critic_is_clipped_and_nothing_else(clip):
    gan = wgan(clip=clip, optimizer=lambda params: RMSprop(params, lr=0.05))
    fit(gan, steps=5)
    for name, p in gan.discriminator.named_parameters():
        size = p.abs().max().item()
        assert size <= 1.00001 * clip
        assert size == pytest.approx(clip) or name.endswith("bias"), name
    norms = [m for m in gan.discriminator.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all(m.running_var.max() > clip for m in norms)
    assert max(p.abs().max() for p in gan.generator.parameters()) > clip


def test_the_generator_steps_at_every_fifth_batch():
    gan, order = wgan(), []
    minimize = gan.minimize
    gan.minimize = lambda *args, player: (order.append(player[0]), minimize(*args, player=player))
    fit(gan, steps=10)
    assert "".join(order) == "dddddgdddddg"


def test_the_distance_is_logged():
    logger = Remember()
    fit(wgan(), steps=4, logger=logger, log_every_n_steps=2)
    rows = [row for _, row in logger.rows]
    assert len(rows) == 2
    assert all(row["wasserstein"] == pytest.approx(-row["D/loss"]) for row in rows)


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(1))

    def forward(self, x, y=None):
        return self.slope * x.flatten()


class Point(nn.Module):
    """A generator of one pixel at a place of its own."""

    def __init__(self, place):
        super().__init__()
        self.place = nn.Parameter(torch.tensor(place))

    def forward(self, z, y=None):
        return self.place.expand(len(z), 1, 1, 1)


@pytest.mark.parametrize("place", [-1.0, -0.5, 0.25, 1.0])
def test_the_distance_of_two_points_is_how_far_they_are_apart(place):
    """|place - 0| times the largest slope, on either side; the Jensen-Shannon divergence is log 2 at each place."""
    gan = wgan(n_critic=100, optimizer=lambda params: RMSprop(params, lr=0.01))
    gan.generator, gan.discriminator = Point(place), Line()
    fit(gan, DataLoader([{"image": torch.zeros(1, 1, 1)}] * 40, 8), steps=5)
    terms = gan.discriminator_loss({"image": torch.zeros(8, 1, 1, 1), "z": gan.latent(8)})
    assert -sum(terms.values()).item() == pytest.approx(0.01 * abs(place))


@pytest.mark.parametrize("clip", [0.0, -0.01])
def test_a_clip_that_is_not_positive_is_refused(clip):
    with pytest.raises(ValueError, match="clip is .*; it takes a number above 0"):
        wgan(clip=clip)
