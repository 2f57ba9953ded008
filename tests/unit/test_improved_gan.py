"""The K + 1 classes, feature matching, the networks and the averaged classifier of Salimans et al. 2016."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD

from ganzoo import ImprovedGAN, load, save_pretrained
from ganzoo.data import Digits, SemiSupervised
from ganzoo.functional.losses import log_fake, log_real
from ganzoo.layers.noise import GaussianNoise
from ganzoo.networks.improved import (
    ConvolutionalDiscriminator,
    DeconvolutionalGenerator,
    NoisyDiscriminator,
    SoftplusGenerator,
)
from ganzoo.testing import CHECKS, fit
from tests.contract.test_processes import two

TINY = {"image_size": 8, "z_dim": 6, "hidden": 16, "d_hidden": 16}
TECHNIQUES = {"kernels": 3, "reference": 4, "historical_weight": 0.1, "real_target": 0.9}


def make(**more):
    torch.manual_seed(0)
    return ImprovedGAN(**{**TINY, **more})


def images(n=5, size=8):
    return torch.rand(n, 1, size, size) * 2 - 1


def test_discriminator_plays_a_softmax_over_k_and_one_classes():
    gan = make(num_classes=3).eval()
    x, labelled, y, z = images(), images(), torch.tensor([0, 1, 2, 1, 0]), gan.latent(5)

    def probabilities(x):
        logits = gan.discriminator(x)[1]
        return torch.cat([logits, torch.zeros(len(x), 1)], 1).softmax(1)

    terms = gan.discriminator_loss({"image": x, "z": z, "labelled": (labelled, y)})
    torch.testing.assert_close(terms["real"], -(1 - probabilities(x)[:, -1]).log().mean())
    torch.testing.assert_close(terms["fake"], -probabilities(gan.generator(z))[:, -1].log().mean())
    p = probabilities(labelled)
    given_real = p[range(5), y] / (1 - p[:, -1])
    torch.testing.assert_close(terms["labelled"], -given_real.log().mean())
    assert set(terms) == {"real", "fake", "labelled"}
    assert set(gan.discriminator_loss({"image": x, "z": z})) == {"real", "fake"}


@pytest.mark.parametrize("num_classes", [1, None])
def test_one_class_and_no_labels_is_the_ordinary_game(num_classes):
    gan = make(num_classes=num_classes, objective="non-saturating").eval()
    x, z = images(), gan.latent(5)
    logit = gan.discriminator(x)[1].squeeze(1)
    fake = gan.discriminator(gan.generator(z))[1].squeeze(1)
    d, g = gan.discriminator_loss({"image": x, "z": z}), gan.generator_loss({"image": x, "z": z})
    torch.testing.assert_close(sum(d.values()), -log_real(logit) - log_fake(fake))
    torch.testing.assert_close(sum(g.values()), -log_real(fake))


def test_feature_matching_is_the_squared_distance_of_the_means():
    gan = make().eval()
    x, z = images(7), gan.latent(5)
    real, fake = (gan.discriminator.layers((i + 1) / 2) for i in (x, gan.generator(z)))
    (loss,) = gan.generator_loss({"image": x, "z": z}).values()
    expected = sum((real[:, k].sum() / 7 - fake[:, k].sum() / 5) ** 2 for k in range(16 // 4))
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gan.generator_loss({"image": gan.generator(z), "z": z})["features"], torch.tensor(0.0))


def test_a_smoothed_target_is_for_reals_alone():
    plain, smooth = make().eval(), make(real_target=0.9).eval()
    batch = {"image": images(), "z": plain.latent(5)}
    a, b = plain.discriminator_loss(batch), smooth.discriminator_loss(batch)
    d = torch.sigmoid(plain.discriminator(batch["image"])[0])
    torch.testing.assert_close(b["real"], -(0.9 * d.log() + 0.1 * (1 - d).log()).mean())
    torch.testing.assert_close(a["fake"], b["fake"])


def test_history_pulls_both_players_back():
    gan = make(historical_weight=0.5)
    with torch.no_grad():
        for net in (gan.discriminator, gan.generator):
            next(net.parameters()).add_(1)
    batch = {"image": images(), "z": gan.latent(5)}
    for player, terms in (
        ("discriminator", gan.discriminator_loss(batch)),
        ("generator", gan.generator_loss(batch)),
    ):
        moved = next(getattr(gan, player).parameters()).numel()
        torch.testing.assert_close(terms["history"], torch.tensor(0.5 * moved))
    means = {player: average.mean.clone() for player, average in gan.history.items()}
    fit(gan, steps=1)
    for player, mean in means.items():
        theta = nn.utils.parameters_to_vector(getattr(gan, player).parameters())
        torch.testing.assert_close(gan.history[player].mean, (mean + theta) / 2)


def test_networks_have_the_published_shapes():
    g, d = SoftplusGenerator(), NoisyDiscriminator()
    linear = [m for m in g.modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [(100, 500), (500, 500), (500, 784)]
    assert sum(isinstance(m, nn.Softplus) for m in g.modules()) == 2
    linear = [m for m in d.modules() if isinstance(m, nn.Linear)]
    assert [m.out_features for m in linear] == [1000, 500, 250, 250, 250, 10]
    assert [m.std for m in d.modules() if type(m).__name__ == "GaussianNoise"] == [0.3, *[0.5] * 5]
    score, logits, features = d(images(2, 28))
    assert score.shape == (2,) and logits.shape == (2, 10) and features.shape == (2, 250)
    for layer in linear:  # weight norm: a length and a direction
        length, direction = layer.parametrizations.weight.original0, layer.parametrizations.weight.original1
        torch.testing.assert_close(layer.weight, length * direction / direction.norm(dim=1, keepdim=True))


def test_the_signal_is_louder_than_the_noise_at_the_start():
    torch.manual_seed(0)
    d = NoisyDiscriminator().eval()
    x = (torch.rand(500, 1, 28, 28) > 0.9).float() * 2 - 1
    assert d(x)[2].std(0).mean() > 0.05


def test_convolutional_networks_have_the_published_shapes():
    g, d = DeconvolutionalGenerator(), ConvolutionalDiscriminator()
    up = [m for m in g.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [(m.in_channels, m.out_channels) for m in up] == [(512, 256), (256, 128), (128, 3)]
    assert up[-1].parametrizations.weight.original0.shape == (1, 3, 1, 1), "a length for each channel of the output"
    convolutions = [m for m in d.modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [96] * 3 + [192] * 6
    assert [m.kernel_size[0] for m in convolutions] == [3] * 7 + [1] * 2
    assert [m.p for m in d.modules() if isinstance(m, nn.Dropout)] == [0.2, 0.5, 0.5]
    x = g(torch.rand(2, 100))
    score, logits, features = d(x)
    assert x.shape == (2, 3, 32, 32) and logits.shape == (2, 10) and features.shape == (2, 192)
    torch.testing.assert_close(score, logits.exp().sum(1).log())


@pytest.mark.parametrize("reference", [0, 4])
def test_virtual_batch_norm_gives_each_latent_its_image(reference):
    gan = make(reference=reference).train()
    z = gan.latent(5)
    with torch.no_grad():
        together, alone = gan.generator(z)[1:3], gan.generator(z[1:3])
    assert torch.allclose(together, alone, atol=1e-5) == (reference > 0)


def test_the_reference_batch_is_kept(tmp_path):
    gan = make(reference=4)
    before = gan.generator.reference.clone()
    fit(gan, steps=2)
    again = load(save_pretrained(gan, tmp_path))
    assert torch.equal(gan.generator.reference, before) and torch.equal(again.generator.reference, before)
    assert torch.equal(gan.sample(seeds=[1, 2]), again.sample(seeds=[1, 2]))


@pytest.mark.parametrize("architecture", ["mlp", "conv"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_all_techniques_together_keep_the_contract(check, architecture):
    def everything(**more):
        sizes = {"image_size": 16, "num_classes": 3, "architecture": architecture, "hidden": 6, "d_hidden": 8}
        return make(**sizes, **TECHNIQUES, objective="non-saturating", ema_half_life=20.0, **more)

    check(everything)


def test_features_are_matched_in_float32_near_a_match():
    """Means of bfloat16 are too coarse for a difference of means: there the cosine is 0.68."""
    gan, x = make(hidden=64, d_hidden=256).eval(), images(64)
    fakes, found = x + 0.02 * torch.randn_like(x), []
    for half in (False, True):
        given = fakes.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            terms = gan.generator_loss({"image": x, "fakes": given})
        found += [gradient.flatten() for gradient in torch.autograd.grad(sum(terms.values()), given)]
    assert torch.cosine_similarity(*found, dim=0) > 0.9


def test_two_processes_of_half_the_batch_are_one(tmp_path):
    """Where nothing looks across the batch: means, histories and reference batches are those of one process, too."""

    def noiseless():
        sgd = {"optimizer": lambda params: SGD(params, lr=0.05), "averaging": 0.25}
        gan = make(reference=4, historical_weight=0.1, objective="non-saturating", microbatches=2, **sgd)
        for module in gan.discriminator.modules():
            if isinstance(module, GaussianNoise):
                module.std = 0.0
        return gan

    one = noiseless()
    fit(one, steps=3)
    for rank in two(noiseless(), tmp_path, steps=3):
        for key, value in one.state_dict().items():
            torch.testing.assert_close(rank["state"][key], value, rtol=1e-5, atol=1e-6, msg=key)


def test_the_classifier_is_the_mean_of_the_discriminators_weights():
    gan = make(averaging=0.25)
    start, seen = copy.deepcopy(gan.classifier), []
    step = gan.discriminator_step

    def watched(batch):
        step(batch)
        seen.append([p.detach().clone() for p in gan.discriminator.parameters()])

    gan.discriminator_step = watched
    fit(gan, steps=3)
    for i, (p, first) in enumerate(zip(gan.classifier.parameters(), start.parameters(), strict=True)):
        expected = first
        for weights in seen:
            expected = 0.75 * expected + 0.25 * weights[i]
        torch.testing.assert_close(p, expected)
        assert not p.requires_grad


def test_without_its_weight_the_game_is_a_supervised_classifier():
    gan = make(unsupervised_weight=0.0, num_classes=3).eval()
    x, y = images(), torch.tensor([0, 1, 2, 1, 0])
    batch = {"image": images(), "z": gan.latent(5), "labelled": (x, y)}
    parameters = list(gan.discriminator.parameters())
    got = torch.autograd.grad(sum(gan.discriminator_loss(batch).values()), parameters)
    expected = torch.autograd.grad(cross_entropy(gan.discriminator(x)[1], y), parameters)
    torch.testing.assert_close(got, expected)


def test_validation_logs_the_share_of_wrong_classes():
    """Of both held-out splits, by the averaged weights; the labels of held-out images are not learned from."""
    data = SemiSupervised(Digits(), labels_per_class=2, batch_size=60)
    gan = make()
    trainer = fit(gan, data, steps=2, limit_val_batches=1.0)
    held_out = data.dataset("val").__getitems__(range(200))
    x, y = held_out["image"].float() / 127.5 - 1, held_out["label"]
    expected = (gan.classify(x) != y).float().mean().item()
    assert trainer.validate(gan, data, verbose=False)[0]["val/error"] == pytest.approx(expected, abs=1e-6)
    assert "test/error" in trainer.test(gan, data, verbose=False)[0]


def test_classes_are_the_same_in_training_mode():
    gan, x = make(), images(50)
    assert torch.equal(gan.train().classify(x), gan.eval().classify(x))
    gan.train().classify(x)
    assert all(m.training for m in gan.modules())


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ({"real_target": 0.0}, "real_target is 0.0; it takes a number above 0 to 1"),
        ({"real_target": 1.1}, "real_target is 1.1"),
        ({"averaging": 0.0}, "averaging is 0.0"),
        ({"unsupervised_weight": -1.0}, "unsupervised_weight is -1.0; it takes a number from 0"),
        ({"historical_weight": -1.0}, "historical_weight is -1.0; it takes a number from 0"),
        ({"kernels": -1}, "kernels is -1; it takes a whole number from 0"),
        ({"reference": 1}, "reference is 1; it takes 2 or more"),
        ({"num_classes": 0}, "num_classes is 0; it takes a whole number from 1"),
        ({"d_hidden": 3}, "d_hidden is 3; it takes a whole number from 4"),
        ({"architecture": "vgg"}, "architecture is 'vgg'; it takes one of mlp, conv"),
        ({"objective": "hinge"}, "objective is 'hinge'; it takes one of feature-matching, non-saturating"),
        ({"architecture": "conv", "image_size": 28}, "it takes 16, 24, 32"),
    ],
)
def test_bad_arguments_are_named(argument, words):
    with pytest.raises(ValueError, match=words):
        make(**argument)
