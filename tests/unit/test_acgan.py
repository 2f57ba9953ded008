"""ACGAN: the discriminator's two outputs, the losses, and that the generator learns the classes."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

import ganzoo
from ganzoo.testing import fit
from tests.paper import LINEAR, NORMS, begins, layers, optimizers, prior, spread


def acgan(**more):
    torch.manual_seed(0)
    return ganzoo.ACGAN(**{"image_size": 8, "channels": 1, "num_classes": 3, "width": 4, "z_dim": 6, **more})


@cache
def default():
    torch.manual_seed(0)
    return ganzoo.ACGAN()


PAPER = {  # the paper's appendix, except what ACGAN's docstring attributes to DCGAN
    "Adam": (lambda gan: optimizers(gan, "kind"), ["FusedAdam"] * 2),
    "alpha": (lambda gan: optimizers(gan, "lr"), [2e-4] * 2),
    "beta1, beta2": (lambda gan: optimizers(gan, "betas"), [(0.5, 0.999)] * 2),
    "Adam's other numbers": (lambda gan: optimizers(gan, "eps", "weight_decay"), [1e-8, 1e-8, 0, 0]),
    "one step each": (lambda gan: (gan.n_critic, gan.n_generator), (1, 1)),
    "10 classes of 32x32": (lambda gan: (gan.num_classes, gan.hparams["image_size"]), (10, 32)),
    "z of 100": (lambda gan: (gan.z_dim, prior(gan.latent(1000))), (100, "uniform in (-1, 1)")),
    "G": (
        lambda gan: layers(gan.generator),
        [
            *("linear 110>6144", "unflatten", "relu", "up 384>192 5/2+2 no bias", "batch norm 192", "relu"),
            *("up 192>96 5/2+2 no bias", "batch norm 96", "relu", "up 96>3 5/2+2", "tanh"),
        ],
    ),
    "DCGAN's D": (
        lambda gan: layers(gan.discriminator),
        [
            *("conv 3>96 5/2+2", "leaky 0.2", "conv 96>192 5/2+2 no bias", "batch norm 192", "leaky 0.2"),
            *("conv 192>384 5/2+2 no bias", "batch norm 384", "leaky 0.2", "linear 6144>11"),
        ],
    ),
    "G's first weights": (lambda gan: spread(gan.generator, LINEAR), begins(0, 0.02)),
    "D's first weights": (lambda gan: spread(gan.discriminator, LINEAR), begins(0, 0.02)),
    "DCGAN's first gains": (lambda gan: spread(gan.discriminator, NORMS), begins(1, 0.02)),
}


@pytest.mark.parametrize(("find", "number"), PAPER.values(), ids=PAPER)
def test_numbers_of_the_paper(find, number):
    assert find(default()) == number


def test_losses_match_equations_2_and_3():
    """Computed from D's outputs in numpy: D minimises -(L_S + L_C), G the non-saturating form of -(L_C - L_S)."""
    model = acgan().eval()
    x, c, z = torch.rand(5, 1, 8, 8) * 2 - 1, torch.tensor([0, 2, 1, 1, 0]), model.latent(5)
    with torch.no_grad():
        real, fake = (model.discriminator(images).double().numpy() for images in (x, model.generator(z, c)))
        d = {key: term.item() for key, term in model.discriminator_loss({"image": x, "label": c, "z": z}).items()}
        g = {key: term.item() for key, term in model.generator_loss({"label": c, "z": z}).items()}

    def source(outputs):
        return 1 / (1 + np.exp(-outputs[:, 0]))

    def log_class(outputs):
        shares = np.exp(outputs[:, 1:])
        return np.log((shares / shares.sum(1, keepdims=True))[np.arange(5), c.numpy()]).mean()

    expected = {"real": -np.log(source(real)).mean(), "fake": -np.log(1 - source(fake)).mean()}
    expected |= {"real_class": -log_class(real), "fake_class": -log_class(fake)}
    assert d == pytest.approx(expected, rel=1e-5)
    assert g == pytest.approx({"fake": -np.log(source(fake)).mean(), "fake_class": -log_class(fake)}, rel=1e-5)


def test_discriminator_returns_source_and_class_logits_and_ignores_the_label():
    model = acgan().eval()
    x = torch.rand(4, 1, 8, 8)
    source, classes = model.discriminate(x, torch.tensor([0, 1, 2, 0]))
    assert source.shape == (4,) and classes.shape == (4, 3)
    assert torch.equal(classes, model.discriminate(x)[1])


def test_every_loss_term_has_gradients_in_its_network():
    model = acgan()
    batch = {"image": torch.rand(6, 1, 8, 8), "label": torch.arange(6) % 3, "z": model.latent(6)}
    for equation, network in ((model.discriminator_loss, "discriminator"), (model.generator_loss, "generator")):
        weights = list(getattr(model, network).parameters())
        for name, term in equation(batch).items():
            gradients = torch.autograd.grad(term, weights, allow_unused=True, retain_graph=True)
            assert any(g is not None and g.abs().max() > 0 for g in gradients), f"{name} does not move {network}"


def test_diagnostics_use_the_source_logit():
    from ganzoo.callbacks.diagnostics import scores_of

    model = acgan().eval()
    x, c = torch.rand(4, 1, 8, 8), torch.arange(4) % 3
    with torch.no_grad():
        torch.testing.assert_close(scores_of(model, x, c), model.discriminate(x)[0])


@pytest.mark.slow
def test_generator_learns_the_classes_of_digits():
    from ganzoo.data import Digits

    data = Digits(image_size=16, batch_size=100)
    model = ganzoo.ACGAN(image_size=16, channels=1, width=16)
    fit(model, data, steps=1000)
    (score,) = ganzoo.evaluate(model, data, ["accuracy"], n=1000).scores
    assert score.value > 0.8  # chance level: 0.1


def test_both_updates_use_the_labels_of_the_real_batch():
    """Hence fake classes are as frequent as those of the data."""
    model = acgan()
    asked, given = [], []
    model.generator.register_forward_pre_hook(lambda _, inputs: asked.append(inputs[1].tolist()))
    play = model.play
    model.play = lambda batch: (given.append(batch["label"].tolist()), play(batch))
    fit(model, steps=2)
    asked = asked[-4:]  # earlier calls determine the image shape
    assert asked == [given[0], given[0], given[1], given[1]]
