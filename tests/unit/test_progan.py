"""ProGAN: the paper's numbers, growth as a function of images, fades by their definitions, and what training moves."""

from __future__ import annotations

import functools
from functools import cache

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.nn.functional import conv2d, leaky_relu

import ganzoo
from ganzoo.functional.schedules import growth
from ganzoo.layers.equalised import EqualisedConv2d, EqualisedLinear
from ganzoo.layers.minibatch import MinibatchStdDev
from ganzoo.layers.pixelnorm import PixelNorm
from ganzoo.networks.progan import ProGANDiscriminator, ProGANGenerator
from ganzoo.testing import BATCH, NoiseImages, fit
from ganzoo.variants.progan import celebahq, cifar10
from tests.paper import begins, optimizers, prior, spread
from tests.variants import small

LAYERS = EqualisedConv2d | EqualisedLinear


def progan(**more):
    torch.manual_seed(0)
    return ganzoo.ProGAN(**{**small("ProGAN"), **more})


@cache
def made(make=celebahq):
    with torch.device("meta"):
        return make()


def last_stage(network):
    """Parameters of each layer that the last stage uses; D's from the image on, G's from z on."""
    images = network.images if isinstance(network, ProGANGenerator) else [s["image"] for s in network.stages][::-1]
    found = [m for m in network.modules() if isinstance(m, LAYERS) and all(m is not other for other in images[:-1])]
    return [sum(p.numel() for p in m.parameters()) for m in found]


def table2(network):
    """The column "Params"."""
    return " ".join(text(n) for n in last_stage(network))


def text(n):
    if n < 1000:
        return str(n)
    return f"{n / 1e3:.1f}k" if n < 9950 else f"{n / 1e3:.0f}k" if n < 999_500 else f"{n / 1e6:.1f}M"


G = "4.2M 2.4M 2.4M 2.4M 2.4M 2.4M 2.4M 2.4M 1.2M 590k 295k 148k 74k 37k 18k 9.2k 4.6k 2.3k 51"
D = "64 2.3k 4.6k 9.2k 18k 37k 74k 148k 295k 590k 1.2M 2.4M 2.4M 2.4M 2.4M 2.4M 2.4M 2.4M 4.2M 513"
PAPER = {
    "Adam, appendix A": (lambda: optimizers(made(), "kind"), ["FusedAdam"] * 2),
    "alpha, appendix A": (lambda: optimizers(made(), "lr"), [1e-3, 1e-3]),
    "betas, appendix A": (lambda: optimizers(made(), "betas"), [(0.0, 0.99)] * 2),
    "epsilon, appendix A": (lambda: optimizers(made(), "eps", "weight_decay"), [1e-8, 1e-8, 0, 0]),
    "n_critic, appendix A": (lambda: (made().n_critic, made().n_generator), (1, 1)),
    "no decay of the learning rate, appendix A": (lambda: made().lr_scheduler, None),
    "average of G, appendix A": (
        lambda: (0.5 ** (16 / made().ema_half_life), made().ema_ramp_up),
        (pytest.approx(0.999, abs=1e-7), None),
    ),
    "images of a phase, appendix A": (lambda: (made().stable, made().fade), (800_000, 800_000)),
    "WGAN-GP, appendix A": (lambda: (made().penalty, made().norm), (10.0, 1.0)),
    "drift, appendix A": (lambda: made().drift, 0.001),
    "z, appendix A": (lambda: (made().z_dim, prior(progan(z_dim=512).latent(1000))), (512, "standard normal")),
    "table 2, G": (lambda: table2(made().generator), G),
    "table 2, D": (lambda: table2(made().discriminator), D),
    "table 2, sums in millions": (
        lambda: [round(sum(last_stage(n)) / 1e6, 1) for n in (made().generator, made().discriminator)],
        [23.1, 23.1],
    ),
    "sizes, table 2": (lambda: (made().hparams["image_size"], made().doublings), (1024, 8)),
    "weights N(0, 1), biases 0, section 4.1": (
        lambda: spread(progan(width=32).generator, LAYERS),
        begins(0.0, 1.0),
    ),
    "one group, section 3": (lambda: groups(made()), [None]),
    "CIFAR-10, section 6.5": (lambda: (made(cifar10).norm, made(cifar10).hparams["image_size"]), (750.0, 32)),
    "CIFAR-10, latents, authors' code": (lambda: made(cifar10).z_dim, 128),
    "CIFAR-10, feature maps of all layers, authors' code": (
        lambda: {conv.weight.shape[0] for conv in made(cifar10).generator.stages.modules() if isinstance(conv, LAYERS)},
        {128},
    ),
    "CIFAR-10, images of a phase, authors' code": (lambda: (made(cifar10).stable, made(cifar10).fade), (4e5, 4e5)),
}


@pytest.mark.parametrize(("find", "number"), PAPER.values(), ids=PAPER)
def test_numbers_of_the_paper(find, number):
    assert find() == number


def groups(gan):
    return [m.group for m in gan.modules() if isinstance(m, MinibatchStdDev)]


def test_images_may_be_compared_in_groups_or_not_at_all():
    x = torch.rand(4, 1, 8, 8)
    alone, pairs = progan(group=1), progan(group=2)
    assert groups(alone) == [] and groups(pairs) == [2]
    torch.testing.assert_close(alone.discriminator(x)[:1], alone.discriminator(x[:1]))
    torch.testing.assert_close(pairs.discriminator(x)[::2], pairs.discriminator(x[::2]))


def test_more_microbatches_than_images_are_refused():
    gan = progan(microbatches=16)
    with pytest.raises(MisconfigurationException, match="microbatches: 16 does not divide the 8 images"):
        fit(gan, steps=1)


def test_groups_of_one_image_are_warned_of(monkeypatch):
    """Those of a microbatch: D's layer is then constant."""
    said = []
    monkeypatch.setattr("ganzoo.core.batch.rank_zero_warn", said.append)
    for n, microbatches, group, warned in (
        *[(7, 1, 4, True), (14, 2, 4, True), (14, 1, 4, False), (7, 1, 8, False)],
        *[(7, 1, None, False), (2, 2, None, True), (7, 1, 1, False)],
    ):
        model = progan(group=group, microbatches=microbatches)
        fit(model, NoiseImages(model, n), steps=2)
        text = f"D compares no images, since no number from 2 to 4 divides the {n // microbatches} of a process and "
        assert said == [text + "microbatch; use a multiple of 4"] * warned
        said.clear()


# Growth


@pytest.mark.parametrize(
    ("images", "stage", "alpha"),
    [
        *[(0, 0, 1.0), (9, 0, 1.0), (10, 1, 0.0), (11, 1, 0.05), (29, 1, 0.95), (30, 1, 1.0), (39, 1, 1.0)],
        *[(40, 2, 0.0), (50, 2, 0.5), (60, 2, 1.0), (70, 2, 1.0), (10**12, 2, 1.0)],
    ],
)
def test_growth_by_images(images, stage, alpha):
    found = growth(images, 2, stable=10, fade=20)
    assert found == (stage, pytest.approx(alpha))
    assert growth(1000 * images, 2, stable=10_000.0, fade=20_000.0) == found


def test_phases_may_be_empty():
    assert [growth(i, 2, stable=0, fade=4) for i in (0, 3, 4, 7, 8)] == [(1, 0), (1, 0.75), (2, 0), (2, 0.75), (2, 1)]
    assert [growth(i, 2, stable=3, fade=0) for i in (0, 2, 3, 5, 6)] == [(0, 1), (0, 1), (1, 1), (1, 1), (2, 1)]
    assert growth(0, 2, stable=0, fade=0) == (2, 1.0)


def grown(network, x, stage, alpha=None):
    with torch.no_grad():
        return network(x, stage, alpha)


def repeated(x, k):
    return x.repeat_interleave(k, 2).repeat_interleave(k, 3)


def means(x, k):
    n, c, h, w = x.shape
    return x.reshape(n, c, h // k, k, w // k, k).mean((3, 5))


def networks(image_size=(16, 24), **more):
    torch.manual_seed(0)
    arguments = {"image_size": list(image_size), "channels": 2, "width": 5, **more}
    return ProGANGenerator(z_dim=3, **arguments), ProGANDiscriminator(**arguments), torch.randn(4, 3)


def test_a_fade_begins_at_the_stage_before_and_ends_at_the_new_one():
    g, d, z = networks()
    x = torch.randn(4, 2, 16, 24)
    for stage in (1, 2):
        for network, given in ((g, z), (d, x)):
            before, after = grown(network, given, stage - 1), grown(network, given, stage)
            assert not torch.allclose(before, after, atol=1e-3)
            torch.testing.assert_close(grown(network, given, stage, 0.0), before)
            torch.testing.assert_close(grown(network, given, stage, 1.0), after)
            torch.testing.assert_close(grown(network, given, stage, torch.tensor(1.0)), after)
    assert torch.equal(g(z), g(z, 2)) and torch.equal(d(x), d(x, 2))


@pytest.mark.parametrize("alpha", [None, 0.3])
def test_networks_layer_by_layer(alpha):
    """The second of three stages, in which features have 8x12 pixels, by figure 2 and table 2."""
    g, d, z = networks()
    for layer in [m for m in (*g.modules(), *d.modules()) if isinstance(m, LAYERS)]:
        nn.init.normal_(layer.bias)

    def conv(layer, x, active=True):
        scale = (2.0 if active else 1.0) ** 0.5 / layer.weight[0].numel() ** 0.5
        x = conv2d(x, scale * layer.weight, layer.bias, padding=layer.padding)
        return leaky_relu(x, 0.2) if active else x

    def norm(x):
        return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()

    unit = norm(z)
    (first, _, second, _), ((_, third), _, fourth, _), _ = g.stages
    start = torch.einsum("ni,oihw->nohw", unit, first.weight.flip(2, 3)) * (2 / (3 * 4 * 6)) ** 0.5
    x = norm(leaky_relu(start + first.bias[:, None, None], 0.2))
    x = repeated(norm(conv(second, x)), 2)
    old = conv(g.images[0], x, active=False)
    image = conv(g.images[1], norm(conv(fourth, norm(conv(third, x)))), active=False)
    image = image if alpha is None else 0.7 * old + 0.3 * image
    torch.testing.assert_close(g(z, 1, alpha), repeated(image, 2))

    x = torch.randn(4, 2, 16, 24)
    _, new, last = d.stages
    half = means(x, 2)
    h = conv(new["image"], half)
    for layer in list(new["features"])[:2]:
        h = conv(layer, h)
    h = means(h, 2)
    h = h if alpha is None else 0.7 * conv(last["image"], means(half, 2)) + 0.3 * h
    deviation = (h.var(0, correction=0) + 1e-8).sqrt().mean()  # over the whole batch
    h = torch.cat([h, deviation.expand(4, 1, 4, 6)], 1)
    _, fifth, sixth = last["features"]
    h = conv(sixth, conv(fifth, h)).flatten(1)
    torch.testing.assert_close(d(x, 1, alpha), (h @ d.out.weight.T / h.shape[1] ** 0.5 + d.out.bias)[:, 0])


def test_pixel_norm_in_half_precision():
    x = 300 * torch.randn(2, 8, 3, 3)
    half = PixelNorm()(x.half())  # squares overflow
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), PixelNorm()(x), rtol=2e-3, atol=2e-3)
    assert PixelNorm()(torch.full((1, 1, 1, 1), 1e-4)).item() == pytest.approx(0.5**0.5)


@pytest.mark.parametrize("alpha", [None, torch.tensor(0.3)])
def test_half_precision_is_close(alpha):
    g, d, z = networks(width=16)
    x = torch.randn(4, 2, 16, 24)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        image, score = g(z, 1, alpha), d(x, 1, alpha)
    assert image.dtype == score.dtype == torch.float32
    torch.testing.assert_close(image, grown(g, z, 1, alpha), rtol=0.1, atol=0.1)
    torch.testing.assert_close(score, grown(d, x, 1, alpha), rtol=0.1, atol=0.1)


@pytest.mark.parametrize("images", [5, 28, 39, 60])
def test_losses_by_the_networks_outputs(images):
    """In a stage and in a fade. The penalty is that of the gradient at an image in its own size."""
    gan = progan(image_size=16, penalty=3.0, norm=0.7, drift=0.2, stable=16.0, fade=20.0).eval()
    gan.images_seen = images
    stage, alpha = growth(images, 2, 16, 20)
    fading, k = alpha < 1, 4 // 2**stage
    g, d = gan.generator, lambda x: gan.discriminator(repeated(x, k), stage, alpha if fading else None)
    batch = {"image": 2 * torch.rand(6, 1, 16, 16) - 1, **gan.draw(6, torch.Generator().manual_seed(1))}
    x, u = means(batch["image"], k), batch["u"][:, None, None, None]
    x = (1 - alpha) * repeated(means(x, 2), 2) + alpha * x if fading else x
    torch.testing.assert_close(gan.reals(batch), repeated(x, k))
    fakes = g(batch["z"], stage, alpha if fading else None)
    assert torch.equal(gan.fakes(batch), fakes) and torch.equal(fakes, repeated(fakes[:, :, ::k, ::k], k))
    fake = fakes[:, :, ::k, ::k].detach()
    between = (u * x + (1 - u) * fake).requires_grad_()
    (gradient,) = torch.autograd.grad(d(between).sum(), between)
    lengths = gradient.flatten(1).norm(dim=1)
    expected = {"real": -d(x).mean(), "fake": d(fake).mean(), "drift": 0.2 * d(x).square().mean()}
    expected["penalty"] = 3 * (lengths - 0.7).square().mean() / 0.7**2
    torch.testing.assert_close(
        gan.discriminator_loss(batch), {key: expected[key] for key in gan.discriminator_loss(batch)}
    )
    torch.testing.assert_close(gan.generator_loss(batch), {"fake": -d(fake).mean()})


# Training


def trained(steps, **more):
    """A model and its start: 16 images of stage 0, fades of 16 images, and 8 more of each other stage."""
    model, start = (progan(image_size=16, stable=16.0, fade=16.0, ema_half_life=8.0, **more) for _ in range(2))
    return model, start, fit(model, steps=steps)


def moved(model, start):
    """The layers that training has moved, by their stage, from the smallest size, and whether they are of the image."""
    found = set()
    for name, p in model.named_parameters():
        if name.startswith("ema") or torch.equal(p, start.get_parameter(name)) or p.ndim == 1:
            continue
        player, _, i, *rest = name.split(".")
        if player == "generator":
            found.add(("G", "image" if "images" in name else "features", int(i)))
        elif "stages" in name:
            found.add(("D", rest[0], 2 - int(i)))
    return found


def every(*stages, images):
    return {(p, "features", i) for p in "GD" for i in stages} | {(p, "image", i) for p in "GD" for i in images}


def test_layers_move_once_they_are_part_of_a_stage():
    for steps, expected in (
        (2, every(0, images=[0])),
        (4, every(0, 1, images=[0, 1])),
        (12, every(0, 1, 2, images=[0, 1, 2])),
    ):
        model, start, trainer = trained(steps)
        assert moved(model, start) == expected
        ages = {int(state["step"]) for state in trainer.optimizers[1].state.values()}
        assert max(ages) == steps and min(ages) >= 1  # Adam counts the steps of each layer
        rest = [name for name, p in model.generator.named_parameters() if p not in trainer.optimizers[1].state]
        assert all(torch.equal(model.ema.get_parameter(name), start.generator.get_parameter(name)) for name in rest)


def test_images_of_old_stages_rest_after_their_fade():
    class Look(ganzoo.ProGAN):
        def play(self, batch):
            super().play(batch)
            seen.append((self.images_seen, self.stage, float(self.alpha), self.generator.images[0].weight.clone()))

    seen = []
    torch.manual_seed(0)
    fit(Look(**{**small("ProGAN"), "stable": 16.0, "fade": 16.0}), steps=7)
    assert [(stage, alpha) for _, stage, alpha, _ in seen] == [growth(n, 1, 16.0, 16.0) for n, *_ in seen]
    changes = [not torch.equal(a[3], b[3]) for a, b in zip(seen, seen[1:], strict=False)]
    assert changes == [True, True, True, False, False, False]  # images 8, 16 and 24; the fade ends at 32


def test_samples_are_of_the_images_seen(tmp_path):
    """Also those of a model that is loaded in a fade, and while its networks train."""
    model, _, trainer = trained(4)
    assert model.images_seen == 4 * BATCH and growth(32, 2, 16.0, 16.0) == (1, 1.0)
    model.images_seen = 28
    z = model.seeded([3, 4])
    with torch.no_grad():
        expected = model.ema(z, 1, 0.75)
        torch.testing.assert_close(model.sample(seeds=[3, 4]), expected.clamp(-1, 1), rtol=0, atol=1e-6)
        assert not torch.allclose(expected, model.ema(z, 1), atol=1e-4)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = ganzoo.load(tmp_path / "a.ckpt")
    assert loaded.images_seen == 28 and torch.equal(loaded.sample(seeds=[3]), model.sample(seeds=[3]))
    x = torch.rand(2, 1, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(loaded.discriminate(x), model.discriminator(x, 1, 0.75))


def test_runs_of_the_contract_resume_in_a_fade():
    """`check_resume` resumes at batches 2, 3, 4 and 5."""
    arguments = small("ProGAN")
    alphas = [growth(BATCH * step, 1, arguments["stable"], arguments["fade"]) for step in range(7)]
    assert alphas == [(0, 1), (0, 1), (1, 0), (1, pytest.approx(1 / 3)), (1, pytest.approx(2 / 3)), (1, 1), (1, 1)]


def test_a_training_that_ends_before_the_last_stage_says_so(monkeypatch, tmp_path):
    said = []
    monkeypatch.setattr("ganzoo.variants.progan.rank_zero_warn", said.append)

    def text(steps, **more):
        said.clear()
        trainer = fit(progan(image_size=16, stable=16.0, fade=24.0), steps=steps, **more)
        trainer.save_checkpoint(tmp_path / f"{steps}.ckpt")
        return " ".join(said).partition(", before the last stage is complete: lower model.stable and model.fade")[0]

    assert text(2) == "the run ends in stage 1 of 3" and text(3) == "the run ends in the fade of stage 2 of 3"
    assert text(11) == "" == text(-1, max_epochs=1, limit_train_batches=1)
    assert text(10, ckpt_path=tmp_path / "3.ckpt") == "the run ends in the fade of stage 3 of 3"  # 72 images before
    assert text(11, ckpt_path=tmp_path / "10.ckpt") == ""


@pytest.mark.slow
def test_compiled_losses_follow_the_growth(monkeypatch):
    """With one graph for each phase: an equation without a limit of graphs would be eager in later ones."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager", fullgraph=True))
    eager, compiled = (progan(stable=8.0, fade=16.0, compile_losses=flag) for flag in (False, True))
    with torch._dynamo.config.patch(recompile_limit=1):
        for model in (eager, compiled):
            fit(model, steps=4)
    torch.testing.assert_close(compiled.state_dict(), eager.state_dict(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"image_size": 4}, "image_size 4: ProGAN doubles .*; try 8"),
        ({"image_size": 18}, "image_size 18: ProGAN doubles the height and width, from .* 4 to 7 pixels up; try 20"),
        ({"image_size": [8, 15]}, r"image_size \[8, 15\]: .*; try \[8, 14\]"),
        ({"maps": 7}, "maps is 7, but feature maps of 8 pixels have maps / 8 channels"),
        ({"stable": -1.0}, "stable is -1.0; it takes a number from 0 up"),
        ({"fade": -1.0}, "fade is -1.0; it takes a number from 0 up"),
        ({"norm": 0.0}, "norm is 0.0; it takes a number above 0"),
        ({"group": 0}, "group is 0; it takes a whole number from 1 up"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(bad, words):
    with pytest.raises(ValueError, match=words):
        progan(**bad)
