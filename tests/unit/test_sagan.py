"""SAGAN: where its attention and spectral norm are, its losses, published sizes."""

from __future__ import annotations

from functools import cache

import pytest
import torch

import ganzoo
from ganzoo.layers.attention import SelfAttention
from ganzoo.layers.spectral import SpectralConv2d, SpectralEmbedding, SpectralLinear
from ganzoo.variants.sagan import imagenet128
from tests.paper import optimizers
from tests.unit.test_sngan import size
from tests.variants import small


@cache
def default():
    with torch.device("meta"):
        return ganzoo.SAGAN()


@cache
def large(**more):
    with torch.device("meta"):
        return imagenet128(**more)


def sizes(gan):
    return size(gan.generator), size(gan.discriminator)


PAPER = {
    "Adam": (lambda gan: optimizers(gan, "kind"), ["FusedAdam"] * 2),
    "learning rates of D and G": (lambda gan: optimizers(gan, "lr"), [4e-4, 1e-4]),
    "eps": (lambda gan: optimizers(gan, "eps", "weight_decay"), [1e-8, 1e-8, 0, 0]),
    "beta1, beta2": (lambda gan: optimizers(gan, "betas"), [(0.0, 0.9)] * 2),
    "one step each": (lambda gan: (gan.n_critic, gan.n_generator), (1, 1)),
    "z": (lambda gan: gan.z_dim, 128),
    "parameters for CIFAR-10": (sizes, (4_386_308, 1_075_586)),  # StudioGAN
    "feat_64 for ImageNet": (lambda gan: sizes(large(attention=64)), (42_017_412, 39_448_258)),  # StudioGAN
    "feat_32 for ImageNet": (lambda gan: sizes(large()), (42_078_852, 39_463_618)),  # derived from it
}


@pytest.mark.parametrize(("find", "number"), PAPER.values(), ids=PAPER)
def test_numbers_of_the_paper(find, number):
    assert find(default()) == number


@pytest.mark.parametrize(
    ("image_size", "attention", "side"), [(16, 32, 8), (64, 32, 32), (64, 17, 16), ([16, 24], 8, 8)]
)
def test_attention_is_at_the_given_size_in_both_players(image_size, attention, side):
    torch.manual_seed(0)
    gan = ganzoo.SAGAN(**{**small("SAGAN"), "width": 1, "image_size": image_size}, attention=attention)
    seen = []
    for network in (gan.generator, gan.discriminator):
        (layer,) = (m for m in network.modules() if isinstance(m, SelfAttention))
        layer.register_forward_hook(lambda m, x, y: seen.append(min(y.shape[2:])))
    y = torch.tensor([0, 1])
    gan.discriminator(gan.generator(gan.latent(2), y), y)
    assert seen == [side, side]


def test_attention_that_d_has_no_feature_maps_for_is_refused():
    with pytest.raises(ValueError, match="attention is 4, but D's feature maps have 8 pixels or more: use 8"):
        ganzoo.SAGAN(image_size=16, attention=4)


def test_spectral_norm_is_in_all_layers_of_both_players():
    spectral = SpectralConv2d | SpectralLinear | SpectralEmbedding
    for network in (default().generator, default().discriminator):
        convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
        assert convolutions and all(isinstance(m, spectral) for m in convolutions)
    assert isinstance(default().discriminator.table, spectral)


def test_losses_are_those_of_the_hinge_with_labels():
    torch.manual_seed(0)
    gan = ganzoo.SAGAN(**{**small("SAGAN"), "image_size": 16}).eval()
    gan.discriminator.score.u.mul_(1000)  # smaller scores, within the margins
    gan.discriminator.table.u.mul_(1000)
    x, z, y = torch.rand(4, 1, 16, 16) * 2 - 1, gan.latent(4), torch.tensor([2, 0, 2, 1])
    with torch.no_grad():
        real, fake = gan.discriminator(x, y), gan.discriminator(gan.generator(z, y), y)
        d = gan.discriminator_loss({"image": x, "label": y, "z": z})
        g = gan.generator_loss({"label": y, "z": z})
    assert 0 < d["real"] != d["fake"]
    torch.testing.assert_close(d["real"], (1 - real).clamp(min=0).mean())
    torch.testing.assert_close(d["fake"], (1 + fake).clamp(min=0).mean())
    torch.testing.assert_close(g["fake"], -fake.mean())
