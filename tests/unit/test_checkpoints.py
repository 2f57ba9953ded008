"""The Checkpoints callback: saved and kept files, rollbacks, and runs resumed after they were killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import shlex
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils._pytree import tree_flatten

import ganzoo
from ganzoo.callbacks import checkpoints as module
from ganzoo.callbacks.base import save
from ganzoo.callbacks.checkpoints import Checkpoints
from ganzoo.checkpoint.sealed import intact, newest, read
from ganzoo.cli import main
from ganzoo.optim.adam import FusedAdam
from ganzoo.testing import NoiseImages, fit
from tests.variants import small

RUN = Path("runs/001-gan-digits")
COMMAND = (
    "fit --model GAN --model.hidden 8 --model.d_hidden 4 --model.ema_half_life 100 --data Digits --data.image_size 8 "
    "--data.batch_size 100 --data.flip true --trainer.max_steps 40 --trainer.log_every_n_steps 3 "
    "--checkpoint.every_n_steps 7 --samples.every_n_steps 20 --samples.rows 2 --samples.columns 2 --scores.n 20 "
    "--scores.every_n_steps 10 --scores.final_n 20 --diagnostics.every_n_steps 10 --diagnostics.n 20 "
    "--samples.video_fps 0 --trainer.accelerator cpu --ckpt_path last"
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def names():
    """Stems of all checkpoints except last.ckpt."""
    return sorted(path.stem for path in Path("checkpoints").iterdir() if path.name != "last.ckpt")


def train(tmp_path, steps, resume=None, model=None, **settings):
    torch.manual_seed(0)
    model = model or ganzoo.DCGAN(**small("DCGAN"))
    keep = Checkpoints(**settings)
    path = {"default_root_dir": tmp_path, "enable_checkpointing": True, "ckpt_path": resume and str(resume)}
    return fit(model, NoiseImages(model), steps=steps, callbacks=[keep], **path)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"every_n_steps": 2}, ["00000004", "00000006"]),
        ({"every_n_steps": 2, "keep_last": 1}, ["00000006"]),
        ({"every_n_steps": 3, "keep_last": 5}, ["00000003", "00000006"]),
        # 8 images a step
        ({"every_n_steps": None, "keep_every_n_images": 20}, ["kept-00000003", "kept-00000005"]),
        ({"every_n_steps": 3, "keep_last": 1, "keep_every_n_images": 24}, ["kept-00000003", "kept-00000006"]),
        ({"every_n_steps": None}, []),
    ],
)
def test_kept_checkpoints(settings, kept, tmp_path):
    train(tmp_path, 7, **settings)
    assert names() == kept and read(Path("checkpoints/last.ckpt"))["global_step"] == 7


def test_checkpoints_at_intervals_of_time(tmp_path, monkeypatch):
    now = iter(range(0, 10**6, 20))  # each call advances the clock by 20 s
    monkeypatch.setattr(module.time, "monotonic", lambda: next(now))
    train(tmp_path, 12, every_n_steps=None, every_minutes=1, keep_last=9)
    assert len(names()) >= 2 and all(name.isdigit() for name in names())


def test_a_checkpoint_holds_only_what_resuming_needs(tmp_path):
    """Weights, their average, Adam's moments (twice the weights), and a few kilobytes of counters."""
    model = ganzoo.DCGAN(image_size=16, channels=1, width=32, ema_half_life=10.0)
    train(tmp_path, 1, every_n_steps=1, model=model)
    checkpoint = read(Path("checkpoints/00000001.ckpt"))
    assert set(checkpoint) == {
        *("epoch", "global_step", "pytorch-lightning_version", "state_dict", "loops", "callbacks", "optimizer_states"),
        *("lr_schedulers", "hparams_name", "hyper_parameters", "ganzoo"),
    } | ({"datamodule_hparams_name", "datamodule_hyper_parameters"} & set(checkpoint))
    weights = sum(p.numel() * 4 for player in (model.generator, model.discriminator) for p in player.parameters())
    average = sum(p.numel() * 4 for p in model.ema.parameters())
    size = Path("checkpoints/00000001.ckpt").stat().st_size
    assert size < 3 * weights + average + 40_000


def test_resuming_removes_checkpoints_of_later_steps(tmp_path):
    """Otherwise a later start would resume from the abandoned run."""
    train(tmp_path, 8, every_n_steps=2, keep_last=4)
    Path("checkpoints/last.ckpt").write_bytes(Path("checkpoints/00000008.ckpt").read_bytes())
    Path("checkpoints/00000009.ckpt.partial").write_bytes(b"killed in the middle")
    train(tmp_path, 5, resume="checkpoints/00000004.ckpt", every_n_steps=5, keep_last=4)
    assert names() == ["00000002", "00000004", "00000005"]


def test_a_full_disk_does_not_stop_training(tmp_path, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    model = ganzoo.DCGAN(**small("DCGAN"))
    train(tmp_path, 2, every_n_steps=2)
    monkeypatch.setattr("ganzoo.checkpoint.sealed.write_atomically", full)
    capsys.readouterr()
    trainer = train(tmp_path, 5, every_n_steps=2, keep_last=1, model=model)
    assert "00000004.ckpt was not written: No space left on device; any earlier" in capsys.readouterr().err
    assert trainer.global_step == 5 and names() == ["00000002.ckpt", "last.ckpt"], "those of the run before stay"


@pytest.mark.parametrize("bad", ["every_n_steps", "keep_last", "keep_every_n_images", "every_minutes"])
def test_settings_below_one_are_refused(bad):
    with pytest.raises(ValueError, match=f"{bad} is 0; it takes"):
        Checkpoints(**{bad: 0})


# Complete runs, each in its own process


def start(command=COMMAND, prepare=None):
    """Start a run in a forked child, which has all modules imported."""

    def child():
        os.setpgid(0, 0)
        if prepare:
            prepare()
        sys.stdout = sys.stderr = open("said", "a", buffering=1)  # noqa: SIM115
        os._exit(main(shlex.split(command)))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    return process


def run(command=COMMAND, prepare=None):
    Path("said").unlink(missing_ok=True)
    process = start(command, prepare)
    process.join(120)
    return process.exitcode


def said():
    return Path("said").read_text()


def dies_at(step, number=signal.SIGKILL, whom=os.getpid):
    """Return a `prepare` that signals the child (or its group, if `whom` returns 0) after `step` batches."""
    from ganzoo.core.module import GANModule

    def prepare():
        whole, done = GANModule.training_step, []

        def training_step(self, batch, batch_idx):
            result = whole(self, batch, batch_idx)
            if self.trainer.global_step >= step and not done:
                done.append(True)
                os.kill(whom(), number)
            return result

        GANModule.training_step = training_step

    return prepare


def everything(path):
    checkpoint = read(path)
    checkpoint["hyper_parameters"] = None
    leaves, spec = tree_flatten({k: v for k, v in checkpoint.items() if k != "loops"})
    return leaves, str(spec)


def logged(run):
    return [
        {k: v for k, v in json.loads(line).items() if k != "time"}
        for line in (run / "metrics.jsonl").read_text().splitlines()
    ]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    here = Path.cwd()
    try:
        os.chdir(tmp_path_factory.mktemp("whole"))
        assert run() == 0
        return RUN.absolute()
    finally:
        os.chdir(here)


def assert_equal_runs(whole, again):
    (a, a_spec), (b, b_spec) = (everything(run / "checkpoints" / "last.ckpt") for run in (whole, again))
    assert a_spec == b_spec
    assert all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in zip(a, b, strict=True))
    assert logged(whole) == logged(again)
    scores = [json.loads((run / "scores.json").read_text())["scores"] for run in (whole, again)]
    assert [score["value"] for score in scores[0]] == [score["value"] for score in scores[1]]


def test_the_same_command_resumes_a_killed_run_exactly(reference):
    """Killed before the first checkpoint, then in the middle of an epoch, then stopped by SIGTERM."""
    assert run(prepare=dies_at(4)) == -signal.SIGKILL
    assert not list(RUN.glob("checkpoints/*"))
    assert run(prepare=dies_at(18)) == -signal.SIGKILL
    assert sorted(p.name for p in RUN.glob("checkpoints/0*")) == ["00000007.ckpt", "00000014.ckpt"]
    assert run(prepare=dies_at(30, signal.SIGTERM)) == 75
    assert "Stopped at step 30" in said()
    assert run() == 0
    assert_equal_runs(reference, RUN)
    assert [path.name for path in Path("runs").iterdir()] == [RUN.name]
    assert run() == 0 and "already at step 40" in said()


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)])
def test_a_signal_to_the_process_group_with_closed_pipes_saves_the_state(number):
    """As in `fit 2>&1 | tee log`, where `tee` and the workers get the signal, too. The exit code is 75."""

    def whom():
        reader, writer = os.pipe()
        os.close(reader)
        for stream in (1, 2, sys.stderr.fileno()):
            os.dup2(writer, stream)
        return 0

    prepare = dies_at(12, number, whom)
    assert run(f"{COMMAND} --data.num_workers 2", prepare) == 75
    assert read(RUN / "checkpoints" / "last.ckpt")["global_step"] == 12


def test_a_damaged_checkpoint_is_named_and_the_previous_one_used(reference):
    assert run(prepare=dies_at(30)) == -signal.SIGKILL
    last = RUN / "checkpoints" / "00000028.ckpt"
    last.write_bytes(last.read_bytes()[:-1000])
    assert run(COMMAND.replace("last", str(RUN))) == 2
    assert "00000028.ckpt is damaged" in said() and "an earlier checkpoint is intact" in said()
    assert run() == 0
    assert f"{last} is damaged; continuing from {RUN}/checkpoints/00000021.ckpt" in said()
    assert_equal_runs(reference, RUN)


def test_a_run_killed_during_its_final_scores_computes_them_at_the_next_start(reference):
    """Training is complete and the last state is saved; only the scores are missing."""

    def prepare():
        from ganzoo.callbacks.scores import Scores

        Scores.on_fit_end = lambda *_: os.kill(os.getpid(), signal.SIGKILL)

    assert run(prepare=prepare) == -signal.SIGKILL
    assert not (RUN / "scores.json").exists()
    assert run() == 0
    assert_equal_runs(reference, RUN)


def test_another_config_starts_another_run():
    assert run(f"{COMMAND} --trainer.max_steps 3") == 0
    assert run(f"{COMMAND} --trainer.max_steps 4") == 0
    assert sorted(path.name for path in Path("runs").iterdir()) == ["001-gan-digits", "002-gan-digits"]


def test_two_processes_cannot_train_in_one_folder():
    forever = f"{COMMAND} --trainer.max_steps -1"
    first = start(forever)
    try:
        while not list(RUN.glob("checkpoints/0*")):
            time.sleep(0.05)
            assert first.is_alive()
        Path("said").rename("first")
        assert run(forever) == 2
        assert "another process is training in runs/001-gan-digits" in said() and "Traceback" not in said()
    finally:
        first.kill()
        first.join()
    assert run(forever, prepare=dies_at(60, signal.SIGINT)) == 130, "the lock ended with its process"


def test_a_full_disk_at_the_end_is_reported():
    """A limit on the size of files makes writes fail as on a full disk."""

    def prepare():
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    assert run(prepare=prepare) == 1
    assert "last.ckpt was not written: File too large" in said() and "Traceback" not in said()
    assert not list(RUN.glob("checkpoints/*"))
    assert run() == 0


def test_non_finite_losses_stop_the_run_and_the_error_says_how_to_resume(reference):
    def prepare():
        whole = ganzoo.GAN.generator_loss

        def generator_loss(self, batch):
            terms = whole(self, batch)
            return {name: t * (float("nan") if self.trainer.global_step == 29 else 1) for name, t in terms.items()}

        ganzoo.GAN.generator_loss = generator_loss

    assert run(prepare=prepare) == 2
    assert "not finite at step 30: the generator's term 'fake'" in said()
    assert f"resume with --ckpt_path {RUN}/checkpoints/00000028.ckpt" in said() and "--checkpoint.rollbacks 3" in said()
    assert run() == 0
    assert_equal_runs(reference, RUN)


# Regressions


def test_checkpoints_of_an_abandoned_run_are_never_the_newest(tmp_path):
    train(tmp_path, 9, every_n_steps=3, keep_last=3, keep_every_n_images=72)
    assert names() == ["00000003", "00000006", "kept-00000009"]
    train(tmp_path, 5, resume="checkpoints/00000003.ckpt", every_n_steps=3)
    assert newest(Path("checkpoints")).name == "last.ckpt" and read(Path("checkpoints/last.ckpt"))["global_step"] == 5
    assert "kept-00000009.ckpt" in names(), "it is there, but out of the order"


def test_a_run_stopped_within_an_epoch_resumes_exactly(tmp_path):
    """Stopped by `should_stop`, as by a time limit."""

    class Stop(Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.should_stop = trainer.global_step == 4

    def run(callbacks, steps, resume=None):
        torch.manual_seed(0)
        model = ganzoo.DCGAN(**small("DCGAN"))
        settings = {"default_root_dir": tmp_path, "enable_checkpointing": True, "ckpt_path": resume}
        fit(model, steps=steps, callbacks=[*callbacks, Checkpoints(every_n_steps=None)], **settings)
        return model.state_dict()

    whole = run([], 8)
    run([Stop()], 8)
    again = run([], 8, "checkpoints/last.ckpt")
    assert all(torch.equal(again[key], value) for key, value in whole.items())


def test_a_changed_learning_rate_applies_after_resuming(tmp_path):
    train(tmp_path, 2, every_n_steps=2)
    model = ganzoo.DCGAN(**small("DCGAN"), optimizer=lambda params: FusedAdam(params, lr=7e-4))
    trainer = train(tmp_path, 4, resume="checkpoints/00000002.ckpt", model=model)
    assert {group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups} == {7e-4}


def test_asynchronous_saving_writes_sealed_files(tmp_path):
    model = ganzoo.DCGAN(**small("DCGAN"))
    keep = {"callbacks": [Checkpoints(every_n_steps=1)], "enable_checkpointing": True, "default_root_dir": tmp_path}
    fit(model, steps=2, plugins=[AsyncCheckpointIO()], **keep)
    assert all(intact(path) for path in Path("checkpoints").iterdir())


def test_non_finite_weights_found_by_another_callbacks_save_are_rolled_back(tmp_path):
    """As when another callback saves the best checkpoint."""

    class Break(Callback):
        def on_train_batch_end(self, trainer, model, *_):
            if trainer.global_step == 4:
                with torch.no_grad():
                    next(model.discriminator.parameters()).fill_(float("nan"))
                save(trainer, tmp_path / "best.ckpt")

    model = ganzoo.DCGAN(**small("DCGAN"))
    callbacks = [Break(), Checkpoints(every_n_steps=3, rollbacks=1)]
    trainer = fit(model, steps=6, callbacks=callbacks, default_root_dir=tmp_path, enable_checkpointing=True)
    assert trainer.global_step == 6 and not (tmp_path / "best.ckpt").exists()


def test_a_rollback_leaves_learning_rate_schedules_unchanged(tmp_path):
    def decay(optimizer):
        return torch.optim.lr_scheduler.StepLR(optimizer, 4, 0.1)

    class Break(Callback):
        def on_train_batch_start(self, trainer, model, *_):
            if trainer.global_step == 5:
                with torch.no_grad():
                    next(model.generator.parameters()).fill_(float("nan"))

    def run(callbacks):
        model = ganzoo.DCGAN(**small("DCGAN"), lr_scheduler=decay)
        keep = Checkpoints(every_n_steps=3, rollbacks=1)
        trainer = fit(
            model, steps=9, callbacks=[*callbacks, keep], default_root_dir=tmp_path, enable_checkpointing=True
        )
        return [group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups]

    assert run([Break()]) == run([])


@pytest.mark.parametrize("when", ["on_fit_start", "on_fit_end"])
def test_sigterm_outside_of_training_steps_exits_with_75(when, reference):
    def prepare():
        from ganzoo.callbacks.scores import Scores

        setattr(Scores, when, lambda *_: os.kill(os.getpid(), signal.SIGTERM))

    assert run(prepare=prepare) == 75
    assert "Traceback" not in said()
    assert run() == 0
    assert_equal_runs(reference, RUN)


def test_sigterm_in_the_last_batch_leaves_the_final_scores_to_the_next_start(reference):
    assert run(prepare=dies_at(40, signal.SIGTERM)) == 75
    assert (RUN / "checkpoints" / "last.ckpt").exists() and not (RUN / "scores.json").exists()
    assert not (RUN / "interpolation.png").exists(), "little time is left: pictures are drawn at the end of the run"
    assert run() == 0
    assert_equal_runs(reference, RUN)


def test_sigterm_stops_before_min_steps_and_without_a_validation():
    command = f"{COMMAND} --trainer.min_steps 40 --trainer.min_epochs 3 --trainer.limit_val_batches 1"
    assert run(command, prepare=dies_at(10, signal.SIGTERM)) == 75
    assert read(RUN / "checkpoints" / "last.ckpt")["global_step"] == 10
    assert "val/" not in (RUN / "metrics.jsonl").read_text()


def test_a_request_to_stop_before_min_steps_saves_once(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr("ganzoo.callbacks.checkpoints.save", lambda trainer, path: saved.append(trainer.global_step))

    class Ask(Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.should_stop = True

    settings = {"callbacks": [Ask(), Checkpoints(every_n_steps=100)], "enable_checkpointing": True}
    fit(ganzoo.DCGAN(**small("DCGAN")), steps=9, min_steps=5, default_root_dir=tmp_path, **settings)
    assert saved == [5]


def test_an_extended_run_computes_new_scores(reference):
    short = f"{COMMAND} --trainer.max_steps 20"
    assert run(short) == 0
    before = (RUN / "scores.json").read_text()

    def prepare():
        from ganzoo.callbacks.scores import Scores

        Scores.on_fit_end = lambda *_: os.kill(os.getpid(), signal.SIGKILL)

    longer = COMMAND.replace("last", str(RUN))
    assert run(longer, prepare=prepare) == -signal.SIGKILL
    assert run(longer) == 0
    assert (RUN / "scores.json").read_text() != before
    values = [[s["value"] for s in json.loads((r / "scores.json").read_text())["scores"]] for r in (reference, RUN)]
    assert values[0] == values[1]


def test_a_refused_run_does_not_remove_other_runs():
    """Even in a `runs/` folder that the refused run created."""

    def prepare():
        from ganzoo.callbacks.samples import Samples

        def fail(*_):
            Path("runs/002-other").mkdir()
            raise MisconfigurationException("no")

        Samples.on_train_start = fail

    assert run(prepare=prepare) == 2
    assert [path.name for path in Path("runs").iterdir()] == ["002-other"]


def test_resuming_removes_neither_kept_nor_best_checkpoints(tmp_path):
    train(tmp_path, 6, every_n_steps=2, keep_last=3, keep_every_n_images=40)
    Path("checkpoints/best-fid.ckpt").write_bytes(Path("checkpoints/00000006.ckpt").read_bytes())
    train(tmp_path, 4, resume="checkpoints/00000002.ckpt", every_n_steps=1)
    assert names() == ["00000003", "00000004", "best-fid", "kept-00000005.ckpt"]


def test_minutes_count_from_the_last_save_and_processes_agree(monkeypatch):
    now, saved, asked = [0.0], [], []
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module, "save", lambda trainer, path: saved.append(now[0]))
    trainer = SimpleNamespace(global_step=0, max_steps=-1, should_stop=False, world_size=1, is_global_zero=False)
    trainer.log_dir, trainer.default_root_dir, trainer.log_every_n_steps = None, ".", 5
    model, keep = SimpleNamespace(images_seen=0), Checkpoints(every_n_steps=None, every_minutes=1)
    keep.setup(trainer, model, "fit")
    keep.on_train_start(trainer, model)
    for step in range(1, 10):
        trainer.global_step, now[0] = step, 20.0 * step
        keep.on_train_batch_end(trainer, model)
    assert saved == [60.0, 120.0, 180.0]
    trainer.world_size = 2
    trainer.strategy = SimpleNamespace(reduce_boolean_decision=lambda late, all: asked.append((late, all)) or True)
    found = []
    for trainer.global_step in (11, 15):
        found.append(keep._due(trainer))
    assert found == [False, True] and asked == [(False, False)]
