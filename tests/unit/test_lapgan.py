"""LAPGAN: the pyramid, the losses of each level, and samples from all levels."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD

import ganzoo
from ganzoo.functional.pyramid import expand, gaussian_pyramid
from ganzoo.networks.laplacian import ResidualDiscriminator, ResidualGenerator
from ganzoo.optim.adam import FusedAdam
from ganzoo.testing import NoiseImages, fit
from tests.paper import layers, optimizers, prior


def images(n=3, channels=2, size=16, seed=0):
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def lapgan(levels=2, **arguments):
    torch.manual_seed(0)
    small = {"image_size": 16, "channels": 2, "z_dim": 6, "width": 4, "hidden": 16, "d_hidden": 8}
    return ganzoo.LAPGAN(**{**small, "levels": levels, **arguments})


def batch_for(model, n=3):
    return {"image": images(n), "z": model.latent(n, torch.Generator().manual_seed(1))}


@cache
def default():
    return ganzoo.LAPGAN()


PAPER = {
    "4.1: SGD": (lambda gan: optimizers(gan, "kind"), ["SGD"] * 2),
    "4.1: learning rate": (lambda gan: optimizers(gan, "lr"), [0.02] * 2),
    "4.1: momentum": (lambda gan: optimizers(gan, "momentum"), [0.5] * 2),
    "SGD's other numbers": (
        lambda gan: optimizers(gan, "dampening", "weight_decay", "nesterov"),
        [0] * 4 + [False] * 2,
    ),
    "4.1: k": (lambda gan: (gan.n_critic, gan.n_generator), (1, 1)),
    "4.1: z of 100, uniform": (lambda gan: (gan.z_dim, prior(gan.latent(1000)[-1])), (100, "uniform in (-1, 1)")),
    "4.1: planes of noise": (
        lambda gan: [(tuple(z.shape[1:]), prior(z)) for z in gan.latent(20)[:-1]],
        [((1, 32, 32), "uniform in (-1, 1)"), ((1, 16, 16), "uniform in (-1, 1)")],
    ),
    "4.1: G of a residual": (
        lambda gan: layers(gan.generator[0]),
        ["conv 4>64 7/1+3", "relu", "conv 64>64 7/1+3", "relu", "conv 64>3 5/1+2"],
    ),
    "4.1: D of a residual": (
        lambda gan: layers(gan.discriminator[0]),
        [
            *("conv 3>64 5/1+2", "relu", "conv 64>64 5/2+2", "relu", "flatten", "dropout 0.5"),
            "linear 16384>1",
        ],
    ),
    "4.1: levels are alike": (
        lambda gan: (layers(gan.generator[1]), layers(gan.discriminator[1])),
        (layers(ResidualGenerator(3, 64)), layers(ResidualDiscriminator(16, 3, 64))),
    ),
    "the networks' own defaults": (
        lambda gan: (layers(ResidualGenerator()), layers(ResidualDiscriminator())),
        (layers(default().generator[0]), layers(default().discriminator[0])),
    ),
    "4.1: G of the coarsest image": (
        lambda gan: layers(gan.generator[2]),
        ["linear 100>1200", "relu", "linear 1200>1200", "relu", "linear 1200>192", "tanh"],
    ),
    "4.1: D of the coarsest image": (
        lambda gan: layers(gan.discriminator[2]),
        ["linear 192>600", "relu", "dropout 0.5", "linear 600>600", "relu", "dropout 0.5", "linear 600>1"],
    ),
}


@pytest.mark.parametrize(("find", "number"), PAPER.values(), ids=PAPER)
def test_numbers_of_the_paper(find, number):
    assert find(default()) == number


# The pyramid


@pytest.mark.parametrize("levels", [0, 1, 2, 4])
def test_each_pyramid_level_halves_the_image(levels):
    assert [len(level[0, 0]) for level in gaussian_pyramid(images(), levels)] == [16 >> k for k in range(levels + 1)]


def test_the_pyramid_matches_numpy():
    """Down: mean of 2x2 pixels. Up: bilinear, weights 3/4 and 1/4 along rows and columns, edges repeated."""
    x = images(1, 1, 8)

    def up(a):
        padded = np.pad(a, ((1, 1), (0, 0)), mode="edge")
        out = np.empty((2 * len(a), a.shape[1]), dtype=a.dtype)
        out[0::2] = 0.75 * a + 0.25 * padded[:-2]
        out[1::2] = 0.75 * a + 0.25 * padded[2:]
        return out

    fine = x[0, 0].numpy()
    coarse = fine.reshape(4, 2, 4, 2).mean((1, 3))
    _, low = gaussian_pyramid(x, 1)
    np.testing.assert_allclose(low[0, 0], coarse, atol=1e-6)
    np.testing.assert_allclose(expand(low)[0, 0], up(up(coarse).T).T, atol=1e-6)


# Networks, latents and arguments


def test_network_shapes_match_the_paper():
    def shapes(network):
        convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
        return [(m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0]) for m in convolutions]

    assert shapes(ResidualGenerator()) == [(4, 64, 7, 1), (64, 64, 7, 1), (64, 3, 5, 1)]
    assert shapes(ResidualDiscriminator()) == [(3, 64, 5, 1), (64, 64, 5, 2)]
    model = ganzoo.LAPGAN()
    for network, units, dropouts in ((model.generator[-1], 1200, []), (model.discriminator[-1], 600, [0.5, 0.5])):
        linear = [m for m in network.modules() if isinstance(m, nn.Linear)]
        assert [m.out_features for m in linear[:-1]] == [units, units]
        assert [m.p for m in network.modules() if isinstance(m, nn.Dropout)] == dropouts
    assert model.generator[-1].shape == (3, 8, 8)


@pytest.mark.parametrize(("levels", "size"), [(0, 16), (1, 16), (2, 16), (4, 16), (2, 28)])
def test_shapes_of_latents_and_images_at_every_depth(levels, size):
    model = lapgan(levels, image_size=size)
    assert [tuple(z.shape) for z in model.latent(5)] == [*((5, 1, size >> k, size >> k) for k in range(levels)), (5, 6)]
    assert model.sample(5).shape == (5, 2, size, size)


@pytest.mark.parametrize(("size", "levels", "most"), [(16, 5, 4), (28, 3, 2), (33, 1, 0), (32, -1, 5)])
def test_a_pyramid_too_deep_is_refused(size, levels, most):
    with pytest.raises(ValueError, match=f"levels {levels}: image_size {size} can be halved {most} times.*0 to {most}"):
        ganzoo.LAPGAN(image_size=size, levels=levels)


# Losses, training and samples


def test_losses_match_the_paper():
    """Cross-entropies of each level, D's averaged over reals and fakes; for reals h_k + l_k = I_k."""
    model = lapgan().eval()
    batch = batch_for(model)
    x, z = batch["image"], batch["z"]
    with torch.no_grad():
        d, g = model.discriminator_loss(batch), model.generator_loss(batch)
        reals = gaussian_pyramid(x, 2)
        assert set(d) == {f"{name}_{k}" for name in ("real", "fake") for k in range(3)}
        assert set(g) == {f"fake_{k}" for k in range(3)}
        for k in range(3):
            low = expand(reals[k + 1]) if k < 2 else 0
            fake = low + model.generator[k](z[k], low) if k < 2 else model.generator[k](z[k])
            real_p, fake_p = (torch.sigmoid(model.discriminator[k](image)) for image in (reals[k], fake))
            torch.testing.assert_close(d[f"real_{k}"], -real_p.log().mean() / 2)
            torch.testing.assert_close(d[f"fake_{k}"], -(1 - fake_p).log().mean() / 2)
            torch.testing.assert_close(g[f"fake_{k}"], -fake_p.log().mean())


@pytest.mark.parametrize("player", ["discriminator", "generator"])
def test_each_level_has_gradients_in_its_own_network_only(player):
    """Gradients of a level's terms with respect to the player's networks at all levels."""
    model = lapgan().eval()
    terms = getattr(model, f"{player}_loss")(batch_for(model))
    for k in range(3):
        for j, network in enumerate(getattr(model, player)):
            mine = [term for name, term in terms.items() if name.endswith(f"_{k}")]
            gradients = torch.autograd.grad(sum(mine), list(network.parameters()), retain_graph=True, allow_unused=True)
            assert all((gradient is not None) == (j == k) for gradient in gradients)


@pytest.mark.parametrize("optimizer", [SGD, FusedAdam])
def test_one_optimizer_for_all_levels_matches_one_per_level(optimizer):
    """An optimizer on the sum of all terms updates each level as an optimizer on the level's own terms."""
    together, alone = lapgan(levels=1).eval(), lapgan(levels=1).eval()
    batch = batch_for(together)
    whole = optimizer(together.discriminator.parameters(), lr=0.01)
    parts = [optimizer(level.parameters(), lr=0.01) for level in alone.discriminator]
    for _ in range(3):
        whole.zero_grad()
        sum(together.discriminator_loss(batch).values()).backward()
        whole.step()
        for k, part in enumerate(parts):
            part.zero_grad()
            sum(term for name, term in alone.discriminator_loss(batch).items() if name.endswith(f"_{k}")).backward()
            part.step()
    for a, b in zip(together.discriminator.parameters(), alone.discriminator.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_fakes_of_a_level_are_conditioned_on_real_low_pass_images():
    """Fakes of level 0 depend on the low-pass image only, neither on the image's detail nor on G_1."""
    model = lapgan(levels=1).eval()
    batch = batch_for(model)
    before = model.generator_loss(batch)["fake_0"]
    detail = torch.tensor([[0.1, -0.1], [-0.1, 0.1]]).repeat(8, 8)  # removed by downsampling
    torch.testing.assert_close(model.generator_loss({**batch, "image": batch["image"] + detail})["fake_0"], before)
    assert model.generator_loss({**batch, "image": batch["image"] + 0.1})["fake_0"] != before
    nn.init.ones_(model.generator[1].layers[0].weight)
    assert model.generator_loss(batch)["fake_0"] == before


def test_samples_add_the_residuals_of_all_levels():
    """Constant residuals are added to the coarsest image; only the final sum is clamped."""
    model = lapgan()
    for network, value in zip(model.generator, (-0.3, 0.9, math.atanh(0.5)), strict=True):
        last = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)][-1]
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, value)
    assert torch.allclose(model.sample(2), torch.tensor(1.0))  # .5 + .9 - .3 = 1.1
    nn.init.constant_(model.generator[0].layers[-1].bias, -0.6)
    assert torch.allclose(model.sample(2), torch.tensor(0.8))


def test_samples_depend_on_the_noise_of_every_level():
    model = lapgan()
    z = model.latent(2, torch.Generator().manual_seed(0))
    whole = model.generate(z)
    for k in range(3):
        other = [(-z_k if k == j else z_k) for j, z_k in enumerate(z)]
        assert not torch.equal(model.generate(other), whole)


def test_the_schedule_matches_the_paper():
    """lr .02 / 1.00004^epoch; momentum .5 to .8, by .0008 per epoch of 50,000 images. Adam's lr is constant."""
    model = lapgan()
    trainer = fit(model, NoiseImages(model), steps=1)
    for seen, lr, momentum in [
        (0, 0.02, 0.5),
        (49_999, 0.02, 0.5),
        (50_000, 0.02 / 1.00004, 0.5008),
        (10**9, 0.02 / 1.00004**20_000, 0.8),
    ]:
        model.schedule(seen)
        for optimizer in trainer.optimizers:
            assert optimizer.param_groups[0]["lr"] == pytest.approx(lr)
            assert optimizer.param_groups[0]["momentum"] == pytest.approx(momentum)
    model = lapgan(optimizer=lambda params: FusedAdam(params, lr=0.01))
    trainer = fit(model, NoiseImages(model), steps=1)
    model.schedule(10**9)
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.01


def test_compiled_losses_match_eager_ones():
    model = lapgan(levels=1).eval()
    batch = batch_for(model)
    for loss in (model.discriminator_loss, model.generator_loss):
        compiled, eager = torch.compile(loss, backend="eager", fullgraph=True)(batch), loss(batch)
        assert all(torch.allclose(compiled[name], eager[name]) for name in eager)
