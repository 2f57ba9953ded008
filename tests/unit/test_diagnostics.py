"""Diagnostics: alarms of failing and healthy trainings, curves, and no effect on the training itself."""

from __future__ import annotations

import itertools
import math
import multiprocessing
import warnings
import weakref

import lightning
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers.logger import Logger
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits
from torch import nn

import ganzoo
from ganzoo.callbacks.diagnostics import (
    ALARMS,
    CLUSTERS,
    COPIED,
    DUE,
    NEIGHBOURS,
    WARM_UP,
    Diagnostics,
    _Images,
    _verdicts,
    scores_of,
    small,
)
from ganzoo.core.pixels import to_float
from ganzoo.data import ArrayImages, Digits, GANDataModule, Gaussians
from ganzoo.functional.alarms import auc, clusters, mean_distance, near_held_out, reached
from ganzoo.optim.adam import FusedAdam
from ganzoo.testing import fit

CURVES = {
    *("D_accuracy", "D_overfit", "diversity", "modes", "coverage", "copying", "near_held_out", "drift"),
}
N = 200  # held-out digits
TINY = {"image_size": 8, "channels": 1, "hidden": 8, "d_hidden": 8, "z_dim": 4}


class Curves(Logger):
    """Collects the metrics under `diagnostics/` as {step: {name: value}}."""

    name, version = "curves", "0"

    def __init__(self):
        super().__init__()
        self.at = {}

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_metrics(self, metrics, step=None):
        if found := {k.removeprefix("diagnostics/"): v for k, v in metrics.items() if k.startswith("diagnostics/")}:
            self.at[step] = found


def watch(model, data=None, *, steps, every, n=64, callbacks=(), **trainer):
    """Return the alarms active at the end, with the steps at which they started, and the curves."""
    curves, diagnostics = Curves(), Diagnostics(every, n)
    fit(model, data, steps=steps, callbacks=[diagnostics, *callbacks], logger=curves, **trainer)
    return diagnostics.active, curves.at


def adam(lr, beta1=0.5):
    return lambda params: FusedAdam(params, lr=lr, beta1=beta1)


def ring_gan(**arguments):
    return ganzoo.GAN(image_size=1, channels=2, z_dim=2, hidden=32, d_hidden=16, **arguments)


def ring():
    return Gaussians(n=2000, batch_size=64)


def noise(n, d=3, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


# Trainings


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_mode_collapse_raises_an_alarm(seed, capsys):
    """A minimax generator with five times D's learning rate collapses to one point within 100 batches."""
    torch.manual_seed(seed)
    model = ring_gan(objective="minimax", optimizer=adam(5e-3), discriminator_optimizer=adam(1e-3))
    model.z_bound = 1.0  # closer latents collapse sooner
    rung, curves = watch(model, ring(), steps=140, every=20)
    assert rung == {"collapse": (WARM_UP + 2) * 20}, "after the warm-up, at the second check in a row"
    assert curves[140]["diversity"] < 0.05
    (line,) = [line for line in capsys.readouterr().err.splitlines() if " at step " in line]
    assert line.startswith("collapse at step 120: fakes are 0.0") and "lower learning rates" in line


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_healthy_training_raises_no_alarm(seed, capsys):
    torch.manual_seed(seed)
    model = ganzoo.DCGAN(image_size=8, channels=1, width=8, optimizer=adam(1e-3))
    rung, curves = watch(model, Digits(batch_size=32), steps=270, every=30)
    assert rung == {} and " at step " not in capsys.readouterr().err
    assert curves[270]["diversity"] > 0.5 and curves[270]["modes"] > 0.7


def test_a_winning_discriminator_raises_an_alarm():
    torch.manual_seed(0)
    model = ring_gan(optimizer=adam(1e-7), discriminator_optimizer=adam(1e-2))
    rung, curves = watch(model, ring(), steps=180, every=20)
    assert rung["D wins"] == (WARM_UP + 5) * 20 and "G is frozen" not in rung
    assert curves[180]["D_accuracy"] > 0.999 and curves[180]["coverage"] < 0.1


@pytest.mark.parametrize("letter", "DG")
def test_a_frozen_network_raises_an_alarm(letter, capsys):
    torch.manual_seed(0)
    rates = {
        "D": {"discriminator_optimizer": adam(0.0)},
        "G": {"optimizer": adam(0.0), "discriminator_optimizer": adam(1e-3)},
    }
    rung, _ = watch(ganzoo.GAN(**TINY, **rates[letter]), Digits(), steps=24, every=2)
    assert rung == {f"{letter} is frozen": 6}, "the second time that nothing has moved; all else comes from it"
    assert f"{letter} is frozen at step 6: no weight has changed" in capsys.readouterr().err


def test_n_critic_does_not_count_as_a_frozen_generator():
    rung, _ = watch(ganzoo.GAN(**TINY, n_critic=5), Digits(), steps=20, every=1)
    assert "G is frozen" not in rung


class Poisoned(ganzoo.GAN):
    """Its fakes are NaN, but its losses are finite."""

    def generate(self, z, given=None):
        return super().generate(z, given) * math.nan


def test_non_finite_fakes_raise_an_alarm(capsys):
    rung, curves = watch(Poisoned(**TINY), Digits(), steps=20, every=10, log_every_n_steps=0)
    assert rung == {"non-finite numbers": 10}
    lines = [line for line in capsys.readouterr().err.splitlines() if "non-finite" in line]
    assert len(lines) == 1 and "at step 10: the fakes are not" in lines[0]
    assert curves == {}, "there is nothing to compare"


# Scripted generators


class Scripted(ganzoo.GAN):
    """Its fakes are the images of `script(step)` in order; `score`, if given, replaces D in evaluation mode."""

    def __init__(self, script, score=None):
        super().__init__(**TINY)
        self.script, self.score, self.made = script, score, 0

    def generate(self, z, given=None):
        start = self.made % N
        self.made += len(z)
        return self.script(self.trainer.global_step)[start : start + len(z)]

    def discriminate(self, x, y=None):
        scores = super().discriminate(x, y)
        return scores if self.training or self.score is None else self.score(x)


def digits(split):
    return to_float(Digits().dataset(split).images)


def scripted(script, steps=10, score=None):
    torch.manual_seed(0)
    return watch(Scripted(script, score), Digits(), steps=steps, every=1, n=N)


def test_copies_of_training_images_raise_an_alarm():
    train = digits("train")
    rung, curves = scripted(lambda step: train)
    assert rung == {"copying": WARM_UP + 3}
    assert curves[10]["copying"] == 1 and curves[10]["near_held_out"] == 0


def test_held_out_images_of_other_classes_show_no_copying(monkeypatch):
    monkeypatch.setattr(Digits, "held_out_alike", False)
    train = digits("train")
    rung, curves = scripted(lambda step: train)
    assert rung == {} and not {"copying", "near_held_out"} & curves[10].keys() and "D_overfit" in curves[10]


def test_unseen_real_images_raise_no_alarm():
    """An ideal generator: its fakes are the test images."""
    test = digits("test")
    rung, curves = scripted(lambda step: test)
    assert rung == {}
    assert abs(curves[10]["copying"] - 0.5) < 0.1 and abs(curves[10]["near_held_out"] - 1) < 0.5
    assert abs(curves[10]["diversity"] - 1) < 0.05 and curves[10]["coverage"] > 0.9 and curves[10]["drift"] == 0


def test_held_out_images_do_not_count_as_copies():
    val = digits("val")
    rung, curves = scripted(lambda step: val)
    assert rung == {} and curves[10]["copying"] == pytest.approx(0.5) and curves[10]["near_held_out"] > 5


def test_blurred_images_do_not_count_as_copies():
    """Means of three similar test images are closer than reals to training images, but also to held-out ones."""
    test = digits("test")
    similar = torch.cdist(test.flatten(1), test.flatten(1)).topk(3, largest=False).indices
    rung, curves = scripted(lambda step: test[similar].mean(1))
    assert curves[10]["copying"] > COPIED and rung == {}


def test_missing_classes_raise_an_alarm():
    """Realistic and diverse fakes of only three classes."""
    data = Digits().dataset("test")
    three = to_float(data.images)[data.labels() < 3].repeat(4, 1, 1, 1)
    rung, curves = scripted(lambda step: three)
    assert rung == {"modes left out": WARM_UP + 3}
    assert curves[10]["diversity"] > 0.8 and 0.2 < curves[10]["modes"] < 0.6


def test_oscillating_fakes_raise_an_alarm():
    """At each check every latent gives another image; all images are real."""
    test = digits("test")
    rung, curves = scripted(lambda step: test.roll(67 * step, 0))
    assert rung == {"oscillation": WARM_UP + 5}
    assert curves[10]["drift"] == pytest.approx(1, abs=0.1), "as far apart as two reals"
    assert "drift" not in curves[1]


def test_a_memorising_discriminator_raises_an_alarm(monkeypatch):
    train, test = digits("train").flatten(1), digits("test")

    def score(x):
        return -torch.cdist(x.flatten(1), train).min(1).values

    def memorising():
        return scripted(lambda step: test, score=score, steps=WARM_UP + 3)

    rung, curves = memorising()
    assert rung == {"D memorises": WARM_UP + 3} and curves[1]["D_overfit"] == 1
    assert curves[1]["D_accuracy"] < 0.6, "of new images it knows nothing"
    monkeypatch.setattr(Digits, "held_out_alike", False)  # then D may only know the subjects
    assert memorising()[0] == {}


def test_an_alarm_is_reported_once_until_it_has_ended(capsys):
    """Two good checks end a collapse; one does not."""
    test = digits("test")
    bad = {*range(1, 10), 11, 12, 15, 16, 17}
    rung, _ = scripted(lambda step: test[:1].expand_as(test) if step in bad else test, steps=18)
    lines = [line for line in capsys.readouterr().err.splitlines() if " at step " in line]
    assert [line.split(":")[0] for line in lines] == ["collapse at step 6", "collapse at step 16"]
    assert rung == {"collapse": 16}


# Effects on training


def test_diagnostics_leave_training_bit_identical():
    class Draws(Callback):
        """Records the next random number and the modes of modules and parameters after each batch."""

        def __init__(self):
            self.seen = []

        def on_train_batch_end(self, trainer, module, *args):
            modes = [m.training for m in module.modules()]
            self.seen.append((torch.rand(1).item(), modes, [p.requires_grad for p in module.parameters()]))

    def play(watched):
        torch.manual_seed(0)
        model, draws = ganzoo.DCGAN(image_size=8, channels=1, width=4, ema_half_life=100.0), Draws()
        model.discriminator.score = nn.utils.parametrizations.spectral_norm(model.discriminator.score)
        diagnostics = [Diagnostics(1, 64)] if watched else []
        trainer = fit(model, Digits(batch_size=16), steps=6, callbacks=[*diagnostics, draws])
        return model, draws.seen, [o.state_dict() for o in trainer.optimizers]

    (one, seen, moments), (other, expected, others) = play(True), play(False)
    assert seen == expected
    for key, value in other.state_dict().items():
        assert torch.equal(one.state_dict()[key], value), key
    same = zip(*(torch.utils._pytree.tree_leaves(m) for m in (moments, others)), strict=True)
    assert all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in same)


def test_a_resumed_run_has_the_same_curves_and_alarms(tmp_path):
    class Save(Callback):
        def on_train_batch_end(self, trainer, *args):
            if trainer.global_step == 105:  # between two checks
                trainer.save_checkpoint(tmp_path / "a.ckpt")

    def play(**more):
        torch.manual_seed(0)
        model = ring_gan(objective="minimax", optimizer=adam(5e-3), discriminator_optimizer=adam(1e-3))
        return watch(model, ring(), steps=140, every=20, **more)

    rung, curves = play(callbacks=[Save()])
    assert torch.load(tmp_path / "a.ckpt", weights_only=True)["global_step"] == 105
    resumed_rung, resumed_curves = play(ckpt_path=str(tmp_path / "a.ckpt"))
    assert resumed_rung == rung == {"collapse": 120}
    assert resumed_curves == {step: curves[step] for step in (120, 140)}
    assert "drift" in curves[120]


# Other data and models


def test_all_curves_are_logged():
    _, curves = watch(ganzoo.GAN(**TINY), Digits(), steps=2, every=1)
    assert set(curves[1]) == CURVES - {"drift"} and set(curves[2]) == CURVES


def test_curves_without_held_out_images():
    class NoVal(Digits):
        def make_dataset(self, split):
            data = super().make_dataset(split)
            return ArrayImages(data.images[:0]) if split == "val" else data

    _, curves = watch(ganzoo.GAN(**TINY), NoVal(), steps=2, every=1)
    assert set(curves[2]) == CURVES - {"D_overfit", "copying", "near_held_out"}


@pytest.mark.parametrize("size", [1, 5])
def test_too_little_data_gives_no_curves(size):
    class Handful(Digits):
        def make_dataset(self, split):
            return ArrayImages(super().make_dataset(split).images[:size])

    rung, curves = watch(ganzoo.GAN(**TINY), Handful(batch_size=size), steps=6, every=1)
    assert curves == {} and rung == {}


def test_identical_images_give_no_non_finite_curve():
    class Black(GANDataModule):
        image_size, channels, num_classes = 8, 1, None

        def make_dataset(self, split):
            return ArrayImages(torch.zeros(64, 1, 8, 8, dtype=torch.uint8))

    _, curves = watch(ganzoo.GAN(**TINY), Black(batch_size=8), steps=2, every=1)
    assert "diversity" not in curves[2] and all(math.isfinite(v) for v in curves[2].values())


def test_other_data_modules_still_have_the_alarm_of_non_finite_numbers():
    class Foreign(lightning.LightningDataModule):
        dataset = [{"image": image} for image in digits("train")[:32]]  # not a method as in GANDataModule

        def train_dataloader(self):
            return torch.utils.data.DataLoader(self.dataset, batch_size=8)

    rung, curves = watch(Poisoned(**TINY), Foreign(), steps=10, every=5, log_every_n_steps=4)
    assert curves == {} and rung == {"non-finite numbers": 5}


def test_a_conditional_model_gets_its_labels():
    class Conditional(ganzoo.GAN):
        num_classes = 10

        def generate(self, z, given=None):
            assert given["label"].shape == (len(z),) and given["label"].max() < 10
            return super().generate(z, given)

        def discriminate(self, x, y=None):
            if not self.training:
                assert y.shape == (len(x),)
                seen.append(y)
            return super().discriminate(x, y)

    seen = []
    _, curves = watch(Conditional(**TINY), Digits(), steps=1, every=1, n=20)
    assert set(curves[1]) == CURVES - {"drift"}
    assert [0, 1, 2, 3] in [y.tolist()[:4] for y in seen], "the fakes'"
    assert len(seen) == 3 and len({tuple(y.tolist()) for y in seen}) == 3, "and the reals' own"


@pytest.mark.parametrize(
    "output",
    [
        lambda x: x.flatten(1).mean(1),
        lambda x: x.flatten(1).mean(1, keepdim=True),
        lambda x: x,  # patches
        lambda x: (x, x.flatten(1)),
    ],
)
def test_scores_of_all_kinds_of_discriminator_outputs(output):
    model, x = ganzoo.GAN(**TINY), noise(150, 64).view(150, 1, 8, 8)
    model.discriminate = lambda images, y: output(images)
    torch.testing.assert_close(scores_of(model, x, None), x.mean((1, 2, 3)))


def test_large_images_are_judged_in_small_parts(monkeypatch):
    """Two of 512x512 pixels, or else a GPU that holds a batch of the training may not hold a check."""
    model, sizes = ganzoo.GAN(**TINY), []
    model.hparams["image_size"] = 512
    model.discriminate = lambda images, y: sizes.append(len(images)) or images.flatten(1).mean(1)
    scores_of(model, noise(5, 64).view(5, 1, 8, 8), None)
    assert sizes == [2, 2, 1]


def test_reference_images_are_not_kept_at_full_size():
    alive = weakref.WeakSet()
    most = []

    class Counted(ArrayImages):
        def __getitems__(self, tickets):
            batch = super().__getitems__(tickets)
            alive.add(batch["image"])
            most.append(len(alive))
            return batch

    images = Counted(torch.zeros(1000, 1, 8, 8))
    found = _Images(images, ganzoo.GAN(**TINY), 100, 1000)
    assert len(found.images) == 100 and len(found.small) == 1000 and max(most) <= 3 and len(most) > 10


@pytest.mark.parametrize("sign", [1, -1])
def test_accuracy_does_not_depend_on_the_sign_of_the_scores(sign):
    """Energies are lower for reals, logits higher; the accuracy is 1 with both."""
    test = digits("test") * 0.1
    _, curves = scripted(lambda step: test, steps=1, score=lambda x: sign * x.flatten(1).std(1))
    assert curves[1]["D_accuracy"] == 1


def test_large_images_are_averaged_down():
    x = noise(2, 3 * 64 * 32).view(2, 3, 64, 32)
    rows = small(x)
    assert rows.shape == (2, 3 * 16 * 16)
    torch.testing.assert_close(rows[1].view(3, 16, 16)[2, 3, 5], x[1, 2, 12:16, 10:12].mean())
    assert torch.equal(small(x[..., :8, :8]), x[..., :8, :8].flatten(1))


@pytest.mark.parametrize("arguments", [{"every_n_steps": -1}, {"n": 10}])
def test_bad_settings_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        Diagnostics(**arguments)


# Functions


def test_auc_counts_the_pairs_and_half_of_the_ties():
    a, b = (noise(n, 1, seed=n)[:, 0].mul(3).round() for n in (80, 50))
    won, tied = (a[:, None] > b).double().mean(), (a[:, None] == b).double().mean()
    assert tied > 0.05 and auc(a, b) == pytest.approx((won + tied / 2).item(), rel=1e-12)


def test_mean_distance_is_over_all_pairs():
    x = noise(12)
    pairs = [math.dist(p, q) for p, q in itertools.combinations(x.tolist(), 2)]
    assert mean_distance(x) == pytest.approx(sum(pairs) / len(pairs), rel=1e-5)
    assert mean_distance(x[:1].expand(5, -1)) == 0


def test_clusters_are_found_and_empty_ones_are_finite():
    corners = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0], [9.0, 9.0]])
    x = corners.repeat(50, 1) + 0.1 * noise(200, 2)
    centres = clusters(x, 4)
    assert (torch.cdist(corners, centres).min(1).values < 0.1).all()
    assert torch.equal(clusters(x, 4), centres)
    with warnings.catch_warnings(action="error"):
        assert clusters(corners.repeat(5, 1), 10).isfinite().all()


def test_clusters_do_not_depend_on_threads_and_work_in_a_forked_process():
    rows = noise(4096, 64)
    with threadpool_limits(1):
        expected = clusters(rows, 10)
    with threadpool_limits(2):
        assert torch.equal(clusters(rows, 10), expected)
        KMeans(2).fit(rows[:1024].numpy())  # starts threads in this process
        child = multiprocessing.get_context("fork").Process(target=clusters, args=(rows[:1024], 2))
        child.start()
        child.join(30)
        child.kill()
    assert child.exitcode == 0, "it waits for threads that it has not"


def test_reached_counts_the_reals_of_clusters_with_enough_fakes():
    centres = torch.tensor([[0.0], [10.0], [20.0]])
    real = torch.tensor([0.0] * 5 + [10.0] * 3 + [20.0] * 2)[:, None]
    fake = torch.tensor([1.0] * 90 + [11.0] * 10)[:, None]
    assert reached(real, fake, centres, due=0.2) == pytest.approx(0.8)
    assert reached(real, fake, centres, due=0.5) == pytest.approx(0.5)
    assert reached(real, real, centres, due=1) == pytest.approx(1)


def test_near_held_out_is_one_by_chance_and_zero_for_copies():
    train, held_out, fake = noise(900, seed=1), noise(300, seed=2), noise(2000, seed=3)
    assert near_held_out(train, held_out, fake) == pytest.approx(1, abs=0.2)
    assert near_held_out(train, held_out, 0.5 * fake) == pytest.approx(1, abs=0.3), "nor for blurred ones"
    assert near_held_out(train, held_out, train) == 0
    assert near_held_out(train, held_out, held_out) == 4, "all, where chance gives a quarter"


def test_all_alarms_have_one_line():
    assert all("\n" not in alarm.text and alarm.patience >= 1 for alarm in ALARMS.values())


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_digits_config_raises_no_alarm(seed, tmp_path, monkeypatch, capsys):
    """The networks and settings of configs/dcgan/digits.yaml."""
    monkeypatch.setenv("PL_GLOBAL_SEED", str(seed))
    torch.manual_seed(seed)
    averaged = {"ema_half_life": 10000, "ema_ramp_up": 0.1}
    model = ganzoo.DCGAN(8, 1, width=64, optimizer=lambda p: FusedAdam(p, lr=1e-3, beta1=0.5), **averaged)
    rung, curves = watch(model, Digits(batch_size=64), steps=6000, every=500, n=256)
    print(*curves.items(), sep="\n")
    assert rung == {} and " at step " not in capsys.readouterr().err


THRESHOLDS = [
    ("collapse", {"diversity": 0.249}),
    ("modes left out", {"modes": 0.699}),
    ("D wins", {"D_accuracy": 0.9991, "coverage": 0.099}),
    ("D memorises", {"D_overfit": 0.751}),
    ("copying", {"copying": 0.601, "near_held_out": 0.349}),
    ("oscillation", {"drift": 0.801}),
]


@pytest.mark.parametrize(("alarm", "values"), THRESHOLDS, ids=[name for name, _ in THRESHOLDS])
def test_alarms_begin_at_their_thresholds(alarm, values):
    assert [name for name, wrong in _verdicts(values).items() if wrong] == [alarm]
    for name, value in values.items():
        other = value + 0.002 if name in ("diversity", "modes", "coverage", "near_held_out") else value - 0.002
        assert not any(_verdicts({**values, name: other}).values()), name


def test_the_levels_of_the_alarms_were_measured_with_these():
    assert (NEIGHBOURS, CLUSTERS, DUE) == (5, 10, 0.2)


def test_a_generator_with_one_update_per_check_can_be_frozen():
    rates = {"optimizer": adam(0.0), "discriminator_optimizer": adam(1e-3)}
    assert "G is frozen" in watch(ganzoo.GAN(**TINY, n_critic=2, **rates), Digits(), steps=24, every=2)[0]
