"""WGAN: clipping of the critic's weights, bursts of its updates, and the Wasserstein distance."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn
from torch.optim import RMSprop
from torch.utils.data import DataLoader

import ganzoo
from ganzoo.networks.mlp import ReLUDiscriminator, ReLUGenerator
from ganzoo.testing import check_resume, fit
from ganzoo.variants.wgan import burst_due
from tests.contract.test_processes import two, without_batch_statistics
from tests.contract.test_turns import Remember
from tests.paper import LINEAR, NORMS, begins, layers, optimizers, prior, spread
from tests.variants import small


def wgan(**more):
    torch.manual_seed(0)
    return ganzoo.WGAN(**small("WGAN"), **more)


@cache
def default():
    torch.manual_seed(0)
    return ganzoo.WGAN()


DCGAN_G = [  # of Radford et al. 2015, figure 1, at half its width
    *("unflatten", "batch norm 512", "relu", "up 512>256 5/2+2 no bias", "batch norm 256", "relu"),
    *("up 256>128 5/2+2 no bias", "batch norm 128", "relu", "up 128>64 5/2+2 no bias", "batch norm 64", "relu"),
    *("up 64>3 5/2+2", "tanh"),
]
DCGAN_D = [
    *("conv 3>64 5/2+2", "leaky 0.2", "conv 64>128 5/2+2 no bias", "batch norm 128", "leaky 0.2"),
    *("conv 128>256 5/2+2 no bias", "batch norm 256", "leaky 0.2"),
    *("conv 256>512 5/2+2 no bias", "batch norm 512", "leaky 0.2", "linear 8192>1"),
]
PAPER = {  # values not in the paper are from the authors' code
    "algorithm 1: RMSProp": (lambda gan: optimizers(gan, "kind"), ["RMSprop"] * 2),
    "algorithm 1: alpha": (lambda gan: optimizers(gan, "lr"), [5e-5] * 2),
    "code: RMSProp as torch has it": (
        lambda gan: optimizers(gan, "alpha", "eps", "momentum"),
        [0.99, 0.99, 1e-8, 1e-8, 0, 0],
    ),
    "algorithm 1: c": (lambda gan: gan.clip, 0.01),
    "algorithm 1: n_critic": (lambda gan: (gan.n_critic, gan.n_generator, gan.burst), (5, 1, None)),
    "code: z": (lambda gan: prior(gan.latent(1000)), "standard normal"),
    "code: G": (lambda gan: layers(gan.generator), ["linear 100>8192 no bias", *DCGAN_G]),
    "code: critic": (lambda gan: layers(gan.discriminator), DCGAN_D),
    "code: G's weights": (lambda gan: spread(gan.generator, LINEAR), begins(0, 0.02)),
    "code: critic's weights": (lambda gan: spread(gan.discriminator, LINEAR), begins(0, 0.02)),
    "code: G's gains": (lambda gan: spread(gan.generator, NORMS), begins(1, 0.02)),
    "section 4.2: the MLP has four layers": (
        lambda gan: layers(ganzoo.WGAN(8, 3, width=512, architecture="mlp")),
        [
            "identity",  # no augmentation
            *("linear 100>512", "relu", "linear 512>512", "relu", "linear 512>512", "relu", "linear 512>192", "tanh"),
            *("linear 192>512", "relu", "linear 512>512", "relu", "linear 512>512", "relu", "linear 512>1"),
        ],
    ),
    "the MLP's own defaults": (
        lambda gan: (layers(ReLUGenerator()), layers(ReLUDiscriminator())),
        (
            ["linear 100>512", "relu", "linear 512>512", "relu", "linear 512>512", "relu", "linear 512>784", "tanh"],
            ["linear 784>512", "relu", "linear 512>512", "relu", "linear 512>512", "relu", "linear 512>1"],
        ),
    ),
    "a score for each image": (
        lambda gan: [list(mlp.discriminate(mlp.sample(2)).shape) for mlp in [ganzoo.WGAN(8, 3, architecture="mlp")]],
        [[2]],
    ),
}


@pytest.mark.parametrize(("find", "number"), PAPER.values(), ids=PAPER)
def test_numbers_of_the_paper(find, number):
    assert find(default()) == number


def test_the_equations_are_those_of_the_paper():
    gan = wgan().eval()
    x, z = torch.rand(5, 1, 16, 16) * 2 - 1, gan.latent(5)
    with torch.no_grad():
        real, fake = (gan.discriminator(images).mean() for images in (x, gan.generator(z)))
        d, g = gan.discriminator_loss({"image": x, "z": z}), gan.generator_loss({"z": z})
    torch.testing.assert_close(sum(d.values()), fake - real)
    torch.testing.assert_close(sum(g.values()), -fake)


@pytest.mark.parametrize("clip", [0.01, 0.003])
def test_only_the_parameters_of_the_critic_are_clipped(clip):
    gan = wgan(clip=clip, optimizer=lambda params: RMSprop(params, lr=0.05))
    fit(gan, steps=5)
    for name, p in gan.discriminator.named_parameters():
        size = p.abs().max().item()
        assert size <= 1.00001 * clip
        assert size == pytest.approx(clip) or name.endswith("bias"), name
    norms = [m for m in gan.discriminator.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all(m.running_var.max() > clip for m in norms)
    assert max(p.abs().max() for p in gan.generator.parameters()) > clip


def test_the_generator_is_updated_every_fifth_batch():
    assert turns(wgan(), steps=10) == "dddddgdddddg"


@pytest.mark.parametrize(("n_critic", "burst"), [(5, 100), (1, 7), (3, 3)])
def test_bursts_match_the_authors_code(n_critic, burst):
    """Their loop: batches for the critic, whose number depends on the past steps of G, then one step of G."""
    found = [t for t in range(1, 12_001) if burst_due(t, n_critic, burst)]
    expected, batches = [], 0
    while True:
        moved = len(expected)
        batches += burst if moved < 25 or moved % 500 == 0 else n_critic
        if batches > 12_000:
            break
        expected.append(batches)
    assert found == expected and len(found) > 1000


def turns(gan, **more):
    order = []
    minimize = gan.minimize
    gan.minimize = lambda *args, player: (order.append(player[0]), minimize(*args, player=player))
    fit(gan, **more)
    return "".join(order)


def test_the_first_generator_steps_follow_bursts():
    assert turns(wgan(n_critic=2, burst=3), steps=77) == "dddg" * 25 + "ddg"


def test_bursts_continue_after_resuming():
    check_resume(lambda: wgan(n_critic=2, burst=3))


def test_two_processes_have_the_same_bursts_as_one(tmp_path):
    def make():
        rate = {"optimizer": lambda params: torch.optim.SGD(params, lr=0.05), "clip": 0.3}
        return without_batch_statistics(wgan(n_critic=1, burst=3, **rate))

    one = make()
    fit(one, steps=7)
    for rank in two(make(), tmp_path, steps=7):
        for key, value in one.state_dict().items():
            torch.testing.assert_close(rank["state"][key], value, rtol=1e-5, atol=1e-6)


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
    """A generator of one pixel with a learned value."""

    def __init__(self, place):
        super().__init__()
        self.place = nn.Parameter(torch.tensor(place))

    def forward(self, z, y=None):
        return self.place.expand(len(z), 1, 1, 1)


@pytest.mark.parametrize("place", [-1.0, -0.5, 0.25, 1.0])
def test_the_distance_of_two_points_is_proportional_to_their_separation(place):
    """It is |place| times the largest slope; the Jensen-Shannon divergence would be log 2 at each place."""
    gan = wgan(n_critic=100, optimizer=lambda params: RMSprop(params, lr=0.01))
    gan.generator, gan.discriminator = Point(place), Line()
    fit(gan, DataLoader([{"image": torch.zeros(1, 1, 1)}] * 40, 8), steps=5)
    terms = gan.discriminator_loss({"image": torch.zeros(8, 1, 1, 1), "z": gan.latent(8)})
    assert -sum(terms.values()).item() == pytest.approx(0.01 * abs(place))


@pytest.mark.parametrize("clip", [0.0, -0.01])
def test_a_clip_that_is_not_positive_is_refused(clip):
    with pytest.raises(ValueError, match="clip is .*; it takes a number above 0"):
        wgan(clip=clip)
