"""FastGAN: published sizes, excitation, reconstruction of what D saw, random margins and quadrants, LPIPS."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d

import ganzoo
from ganzoo.augment import Augment
from ganzoo.core.batch import share
from ganzoo.layers.excitation import SkipExcitation
from ganzoo.layers.gated import GatedBlock, NoiseInjection, NoisyUpBlock
from ganzoo.layers.spectral import SpectralConv2d, SpectralUnfold, normalised
from ganzoo.networks.base import gated_layout
from ganzoo.networks.fastgan import DownBlock, FastGANDiscriminator, FastGANGenerator, quadrant
from ganzoo.networks.perceptual import Perceptual, fitted
from ganzoo.testing import fit
from tests.paper import begins, layers, optimizers, prior, spread
from tests.variants import small


@cache
def made(kind=ganzoo.FastGAN, *arguments):
    with torch.device("meta"):
        return kind(*arguments)


def fastgan(**more):
    torch.manual_seed(0)
    return ganzoo.FastGAN(**{**small("FastGAN"), **more})


def count(network):
    return sum(p.numel() for p in network.parameters())


def decoders(d):
    return d.decode, d.decode_small, d.decode_part


def outputs(blocks):
    """Feature maps after each block."""
    return [[m for m in block.modules() if isinstance(m, nn.BatchNorm2d)][-1].num_features for block in blocks]


def gates(network):
    """Inputs and outputs of each excitation."""
    return [(e.gate[1].in_channels, e.gate[1].out_channels) for e in network.excite]


G, D = FastGANGenerator, FastGANDiscriminator
LEAKY = "leaky 0.2"
PAPER = {  # Liu et al. 2021, section 3, appendix; numbers of the authors' code
    "Adam": (lambda: optimizers(made(), "kind"), ["FusedAdam"] * 2),
    "learning rates": (lambda: optimizers(made(), "lr"), [2e-4] * 2),
    "eps": (lambda: optimizers(made(), "eps", "weight_decay"), [1e-8, 1e-8, 0, 0]),
    "beta1, beta2": (lambda: optimizers(made(), "betas"), [(0.5, 0.999)] * 2),
    "one step of each player": (lambda: (made().n_critic, made().n_generator), (1, 1)),
    "z of 256": (lambda: (made().z_dim, prior(fastgan(z_dim=256).latent(100))), (256, "standard normal")),
    "sum of the reconstruction losses over a batch of 8": (lambda: made().reconstruction, 8.0),
    "LPIPS' network": (lambda: made().distance.features.name, "vgg16"),
    "G's parameters": (
        lambda: [count(made(G, size)) for size in (256, 512, 1024)],
        [29_127_846, 29_174_392, 29_176_512],
    ),
    "D's parameters": (lambda: count(made(D)), 11_526_160),
    "without decoders": (lambda: count(made(D)) - sum(map(count, decoders(made(D)))), 8_386_672),
    "G's maps, before the gates": (
        lambda: [made(G, 1024).first.out_channels, *outputs(made(G, 1024).blocks)],
        [2 * n for n in (1024, 512, 256, 128, 128, 64, 32, 16, 8)],
    ),
    "G's blocks": (
        lambda: [type(block).__name__ for block in made(G, 1024).blocks],
        ["NoisyUpBlock", "GatedBlock"] * 4,
    ),
    "G's excitations, 4 to 64, 8 to 128, ...": (
        lambda: gates(made(G, 1024)),
        [(1024, 128), (512, 64), (256, 32), (128, 16)],
    ),
    "G's outputs": (
        lambda: [layers(nn.Sequential(layer)) for layer in (made(G).out, made(G).out_small)],
        [["conv 32>3 3/1+1 no bias"], ["conv 64>3 1/1+0 no bias"]],
    ),
    "D's stem": (
        lambda: [layers(made(D, size).stem) for size in (256, 512, 1024)],
        [
            ["conv 3>16 3/1+1 no bias", LEAKY],
            ["conv 3>16 4/2+1 no bias", LEAKY],
            ["conv 3>8 4/2+1 no bias", LEAKY, "conv 8>16 4/2+1 no bias", "batch norm 16", LEAKY],
        ],
    ),
    "D's maps": (lambda: outputs(made(D, 1024).blocks), [32, 64, 128, 256, 512]),
    "D's excitations": (lambda: gates(made(D, 1024)), [(16, 128), (32, 256), (64, 512)]),
    "D's head": (
        lambda: layers(made(D).head),
        ["conv 512>1024 1/1+0 no bias", "batch norm 1024", LEAKY, "conv 1024>1 4/1+0 no bias"],
    ),
    "D's second branch": (
        lambda: layers(made(D).branch) + layers(nn.Sequential(made(D).head_small)),
        [
            *("conv 3>32 4/2+1 no bias", LEAKY),
            *("conv 32>64 4/2+1 no bias", "batch norm 64", LEAKY),
            *("conv 64>128 4/2+1 no bias", "batch norm 128", LEAKY),
            *("conv 128>256 4/2+1 no bias", "batch norm 256", LEAKY),
            "conv 256>1 4/1+0 no bias",
        ],
    ),
    "D's block": (
        lambda: layers(DownBlock(3, 5)),
        [
            *("conv 3>5 4/2+1 no bias", "batch norm 5", LEAKY, "conv 5>5 3/1+1 no bias", "batch norm 5", LEAKY),
            *("avgpool2d", "conv 3>5 1/1+0 no bias", "batch norm 5", LEAKY),
        ],
    ),
    "maps that the decoders read": (lambda: [d[0].conv.in_channels for d in decoders(made(D))], [512, 256, 256]),
    "decoders": (
        lambda: [(outputs(d[:-2]), d[-2].kernel_size, type(d[-1]).__name__) for d in decoders(made(D))],
        [([256, 128, 128, 64], (3, 3), "Tanh")] * 3,
    ),
    "initial weights": (lambda: spread(fastgan(width=8).discriminator, nn.Conv2d), begins(0.0, 0.02)),
    "initial gains": (lambda: spread(fastgan(width=8).generator, nn.BatchNorm2d), begins(1.0, 0.02)),
    "average": (lambda: 0.5 ** (8 / made().ema_half_life), pytest.approx(0.999, abs=1e-6)),
    "augmentation": (
        lambda: [getattr(made().augment, key) for key in ("color", "translation", "cutout")],
        [True, 0.125, 0.0],
    ),
    "size": (lambda: [made().hparams[key] for key in ("image_size", "channels", "width")], [256, 3, 64]),
}


@pytest.mark.parametrize(("find", "number"), PAPER.values(), ids=PAPER)
def test_numbers_of_the_paper(find, number):
    assert find() == number


def test_all_convolutions_have_spectral_norm_and_no_bias():
    gan = fastgan()
    for m in (*gan.generator.modules(), *gan.discriminator.modules()):
        if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            assert isinstance(m, SpectralConv2d) and m.bias is None


# Layers


def test_skip_excitation_gates_channels():
    torch.manual_seed(0)
    layer = SkipExcitation(2, 3)
    x, y = torch.randn(4, 2, 8, 12), torch.randn(4, 3, 5, 5)
    wide, narrow = layer.gate[1].weight, layer.gate[3].weight
    h = torch.einsum("ncij,kcij->nk", avg_pool2d(x, (2, 3)), wide)
    s = torch.sigmoid((h * torch.sigmoid(h)) @ narrow.flatten(1).T)
    torch.testing.assert_close(layer(x, y), y * s[:, :, None, None])


def test_noise_has_a_learned_strength_which_is_0_at_first():
    layer, x, noise = NoiseInjection(), torch.randn(2, 3, 4, 4), torch.randn(2, 1, 4, 4)
    assert torch.equal(layer(x, noise), x)
    layer.strength.data += 0.3
    torch.testing.assert_close(layer(x, noise), x + 0.3 * noise)


def test_gated_blocks():
    """Doubling by repeating pixels, convolution, noise, norm, and a * sigmoid(b)."""
    torch.manual_seed(0)
    x, noise = torch.randn(2, 3, 4, 5), [torch.randn(2, 1, 8, 10) for _ in range(2)]

    def by_hand(block, x, noise, w):
        h = nn.functional.conv2d(x, block.conv.weight, padding=1) + w * noise
        a, b = block.norm(h).chunk(2, 1)
        return a * torch.sigmoid(b)

    twice, double = NoisyUpBlock(3, 2).eval(), nn.Upsample(scale_factor=2)
    for norm in (twice.first.norm, twice.second.norm):
        norm.running_mean.normal_()
    assert not any(parameter.shape == () and parameter.any() for parameter in twice.parameters())
    twice.first.noise.strength.data.fill_(0.3)
    twice.second.noise.strength.data.fill_(0.7)
    expected = by_hand(twice.second, by_hand(twice.first, double(x), noise[0], 0.3), noise[1], 0.7)
    torch.testing.assert_close(twice(x, noise), expected)
    torch.testing.assert_close(twice(x), twice(x, [0 * n for n in noise]))
    once = GatedBlock(3, 2)
    torch.testing.assert_close(once(x), by_hand(once, double(x), 0, 0))


def test_the_first_layer_is_a_transposed_convolution_with_spectral_norm():
    layer = SpectralUnfold(3, 5, (4, 6)).eval()
    z, w = torch.randn(2, 3), normalised(layer)
    expected = nn.functional.conv_transpose2d(z[:, :, None, None], w.transpose(0, 1))
    torch.testing.assert_close(layer(z), expected)


def test_a_block_of_d_is_a_mean_of_two_paths():
    block, x = DownBlock(3, 5).eval(), torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(block(x), 0.5 * block.main(x) + 0.5 * block.direct(x))


# Networks


@pytest.mark.parametrize(
    ("size", "small_size", "excites", "reach", "blocks", "judges"),
    [
        (32, (16, 16), 1, (3, 2), 2, 1),
        (64, (32, 32), 1, (4, 3), 3, 1),
        (128, (64, 64), 2, (4, 3), 4, 2),
        (256, (128, 128), 3, (4, 3), 5, 3),
        (512, (128, 128), 4, (4, 3), 5, 3),
        (48, (24, 24), 1, (3, 2), 2, 1),
        ((64, 96), (32, 48), 1, (4, 3), 3, 1),
        ((56, 40), (28, 20), 1, (3, 2), 2, 1),
    ],
)
def test_sizes(size, small_size, excites, reach, blocks, judges):
    """The table in the networks' file: excitations and the doublings they pass, D's blocks, the small image."""
    g, d = FastGANGenerator(size, 2, 3, 1).eval(), FastGANDiscriminator(size, 2, 1).eval()
    n, height, width = gated_layout(size)
    noise = [torch.randn(1, 1, *sides) for sides in g.noise]
    image, tiny = g(torch.randn(1, 3), noise)
    assert image.shape == (1, 2, height << n, width << n) and tiny.shape == (1, 2, *small_size)
    assert (len(g.excite), (g.reach, d.reach), len(d.blocks), len(d.excite)) == (excites, reach, blocks, judges)
    logits, made_, seen = d(image, torch.tensor([3]))
    assert logits.shape == d(image, small=tiny).shape == (1, 2, 2 * height - 3, 2 * width - 3) == (1, *d.logits)
    assert made_.shape == seen.shape == (1, 3, 2, *small_size)
    assert len(noise) == 2 * ((n + 1) // 2)


@pytest.mark.parametrize(
    ("size", "nearest"),
    [(16, "32"), (28, "32"), ([32, 36], r"\[32, 40\]"), (2048, "1792"), ([16, 64], r"\[32, 64\]")],
)
def test_other_sizes_are_refused(size, nearest):
    with pytest.raises(ValueError, match=f"doubles the height and width 3 to 8 times, .*; try {nearest}$"):
        ganzoo.FastGAN(size, similarity="pixels")


def test_noise_reaches_the_layers_that_add_it():
    g = fastgan(width=4).generator.eval()
    z, noise = torch.randn(2, 6), [torch.randn(2, 1, *size) for size in g.noise]
    layers = [m for m in g.modules() if isinstance(m, NoiseInjection)]
    heard = []
    for layer in layers:
        layer.register_forward_pre_hook(lambda m, inputs: heard.append(inputs[1]))
    g(z, noise)
    assert len(layers) == 4 and all(map(torch.equal, heard, noise))
    g(z)
    assert len(heard) == 4


def test_low_resolution_maps_excite_large_ones():
    """At 32 pixels those at 4 the last ones, in D the stem's those at 8."""
    gan = fastgan(width=4)
    g, d = gan.generator.eval(), gan.discriminator.eval()
    found = {}
    for name, module in (("g", g.excite[0]), ("d", d.excite[0])):
        module.register_forward_hook(lambda m, inputs, y, name=name: found.update({name: (*inputs, y)}))
    image, _ = g(gan.latent(2))
    d(image)
    assert [[t.shape[2] for t in found[name]] for name in "gd"] == [[4, 32, 32], [32, 8, 8]]
    torch.testing.assert_close(image, torch.tanh(g.out(found["g"][2])))
    logits = d(image)
    torch.testing.assert_close(logits[:, :1], d.head(found["d"][2]))


def test_quadrants():
    x = torch.randn(4, 2, 6, 10)
    top, left = slice(3), slice(5)
    bottom, right = slice(3, 6), slice(5, 10)
    parts = x[0, :, top, left], x[1, :, top, right], x[2, :, bottom, left], x[3, :, bottom, right]
    assert torch.equal(quadrant(x, torch.arange(4)), torch.stack(parts))


def test_reconstructions():
    """From the last maps of both branches, and from a quadrant of the maps at 16 pixels, beside what they should be."""
    torch.manual_seed(0)
    d = FastGANDiscriminator(64, 2, 2).eval()
    x, where, found = torch.rand(3, 2, 64, 64), torch.tensor([2, 0, 1]), {}
    for name in ("decode", "decode_small", "decode_part", "head", "head_small"):
        getattr(d, name).register_forward_hook(lambda m, inputs, y, name=name: found.update({name: (inputs[0], y)}))
    maps = []
    d.blocks[1].register_forward_hook(lambda m, inputs, y: maps.append(y))
    logits, made_, seen = d(x, where)
    assert found["decode"][0] is found["head"][0] and found["decode_small"][0] is found["head_small"][0]
    assert torch.equal(found["decode_part"][0], quadrant(maps[0], where)) and maps[0].shape[2:] == (16, 16)
    names = ("decode", "decode_small", "decode_part")
    torch.testing.assert_close(made_, torch.stack([found[name][1] for name in names], 1))
    half = avg_pool2d(x, 2)
    torch.testing.assert_close(seen, torch.stack([half, half, quadrant(x, where)], 1))
    torch.testing.assert_close(logits, torch.cat([found["head"][1], found["head_small"][1]], 1))
    torch.testing.assert_close(logits, d(x, small=half))
    other = d(x, small=half.flip(3))
    assert torch.equal(other[:, 0], logits[:, 0]) and not torch.equal(other[:, 1], logits[:, 1])


# The variant


def batch_of(gan, n=4, **more):
    channels, size = gan.hparams["channels"], gan.hparams["image_size"]
    image = 2 * torch.rand(n, channels, size, size) - 1
    return {"image": image, **gan.draw(n, torch.Generator().manual_seed(0)), **more}


def test_losses():
    """Hinge with random margins for each logit, and w times the three distances; G's from both of its images."""
    gan = fastgan(reconstruction=3.0).eval()
    for layer in gan.generator.modules():
        if isinstance(layer, NoiseInjection):
            layer.strength.data.fill_(0.5)
    batch = batch_of(gan)
    with torch.no_grad():
        real, made_, seen = gan.discriminator(batch["image"], batch["quadrant"])
        image, tiny = gan.generator(batch["z"], batch["noise"])
        fake = gan.discriminator(image, small=tiny)
        d, g = gan.discriminator_loss(batch), gan.generator_loss(batch)
    margin = batch["soft"]
    assert margin.shape == (4, 2, 2, 5, 5) and real.shape == (4, 2, 5, 5)
    distances = (made_ - seen).square().mean((2, 3, 4)).mean(0)
    expected = {
        "real": (margin[:, 0] - real).clamp(min=0).mean(),
        "fake": (margin[:, 1] + fake).clamp(min=0).mean(),
        "reconstruction": 3 * distances.sum(),
    }
    torch.testing.assert_close(d, expected)
    torch.testing.assert_close(g, {"fake": -fake.mean()})


def test_random_inputs_are_those_of_the_update():
    """Margins in [0.8, 1), all quadrants, standard normal noise; a process's are its part of them."""
    gan = fastgan()
    found = gan.draw(600, torch.Generator().manual_seed(1))
    soft = found["soft"]
    assert 0.8 <= soft.min() < 0.801 and 0.999 < soft.max() < 1
    assert found["quadrant"].bincount().min() > 100 and found["quadrant"].unique().tolist() == [0, 1, 2, 3]
    assert [tuple(noise.shape[1:]) for noise in found["noise"]] == [(1, 8, 8)] * 2 + [(1, 32, 32)] * 2
    assert all(prior(noise[:9]) == "standard normal" for noise in found["noise"][2:])
    again = gan.draw(600, torch.Generator().manual_seed(1))
    assert torch.equal(share(again, 1, 2)["soft"], soft[300:])


class Mirror(Augment):
    """Mirrors every image; later calls also darken it."""

    def transform(self, x, numbers, channels):
        return x.flip(3) * (0.5**self.calls)


def test_decoders_reconstruct_what_d_saw():
    """The augmented reals; G's images are augmented one by one."""
    gan = fastgan(augment=Mirror()).eval()
    batch, seen = {**batch_of(gan), "keys": torch.arange(4)}, []
    gan.discriminator.register_forward_hook(lambda m, args, kwargs, y: seen.append((args, kwargs, y)), with_kwargs=True)
    with gan.augment.shown(gan, batch, "discriminator") as shown, torch.no_grad():
        gan.discriminator_loss(shown)
        image, tiny = gan.make_fakes(batch)
    ((real, where), _, (_, _, wanted)), ((fake,), given, _) = seen
    x = batch["image"].flip(3) * 0.5
    torch.testing.assert_close(real, x)
    torch.testing.assert_close(wanted[:, 0], avg_pool2d(x, 2))
    torch.testing.assert_close(wanted[:, 2], quadrant(x, where))
    torch.testing.assert_close(fake, image.flip(3) * 0.25)
    torch.testing.assert_close(given["small"], tiny.flip(3) * 0.125)


def test_samples_have_no_noise():
    gan = fastgan().eval()
    for layer in gan.generator.modules():
        if isinstance(layer, NoiseInjection):
            layer.strength.data.fill_(1.0)
    z = gan.latent(3)
    images = gan.generate(z)
    assert torch.equal(images, gan.generate(z)) and torch.equal(images, gan.generator(z)[0])
    assert not torch.allclose(images, gan.make_fakes({**batch_of(gan, 3), "z": z})[0])


# LPIPS


def test_lpips_is_that_of_torchmetrics(monkeypatch):
    """On random weights of VGG16; on images of one channel too, and without gradients of the target."""
    from torchmetrics.functional.image import lpips
    from torchvision.models import vgg

    torch.manual_seed(0)
    network = vgg.make_layers(vgg.cfgs["D"])
    monkeypatch.setattr(lpips, "_get_tv_model_features", lambda *_: network)
    known = lpips._LPIPS(net="vgg")
    monkeypatch.setattr("torchvision.models.get_model", lambda *_: nn.ModuleDict({"features": network}))
    monkeypatch.setattr("ganzoo.networks.features.fetch", lambda *_: None)
    monkeypatch.setattr(
        "ganzoo.networks.features.tensors", lambda *_: {f"features.{k}": v for k, v in network.state_dict().items()}
    )
    distance = Perceptual("lpips")
    x, target = 2 * torch.rand(2, 3, 64, 72) - 1, (2 * torch.rand(2, 3, 64, 72) - 1).requires_grad_()
    x.requires_grad_()
    found = distance(x, target)
    torch.testing.assert_close(found, known(x, target).flatten(), rtol=1e-4, atol=1e-6)
    found.sum().backward()
    assert target.grad is None and x.grad.abs().sum() > 0
    grey = x[:, :1].detach()
    other = Perceptual("lpips", 1)
    torch.testing.assert_close(other(grey, -grey), distance(grey.expand(-1, 3, -1, -1), -grey.expand(-1, 3, -1, -1)))
    assert list(distance.state_dict()) == ["features._extra_state"] and not list(distance.parameters())


def test_other_distances():
    x, y = 2 * torch.rand(2, 3, 3, 16, 16) - 1
    torch.testing.assert_close(Perceptual("pixels")(x, y), (x - y).square().mean((1, 2, 3)))
    emoji = Perceptual("emoji")
    assert emoji.features.name == "emoji-training" and not list(emoji.buffers(recurse=False))
    assert torch.equal(emoji(x, x), torch.zeros(3)) and (emoji(x, y) > 0.1).all()
    assert [len(w.flatten()) for w in fitted()] == [64, 128, 256, 512, 512]


def test_missing_weights_are_one_error_before_training(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    gan = fastgan(similarity="lpips")
    with pytest.raises(FileNotFoundError, match=r"vgg16 could not be .*set similarity to emoji or pixels, or connect"):
        fit(gan, steps=1)
    assert gan.images_seen == 0 and not gan.sample(1).isnan().any()


@pytest.mark.parametrize("similarity", ["lpips", "emoji"])
def test_a_network_reads_grey_and_colour_only(similarity):
    words = f"similarity is {similarity}, which compares grey or RGB images, but they have 4 channels: use pixels"
    with pytest.raises(ValueError, match=words):
        fastgan(similarity=similarity, channels=4)
    assert fastgan(similarity="pixels", channels=4).sample(1).shape == (1, 4, 32, 32)


def test_training_with_features_of_emoji():
    """The network is neither trained nor in checkpoints, but its name is."""
    gan = fastgan(similarity="emoji", channels=3)
    trainer = fit(gan, steps=1)
    before = [p.clone() for stage in gan.distance.features.stages for p in stage.parameters()]
    trainer = fit(gan, steps=2)
    after = [p for stage in gan.distance.features.stages for p in stage.parameters()]
    assert all(map(torch.equal, before, after)) and trainer.global_step == 2
    (key,) = [key for key in gan.state_dict() if key.startswith("distance")]
    assert bytes(gan.state_dict()[key].tolist()).startswith(b"emoji-training ")
    owned = {id(p) for group in gan.optimizers()[0].param_groups for p in group["params"]}
    assert not owned & {id(p) for p in after}
