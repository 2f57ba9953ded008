"""Options of Lightning's Trainer and of ganzoo, and Lightning's callbacks: each has an effect or is refused by name
before the run.
"""

from __future__ import annotations

import inspect
import json
import logging
import shlex
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import lightning.pytorch.callbacks as shipped
import pytest
import torch
from jsonargparse import Namespace
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.utilities.exceptions import MisconfigurationException

import ganzoo
from ganzoo.callbacks.checkpoints import Checkpoints
from ganzoo.callbacks.diagnostics import Diagnostics
from ganzoo.callbacks.samples import Samples
from ganzoo.callbacks.scores import Scores
from ganzoo.cli import main, preflight, training
from ganzoo.cli.errors import UserError
from ganzoo.core.strategy import UNSUITED, GANStrategy
from ganzoo.data import GANDataModule
from ganzoo.evaluation.measure import Evaluation
from ganzoo.testing import fit

SMALL = "--model GAN --model.hidden 8 --model.d_hidden 8 --data Digits --data.image_size 8 --data.batch_size 500"
CHEAP = "--samples.rows 1 --samples.columns 1 --samples.video_fps 0 --scores.metrics [] --scores.final_n 0"
BASE = f"{SMALL} {CHEAP} --trainer.accelerator cpu --trainer.log_every_n_steps 1"  # two batches an epoch


class Watch(Callback):
    """Records a training: batches, flags and validations."""

    def __init__(self) -> None:
        self.batches: list[float] = []
        self.flags: dict[str, bool] = {}
        self.validations: list[int] = []
        self.checked = self.inference = False

    def on_train_batch_start(self, trainer, model, batch, *_):
        self.batches.append(float(batch["image"].sum()))
        self.flags = {
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "benchmark": torch.backends.cudnn.benchmark,
            "anomaly": torch.is_anomaly_enabled(),
        }

    def on_sanity_check_start(self, *_):
        self.checked = True

    def on_validation_batch_start(self, trainer, *_):
        self.inference = torch.is_inference_mode_enabled()
        self.validations.append(trainer.global_step)


class Outcome(NamedTuple):
    trainer: Trainer
    watch: Watch
    said: str
    rows: list[dict[str, Any]]

    def has(self, pattern: str) -> bool:
        return any(Path().glob(pattern))


@pytest.fixture
def play(tmp_path, monkeypatch, capfd) -> Callable[..., Outcome]:
    monkeypatch.chdir(tmp_path)
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark

    def play(options: str, config: Any = None) -> Outcome:
        Path("config.yaml").write_text(json.dumps(config or {}))
        limit = "" if "max_" in options else " --trainer.max_steps 4"
        cli = training.build("fit", shlex.split(f"--config config.yaml {BASE} {options}{limit}"))
        cli.trainer.callbacks.insert(0, watch := Watch())
        cli.start()
        logs = [line for file in Path().rglob("metrics.jsonl") for line in file.read_text().splitlines()]
        return Outcome(cli.trainer, watch, "".join(capfd.readouterr()), [json.loads(line) for line in logs])

    yield play
    torch.use_deterministic_algorithms(before[0])
    torch.backends.cudnn.benchmark = before[1]


@pytest.fixture(scope="module")
def config() -> Namespace:
    """The parsed config of `BASE`."""
    taken: list[Namespace] = []

    def take(config: Namespace, verb: str) -> None:
        taken.append(config)
        raise UserError("enough")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preflight, "check_config", take)
        with pytest.raises(UserError, match="enough"):
            training.build("fit", shlex.split(BASE))
    return taken[0]


def refusal(config: Namespace, **options: Any) -> str:
    """The error message for these options of the trainer."""
    changed = config.clone()
    changed.trainer.update(Namespace(options))
    with pytest.raises(UserError) as error:
        preflight.check_config(changed, "fit")
    return str(error.value)


# Option -> a refused value, and words of the error message
REFUSED = {
    "accumulate_grad_batches": (2, "set model.microbatches"),
    "barebones": (True, "python -m ganzoo bench"),
    "fast_dev_run": (True, "fit --dry-run"),
    "gradient_clip_algorithm": ("value", "set model.clip_norm"),
    "gradient_clip_val": (1.0, "set model.clip_norm"),
    "limit_predict_batches": (1, "python -m ganzoo sample"),
    "model_registry": ("x", "does not support"),
    "use_distributed_sampler": (False, "has no effect on ganzoo's data"),
    "check_val_every_n_epoch": (2, "set trainer.limit_val_batches"),
    "num_sanity_val_steps": (1, "set trainer.limit_val_batches"),
    "val_check_interval": (1, "set trainer.limit_val_batches"),
    "max_time": ("00:00:00:00", "nothing to train"),
    "min_steps": (5, "set trainer.max_steps"),
    "strategy": (Namespace(class_path="lightning.pytorch.strategies.DDPStrategy"), "choose auto or gan"),
    "profiler": ("xla", "choose from simple, advanced, pytorch"),
    "overfit_batches": (-1, "it takes a whole number from 0"),
    "reload_dataloaders_every_n_epochs": (-1, "it takes a whole number from 0"),
}
NOT_HERE = {"limit_test_batches", "num_nodes", "devices"}  # for `test` and for several processes: test_cli, test_launch
STOP = {"callbacks": [{"class_path": "EarlyStopping", "init_args": {"monitor": "D/loss", "stopping_threshold": 9}}]}
MIXED = {"class_path": "lightning.pytorch.plugins.MixedPrecision"}
VALIDATES = "--trainer.limit_val_batches 1"
# Option -> command line, settings of the config (or the error message), check that holds only with them
EFFECTS: dict[str, tuple[str, Any, Callable[[Outcome], bool]]] = {
    "accelerator": ("", {}, lambda o: o.trainer.strategy.root_device.type == "cpu"),
    "strategy": ("--trainer.strategy gan", {}, lambda o: isinstance(o.trainer.strategy, GANStrategy)),
    "precision": ("--trainer.precision bf16-mixed", {}, lambda o: o.trainer.precision == "bf16-mixed"),
    "plugins": (
        "",
        {"plugins": [{**MIXED, "init_args": {"precision": "bf16-mixed", "device": "cpu"}}]},
        lambda o: isinstance(o.trainer.precision_plugin, MixedPrecision),
    ),
    "logger": ("--trainer.logger CSVLogger --trainer.logger.save_dir x", {}, lambda o: o.has("x/**/metrics.csv")),
    "enable_autolog_hparams": (
        "--trainer.logger CSVLogger --trainer.logger.save_dir x --trainer.enable_autolog_hparams false",
        {},
        lambda o: o.has("x/**/metrics.csv") and not o.has("x/**/hparams.yaml"),
    ),
    "callbacks": ("--trainer.max_steps 9", STOP, lambda o: o.trainer.global_step == 2),
    "max_steps": ("--trainer.max_steps 3", {}, lambda o: o.trainer.global_step == 3),
    "max_epochs": ("--trainer.max_epochs 3", {}, lambda o: o.trainer.global_step == 6),
    "min_steps": ("--trainer.max_steps 9 --trainer.min_steps 5", STOP, lambda o: o.trainer.global_step == 5),
    "min_epochs": ("--trainer.max_steps 9 --trainer.min_epochs 3", STOP, lambda o: o.trainer.global_step == 6),
    "max_time": (
        "--trainer.max_time 00:00:00:01",
        {},
        lambda o: "Ctrl-C" not in o.said and o.has("runs/*/*/last.ckpt"),
    ),
    "limit_train_batches": (
        "--trainer.limit_train_batches 1 --trainer.max_epochs 3",
        {},
        lambda o: o.trainer.global_step == 3,
    ),
    "limit_val_batches": (VALIDATES, {}, lambda o: any("val/D/loss" in row for row in o.rows)),
    "overfit_batches": ("--trainer.overfit_batches 1", {}, lambda o: len(set(o.watch.batches)) == 1),
    "val_check_interval": (
        f"{VALIDATES} --trainer.val_check_interval 1 --trainer.num_sanity_val_steps 0",
        {},
        lambda o: o.watch.validations == [1, 2, 3, 4],
    ),
    "check_val_every_n_epoch": (
        f"{VALIDATES} --trainer.check_val_every_n_epoch 2 --trainer.num_sanity_val_steps 0",
        {},
        lambda o: o.watch.validations == [4],
    ),
    "num_sanity_val_steps": (f"{VALIDATES} --trainer.num_sanity_val_steps 1", {}, lambda o: o.watch.checked),
    "log_every_n_steps": ("--trainer.log_every_n_steps 2", {}, lambda o: len(o.rows) == 2),
    "enable_checkpointing": ("--trainer.enable_checkpointing false", {}, lambda o: not o.has("**/*.ckpt")),
    "enable_progress_bar": ("--trainer.enable_progress_bar false", {}, lambda o: "step 4" not in o.said),
    "enable_model_summary": ("--trainer.enable_model_summary true", {}, lambda o: "MaxoutDiscriminator" in o.said),
    "deterministic": ("--trainer.deterministic true", {}, lambda o: o.watch.flags["deterministic"]),
    "benchmark": ("--trainer.benchmark true", {}, lambda o: o.watch.flags["benchmark"]),
    "detect_anomaly": ("--trainer.detect_anomaly true", {}, lambda o: o.watch.flags["anomaly"]),
    "inference_mode": (
        f"{VALIDATES} --trainer.inference_mode false",
        {},
        lambda o: o.watch.validations != [] and not o.watch.inference,
    ),
    "default_root_dir": ("--trainer.default_root_dir x", {}, lambda o: o.has("x/001-gan-digits/*/last.ckpt")),
    "profiler": (
        "--trainer.profiler pytorch",
        {},
        lambda o: o.has("**/*.trace.json"),
    ),
    "sync_batchnorm": ("--trainer.sync_batchnorm true", "trainer.sync_batchnorm needs GPUs", lambda o: False),
    "reload_dataloaders_every_n_epochs": ("", {}, lambda o: True),  # see below
}


def test_every_trainer_option_is_tested():
    options = set(inspect.signature(Trainer).parameters)
    assert options == {*REFUSED, *NOT_HERE, *EFFECTS}
    assert set(preflight.REFUSED) <= set(REFUSED)


@pytest.mark.parametrize("option", REFUSED)
def test_unsupported_trainer_options_are_refused(option, config):
    value, words = REFUSED[option]
    if option == "min_steps":
        said = refusal(config, min_steps=5, max_steps=4)
        assert said == "trainer.min_steps 5 is above trainer.max_steps 4; raise the maximum"
        return
    said = refusal(config, **{option: value})
    assert said.startswith(("trainer.", "no trainer.")) and option in said and words in said


def test_an_unsupported_trainer_option_is_refused_on_the_command_line(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", *shlex.split(BASE), "--trainer.fast_dev_run", "true"]) == 2
    assert capfd.readouterr().err.startswith("ganzoo: error: trainer.fast_dev_run disables logging")
    assert not Path("runs").exists()


FAST = {"max_time", "enable_checkpointing"}
ELSEWHERE = {"accelerator", "reload_dataloaders_every_n_epochs"}


@pytest.mark.parametrize(
    "option", [o if o in FAST else pytest.param(o, marks=pytest.mark.slow) for o in EFFECTS if o not in ELSEWHERE]
)
def test_trainer_options_have_effects(option, play):
    arguments, settings, holds = EFFECTS[option]
    if isinstance(settings, str):
        with pytest.raises(UserError, match=settings):
            play(arguments)
    else:
        assert holds(play(arguments, {"trainer": settings} if settings else None))


@pytest.mark.slow
def test_effects_are_absent_without_their_options(play):
    plain = play("")
    same = {"max_time", *ELSEWHERE}
    assert [option for option, (_, _, holds) in EFFECTS.items() if option not in same and holds(plain)] == []


@pytest.mark.slow
@pytest.mark.parametrize("every, times", [(0, 2), (1, 3)])
def test_loaders_are_recreated_every_n_epochs(play, monkeypatch, every, times):
    made = []
    make = GANDataModule.train_dataloader
    monkeypatch.setattr(GANDataModule, "train_dataloader", lambda self: made.append(1) or make(self))
    play(f"--trainer.reload_dataloaders_every_n_epochs {every}")
    assert len(made) == times  # including one in the preflight


def test_profiler_reports_and_model_summaries_are_printed(play):
    """Lightning's other notices are silenced."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger("lightning.pytorch")
    logger.addHandler(handler)
    try:
        summary = {"trainer": {"callbacks": [{"class_path": "lightning.pytorch.callbacks.ModelSummary"}]}}
        play("--trainer.profiler simple --trainer.max_steps 1", summary)
    finally:
        logger.removeHandler(handler)
    assert ["MaxoutDiscriminator" in line or "Profiler Report" in line for line in lines] == [True, True]


# Callback -> arguments; all others are refused
WORK: dict[str, list[dict[str, Any]]] = {
    "DeviceStatsMonitor": [{}],
    "EMAWeightAveraging": [{"decay": 0.9}],
    "EarlyStopping": [{"monitor": "G/loss"}, {"monitor": "val/D/loss"}],
    "LambdaCallback": [{"on_train_start": "my_functions.touch"}],
    "LearningRateMonitor": [{}],
    "ModelCheckpoint": [{}, {"monitor": "G/loss"}],
    "ModelSummary": [{}],
    "RichModelSummary": [{}],
    "RichProgressBar": [{}],
    "TQDMProgressBar": [{}],
    "ThroughputMonitor": [{"batch_size_fn": "my_functions.size"}],
    "Timer": [{}, {"duration": "00:01:00:00"}],
    "WeightAveraging": [{}],
}
QUICK = {"DeviceStatsMonitor", "ModelCheckpoint", "RichProgressBar"}
TRACES = {  # callback -> check of its effect
    "DeviceStatsMonitor": lambda o: any(key.startswith("DeviceStats") for row in o.rows for key in row),
    "LambdaCallback": lambda o: o.has("touched"),
    "LearningRateMonitor": lambda o: any("lr-SGD" in row for row in o.rows),
    "ModelCheckpoint": lambda o: o.has("runs/001-gan-digits/checkpoints/epoch=*.ckpt"),
    "RichModelSummary": lambda o: "MaxoutDiscriminator" in o.said,
    "RichProgressBar": lambda o: "Epoch" in o.said and "step 4" not in o.said,
    "TQDMProgressBar": lambda o: "Epoch" in o.said and "step 4" not in o.said,
    "ThroughputMonitor": lambda o: any("train/samples" in row for row in o.rows),
}


@pytest.mark.parametrize("name", shipped.__all__)
def test_unsuited_callbacks_are_refused_by_name(name, config):
    callback = Namespace(class_path=f"lightning.pytorch.callbacks.{name}", init_args=Namespace())
    changed = config.clone()
    changed.trainer.callbacks = [callback]
    if name in WORK:
        preflight.check_config(changed, "fit")
    else:
        said = refusal(config, callbacks=[callback])
        assert said.startswith(f"trainer.callbacks: {name} ") and said == refusal(config, callbacks=callback)


@pytest.mark.parametrize("base", UNSUITED)
def test_unsuited_callbacks_are_refused_in_python(base):
    callback = type("Mine", (base,), {"__init__": lambda self: None, "setup": lambda *_, **__: None})()
    with pytest.raises(Exception, match="Mine |accumulation") as error:
        fit(ganzoo.GAN(8, 1, hidden=8, d_hidden=8), steps=1, callbacks=[callback])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in WORK])
def test_supported_callbacks_work(name, play, monkeypatch):
    if name == "DeviceStatsMonitor":
        pytest.importorskip("psutil")  # which it needs, on CPUs
    monkeypatch.syspath_prepend("")
    Path("my_functions.py").write_text(
        "def touch(*_):\n    open('touched', 'w').close()\n\n\ndef size(batch):\n    return len(batch['image'])\n"
    )
    for arguments in WORK[name]:
        callback = {"class_path": f"lightning.pytorch.callbacks.{name}", "init_args": arguments}
        outcome = play(VALIDATES, {"trainer": {"callbacks": [callback]}})
        assert outcome.trainer.global_step == 4
        assert TRACES.get(name, lambda o: True)(outcome)


# Places where a config may name a URL, besides `ckpt_path`
URL = "ftp://127.0.0.1:9/x"
URLS = {
    "trainer.default_root_dir": {"default_root_dir": URL},
    "trainer.callbacks.dirpath": {
        "callbacks": [
            Namespace(class_path="lightning.pytorch.callbacks.ModelCheckpoint", init_args=Namespace(dirpath=URL))
        ]
    },
    "trainer.profiler.dirpath": {"profiler": Namespace(class_path="lightning.x", init_args=Namespace(dirpath=URL))},
    "trainer.logger.save_dir": {"logger": [Namespace(class_path="lightning.x", init_args=Namespace(save_dir=URL))]},
    "trainer.plugins.x": {"plugins": [Namespace(class_path="lightning.x", init_args=Namespace(x=URL))]},
}


@pytest.mark.parametrize("key", URLS)
def test_urls_are_refused_where_a_path_is_expected(key, config):
    said = refusal(config, **URLS[key])
    assert said == f"{key} is a URL, which only loggers support; name a local folder or file"


def test_urls_of_logger_services_are_accepted(config):
    changed = config.clone()
    service = Namespace(class_path="lightning.pytorch.loggers.MLFlowLogger", init_args=Namespace(tracking_uri=URL))
    changed.trainer.logger = service
    changed.data.init_args.own = Namespace(class_path="my_data.Web", init_args=Namespace(url=URL))
    preflight.check_config(changed, "fit")


# Monitored values


@pytest.mark.parametrize("monitor", ["val_loss", "val/D/loss"])
def test_monitors_that_are_never_logged_are_refused(monitor, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    stop = ["--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.monitor", monitor]
    assert main(["fit", *shlex.split(BASE), "--trainer.max_steps", "1", *stop]) == 2
    said = f"EarlyStopping: monitor '{monitor}' is never logged; use one of D/loss, G/loss"
    assert capfd.readouterr().err == f"ganzoo: error: {said}\n" and not Path("runs").exists()


def test_an_unknown_monitor_ends_in_one_line(play):
    """It is not refused at start, as a user's callback may log it."""
    stop = {"class_path": "EarlyStopping", "init_args": {"monitor": "mine"}}
    with pytest.raises(UserError, match="conditioned on metric `mine`") as error:
        play("", {"trainer": {"callbacks": [stop]}})
    assert "\n" not in str(error.value)


def test_losses_can_be_monitored_before_the_first_log(play):
    """Each epoch has its mean."""
    stopping = shipped.EarlyStopping("G/loss", patience=2, min_delta=9.0)
    fit(ganzoo.GAN(8, 1, hidden=8, d_hidden=8), steps=50, callbacks=[stopping], log_every_n_steps=100)
    assert stopping.wait_count == 2
    outcome = play(
        "--trainer.log_every_n_steps 100 --model.n_critic 3 --trainer.limit_val_batches 1",
        {"trainer": {"callbacks": [{"class_path": "ModelCheckpoint", "init_args": {"monitor": "G/loss"}}]}},
    )
    assert outcome.has("runs/*/checkpoints/epoch=1-step=4.ckpt")


STOPPING = {"class_path": "EarlyStopping", "init_args": {"monitor": "fid", "patience": 2, "min_delta": 1e6}}
KEEPING = {"class_path": "ModelCheckpoint", "init_args": {"monitor": "fid", "save_top_k": 3}}
SCORING = "--scores.metrics [fid] --scores.n 20 --scores.every_n_steps 4 --trainer.max_steps 40"


@pytest.mark.parametrize("more", ["", "--trainer.limit_val_batches 1 --trainer.val_check_interval 1"])
def test_each_score_stops_and_saves_once(play, more):
    """When it is measured: epochs and validations without a new score do not count."""
    outcome = play(f"{SCORING} {more}", {"trainer": {"callbacks": [STOPPING, KEEPING]}})
    assert outcome.trainer.global_step == 12
    (kept,) = [c for c in outcome.trainer.checkpoint_callbacks if isinstance(c, shipped.ModelCheckpoint)]
    assert sorted(int(file.rpartition("=")[2].split(".")[0]) for file in kept.best_k_models) == [4, 8, 12]


def test_checkpoints_by_time_are_refused(play):
    """Lightning would write none with two optimizers."""
    timed = {"class_path": "ModelCheckpoint", "init_args": {"train_time_interval": "0:0:1"}}
    with pytest.raises(UserError, match="train_time_interval has no effect with two optimizers; use every_n_train_st"):
        play("", {"trainer": {"callbacks": [timed]}})


def test_a_failed_evaluation_does_not_stop_the_training_early(play, monkeypatch):
    """EarlyStopping would end it for a value that is not finite."""
    run, fails = Evaluation.run, iter([True])
    monkeypatch.setattr(Evaluation, "run", lambda self, *more: 1 / 0 if next(fails, False) else run(self, *more))
    stop = {"class_path": "EarlyStopping", "init_args": {"monitor": "fid", "patience": 9}}
    assert play(SCORING.replace("40", "9"), {"trainer": {"callbacks": [stop]}}).trainer.global_step == 9


# A single image, which batch norm cannot normalise

ONE = {
    "a batch": "--model MLPGAN --data.batch_size 1",
    "microbatches": "--model EBGAN --data.batch_size 4 --model.microbatches 4",
    "processes": "--model MLPGAN --data.batch_size 2 --trainer.devices 2",
    "shared fakes": "--model InfoGAN --model.share_fakes true --data.batch_size 1",
}


@pytest.mark.parametrize("case", ONE)
def test_a_single_image_per_batch_norm_is_refused(case, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    data = "--data Digits --data.image_size 16 --trainer.accelerator cpu --trainer.max_steps 1"
    assert main(["fit", *shlex.split(f"{data} {ONE[case]}")]) == 2
    said = capfd.readouterr().err
    assert said.startswith("ganzoo: error: data.batch_size ") and "batch norm needs at least two images" in said
    assert said.count("\n") == 1 and not Path("runs").exists()


def test_a_single_image_is_accepted_without_batch_norm(play):
    assert play("--data.batch_size 1 --trainer.max_steps 1").trainer.global_step == 1


def test_a_last_batch_of_one_image_is_refused_with_batch_norm():
    pictures = torch.utils.data.DataLoader([{"image": torch.zeros(1, 16, 16)}] * 3, batch_size=2)
    with pytest.raises(MisconfigurationException, match="batch norm needs at least two images"):
        fit(ganzoo.MLPGAN(16, 1, hidden=8, d_hidden=8), pictures, steps=3)


# ganzoo's own options: runs that differ in one option write different files

SCORED = "--scores.metrics [fid] --scores.n 20 --scores.every_n_steps 2"
OWN: dict[str, dict[str, tuple[str, str]]] = {  # section -> option -> another value, options of both runs
    "samples": {"every_n_steps": ("1", ""), "rows": ("2", ""), "columns": ("2", ""), "video_fps": ("4", "")},
    "scores": {
        "metrics": ("[fid]", "--scores.n 20"),
        "n": ("30", SCORED),
        "every_n_steps": ("1", SCORED),
        "best": ("[]", SCORED),
        "keep_best": ("2", SCORED),
        "split": ("test", SCORED),
        "extractor": ("mnist5k", SCORED),
        "seed": ("1", SCORED),
        "final_n": ("20", SCORED),
    },
    "diagnostics": {"every_n_steps": ("1", ""), "n": ("20", "--diagnostics.every_n_steps 1")},
    "checkpoint": {
        "every_n_steps": ("1", ""),
        "every_minutes": ("0.0000001", ""),
        "keep_last": ("1", "--checkpoint.every_n_steps 1"),
        "keep_every_n_images": ("500", ""),
    },
    "model": {
        "optimizer": ("SGD --model.optimizer.lr 0.5", ""),
        "discriminator_optimizer": ("SGD --model.discriminator_optimizer.lr 0.5", ""),
        "lr_scheduler": ("StepLR --model.lr_scheduler.step_size 1", ""),
        "n_critic": ("2", ""),
        "n_generator": ("2", ""),
        "microbatches": ("2", ""),
        "clip_norm": ("1e-9", ""),
        "ema_half_life": ("500", ""),
        "ema_ramp_up": ("0.1", "--model.ema_half_life 500"),
        "consensus": ("0.1", ""),
        "share_fakes": ("true", ""),
        "penalties": ("LeCam --model.penalties.weight 2", ""),
        "top_k": ("0.5", ""),
        "top_k_half_life": ("500", "--model.top_k 0.5"),
        "freeze_d": ("1", ""),
        "augment": ("DiffAugment", ""),
    },
    "data": {"batch_size": ("400", ""), "flip": ("true", ""), "seed": ("1", "")},
}
SEEN_ELSEWHERE = {  # options that need special input or change no file -> where they are tested
    "scores.weights": "test_extractors",
    "checkpoint.rollbacks": "test_checkpoints",
    "model.compile_losses": "test_turns",
    "data.num_workers": "test_loader",
    "samples.bands": "test_channels",
}


def test_every_own_option_is_tested():
    callbacks = {"samples": Samples, "scores": Scores, "diagnostics": Diagnostics, "checkpoint": Checkpoints}
    for section, cls in {**callbacks, "model": ganzoo.GANModule, "data": GANDataModule}.items():
        known = {*OWN[section], *(key.partition(".")[2] for key in SEEN_ELSEWHERE if key.startswith(f"{section}."))}
        assert set(inspect.signature(cls).parameters) == known, section


def left() -> dict[str, Any]:
    """File name -> content of the run's files, without times, versions and the config."""
    found: dict[str, Any] = {}
    for file in Path("runs/001-gan-digits").rglob("*"):
        if file.suffix == ".ckpt":
            content = torch.load(file, weights_only=True)
            content = content["state_dict"], content["optimizer_states"], content["lr_schedulers"], content["ganzoo"]
            found[file.name] = repr(content)
        elif file.suffix in (".json", ".jsonl") and file.name.startswith("scores"):
            text = file.read_text()
            records = map(json.loads, text.splitlines() if file.suffix == ".jsonl" else [text])
            found[file.name] = [(s["name"], s["value"]) for record in records for s in record["scores"]]
        elif file.is_file() and file.suffix not in (".yaml", ".json", ""):
            found[file.name] = file.read_bytes()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("option", [f"{section}.{name}" for section in OWN for name in OWN[section]])
def test_own_options_have_effects(option, tmp_path, monkeypatch, play):
    section, name = option.split(".")
    value, beside = OWN[section][name]
    results = []
    for i, more in enumerate(("", f"--{option} {value}")):
        (tmp_path / str(i)).mkdir()
        monkeypatch.chdir(tmp_path / str(i))
        play(f"{beside} {more}")
        results.append(left())
    assert results[0] != results[1]


def test_weights_may_take_half_of_the_memory_and_one_of_them_an_eighth(monkeypatch):
    """Batch norm fills four tensors of a weight's size when it is made."""
    monkeypatch.setattr(preflight, "machine_memory", lambda: 320.0)
    config = SimpleNamespace(class_path="ganzoo.GAN", init_args={"hidden": 9})
    for sizes, fits in (([10] * 4, True), ([10] * 4 + [1], False), ([11], False)):
        refused = nullcontext() if fits else pytest.raises(UserError, match="larger than this machine's memory")
        with refused, preflight.affordable(config):
            for size in sizes:
                torch.nn.Linear(size, 1, bias=False)


def test_without_checkpointing_there_are_no_best_checkpoints(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = f"{SMALL} --trainer.accelerator cpu --trainer.max_steps 1 --trainer.enable_checkpointing false"
    assert training.build("fit", shlex.split(options), dry=True).config_init.scores.best == []
