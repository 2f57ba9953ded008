"""The workarounds for Lightning: each test fails as soon as Lightning no longer needs its workaround."""

from __future__ import annotations

import inspect
import os
import warnings
from datetime import timedelta
from pathlib import Path

import lightning.fabric
import pytest
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loops import training_epoch_loop
from lightning.pytorch.overrides import distributed
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.optim import SGD

import ganzoo
from ganzoo.callbacks.samples import Samples
from ganzoo.checkpoint.sealed import CheckpointIO
from ganzoo.core import lightning_fixes
from ganzoo.core.lightning_fixes import BatchEndCallback, NoProfiler, quiet
from ganzoo.testing import NoiseImages, fit

NO_LONGER = "Lightning needs this no longer: take it out of lightning_fixes"


def dcgan():
    torch.manual_seed(0)
    return ganzoo.DCGAN(image_size=8, channels=1, width=4)


class Plain(LightningModule):
    """Two optimizers under manual optimization, as in Lightning's documentation."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.a, self.b = nn.Linear(1, 1), nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        for optimizer, network in zip(self.optimizers(), (self.a, self.b), strict=True):
            optimizer.zero_grad()
            self.manual_backward(network(batch).sum())
            optimizer.step()

    def configure_optimizers(self):
        return [SGD(self.a.parameters(), lr=0.1), SGD(self.b.parameters(), lr=0.1)]


def plain(model=None, n=3, **more):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = Trainer(accelerator="cpu", logger=False, max_epochs=1, **quiet, **more)
    trainer.fit(model or Plain(), torch.utils.data.DataLoader(torch.ones(n, 1)))
    return trainer


def test_lightning_counts_the_steps_of_all_optimizers():
    assert plain().global_step == 6, NO_LONGER
    assert fit(dcgan(), steps=3).global_step == 3


def test_lightning_miscounts_epochs_after_resuming_at_the_end_of_one(tmp_path, monkeypatch):
    class Save(Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.save_checkpoint(tmp_path / f"{trainer.global_step}.ckpt")

    def resumed_twice():
        for path in tmp_path.iterdir():
            path.unlink()
        for ckpt_path in (None, tmp_path / "3.ckpt", tmp_path / "4.ckpt"):
            trainer = fit(dcgan(), steps=-1, max_epochs=3, ckpt_path=ckpt_path, callbacks=[Save()])
        return trainer.global_step

    assert resumed_twice() == 9
    monkeypatch.setattr(lightning_fixes, "count_finished_epoch", lambda trainer: None)
    assert resumed_twice() != 9, NO_LONGER


def test_lightning_cannot_replace_a_wrapped_checkpoint_io(tmp_path):
    plugin = AsyncCheckpointIO(TorchCheckpointIO())
    plugin.checkpoint_io = CheckpointIO()
    assert type(plugin.checkpoint_io) is TorchCheckpointIO, NO_LONGER
    trainer = fit(dcgan(), steps=1, plugins=[plugin])
    assert type(trainer.strategy.checkpoint_io.checkpoint_io) is CheckpointIO


def test_lightning_does_not_set_train_mode():
    model = Plain().eval()
    plain(model)
    assert not model.training, NO_LONGER
    model = dcgan().eval()
    fit(model, steps=1)
    assert model.training and model.discriminator.training


def test_lightning_enables_the_nvml_based_cuda_check(monkeypatch):
    name = "PYTORCH_NVML_BASED_CUDA_CHECK"
    assert f'os.environ["{name}"] = "1"' in Path(lightning.fabric.__file__).read_text(), NO_LONGER
    monkeypatch.setenv(name, "1")
    fit(dcgan(), steps=1)
    assert os.environ[name] == "0"


def test_lightning_sets_one_attribute_around_every_hook(monkeypatch):
    names = []

    class Counted(Plain):
        def __setattr__(self, name, value):
            names.append(name)
            super().__setattr__(name, value)

    plain(Counted(), n=10)
    assert names.count("_current_fx_name") > 10 * 10, NO_LONGER
    model, slow = dcgan(), []
    setattr_ = nn.Module.__setattr__
    monkeypatch.setattr(nn.Module, "__setattr__", lambda self, *item: slow.append(item[0]) or setattr_(self, *item))
    model._current_fx_name, model.width = "training_step", nn.Linear(1, 1)
    assert model._current_fx_name == "training_step" and "width" in dict(model.named_children())
    assert "width" in slow and "_current_fx_name" not in slow


def test_lightning_inspects_the_training_step_in_every_batch(monkeypatch):
    inspected = []
    looks = training_epoch_loop.is_param_in_hook_signature
    monkeypatch.setattr(
        training_epoch_loop,
        "is_param_in_hook_signature",
        lambda hook, *args, **more: inspected.append(hook) or looks(hook, *args, **more),
    )
    plain(n=10)
    assert len(inspected) >= 10, NO_LONGER
    step = ganzoo.DCGAN.training_step
    assert step.__signature__ is inspect.signature(step)
    assert list(inspect.signature(dcgan().training_step).parameters) == ["batch", "batch_idx"]


def test_lightning_calls_empty_hooks():
    """Unless they are None."""

    class Counting(Callback):
        calls = 0

        def __getattribute__(self, name):
            if name in QUIET:
                Counting.calls += 1
            return super().__getattribute__(name)

    QUIET = [name for name, value in vars(BatchEndCallback).items() if name.startswith("on_") and value is None]
    assert len(QUIET) == 5
    plain(callbacks=[Counting()])
    assert Counting.calls >= 3 * 7, NO_LONGER
    assert all(getattr(Samples(), name) is None for name in QUIET)
    model, samples = dcgan(), BatchEndCallback()
    assert fit(model, NoiseImages(model), steps=2, callbacks=[samples]).global_step == 2


def test_lightning_enters_a_generator_without_a_profiler():
    trainer = plain()
    assert inspect.isgeneratorfunction(inspect.unwrap(type(trainer.profiler).profile)), NO_LONGER
    with NoProfiler().profile("a"), NoProfiler().profile("b"):
        pass
    assert fit(dcgan(), steps=2, profiler=NoProfiler()).global_step == 2


def test_lightning_broadcasts_sigterm_in_every_batch():
    loop = plain().fit_loop.epoch_loop
    assert "_broadcast_sigterm_tensor" in inspect.getsource(type(loop).advance), NO_LONGER
    trainer = plain()
    lightning_fixes.skip_sigterm_broadcast(trainer)
    assert trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor is lightning_fixes._nothing


def test_lightning_warns_of_leafspec():
    def warned(silence):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            silence()
            plain()
        return [str(warning.message) for warning in caught if "LeafSpec" in str(warning.message)]

    assert warned(lambda: None), NO_LONGER
    assert not warned(quiet)


def test_lightning_raises_if_a_model_has_no_trainer():
    model = dcgan()
    with pytest.raises(RuntimeError, match="not attached"):
        _ = model.trainer
    assert not lightning_fixes.attached(model)
    fit(model, steps=1)
    assert lightning_fixes.attached(model)


def test_lightning_has_no_public_way_to_synchronise_replicas():
    assert not hasattr(distributed, "sync_module_states"), NO_LONGER


HOOKS = "on_before_backward", "on_after_backward", "on_before_optimizer_step"


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("where", ["callback", "variant"])
def test_overridden_hooks_within_a_batch_are_called(where, hook):
    called = []
    listens = {hook: lambda *args: called.append(args)}
    callback, variant = Callback(), ganzoo.DCGAN
    if where == "callback":
        callback = type("Listens", (Callback,), listens)()
    else:
        variant = type("Listens", (ganzoo.DCGAN,), listens)
    model = variant(image_size=8, channels=1, width=4)
    fit(model, steps=3, callbacks=[callback])
    assert len(called) == 6 and not model.direct


@pytest.mark.parametrize(
    ("settings", "direct"),
    [
        ({}, True),
        ({"precision": "bf16-mixed"}, True),
        ({"plugins": [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=8.0))]}, False),
        ({"callbacks": [Samples(), Callback()], "enable_checkpointing": False}, True),
    ],
)
def test_steps_without_overridden_hooks_bypass_lightning(settings, direct, tmp_path):
    """The weights are bit-identical to those with an overridden hook."""
    model, listened = dcgan(), dcgan()
    listener = type("Listens", (Callback,), {"on_after_backward": lambda *_: None})()
    fit(model, steps=3, default_root_dir=tmp_path, **settings)
    callbacks = [*settings.pop("callbacks", []), listener]
    if direct:
        fit(listened, steps=3, default_root_dir=tmp_path, callbacks=callbacks, **settings)
        assert not listened.direct
        assert all(torch.equal(value, listened.state_dict()[key]) for key, value in model.state_dict().items())
    assert model.direct == direct


def test_clipping_goes_through_lightning():
    torch.manual_seed(0)
    model = ganzoo.DCGAN(image_size=8, channels=1, width=4, clip_norm=1.0)
    fit(model, steps=1)
    assert not model.direct


def test_lightning_calls_hooks_around_a_backward_pass():
    seen = []

    class Listens(Callback):
        def on_before_backward(self, trainer, pl_module, loss):
            seen.append(loss)

    plain(callbacks=[Listens()], n=1)
    assert len(seen) == 2, NO_LONGER


def test_losses_reach_the_progress_bar_and_monitoring_callbacks(tmp_path):
    class Look(Callback):
        def on_train_batch_end(self, trainer, *_):
            seen.append((dict(trainer.callback_metrics), dict(trainer.progress_bar_metrics)))

    seen = []
    stopping = EarlyStopping("D/loss", patience=1, min_delta=100.0, check_on_train_epoch_end=True)
    kept = ModelCheckpoint(tmp_path, monitor="G/loss", every_n_train_steps=2)
    callbacks = [Look(), stopping, kept]
    trainer = fit(dcgan(), steps=30, log_every_n_steps=2, callbacks=callbacks, enable_checkpointing=True)
    assert seen[0] == ({}, {})
    assert all(set(metrics) == {"D/loss", "G/loss"} for metrics in seen[1])
    assert seen[1][0]["D/loss"].item() == pytest.approx(seen[1][1]["D/loss"]) and seen[2] == seen[1] != seen[3]
    assert trainer.global_step == 6, "the loss did not fall by 100 from the first epoch to the second"
    assert kept.best_model_score is not None and list(tmp_path.iterdir())


def test_lightning_fails_to_save_by_a_monitor_not_yet_logged(tmp_path, monkeypatch):
    class Validates(Plain):
        def validation_step(self, batch, batch_idx):
            pass

    def run():
        wait = Callback()
        wait.on_validation_end = lambda trainer, _: lightning_fixes.save_nothing_now(kept, trainer)
        kept = ModelCheckpoint(tmp_path, monitor="late")
        batches = torch.utils.data.DataLoader(torch.ones(3, 1))
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
        Trainer(max_epochs=1, callbacks=[wait, kept], num_sanity_val_steps=0, **quiet).fit(
            Validates(), batches, batches
        )

    run()
    monkeypatch.setattr(lightning_fixes, "save_nothing_now", lambda *_: None)
    with pytest.raises(MisconfigurationException, match="could not find the monitored key"):
        run()
        pytest.fail(NO_LONGER)


def test_lightning_counts_a_value_in_each_epoch():
    class Once(Callback):
        def on_train_start(self, trainer, pl_module):
            trainer.callback_metrics["x"] = torch.tensor(1.0)

    def waited(stopping):
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
        trainer = Trainer(max_epochs=3, callbacks=[Once(), stopping], enable_checkpointing=False, **quiet)
        trainer.fit(Plain(), torch.utils.data.DataLoader(torch.ones(3, 1)))
        return stopping.wait_count

    stopping = EarlyStopping("x", patience=9, check_on_train_epoch_end=True)
    assert waited(stopping) == 2, NO_LONGER
    lightning_fixes.check_when_asked(stopping)
    assert waited(stopping) == 2, "nobody asks"
    lightning_fixes.check_as_usual(stopping)
    assert waited(stopping) == 5


def test_lightning_saves_nothing_by_time(tmp_path):
    kept = ModelCheckpoint(tmp_path, train_time_interval=timedelta(0))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    Trainer(max_epochs=1, callbacks=[kept], **quiet).fit(Plain(), torch.utils.data.DataLoader(torch.ones(3, 1)))
    assert lightning_fixes.saves_by_time(kept) and not list(tmp_path.iterdir()), NO_LONGER
