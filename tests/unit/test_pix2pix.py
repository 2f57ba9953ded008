"""Pix2Pix: networks against the paper, losses against values computed directly."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.nn.functional import leaky_relu, relu

from ganzoo import Pix2Pix
from ganzoo.networks.patch import PatchDiscriminator
from ganzoo.networks.unet import UNet
from ganzoo.testing import NoiseImages, fit
from tests.paper import LINEAR, NORMS, begins, layers, optimizers, spread
from tests.variants import small


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def make(**more):
    torch.manual_seed(0)
    return Pix2Pix(**{**small("Pix2Pix"), **more})


def batch(model, n=3):
    generator = torch.Generator().manual_seed(0)
    size = model.hparams["image_size"]
    image = 2 * torch.rand(n, model.hparams["channels"], size, size, generator=generator) - 1
    source = 2 * torch.rand(n, model.source_channels, size, size, generator=generator) - 1
    return {"image": image, "source": source, "z": model.latent(n, generator)}


def test_parameter_counts_match_the_published_networks():
    """The public PyTorch port has 54.414 M and 2.769 M; its U-Net has no bias in the layers at 128 x 128 and 1 x 1."""
    with torch.device("meta"):
        unet, patch = UNet(256, 3, 3, 64), PatchDiscriminator(256, 3, 3, 64, 70)
    assert round((parameters(unet) - 64 - 512) / 1e6, 3) == 54.414
    assert round(parameters(patch) / 1e6, 3) == 2.769


@cache
def default():
    with torch.device("meta"):
        return Pix2Pix()


@cache
def narrow():
    torch.manual_seed(0)
    return Pix2Pix(64, width=16)


PAPER = {  # from the appendix unless a section is named; values not in the paper are from the authors' code
    "3.3: Adam": (lambda gan: optimizers(gan, "kind"), ["FusedAdam"] * 2),
    "3.3: learning rate": (lambda gan: optimizers(gan, "lr"), [2e-4] * 2),
    "3.3: beta1, beta2": (lambda gan: optimizers(gan, "betas"), [(0.5, 0.999)] * 2),
    "Adam's other numbers": (lambda gan: optimizers(gan, "eps", "weight_decay"), [1e-8, 1e-8, 0, 0]),
    "3.3: one step each": (lambda gan: (gan.n_critic, gan.n_generator), (1, 1)),
    "3.1, eq. 4: lambda": (lambda gan: (gan.l1, gan.gan), (100, 1)),
    "3.2.1: U-Net, encoder": (
        lambda gan: layers(gan.generator.down),
        [
            *("conv 3>64 4/2+1", "leaky 0.2", "conv 64>128 4/2+1 no bias", "instance norm 128", "leaky 0.2"),
            *("conv 128>256 4/2+1 no bias", "instance norm 256", "leaky 0.2"),
            *("conv 256>512 4/2+1 no bias", "instance norm 512", "leaky 0.2"),
            *("conv 512>512 4/2+1 no bias", "instance norm 512", "leaky 0.2") * 3,
            *("conv 512>512 4/2+1", "leaky 0.2"),  # at one pixel
        ],
    ),
    "3.2.1: U-Net, decoder": (
        lambda gan: layers(gan.generator.up),
        [
            *("up 512>512 4/2+1 no bias", "instance norm 512"),
            *("up 1024>512 4/2+1 no bias", "instance norm 512") * 3,
            *("up 1024>256 4/2+1 no bias", "instance norm 256", "up 512>128 4/2+1 no bias", "instance norm 128"),
            *("up 256>64 4/2+1 no bias", "instance norm 64", "up 128>3 4/2+1", "tanh"),
        ],
    ),
    "dropout": (lambda gan: gan.generator.noise, [(512, 2, 2), (512, 4, 4), (512, 8, 8)]),
    "3.2.2: PatchGAN of 70x70": (
        lambda gan: layers(gan.discriminator),
        [
            *("conv 6>64 4/2+1", "leaky 0.2", "conv 64>128 4/2+1 no bias", "instance norm 128", "leaky 0.2"),
            *("conv 128>256 4/2+1 no bias", "instance norm 256", "leaky 0.2"),
            *("conv 256>512 4/1+1 no bias", "instance norm 512", "leaky 0.2", "conv 512>1 4/1+1"),
        ],
    ),
    "PatchGAN of 286x286": (
        lambda gan: [
            m.out_channels for m in PatchDiscriminator(width=4, receptive_field=286).layers if hasattr(m, "stride")
        ],
        [4, 8, 16, 32, 32, 32, 1],
    ),
    "PixelGAN": (
        lambda gan: layers(PatchDiscriminator(16, 3, 3, receptive_field=1)),
        [
            "conv 6>64 1/1+0",
            "leaky 0.2",
            "conv 64>128 1/1+0 no bias",
            "instance norm 128",
            "leaky 0.2",
            "conv 128>1 1/1+0",
        ],
    ),
    "the networks' own defaults": (
        lambda gan: (layers(UNet()), layers(PatchDiscriminator(source_channels=3))),
        (layers(default().generator), layers(default().discriminator)),
    ),
    "G's first weights": (lambda gan: spread(narrow().generator, LINEAR), begins(0, 0.02)),
    "D's first weights": (lambda gan: spread(narrow().discriminator, LINEAR), begins(0, 0.02)),
    "code: G's first gains": (lambda gan: spread(narrow().generator, NORMS), begins(1, 0.02)),
    "code: D's first gains": (lambda gan: spread(narrow().discriminator, NORMS), begins(1, 0.02)),
}


@pytest.mark.parametrize(("find", "number"), PAPER.values(), ids=PAPER)
def test_numbers_of_the_paper(find, number):
    assert find(default()) == number


@pytest.mark.parametrize("skips", [True, False])
def test_the_decoder_applies_relu_after_concatenation(skips):
    """As in the authors' code, skips carry the encoder's outputs before their leaky ReLU."""
    torch.manual_seed(0)
    unet, source = UNet(16, 1, 2, 4, skips), torch.randn(2, 2, 16, 16)
    z = [2 * torch.randint(2, (2, *shape)).float() for shape in unet.noise]
    encoded = []
    for i, block in enumerate(unet.down):
        h = block[:-1](leaky_relu(encoded[-1], 0.2) if i else source)  # without its last layer, the leaky ReLU
        encoded.append(h)
    h = encoded.pop()
    for i, block in enumerate(unet.up):
        h = block(relu(torch.cat([h, encoded.pop()], 1) if i and skips else h))
        h = h * z[i] if i < len(z) else h
    torch.testing.assert_close(unet(z, source), h)


def test_the_encoder_decoder_has_the_unets_layers_but_no_skips():
    """Its image depends only on the bottleneck."""
    model = make(skips=False)
    b = batch(model)
    assert [block[0].in_channels for block in model.generator.up] == [32, 16, 8, 4]
    with torch.no_grad():
        before = model.generator(b["z"], b["source"])
        model.generator.down[-1][0].weight.zero_()
        images = model.generator(b["z"], b["source"])
        other = model.generator(b["z"], -b["source"])
    assert torch.equal(images, other) and not torch.equal(images, before)


@pytest.mark.parametrize(
    ("image_size", "noise"), [(4, [(4, 2, 2)]), (8, [(8, 2, 2), (4, 4, 4)]), (16, [(16, 2, 2), (8, 4, 4), (4, 8, 8)])]
)
def test_the_unet_downsamples_to_one_pixel(image_size, noise):
    unet = UNet(image_size, channels=1, source_channels=2, width=4)
    sizes = []
    for block in unet.down:
        block.register_forward_hook(lambda m, x, y: sizes.append(y.shape[-1]))
    assert unet.noise == noise
    image = unet([torch.ones(2, *shape) for shape in noise], torch.randn(2, 2, image_size, image_size))
    assert image.shape == (2, 1, image_size, image_size) and image.abs().max() <= 1
    assert sizes == [image_size // 2**i for i in range(1, len(unet.down) + 1)] and sizes[-1] == 1


def test_gradients_flow_through_the_bottleneck_and_each_skip():
    torch.manual_seed(0)
    unet = UNet(16, 1, 1, 4)
    kept = {}
    for i, block in enumerate(unet.down):
        block.register_forward_hook(lambda m, x, y, i=i: kept.update({i: y}) or y.retain_grad())
    unet([torch.ones(2, *shape) for shape in unet.noise], torch.randn(2, 1, 16, 16)).square().sum().backward()
    assert all(kept[i].grad.abs().max() > 0 for i in range(4))
    for up, n in zip(unet.up[1:], (16, 8, 4), strict=True):  # half of the input channels are the encoder's
        assert up[0].weight.grad[n:].abs().max() > 0


@pytest.mark.parametrize(("r", "image_size"), [(1, 16), (7, 32), (16, 32), (34, 64), (70, 128), (142, 256)])
def test_a_logit_depends_on_exactly_its_receptive_field(r, image_size):
    """Without instance norm, whose statistics are of the whole map."""
    torch.manual_seed(0)
    network = PatchDiscriminator(image_size, 1, None, 2, r)
    network.layers = nn.Sequential(*(m for m in network.layers if not isinstance(m, nn.InstanceNorm2d)))
    x = torch.randn(1, 1, image_size, image_size, requires_grad=True)
    logits = network.double()(x.double())
    middle = logits.shape[-1] // 2
    logits[0, middle, middle].backward()
    rows, columns = x.grad[0, 0].nonzero().unbind(1)
    for seen in (rows, columns):
        assert seen.max() - seen.min() + 1 == r
    assert len(rows) == r * r


def test_receptive_field_286_fits_256_pixels_but_not_64():
    torch.manual_seed(0)
    assert PatchDiscriminator(256, 3, None, 2, 286)(torch.randn(1, 3, 256, 256)).shape == (1, 6, 6)
    with pytest.raises(ValueError, match="is too large for 64 pixels; use 142 or less"):
        PatchDiscriminator(64, receptive_field=286)


@pytest.mark.parametrize(("image_size", "shape"), [(256, 30), (128, 14), (64, 14), (32, 14), (16, 6), (8, 6), (4, 4)])
def test_the_default_receptive_field_is_70_or_fits_the_image(image_size, shape):
    """A 70 x 70 patch on 256 pixels gives 30 x 30 logits, as in the paper's code."""
    assert PatchDiscriminator(image_size, 1, None, 2)(torch.randn(2, 1, image_size, image_size)).shape == (
        2,
        shape,
        shape,
    )


def test_losses_are_mean_cross_entropies_over_patches():
    model = make(l1=7.0, gan=3.0)
    b = batch(model)
    image = model.generator(b["z"], b["source"])
    real, fake = (model.discriminator(x, b["source"]) for x in (b["image"], image))
    assert real.shape == (3, 6, 6)
    terms = model.discriminator_loss(b)
    torch.testing.assert_close(terms["real"], 0.5 * bce(real, torch.ones_like(real)))
    torch.testing.assert_close(terms["fake"], 0.5 * bce(fake, torch.zeros_like(fake)))
    terms = model.generator_loss(b)
    torch.testing.assert_close(terms["gan"], 3 * bce(fake, torch.ones_like(fake)))
    torch.testing.assert_close(terms["l1"], 7 * torch.nn.functional.l1_loss(image, b["image"]))


def test_discriminator_loss_is_log_2_at_zero_logits():
    model = make()
    nn.init.zeros_(model.discriminator.layers[-1].weight)
    terms = model.discriminator_loss(batch(model))
    assert [term.item() for term in terms.values()] == pytest.approx([math.log(2) / 2] * 2)


def test_the_l1_gradient_is_the_sign_of_the_difference():
    """d(100 mean |y - G|)/dG = 100 sign(G - y) / pixels."""
    model = make(gan=0.0)
    b, kept = batch(model), []
    model.generator.register_forward_hook(lambda m, x, y: kept.append(y) or y.retain_grad())
    (loss,) = model.generator_loss(b).values()
    loss.backward()
    torch.testing.assert_close(kept[0].grad, 100 * (kept[0] - b["image"]).sign() / kept[0].numel())


@pytest.mark.parametrize(
    ("arm", "terms"),
    [
        ({"gan": 0.0}, {"l1"}),
        ({"conditional": False, "l1": 0.0}, {"gan"}),
        ({"l1": 0.0}, {"gan"}),
        ({"conditional": False}, {"gan", "l1"}),
        ({}, {"gan", "l1"}),
    ],
    ids=["L1", "GAN", "cGAN", "L1+GAN", "L1+cGAN"],
)
def test_the_arms_of_the_ablation(arm, terms):
    model = make(**arm)
    b = batch(model)
    assert set(model.generator_loss(b)) == terms
    real = model.discriminator_loss(b)["real"]
    other = model.discriminator_loss({**b, "source": -b["source"]})["real"]
    assert torch.equal(real, other) != arm.get("conditional", True), "D sees the source, or it does not"


def test_the_noise_is_dropout_with_rate_one_half():
    model = make()
    masks = model.latent(500, torch.Generator().manual_seed(0))
    assert [mask.shape for mask in masks] == [(500, 16, 2, 2), (500, 8, 4, 4), (500, 4, 8, 8)]
    for mask in masks:
        assert set(mask.unique().tolist()) == {0.0, 2.0}
        assert mask.mean().item() == pytest.approx(1, abs=4 / math.sqrt(mask.numel()))


def test_the_image_is_determined_by_the_seed():
    model = make()
    source = batch(model, 1)["source"].repeat(3, 1, 1, 1)
    one, two, again = model.sample(seeds=[1, 2, 1], source=source)
    torch.testing.assert_close(one, again)
    assert (one - two).abs().max() > 1e-4


def test_normalisation_is_per_image_in_training_and_sampling():
    model = make()
    b = batch(model, 3)
    z = [mask[1:2] for mask in b["z"]]
    alone = model.generate(z, {"source": b["source"][1:2]})
    torch.testing.assert_close(alone, model.train().generator(b["z"], b["source"])[1:2])


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"l1": -1.0}, "it takes a number from 0"),
        ({"gan": -0.5}, "it takes a number from 0"),
        ({"l1": 0.0, "gan": 0.0}, "must not both be 0"),
        ({"image_size": 24}, "takes 4, 8, 16"),
        ({"image_size": 2}, "takes 4, 8, 16"),
        ({"receptive_field": 50}, "a PatchGAN can have 1, 7, 16, 34, 70"),
        ({"receptive_field": 70}, "is too large for 16 pixels; use 34 or less"),
    ],
)
def test_bad_arguments_are_refused(bad, words):
    with pytest.raises(ValueError, match=words):
        make(**bad)


def test_a_source_of_another_size_is_refused():
    model = make()
    with pytest.raises(ValueError, match="16x16"):
        model.sample(source=torch.zeros(1, 2, 32, 32))


def test_data_without_sources_is_refused():
    model = make()
    data = NoiseImages(model)
    data.source_channels = None
    with pytest.raises(Exception, match="the data has no sources"):
        fit(model, data, steps=1)
