"""ContraGAN: the paper's numbers, the losses, and the discriminator that it shares with ReACGAN."""

from __future__ import annotations

import pickle
from functools import cache

import pytest
import torch

import ganzoo
from ganzoo.functional.contrastive import conditional_contrastive
from ganzoo.networks.residual import ContrastiveDiscriminator
from ganzoo.variants import contragan, reacgan
from tests.paper import optimizers, prior
from tests.variants import small


@cache
def default():
    torch.manual_seed(0)
    return ganzoo.ContraGAN()


PAPER = {  # the authors' code, CIFAR-10
    "lr": (lambda gan: optimizers(gan, "lr"), [2e-4] * 2),
    "betas": (lambda gan: optimizers(gan, "betas"), [(0.5, 0.999)] * 2),
    "eps": (lambda gan: optimizers(gan, "eps", "weight_decay"), [1e-6, 1e-6, 0, 0]),
    "five D steps": (lambda gan: (gan.n_critic, gan.n_generator), (5, 1)),
    "lambda and t": (lambda gan: (gan.contrastive_weight, gan.temperature), (1.0, 1.0)),
    "z of 80": (lambda gan: (gan.z_dim, prior(gan.latent(1000))), (80, "standard normal")),
    "d of 512, 10 classes": (lambda gan: list(gan.discriminator.proxies.weight.shape), [10, 512]),
    "attention after G's second and D's first block": (lambda gan: attended(gan), (2, 1)),
    "parameters": (lambda gan: (count(gan.generator), count(gan.discriminator)), (9_416_196, 2_517_186)),
}


def attended(gan):
    """Blocks before the attention of G and of D."""
    d = [type(block).__name__ for block in gan.discriminator.trunk.blocks]
    return gan.generator.place, d.index("SelfAttention")


def count(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("find", "number"), PAPER.values(), ids=PAPER)
def test_numbers_of_the_paper(find, number):
    assert find(default()) == number


@pytest.mark.parametrize(("module", "parameters"), [(contragan, 90_343_202), (reacgan, 91_642_146)])
def test_networks_for_imagenet_have_the_published_sizes(module, parameters):
    """As counted in the authors' code: d is 1536 for ContraGAN and 2048 for ReACGAN."""
    with torch.device("meta"):
        gan = module.imagenet128(clip_norm=9.0)
    assert (count(gan.generator), count(gan.discriminator)) == (70_433_988, parameters)
    assert gan.n_critic == 2 and gan.ema_half_life == 6931 * 512 and gan.ema_ramp_up == 0.05 and gan.clip_norm == 9.0
    pickle.dumps(gan.__getstate__()["make_optimizer"])  # for processes by spawn
    assert gan.hparams["num_classes"] == 1000
    assert optimizers(gan, "lr", "betas", "eps") == [2e-4, 5e-5, *[(0.0, 0.999)] * 2, 1e-6, 1e-6]


def test_losses_are_hinge_and_2c():
    """D's of real images, G's of fakes; from the networks' outputs."""
    torch.manual_seed(0)
    gan = ganzoo.ContraGAN(**small("ContraGAN"), contrastive_weight=0.3, temperature=0.6).eval()
    x, y = 2 * torch.rand(5, 1, 8, 8) - 1, torch.tensor([0, 2, 1, 1, 0])
    batch = {"image": x, "label": y, "z": gan.latent(5)}
    with torch.no_grad():
        real, e, p = gan.discriminator(x, y)
        fake, e_fake, _ = gan.discriminator(gan.generator(batch["z"], y), y)
        d, g = gan.discriminator_loss(batch), gan.generator_loss(batch)
    expected = {"real": (1 - real).clamp(min=0).mean(), "fake": (1 + fake).clamp(min=0).mean()}
    expected["contrastive"] = 0.3 * conditional_contrastive(e, p, y, 0.6)
    torch.testing.assert_close(d, expected)
    torch.testing.assert_close(
        g, {"fake": -fake.mean(), "contrastive": 0.3 * conditional_contrastive(e_fake, p, y, 0.6)}
    )


def test_the_discriminator_has_three_outputs_of_the_same_features():
    """The score does not depend on the label; proxies depend on nothing else."""
    torch.manual_seed(0)
    d = ContrastiveDiscriminator(16, 3, num_classes=4, width=8, embed_dim=5).eval()
    x, y = torch.rand(3, 3, 16, 16), torch.tensor([2, 0, 2])
    score, e, p = d(x, y)
    assert score.shape == (3,) and e.shape == p.shape == (3, 5)
    assert torch.equal(d(x, y.flip(0) + 1)[0], score) and torch.equal(p, d.proxies.weight[y])
    h = d.trunk.features(x)
    torch.testing.assert_close(score, d.trunk.score(h).squeeze(1))
    torch.testing.assert_close(e, d.embed(h))


def test_first_weights_are_orthogonal_and_all_layers_have_spectral_norm():
    d = default().discriminator
    weights = d.proxies.weight, d.embed.weight.T, d.trunk.blocks[0].conv2.weight.flatten(1)
    for weight in weights:
        torch.testing.assert_close(weight @ weight.T, torch.eye(len(weight)), atol=1e-4, rtol=0)
    layers = {type(m).__name__ for m in d.modules() if hasattr(m, "weight")}
    assert layers == {"SpectralConv2d", "SpectralLinear", "Embedding"}
    assert not any(m.bias.any() for m in d.modules() if getattr(m, "bias", None) is not None)


@pytest.mark.parametrize("name", ["ContraGAN", "ReACGAN"])
def test_a_batch_of_one_class_has_a_class_loss_of_0(name):
    gan = getattr(ganzoo, name)(**small(name))
    batch = {"image": torch.rand(4, 1, 8, 8), "label": torch.ones(4, dtype=torch.int64), "z": gan.latent(4)}
    for equation in (gan.discriminator_loss, gan.generator_loss):
        assert list(equation(batch).values())[-1] == 0


def test_the_players_may_have_different_widths():
    arguments = small("ContraGAN")
    gan, narrow = (ganzoo.ContraGAN(**arguments, d_width=d_width) for d_width in (6, None))
    for model, n in ((gan, 6), (narrow, arguments["width"])):
        assert model.discriminator.embed.in_features == 2 * n
        assert model.generator.project.out_features == 4 * arguments["width"] * 16
