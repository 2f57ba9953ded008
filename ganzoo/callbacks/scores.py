"""Scores during training, and of more fakes at its end; all metrics share one pass over the fakes."""

from __future__ import annotations

import math
import sys
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ganzoo.callbacks.base import folder_of, on_training_device, progress_bar, save, time_left, warn_on_oserror
from ganzoo.core.atomic import append_row, keep_until
from ganzoo.core.lightning_fixes import BatchEndCallback
from ganzoo.core.limits import Count, Limits, check
from ganzoo.core.module import GANModule
from ganzoo.evaluation.assemble import assemble
from ganzoo.evaluation.choice import cheap
from ganzoo.evaluation.interfaces import Extractor
from ganzoo.evaluation.measure import Evaluation
from ganzoo.evaluation.record import Report
from ganzoo.evaluation.sweep import Progress

MOST = 1_000_000  # fakes
Records = dict[str, dict[int, float]]  # figure -> step -> value, of the best


class Scores(BatchEndCallback):
    """Scores of the current generator at intervals and, after training, of more fakes.

    Each figure is logged at intervals, and at `trainer.max_steps`, under its full name, such as `fid_digits@1a2b_1k`; a
    `ModelCheckpoint` may monitor it as `fid`. With their protocols, scores are appended to the run's `scores.jsonl`;
    those of the end go to `scores.json`. Several of these callbacks with the same settings share one pass.

    Args:
        metrics: names, as in `evaluate`; [] for none. None, after training: all default ones. None, during training:
            "modes" if the data has known modes, else "fid" if it has a classifier of its own, else none; in the last
            case, scores after training need `final_n`, since they need Inception.
        n: fakes per evaluation during training, 1 to 1,000,000.
        every_n_steps: batches between two evaluations.
        best: figures, such as fid or recall, whose best checkpoint is kept as `checkpoints/best-<figure>.ckpt`; None
            for the first that can be ranked, [] for none.
        keep_best: number of best checkpoints kept; if more than one, as `checkpoints/best-<figure>-<step>.ckpt`.
        split: of the data, used as reals; None: "train", or, for a translator, "val" if it has images.
        extractor: of the features; None for the data's own.
        weights: a file with Inception's weights, if they cannot be downloaded; for Inception only.
        seed: of the fakes.
        final_n: fakes of the evaluation after training; None for the default (`ganzoo.evaluation.choice.usual_count`),
            0 for no such evaluation. Omitted if training is stopped early.

    Attributes:
        report: of the evaluation after training; None before it.
        measured: the step of the last value of each monitored name.
    """

    def __init__(
        self,
        metrics: list[str] | None = None,
        n: Annotated[int, Limits(1, MOST)] = 1000,
        every_n_steps: Count = 1000,
        best: list[str] | None = None,
        keep_best: Count = 1,
        split: Literal["train", "val", "test"] | None = None,
        extractor: str | Extractor | None = None,
        weights: str | None = None,
        seed: int = 0,
        final_n: Annotated[int, Limits(0, MOST)] | None = None,
    ) -> None:
        check(Scores, locals())
        self.metrics, self.n, self.every_n_steps, self.best, self.keep_best = metrics, n, every_n_steps, best, keep_best
        self.split, self.extractor, self.weights, self.seed, self.final_n = split, extractor, weights, seed, final_n
        self.evaluation: Evaluation | None = None
        self.final: Evaluation | None = None
        self.report: Report | None = None
        self.measured: dict[str, int] = {}
        self.directions: dict[str, str] = {}  # of the figures whose best checkpoints are kept

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Rejects what cannot be computed, before the first batch and before the run has a folder."""
        self.evaluation = self.final = self.report = None
        self.trained = False
        self.measured, self.directions = {}, {}
        peers = self._peers(trainer)
        data = getattr(trainer, "datamodule", None)
        asked = [name for peer in peers for name in peer._asked(data)]
        if peers[0] is not self or not (asked or self.final_n):
            return  # the first peer computes the metrics of all
        if not hasattr(data, "dataset"):
            raise MisconfigurationException(
                "scores need real images from one of ganzoo's data modules; use one of these"
            )
        self.folder = folder_of(trainer)
        default = any(peer.metrics is None and (peer._asked(data) or peer.final_n) for peer in peers)
        named = [name for peer in peers for name in peer.metrics or []]
        try:
            self._assemble(cast(GANModule, pl_module), data, asked, named, default)
        except (ValueError, OSError) as error:
            raise MisconfigurationException(f"scores: {error}") from error
        self.directions = self._directions(peers, data)
        self._check_others([c for c in trainer.callbacks if isinstance(c, Scores) and c not in peers])  # type: ignore[attr-defined]

    @property
    def monitored(self) -> list[str]:
        """Names under which figures can be monitored during training."""
        scores = [] if self.evaluation is None else self.evaluation.failed().scores
        return [name for score in scores for name in (score.figure, score.name)]

    def _assemble(self, model: GANModule, data: Any, now: list[str], at_the_end: list[str], default: bool) -> None:
        """Creates the evaluations during and after training with these metrics, and afterwards the default ones, too;
        they share an extractor."""
        extractor = self.extractor

        def evaluation(metrics: list[str] | None, n: int | None) -> Evaluation:
            weights = None if isinstance(extractor, Extractor) else self.weights
            asked: dict[str, Any] = {"n": n, "split": self.split, "seed": self.seed}
            return assemble(model, data, metrics, **asked, extractor=extractor, weights=weights)

        if now:
            self.evaluation = evaluation(now, self.n)
            extractor = self.evaluation.extractor or extractor
        if self.final_n != 0:
            try:
                usual = [metric.name for metric in evaluation(None, self.final_n).metrics] if default else []
                named = {name.partition(":")[0]: name for name in [*usual, *at_the_end]}  # with settings, if any
                self.final = evaluation([*named.values()], self.final_n)
            except ValueError as error:
                raise ValueError(f"final_n {self.final_n}: {error}" if self.final_n else str(error)) from error

    def _directions(self, peers: list[Scores], data: Any) -> dict[str, str]:
        """The better direction of each figure whose best checkpoints are kept."""
        metrics = self.evaluation.metrics if self.evaluation else []
        figures = [(metric.name, figure, way) for metric in metrics for figure, way in metric.figures.items() if way]
        directions = {figure: way for _, figure, way in figures}
        kept = [figure for peer in peers for figure in peer._best(data, figures)]
        if unknown := set(kept) - set(directions):
            there = ", ".join(directions) or "none for these metrics"
            raise MisconfigurationException(
                f"scores.best: {', '.join(sorted(unknown))} cannot rank checkpoints; available: {there}"
            )
        return {figure: directions[figure] for figure in kept}

    def _check_others(self, others: list[Scores]) -> None:
        """
        Raises:
            MisconfigurationException: a callback with other settings would overwrite this one's files.
        """
        same = "or give both callbacks the same settings"
        if both := sorted({figure for other in others for figure in other.directions if figure in self.directions}):
            raise MisconfigurationException(
                f"scores: two callbacks keep the best checkpoint by {both[0]}: set best to [] in one of them, {same}"
            )
        if self.final is not None and any(other.final is not None for other in others):
            raise MisconfigurationException(
                f"scores: two callbacks score the last state in scores.json: set final_n to 0 in one of them, {same}"
            )

    def _best(self, data: Any, figures: list[tuple[str, str, str]]) -> list[str]:
        """Figures whose best checkpoints this callback keeps: its own list, or its metrics' first rankable one."""
        if self.best is not None:
            return self.best
        asked = {name.partition(":")[0] for name in self._asked(data)}
        return [figure for metric, figure, _ in figures if metric in asked][:1]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.trained = True
        if self.final is not None and trainer.is_global_zero:
            self._make_room(self.folder / "scores.json")
        if self.evaluation is not None:
            records = self._history(self.evaluation, trainer.global_step) if trainer.is_global_zero else {}
            self.records: Records = trainer.strategy.broadcast(records)

    def _make_room(self, file: Path) -> None:
        """Removes the scores of an earlier end of this run; renames those of `evaluate`, which name a checkpoint."""
        if not file.exists():
            return
        try:
            measured = "file" in Report.load(file).subject
        except ValueError:  # not a record of this version
            measured = True
        with warn_on_oserror(file):
            if measured:
                names = (file.with_stem(f"scores-{i}") for i in count(2))
                file.rename(next(name for name in names if not name.exists()))
            else:
                file.unlink()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        step = trainer.global_step
        if self.evaluation is None or step % self.every_n_steps and step != trainer.max_steps:
            return
        report = self._measure(self.evaluation, trainer, cast(GANModule, pl_module))
        # For monitoring, also under the short name, without the fingerprint; NaN would end a training.
        found = [score for score in report.scores if math.isfinite(score.value)]
        names = {name: torch.tensor(score.value) for score in found for name in (score.name, score.figure)}
        trainer.callback_metrics.update(names)
        self.measured |= dict.fromkeys(names, step)
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / "scores.jsonl"
            with warn_on_oserror(path):
                append_row(path, {"step": trainer.global_step, **report.as_dict()})
        for score in report.scores:
            before = self.records.get(score.figure, {})
            best = score.figure in self.directions and self._is_best(self.records, score.figure, step, score.value)
            if best and not self._keep(trainer, score.figure):
                self.records[score.figure] = before

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.final is None or not _finished(trainer) or _interrupted(trainer):
            return
        if not self.trained and trainer.strategy.broadcast((self.folder / "scores.json").exists()):
            return  # the run had ended before, and was scored
        show = trainer.is_global_zero and trainer.progress_bar_callback is not None
        if show:
            print(f"scoring {len(self.final.fakes):,} fakes", file=sys.stderr)
        with on_training_device(trainer, pl_module), progress_bar(show) as progress:
            self.report = self._measure(self.final, trainer, cast(GANModule, pl_module), progress)
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            with warn_on_oserror("scores.json"):
                self.report.save(self.folder / "scores.json")

    def _peers(self, trainer: Trainer) -> list[Scores]:
        """Callbacks that share a pass; the first of them measures."""
        return [c for c in trainer.callbacks if isinstance(c, Scores) and c._settings() == self._settings()]  # type: ignore[attr-defined]

    def _settings(self) -> tuple[Any, ...]:
        """Settings that must agree for several callbacks to share a pass."""
        counts = self.n, self.every_n_steps, self.keep_best, self.final_n
        return (*counts, self.split, self.extractor, self.weights, self.seed)

    def _asked(self, data: Any) -> list[str]:
        return cheap(data) if self.metrics is None else self.metrics

    def _measure(
        self, evaluation: Evaluation, trainer: Trainer, model: GANModule, progress: Progress | None = None
    ) -> Report:
        try:
            report = evaluation.run(progress)
        except Exception as error:  # a failed evaluation must not end a long training
            rank_zero_warn(f"no scores at step {trainer.global_step}: {error}")
            report = evaluation.failed()
        model.publish({score.name: score.value for score in report.scores})
        return report

    def _is_best(self, records: Records, figure: str, step: int, value: float) -> bool:
        """Whether a value is among the best so far; adds it to the records if so."""
        if value != value:
            return False
        sign = -1 if self.directions[figure] == "higher" else 1
        known = {**records.get(figure, {}), step: value}
        best = sorted(known, key=lambda step: (sign * known[step], step))[: self.keep_best]
        records[figure] = {step: known[step] for step in best}
        return step in best

    def _keep(self, trainer: Trainer, figure: str) -> bool:
        """Writes the checkpoint of a best score, and removes those that no longer are; whether it was written."""
        folder = self.folder / "checkpoints"
        step = f"-{trainer.global_step:08d}" if self.keep_best > 1 else ""
        saved = trainer.strategy.broadcast(save(trainer, folder / f"best-{figure}{step}.ckpt"))
        if saved and step and trainer.is_global_zero:
            kept = {folder / f"best-{figure}-{step:08d}.ckpt" for step in self.records[figure]}
            for old in set(folder.glob(f"best-{figure}-*.ckpt")) - kept:
                old.unlink()
        return saved

    def _history(self, evaluation: Evaluation, step: int) -> Records:
        """The best so far; removes scores after the checkpoint that a run resumes from."""
        kept = keep_until(self.folder / "scores.jsonl", step)
        records: Records = {}
        for past in kept:
            for figure, value, protocol in _scores(past):
                if figure in self.directions and protocol in evaluation.protocols:
                    self._is_best(records, figure, past["step"], value)
        return records


class FID(Scores):
    """Frechet inception distance during training: `Scores(["fid"], ...)`; for the settings, see `Scores`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(["fid"], **settings)


class InceptionScore(Scores):
    """Inception score during training: `Scores(["is"], ...)`; for the settings, see `Scores`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(["is"], **settings)


class KID(Scores):
    """Kernel inception distance during training: `Scores(["kid"], ...)`; for the settings, see `Scores`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(["kid"], **settings)


def _scores(past: Any) -> list[tuple[str, float, Any]]:
    """Figures, values and protocols in a line of `scores.jsonl`; malformed and non-finite ones are omitted."""
    try:
        found = [(score["figure"], score["value"], score["protocol"]) for score in past["scores"]]
    except (LookupError, TypeError):
        return []
    return [(figure, value, how) for figure, value, how in found if type(value) in (int, float) and type(figure) is str]


def _interrupted(trainer: Trainer) -> bool:
    """Whether a signal asks the run to stop: it is scored when it is started again."""
    signals = [getattr(callback, "signal", 0) for callback in trainer.callbacks]  # type: ignore[attr-defined]
    return trainer.strategy.reduce_boolean_decision(any(signals), all=False)


def _finished(trainer: Trainer) -> bool:
    """Whether training reached its end instead of being stopped; Lightning counts the epoch in both cases."""
    steps, epochs = trainer.max_steps, trainer.max_epochs or -1
    if steps < 0 and epochs < 0:
        return min(time_left(trainer), default=1) <= 0
    return 0 < steps <= trainer.global_step or 0 < epochs <= trainer.current_epoch and not trainer.should_stop
