"""ProjectionGAN: D's inner product, conditional losses, published sizes."""

from __future__ import annotations

from functools import cache

import pytest
import torch

import ganzoo
from ganzoo.variants.projectiongan import imagenet128
from tests.paper import optimizers
from tests.unit.test_sngan import size
from tests.variants import small


@cache
def default():
    with torch.device("meta"):
        return ganzoo.ProjectionGAN()


@cache
def large():
    with torch.device("meta"):
        return imagenet128()


def gan():
    torch.manual_seed(0)
    return ganzoo.ProjectionGAN(**{**small("ProjectionGAN"), "image_size": 16}).eval()


PAPER = {
    "Adam": (lambda gan: optimizers(gan, "kind"), ["FusedAdam"] * 2),
    "alpha": (lambda gan: optimizers(gan, "lr"), [2e-4] * 2),
    "eps": (lambda gan: optimizers(gan, "eps", "weight_decay"), [1e-8, 1e-8, 0, 0]),
    "beta1, beta2": (lambda gan: optimizers(gan, "betas"), [(0.0, 0.9)] * 2),
    "n_dis": (lambda gan: (gan.n_critic, gan.n_generator), (5, 1)),
    "z": (lambda gan: gan.z_dim, 128),
    # mimicry's and StudioGAN's networks for CIFAR-10; the authors' D has no bias in the last layer
    "parameters": (lambda gan: (size(gan.generator), size(gan.discriminator)), (4_304_387, 1_055_105)),
    # G as in StudioGAN, whose D is wider (39,443,137); the authors' blocks have as many hidden maps as their input
    "ImageNet": (lambda gan: (size(large().generator), size(large().discriminator)), (41_996_931, 30_041_857)),
    "ImageNet's arguments": (lambda gan: large().hparams["image_size"], 128),
}


@pytest.mark.parametrize(("find", "number"), PAPER.values(), ids=PAPER)
def test_numbers_of_the_paper(find, number):
    assert find(default()) == number


def test_the_score_is_an_inner_product_with_the_class_plus_a_score_without_it():
    model = gan()
    d, x, y = model.discriminator, torch.rand(4, 1, 16, 16) * 2 - 1, torch.tensor([2, 0, 2, 1])
    with torch.no_grad():
        h = d.blocks(x).clamp(min=0).sum((2, 3))
        v = d.table.weight / (
            d.table.u @ d.table.weight @ torch.nn.functional.normalize(d.table.u @ d.table.weight, dim=0)
        )
        w = d.score.weight[0] / d.score.weight.norm()
        for i in range(4):
            torch.testing.assert_close(d(x, y)[i], h[i] @ w + d.score.bias[0] + h[i] @ v[y[i]], rtol=1e-4, atol=1e-5)
    assert h.shape == (4, 8)


def test_losses_use_the_labels_of_the_batch():
    model = gan()
    x, z, y = torch.rand(4, 1, 16, 16) * 2 - 1, model.latent(4), torch.tensor([2, 0, 2, 1])
    model.discriminator.score.u.mul_(1000)  # smaller scores, within the margins
    model.discriminator.table.u.mul_(1000)
    with torch.no_grad():
        fakes = model.generator(z, y)
        real, fake = model.discriminator(x, y), model.discriminator(fakes, y)
        d = model.discriminator_loss({"image": x, "label": y, "z": z})
        g = model.generator_loss({"label": y, "z": z})
        other = model.discriminator_loss({"image": x, "label": (y + 1) % 3, "z": z})
    torch.testing.assert_close(d["real"], (1 - real).clamp(min=0).mean())
    torch.testing.assert_close(d["fake"], (1 + fake).clamp(min=0).mean())
    torch.testing.assert_close(g["fake"], -fake.mean())
    assert all(not torch.equal(other[name], d[name]) for name in d)


def test_g_depends_on_the_label_through_its_norms():
    model = gan()
    z = model.latent(1).expand(3, -1)
    with torch.no_grad():
        torch.testing.assert_close(
            *model.generator(z, torch.arange(3))[:2]
        )  # all classes have gain 1 and shift 0 at first
        model.generator.blocks[1].norm2.shift.weight[1] += 1
        images = model.generator(z, torch.arange(3))
    torch.testing.assert_close(images[0], images[2])
    assert not torch.allclose(images[0], images[1])
