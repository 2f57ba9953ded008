"""The K + 1 classes, feature matching, the networks and the averaged classifier of Salimans et al. 2016."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import yaml
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD

from ganzoo import ImprovedGAN, load, save_pretrained
from ganzoo.cli.paths import configs
from ganzoo.data import Digits, SemiSupervised
from ganzoo.functional.losses import log_fake, log_real
from ganzoo.layers.noise import GaussianNoise
from ganzoo.networks.improved import (
    ConvolutionalDiscriminator,
    DeconvolutionalGenerator,
    NoisyDiscriminator,
    SoftplusGenerator,
)
from ganzoo.optim import EpsInRootAdam, ExtraAdam
from ganzoo.testing import CHECKS, fit
from tests.contract.test_processes import two

TINY = {"image_size": 8, "z_dim": 6, "hidden": 16, "d_hidden": 16}
TECHNIQUES = {"kernels": 3, "reference": 4, "historical_weight": 0.1, "real_target": 0.9}


def make(**more):
    torch.manual_seed(0)
    return ImprovedGAN(**{**TINY, **more})


def images(n=5, size=8):
    return torch.rand(n, 1, size, size) * 2 - 1


def test_d_loss_is_the_cross_entropy_of_k_plus_1_classes():
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
def test_one_class_without_labels_is_the_standard_gan(num_classes):
    gan = make(num_classes=num_classes, objective="non-saturating").eval()
    x, z = images(), gan.latent(5)
    logit = gan.discriminator(x)[1].squeeze(1)
    fake = gan.discriminator(gan.generator(z))[1].squeeze(1)
    d, g = gan.discriminator_loss({"image": x, "z": z}), gan.generator_loss({"image": x, "z": z})
    torch.testing.assert_close(sum(d.values()), -log_real(logit) - log_fake(fake))
    torch.testing.assert_close(sum(g.values()), -log_real(fake))


@pytest.mark.parametrize("architecture", ["mlp", "conv"])
def test_feature_matching_averages_over_features(architecture):
    """Squared differences for "mlp", absolute ones for "conv", as in the authors' code for MNIST and CIFAR-10."""
    gan = make(architecture=architecture, image_size=16, hidden=4).eval()
    x, z = images(7, 16), gan.latent(5)
    pixels = {"mlp": lambda x: (x + 1) / 2, "conv": lambda x: x}[architecture]
    real, fake = (gan.discriminator.layers(pixels(i)).detach().numpy() for i in (x, gan.generator(z)))
    difference = real.mean(0) - fake.mean(0)
    expected = {"mlp": (difference**2).mean(), "conv": np.abs(difference).mean()}[architecture]
    (loss,) = gan.generator_loss({"image": x, "z": z}).values()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4) and expected > 0
    torch.testing.assert_close(gan.generator_loss({"image": gan.generator(z), "z": z})["features"], torch.tensor(0.0))


def test_features_are_taken_before_the_last_noise():
    """Features are outputs of the last ReLU, also in training; noise of earlier layers changes them."""
    gan, x = make(d_hidden=400).train(), images()
    (_, _, features), (_, _, again) = gan.discriminator(x), gan.discriminator(x)
    assert features.min() == 0 and (features == 0).float().mean() > 0.2
    assert not torch.equal(features, again)
    assert gan.discriminator(x)[1].std() > 0 and not torch.equal(gan.discriminator(x)[1], gan.discriminator(x)[1])


def test_label_smoothing_applies_to_reals_only():
    plain, smooth = make().eval(), make(real_target=0.9).eval()
    batch = {"image": images(), "z": plain.latent(5)}
    a, b = plain.discriminator_loss(batch), smooth.discriminator_loss(batch)
    d = torch.sigmoid(plain.discriminator(batch["image"])[0])
    torch.testing.assert_close(b["real"], -(0.9 * d.log() + 0.1 * (1 - d).log()).mean())
    torch.testing.assert_close(a["fake"], b["fake"])


def test_historical_averaging_penalises_both_players():
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


# Numbers of the paper; where it has none, of the authors' code (openai/improved-gan, mnist_svhn_cifar10)


def layers(network, *kinds):
    return [m for m in network.modules() if isinstance(m, kinds)]


def linear(network):
    return [(m.in_features, m.out_features) for m in layers(network, nn.Linear)]


def convolutions(network, attribute):
    return [getattr(m, attribute) for m in layers(network, nn.Conv2d, nn.ConvTranspose2d)]


def adam(make_optimizer):
    optimizer = make_optimizer([nn.Parameter(torch.zeros(1))])
    (group,) = optimizer.param_groups
    return type(optimizer), group["lr"], *group["betas"], group["eps"]


def lengths(network):
    """For each layer with weight norm: the number of lengths, and whether they are trained."""
    found = []
    for layer in layers(network, nn.Linear, nn.Conv2d, nn.ConvTranspose2d):
        if hasattr(layer, "parametrizations"):
            parts = layer.parametrizations.weight
            trained = hasattr(parts, "original0")
            found.append(((parts.original0 if trained else parts[0].length).numel(), trained))
    return found


def norms(network):
    """(features, eps, momentum) of each batch norm, and the sizes of all one-dimensional parameters."""
    found = [(m.num_features, m.eps, m.momentum) for m in layers(network, nn.BatchNorm1d, nn.BatchNorm2d)]
    biases = [p.numel() for name, p in network.named_parameters() if p.ndim == 1]
    return found, biases


def stds(network):
    """Standard deviations of the weights of all layers but the last."""
    return [m.weight.std().item() for m in layers(network, nn.Linear, nn.ConvTranspose2d)][:-1]


def paper(architecture):
    torch.manual_seed(0)
    if architecture == "conv":
        return ImprovedGAN(32, 3, architecture="conv", hidden=128, d_hidden=96)
    return ImprovedGAN()


MNIST, CIFAR10 = "mlp", "conv"
MINIBATCH = {"architecture": "conv", "image_size": 16, "kernels": 100}
HE = [(2 / n) ** 0.5 for n in (784, 1000, 500, 250, 250, 250)]
PAPER = {
    "5: K of MNIST": (MNIST, lambda gan: gan.classes, 10),
    "code: 100 numbers z": (MNIST, lambda gan: gan.latent(3).shape, (3, 100)),
    "code: z uniform in [0, 1)": (
        *(MNIST, lambda gan: [gan.latent(99).quantile(q).item() for q in (0.1, 0.5, 0.999)]),
        [0.1, 0.5, 0.999],
    ),
    "code: G of MNIST": (MNIST, lambda gan: linear(gan.generator), [(100, 500), (500, 500), (500, 784)]),
    "code: G's softplus, twice": (MNIST, lambda gan: len(layers(gan.generator, nn.Softplus)), 2),
    "code: G's batch norm has no gain": (
        *(MNIST, lambda gan: norms(gan.generator)),
        ([(500, 1e-6, 0.1)] * 2, [500, 500, 784]),
    ),
    "code: G's hidden weights, Glorot's": (
        *(MNIST, lambda gan: stds(gan.generator)),
        [(2 / 600) ** 0.5, (2 / 1000) ** 0.5],
    ),
    "code: G's output has weight norm, trained": (MNIST, lambda gan: lengths(gan.generator), [(784, True)]),
    "code: G's lengths start at 1": (
        *(MNIST, lambda gan: layers(gan.generator, nn.Linear)[-1].weight.norm(dim=1).mean().item()),
        1.0,
    ),
    "code: G's output biases start at 0": (
        *(MNIST, lambda gan: layers(gan.generator, nn.Linear)[-1].bias.abs().sum().item()),
        0,
    ),
    "code: G's output is a sigmoid": (MNIST, lambda gan: len(layers(gan.generator, nn.Sigmoid)), 1),
    "code: D's layers": (
        *(MNIST, lambda gan: linear(gan.discriminator)),
        [(784, 1000), (1000, 500), (500, 250), (250, 250), (250, 250), (250, 10)],
    ),
    "code: D's noise": (
        MNIST,
        lambda gan: [m.std for m in layers(gan.discriminator, GaussianNoise)],
        [0.3, *[0.5] * 5],
    ),
    "code: D's ReLU": (MNIST, lambda gan: len(layers(gan.discriminator, nn.ReLU)), 5),
    "code: of D's lengths the last ones are trained": (
        *(MNIST, lambda gan: lengths(gan.discriminator)),
        [(1000, False), (500, False), (250, False), (250, False), (250, False), (10, True)],
    ),
    "ours: D's first weights, He's": (
        *(MNIST, lambda gan: [m.weight.std().item() for m in layers(gan.discriminator, nn.Linear)]),
        HE,
    ),
    "code: D's biases start at 0": (
        *(MNIST, lambda gan: sum(m.bias.abs().sum().item() for m in layers(gan.discriminator, nn.Linear))),
        0,
    ),
    "code: Adam of both players": (
        *(MNIST, lambda gan: [adam(make) for make in gan.make_optimizer.values()]),
        [(EpsInRootAdam, 3e-3, 0.5, 0.999, 1e-8)] * 2,
    ),
    "code: averaging": (MNIST, lambda gan: gan.averaging, 1e-4),
    "(9): unsupervised weight": (MNIST, lambda gan: gan.unsupervised_weight, 1.0),
    "3.3: no history by default": (MNIST, lambda gan: (gan.historical_weight, len(gan.history)), (0, 0)),
    "3.4: no smoothing by default": (MNIST, lambda gan: gan.real_target, 1.0),
    "3.5: no virtual batch norm by default": (MNIST, lambda gan: len(gan.generator.reference), 0),
    "code: one G step for one of D": (MNIST, lambda gan: (gan.n_critic, gan.n_generator), (1, 1)),
    "code: G of CIFAR-10, linear": (CIFAR10, lambda gan: linear(gan.generator), [(100, 4 * 4 * 512)]),
    "code: G of CIFAR-10": (CIFAR10, lambda gan: convolutions(gan.generator, "out_channels"), [256, 128, 3]),
    "code: G's kernels": (CIFAR10, lambda gan: convolutions(gan.generator, "kernel_size"), [(5, 5)] * 3),
    "code: G's ReLU, three times": (CIFAR10, lambda gan: len(layers(gan.generator, nn.ReLU)), 3),
    "code: G's norms of CIFAR-10, the first per unit": (
        *(CIFAR10, lambda gan: norms(gan.generator)),
        ([(8192, 1e-6, 0.1), (256, 1e-6, 0.1), (128, 1e-6, 0.1)], [8192, 256, 128, 3]),
    ),
    "code: G's weights of CIFAR-10, N(0, .05)": (CIFAR10, lambda gan: stds(gan.generator), [0.05] * 3),
    "code: G's lengths of CIFAR-10": (CIFAR10, lambda gan: lengths(gan.generator), [(3, True)]),
    "code: D's feature maps": (
        *(CIFAR10, lambda gan: convolutions(gan.discriminator, "out_channels")),
        [96] * 3 + [192] * 6,
    ),
    "code: D's kernels": (
        *(CIFAR10, lambda gan: convolutions(gan.discriminator, "kernel_size")),
        [(3, 3)] * 7 + [(1, 1)] * 2,
    ),
    "code: D's strides": (
        *(CIFAR10, lambda gan: convolutions(gan.discriminator, "stride")),
        [(1, 1), (1, 1), (2, 2), (1, 1), (1, 1), (2, 2), (1, 1), (1, 1), (1, 1)],
    ),
    "code: D's padding": (
        *(CIFAR10, lambda gan: convolutions(gan.discriminator, "padding")),
        [(1, 1)] * 6 + [(0, 0)] * 3,
    ),
    "code: D's slope": (
        *(CIFAR10, lambda gan: [m.negative_slope for m in layers(gan.discriminator, nn.LeakyReLU)]),
        [0.2] * 9,
    ),
    "ours: D's first weights of CIFAR-10, He's": (
        *(CIFAR10, lambda gan: layers(gan.discriminator, nn.Conv2d)[4].weight.std().item()),
        (2 / (1 + 0.2**2) / (9 * 192)) ** 0.5,
    ),
    "code: D's dropout": (CIFAR10, lambda gan: [m.p for m in layers(gan.discriminator, nn.Dropout)], [0.2, 0.5, 0.5]),
    "code: D's lengths of CIFAR-10": (
        *(CIFAR10, lambda gan: lengths(gan.discriminator)),
        [(96, False)] * 3 + [(192, False)] * 6 + [(10, True)],
    ),
}


@pytest.fixture(scope="module")
def papers():
    return {architecture: paper(architecture) for architecture in (MNIST, CIFAR10)}


@pytest.mark.parametrize("fact", PAPER)
def test_numbers_of_the_paper(fact, papers):
    architecture, measure, expected = PAPER[fact]
    found = measure(papers[architecture])
    assert found == approx(expected)


def approx(expected):
    """Statistics of initial weights within 3%, all other values exactly."""
    if isinstance(expected, float) or (isinstance(expected, list) and isinstance(expected[0], float)):
        return pytest.approx(expected, rel=0.03)
    return expected


def shapes(network):
    return [(name, p.shape) for name, p in network.state_dict().items()]


@pytest.mark.parametrize("architecture", [MNIST, CIFAR10])
def test_network_defaults_match_the_variant(architecture, papers):
    conv = DeconvolutionalGenerator(), ConvolutionalDiscriminator()
    g, d = {MNIST: (SoftplusGenerator(), NoisyDiscriminator()), CIFAR10: conv}[architecture]
    gan = papers[architecture]
    assert shapes(g) == shapes(gan.generator) and shapes(d) == shapes(gan.discriminator)


def test_weight_norm_fixes_the_lengths_of_hidden_layers():
    gan = make()
    layer, last = layers(gan.discriminator, nn.Linear)[0], layers(gan.discriminator, nn.Linear)[-1]
    length, weight, of_last = (t.detach().clone() for t in (layer.weight.norm(dim=1), layer.weight, last.weight))
    v = layer.parametrizations.weight.original
    with torch.no_grad():
        v.mul_(3)
    torch.testing.assert_close(layer.weight, weight)  # the length of v does not affect the weight
    fit(gan, SemiSupervised(Digits(), labels_per_class=2, batch_size=20), steps=3)
    torch.testing.assert_close(layer.weight.norm(dim=1), length)
    torch.testing.assert_close(layer.weight, v * (length / v.norm(dim=1))[:, None])
    assert (layer.weight - weight).abs().max() > 1e-4
    assert (last.weight.norm(dim=1) - of_last.norm(dim=1)).abs().max() > 1e-4


def test_minibatch_discrimination_replaces_the_input_dropout_by_noise():
    network = make(**MINIBATCH).discriminator
    assert [m.std for m in layers(network, GaussianNoise)] == [0.2] and isinstance(network.layers[0], GaussianNoise)
    assert [m.p for m in layers(network, nn.Dropout)] == [0.5, 0.5]
    assert not layers(make(**MINIBATCH | {"kernels": 0}).discriminator, GaussianNoise)


def test_the_cifar10_minibatch_config_takes_three_g_steps_per_d_step():
    model = yaml.safe_load(configs()["improvedgan/cifar10-minibatch"].read_text())["model"]["init_args"]
    assert model["n_generator"] == 3 and model["kernels"] == 100 and model["objective"] == "non-saturating"


def test_shapes_of_the_convolutional_networks():
    g, d = DeconvolutionalGenerator(hidden=8), ConvolutionalDiscriminator(hidden=8)
    up = layers(g, nn.ConvTranspose2d)
    assert up[-1].parametrizations.weight.original0.shape == (1, 3, 1, 1), "a length for each channel of the output"
    x = g(torch.rand(2, 100))
    score, logits, features = d(x)
    assert x.shape == (2, 3, 32, 32) and logits.shape == (2, 10) and features.shape == (2, 16)
    torch.testing.assert_close(score, logits.exp().sum(1).log())


def test_each_label_seed_chooses_another_balanced_subset():
    """The paper averages errors over ten random subsets of labelled images, with equally many of each class."""
    labels = Digits().dataset("train").labels()
    splits = [SemiSupervised(Digits(), labels_per_class=10, label_seed=seed).members for seed in range(10)]
    assert len({tuple(split) for split in splits}) == 10
    for split in splits:
        assert labels[split].bincount().tolist() == [10] * 10
    shared = [len({*a} & {*b}) for i, a in enumerate(splits) for b in splits[:i]]
    assert sum(shared) / len(shared) == pytest.approx(100 * 100 / len(labels), rel=0.5)  # as for independent draws


def test_initial_features_vary_between_images():
    torch.manual_seed(0)
    d = NoisyDiscriminator().eval()
    x = (torch.rand(500, 1, 28, 28) > 0.9).float() * 2 - 1
    assert d(x)[2].std(0).mean() > 0.05


@pytest.mark.parametrize("reference", [0, 4])
def test_with_virtual_batch_norm_images_do_not_depend_on_the_batch(reference):
    gan = make(reference=reference).train()
    z = gan.latent(5)
    with torch.no_grad():
        together, alone = gan.generator(z)[1:3], gan.generator(z[1:3])
    assert torch.allclose(together, alone, atol=1e-5) == (reference > 0)


def test_the_reference_batch_is_saved(tmp_path):
    gan = make(reference=4)
    before = gan.generator.reference.clone()
    fit(gan, steps=2)
    again = load(save_pretrained(gan, tmp_path))
    assert torch.equal(gan.generator.reference, before) and torch.equal(again.generator.reference, before)
    assert torch.equal(gan.sample(seeds=[1, 2]), again.sample(seeds=[1, 2]))


@pytest.mark.parametrize("architecture", ["mlp", "conv"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_variant_contract_holds_with_all_techniques(check, architecture):
    def everything(**more):
        sizes = {"image_size": 16, "num_classes": 3, "architecture": architecture, "hidden": 6, "d_hidden": 8}
        return make(**sizes, **TECHNIQUES, objective="non-saturating", ema_half_life=20.0, **more)

    check(everything)


def test_feature_matching_averages_in_float32_under_autocast():
    """Means in bfloat16 are too coarse for small differences of means: the cosine would be 0.68."""
    gan, x = make(hidden=64, d_hidden=256).eval(), images(64)
    fakes, found = x + 0.02 * torch.randn_like(x), []
    for half in (False, True):
        given = fakes.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            terms = gan.generator_loss({"image": x, "fakes": given})
        found += [gradient.flatten() for gradient in torch.autograd.grad(sum(terms.values()), given)]
    assert torch.cosine_similarity(*found, dim=0) > 0.9


def test_two_processes_with_half_the_batch_match_one(tmp_path):
    """Without minibatch discrimination and noise; includes the averages, histories and reference batches."""

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


def test_the_classifier_is_the_moving_average_of_d():
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


def test_the_classifier_does_not_average_extrapolated_weights():
    gan = make(averaging=0.25, optimizer=lambda params: ExtraAdam(params, lr=0.01))
    start = [p.clone() for p in gan.classifier.parameters()]
    fit(gan, steps=1)
    assert gan.players["discriminator"].ahead
    assert all(map(torch.equal, gan.classifier.parameters(), start))
    fit(gan, steps=2)
    assert not all(map(torch.equal, gan.classifier.parameters(), start))


def test_historical_averaging_takes_any_memory_format():
    more = {"architecture": "conv", "image_size": 16, "optimizer": lambda params: SGD(params, lr=0.1)}
    plain, other = (make(historical_weight=0.5, **more) for _ in range(2))
    fit(plain, steps=2)
    fit(other.to(memory_format=torch.channels_last), steps=2)
    for player in plain.history:
        torch.testing.assert_close(plain.history[player].mean, other.history[player].mean)


def test_unsupervised_weight_0_trains_a_supervised_classifier():
    gan = make(unsupervised_weight=0.0, num_classes=3).eval()
    x, y = images(), torch.tensor([0, 1, 2, 1, 0])
    batch = {"image": images(), "z": gan.latent(5), "labelled": (x, y)}
    parameters = list(gan.discriminator.parameters())
    got = torch.autograd.grad(sum(gan.discriminator_loss(batch).values()), parameters)
    expected = torch.autograd.grad(cross_entropy(gan.discriminator(x)[1], y), parameters)
    torch.testing.assert_close(got, expected)


def test_validation_logs_the_classification_error():
    """On both held-out splits, with the averaged weights."""
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
        ({"real_target": 0.0}, "real_target is 0.0; it takes a number in \\(0, 1"),
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
