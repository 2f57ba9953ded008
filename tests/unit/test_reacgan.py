"""ReACGAN: the paper's numbers and the losses; its discriminator is ContraGAN's."""

from __future__ import annotations

from functools import cache

import pytest
import torch

import ganzoo
from ganzoo.functional.contrastive import data_to_data
from ganzoo.variants import reacgan
from ganzoo.variants.reacgan import imagenet128
from tests.paper import optimizers, prior
from tests.variants import small


@cache
def default():
    torch.manual_seed(0)
    return ganzoo.ReACGAN()


PAPER = {  # the authors' code, CIFAR-10
    "lr": (lambda gan: optimizers(gan, "lr"), [0.00028284271] * 2),
    "betas": (lambda gan: optimizers(gan, "betas"), [(0.5, 0.999)] * 2),
    "eps": (lambda gan: optimizers(gan, "eps", "weight_decay"), [1e-6, 1e-6, 0, 0]),
    "five D steps": (lambda gan: (gan.n_critic, gan.n_generator), (5, 1)),
    "lambda, m_p and t": (lambda gan: (gan.class_weight, gan.margin, gan.temperature), (0.5, 0.98, 0.5)),
    "z of 80": (lambda gan: (gan.z_dim, prior(gan.latent(1000))), (80, "standard normal")),
    "d of 512, 10 classes": (lambda gan: list(gan.discriminator.proxies.weight.shape), [10, 512]),
    "attention after G's second block": (lambda gan: gan.generator.place, 2),
    "parameters": (
        lambda gan: tuple(sum(p.numel() for p in n.parameters()) for n in (gan.generator, gan.discriminator)),
        (9_416_196, 2_517_186),
    ),
}


@pytest.mark.parametrize(("find", "number"), PAPER.values(), ids=PAPER)
def test_numbers_of_the_paper(find, number):
    assert find(default()) == number


def test_lambda_for_imagenet():
    with torch.device("meta"):
        gan = imagenet128()
    assert (gan.class_weight, gan.margin, gan.temperature) == (1.0, 0.98, 0.5)


def test_losses_are_hinge_and_d2d_ce():
    """D's of real images, G's of fakes; from the networks' outputs."""
    torch.manual_seed(0)
    gan = ganzoo.ReACGAN(**small("ReACGAN"), class_weight=0.3, margin=0.7, temperature=0.6).eval()
    x, y = 2 * torch.rand(5, 1, 8, 8) - 1, torch.tensor([0, 2, 1, 1, 0])
    batch = {"image": x, "label": y, "z": gan.latent(5)}
    with torch.no_grad():
        real, e, p = gan.discriminator(x, y)
        fake, e_fake, _ = gan.discriminator(gan.generator(batch["z"], y), y)
        d, g = gan.discriminator_loss(batch), gan.generator_loss(batch)
    expected = {"real": (1 - real).clamp(min=0).mean(), "fake": (1 + fake).clamp(min=0).mean()}
    torch.testing.assert_close(d, {**expected, "class": 0.3 * data_to_data(e, p, y, 0.7, 0.6)})
    torch.testing.assert_close(g, {"fake": -fake.mean(), "class": 0.3 * data_to_data(e_fake, p, y, 0.7, 0.6)})


def test_a_margin_above_1_is_refused():
    with pytest.raises(ValueError, match="margin is 1.5; it takes"):
        ganzoo.ReACGAN(**small("ReACGAN"), margin=1.5)


def test_the_players_may_have_different_widths():
    arguments = small("ReACGAN")
    gan, narrow = (ganzoo.ReACGAN(**arguments, d_width=d_width) for d_width in (6, None))
    for model, n in ((gan, 6), (narrow, arguments["width"])):
        assert model.discriminator.embed.in_features == 2 * n
        assert model.generator.project.out_features == 4 * arguments["width"] * 16


def test_embeddings_of_all_processes_are_compared(monkeypatch):
    torch.manual_seed(0)
    gan, seen = ganzoo.ReACGAN(**small("ReACGAN")).train(), []
    monkeypatch.setattr(reacgan, "gather", lambda t: torch.cat([t, t]))
    monkeypatch.setattr(reacgan, "data_to_data", lambda e, p, y, *_: seen.append((len(e), len(p), len(y))) or e.sum())
    gan.generator_loss({"label": torch.tensor([0, 2, 1, 1]), "z": gan.latent(4)})
    assert seen == [(8, 8, 8)]
