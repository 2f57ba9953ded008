"""R3GAN: the official networks' outputs, published sizes, the losses, halves of a batch, the burn-in."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.nn.functional import softplus

import ganzoo
from ganzoo.augment import ADA, DiffAugment
from ganzoo.checkpoint.layouts import r3gan_key
from ganzoo.cli import main
from ganzoo.functional.losses import log_fake, log_real, relativistic
from ganzoo.functional.penalties import scores_and_squared_gradients, squared_gradients
from ganzoo.functional.schedules import cosine
from ganzoo.layers.resnext import ResNeXtBlock
from ganzoo.networks.r3gan import R3GANDiscriminator, R3GANGenerator, stage_widths
from ganzoo.penalties import R1
from ganzoo.testing import BATCH, NoiseImages, fit
from ganzoo.variants.r3gan import cifar10, ffhq64, ffhq256, imagenet32, imagenet64
from tests.paper import layers, optimizers, prior
from tests.unit.test_sngan import size
from tests.variants import small

GOLDEN = Path(__file__).parents[1] / "data" / "r3gan.npz"


def r3gan(**more):
    torch.manual_seed(0)
    return ganzoo.R3GAN(**{**small("R3GAN"), **more})


@cache
def made(make=ganzoo.R3GAN, **arguments):
    with torch.device("meta"):
        return make(**arguments)


def sizes(gan):
    """Millions of parameters of G and D, with the digits of the table."""
    return tuple(round(size(network) / 1e6, 3) for network in (gan.generator, gan.discriminator))


def burn_in(gan):
    """First and last values: gamma, share of the rate, beta2, half-life, p; and images. All twice the paper's."""
    p, half_life = gan.augment.strength, gan.final_half_life / 2
    assert p.ramp == gan.burn_in and p.first == 0 and p.target is None
    return gan.gammas, half_life, p.last, gan.burn_in / 2


def ends(low, high):
    return pytest.approx((low, high))


PAPER = {
    "Adam": (lambda: optimizers(made(), "kind", "lr", "eps"), [*["FusedAdam"] * 2, 2e-4, 2e-4, 1e-8, 1e-8]),
    "betas at the start and beta2 at the end": (
        lambda: (optimizers(made(), "betas"), made().final_beta2),
        ([(0.0, 0.9)] * 2, 0.99),
    ),
    "learning rate at the end": (lambda: 2e-4 * made().lr_share, pytest.approx(5e-5)),
    "z": (lambda: (made().z_dim, prior(r3gan().latent(2000))), (64, "standard normal")),
    "gamma, half-life, p, images of CIFAR-10": (lambda: burn_in(made(cifar10)), (ends(0.05, 0.005), 5e6, 0.55, 2e7)),
    "of FFHQ-64": (lambda: burn_in(made(ffhq64)), (ends(2, 0.2), 5e5, 0.3, 2e7)),
    "of FFHQ-256": (lambda: burn_in(made(ffhq256)), (ends(150, 15), 5e5, 0.3, 2e7)),
    "of ImageNet-32": (lambda: burn_in(made(imagenet32)), (ends(0.5, 0.05), 5e7, 0.5, 2e8)),
    "of ImageNet-64": (lambda: burn_in(made(imagenet64)), (ends(1, 0.1), 5e7, 0.4, 2e8)),
    "the default is CIFAR-10's": (
        lambda: (made().gammas, made().burn_in / 2, made().final_half_life / 2),
        (ends(0.05, 0.005), 2e7, 5e6),
    ),
    "colours and cutout": (
        lambda: {(m.augment.color, m.augment.cutout, m.augment.pixel, m.augment.geometry) for m in presets()},
        {(0.5, 1.0, 1.0, 1.0)},
    ),
    "no filter, no noise": (lambda: {(m.augment.filter, m.augment.noise) for m in presets()}, {(0.0, 0.0)}),
    "groups": (lambda: [groups(m) for m in presets()], [{16}, {16}, {16}, {32}, {32}]),
    # parameters: the authors' code
    "CIFAR-10": (lambda: sizes(made(cifar10)), (20.782, 21.281)),
    "CIFAR-10 without labels": (lambda: sizes(made(cifar10, num_classes=None)), (20.732, 20.684)),
    "FFHQ-64": (lambda: sizes(made(ffhq64)), (22.430, 22.381)),
    "FFHQ-256": (lambda: sizes(made(ffhq256)), (23.058, 23.010)),
    "ImageNet-32": (lambda: sizes(made(imagenet32)), (82.914, 86.549)),
    "ImageNet-64": (lambda: sizes(made(imagenet64)), (103.570, 107.205)),
}


def presets():
    return [made(make) for make in (cifar10, ffhq64, ffhq256, imagenet32, imagenet64)]


def groups(gan):
    """Feature maps of a group."""
    blocks = [m for net in (gan.generator, gan.discriminator) for m in net.modules() if isinstance(m, ResNeXtBlock)]
    return {block.conv2.weight.shape[1] for block in blocks}


@pytest.mark.parametrize(("find", "number"), PAPER.values(), ids=PAPER)
def test_numbers_of_the_paper(find, number):
    assert find() == number


def test_presets_take_other_arguments():
    gan = made(imagenet64, num_classes=20, blocks=1, augment=None)
    assert gan.hparams["num_classes"] == 20 and len(gan.generator.stages[0]) == 2 and gan.augment.strength is None
    assert burn_in(made(cifar10, burn_in=1e6))[2:] == (0.55, 5e5)
    constant = made(cifar10, burn_in=None)
    assert constant.burn_in is None and constant.augment.strength.first == 0.55


# The networks


def take(network, tag, name):
    """Sets the golden file's weights."""
    golden, found = np.load(GOLDEN), {}
    for key in network.state_dict():
        theirs = r3gan_key(key, {})
        value = golden[f"{tag}/{name}/{theirs}"]
        found[key] = torch.from_numpy(value.T if theirs == "EmbeddingLayer.weight" else value)  # of one-hot labels
    network.load_state_dict(found)
    assert len(found) == sum(key.startswith(f"{tag}/{name}/") for key in golden)


@pytest.mark.parametrize(("tag", "classes"), [("uncond", None), ("cond", 5)])
def test_outputs_are_those_of_the_official_networks(tag, classes):
    g = R3GANGenerator(16, 3, 16, (24, 16, 16), 2, 16, classes, 8)
    d = R3GANDiscriminator(16, 3, (16, 16, 24), 2, 16, classes)
    take(g, tag, "G")
    take(d, tag, "D")
    golden = np.load(GOLDEN)
    z, image, d_out, r1 = (torch.from_numpy(golden[f"{tag}/{name}"]) for name in ("z", "image", "d_out", "r1"))
    y = None if classes is None else torch.from_numpy(golden["cond/label"])
    close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        close(g(z, y), image)
    scores, squares = scores_and_squared_gradients(lambda x: d(x, y), image)
    close(scores, d_out)
    close(squares, r1)


def test_initial_weights():
    """Fix-up: N(0, gain / sqrt(fan-in)), with gain sqrt(2 / 1.04) L^(-1/4) within blocks, whose last convolution is 0;
    1 elsewhere."""
    torch.manual_seed(0)
    g, d = R3GANGenerator(32, 3, 64, (96, 96, 48, 48), 2, 16, 7, 80), R3GANDiscriminator(16, 3, (96, 96, 48), 1, 16, 7)
    for network, gain in (g, 0.8246), (d, 1.3868 * 3**-0.25):
        for block in (m for m in network.modules() if isinstance(m, ResNeXtBlock)):
            for conv in (block.conv1, block.conv2):
                fan_in = conv.weight[0].numel()
                assert conv.weight.std().item() * fan_in**0.5 == pytest.approx(gain, rel=0.05)
                assert not conv.bias.any()
            assert not block.conv3.weight.any() and block.conv3.bias is None
    plain = {"start": g.stages[0][0].linear, "change": g.stages[2][0][0], "out": g.out}
    plain |= {"first": d.first, "change of D": d.stages[1][-1][1], "end": d.stages[2][-1].basis}
    for name, layer in {**plain, "linear": d.stages[2][-1].linear}.items():
        fan_in = layer.weight[0].numel()
        assert layer.weight.std().item() * fan_in**0.5 == pytest.approx(1, rel=0.12), name
        assert layer.bias is None
    assert g.stages[0][0].basis.std().item() == pytest.approx(1, rel=0.05)
    assert g.embed.weight.std().item() == pytest.approx(7**-0.5, rel=0.1)
    assert d.table.weight.std().item() == pytest.approx((7 * 48) ** -0.5, rel=0.1)
    block = ["conv 48>96 1/1+0", "conv 96>96 3/1+1", "conv 96>48 1/1+0 no bias"]
    assert layers(g.stages[2]) == ["conv 96>48 1/1+0 no bias", "firup", *block, *block]
    assert layers(d.stages[2])[:-1] == [*block, "conv 48>48 4/1+0 no bias"]
    assert layers(d.stages[1])[3:] == ["firdown", "conv 96>48 1/1+0 no bias"]


def test_images_are_not_bounded():
    g = r3gan().generator
    with torch.no_grad():
        g.out.weight.mul_(100)
        assert g(torch.randn(4, 6), torch.tensor([0, 1, 2, 0])).abs().max() > 5


@pytest.mark.parametrize(
    ("arguments", "widths"),
    [
        ((32, 768, 32, 16), [768] * 4),
        ((256, 768, 32, 16), [*[768] * 4, 384, 192, 96]),
        ((64, 1536, 64, 32), [1536] * 5),
        ((28, 64, 7, None), [64, 32, 16]),
        (([16, 24], 8, 4, 4), [8, 4, 2]),
        ((16, [24, 8, 16], 4, 16), [24, 8, 16]),
    ],
)
def test_widths_of_stages(arguments, widths):
    assert stage_widths(*arguments) == widths


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (
            {"width": 20, "group_size": 16},
            "width is 20: a stage has 20 feature maps, and its blocks 40, in groups of 16;",
        ),
        ({"width": 20, "group_size": 16}, "; try 16$"),
        ({"width": [16]}, r"width is \[16\]; a list has 2 numbers whose doubles divide into groups of 2, one for each"),
        ({"width": [16, 12], "group_size": 16}, "whose doubles divide into groups of 16"),
        ({"width": [16, 0], "group_size": None}, "a list has 2 numbers from 1 up"),
        ({"width": [16, "8"]}, "a list has 2 numbers"),
        ({"width": 1, "group_size": 16}, "; try 8$"),
        (
            {"image_size": 32, "wide_to": 8, "width": 40, "group_size": 16},
            "has 10 feature maps, and its .* 20, .*try 32",
        ),
        (
            {"image_size": 32, "wide_to": 8, "width": 10, "group_size": None},
            "width is 10: it cannot be halved 2 times; try 8",
        ),
        ({"share_fakes": True}, "share_fakes: R3GAN trains the players on different halves of a batch; leave it out"),
        ({"consensus": 0.1}, "consensus updates both players at once and cannot be combined with R3GAN.play"),
        ({"difference": 1e-9}, "difference is 1e-09; it takes a number from 0.0001 to 1"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(bad, words):
    with pytest.raises(ValueError, match=words):
        r3gan(**bad)


# The losses


def test_the_relativistic_loss_is_minus_log_sigmoid_of_the_difference_in_each_pair():
    a, b = torch.tensor([3.0, -1e4, 0.5]), torch.tensor([1.0, 1e4, 0.5])
    expected = (-torch.sigmoid(torch.tensor(2.0)).log() + 2e4 + np.log(2)) / 3
    torch.testing.assert_close(relativistic(a, b), expected)


def test_scores_and_gradients_by_one_evaluation():
    calls = []

    def f(x):
        calls.append(1)
        return x.flatten(1).pow(3).sum(1)

    x = torch.randn(4, 1, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    scores, squares = scores_and_squared_gradients(f, x)
    assert len(calls) == 1
    torch.testing.assert_close(scores, f(x))
    torch.testing.assert_close(squares, (9 * x**4).flatten(1).sum(1))
    for value, slope in (scores, 3 * x**2), (squares, 36 * x**3):
        torch.testing.assert_close(torch.autograd.grad(value.sum(), x, retain_graph=True)[0], slope)


def batch_of(gan, n=5):
    seed = torch.Generator().manual_seed(0)
    x, y = 2 * torch.rand(n, 1, 8, 8, generator=seed) - 1, torch.tensor([0, 2, 1, 1, 0])
    return {"image": x, "label": y, **gan.draw(n, seed)}


def lively(**more):
    """Last convolutions are not 0, and scores are large."""
    gan = r3gan(**more)
    with torch.no_grad():
        for p in gan.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    return gan


@pytest.mark.parametrize("pairs", [True, False])
@pytest.mark.parametrize("r2", [True, False])
@pytest.mark.parametrize("classes", [3, None])
def test_losses(pairs, r2, classes):
    """From the networks' outputs, in the loss's words; both labels and the penalties' halves."""
    gan = lively(relativistic=pairs, r2=r2, num_classes=classes, gamma=0.7).eval()
    batch, y = batch_of(gan), None
    y = batch["label"] if classes else None
    fakes = gan.generator(batch["z"], y).detach()
    score = partial(gan.discriminator, y=y)
    real, fake = score(batch["image"]), score(fakes)
    d, g = gan.discriminator_loss(batch), gan.generator_loss(batch)
    adversarial = {"relativistic": softplus(fake - real).mean()}
    if not pairs:
        adversarial = {"real": -log_real(real), "fake": -log_fake(fake)}
    r1s = {"r1": 0.35 * squared_gradients(score, batch["image"]).mean()}
    r2s = {"r2": 0.35 * squared_gradients(score, fakes).mean()} if r2 else {}
    torch.testing.assert_close(d, {**adversarial, **r1s, **r2s})
    torch.testing.assert_close(
        g, {"relativistic": softplus(real - fake).mean()} if pairs else {"fake": -log_real(fake)}
    )
    assert real.std() > 0.01 and all(term > 1e-4 for term in d.values())


def test_beta2_is_corrected_for_a_lazy_penalty_throughout_the_burn_in():
    gan = r3gan(penalties=R1(interval=4), burn_in=100.0)
    trainer = fit(gan, steps=2)
    for images in (0, 50, 100):
        gan.schedule(images)
        d, g = (optimizer.param_groups[0]["betas"][1] for optimizer in trainer.optimizers)
        ends = 0.9, 0.99
        assert g == pytest.approx(cosine(*ends, images, 100))
        assert d == pytest.approx(cosine(*(end ** (4 / 5) for end in ends), images, 100))


def test_labels_may_be_ignored():
    gan = r3gan(conditional=False)
    assert gan.num_classes is None and gan.generator.embed is None and gan.discriminator.table is None
    assert gan.hparams["num_classes"] == 3
    assert not torch.equal(r3gan().sample(2, label=1), r3gan().sample(2, label=2))


@pytest.mark.parametrize("augment", [None, DiffAugment()])
def test_differences_estimate_the_gradients(augment):
    """Over many draws; scores are the same, and the noise is added before the same transforms."""
    exact, estimated = (lively(difference=e, augment=augment).eval() for e in (None, 0.001))
    batch = batch_of(estimated)
    batch = {k: v.repeat_interleave(400, 0) for k, v in batch.items()}
    batch["perturbation"] = torch.randn(2000, 2, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    if augment:
        batch["keys"] = torch.arange(5).repeat_interleave(400)
    found = []
    for gan in (exact, estimated):
        with torch.no_grad(), gan.augment.shown(gan, batch, "discriminator") as seen:
            found.append(gan.discriminator_loss(seen))
    torch.testing.assert_close(found[0]["relativistic"], found[1]["relativistic"])
    for name in ("r1", "r2"):
        assert found[1][name].item() == pytest.approx(found[0][name].item(), rel=0.12)
    assert not torch.equal(batch["perturbation"][:, 0], batch["perturbation"][:, 1])


def test_differences_are_in_float32_under_mixed_precision():
    gan = lively(difference=0.001).eval()
    batch = batch_of(gan)
    exact = gan.discriminator_loss(batch)
    with torch.autocast("cpu", torch.bfloat16):
        half = gan.discriminator_loss(batch)
    for name in exact:
        assert half[name].dtype == torch.float32 and half[name].item() == pytest.approx(exact[name].item(), rel=0.1)
    fit(r3gan(difference=0.001), steps=1, precision="bf16-mixed")


def test_noise_is_drawn_for_differences_only():
    gan, seed = r3gan(difference=0.1, image_size=[8, 16]), torch.Generator()
    assert r3gan().draw(3, seed).keys() == {"z"}
    noise = gan.draw(300, seed)["perturbation"]
    assert noise.shape == (300, 2, 1, 8, 16) and prior(noise) == "standard normal"


def test_ada_follows_the_signs_of_the_reals():
    """Half of each batch are D's reals; with a target of 2 p never rises, with -2 it never falls."""
    for target, p in ((-2.0, 4 * BATCH / 2 / 100), (2.0, 0.0)):
        gan = r3gan(augment=ADA(ramp=100.0), relativistic=False)
        gan.augment.strength.target = target
        fit(gan, steps=5)
        assert gan.augment.strength.p == pytest.approx(p)


# Halves of a batch


def test_each_player_has_its_own_half_of_the_batch():
    """D first; alternate images, with their labels, in two microbatches."""
    gan, seen = r3gan(microbatches=2), []
    for player in ("discriminator", "generator"):
        equation = getattr(gan, f"{player}_loss")

        def watched(batch, player=player, equation=equation):
            seen.append((player, batch["image"], batch["label"]))
            return equation(batch)

        setattr(gan, f"{player}_loss", watched)

    class Batches(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.batch = batch

    data, kept = NoiseImages(gan), Batches()
    fit(gan, data, steps=1, callbacks=[kept])
    assert [name for name, _, _ in seen] == ["discriminator"] * 2 + ["generator"] * 2
    for start in range(2):
        images, labels = (torch.cat([part[k] for part in seen[2 * start : 2 * start + 2]]) for k in (1, 2))
        assert torch.equal(images, kept.batch["image"][start::2]) and torch.equal(labels, kept.batch["label"][start::2])


def test_a_batch_that_cannot_be_halved_is_refused(tmp_path, monkeypatch, capsys):
    gan = r3gan()
    words = "R3GAN trains each player on half of a batch, but a process has 7 images: make its number of images even"
    with pytest.raises(MisconfigurationException, match=words):
        fit(gan, NoiseImages(gan, batch_size=7), steps=1)
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config", "r3gan/digits", "--data.batch_size", "33", "--model.microbatches", "3"]) == 2
    words = "1 (processes) x 3 (model.microbatches) x 2 (parts for R3GAN); choose a multiple of 6, such as 30"
    assert words in capsys.readouterr().err and not list(tmp_path.iterdir())


# The burn-in


@pytest.mark.parametrize("seen", [0, 20, 50, 99, 100, 250])
def test_a_cosine_leads_from_the_first_value_to_the_last(seen):
    share = min(seen / 100, 1)
    assert cosine(2.0, 5.0, seen, 100) == pytest.approx(2 + 3 * np.sin(np.pi * share / 2) ** 2)


class Recorded(Callback):
    """What each batch is trained with."""

    def __init__(self):
        self.rows = []

    def on_train_batch_end(self, trainer, gan, *_):
        groups = [o.param_groups[0] for o in trainer.optimizers]
        row = [v for group in groups for v in (group["lr"], *group["betas"])]
        self.rows.append([*row, gan.gamma.item(), gan.ema_half_life, gan.augment.strength.p.item()])


class Saved(Callback):
    """A checkpoint after the third batch."""

    def __init__(self, path):
        self.path = path

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 3:
            trainer.save_checkpoint(self.path)


def run(steps, ckpt_path=None, callbacks=(), **more):
    ada = ADA(p=0.0, p_end=0.4, ramp=40.0)
    gan, recorded = r3gan(burn_in=40.0, gamma=2.0, ema_half_life=30.0, augment=ada, **more), Recorded()
    fit(gan, steps=steps, ckpt_path=ckpt_path, callbacks=[recorded, *callbacks])
    return gan, recorded.rows


def test_the_five_schedules_are_functions_of_the_images_seen_and_survive_a_resume(tmp_path):
    """Eight images a batch; before the sixth batch the burn-in ends."""
    rates = {"discriminator_optimizer": lambda params: torch.optim.Adam(params, lr=4e-4, betas=(0.5, 0.9))}
    whole, rows = run(7, callbacks=[Saved(tmp_path / "a.ckpt")], **rates)
    again, later = run(7, str(tmp_path / "a.ckpt"), **rates)
    for row, seen in zip(rows, range(0, 56, 8), strict=True):
        at = [
            cosine(*ends, seen, 40) for ends in ((4e-4, 1e-4), (0.9, 0.99), (2e-4, 5e-5), (2, 0.2), (0, 30), (0, 0.4))
        ]
        expected = [at[0], 0.5, at[1], at[2], 0.0, at[1], at[3], max(1, at[4]), at[5]]
        assert row == pytest.approx(expected)
    assert rows[5] == rows[6] and rows[4] != rows[5]
    assert later == rows[3:]
    for key, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


def test_without_burn_in_and_with_a_scheduler_of_the_rates():
    constant = r3gan(burn_in=None, ema_half_life=30.0, augment=ADA(p=0.1))
    recorded = Recorded()
    fit(constant, steps=2, callbacks=[recorded])
    assert recorded.rows[0] == recorded.rows[1] == pytest.approx([2e-4, 0, 0.9] * 2 + [0.5, 30, 0.1])
    _, rows = run(3, lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5))
    assert [row[0] for row in rows] == pytest.approx([1e-4, 5e-5, 2.5e-5])  # stepped at the end of the batch
    assert rows[2][2] == pytest.approx(cosine(0.9, 0.99, 16, 40))


def test_the_averaged_generator_starts_as_a_copy():
    gan, _ = run(1)
    for p, average in zip(gan.generator.parameters(), gan.ema.parameters(), strict=True):
        torch.testing.assert_close(average, p, rtol=0.01, atol=1e-5)


def test_held_out_images_are_scored_with_the_gamma_of_their_time():
    """Also by `validate` and `test`, in which nothing is trained."""
    gan = r3gan(gamma=2.0, gamma_share=0.25, burn_in=100, augment=ADA(p=0.1, p_end=0.5, ramp=100))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", limit_val_batches=1, limit_test_batches=1, **quiet)
    for gan.images_seen, gamma, p in ((0, 2, 0.1), (50, 1.25, 0.3), (300, 0.5, 0.5)):
        for evaluate in (trainer.validate, trainer.test):
            gan.gamma.fill_(9)
            gan.augment.strength.p.fill_(0.9)
            evaluate(gan, NoiseImages(gan), verbose=False)
            assert (gan.gamma.item(), gan.augment.strength.p.item()) == pytest.approx((gamma, p))
