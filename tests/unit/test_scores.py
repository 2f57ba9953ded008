"""Scores during training: schedule, logs, best checkpoints, resuming; training itself is unaffected."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils._pytree import tree_leaves

import ganzoo
import ganzoo.callbacks.scores as scores_module
from ganzoo.callbacks.run_folder import RunLog
from ganzoo.callbacks.scores import FID, KID, InceptionScore, Scores, _finished
from ganzoo.checkpoint.pretrained import load
from ganzoo.core.atomic import append_row, keep_until
from ganzoo.core.strategy import GANStrategy
from ganzoo.data import Digits, Gaussians
from ganzoo.evaluation.extractors import Classifier, Custom
from ganzoo.evaluation.measure import Evaluation
from ganzoo.evaluation.record import Report
from ganzoo.evaluation.sources import Fakes, Reference
from ganzoo.testing import fit

TINY = {"image_size": 8, "channels": 1, "width": 4}
QUICK = {"n": 20, "every_n_steps": 2, "final_n": 0}


class Conditional(ganzoo.GAN):
    """A GAN whose generator is class-conditional, with dropout in training."""

    num_classes = 10

    def __init__(self, image_size=8, channels=1, num_classes=10):
        super().__init__(image_size, channels, z_dim=4, hidden=8, d_hidden=8, ema_half_life=50.0)
        self.generator = Conditioned(self.generator)

    def generator_loss(self, batch):
        self._y = batch["label"]
        fakes = self.generator(batch["z"], batch["label"])
        return {"fake": nn.functional.softplus(-self.discriminate(fakes)).mean()}

    def discriminator_loss(self, batch):
        fakes = self.generator(batch["z"], batch["label"])
        return {
            "real": nn.functional.softplus(-self.discriminate(batch["image"])).mean(),
            "fake": nn.functional.softplus(self.discriminate(fakes)).mean(),
        }


class Conditioned(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body, self.classes, self.drop = body, nn.Embedding(10, 4), nn.Dropout(0.5)

    def forward(self, z, y=None):
        return self.body(self.drop(z) + self.classes(y))


def make(cls=ganzoo.DCGAN, **more):
    torch.manual_seed(0)
    return cls(**({} if cls is Conditional else {**TINY, "ema_half_life": 100.0}), **more)


def digits():
    return Digits(image_size=8, batch_size=100)  # 13 batches an epoch


def train(path, *callbacks, steps=4, model=None, data=None, **trainer):
    model = model or make()
    return fit(model, data or digits(), steps=steps, callbacks=callbacks, default_root_dir=path, **trainer)


def history(path, figure="fid"):
    lines = [json.loads(line) for line in (path / "scores.jsonl").read_text().splitlines()]
    found = [(line["step"], s["value"]) for line in lines for s in line["scores"] if s["figure"] == figure]
    assert len(dict(found)) == len(found), "a step is there twice"
    return dict(found)


def measured(model, n=20, metrics=("fid",), seed=0):
    """The scores of the digits, without the callback."""
    reference = Reference.of(digits())
    report = Evaluation(Fakes(model, n, seed, reference.sets["real"]), reference, list(metrics)).run()
    return {score.figure: score.value for score in report.scores}


@pytest.fixture
def looks(monkeypatch):
    """Batch sizes of the calls of the digits classifier."""
    seen = []
    extract = Classifier.extract
    monkeypatch.setattr(Classifier, "extract", lambda self, x: (seen.append(len(x)), extract(self, x))[1])
    return seen


# What is measured, and when


def test_scores_are_measured_every_n_steps_and_at_the_end(tmp_path):
    model = make()
    names = []

    class Keep(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            names.append([name for name in trainer.callback_metrics if name.startswith("fid_")])

    trainer = train(tmp_path, scores := Scores(n=20, every_n_steps=2, final_n=30), Keep(), steps=5, model=model)
    assert list(history(tmp_path)) == [2, 4, 5]
    name = scores.evaluation.names["fid"]
    assert name == f"fid_{scores.evaluation.extractor.tag}_20"
    assert names == [[], [name], [name], [name], [name]]
    assert set(trainer.callback_metrics) >= {"fid", name}
    report = Report.load(tmp_path / "scores.json")
    final = {score.figure: score.value for score in report.scores}
    assert {"fid", "is", "precision", "recall", "authenticity"} <= set(final) and "kid" not in final
    assert final["fid"] == measured(model, 30)["fid"] and report.scores[0].name.endswith("_30")
    assert report.subject["images_seen"] == 500 and report.subject["weights"] == "averaged"


def test_callbacks_with_the_same_settings_share_one_pass(tmp_path, looks):
    settings = {"n": 1000, "every_n_steps": 2, "final_n": 0}
    measured(make(), 1000, ["fid", "kid"])  # fills the cache of the reals' statistics
    looks.clear()
    train(tmp_path / "a", FID(**settings), InceptionScore(**settings), KID(**settings), steps=2)
    assert len(looks) == -(-1000 // 64)
    assert len(history(tmp_path / "a", "kid")) == len(history(tmp_path / "a", "is")) == 1
    looks.clear()
    train(tmp_path / "b", FID(**{**settings, "n": 130}), InceptionScore(**{**settings, "n": 64}), steps=4)
    assert len(looks) == 2 * (3 + 1)


def test_explicit_metrics_apply_to_the_final_evaluation_too(tmp_path):
    train(tmp_path, FID(n=20, final_n=30), steps=1)
    assert [score.figure for score in Report.load(tmp_path / "scores.json").scores] == ["fid"]


def test_explicit_metrics_are_added_to_the_default_ones(tmp_path):
    settings = {"n": 20, "final_n": 30}
    train(tmp_path, Scores(**settings), Scores(["ebgan_score", "pr:k=2"], **settings), steps=1)
    report = Report.load(tmp_path / "scores.json")
    found = {score.figure: score.protocol["settings"] for score in report.scores}
    assert {"fid", "is", "authenticity", "ebgan_score"} <= found.keys()
    assert found["precision"] == {"k": 2} and len(found) == len(report.scores)


def test_defaults_that_need_inception_are_not_added_to_explicit_metrics(tmp_path, monkeypatch):
    def assemble(model, data, metrics, **_):
        asked.append(metrics)
        return SimpleNamespace(metrics=[], extractor=None)

    monkeypatch.setattr(scores_module, "assemble", assemble)
    data, asked, peers = digits(), [], [Scores(), KID()]
    data.extractor = "inception-grey"  # which is a download
    trainer = SimpleNamespace(callbacks=peers, datamodule=data, log_dir=None, default_root_dir=tmp_path)
    peers[0].on_fit_start(trainer, make())
    assert asked == [["kid"], ["kid"]]


def test_modes_are_the_default_metric_of_points(tmp_path):
    model = ganzoo.GAN(image_size=1, channels=2, z_dim=2, hidden=8, d_hidden=8)
    train(tmp_path, Scores(n=100, every_n_steps=2), model=model, data=Gaussians(n=1000, batch_size=64))
    assert list(history(tmp_path, "modes")) == [2, 4]
    assert (tmp_path / "checkpoints" / "best-modes.ckpt").exists()
    assert Report.load(tmp_path / "scores.json").scores[0].name == "modes_2500"


@pytest.mark.parametrize("settings", [{"metrics": []}, {}], ids=["off", "Inception"])
def test_nothing_is_measured_if_off_or_by_default_with_inception(tmp_path, settings):
    data = digits()
    data.extractor = data.extractor if settings else "inception-grey"
    train(tmp_path, scores := Scores(**settings), data=data)
    assert scores.evaluation is None and not list(tmp_path.iterdir())


class OtherData(LightningDataModule):
    def train_dataloader(self):
        return digits().train_dataloader()

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return digits().on_after_batch_transfer(batch, dataloader_idx)


def test_foreign_data_modules_are_skipped_by_default_or_refused(tmp_path):
    train(tmp_path, Scores(), data=OtherData())
    assert not list(tmp_path.iterdir())
    with pytest.raises(MisconfigurationException, match="one of ganzoo's data modules"):
        train(tmp_path, FID(), data=OtherData())


class NoTest(Digits):
    def make_dataset(self, split):
        return super().make_dataset(split) if split == "train" else torch.utils.data.Subset([], [])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"metrics": ["fit"]}, "no metric 'fit'; did you mean 'fid'"),
        ({"metrics": ["kid"], "n": 999}, "1000 fake images, but there are 999"),
        ({"metrics": ["kid"], "final_n": 999}, "1000 fake images, but there are 999"),
        ({"extractor": "digit"}, "no extractor 'digit'; did you mean 'digits'"),
        ({"extractor": "inception"}, "'inception' reads 3 channels, but the images have 1"),
        ({"best": ["fit"]}, "scores.best: fit cannot rank checkpoints; available: fid"),
        ({"metrics": ["copying"], "best": ["copying"]}, "cannot rank checkpoints; available: none for these"),
        ({"split": "val"}, "NoTest has no val images"),
    ],
    ids=str,
)
def test_bad_settings_are_refused_before_the_first_batch(tmp_path, settings, words):
    data = digits() if "copying" in settings.get("metrics", []) else NoTest(image_size=8, batch_size=100)
    with pytest.raises(MisconfigurationException, match=words):
        train(tmp_path, Scores(**settings), data=data)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("settings", [{"n": 0}, {"every_n_steps": 0}])
def test_counts_of_zero_are_refused(settings):
    with pytest.raises(ValueError, match="is 0; it takes a whole number from 1"):
        Scores(**settings)


# Best checkpoints


def test_the_best_checkpoint_is_kept_and_reproduces_its_score(tmp_path):
    train(tmp_path, Scores(["fid", "is"], best=["fid", "is"], **QUICK), steps=8)
    fid, score = history(tmp_path), history(tmp_path, "is")
    best = load(tmp_path / "checkpoints" / "best-fid.ckpt")
    assert measured(best)["fid"] == min(fid.values())
    step = torch.load(tmp_path / "checkpoints" / "best-is.ckpt", weights_only=True)["global_step"]
    assert score[step] == max(score.values()) > min(score.values())


def test_model_checkpoint_can_monitor_a_score(tmp_path):
    name = f"fid_{Classifier('digits').tag}_20"
    keep = ModelCheckpoint(tmp_path / "kept", "{step}", monitor=name, every_n_train_steps=2)
    train(tmp_path, FID(**QUICK, best=[]), keep, steps=8, enable_checkpointing=True)
    scores = history(tmp_path)
    step = min(scores, key=scores.get)
    assert [path.name for path in (tmp_path / "kept").iterdir()] == [f"step={step}.ckpt"]
    assert keep.best_model_score.item() == pytest.approx(scores[step], rel=1e-6)
    assert not (tmp_path / "checkpoints").exists()


def test_checkpoints_do_not_contain_the_extractor(tmp_path):
    with_, without = (tmp_path / name for name in ("with", "without"))
    for path, callbacks in ((with_, [FID(**QUICK)]), (without, [])):
        train(path, *callbacks).save_checkpoint(path / "a.ckpt")
    assert abs((with_ / "a.ckpt").stat().st_size - (without / "a.ckpt").stat().st_size) < 2000
    assert (with_ / "checkpoints" / "best-fid.ckpt").stat().st_size < (without / "a.ckpt").stat().st_size + 2000
    assert torch.load(with_ / "checkpoints" / "best-fid.ckpt", weights_only=True)["global_step"] in (2, 4)


class Break(Callback):
    """From a step on, generated fakes are NaN; losses are not."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step + 1 == self.step:
            whole = pl_module.generate
            pl_module.generate = lambda z, given=None: whole(z, given) * math.nan


def test_nan_scores_are_recorded_and_never_best(tmp_path):
    scores = FID(n=20, every_n_steps=2, final_n=30)
    trainer = train(tmp_path, Break(3), scores, steps=6)
    assert trainer.global_step == 6
    name = scores.evaluation.names["fid"]
    assert trainer.callback_metrics[name].isfinite() and scores.measured[name] == 2, "NaN would stop a training early"
    values = history(tmp_path)
    assert values[2] is not None and values[4] is values[6] is None
    log = RunLog(tmp_path)
    log.log_metrics({"fid": math.nan, "D/loss": 0.5}, step=3)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 3, "fid": null, "D/loss": 0.5}\n'
    assert torch.load(tmp_path / "checkpoints" / "best-fid.ckpt", weights_only=True)["global_step"] == 2
    assert math.isnan(Report.load(tmp_path / "scores.json").scores[0].value)


def test_nan_scores_cause_one_warning_per_evaluation(tmp_path, recwarn):
    model = make()
    settings = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_steps=4, callbacks=[Break(1), FID(**QUICK)], default_root_dir=tmp_path, **settings)
    trainer.fit(model, digits())
    told = [str(w.message) for w in recwarn if "no scores at step" in str(w.message)]
    assert [text.split(":")[0] for text in told] == ["no scores at step 2", "no scores at step 4"]
    assert not (tmp_path / "checkpoints").exists()


# No effect on training


def everything(trainer, model):
    optimizers = [tree_leaves(optimizer.state_dict()) for optimizer in trainer.optimizers]
    return {**model.state_dict(), **{f"optimizer {i}": state for i, state in enumerate(optimizers)}}


def assert_equal(a, b):
    for key, value in a.items():
        for x, y in zip(tree_leaves(value), tree_leaves(b[key]), strict=True):
            assert torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y, key


class Order(Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append(batch["label"].tolist())


@pytest.mark.parametrize("cls", [ganzoo.DCGAN, Conditional])
def test_training_with_scores_is_bit_identical_to_training_without(tmp_path, cls):
    states, orders = [], []
    for callbacks in ([], [Scores(["fid", "is", "pr"], n=20, every_n_steps=1, final_n=20)]):
        model, order = make(cls), Order()
        trainer = train(tmp_path, *callbacks, order, steps=15, model=model)  # into the second epoch
        states.append(everything(trainer, model))
        orders.append(order.seen)
    assert (tmp_path / "scores.json").exists()
    assert orders[0] == orders[1]
    assert_equal(*states)


def test_fakes_of_a_conditional_model_have_the_classes_of_the_data(tmp_path):
    model = make(Conditional)
    train(tmp_path, Scores(["accuracy", "intra_fid"], n=200, every_n_steps=1, final_n=0), steps=1, model=model)
    assert history(tmp_path, "accuracy")[1] == measured(model, 200, ["accuracy"])["accuracy"]
    assert history(tmp_path, "intra_fid")[1] > 0


# Resuming


class SaveAt(Callback):
    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def test_a_resumed_run_has_the_scores_of_an_uninterrupted_run(tmp_path):
    """The checkpoint is saved at a step with an evaluation, before the evaluation, as in the run folder."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(whole, FID(**QUICK), steps=10)
    train(parts, SaveAt(4, parts / "a.ckpt"), FID(**QUICK), steps=7)
    assert list(history(parts)) == [2, 4, 6, 7]
    train(parts, FID(**QUICK), steps=10, model=make(), ckpt_path=str(parts / "a.ckpt"))
    assert history(parts) == history(whole)
    assert list(history(parts)) == [2, 4, 6, 8, 10]
    kept = [torch.load(p / "checkpoints" / "best-fid.ckpt", weights_only=True)["global_step"] for p in (whole, parts)]
    assert kept[0] == kept[1]


def test_the_best_score_survives_resuming_unless_the_settings_change(tmp_path):
    train(tmp_path, FID(**QUICK), steps=4).save_checkpoint(tmp_path / "a.ckpt")
    lines = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    for line in lines:
        line["scores"][0]["value"] = -1.0  # unbeatable
    (tmp_path / "scores.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    best = tmp_path / "checkpoints" / "best-fid.ckpt"
    best.write_text("the best")
    train(tmp_path, FID(**QUICK), steps=6, model=make(), ckpt_path=str(tmp_path / "a.ckpt"))
    assert best.read_text() == "the best"
    train(tmp_path, FID(**{**QUICK, "n": 30}), steps=6, model=make(), ckpt_path=str(tmp_path / "a.ckpt"))
    assert torch.load(best, weights_only=True)["global_step"] == 6


def test_a_new_run_in_the_same_folder_starts_a_new_log(tmp_path):
    train(tmp_path, FID(**QUICK), steps=6)
    train(tmp_path, FID(**QUICK), steps=2)
    assert list(history(tmp_path)) == [2]


class Stop(Callback):
    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = True


@pytest.mark.parametrize(
    ("limits", "stop", "step", "measured"),
    [
        ({"steps": 2}, False, 2, True),
        ({"steps": -1, "max_epochs": 1}, False, 3, True),
        ({"steps": 100, "max_epochs": 1}, False, 3, True),
        ({"steps": 3}, True, 1, False),
        ({"steps": -1, "max_epochs": 1}, True, 1, False),
    ],
)
def test_the_final_evaluation_is_skipped_if_training_is_stopped_early(tmp_path, limits, stop, step, measured):
    callbacks = [FID(n=20, final_n=20), *[Stop()][: int(stop)]]
    trainer = train(tmp_path, *callbacks, **limits, limit_train_batches=3)
    assert trainer.global_step == step
    assert (tmp_path / "scores.json").exists() == measured


def test_callbacks_can_be_reused_for_another_training(tmp_path):
    """Each training measures its own model."""
    scores = FID(n=20, every_n_steps=1, final_n=20)
    train(tmp_path / "a", scores, steps=1)
    first = scores.report
    train(tmp_path / "b", scores, steps=2)
    assert scores.report.subject["images_seen"] == 200 and first.subject["images_seen"] == 100
    train(tmp_path / "c", default := Scores(n=20, every_n_steps=1, final_n=0), steps=1)
    assert default.evaluation is not None
    train(tmp_path / "d", default, steps=1, data=OtherData())
    assert default.evaluation is None and not (tmp_path / "d").exists()


# Other environments


@pytest.mark.parametrize("logger", [False, "csv", "default"])
def test_scores_of_a_plain_script_with_any_logger(tmp_path, monkeypatch, logger):
    monkeypatch.chdir(tmp_path)
    loggers = {"csv": CSVLogger("logs"), "default": True, False: False}
    train(tmp_path, FID(**QUICK), logger=loggers[logger], log_every_n_steps=1)
    (file,) = tmp_path.rglob("scores.jsonl")
    assert (file.parent / "checkpoints" / "best-fid.ckpt").exists()
    if logger == "csv":
        header, *rows = (file.parent / "metrics.csv").read_text().splitlines()
        column = next(i for i, name in enumerate(header.split(",")) if name.startswith("fid_"))
        logged = [float(value) for row in rows if (value := row.split(",")[column])]
        assert logged == pytest.approx(list(history(file.parent).values()))


def test_a_custom_extractor(tmp_path):
    extractor = Custom(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), "mine", channels=1, image_size=(8, 8))
    train(tmp_path, FID(**QUICK, extractor=extractor), InceptionScore(**QUICK))
    lines = [json.loads(line)["scores"][0]["name"] for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert [name.split("@")[0] for name in lines] == ["fid_mine", "is_digits"] * 2


def test_validation_losses_are_unchanged(tmp_path):
    found = []
    for callbacks in ([], [FID(**QUICK)]):
        trainer = train(tmp_path, *callbacks, steps=13, limit_val_batches=1.0)
        found.append({key: value.item() for key, value in trainer.callback_metrics.items() if key.startswith("val/")})
    assert found[0] == found[1] and len(found[0]) == 2


class Ranks(Callback):
    def __init__(self, path, scores):
        self.path, self.scores = path, scores

    def on_train_end(self, trainer, pl_module):
        values = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("fid_")}
        (self.path / f"{trainer.global_rank}.json").write_text(json.dumps([values, self.scores.records]))


def test_two_processes_have_the_same_scores_and_resume(tmp_path):
    def two(**more):
        strategy = GANStrategy(process_group_backend="gloo", start_method="fork")
        scores = Scores(n=150, every_n_steps=2, final_n=160)
        train(tmp_path, scores, Ranks(tmp_path, scores), model=make(), strategy=strategy, devices=2, **more)
        ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
        assert ranks[0] == ranks[1]
        return ranks[0]

    metrics, records = two()
    values = history(tmp_path)
    assert list(values) == [2, 4] and len(metrics) == 1
    best = Path(tmp_path, "checkpoints", "best-fid.ckpt")
    step = torch.load(best, weights_only=True)["global_step"]
    assert measured(load(best), 150)["fid"] == values[step] == min(values.values()) == records["fid"][str(step)]
    assert Report.load(tmp_path / "scores.json").scores[0].name.endswith("_160")
    known = {s: value for s, value in values.items() if s <= step}
    assert list(two(steps=step + 1, ckpt_path=str(best))[1]["fid"].values()) == [min(known.values())]


def test_a_row_after_a_cut_off_row_has_its_own_line(tmp_path):
    file = tmp_path / "scores.jsonl"
    append_row(file, {"step": 1})
    with file.open("a") as opened:
        opened.write('{"step": 2, "sco')  # the disk was full
    append_row(file, {"step": 3})
    append_row(file, {"step": 4})
    assert file.read_text() == '{"step": 1}\n{"step": 2, "sco\n{"step": 3}\n{"step": 4}\n'
    assert [row["step"] for row in keep_until(file, 9)] == [1, 3, 4]


def test_a_log_is_truncated_to_its_valid_lines_after_a_crash(tmp_path):
    file = tmp_path / "scores.jsonl"
    assert list(keep_until(file, 5)) == [] and not file.exists()
    file.write_text('{"step": 1}\n{"step": 5}\n{"step": 6}\n{"step": 5, "sco')
    assert list(keep_until(file, 5)) == [{"step": 1}, {"step": 5}]
    assert file.read_text() == '{"step": 1}\n{"step": 5}\n'
    file.write_bytes(b'{"step": 1}\n{"step": 2, "x": "\xe9"}\n\xff\xfe\n')  # not UTF-8
    assert list(keep_until(file, 5)) == [{"step": 1}]
    file.write_text('{"step": 1}')  # complete except for the newline
    assert list(keep_until(file, 5)) == [{"step": 1}]
    assert file.read_text() == '{"step": 1}\n'


FOREIGN = (
    '{"step": 1}\n{"step": 1, "scores": 7}\n{"step": 1, "scores": [[]]}\n{"step": 1, "scores": [{"figure": "fid"}]}\n'
)


def test_foreign_lines_in_the_log_are_ignored_and_kept(tmp_path):
    train(tmp_path, SaveAt(2, tmp_path / "a.ckpt"), FID(**QUICK), steps=2)
    log = (tmp_path / "scores.jsonl").read_text()
    score = {"figure": "fid", "value": "low", "protocol": json.loads(log.splitlines()[0])["scores"][0]["protocol"]}
    foreign = json.dumps({"step": 1, "scores": [score, {**score, "value": -5.0, "figure": ["fid"]}]})
    (tmp_path / "scores.jsonl").write_text(f"{FOREIGN}{foreign}\n{log}")
    train(tmp_path, FID(**QUICK), steps=4, ckpt_path=str(tmp_path / "a.ckpt"))
    assert (tmp_path / "scores.jsonl").read_text().startswith(f"{FOREIGN}{foreign}\n{log}")


def test_the_k_best_checkpoints_are_kept(tmp_path):
    train(tmp_path, Scores(["fid"], best=["fid"], keep_best=2, **QUICK), steps=8)
    values = {step: value for step, value in history(tmp_path).items()}
    best = sorted(sorted(values, key=values.get)[:2])
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [f"best-fid-{s:08d}.ckpt" for s in best]


@pytest.mark.parametrize("k", [1, 2])
def test_a_best_checkpoint_that_was_not_written_does_not_count(tmp_path, monkeypatch, k):
    whole, save = tmp_path / "whole", scores_module.save
    train(whole, FID(keep_best=k, **QUICK), steps=8)
    first, *others = sorted(history(whole), key=history(whole).get)
    monkeypatch.setattr(
        scores_module, "save", lambda trainer, path: trainer.global_step != first and save(trainer, path)
    )
    train(tmp_path, FID(keep_best=k, **QUICK), steps=8)
    kept = [torch.load(path, weights_only=True)["global_step"] for path in (tmp_path / "checkpoints").iterdir()]
    assert sorted(kept) == sorted(others[:k])


def test_a_resumed_run_keeps_the_k_best_checkpoints_of_an_uninterrupted_run(tmp_path):
    def scores():
        return Scores(["fid"], best=["fid"], keep_best=3, **QUICK)

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(whole, scores(), steps=10)
    train(parts, SaveAt(5, parts / "a.ckpt"), scores(), steps=10)
    train(parts, scores(), steps=10, ckpt_path=str(parts / "a.ckpt"))
    kept = [sorted(p.name for p in (path / "checkpoints").iterdir()) for path in (whole, parts)]
    assert kept[0] == kept[1] and len(kept[0]) == 3


def test_scores_of_evaluate_are_kept_when_a_run_goes_on(tmp_path):
    train(tmp_path, FID(n=20, every_n_steps=1, final_n=20), steps=1)
    report = Report.load(tmp_path / "scores.json")
    report.subject["file"] = "last.ckpt"
    report.save(tmp_path / "scores.json")
    train(tmp_path, FID(n=20, every_n_steps=1, final_n=20), steps=1)
    assert Report.load(tmp_path / "scores-2.json").subject["file"] == "last.ckpt"
    assert "file" not in Report.load(tmp_path / "scores.json").subject


SETTINGS = [{"n": 30}, {"every_n_steps": 3}, {"keep_best": 2}, {"final_n": 30}, {"split": "val"}]
SETTINGS += [{"extractor": "digits"}, {"weights": "a.pth"}, {"seed": 1}]


@pytest.mark.parametrize("other", SETTINGS, ids=str)
def test_another_setting_takes_another_pass(other):
    one, two = FID(**QUICK), KID(**{**QUICK, **other})
    trainer = SimpleNamespace(callbacks=[one, two])
    assert one._peers(trainer) == [one] and two._peers(trainer) == [two]


def test_callbacks_that_would_overwrite_each_others_files_are_refused(tmp_path):
    with pytest.raises(MisconfigurationException, match="two callbacks keep the best checkpoint by fid: set best to"):
        train(tmp_path, FID(n=20, every_n_steps=2, final_n=0), FID(n=30, every_n_steps=3), steps=6)
    with pytest.raises(MisconfigurationException, match="two callbacks score the last state in scores.json"):
        train(tmp_path, FID(n=20, every_n_steps=2), FID(n=30, every_n_steps=3, best=[]), steps=6)
    train(tmp_path, FID(n=20, every_n_steps=2, final_n=0), FID(n=30, every_n_steps=3, best=[], final_n=30), steps=6)
    assert [path.name for path in (tmp_path / "checkpoints").glob("best-*")] == ["best-fid.ckpt"]


@pytest.mark.parametrize(("left", "over"), [(-1.0, True), (5.0, False), (None, False)])
def test_a_time_limit_alone_ends_a_training(left, over):
    timer = Timer("00:00:00:01")
    timer.time_remaining = lambda: left
    assert _finished(SimpleNamespace(max_steps=-1, max_epochs=-1, callbacks=[timer])) is over


def test_of_equal_scores_the_first_is_the_best():
    scores, records = Scores(["modes"], keep_best=1), {}
    scores.directions = {"modes": "higher"}
    assert [scores._is_best(records, "modes", step, 8.0) for step in (2, 4)] == [True, False]
