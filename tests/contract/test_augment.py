"""Augmentation in training: what is transformed, resuming, microbatches, processes, compiled losses, bad input."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn
from torch.nn.functional import softplus
from torch.optim import SGD, Adam

import ganzoo
from ganzoo.augment import ADA, APA, Augment, DiffAugment
from ganzoo.core.pixels import scaled
from ganzoo.core.player import PLAYERS
from ganzoo.penalties import R1
from ganzoo.testing import BATCH, NoiseImages, check_resume, check_turns, fit
from tests.contract.test_turns import Remember
from tests.variants import small

FIXED = [DiffAugment(), ADA(p=0.8, filter=1.0, noise=1.0, cutout=1.0), APA(p=0.5)]
OPTIONS = [DiffAugment(), ADA(ramp=100.0, target=-0.9), APA(ramp=100.0, target=-0.9)]  # p is 0.32 from step 5
variants_with_fakes = pytest.mark.parametrize("name", [n for n in ganzoo.list_models() if n != "LAPGAN"])
every, fixed = (
    pytest.mark.parametrize("augment", options, ids=lambda option: type(option).__name__)
    for options in (OPTIONS, FIXED)
)


def dcgan(**more):
    """A small one without batch statistics."""
    torch.manual_seed(0)
    model = ganzoo.DCGAN(**small("DCGAN"), **more)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
    return model


def sgd(params):
    return SGD(params, lr=0.05)


class Negative(Augment):
    """Negatives, whose calls are recorded."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def transform(self, x, numbers, channels):
        self.seen.append((PLAYERS[self.player][0], *numbers.uniform(1)[:, 0].tolist()))
        return -x


def test_reals_and_fakes_are_transformed_in_both_updates_and_in_validation():
    """Each with its own random numbers."""
    model, inputs = dcgan(augment=Negative(), optimizer=lambda p: SGD(p, lr=0.0)), []
    model.discriminator.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    fit(model, steps=2)
    assert "".join(call[0] for call in model.augment.seen) == "ddgddg"
    draws = {number for call in model.augment.seen for number in call[1:]}
    assert len(draws) == 6 * BATCH
    plain, clean = dcgan(optimizer=lambda p: SGD(p, lr=0.0)), []
    plain.discriminator.register_forward_pre_hook(lambda module, args: clean.append(args[0]))
    fit(plain, steps=2)
    for i in (0, 1, 3, 4):  # the first update of a batch has the same latents, too
        assert torch.equal(inputs[i], -clean[i])
    fit(model, steps=1, limit_val_batches=1)
    assert len(model.augment.seen) == 6 + 3 + 3


def test_both_players_of_one_batch_draw_anew():
    """Shared fakes and simultaneous updates draw the latents once, but not the transforms."""
    for game in ({"share_fakes": True}, {"consensus": 0.0}):
        model = dcgan(augment=Negative(), **game)
        fit(model, steps=1)
        assert len({number for call in model.augment.seen for number in call[1:]}) == 3 * BATCH


def test_outside_of_updates_nothing_is_transformed():
    model = dcgan(augment=Negative()).eval()
    fit(model, steps=1)
    x = torch.rand(2, 1, 16, 16)
    assert torch.equal(model.discriminate(x), model.discriminator(x))


@fixed
def test_microbatches_have_the_transforms_of_the_batch(augment):
    whole, halves = (dcgan(augment=augment, optimizer=sgd, microbatches=k) for k in (1, 2))
    fit(whole, steps=3)
    fit(halves, steps=3)
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(value, halves.state_dict()[key], rtol=1e-5, atol=1e-7)


@variants_with_fakes
def test_apa_shows_fakes_as_in_training(name):
    """With the noise and the mixed styles of D's fakes, which samples lack."""
    torch.manual_seed(0)
    model = getattr(ganzoo, name)(**small(name), augment=APA(p=1.0))
    for key, parameter in model.generator.named_parameters():
        if key.endswith("strength"):
            nn.init.ones_(parameter)  # noise matters
    batch = scaled(next(iter(NoiseImages(model).train_dataloader())))
    n = len(batch["image"])
    batch |= model.draw(n, torch.Generator()) | model.augment.draw(model, n, torch.Generator().manual_seed(1))
    again = copy.deepcopy(model)  # dropout draws, and spectral norm iterates
    with torch.no_grad():
        torch.manual_seed(1)
        fakes = again.make_fakes({**batch, **batch["pseudo"]})
        torch.manual_seed(1)
        with model.augment.shown(model, batch, "discriminator") as seen:
            pass
    torch.testing.assert_close(seen["image"], fakes if isinstance(fakes, torch.Tensor) else fakes[0])


@every
def test_resuming_is_exact(augment):
    check_resume(lambda: dcgan(augment=augment))


@pytest.mark.parametrize("augment", OPTIONS[1:], ids=lambda option: type(option).__name__)
def test_a_controlled_strength_is_resumed(augment, tmp_path):
    """With the signs heard since its last change; with another number of processes, see `test_processes`."""

    class Save(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            if trainer.global_step == 10:
                trainer.save_checkpoint(tmp_path / "a.ckpt")
                assert (
                    pl_module.augment.strength.p == pytest.approx(0.64)
                    and pl_module.augment.strength.signs[2] == 2 * BATCH
                )

    whole, again = dcgan(augment=augment), dcgan(augment=augment)
    fit(whole, steps=15, callbacks=[Save()])
    fit(again, steps=15, ckpt_path=tmp_path / "a.ckpt")
    assert torch.equal(whole.augment.strength.p, again.augment.strength.p) and torch.equal(
        whole.augment.strength.signs, again.augment.strength.signs
    )
    assert whole.augment.strength.p > 0.9
    assert not any(
        "augment" in key for key in whole.state_dict()
    )  # so any model's weights load without it, and with it
    plain = dcgan()
    fit(plain, steps=12, ckpt_path=tmp_path / "a.ckpt")


@pytest.mark.parametrize("augment", OPTIONS[1:], ids=lambda option: type(option).__name__)
def test_a_controlled_strength_may_be_added_on_resume(augment, tmp_path):
    """At step 8, where p would be changed."""

    class Save(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            if trainer.global_step == 8:
                trainer.save_checkpoint(tmp_path / "a.ckpt")

    fit(dcgan(), steps=8, callbacks=[Save()])
    model = dcgan(augment=augment)
    fit(model, steps=13, ckpt_path=tmp_path / "a.ckpt")
    assert 0 < model.augment.strength.p < 0.5


@every
def test_players_move_in_turn(augment):
    check_turns(lambda: dcgan(augment=augment))


@every
def test_models_are_loaded_with_their_augmentation(augment, tmp_path):
    torch.manual_seed(0)
    model = ganzoo.DCGAN(**small("DCGAN"), augment=augment)
    assert model.augment is not augment  # its state is the model's own
    fit(model, steps=1).save_checkpoint(tmp_path / "a.ckpt")
    ganzoo.save_pretrained(model, tmp_path / "b")
    for name in ("a.ckpt", "b"):
        again = ganzoo.load(tmp_path / name).augment
        assert type(again) is type(augment) and again.arguments == augment.arguments


@pytest.mark.parametrize(
    "augment",
    [
        ADA(ramp=100.0, target=-0.9, pixel=0.0, geometry=0.0),
        *(pytest.param(o, marks=pytest.mark.slow) for o in OPTIONS),
    ],
    ids=lambda option: type(option).__name__,
)
def test_losses_compile_as_two_graphs(augment, monkeypatch):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda fn: compile_(fn, backend=backend, fullgraph=True))
    eager, compiled = (dcgan(augment=augment, optimizer=sgd, compile_losses=c) for c in (False, True))
    fit(eager, steps=10)
    fit(compiled, steps=10)
    assert len(graphs) == 2, f"{len(graphs)} graphs"
    for key, value in eager.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[key], value, rtol=1e-4, atol=1e-6)


@fixed
def test_gradient_penalties_differentiate_through_the_transforms(augment):
    torch.manual_seed(0)
    model = ganzoo.WGANGP(**small("WGANGP"), augment=augment)
    fit(model, steps=5)
    assert all(p.grad.any() for p in model.discriminator.parameters() if p.ndim > 1)


@fixed
@pytest.mark.parametrize(("channels", "size"), [(1, [8, 16]), (3, [16, 8]), (4, 8)])
def test_any_shape_is_transformed(augment, channels, size):
    model = ganzoo.DCGAN(size, channels, width=4, augment=augment)
    fit(model, steps=1)
    assert all(p.isfinite().all() for p in model.parameters())


def test_the_logits_whose_signs_count_are_known():
    found = {name: getattr(ganzoo, name)(**small(name)).boundary for name in ganzoo.list_models()}
    without = ("WGAN", "WGANGP", "ProGAN", "EBGAN", "LadderEBGAN", "LAPGAN", "CycleGAN", "R3GAN")
    assert found == {**dict.fromkeys(ganzoo.list_models(), 0.0), **dict.fromkeys(without), "LSGAN": 0.5}
    assert (
        ganzoo.LSGAN(8, a=-1.0, b=3.0, width=4).boundary == 1
        and ganzoo.LSGAN(8, a=1.0, b=0.0, width=4).boundary is None
    )


def test_the_boundary_is_where_densities_are_equal():
    kinds = ("gan", "kl", "reverse-kl", "pearson", "hellinger", "jensen-shannon")
    found = {kind: ganzoo.GAN(**small("GAN"), divergence=kind).boundary for kind in kinds}
    assert found == {**dict.fromkeys(kinds, 0.0), "kl": 1.0}
    assert ganzoo.MLPGAN(**small("MLPGAN"), objective="relativistic").boundary is None
    assert ganzoo.R3GAN(**{**small("R3GAN"), "relativistic": False}).boundary == 0


def test_channels_that_do_not_fit_are_refused_before_training():
    model = ganzoo.DCGAN(8, 2, width=4, augment=DiffAugment())
    with pytest.raises(ValueError, match="augment: color needs grey, RGB or RGBA images, but they have 2 channels"):
        fit(model, NoiseImages(model), steps=1)
    fit(ganzoo.DCGAN(8, 2, width=4, augment=DiffAugment(color=False)), steps=1)
    with pytest.raises(ValueError, match="color needs grey, .*, but they have 2 channels: set color to 0"):
        ADA().check_channels(2)
    ADA(color=0.0).check_channels(2)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("DifAugment", "augment is DifAugment; did you mean 'DiffAugment'"),
        (3, "augment is 3; it takes"),
        ([DiffAugment(), DiffAugment()], "augment is a list; it takes one"),
        ({"class_path": "DiffAugment", "init_args": {"cutouts": 1}}, "augment: .*unexpected keyword argument"),
        ({"class_path": "DiffAugment", "init_args": {"cutout": 2}}, "cutout is 2; it takes a number from 0 to 1"),
    ],
)
def test_what_is_no_augmentation_is_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        ganzoo.DCGAN(8, augment=bad)


def blobs(angle, n, generator):
    """Images [n, 1, 8, 8] of a blob at about this angle from the centre."""
    i, j = torch.meshgrid(torch.arange(8.0) - 3.5, torch.arange(8.0) - 3.5, indexing="ij")
    radius, turn = 0.2 * torch.randn(2, n, 1, 1, generator=generator) + torch.tensor([2.0, 0])[:, None, None, None]
    x, y = radius * (angle + turn).cos(), radius * (angle + turn).sin()
    return (2 * torch.exp(-((j - x).square() + (i - y).square()) / 2) - 1)[:, None]


def learned_angle(p, seed, steps=150, n=64):
    """Of a generator of blobs, whose only parameter it is, from 1.5; the data's is 0. D sees images through ADA's
    geometry."""
    torch.manual_seed(seed)
    generator, augment = torch.Generator().manual_seed(seed), ADA(p=p, pixel=0.0, color=0.0)
    layers = [nn.Flatten(), nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 64), nn.LeakyReLU(0.2)]
    d, angle = nn.Sequential(*layers, nn.Linear(64, 1)), nn.Parameter(torch.tensor(1.5))
    optimizers = Adam(d.parameters(), 2e-3, betas=(0.0, 0.99)), Adam([angle], 2e-2, betas=(0.0, 0.99))

    def logits(images):
        augment.keys = torch.randint(2**62, (n,), generator=generator)
        return d(augment(images))

    for _ in range(steps):
        for player, optimizer in enumerate(optimizers):
            loss = softplus(-logits(blobs(angle, n, generator)) if player else logits(blobs(angle, n, generator)))
            loss = loss if player else loss + softplus(-logits(blobs(torch.tensor(0.0), n, generator)))
            optimizer.zero_grad()
            loss.mean().backward()
            optimizer.step()
    return math.remainder(angle.item(), 2 * math.pi)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_rotations_leak_into_g_at_probability_1_only(seed):
    """The experiment of the ADA paper's section 2.2, small: G learns the orientation of the data through rotations with
    p = 0.8, and keeps its own, being free to, if all images are rotated."""
    assert abs(learned_angle(0.8, seed)) < 0.2
    assert abs(learned_angle(1.0, seed)) > 1


class LinearScore(nn.Linear):
    def forward(self, x, y=None):
        return super().forward(x.flatten(1))[:, 0]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_difference_is_of_two_images_under_one_transform(precision):
    """The expectation of R1 by differences is R1, through transforms that are linear for a linear D exactly so. Under
    two transforms it would be thousands of times as large."""
    found = []
    for penalty in (R1(1.0), R1(1.0, difference=0.01)):
        torch.manual_seed(0)
        model = ganzoo.WGANGP(8, 1, width=4, augment=DiffAugment(), penalties=penalty, optimizer=lambda p: SGD(p, 0.0))
        model.discriminator, logger = LinearScore(64, 1), Remember()
        fit(model, steps=40, log_every_n_steps=40, logger=logger, precision=precision)
        found.append(logger.rows[-1][1]["D/r1"])
    assert found[1] == pytest.approx(found[0], rel=0.2)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_an_image_s_sign_counts_once(precision):
    """Also if a penalty by differences evaluates D on the reals again."""
    penalty = R1(1.0, difference=0.01)
    model = dcgan(augment=ADA(ramp=100.0), penalties=penalty, optimizer=sgd)
    fit(model, steps=2, precision=precision)
    assert model.augment.strength.signs[2] == 2 * BATCH


@pytest.mark.slow
def test_augmented_differences_compile(monkeypatch):
    """With the augmentation controlled by D, and a lazy penalty."""
    graphs, compile_ = [], torch.compile

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", lambda fn: compile_(fn, backend=backend, fullgraph=True))
    ada = ADA(ramp=100.0, target=-0.9, pixel=0.0, geometry=0.0)
    models = [dcgan(augment=ada, penalties=R1(1.0, 2, 0.1), optimizer=sgd, compile_losses=c) for c in (False, True)]
    for model in models:
        fit(model, steps=6)
    assert len(graphs) == 3
    for key, value in models[0].state_dict().items():
        torch.testing.assert_close(models[1].state_dict()[key], value, rtol=1e-3, atol=1e-5)
