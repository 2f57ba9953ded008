"""SNGAN: the hinge loss, both architectures with their published sizes, and spectral norm in training."""

from __future__ import annotations

from functools import cache, partial

import pytest
import torch
from torch import nn
from torch.optim import SGD

import ganzoo
from ganzoo.layers.spectral import SpectralConv2d, SpectralLinear
from ganzoo.networks.base import attended, reductions, residual_layout
from ganzoo.networks.residual import ResidualDiscriminator, ResidualGenerator
from ganzoo.networks.sndcgan import SNDCGANDiscriminator, SNDCGANGenerator
from ganzoo.testing import NoiseImages, fit
from tests.contract.test_turns import Remember
from tests.paper import LINEAR, begins, layers, optimizers, prior, spread
from tests.variants import small


def sngan(**more):
    torch.manual_seed(0)
    return ganzoo.SNGAN(**{**small("SNGAN"), "image_size": 16, **more})


@cache
def default(architecture="resnet"):
    with torch.device("meta"):
        return ganzoo.SNGAN(architecture=architecture)


def size(network):
    return sum(p.numel() for p in network.parameters())


def up(n):
    return [f"batch norm {n}", f"batch norm {n}", *convs(n, n, n)]


def convs(a, b, c):
    return [f"conv {a}>{b} 3/1+1", f"conv {b}>{c} 3/1+1", f"conv {a}>{c} 1/1+0"]


PAPER = {
    "Adam": (lambda gan: optimizers(gan, "kind"), ["FusedAdam"] * 2),
    "alpha": (lambda gan: optimizers(gan, "lr"), [2e-4] * 2),
    "beta1, beta2": (lambda gan: optimizers(gan, "betas"), [(0.0, 0.9)] * 2),
    "Adam's other numbers": (lambda gan: optimizers(gan, "eps", "weight_decay"), [1e-8, 1e-8, 0, 0]),
    "n_dis": (lambda gan: (gan.n_critic, gan.n_generator), (5, 1)),
    "z": (lambda gan: gan.z_dim, 128),
    "table 4: G": (
        lambda gan: layers(gan.generator),
        ["linear 128>4096", "unflatten", *up(256) * 3, "identity", "batch norm 256", "conv 256>3 3/1+1"],
    ),
    "table 4: D": (
        lambda gan: layers(gan.discriminator),
        [*convs(3, 128, 128), *convs(128, 128, 128), *[*convs(128, 128, 128)[:2], "identity"] * 2, "linear 128>1"],
    ),
    # mimicry's networks; SNGAN's authors' D has no bias in the last layer: 1,053,824
    "parameters": (lambda gan: (size(gan.generator), size(gan.discriminator)), (4_276_739, 1_053_825)),
    "table 3: parameters": (
        lambda gan: (size(default("dcgan").generator), size(default("dcgan").discriminator)),
        (3_812_355, 2_935_873),
    ),
    "table 3: G": (
        lambda gan: layers(default("dcgan").generator),
        [
            *("linear 128>8192", "unflatten", "up 512>256 4/2+1", "batch norm 256", "relu"),
            *("up 256>128 4/2+1", "batch norm 128", "relu", "up 128>64 4/2+1", "batch norm 64", "relu"),
            *("conv 64>3 3/1+1", "tanh"),
        ],
    ),
    "table 3: D": (
        lambda gan: layers(default("dcgan").discriminator),
        [
            *("conv 3>64 3/1+1", "leaky 0.1", "conv 64>64 4/2+1", "leaky 0.1", "conv 64>128 3/1+1", "leaky 0.1"),
            *("conv 128>128 4/2+1", "leaky 0.1", "conv 128>256 3/1+1", "leaky 0.1", "conv 256>256 4/2+1", "leaky 0.1"),
            *("conv 256>512 3/1+1", "leaky 0.1", "linear 8192>1"),
        ],
    ),
}


@pytest.mark.parametrize(("find", "number"), PAPER.values(), ids=PAPER)
def test_numbers_of_the_paper(find, number):
    assert find(default()) == number


def test_latents_are_standard_normal():
    assert prior(sngan().latent(2000)) == "standard normal"


@pytest.mark.parametrize("architecture", ["resnet", "dcgan"])
def test_spectral_norm_is_in_d_alone(architecture):
    gan = sngan(architecture=architecture)
    weighted = [m for m in gan.discriminator.modules() if hasattr(m, "weight")]
    assert weighted and all(isinstance(m, SpectralConv2d | SpectralLinear) for m in weighted)
    assert not any(isinstance(m, SpectralConv2d | SpectralLinear) for m in gan.generator.modules())


def test_first_weights_are_xaviers():
    """Uniform, of variance 2 gain^2 / (fan in + fan out), with gain sqrt 2 in the blocks' 3x3 convolutions, else 1."""
    torch.manual_seed(0)
    for network in (ResidualGenerator(32, 3, 32, 8), ResidualDiscriminator(32, 3, 16)):
        for name, m in network.named_modules():
            if isinstance(m, nn.Conv2d | nn.Linear):
                gain = 2 if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3) and name != "out" else 1
                pixels = m.weight[0, 0].numel()
                bound = (6 * gain / (m.weight.shape[0] * pixels + m.weight.shape[1] * pixels)) ** 0.5
                assert bound >= m.weight.abs().max() > 0.8 * bound and not m.bias.any(), name


def test_first_weights_of_the_convolutional_networks_are_normal():
    torch.manual_seed(0)
    for network in (SNDCGANGenerator(32, 3, 128), SNDCGANDiscriminator(32, 3)):
        assert spread(network, LINEAR) == begins(0, 0.02)


@pytest.mark.parametrize("architecture", ["resnet", "dcgan"])
def test_losses_and_gradients_are_those_of_the_hinge(architecture):
    gan = sngan(architecture=architecture).eval()
    x, z = torch.rand(5, 1, 16, 16) * 2 - 1, gan.latent(5)
    gan.discriminator.score.u.mul_(50 if architecture == "resnet" else 0.1)  # scores on both sides of the hinges
    d, g = gan.discriminator_loss({"image": x, "z": z}), gan.generator_loss({"z": z})
    fakes = gan.generator(z)
    real, fake = ([gan.discriminator(image[None])[0] for image in images] for images in (x, fakes.detach()))
    assert len({s.item() > 1 for s in real} | {s.item() > -1 for s in fake}) == 2
    expected = sum(max(0, 1 - s) for s in real) / 5 + sum(max(0, 1 + s) for s in fake) / 5
    torch.testing.assert_close(sum(d.values()), expected)
    weights = list(gan.discriminator.parameters())
    ours, theirs = (torch.autograd.grad(loss, weights) for loss in (sum(d.values()), expected))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(sum(g.values()), -sum(fake) / 5)


def test_an_update_of_d_is_one_forward_pass_with_one_power_iteration():
    gan, passes = sngan(n_critic=1), []
    layer = gan.discriminator.score
    layer.register_forward_hook(lambda m, x, y: passes.append(len(y)))
    fit(gan, steps=1)
    assert passes[-2:] == [16, 8]  # reals and fakes; G's update


def test_power_iterations_are_those_of_d_alone_and_equal_after_a_resume(tmp_path):
    """The vectors are in the checkpoint; G's updates leave them as they were."""
    gan = sngan(n_critic=1)
    updates = []
    step = gan.generator_step

    def watched(batch):
        before = [b.clone() for b in gan.discriminator.buffers()]
        step(batch)
        updates.append(all(map(torch.equal, before, gan.discriminator.buffers())))

    gan.generator_step = watched
    before = gan.discriminator.score.u.clone(), gan.discriminator.blocks[0].conv1.u.clone()
    trainer = fit(gan, steps=2)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    saved = torch.load(tmp_path / "a.ckpt", weights_only=True)["state_dict"]
    assert updates == [True, True]
    vectors = [key for key in saved if key.endswith(".u")]
    assert len(vectors) == sum(isinstance(m, SpectralConv2d | SpectralLinear) for m in gan.discriminator.modules())
    assert torch.equal(saved["discriminator.blocks.0.conv1.u"], gan.discriminator.blocks[0].conv1.u)
    assert not torch.equal(before[1], gan.discriminator.blocks[0].conv1.u)


def test_the_reals_are_scored_higher_after_updates_of_d():
    gan = sngan(n_critic=100, optimizer=lambda params: SGD(params, lr=0.05))
    logger = Remember()
    fit(gan, NoiseImages(gan), steps=20, logger=logger, log_every_n_steps=1)
    losses = [row["D/loss"] for _, row in logger.rows]
    assert losses[-1] < losses[0] - 0.05


def test_layout_of_sizes():
    """G's doublings start at 4 to 7 pixels; D's halvings end there, or at 8 to 15 for small images."""
    assert [residual_layout(s) for s in (8, 28, 32, 48, 64, 128, [32, 96])] == [
        *((1, 4, 4), (2, 7, 7), (3, 4, 4), (3, 6, 6), (4, 4, 4), (5, 4, 4), (3, 4, 12)),
    ]
    assert [reductions(n) for n in range(1, 8)] == [1, 1, 2, 4, 5, 6, 7]
    assert [attended(s, a) for s, a in ((32, 64), (32, 32), (32, 8), (128, 32), (128, 64), (28, 20))] == [
        1,
        1,
        2,
        2,
        1,
        1,
    ]


def test_shapes_within_d():
    """32x32 images end at 8x8 and 64x64 ones at 4x4, as in the papers' tables."""
    for side, last in ((16, 8), (32, 8), (64, 4)):
        d = ResidualDiscriminator(side, 1, 1)
        assert d.blocks(torch.zeros(1, 1, side, side)).shape[2:] == (last, last)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"image_size": 30}, "image_size 30: residual networks double the height and width .*; try 32"),
        ({"image_size": 1}, "image_size 1: residual networks double .*; try 8"),
        ({"architecture": "mlp"}, "architecture is 'mlp'; it takes one of resnet, dcgan"),
    ],
)
def test_arguments_out_of_range_are_refused(bad, words):
    make = partial(ganzoo.SNGAN, **{**small("SNGAN"), **bad})
    with pytest.raises(ValueError, match=words):
        make()
