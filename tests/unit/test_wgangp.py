"""WGAN-GP: losses, the random interpolates of the penalty, and the critic's norms."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn

import ganzoo
from ganzoo.core.module import GANModule
from ganzoo.testing import check_variant, fit
from tests.contract.test_turns import Remember
from tests.paper import LINEAR, NORMS, begins, layers, optimizers, prior, spread
from tests.variants import small


def wgangp(**more):
    torch.manual_seed(0)
    return ganzoo.WGANGP(**small("WGANGP"), **more)


@cache
def default():
    torch.manual_seed(0)
    return ganzoo.WGANGP()


@cache
def residual():
    with torch.device("meta"):
        return ganzoo.WGANGP(image_size=32, width=128, architecture="resnet")


CONVS = ["conv 128>128 3/1+1"] * 2
UP = ["batch norm 128", "batch norm 128", *CONVS, "conv 128>128 1/1+0"]
PAPER = {  # values not in the paper are from the authors' code
    "algorithm 1: Adam": (lambda gan: optimizers(gan, "kind"), ["FusedAdam"] * 2),
    "algorithm 1: alpha": (lambda gan: optimizers(gan, "lr"), [1e-4] * 2),
    "algorithm 1: beta1, beta2": (lambda gan: optimizers(gan, "betas"), [(0.0, 0.9)] * 2),
    "code: Adam's other numbers": (lambda gan: optimizers(gan, "eps", "weight_decay"), [1e-8, 1e-8, 0, 0]),
    "algorithm 1: lambda": (lambda gan: gan.penalty, 10),
    "algorithm 1: n_critic": (lambda gan: (gan.n_critic, gan.n_generator), (5, 1)),
    "code: z": (lambda gan: (gan.z_dim, prior(gan.latent(1000))), (128, "standard normal")),
    "code: G is DCGAN's": (
        lambda gan: layers(gan.generator),
        [
            *("linear 128>8192 no bias", "unflatten", "batch norm 512", "relu", "up 512>256 5/2+2 no bias"),
            *("batch norm 256", "relu", "up 256>128 5/2+2 no bias", "batch norm 128", "relu"),
            *("up 128>64 5/2+2 no bias", "batch norm 64", "relu", "up 64>3 5/2+2", "tanh"),
        ],
    ),
    "section 4: layer norm, no batch norm, in the critic": (
        lambda gan: layers(gan.discriminator),
        [
            *("conv 3>64 5/2+2", "leaky 0.2", "conv 64>128 5/2+2 no bias", "group norm 128 in 1", "leaky 0.2"),
            *("conv 128>256 5/2+2 no bias", "group norm 256 in 1", "leaky 0.2"),
            *("conv 256>512 5/2+2 no bias", "group norm 512 in 1", "leaky 0.2", "linear 8192>1"),
        ],
    ),
    "appendix F: residual networks, G": (
        lambda gan: layers(residual().generator),
        ["linear 128>2048", "unflatten", *UP * 3, "identity", "batch norm 128", "conv 128>3 3/1+1"],
    ),
    "appendix F: residual networks, critic": (
        lambda gan: layers(residual().discriminator),
        [
            *("conv 3>128 3/1+1", "conv 128>128 3/1+1", "conv 3>128 1/1+0", *CONVS, "conv 128>128 1/1+0"),
            *(*CONVS, "identity", *CONVS, "identity", "linear 128>1"),
        ],
    ),
    "appendix F: size of the residual networks": (  # derived from its rows
        lambda gan: [sum(p.numel() for p in n.parameters()) for n in (residual().generator, residual().discriminator)],
        [1_204_483, 1_053_825],
    ),
    "code: G's weights": (lambda gan: spread(gan.generator, LINEAR), begins(0, 0.02)),
    "code: critic's weights": (lambda gan: spread(gan.discriminator, LINEAR), begins(0, 0.02)),
    "ours, DCGAN's: G's gains": (lambda gan: spread(gan.generator, NORMS), begins(1, 0.02)),
    "code: layer norm's gains": (lambda gan: spread(gan.discriminator, nn.GroupNorm), (1, 0, 0)),
}


@pytest.mark.parametrize(("find", "number"), PAPER.values(), ids=PAPER)
def test_numbers_of_the_paper(find, number):
    assert find(default()) == number


@pytest.mark.parametrize("penalty", [10.0, 0.5])
@pytest.mark.parametrize("architecture", ["dcgan", "resnet", "mlp"])
def test_the_equations_are_those_of_the_paper(architecture, penalty):
    """The penalty is computed image by image, with first derivatives only."""
    gan = wgangp(architecture=architecture, penalty=penalty).eval()
    x, z, u = torch.rand(5, 1, 16, 16) * 2 - 1, gan.latent(5), torch.rand(5)
    fakes = gan.generator(z).detach()
    norms = []
    for i in range(5):
        between = (u[i] * x[[i]] + (1 - u[i]) * fakes[[i]]).requires_grad_()
        (gradient,) = torch.autograd.grad(gan.discriminator(between).sum(), between)
        norms.append(gradient.norm())
    d, g = gan.discriminator_loss({"image": x, "z": z, "u": u}), gan.generator_loss({"z": z})
    real, fake = gan.discriminator(x).mean(), gan.discriminator(fakes).mean()
    torch.testing.assert_close(sum(d.values()), fake - real + penalty * (torch.stack(norms) - 1).square().mean())
    torch.testing.assert_close(sum(g.values()), -fake)


@pytest.mark.parametrize("architecture", ["dcgan", "resnet"])
def test_the_supervised_form_is_that_of_the_authors(architecture):
    """The critic classifies reals, G's weight is a tenth; the penalty is that of the score alone."""
    gan = wgangp(architecture=architecture, conditional=True).eval()
    x, z, u, y = torch.rand(5, 1, 16, 16) * 2 - 1, gan.latent(5), torch.rand(5), torch.tensor([0, 1, 2, 2, 0])
    fakes, between = gan.generator(z, y).detach(), u[:, None, None, None]
    between = (between * x + (1 - between) * fakes).requires_grad_()
    (gradient,) = torch.autograd.grad(gan.discriminator(between)[:, 0].sum(), between)
    penalty = 10 * (gradient.flatten(1).norm(dim=1) - 1).square().mean()
    real, fake = gan.discriminator(x), gan.discriminator(fakes)
    entropy = [-out[:, 1:].log_softmax(1)[range(5), y].mean() for out in (real, fake)]
    batch = {"image": x, "z": z, "u": u, "label": y}
    d, g = gan.discriminator_loss(batch), gan.generator_loss(batch)
    assert real.shape == fake.shape == (5, 4)
    torch.testing.assert_close(sum(d.values()), fake[:, 0].mean() - real[:, 0].mean() + penalty + entropy[0])
    torch.testing.assert_close(sum(g.values()), -fake[:, 0].mean() + 0.1 * entropy[1])


def test_resize_repeats_pixels_before_3x3_convolutions():
    gan = wgangp(resize=True).eval()
    z = gan.latent(4)
    h = gan.generator.project(z)
    for layer in gan.generator.layers:
        if isinstance(layer, torch.nn.Conv2d):
            doubled = h.repeat_interleave(2, 2).repeat_interleave(2, 3)
            h = torch.nn.functional.conv2d(doubled, layer.weight, layer.bias, padding=1)
        else:
            h = layer(h)
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in gan.generator.layers) == 2
    torch.testing.assert_close(gan.generator(z), h, rtol=1e-4, atol=1e-5)
    assert {layer.weight.shape[2:] for layer in gan.generator.layers if isinstance(layer, torch.nn.Conv2d)} == {(3, 3)}
    with pytest.raises(ValueError, match="resize is for architecture dcgan, not resnet; leave it out"):
        wgangp(architecture="resnet", resize=True)


def test_the_supervised_form_keeps_the_contract_and_the_mlp_has_none():
    check_variant(ganzoo.WGANGP, **small("WGANGP"), conditional=True, n_critic=1)
    with pytest.raises(ValueError, match="conditional needs architecture dcgan or resnet: the MLP has no labels"):
        wgangp(architecture="mlp", conditional=True)
    with pytest.raises(ValueError, match="conditional needs labelled data"):
        ganzoo.WGANGP(conditional=True)


def test_residual_critics_score_is_linear_in_the_mean_over_pixels():
    d, x = wgangp(architecture="resnet").discriminator, torch.rand(3, 1, 16, 16)
    h = d.blocks(x).clamp(min=0).mean((2, 3))
    torch.testing.assert_close(d(x), d.score(h)[:, 0])


@pytest.mark.parametrize("norm", ["layer", "none"])
def test_the_score_of_an_image_does_not_depend_on_other_images(norm):
    gan = wgangp(norm=norm).train()
    x = torch.rand(3, 1, 16, 16, requires_grad=True)
    (gradient,) = torch.autograd.grad(gan.discriminator(x)[0], x)
    assert gradient[0].abs().max() > 0 and (gradient[1:] == 0).all()
    assert any(isinstance(m, nn.GroupNorm) for m in gan.discriminator.modules()) == (norm == "layer")


def test_the_weights_of_the_critic_are_not_clipped():
    assert ganzoo.WGANGP.__base__ is GANModule
    gan = wgangp()
    fit(gan, steps=2)
    assert max(p.abs().max() for p in gan.discriminator.parameters()) > 0.01


def test_every_update_draws_new_interpolation_weights():
    gan, seen = wgangp(n_critic=1), []
    equation = gan.discriminator_loss
    gan.discriminator_loss = lambda batch: (seen.append(batch["u"]), equation(batch))[1]
    fit(gan, steps=2)
    first, second = seen
    assert first.shape == (8,) and not torch.equal(first, second)
    assert all(u.min() >= 0 and u.max() < 1 and len(u.unique()) == 8 for u in seen)


def test_the_distance_is_logged_without_the_penalty():
    logger = Remember()
    fit(wgangp(), steps=2, logger=logger, log_every_n_steps=2)
    ((_, row),) = logger.rows
    assert row["wasserstein"] == pytest.approx(-row["D/real"] - row["D/fake"], rel=1e-4)
    assert row["D/loss"] == pytest.approx(row["D/penalty"] - row["wasserstein"], rel=1e-4)


def test_the_distance_is_accurate_under_bfloat16():
    """Scores are around 20, where bfloat16 has steps of 0.125, which exceed the distance."""
    torch.manual_seed(0)
    gan = ganzoo.WGANGP(**small("WGANGP"))
    with torch.no_grad():
        gan.discriminator.score.bias.fill_(20.0)
    batch = {"image": torch.rand(64, 1, 16, 16), **gan.draw(64, torch.Generator().manual_seed(0))}
    seen = []
    gan.observe = lambda name, value: seen.append(value.item())
    for half in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            gan.discriminator_loss(batch)
    assert 0.02 < abs(seen[0]) < 0.1 and seen[1] == pytest.approx(seen[0], abs=0.02)


def test_the_validation_loss_includes_the_penalty():
    logger = Remember()
    fit(wgangp(), steps=3, logger=logger, log_every_n_steps=100, limit_val_batches=1)
    ((_, row),) = logger.rows
    assert row["val/D/loss"] > -row["val/wasserstein"]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"penalty": -1.0}, "penalty is -1.0; it takes a number above 0"),
        ({"norm": "batch"}, "norm is 'batch'; it takes one of layer, none"),
    ],
)
def test_arguments_out_of_range_are_refused(bad, words):
    with pytest.raises(ValueError, match=words):
        wgangp(**bad)
