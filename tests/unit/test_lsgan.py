"""LSGAN: both settings of its targets, the optimal discriminator, and the Pearson chi-square divergence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import ganzoo
from ganzoo.functional.losses import half_square
from tests.variants import small

ADAM = ("FusedAdam", 1e-3, (0.5, 0.999), 1e-8, 0.0)


def adam(gan):
    """Both players' optimizers."""
    made = [gan.make_optimizer[player](getattr(gan, player).parameters()) for player in ("generator", "discriminator")]
    keys = ("lr", "betas", "eps", "weight_decay")
    return [(type(o).__name__, *(o.defaults[key] for key in keys)) for o in made]


PAPER = [  # name, source, function, value
    ("targets", "eq. 9", lambda gan: (gan.a, gan.b, gan.c), (0.0, 1.0, 1.0)),
    ("types of the targets", "real numbers", lambda gan: {type(x) for x in (gan.a, gan.b, gan.c)}, {float}),
    ("weights of D's terms", "eq. 2", lambda gan: weights(gan, "discriminator"), {"real": 0.5, "fake": 0.5}),
    ("weights of G's terms", "eq. 2", lambda gan: weights(gan, "generator"), {"fake": 0.5}),
    ("optimizers", "the rate for scenes", adam, [ADAM] * 2),
    ("latents", "the paper's 1024", lambda gan: gan.latent(3).shape, (3, 1024)),
    ("prior", "as DCGAN", lambda gan: round(gan.latent(2000).abs().max().item(), 2), 1.0),
    ("turns", "one step each", lambda gan: (gan.n_critic, gan.n_generator), (1, 1)),
    (
        "G",
        "DCGAN's networks at 64x64",
        lambda gan: maps(gan.generator),
        [256, 128, 64, 3],
    ),
    (
        "D",
        "DCGAN's networks at 64x64",
        lambda gan: maps(gan.discriminator),
        [64, 128, 256, 512],
    ),
    ("G's activations", "ReLU", lambda gan: activations(gan.generator), ["ReLU"] * 4 + ["Tanh"]),
    ("D's activations", "LeakyReLU .2", lambda gan: activations(gan.discriminator), ["LeakyReLU 0.2"] * 4),
]


def maps(network):
    return [m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]


def activations(network):
    found = [m for m in network.modules() if isinstance(m, nn.ReLU | nn.LeakyReLU | nn.Tanh)]
    return [f"LeakyReLU {m.negative_slope}" if isinstance(m, nn.LeakyReLU) else type(m).__name__ for m in found]


def weights(gan, player):
    """Weight of each term's squared distance from its target; D's output is 5 for reals and 3 for fakes."""
    target = {"real": gan.b, "fake": gan.a if player == "discriminator" else gan.c}
    said = {"real": 5.0, "fake": 3.0}
    gan.discriminate = lambda x: x
    batch = {"image": torch.full((4,), said["real"]), "fakes": torch.full((4,), said["fake"])}
    terms = getattr(gan, f"{player}_loss")(batch)
    del gan.discriminate
    return {name: term.item() / (said[name] - target[name]) ** 2 for name, term in terms.items()}


@pytest.fixture(scope="module")
def paper():
    torch.manual_seed(0)
    return ganzoo.LSGAN()


@pytest.mark.parametrize(("what", "where", "read", "value"), PAPER, ids=[what for what, *_ in PAPER])
def test_numbers_of_the_paper(paper, what, where, read, value):
    assert read(paper) == value, where


def test_mlp_networks_have_four_linear_layers():
    gan = ganzoo.LSGAN(image_size=1, channels=2, z_dim=2, architecture="mlp")
    for network, units in ((gan.generator, [64, 64, 64, 2]), (gan.discriminator, [64, 64, 64, 1])):
        assert [m.out_features for m in network.layers if isinstance(m, nn.Linear)] == units
        assert activations(network) == ["ReLU"] * 3 + ["Tanh"] * (network is gan.generator)


SETTINGS = [(-1.0, 1.0, 0.0), (0.0, 1.0, 1.0)]
P = np.array([0.5, 0.2, 0.2, 0.1, 0.0])  # densities of data and fakes on five atoms
Q = np.array([0.1, 0.3, 0.2, 0.2, 0.2])


class Table(nn.Module):
    """A discriminator on five atoms: images are one-hot."""

    def __init__(self):
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(5, dtype=torch.float64))

    def forward(self, x, y=None):
        return x.flatten(1) @ self.scores


def game(a, b, c):
    """An LSGAN with a table as D, and a batch of ten reals and ten fakes with frequencies P and Q."""
    gan = ganzoo.LSGAN(**small("LSGAN"), a=a, b=b, c=c)
    gan.generator, gan.discriminator = nn.Identity(), Table()
    atoms = torch.eye(5, dtype=torch.float64)[:, :, None, None]
    real, fake = (atoms.repeat_interleave(torch.from_numpy(10 * d).round().int(), 0) for d in (P, Q))
    return gan, {"image": real, "z": fake}


@pytest.mark.parametrize(("a", "b", "c"), SETTINGS)
def test_the_optimal_d_is_the_density_weighted_mean_of_the_targets(a, b, c):
    gan, batch = game(a, b, c)
    optimizer = torch.optim.LBFGS(gan.discriminator.parameters(), max_iter=200, tolerance_grad=1e-12)

    def loss():
        optimizer.zero_grad()
        value = sum(gan.discriminator_loss(batch).values())
        value.backward()
        return value

    optimizer.step(loss)
    np.testing.assert_allclose(gan.discriminator.scores.detach().numpy(), (b * P + a * Q) / (P + Q), atol=1e-4)


def test_the_objective_at_the_optimal_d_is_pearsons_chi_square():
    """With b - c = 1 and b - a = 2, E_p (D* - c)^2 + E_q (D* - c)^2 = chi^2(p + q || 2 q) = sum (q - p)^2 / (p + q)."""
    a, b, c = SETTINGS[0]
    gan, batch = game(a, b, c)
    with torch.no_grad():
        gan.discriminator.scores.copy_(torch.from_numpy((b * P + a * Q) / (P + Q)))
    (fake,) = gan.generator_loss(batch).values()
    real = half_square(gan.discriminator(batch["image"]), c)  # constant for G
    mean = (P + Q) / 2
    assert 2 * (real + fake).item() == pytest.approx(((Q - mean) ** 2 / mean).sum() * 2)


@pytest.mark.parametrize(("a", "b", "c"), SETTINGS)
def test_losses_match_the_paper(a, b, c):
    gan = ganzoo.LSGAN(**small("LSGAN"), a=a, b=b, c=c).eval()
    x, z = torch.rand(5, 1, 16, 16) * 2 - 1, gan.latent(5)
    with torch.no_grad():
        real, fake = (gan.discriminator(images).double().numpy() for images in (x, gan.generator(z)))
        d, g = gan.discriminator_loss({"image": x, "z": z}), gan.generator_loss({"z": z})
    assert sum(d.values()).item() == pytest.approx(((real - b) ** 2).mean() / 2 + ((fake - a) ** 2).mean() / 2)
    assert g["fake"].item() == pytest.approx(((fake - c) ** 2).mean() / 2)


def test_equal_targets_are_refused():
    with pytest.raises(ValueError, match="a and b are both"):
        ganzoo.LSGAN(**small("LSGAN"), a=1.0)


def test_mlp_networks_accept_any_image_size():
    gan = ganzoo.LSGAN(image_size=7, channels=2, z_dim=3, width=4, architecture="mlp")
    images = gan.generator(gan.latent(2))
    assert images.shape == (2, 2, 7, 7) and gan.discriminator(images).shape == (2,)


def test_an_unknown_architecture_is_refused():
    with pytest.raises(ValueError, match="architecture is 'vgg'; it takes one of dcgan, mlp"):
        ganzoo.LSGAN(**small("LSGAN"), architecture="vgg")
