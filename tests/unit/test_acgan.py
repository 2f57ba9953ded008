"""ACGAN: the two parts of D, the equations, and that G learns its classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import ganzoo
from ganzoo.testing import fit


def acgan(**more):
    torch.manual_seed(0)
    return ganzoo.ACGAN(**{"image_size": 8, "channels": 1, "num_classes": 3, "width": 4, "z_dim": 6, **more})


def test_generator_is_the_papers_for_cifar():
    """110 numbers -> 384 maps of 4x4, and 5x5 convolutions to 192, 96 and 3."""
    g = ganzoo.ACGAN().generator
    assert g.project.in_features == 110 and g.project.out_features == 384 * 4 * 4
    up = [m for m in g.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [m.out_channels for m in up] == [192, 96, 3] and {m.kernel_size for m in up} == {(5, 5)}


def test_losses_are_those_of_eq_2_and_3():
    """Against D's outputs, by hand; D minimises -(L_S + L_C), and G, without saturating, -(L_C - L_S)."""
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


def test_d_has_an_output_for_the_source_and_one_a_class_and_reads_no_label():
    model = acgan().eval()
    x = torch.rand(4, 1, 8, 8)
    source, classes = model.discriminate(x, torch.tensor([0, 1, 2, 0]))
    assert source.shape == (4,) and classes.shape == (4, 3)
    assert torch.equal(classes, model.discriminate(x)[1])


def test_both_parts_of_the_loss_reach_both_players():
    model = acgan()
    batch = {"image": torch.rand(6, 1, 8, 8), "label": torch.arange(6) % 3, "z": model.latent(6)}
    for equation, network in ((model.discriminator_loss, "discriminator"), (model.generator_loss, "generator")):
        weights = list(getattr(model, network).parameters())
        for name, term in equation(batch).items():
            gradients = torch.autograd.grad(term, weights, allow_unused=True, retain_graph=True)
            assert any(g is not None and g.abs().max() > 0 for g in gradients), f"{name} does not move {network}"


def test_diagnostics_read_the_source():
    from ganzoo.callbacks.diagnostics import scores_of

    model = acgan().eval()
    x, c = torch.rand(4, 1, 8, 8), torch.arange(4) % 3
    with torch.no_grad():
        torch.testing.assert_close(scores_of(model, x, c), model.discriminate(x)[0])


@pytest.mark.slow
def test_it_learns_the_classes_of_digits():
    from ganzoo.data import Digits

    data = Digits(image_size=16, batch_size=100)
    model = ganzoo.ACGAN(image_size=16, channels=1, width=16)
    fit(model, data, steps=1000)
    (score,) = ganzoo.evaluate(model, data, ["accuracy"], n=1000).scores
    assert score.value > 0.8  # a tenth by chance


def test_the_fakes_of_both_updates_have_the_classes_of_the_reals():
    """So their shares are the data's."""
    model = acgan()
    asked, given = [], []
    model.generator.register_forward_pre_hook(lambda _, inputs: asked.append(inputs[1].tolist()))
    play = model.play
    model.play = lambda batch: (given.append(batch["label"].tolist()), play(batch))
    fit(model, steps=2)
    asked = asked[-4:]  # before them, the shape of an image was asked for
    assert asked == [given[0], given[0], given[1], given[1]]
