"""InfoGAN: its latents, the bound on the mutual information, and the codes."""

from __future__ import annotations

import math

import pytest
import torch
import yaml
from torch import nn
from torch.distributions import Categorical, Normal

import ganzoo
from ganzoo.callbacks.samples import interpolation
from ganzoo.cli.paths import configs
from ganzoo.optim import FusedAdam
from ganzoo.testing import fit


def infogan(**more):
    torch.manual_seed(0)
    return ganzoo.InfoGAN(**{"image_size": 8, "width": 4, "z_dim": 6, "categories": 3, **more})


def exact(model, z, variance):
    """Replace Q by the exact answer: probability 1 for each category, and a Gaussian centred on each code."""
    found = zip(z["category"].reshape(len(z["z"]), -1).T, model.categories, strict=True)
    logits = [100.0 * nn.functional.one_hot(c, values) for c, values in found]
    model.discriminator.recognise = lambda features: (logits, z["codes"], torch.full_like(z["codes"], variance).log())
    return model


def test_latents_match_the_paper():
    model = ganzoo.InfoGAN()
    z = model.latent(5000)
    assert {key: tuple(value.shape) for key, value in z.items()} == {
        "z": (5000, 62),
        "codes": (5000, 2),
        "category": (5000,),
    }
    assert model.generator.network.project.in_features == 74  # 62 + 2 + 10
    for uniform in (z["z"], z["codes"]):
        assert -1 <= uniform.min() < -0.99 and 0.99 < uniform.max() <= 1
    assert z["category"].bincount().tolist() == pytest.approx([500] * 10, rel=0.25)


def test_the_bound_of_an_exact_q_is_the_entropy_of_the_codes():
    """Category: E log Q = 0, so the bound is H(c) = log K. Code: log 2 + log Q(c|x), Q's log density at its mean."""
    model = infogan(codes_weight=0.0)
    z = model.latent(50)
    assert exact(model, z, 1.0).information(torch.zeros(50, 1), z).item() == pytest.approx(math.log(3))
    model = infogan(category_weight=0.0, codes_weight=1.0)
    density = -0.5 * math.log(2 * math.pi * 0.09)
    found = exact(model, z, 0.09).information(torch.zeros(50, 1), z).item()
    assert found == pytest.approx(2 * (math.log(2) + density), rel=1e-5)


def test_the_bound_of_an_uninformative_q():
    """The best uninformed Q is the prior of the category, and the Gaussian of a uniform code's mean and variance."""
    model = infogan(categories=4, codes=1, category_weight=1.0, codes_weight=0.0)
    z = model.latent(1000)
    model.discriminator.recognise = lambda _: ([torch.zeros(1000, 4)], torch.zeros(1000, 1), torch.zeros(1000, 1))
    assert model.information(torch.zeros(1000, 1), z).item() == pytest.approx(0, abs=1e-6)
    model.codes_weight, third = 1.0, torch.full((1000, 1), math.log(1 / 3))
    model.discriminator.recognise = lambda _: ([torch.zeros(1000, 4)], torch.zeros(1000, 1), third)
    loss = 0.5 * math.log(2 * math.pi * math.e / 3) - math.log(2)  # KL(uniform || Gaussian)
    assert model.information(torch.zeros(1000, 1), z).item() == pytest.approx(-loss, abs=0.05)


def test_the_posterior_reaches_the_bound():
    """x is a noisy observation of c with known I(c; x): the posterior reaches it, and every other Q is below it."""
    generator = torch.Generator().manual_seed(0)
    joint = torch.rand(3, 5, generator=generator)
    channel = joint / joint.sum(1, keepdim=True)  # p(x|c), and c is uniform
    posterior = (channel / channel.sum(0)).T  # p(c|x)
    information = (channel / 3 * (3 * posterior.T).log()).sum().item()
    n = 200_000
    model = infogan(codes=0)
    c = torch.randint(3, (n,), generator=generator)
    x = torch.multinomial(channel[c], 1, generator=generator)[:, 0]
    z = {"category": c, "codes": torch.zeros(n, 0)}

    def bound(q):
        model.discriminator.recognise = lambda _: ([q.log()[x]], torch.zeros(n, 0), torch.zeros(n, 0))
        return model.information(torch.zeros(n, 1), z).item()

    assert bound(posterior) == pytest.approx(information, abs=0.01) and information < math.log(3)
    for _ in range(5):
        other = torch.rand(5, 3, generator=generator)
        assert bound(other / other.sum(1, keepdim=True)) < information


@pytest.mark.parametrize("variance", [None, 1.0, 0.25])
def test_both_losses_contain_the_bound(variance):
    """Compared with torch's distributions."""
    model = infogan(categories=3, codes=2, category_weight=0.5, codes_weight=0.1, codes_variance=variance).eval()
    x, z = torch.rand(7, 1, 8, 8) * 2 - 1, model.latent(7)
    with torch.no_grad():
        d, g = (equation({"image": x, "z": z}) for equation in (model.discriminator_loss, model.generator_loss))
        fake, features = model.discriminate(model.generator(z))
        real, _ = model.discriminate(x)
        (logits,), mean, log_variance = model.discriminator.recognise(features)
        category = Categorical(logits=logits).log_prob(z["category"]).mean() + math.log(3)
        assert (len(log_variance.unique()) > 1) == (variance is None)
        std = (log_variance / 2).exp() if variance is None else variance**0.5
        density = Normal(mean, std).log_prob(z["codes"])
        codes = density.sum(1).mean() + 2 * math.log(2)
    info = -(0.5 * category + 0.1 * codes)
    torch.testing.assert_close(d["info"], info)
    torch.testing.assert_close(g, {"fake": -torch.sigmoid(fake).log().mean(), "info": info})
    torch.testing.assert_close(d["real"] + d["fake"], -(torch.sigmoid(real).log() + torch.sigmoid(-fake).log()).mean())


def test_several_categories():
    """Of three, two and five values; the paper has four of ten for SVHN."""
    model = infogan(categories=[3, 2, 5], codes=1, codes_weight=0.0)
    z = model.latent(2000)
    assert z["category"].shape == (2000, 3) and model.generator.network.project.in_features == 6 + 1 + 10
    assert [c.bincount().tolist() for c in z["category"].T] == [
        pytest.approx([2000 / values] * values, rel=0.2) for values in (3, 2, 5)
    ]
    joint = (z["category"] * torch.tensor([10, 5, 1])).sum(1)
    assert len(joint.unique()) == 30, "the codes are independent"
    few = model.latent(5)
    information = exact(model, few, 1.0).information(torch.zeros(5, 1), few).item()
    assert information == pytest.approx(math.log(3 * 2 * 5))
    fit(infogan(categories=[3, 2, 5]), steps=2)
    z = model.seeded([0] * 2)
    z["category"][1, 1] = 1 - z["category"][0, 1]
    images = model.generate(z)
    assert not torch.allclose(images[0], images[1]), "G reads each of them"


def test_a_list_of_one_category_equals_a_single_category():
    one, listed = infogan(categories=3), infogan(categories=[3])
    z = one.latent(4)
    same = {**z, "category": z["category"][:, None]}
    assert torch.equal(one.generator(z), listed.generator(same))


# The numbers of the authors' launcher for MNIST, and of the paper


def adam(make_optimizer):
    optimizer = make_optimizer([nn.Parameter(torch.zeros(1))])
    (group,) = optimizer.param_groups
    return type(optimizer), group["lr"], *group["betas"], group["eps"]


PAPER = {
    "C.1: z": (lambda gan: gan.latent(3)["z"].shape, (3, 62)),
    "C.1: continuous codes": (lambda gan: gan.latent(3)["codes"].shape, (3, 2)),
    "C.1: a category of ten": (lambda gan: (gan.latent(3)["category"].shape, gan.categories), ((3,), [10])),
    "C.1: what G reads": (lambda gan: gan.generator.network.project.in_features, 74),
    "launcher: both weights": (lambda gan: (gan.category_weight, gan.codes_weight), (1.0, 1.0)),
    "launcher: the variance is fixed": (lambda gan: gan.discriminator.variance, 1.0),
    "C.1: Q's layers": (
        lambda gan: [(m.in_features, m.out_features) for m in gan.discriminator.q if isinstance(m, nn.Linear)],
        [(256 * 4 * 4, 128), (128, 10 + 2)],
    ),
    "C: Q's slope": (
        lambda gan: [m.negative_slope for m in gan.discriminator.q if hasattr(m, "negative_slope")],
        [0.1],
    ),
    "C.1: Q's norm": (lambda gan: [type(m) for m in gan.discriminator.q][1:3], [nn.BatchNorm1d, nn.LeakyReLU]),
    "C.1: G's Adam": (lambda gan: adam(gan.make_optimizer["generator"]), (FusedAdam, 1e-3, 0.5, 0.999, 1e-8)),
    "C.1: D's Adam": (lambda gan: adam(gan.make_optimizer["discriminator"]), (FusedAdam, 2e-4, 0.5, 0.999, 1e-8)),
}


@pytest.mark.parametrize("fact", PAPER)
def test_numbers_of_the_paper(fact):
    measure, expected = PAPER[fact]
    assert measure(ganzoo.InfoGAN()) == expected


def test_the_mnist_config_has_the_updates_and_batch_size_of_the_launcher():
    config = yaml.safe_load(configs()["infogan/mnist"].read_text())
    assert config["trainer"] == {"max_steps": 50 * 100} and config["data"]["init_args"]["batch_size"] == 128
    assert "init_args" not in config["model"]


def test_q_is_part_of_d():
    d = infogan().discriminator
    assert {id(p) for p in d.q.parameters()} < {id(p) for p in d.parameters()}


def test_each_player_has_its_own_learning_rate():
    trainer = fit(infogan(), steps=1)
    assert [optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers] == [2e-4, 1e-3]


def test_varying_one_code_changes_the_images():
    """With all other latents fixed, the category and a continuous code each change the image."""
    model = infogan()
    z = model.seeded([0] * 3)
    same = model.generate(z)
    assert torch.allclose(same[0], same[1], atol=1e-6)
    z["category"] = torch.arange(3)
    images = model.generate(z)
    assert images.shape == (3, 1, 8, 8) and not torch.allclose(images[0], images[1])
    z = model.seeded([0] * 3)
    z["codes"][:, 0] = torch.linspace(-2, 2, 3)
    images = model.generate(z)
    assert not torch.allclose(images[0], images[1])


def test_interpolation_keeps_the_category_fixed():
    model = infogan()
    images = interpolation(model, rows=2, columns=4)
    start, end = model.seeded([0]), model.seeded([2])
    assert images.shape == (8, 1, 8, 8)
    torch.testing.assert_close(images[:1], model.generate(start))
    torch.testing.assert_close(images[3:4], model.generate({**end, "category": start["category"]}))


def test_a_label_is_refused():
    assert infogan().num_classes is None
    with pytest.raises(ValueError, match="InfoGAN takes no label"):
        infogan().sample(label=1)


@pytest.mark.parametrize("categories", [1, [1, 2]])
def test_a_category_may_have_one_value(categories):
    model = infogan(categories=categories)
    assert model.generator(model.latent(2)).shape == (2, 1, 8, 8)


@pytest.mark.parametrize(("name", "wrong", "least"), [("categories", 0, 1), ("codes", -1, 0)])
def test_bad_numbers_of_codes_are_refused(name, wrong, least):
    with pytest.raises(ValueError, match=f"{name} is {wrong}; it takes a whole number from {least}"):
        infogan(**{name: wrong})


@pytest.mark.parametrize("wrong", [[], [10, 0], [10, 2.5], [True]])
def test_bad_lists_of_categories_are_refused(wrong):
    with pytest.raises(ValueError, match="it takes a whole number from 1 up, or a list"):
        infogan(categories=wrong)


@pytest.mark.slow
def test_q_recognises_the_category_after_training():
    from ganzoo.data import Digits

    model = ganzoo.InfoGAN(image_size=16, width=16)
    fit(model, Digits(image_size=16, batch_size=100), steps=500)
    model.eval()
    with torch.no_grad():
        z = model.latent(500, torch.Generator().manual_seed(0))
        (logits,), _, _ = model.discriminator.recognise(model.discriminate(model.generator(z))[1])
    assert (logits.argmax(1) == z["category"]).float().mean() > 0.8
