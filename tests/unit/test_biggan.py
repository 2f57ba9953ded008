"""BigGAN: chunks of the latent, truncation, standing statistics, published sizes."""

from __future__ import annotations

from functools import cache, partial
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from scipy import stats
from torch import nn

import ganzoo
from ganzoo.checkpoint.pretrained import save_pretrained
from ganzoo.cli import main
from ganzoo.core.random import mix
from ganzoo.evaluation.comparison import difference
from ganzoo.evaluation.record import Report
from ganzoo.functional.truncation import truncated
from ganzoo.layers.attention import SelfAttention
from ganzoo.layers.residual import DeepDownBlock, DeepUpBlock
from ganzoo.layers.spectral import SpectralConv2d, SpectralEmbedding, SpectralLinear
from ganzoo.networks.biggan import BigGANDeepDiscriminator, BigGANDeepGenerator, BigGANGenerator
from ganzoo.networks.residual import ResidualDiscriminator
from ganzoo.variants.biggan import deep_imagenet128, imagenet128
from tests.paper import optimizers
from tests.unit.test_sngan import size
from tests.variants import small


def biggan(**more):
    torch.manual_seed(0)
    return ganzoo.BigGAN(**{**small("BigGAN"), "image_size": 16, **more})


@cache
def made(make=ganzoo.BigGAN, **arguments):
    with torch.device("meta"):
        return make(**arguments)


def sizes(gan):
    return size(gan.generator), size(gan.discriminator)


PAPER = {
    "Adam": (lambda: optimizers(made(), "kind"), ["FusedAdam"] * 2),
    "learning rates of D and G": (lambda: optimizers(made(), "lr"), [2e-4, 5e-5]),
    "beta1, beta2": (lambda: optimizers(made(), "betas"), [(0.0, 0.999)] * 2),
    "eps": (lambda: optimizers(made(), "eps", "weight_decay"), [1e-8, 1e-8, 0, 0]),
    "two steps of D": (lambda: (made().n_critic, made().n_generator), (2, 1)),
    "z": (lambda: made().z_dim, 120),
    # compare_gan and StudioGAN
    "ImageNet": (lambda: sizes(made(imagenet128)), (70_433_988, 87_982_370)),
    "ImageNet's chunks": (lambda: (made(imagenet128).generator.chunks, made(imagenet128).z_dim), (6, 120)),
    "ImageNet's average": (lambda: 0.5 ** (4096 / made(imagenet128).ema_half_life), pytest.approx(0.9999, abs=1e-8)),
    "its start is delayed": (lambda: made(imagenet128).ema_ramp_up, 0.05),
    "ImageNet's penalties": (
        lambda: [(type(p).__name__, p.weight) for p in made(imagenet128).penalties.values()],
        [("Orthogonal", 1e-4)],
    ),
    # StudioGAN
    "CIFAR-10": (lambda: sizes(made(z_dim=80)), (9_416_196, 2_415_170)),
    "CIFAR-10 without labels": (
        lambda: (size(made(BigGANGenerator)), size(made(ResidualDiscriminator, width=96, wide=True, attention=64))),
        (8_825_092, 2_413_250),
    ),
    # StudioGAN's "legacy" form
    "deep, ImageNet": (lambda: sizes(made(deep_imagenet128)), (50_244_484, 34_590_210)),
    "deep, CIFAR-10": (lambda: sizes(made(z_dim=128, width=128, deep=True)), (7_762_948, 2_908_930)),
}


@pytest.mark.parametrize(("find", "number"), PAPER.values(), ids=PAPER)
def test_numbers_of_the_paper(find, number):
    assert find() == number


@pytest.mark.parametrize("deep", [False, True])
def test_spectral_norm_and_orthogonal_weights(deep):
    """In all layers but G's embedding; rows or columns of each weight are orthonormal."""
    gan = biggan(deep=deep)
    spectral = SpectralConv2d | SpectralLinear | SpectralEmbedding
    for network in (gan.generator, gan.discriminator):
        for m in network.modules():
            if isinstance(m, nn.Conv2d | nn.Linear | nn.Embedding):
                assert isinstance(m, spectral) != (m is getattr(gan.generator, "embed", None))
                w = m.weight.detach().flatten(1)
                short = w @ w.T if len(w) <= w.shape[1] else w.T @ w
                torch.testing.assert_close(short, torch.eye(len(short)), rtol=0, atol=1e-5)


def test_each_block_has_its_chunk_of_the_latent_and_the_shared_embedding():
    gan = biggan(image_size=32, z_dim=8)
    g, z, y = gan.generator.eval(), gan.latent(2), torch.tensor([1, 2])
    given = []
    g.project.register_forward_pre_hook(lambda m, x: given.append(x[0]))
    for block in g.blocks:
        block.norm1.gain.register_forward_pre_hook(lambda m, x: given.append(x[0]))
        block.norm2.shift.register_forward_pre_hook(lambda m, x: given.append(x[0]))
    g(z, y)
    e = g.embed(y)
    conditions = [torch.cat([z[:, 2 * i : 2 * i + 2], e], 1) for i in (1, 2, 3) for _ in range(2)]
    assert all(map(torch.equal, given, [z[:, :2], *conditions])) and len(given) == 7


def test_blocks_of_the_deep_generator_have_the_whole_latent_and_the_embedding():
    g = BigGANDeepGenerator(16, 1, 5, 4, 3, 7).eval()
    z, y, given = torch.randn(2, 5), torch.tensor([1, 2]), []
    g.project.register_forward_pre_hook(lambda m, x: given.append(x[0]))
    for block in g.blocks:
        for norm in block.norms:
            norm.shift.register_forward_pre_hook(lambda m, x: given.append(x[0]))
    g(z, y)
    assert len(given) == 1 + 4 * 4 and all(torch.equal(c, torch.cat([z, g.embed(y)], 1)) for c in given)


@pytest.mark.parametrize("deep", [False, True])
def test_losses_are_those_of_the_hinge_with_labels(deep):
    gan = biggan(deep=deep).eval()
    gan.discriminator.score.u.mul_(1000)  # smaller scores, within the margins
    gan.discriminator.table.u.mul_(1000)
    x, z, y = torch.rand(4, 1, 16, 16) * 2 - 1, gan.latent(4), torch.tensor([2, 0, 2, 1])
    with torch.no_grad():
        fakes = gan.generator(z, y)
        real, fake = gan.discriminator(x, y), gan.discriminator(fakes, y)
        d = gan.discriminator_loss({"image": x, "label": y, "z": z})
        g = gan.generator_loss({"label": y, "z": z})
        h = gan.discriminator.features(fakes)
        torch.testing.assert_close(
            fake, gan.discriminator.score(h)[:, 0] + (h * gan.discriminator.table(y)).sum(1), rtol=1e-4, atol=1e-5
        )
    assert 0 < d["real"] != d["fake"]
    torch.testing.assert_close(d["real"], (1 - real).clamp(min=0).mean())
    torch.testing.assert_close(d["fake"], (1 + fake).clamp(min=0).mean())
    torch.testing.assert_close(g["fake"], -fake.mean())


@pytest.mark.parametrize("bound", [0.04, 0.5, 2.0])
def test_truncated_latents_have_the_distribution_of_those_drawn_again(bound):
    z = truncated(torch.randn(20_000, generator=torch.Generator().manual_seed(0)), bound)
    assert z.dtype == torch.float32 and z.abs().max() <= bound
    assert stats.kstest(z.numpy(), stats.truncnorm(-bound, bound).cdf).pvalue > 0.01
    torch.testing.assert_close(truncated(-z, bound), -truncated(z, bound))
    torch.testing.assert_close(truncated(z, 1e6), z)


def test_truncation_at_sampling():
    gan = biggan()
    z = gan.seeded([3, 4])
    for bound in (0.5, 2.0):
        images = gan.sample(seeds=[3, 4], label=1, truncation=bound)
        given = {"label": torch.tensor([1, 1])}
        assert torch.equal(images, gan.generate(truncated(z, bound), given))
        assert not torch.equal(images, gan.sample(seeds=[3, 4], label=1))
    with pytest.raises(ValueError, match="truncation is 0; it takes a number above 0"):
        gan.sample(2, truncation=0)
    with pytest.raises(ValueError, match="truncation: DCGAN has none; leave it out"):
        ganzoo.DCGAN(**small("DCGAN")).sample(2, truncation=0.5)


def test_truncation_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    gan = biggan()
    save_pretrained(gan, Path("big"))
    save_pretrained(ganzoo.DCGAN(**small("DCGAN")), Path("dcgan"))
    assert main(["sample", "big", "-n", "2", "--class", "1", "--truncation", "0.5", "--format", "npy"]) == 0
    expected = gan.sample(seeds=[0, 1], label=1, truncation=0.5, output_type="np")
    assert np.array_equal(np.load("samples/samples.npy"), expected)
    standing = "--truncation 0.5 --standing_statistics 2 --format npy"
    assert main(f"sample big -n 2 --class 1 {standing}".split()) == 0
    gan.take_standing_statistics(2, truncation=0.5)
    again = gan.sample(seeds=[0, 1], label=1, truncation=0.5, output_type="np")
    assert np.array_equal(np.load("samples/samples.npy"), again) and not np.array_equal(again, expected)
    save_pretrained(ganzoo.GAN(**small("GAN")), Path("gan"))
    np.save("reals.npy", np.zeros((2, 16, 16, 1), np.uint8))
    capsys.readouterr()
    for command, words in {
        "sample dcgan --truncation 0.5": "truncation: DCGAN has none; leave it out",
        "evaluate dcgan reals.npy --truncation 0.5": "truncation: DCGAN has none; leave it out",
        "sample big --truncation 0": "--truncation is 0; it takes a number above 0",
        "sample gan --standing_statistics 2": "standing_statistics: GAN's generator has no batch norm; leave it out",
        "evaluate gan reals.npy --extractor digits --standing_statistics 2": "generator has no batch norm; leave it",
        "evaluate big reals.npy --standing_statistics 0": "--standing_statistics is 0; it takes a whole number from 1",
        "evaluate big reals.npy --metrics ppl --truncation 1": "ppl is defined without truncation; leave one of them",
    }.items():
        assert main(command.split()) == 2
        assert words in capsys.readouterr().err


def test_evaluation_of_truncated_latents_and_standing_statistics(tmp_path, monkeypatch, capsys):
    """The record's score is that of the images, and its protocol names both settings."""
    monkeypatch.chdir(tmp_path)
    gan = biggan()
    save_pretrained(gan, Path("big"))
    np.save("reals.npy", np.random.default_rng(0).integers(0, 256, (64, 16, 16, 1), np.uint8))
    evaluate = "evaluate big reals.npy --metrics fid --extractor digits -n 64"
    assert main(f"{evaluate} --json plain.json".split()) == 0
    assert main(f"{evaluate} --truncation 0.5 --standing_statistics 2 --json both.json".split()) == 0
    said = capsys.readouterr().out
    assert "64 fakes of BigGAN, seed 0, truncation 0.5, standing statistics of 2 passes: raw weights of big" in said
    assert "(raw weights, seed 0), truncation 0.5, standing statistics of 2 passes against 64 images of reals" in said
    plain, both = (Report.load(Path(file)).scores[0] for file in ("plain.json", "both.json"))
    assert difference(plain.protocol, both.protocol) == {"truncation": (None, 0.5), "standing_statistics": (None, 2)}

    gan.take_standing_statistics(2, truncation=0.5)
    z = truncated(gan.latent(64, torch.Generator().manual_seed(mix(0, 0, 0))), 0.5)
    images = gan.generate(z, {"label": torch.tensor([mix(0, i, 1) % 3 for i in range(64)])})
    assert both.value == ganzoo.evaluate(images, "reals.npy", ["fid"], extractor="digits").scores[0].value
    assert both.value == ganzoo.evaluate(
        biggan(), "reals.npy", ["fid"], n=64, extractor="digits", truncation=0.5, standing_statistics=2
    ).scores[0].value  # fmt: skip
    for setting in ({"truncation": 0.5}, {"standing_statistics": 2}):
        with pytest.raises(ValueError, match=f"{next(iter(setting))} is for models; leave it out for given images"):
            ganzoo.evaluate(images, "reals.npy", **setting)
    with pytest.raises(ValueError, match="truncation is 0; it takes a number above 0"):
        ganzoo.evaluate(gan, "reals.npy", truncation=0)


def test_a_refused_evaluation_leaves_the_statistics_as_they_are():
    gan, reals = biggan(), torch.zeros(8, 1, 8, 8, dtype=torch.uint8)
    before = {name: value.clone() for name, value in gan.state_dict().items()}
    with pytest.raises(ValueError, match="no metric 'fdi'"):
        ganzoo.evaluate(gan, reals, ["fdi"], n=64, extractor="digits", standing_statistics=2)
    assert all(torch.equal(value, before[name]) for name, value in gan.state_dict().items())


def test_standing_statistics_leave_out_labels_without_training_images(monkeypatch):
    gan, shown = biggan(), set()
    gan.absent = [1]
    monkeypatch.setattr(
        gan, "synthesize", lambda net, batch: shown.update(batch["label"].tolist()) or net(batch["z"], batch["label"])
    )
    gan.take_standing_statistics(1, batch_size=20)
    assert shown == {0, 2}


def test_standing_statistics_of_translators_and_of_no_passes_are_refused():
    with pytest.raises(ValueError, match="Pix2Pix translates pictures, and its images need sources; leave it out"):
        ganzoo.Pix2Pix(**small("Pix2Pix")).take_standing_statistics()
    with pytest.raises(ValueError, match="passes is 0; it takes a whole number from 1"):
        biggan().take_standing_statistics(0)


@pytest.mark.parametrize("truncation", [None, 0.5])
def test_standing_statistics_are_means_over_batches(truncation):
    """Of the first norm, whose input depends on no other norm; only norms of the sampling network change."""
    gan = biggan(ema_half_life=10.0)
    gan.configure_model()
    network = gan.ema
    before = {key: value.clone() for key, value in gan.state_dict().items()}
    seen = []
    first = network.blocks[0].norm1.norm
    hook = first.register_forward_pre_hook(lambda m, x: seen.append(x[0]))
    gan.take_standing_statistics(passes=3, batch_size=5, truncation=truncation)
    hook.remove()
    assert len(seen) == 3 and not torch.equal(seen[0], seen[1])
    means = torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0)
    variances = torch.stack([x.var((0, 2, 3)) for x in seen]).mean(0)
    torch.testing.assert_close(first.running_mean, means)
    torch.testing.assert_close(first.running_var, variances)
    changed = {key for key, value in gan.state_dict().items() if not torch.equal(value, before[key])}
    assert changed and all(key.startswith("ema.") and "running" in key or "tracked" in key for key in changed)
    assert first.momentum == 0.1 and not first.training
    widest = np.abs(gan.latent(50).numpy()).max()
    assert widest > 1  # latents themselves are not truncated


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"z_dim": 7}, "z_dim is 7: BigGAN splits the latent into 3 equal chunks, .* 2 blocks; try 6"),
        ({"z_dim": 1}, "z_dim is 1: .*; try 3"),
        ({"attention": 5}, "attention is 5, but D's feature maps have 8 pixels or more: use 8"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(bad, words):
    make = partial(biggan, **bad)
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("deep", [False, True])
def test_attention_is_applied_at_its_size(deep):
    """In deep networks after the block that doubles to it, and after the two blocks that halve to it."""
    gan = biggan(deep=deep, image_size=64, attention=32, z_dim=10)
    seen = {"generator": [], "discriminator": []}
    for player, names in seen.items():
        for module in getattr(gan, player).modules():
            if isinstance(module, SelfAttention | DeepUpBlock | DeepDownBlock):
                module.register_forward_hook(
                    lambda m, x, y, names=names: names.append((type(m).__name__, x[0].shape[2], y.shape[2]))
                )
    y = torch.tensor([0, 1])
    gan.discriminator(gan.generator(gan.latent(2), y), y)
    for player, names in seen.items():
        assert [found for found in names if found[0] == "SelfAttention"] == [("SelfAttention", 32, 32)]
        if deep:
            block = {"generator": ("DeepUpBlock", 16, 32), "discriminator": ("DeepDownBlock", 32, 32)}[player]
            assert names[names.index(("SelfAttention", 32, 32)) - 1] == block


def test_outputs_of_the_generators():
    for make in (BigGANGenerator, BigGANDeepGenerator):
        with torch.device("meta"):
            found = [type(m).__name__ for m in make(16, 1, z_dim=6).out]
        assert found == ["BatchNorm2d", "ReLU", "SpectralConv2d", "Tanh"]


def test_the_deep_discriminator_sums_positive_features_of_8_pixels():
    torch.manual_seed(0)
    d, x = BigGANDeepDiscriminator(32, 1, 1).eval(), torch.randn(2, 1, 32, 32)
    h = d.blocks(x)
    assert h.shape[2:] == (8, 8)
    torch.testing.assert_close(d.features(x), h.clamp(min=0).flatten(2).sum(2))


def test_norms_that_were_synchronised_have_standing_statistics():
    """Lightning's plugin leaves a class of its own."""
    sync = TorchSyncBatchNorm()
    model = sync.revert(sync.apply(ganzoo.DCGAN(image_size=8, channels=1, width=4)))
    model.take_standing_statistics(passes=1, batch_size=4)
    means = [buffer for name, buffer in model.generator.named_buffers() if name.endswith("running_mean")]
    assert means and all(mean.isfinite().all() and mean.any() for mean in means)


def test_standing_statistics_are_by_default_of_16_batches_of_256():
    given = signature(ganzoo.BigGAN.take_standing_statistics).parameters
    assert (given["passes"].default, given["batch_size"].default) == (16, 256)
