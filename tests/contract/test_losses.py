"""Objectives and networks against closed forms and numbers from the papers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy

import ganzoo
from ganzoo.core.pixels import scaled
from ganzoo.functional.losses import half_square, hinge_fake, hinge_real, log_fake, log_real
from ganzoo.layers.maxout import Maxout
from ganzoo.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from ganzoo.testing import NoiseImages
from tests.variants import small


def logits(n=1000):
    return torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3


def test_log_real_and_log_fake_are_logarithms_of_the_sigmoid():
    x = logits()
    torch.testing.assert_close(log_real(x), torch.sigmoid(x).log().mean())
    torch.testing.assert_close(log_fake(x), (1 - torch.sigmoid(x)).log().mean())


def test_log_real_and_log_fake_do_not_overflow():
    assert log_real(torch.tensor([-1e4])) == -1e4
    assert log_fake(torch.tensor([1e4])) == -1e4


def test_value_is_minus_twice_the_mean_cross_entropy():
    real, fake = logits(), logits().flip(0) + 1
    d = torch.sigmoid(torch.cat([real, fake]))
    target = torch.cat([torch.ones(1000), torch.zeros(1000)]).double()
    torch.testing.assert_close(log_real(real) + log_fake(fake), -2 * binary_cross_entropy(d, target))


def test_half_square_is_half_the_mean_squared_difference():
    assert half_square(torch.tensor([1.0, -2.0]), 3.0) == (4 + 25) / 2 / 2


@pytest.mark.parametrize(("loss", "sign"), [(hinge_real, 1), (hinge_fake, -1)])
def test_the_hinge_loss_stops_at_the_margin(loss, sign):
    """1 - D for reals and 1 + D for fakes, and 0 beyond D = 1 and D = -1."""
    scores = torch.tensor([-3.0, -1.5, -0.5, 0.5, 1.5, 4.0], dtype=torch.float64, requires_grad=True)
    value = loss(scores)
    assert value.item() == sum(max(0.0, 1 - sign * score) for score in scores.tolist()) / 6
    (gradient,) = torch.autograd.grad(value, scores)
    assert gradient.tolist() == [-sign / 6 if sign * score < 1 else 0 for score in scores.tolist()]


def test_an_undecided_discriminator_has_value_minus_log_4():
    zero = torch.zeros(10)
    assert (log_real(zero) + log_fake(zero)).item() == pytest.approx(-math.log(4))


class Fixed(nn.Module):
    """A discriminator whose logit is a parameter, which gives the gradient with respect to the logit."""

    def __init__(self, logit):
        super().__init__()
        self.logit = nn.Parameter(torch.tensor([logit]))

    def forward(self, x, y=None):
        return self.logit


@pytest.mark.parametrize(
    ("objective", "gradient"),
    [
        ("non-saturating", lambda d: -(1 - d)),  # of -log D with respect to the logit
        ("minimax", lambda d: -d),  # of log(1 - D)
        ("maximum-likelihood", lambda d: -d / (1 - d)),  # of -exp(logit)
    ],
)
@pytest.mark.parametrize("logit", [-10.0, 0.0, 2.0])
def test_generator_objectives_have_the_expected_gradients(objective, gradient, logit):
    gan = ganzoo.GAN(image_size=4, hidden=4, d_hidden=4, objective=objective)
    gan.discriminator = Fixed(logit)
    (loss,) = gan.generator_loss({"z": gan.latent(1)}).values()
    loss.backward()
    expected = gradient(1 / (1 + math.exp(-logit)))
    assert gan.discriminator.logit.grad.item() == pytest.approx(expected, rel=1e-4)


def test_an_unknown_objective_is_refused():
    with pytest.raises(ValueError, match="objective is 'hinge'; it takes one of non-saturating, minimax, max"):
        ganzoo.GAN(**small("GAN"), objective="hinge")


def test_minimax_saturates_and_non_saturating_does_not():
    """At logit -10, D rejecting a fake with confidence, the gradients are e^-10 and 1."""
    rejected = torch.tensor([-10.0], requires_grad=True)
    (minimax,) = torch.autograd.grad(log_fake(rejected), rejected)
    (non_saturating,) = torch.autograd.grad(-log_real(rejected), rejected)
    assert minimax.item() == pytest.approx(-math.exp(-10), rel=1e-3)
    assert non_saturating.item() == pytest.approx(-1, rel=1e-3)


@pytest.mark.parametrize("name", ["GAN", "DCGAN", "MLPGAN"])
def test_the_equations_are_those_of_the_paper(name):
    gan = getattr(ganzoo, name)(**small(name)).eval()
    x, z = torch.rand(5, 1, 16, 16) * 2 - 1, gan.latent(5)
    with torch.no_grad():
        real, fake = torch.sigmoid(gan.discriminator(x)), torch.sigmoid(gan.discriminator(gan.generator(z)))
        d = gan.discriminator_loss({"image": x, "z": z})
        g = gan.generator_loss({"image": x, "z": z})
    torch.testing.assert_close(sum(d.values()), -(real.log().mean() + (1 - fake).log().mean()))
    torch.testing.assert_close(sum(g.values()), -fake.log().mean())


READS = {  # terms of G's loss that depend on real images in the papers, and why
    "LAPGAN": {"fake_0", "fake_1"},  # every G but the coarsest refines a real image
    "Pix2Pix": {"l1"},  # the distance to the target
    "CycleGAN": {"source", "cycle"},  # the image is translated and reconstructed
    "ImprovedGAN": {"features"},  # means of D's features are matched
    "R3GAN": {"relativistic"},  # a fake's score is compared with that of a real
}


def told(name, reals, term=None, **more):
    """G's terms and their gradients on a fixed batch, with other real images unless `reals` (a seed) is None."""
    torch.manual_seed(0)
    gan = getattr(ganzoo, name)(**small(name), **more)
    batch = scaled(next(iter(NoiseImages(gan).train_dataloader())))
    batch |= gan.draw(len(batch["image"]), torch.Generator().manual_seed(0))
    if reals is not None:
        image, (labelled, label) = torch.rand(batch["image"].shape, generator=seeded(reals)), batch["labelled"]
        batch |= {"image": 2 * image - 1, "labelled": (labelled.flip(0), label)}
    terms = gan.generator_loss(batch)
    gradients = {}
    for key, value in terms.items():
        found = torch.autograd.grad(value, list(gan.generator.parameters()), retain_graph=True, allow_unused=True)
        gradients[key] = torch.cat([gradient.flatten() for gradient in found if gradient is not None])
    return terms, gradients


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", ganzoo.VARIANTS)
def test_the_generator_loss_does_not_depend_on_real_images(name):
    """Terms and gradients are bit-identical when the real images change, except for the terms in `READS`."""
    (terms, gradients), (others, other_gradients) = told(name, None), told(name, 5)
    moved = {key for key in terms if not torch.equal(terms[key], others[key])}
    steered = {key for key in terms if not torch.equal(gradients[key], other_gradients[key])}
    assert moved == steered == READS.get(name, set())
    assert all(gradient.any() for gradient in gradients.values())


def test_improved_gan_without_feature_matching_does_not_depend_on_real_images():
    (terms, gradients), (others, other_gradients) = (
        told("ImprovedGAN", reals, objective="non-saturating") for reals in (None, 5)
    )
    assert torch.equal(terms["fake"], others["fake"]) and torch.equal(gradients["fake"], other_gradients["fake"])


def test_dropout_in_d_is_active_in_the_generator_step():
    gan = ganzoo.GAN(image_size=8, hidden=8, d_hidden=64).train()
    z = gan.latent(4)
    first, second = (gan.generator_loss({"z": z})["fake"] for _ in range(2))
    assert first != second
    gan.eval()
    first, second = (gan.generator_loss({"z": z})["fake"] for _ in range(2))
    assert first == second


def test_maxout_is_the_maximum_of_its_pieces():
    layer = Maxout(3, 4, pieces=5)
    x = torch.randn(7, 3)
    pieces = layer.linear(x).view(7, 4, 5)
    torch.testing.assert_close(layer(x), pieces.max(2).values)


def test_dcgan_has_the_published_shapes_and_initial_weights():
    g, d = DCGANGenerator(), DCGANDiscriminator()
    up = [m for m in g.modules() if isinstance(m, nn.ConvTranspose2d)]
    down = [m for m in d.modules() if isinstance(m, nn.Conv2d)]
    assert [m.in_channels for m in up] == [1024, 512, 256, 128] and up[-1].out_channels == 3
    assert [m.out_channels for m in down] == [128, 256, 512, 1024]
    assert all(m.stride == (2, 2) and m.kernel_size == (5, 5) for m in up + down)
    assert g.project.in_features == 100
    gains = [m.weight for network in (g, d) for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(gain.mean().item() == pytest.approx(1, abs=0.01) for gain in gains) and len(gains) == 7
    assert all(m.weight.std().item() == pytest.approx(0.02, rel=0.05) for m in up + down)
    assert not isinstance(d.layers[1], nn.BatchNorm2d) and isinstance(g.layers[-1], nn.Tanh)
    slopes = {m.negative_slope for m in d.modules() if isinstance(m, nn.LeakyReLU)}
    assert slopes == {0.2}


@pytest.mark.parametrize("size", [8, 16, 32, 64, 128])
def test_dcgan_generates_and_discriminates_images_of_each_size(size):
    g, d = DCGANGenerator(size, 3, 5, width=2), DCGANDiscriminator(size, 3, width=2)
    images = g(torch.rand(2, 5))
    assert images.shape == (2, 3, size, size) and d(images).shape == (2,)


@pytest.mark.parametrize(("size", "hint"), [(28, 32), (4, 8), (48, 64), (100, 128), (65, 64)])
def test_dcgan_refuses_other_sizes_and_suggests_a_valid_one(size, hint):
    with pytest.raises(ValueError, match=f"try {hint}"):
        ganzoo.DCGAN(image_size=size)
