"""ProjectedGAN: the paper's numbers, its networks by hand, the losses, other feature networks, bad input."""

from __future__ import annotations

from functools import cache
from itertools import chain, pairwise

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, interpolate

import ganzoo
from ganzoo.networks.projected import Head, Mixing, ProjectedDiscriminator, ProjectedGenerator
from tests.paper import layers, optimizers, prior
from tests.variants import small


@cache
def default():
    with torch.device("meta"):
        return ganzoo.ProjectedGAN()


@cache
def heads():
    """The layers of the four heads, from fine to coarse."""
    return [layers(head) for head in default().discriminator.heads]


def hidden(*maps):
    """Layers of a head with these numbers of maps, without labels."""
    strided = [[f"conv {a}>{b} 4/2+1", f"batch norm {b}", "leaky 0.2"] for a, b in pairwise(maps)]
    return [*chain(*strided), f"conv {maps[-1]}>1 4/1+0 no bias"]


PAPER = {  # section 3 and appendix, and the authors' code
    "lr": (lambda gan: optimizers(gan, "lr"), [2e-4] * 2),
    "eps": (lambda gan: optimizers(gan, "eps", "weight_decay"), [1e-8, 1e-8, 0, 0]),
    "betas": (lambda gan: optimizers(gan, "betas"), [(0.0, 0.99)] * 2),
    "turns": (lambda gan: (gan.n_critic, gan.n_generator), (1, 1)),
    "half-life of 20,000 images, 10/32 of a batch of 64": (lambda gan: gan.ema_half_life, 64 * 10 / 32 * 1000),
    "DiffAugment: color, translation 1/8, cutout 1/5": (
        lambda gan: gan.augment.arguments,
        {"color": True, "translation": 0.125, "cutout": 0.2},
    ),
    "z of 256": (lambda gan: gan.z_dim, 256),
    "parameters of D": (lambda gan: count(gan.discriminator.parameters()), 10_331_328),
    "numbers of the random mixtures": (lambda gan: count(gan.discriminator.mix.buffers()), 376_768),
    "parameters of G": (lambda gan: count(gan.generator.parameters()), 105_684_175),
    "width of G": (lambda gan: gan.generator.out.in_channels, 64),
    "features": (
        lambda gan: (gan.discriminator.features.name, gan.discriminator.features.source.channels),
        ("efficientnet_b0", (24, 40, 112, 320)),
    ),
    "mixtures": (lambda gan: gan.discriminator.mix.channels, [64, 64, 128, 256]),
    "head of 128 pixels": (lambda _: heads()[0], hidden(64, 64, 128, 256, 512)),
    "head of 64 pixels": (lambda _: heads()[1], hidden(64, 128, 256, 512)),
    "head of 32 pixels": (lambda _: heads()[2], hidden(128, 256, 512)),
    "head of 16 pixels": (lambda _: heads()[3], hidden(256, 512)),
}


def count(tensors):
    return sum(tensor.numel() for tensor in tensors)


@pytest.mark.parametrize(("find", "number"), PAPER.values(), ids=PAPER)
def test_numbers_of_the_paper(find, number):
    assert find(default()) == number


def test_lite_generator_has_the_published_size():
    with torch.device("meta"):
        generator = ganzoo.ProjectedGAN(lite=True).generator
    assert count(generator.parameters()) == 79_354_307 and generator.noise == []


def test_prior():
    gan = ganzoo.ProjectedGAN(**small("ProjectedGAN"))
    assert prior(gan.latent(2000)) == "standard normal"


@pytest.mark.parametrize(
    ("size", "depths", "logits"),
    [
        (256, [4, 3, 2, 1], 100),  # 5x5 each
        (224, [4, 3, 2, 1], 64),  # 4x4 each
        (32, [4, 3, 2, 1], 64),  # enlarged to 224
        ([256, 320], [4, 3, 2, 1], 140),  # 5x7
        ([512, 384], [5, 4, 3, 2], None),
    ],
)
def test_depth_of_the_heads(size, depths, logits):
    """The authors' for squares of 224 to 256 pixels."""
    discriminator = ganzoo.ProjectedGAN(image_size=size, width=1, d_width=1, z_dim=1).discriminator
    assert [len(head.layers) // 3 for head in discriminator.heads] == depths
    sizes = zip(discriminator.features.source.channels, discriminator.features.sizes(size), strict=True)
    mixed = discriminator.mix([torch.zeros(1, c, *hw) for c, hw in sizes])
    found = torch.cat([head.eval()(m) for head, m in zip(discriminator.heads, mixed, strict=True)], 1)
    assert logits is None or found.shape == (1, logits)


def test_heads_of_other_features():
    """Emoji of 32x32 pixels: mixtures of 64, 32, 16 and 8 pixels."""
    gan = ganzoo.ProjectedGAN(image_size=32, features="emoji-training", width=2, d_width=4, z_dim=6)
    assert [len(head.layers) // 3 for head in gan.discriminator.heads] == [3, 2, 1, 1]
    assert gan.discriminator(torch.zeros(2, 3, 32, 32)).shape == (2, 1, 25 + 25 + 25 + 1)
    widths = [[m.out_channels for m in head.layers if isinstance(m, nn.Conv2d)] for head in gan.discriminator.heads]
    assert widths == [[8, 16, 32], [16, 32], [32], [32]]


def test_mixing_by_hand():
    """Random projections across channels, then from coarse to fine: sum, doubling, projection."""
    torch.manual_seed(0)
    mix = Mixing((3, 5, 4), 2)
    maps = [torch.randn(2, c, s, s + 2) for c, s in ((3, 16), (5, 8), (4, 4))]
    assert [m.shape[1] for m in mix(maps)] == mix.channels == [2, 2, 4]
    maps = [torch.randn(2, c, s, s) for c, s in ((3, 16), (5, 8), (4, 4))]
    across, scales = mix.across_channels, mix.across_scales
    a, b, c = (conv2d(m, k.weight, k.bias) for m, k in zip(maps, across, strict=True))
    assert [x.shape[1] for x in (a, b, c)] == [2, 4, 8]

    def up(x, k):
        return conv2d(interpolate(x, scale_factor=2, mode="bilinear", align_corners=True), k.weight, k.bias)

    coarse = up(c, scales[2])
    middle = up(b + coarse, scales[1])
    fine = up(a + middle, scales[0])
    torch.testing.assert_close(mix(maps), [fine, middle, coarse], rtol=1e-4, atol=1e-5)
    assert not list(mix.parameters()) and len(mix.state_dict()) == 12
    bound = 5**-0.5  # torch's first weights of a layer with 5 inputs
    assert bound / 2 < across[1].weight.abs().max() <= bound


def test_mixtures_of_maps_that_are_not_halves():
    mix = Mixing((3, 5), 2)
    assert [m.shape[2:] for m in mix([torch.zeros(1, 3, 63, 9), torch.zeros(1, 5, 32, 5)])] == [(126, 18), (63, 9)]


def test_projection_by_hand():
    torch.manual_seed(0)
    head, x, y = Head(3, 16, 4, num_classes=3).eval(), torch.randn(2, 3, 16, 18), torch.tensor([2, 0])
    maps = head.out(head.layers(x))
    assert maps.shape == (2, 64, 5, 6)
    table, linear, _ = head.embed
    assert table.weight.shape == (3, 128) and linear.out_features == 64
    v = linear(table.weight[y])
    v = torch.where(v > 0, v, 0.2 * v)
    torch.testing.assert_close(head(x, y), (maps * v[:, :, None, None]).sum(1).flatten(1) / 8)


def test_losses():
    """Hinge, by means over all logits of all heads; labels reach both players."""
    torch.manual_seed(0)
    gan = ganzoo.ProjectedGAN(**small("ProjectedGAN")).eval()
    x, y = 2 * torch.rand(5, 1, 8, 8) - 1, torch.tensor([0, 2, 1, 1, 0])
    batch = {"image": x, "label": y, **gan.draw(5, torch.Generator().manual_seed(0))}
    with torch.no_grad():
        real = gan.discriminator(x, y)
        fake = gan.discriminator(gan.generator(batch["z"], y, batch["noise"]), y)
        d, g = gan.discriminator_loss(batch), gan.generator_loss(batch)
        other = gan.generator_loss({**batch, "label": (y + 1) % 3})
    expected = {"real": (1 - real).clamp(min=0).mean(), "fake": (1 + fake).clamp(min=0).mean()}
    torch.testing.assert_close(d, expected)
    torch.testing.assert_close(g, {"fake": -fake.mean()})
    assert other["fake"] != g["fake"]


def test_the_mean_is_over_logits_and_not_over_heads():
    """The authors': a head with more places counts more."""
    gan = ganzoo.ProjectedGAN(**{**small("ProjectedGAN"), "num_classes": None})
    batch = {"image": torch.zeros(2, 1, 8, 8), **gan.draw(2, torch.Generator())}
    logits = torch.arange(2 * 26.0).view(2, 1, 26)
    gan.discriminate = lambda x, y: logits
    assert gan.generator_loss(batch)["fake"] == -logits.mean()


def test_generator_by_hand():
    """A latent's length does not matter; excitations; noise if given; no tanh."""
    torch.manual_seed(0)
    g = ProjectedGenerator(64, 3, z_dim=6, width=2).eval()
    z = torch.randn(2, 6)
    torch.testing.assert_close(g(3 * z), g(z), rtol=1e-4, atol=1e-5)
    assert len(g.excite) == 1 and g.noise == [(s, s) for s in (8, 16, 32, 64) for _ in range(2)]
    noise = [torch.randn(2, 1, *size) for size in g.noise]
    for parameter in (b.noise.strength for b in g.modules() if getattr(b, "noise", None) is not None and b is not g):
        parameter.data.fill_(1.0)
    assert not torch.allclose(g(z, None, noise), g(z))
    g.out.bias.data.fill_(7.0)
    assert g(z).max() > 5
    seen = []
    g.first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    g(z)
    torch.testing.assert_close(seen[0].square().mean(1), torch.ones(2))
    g.out.bias.data.zero_()
    before = g(z)
    with torch.no_grad():
        g.excite[0].gate[3].weight.mul_(-1)
    assert not torch.equal(g(z), before)
    assert len(ProjectedGenerator(128, 1, z_dim=6, width=1).excite) == 2


def test_samples_follow_the_label_and_have_no_noise():
    torch.manual_seed(0)
    gan = ganzoo.ProjectedGAN(**small("ProjectedGAN")).eval()
    first, again = (gan.sample(seeds=[0, 1], label=torch.tensor([0, 0])) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(gan.sample(seeds=[0, 1], label=torch.tensor([1, 1])), first)
    plain = ganzoo.ProjectedGAN(**small("ProjectedGAN"), conditional=False)
    assert plain.num_classes is None and plain.generator.embed is None
    assert plain.discriminator.heads[0].embed is None


def test_nothing_of_the_features_is_trained_or_saved():
    gan = ganzoo.ProjectedGAN(**small("ProjectedGAN"))
    state = gan.state_dict()
    assert {key.split(".")[1] for key in state if key.startswith("discriminator")} == {"features", "mix", "heads"}
    assert [key for key in state if ".features." in key] == ["discriminator.features._extra_state"]
    trained = {name.split(".")[0] for name, _ in gan.discriminator.named_parameters()}
    assert trained == {"heads"}


def test_discriminator_takes_any_features():
    """By the numbers of their channels."""
    d = ProjectedDiscriminator(nn.Identity(), (3, 2), ((8, 8), (4, 4)), width=2)
    assert d([torch.zeros(2, 3, 8, 8), torch.zeros(2, 2, 4, 4)]).shape == (2, 1, 25 + 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": "efficientnet"}, "features is efficientnet; did you mean 'efficientnet_b0'"),
        ({"channels": 4}, "features: efficientnet_b0 reads grey or RGB images, but they have 4 channels"),
        ({"image_size": 30}, "image_size 30: the network doubles the height and width 1 to 8 times"),
        ({"freeze_d": 1}, "freeze_d does not work with ProjectedGAN: its feature network is frozen"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        ganzoo.ProjectedGAN(**{"width": 1, "d_width": 1, **arguments})
