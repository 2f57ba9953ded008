"""`GANModule`: step counts, randomness, EMA, clipping, schedules, precision, logs."""

from __future__ import annotations

import copy
import logging
import math

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.optim import SGD

import ganzoo
from ganzoo.cli import main
from ganzoo.core import ema
from ganzoo.core.random import mix
from ganzoo.data import Digits
from ganzoo.evaluation.record import Report
from ganzoo.testing import BATCH, NoiseImages, check_turns, fit
from tests.variants import TWINS, small

TINY = {"image_size": 8, "channels": 1, "width": 4}


def dcgan(**more):
    torch.manual_seed(0)
    return ganzoo.DCGAN(**TINY, **more)


class Remember(Logger):
    """A logger that stores its metrics."""

    name, version = "remember", "0"

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, metrics))

    def log_hyperparams(self, *args, **kwargs):
        pass


def test_plain_trainer_fits_digits(tmp_path, monkeypatch):
    """Without the command line."""
    monkeypatch.chdir(tmp_path)
    model = ganzoo.DCGAN(image_size=8, channels=1, width=4)
    Trainer(max_steps=3, max_epochs=-1, accelerator="cpu", enable_progress_bar=False).fit(model, Digits())
    assert int(model.images_seen) == 3 * 64


@pytest.mark.parametrize("n_critic", [1, 5])
def test_checkpoint_intervals_count_batches(n_critic, tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=7, save_top_k=-1)
    fit(dcgan(n_critic=n_critic), steps=30, callbacks=[checkpoint], enable_checkpointing=True)
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["step=14", "step=21", "step=28", "step=7"]


def test_g_steps_after_every_n_critic_d_steps():
    model, order = dcgan(n_critic=3), []
    minimize = model.minimize
    model.minimize = lambda *args, player: (order.append(player[0]), minimize(*args, player=player))
    fit(model, steps=7)
    assert "".join(order) == "dddgdddgd"


class Taken(Callback):
    """Counts the optimizer steps of D and G."""

    def __init__(self):
        self.steps = [0, 0]

    def on_train_start(self, trainer, pl_module):
        for player, optimizer in enumerate(trainer.optimizers):
            optimizer.register_step_post_hook(lambda *_, player=player: self.count(player))

    def count(self, player):
        self.steps[player] += 1


@pytest.mark.parametrize("k", [1, 2, 5])
def test_optimizers_take_k_d_steps_per_g_step_across_a_resume(k, tmp_path):
    whole, first, second = Taken(), Taken(), Taken()
    fit(dcgan(n_critic=k), steps=11, callbacks=[whole])
    assert whole.steps == [11, 11 // k]
    fit(dcgan(n_critic=k), steps=7, callbacks=[first]).save_checkpoint(tmp_path / "7.ckpt")
    fit(dcgan(n_critic=k), steps=11, callbacks=[second], ckpt_path=tmp_path / "7.ckpt")
    assert first.steps == [7, 7 // k] and second.steps == [4, 11 // k - 7 // k]


def test_losses_are_logged_as_means_at_exact_steps():
    """Every 4 batches, the mean of the 4; the step is the number of batches, and `images` is logged as well."""
    model, logger, terms = dcgan(), Remember(), []
    equation = model.discriminator_loss
    model.discriminator_loss = lambda batch: terms.append(equation(batch)) or terms[-1]
    fit(model, steps=10, logger=logger, log_every_n_steps=4)
    assert [step for step, _ in logger.rows] == [4, 8]
    assert [row["images"] for _, row in logger.rows] == [4 * BATCH, 8 * BATCH]
    for (_, row), part in zip(logger.rows, (terms[:4], terms[4:8]), strict=True):
        for name in ("real", "fake"):
            assert row[f"D/{name}"] == pytest.approx(sum(t[name].item() for t in part) / 4, rel=1e-5)
        assert row["D/loss"] == pytest.approx(row["D/real"] + row["D/fake"], rel=1e-5)
        assert row["G/loss"] > 0


def test_logged_means_survive_a_resume(tmp_path):
    class Save(Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 6:
                trainer.save_checkpoint(tmp_path / "a.ckpt")

    whole, rest = Remember(), Remember()
    fit(dcgan(), steps=12, logger=whole, log_every_n_steps=4, callbacks=[Save()])
    fit(dcgan(), steps=12, logger=rest, log_every_n_steps=4, ckpt_path=tmp_path / "a.ckpt")
    assert whole.rows[1:] == rest.rows


def test_a_failing_logger_does_not_stop_the_training():
    class Failing(Remember):
        def log_metrics(self, metrics, step=None):
            raise ConnectionError("gone")

    assert fit(dcgan(), steps=4, logger=Failing(), log_every_n_steps=1).global_step == 4


def test_training_does_not_depend_on_the_global_generator():
    """Random numbers of a step depend on (seed, step), not on earlier draws."""

    class Disturb(Callback):
        def on_train_batch_start(self, *_):
            torch.rand(3)

    plain, disturbed = (ganzoo.GAN(image_size=8, hidden=8, d_hidden=8) for _ in range(2))
    disturbed.load_state_dict(plain.state_dict())
    fit(plain, steps=3)
    fit(disturbed, steps=3, callbacks=[Disturb()])
    for key, value in plain.state_dict().items():
        assert torch.equal(value, disturbed.state_dict()[key]), key


def test_another_seed_gives_other_weights(monkeypatch):
    first, second = dcgan(), dcgan()
    fit(first, steps=1)
    monkeypatch.setenv("PL_GLOBAL_SEED", "1")
    fit(second, steps=1)
    assert not torch.equal(
        first.state_dict()["discriminator.score.weight"], second.state_dict()["discriminator.score.weight"]
    )


def test_mix_gives_distinct_uniform_seeds():
    seeds = [mix(seed, step, rank) for seed in range(10) for step in range(50) for rank in range(4)]
    assert len({seed % 2**32 for seed in seeds}) == len(seeds)
    ones = torch.tensor([[seed >> bit & 1 for bit in range(63)] for seed in seeds], dtype=torch.float64).mean(0)
    assert (ones - 0.5).abs().max() < 0.05


def test_ema_matches_its_closed_form():
    """Three updates of one half-life each: weights 1/8 (initial), 1/8, 1/4, 1/2; buffers are copied, not averaged."""
    net = nn.BatchNorm1d(1)
    average = ema.frozen_copy(net)
    for value in (1.0, 2.0, 3.0):
        nn.init.constant_(net.weight, value)
        net.running_mean.fill_(10 * value)
        ema.update(average, net, ema.decay(100, 1000, half_life=100))
    assert average.weight.item() == pytest.approx(1 / 8 + 1 / 8 + 2 / 4 + 3 / 2)
    assert average.running_mean.item() == 30
    assert not average.training and not average.weight.requires_grad


def test_ema_ramps_up():
    assert ema.decay(64, 640, half_life=10_000, ramp_up=0.05) == pytest.approx(0.5 ** (64 / 32))
    assert ema.decay(64, 10**9, half_life=10_000, ramp_up=0.05) == pytest.approx(0.5 ** (64 / 10_000))


@pytest.mark.parametrize("n_critic", [1, 2])
def test_ema_follows_the_generator_in_images(n_critic):
    """Updated after each G step by the images since the last one; not in an optimizer; used by `generate`."""
    model, history = dcgan(ema_half_life=32.0, n_critic=n_critic), []

    class Watch(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            history.append(pl_module.generator.project.weight.detach().clone())

    start = model.generator.project.weight.detach().clone()
    trainer = fit(model, steps=4, callbacks=[Watch()])
    expected, keep = start, 0.5 ** (n_critic * BATCH / 32)
    for weight in history[n_critic - 1 :: n_critic]:
        expected = keep * expected + (1 - keep) * weight
    torch.testing.assert_close(model.ema.project.weight, expected)
    trained = {id(p) for optimizer in trainer.optimizers for group in optimizer.param_groups for p in group["params"]}
    assert not trained & {id(p) for p in model.ema.parameters()}
    with torch.no_grad():
        z = model.latent(2)
        torch.testing.assert_close(model.generate(z), model.ema(z))


def test_microbatches_give_the_update_of_the_batch():
    """Without batch statistics and dropout, two halves give the update of the whole."""

    def gan(**more):
        torch.manual_seed(0)
        model = ganzoo.GAN(image_size=8, hidden=8, d_hidden=8, **more).eval()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        return model

    whole, halves = gan(), gan(microbatches=2)
    fit(whole, steps=3)
    fit(halves, steps=3)
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(value, halves.state_dict()[key], rtol=1e-5, atol=1e-7)


def test_microbatches_must_divide_the_batch():
    with pytest.raises(Exception, match="microbatches: 3 does not divide"):
        fit(dcgan(microbatches=3), steps=1)


class Norms(Callback):
    """Records the gradient norm at each optimizer step."""

    def __init__(self):
        self.norms = []

    def on_train_start(self, trainer, pl_module):
        for optimizer in trainer.optimizers:
            optimizer.register_step_post_hook(
                lambda opt, *_: self.norms.append(
                    torch.stack([p.grad.norm() for group in opt.param_groups for p in group["params"]]).norm().item()
                )
            )


def sgd(params):
    return SGD(params, lr=0.0)


def test_gradient_norms_are_clipped():
    free, clipped = Norms(), Norms()
    fit(dcgan(optimizer=sgd), steps=2, callbacks=[free])
    fit(dcgan(optimizer=sgd, clip_norm=0.005), steps=2, callbacks=[clipped])
    assert min(free.norms) > 0.01
    assert clipped.norms == pytest.approx([0.005] * 4, rel=1e-3)


def test_clipping_sees_unscaled_gradients():
    """Under fp16 the loss is scaled by 1024; the norm is clipped after unscaling."""
    free, clipped = Norms(), Norms()
    for clip_norm, norms in ((None, free), (0.005, clipped)):
        plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0))
        fit(dcgan(optimizer=sgd, clip_norm=clip_norm), steps=2, callbacks=[norms], plugins=[plugin])
    assert min(free.norms) > 0.01 and max(free.norms) < 1
    assert clipped.norms == pytest.approx([0.005] * 4, rel=1e-2)


def test_schedulers_count_batches():
    model = dcgan(n_critic=2, lr_scheduler=lambda opt: torch.optim.lr_scheduler.StepLR(opt, 3, gamma=0.1))
    trainer = fit(model, steps=7)
    assert [o.param_groups[0]["lr"] for o in trainer.optimizers] == pytest.approx([2e-6, 2e-6])


LAZY = {"StyleGAN2": ("r1_interval", "path_interval"), "StyleGAN3": ("r1_interval",)}  # of equations of their own
FADING = {"ProGAN": {"stable": 0.0, "fade": 1000.0}}  # no change of stage, which needs new graphs


def of_equations():
    """Variants, and whether the equations are the lazy ones."""
    for name in ganzoo.list_models():
        yield pytest.param(name, False, marks=[pytest.mark.slow] * (name in TWINS))
        if name in LAZY:
            yield pytest.param(name, True, marks=pytest.mark.slow)


@pytest.mark.parametrize(("name", "lazy"), of_equations())
def test_compiled_losses_are_two_graphs_with_eager_gradients(name, lazy, monkeypatch):
    """Each loss compiles as a single graph, once, with the gradients of the eager loss."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    # torch would describe every node to pytest's handlers
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "handlers", [])
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda fn: compile_(fn, backend=backend, fullgraph=True))

    def make(**more):
        torch.manual_seed(0)
        intervals = dict.fromkeys(LAZY.get(name, ()), 2 if lazy else 5)
        arguments = {**small(name), **intervals, **FADING.get(name, {}), "n_critic": 1, **more}
        arguments["optimizer"] = lambda p: SGD(p, lr=0.01)
        return getattr(ganzoo, name)(**arguments)

    eager, compiled = make(), make(compile_losses=True)
    fit(eager, steps=4)
    fit(compiled, steps=4)
    assert len(graphs) == (2 + len(LAZY[name]) if lazy else 2), f"{len(graphs)} graphs"
    for key, value in eager.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[key], value, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_compiled_losses_train_with_inductor():
    model = dcgan(compile_losses=True)
    fit(model, steps=4)
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["32-true", "16-mixed", "bf16-mixed"])
def test_training_and_sampling_on_cuda(precision):
    model = dcgan(ema_half_life=100.0, compile_losses=precision == "32-true")
    fit(model, steps=5, accelerator="cuda", devices=1, precision=precision)
    assert int(model.images_seen) == 5 * BATCH
    assert all(p.isfinite().all() for p in model.parameters())
    images = model.to("cuda").sample(4, seeds=range(4))
    torch.testing.assert_close(images, model.to("cpu").sample(4, seeds=range(4)), atol=2e-2, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("steps", [2, 3], ids=["a grid at the end", "no grid at the end"])
def test_a_run_on_cuda_has_its_final_files(tmp_path, monkeypatch, steps):
    """Lightning moves the model to the CPU before they are made."""
    monkeypatch.chdir(tmp_path)
    command = "fit --config dcgan/digits --trainer.accelerator cuda --trainer.devices 1 --samples.every_n_steps 2"
    assert main([*command.split(), "--trainer.max_steps", str(steps), "--scores.final_n", "100"]) == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert all((run / name).exists() for name in ("interpolation.png", "samples.mp4", "checkpoints/last.ckpt"))
    assert all(math.isfinite(score.value) for score in Report.load(run / "scores.json").scores)


def test_fit_sets_train_mode():
    model = dcgan(ema_half_life=10.0)
    model.configure_model()
    fit(model.eval(), steps=1)
    assert model.generator.training and model.discriminator.training and not model.ema.training


def test_validation_logs_both_losses():
    model = dcgan()
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    (result,) = trainer.validate(model, NoiseImages(model), verbose=False)
    assert set(result) == {"val/D/loss", "val/G/loss"}
    assert all(math.isfinite(value) for value in result.values())
    (again,) = trainer.validate(model, NoiseImages(model), verbose=False)
    assert result == again


@pytest.mark.parametrize("bad", [{"n_critic": 0}, {"microbatches": 0}, {"clip_norm": -1.0}, {"ema_half_life": 0.0}])
def test_arguments_out_of_range(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        dcgan(**bad)


def test_hyperparameters_are_the_variants_own_plain_arguments():
    model = dcgan(optimizer=lambda p: SGD(p, lr=0.1))
    assert dict(model.hparams) == {**TINY, "z_dim": 100}
    assert dict(dcgan(n_critic=2).hparams) == {**TINY, "z_dim": 100, "n_critic": 2}


class Record(ganzoo.DCGAN):
    """Records the latents of each update and the learning rates of each batch."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.zs, self.rates = [], []

    def minimize(self, loss, batch, *, player):
        super().minimize(lambda part: (self.zs.append(part["z"]), loss(part))[1], batch, player=player)

    def schedule(self, images_seen):
        for optimizer in self.trainer.optimizers:
            optimizer.param_groups[0]["lr"] = 1e-3 / (1 + images_seen)

    def play(self, batch):
        self.rates.append([optimizer.param_groups[0]["lr"] for optimizer in self.trainer.optimizers])
        super().play(batch)


def test_every_update_has_new_latents():
    model = Record(**TINY)
    fit(model, steps=3)
    assert len(model.zs) == 6
    assert len({tuple(z.flatten().tolist()) for z in model.zs}) == 6


def test_schedule_is_called_before_each_batch_with_the_images_seen():
    model = Record(**TINY)
    fit(model, steps=3)
    assert model.rates == [[1e-3 / (1 + images)] * 2 for images in (0, BATCH, 2 * BATCH)]


@pytest.mark.parametrize("name", ["DCGAN", "LSGAN", "EBGAN", "ACGAN"])
def test_latents_are_uniform_in_minus_one_to_one(name):
    z = getattr(ganzoo, name)(**small(name)).latent(10_000, torch.Generator().manual_seed(0))
    assert z.min() < -0.99 and z.max() > 0.99 and z.abs().max() <= 1
    assert z.mean().abs() < 0.02


def test_the_discriminator_can_have_another_optimizer():
    trainer = fit(dcgan(optimizer=sgd, discriminator_optimizer=lambda p: SGD(p, lr=0.5)), steps=1)
    assert [optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers] == [0.5, 0.0]


def test_ema_ramps_up_while_training():
    """With a ramp-up of 1, the half-life of the first update is the images seen, so the average moves halfway."""
    model = dcgan(ema_half_life=1e9, ema_ramp_up=1.0)
    start = model.generator.project.weight.detach().clone()
    fit(model, steps=1)
    torch.testing.assert_close(model.ema.project.weight, (start + model.generator.project.weight) / 2)


def test_an_error_in_a_loss_restores_requires_grad():
    model = dcgan()
    model.generator_loss = lambda batch: 1 / 0
    with pytest.raises(ZeroDivisionError):
        fit(model, steps=1)
    assert all(p.requires_grad for p in model.parameters())


def test_layers_frozen_by_the_user_stay_frozen():
    model = dcgan()
    model.discriminator.layers[0].requires_grad_(False)
    before = model.discriminator.layers[0].weight.clone()
    fit(model, steps=3)
    assert torch.equal(before, model.discriminator.layers[0].weight)
    assert not model.discriminator.layers[0].weight.requires_grad


def test_the_buffers_of_the_opponent_do_not_change():
    """Including spectral norm's power iteration, which moves only in the discriminator's step."""

    class Spectral(ganzoo.DCGAN):
        def __init__(self, **arguments):
            super().__init__(**arguments)
            torch.nn.utils.parametrizations.spectral_norm(self.discriminator.score)

    check_turns(lambda: Spectral(**TINY))


def test_a_copy_of_a_compiled_model_trains_independently(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda loss: loss)
    model = dcgan(compile_losses=True)
    fit(model, steps=1)
    twin, before = copy.deepcopy(model), copy.deepcopy(model.state_dict())
    fit(twin, steps=1)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())
    assert not torch.equal(twin.discriminator.score.weight, model.discriminator.score.weight)


def test_clipping_under_bfloat16_with_the_default_optimizer():
    norms = Norms()
    fit(dcgan(clip_norm=0.005), steps=2, callbacks=[norms], precision="bf16-mixed")
    assert norms.norms == pytest.approx([0.005] * 4, rel=1e-2)


class Observing(ganzoo.DCGAN):
    def discriminator_loss(self, batch):
        self.observe("training", batch["image"].new_tensor(float(self.training)))
        self.observe("images", batch["image"].new_tensor(len(batch["image"])))
        return super().discriminator_loss(batch)

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        self.observe("extended", batch["image"].new_tensor(len(batch["image"])))


def test_observe_separates_training_and_validation():
    logger = Remember()
    fit(Observing(**TINY), steps=6, logger=logger, log_every_n_steps=2, limit_val_batches=1)
    assert {row["training"] for _, row in logger.rows if "training" in row} == {1.0}
    assert {row["val/training"] for _, row in logger.rows if "val/training" in row} == {0.0}
    assert not any("extended" in row for _, row in logger.rows)


def test_observe_weights_held_out_batches_by_their_size():
    """25 images in batches of 10, 10 and 5: their mean batch has (10 * 10 + 10 * 10 + 5 * 5) / 25 = 9 images."""
    logger, model = Remember(), Observing(**TINY)
    fit(model, NoiseImages(model, batch_size=10), steps=2, logger=logger, limit_val_batches=3)
    (row,) = (row for _, row in logger.rows if "val/images" in row)
    assert row["val/images"] == row["val/extended"] == pytest.approx(9)


def test_observe_outside_of_a_run_records_nothing():
    model = Observing(**TINY).eval()
    model.discriminator_loss({"image": torch.zeros(2, 1, 8, 8), "z": model.latent(2)})
    model.loss_log.collect(model.loss_log.training)
    assert model.loss_log.training.pop() == {}


def test_values_observed_before_fit_are_not_logged():
    logger, model = Remember(), Observing(**TINY)
    model.discriminator_loss({"image": torch.zeros(2, 1, 8, 8), "z": model.latent(2)})
    fit(model, steps=2, logger=logger, log_every_n_steps=2, limit_val_batches=1)
    assert logger.rows[0][1]["training"] == 1.0 and logger.rows[0][1]["images"] == BATCH  # the batch size
    assert model.loss_log.held_out_images == 0


def test_validation_losses_are_logged_at_their_step():
    logger = Remember()
    fit(dcgan(), steps=6, logger=logger, log_every_n_steps=100, limit_val_batches=1)
    assert [(step, set(row)) for step, row in logger.rows] == [
        (step, {"images", "val/D/loss", "val/G/loss"}) for step in (3, 6)
    ]


def test_a_checkpoint_of_another_variant_is_refused(tmp_path):
    fit(dcgan(), steps=1).save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(MisconfigurationException, match="contains a DCGAN, not a GAN"):
        fit(ganzoo.GAN(image_size=8, hidden=4, d_hidden=4), steps=2, ckpt_path=tmp_path / "a.ckpt")


def test_arguments_that_cannot_be_saved_are_warned_about():
    class Sized(ganzoo.DCGAN):
        def __init__(self, sizes=None, **arguments):
            super().__init__(**arguments)

    with pytest.warns(UserWarning, match="sizes"):
        assert Sized(sizes={4: 8}, **TINY).not_saved == ["sizes"]


def test_a_model_created_in_another_constructor_saves_its_own_arguments():
    class Holder(torch.nn.Module):
        def __init__(self, k):
            super().__init__()
            self.model = ganzoo.DCGAN(**TINY)

    assert dict(Holder(3).model.hparams) == {**TINY, "z_dim": 100}


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_true_precisions_are_refused(precision):
    with pytest.raises(MisconfigurationException, match="bf16-mixed"):
        fit(dcgan(), steps=1, precision=precision)


def test_batches_that_are_no_dict_are_refused():
    images = torch.utils.data.TensorDataset(torch.zeros(8, 1, 8, 8))
    with pytest.raises(MisconfigurationException, match="a batch must be a dict"):
        fit(dcgan(), torch.utils.data.DataLoader(images, 4), steps=1)


def test_a_second_resume_after_one_at_the_end_of_an_epoch_is_bit_identical(tmp_path):
    """Under max_epochs, Lightning itself would take the second checkpoint for one at the end of an epoch."""

    class Save(Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.save_checkpoint(tmp_path / f"{trainer.global_step}.ckpt")

    def epochs(model, ckpt_path=None):
        return fit(model, steps=-1, max_epochs=3, ckpt_path=ckpt_path, callbacks=[Save()])

    whole, first, second = dcgan(), dcgan(), dcgan()
    epochs(whole)
    epochs(first, tmp_path / "3.ckpt")
    assert epochs(second, tmp_path / "4.ckpt").global_step == 9
    for key, value in whole.state_dict().items():
        assert torch.equal(value, first.state_dict()[key]) and torch.equal(value, second.state_dict()[key]), key


def test_sizes_that_differ_from_the_data_are_refused():
    with pytest.raises(MisconfigurationException, match="image_size is 16, but 8 in the data"):
        fit(ganzoo.DCGAN(**{**TINY, "image_size": 16}), Digits(), steps=1)


def test_held_out_batches_have_their_own_latents():
    model, seen = dcgan(), []
    equation = model.discriminator_loss
    model.discriminator_loss = lambda batch: seen.append(batch["z"].clone()) or equation(batch)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    Trainer(accelerator="cpu", **quiet).validate(model, NoiseImages(model), verbose=False)
    assert len(seen) > 1 and not torch.equal(seen[0], seen[1])


def test_a_network_of_neither_player_is_refused():
    model = dcgan()
    model.encoder = nn.Linear(2, 1)
    with pytest.raises(MisconfigurationException, match="encoder.weight belongs to neither player, .* make it part of"):
        fit(model, steps=1)
    model.encoder.requires_grad_(False)
    fit(model, steps=1)
