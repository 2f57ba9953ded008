"""DCGAN: the numbers of its paper and of its authors' Theano code."""

from __future__ import annotations

from functools import cache

import pytest
import torch

import ganzoo
from ganzoo.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from tests.paper import LINEAR, NORMS, begins, layers, optimizers, prior, spread


@cache
def default():
    torch.manual_seed(0)
    return ganzoo.DCGAN()


PAPER = {
    "4: Adam": (lambda gan: optimizers(gan, "kind"), ["FusedAdam"] * 2),
    "4: learning rate": (lambda gan: optimizers(gan, "lr"), [2e-4] * 2),
    "4: beta1": (lambda gan: optimizers(gan, "betas"), [(0.5, 0.999)] * 2),
    "Adam's other numbers": (lambda gan: optimizers(gan, "eps", "weight_decay"), [1e-8, 1e-8, 0, 0]),
    "one step each": (lambda gan: (gan.n_critic, gan.n_generator), (1, 1)),
    "figure 1: z of 100, uniform": (lambda gan: (gan.z_dim, prior(gan.latent(1000))), (100, "uniform in (-1, 1)")),
    "figure 1: G": (
        lambda gan: layers(gan.generator),
        [
            *("linear 100>16384 no bias", "unflatten", "batch norm 1024", "relu"),
            *(
                "up 1024>512 5/2+2 no bias",
                "batch norm 512",
                "relu",
                "up 512>256 5/2+2 no bias",
                "batch norm 256",
                "relu",
            ),
            *("up 256>128 5/2+2 no bias", "batch norm 128", "relu", "up 128>3 5/2+2", "tanh"),
        ],
    ),
    "3, 4, code: D": (
        lambda gan: layers(gan.discriminator),
        [
            *("conv 3>128 5/2+2", "leaky 0.2", "conv 128>256 5/2+2 no bias", "batch norm 256", "leaky 0.2"),
            *("conv 256>512 5/2+2 no bias", "batch norm 512", "leaky 0.2"),
            *("conv 512>1024 5/2+2 no bias", "batch norm 1024", "leaky 0.2", "linear 16384>1"),
        ],
    ),
    "the networks' own defaults": (
        lambda gan: (
            layers(DCGANGenerator()) == layers(gan.generator),
            layers(DCGANDiscriminator()) == layers(gan.discriminator),
        ),
        (True, True),
    ),
    "4: G's first weights": (lambda gan: spread(gan.generator, LINEAR), begins(0, 0.02)),
    "4: D's first weights": (lambda gan: spread(gan.discriminator, LINEAR), begins(0, 0.02)),
    "code: G's first gains": (lambda gan: spread(gan.generator, NORMS), begins(1, 0.02)),
    "code: D's first gains": (lambda gan: spread(gan.discriminator, NORMS), begins(1, 0.02)),
}


@pytest.mark.parametrize(("find", "number"), PAPER.values(), ids=PAPER)
def test_numbers_of_the_paper(find, number):
    assert find(default()) == number


@pytest.mark.parametrize(("size", "words"), [(1, "not points; use other data"), (2, "takes 8, 16, 32, 64, ...; try 8")])
def test_image_sizes_that_are_too_small_are_refused(size, words):
    with pytest.raises(ValueError, match=f"image_size {size}: .*{words}"):
        ganzoo.DCGAN(image_size=size)
