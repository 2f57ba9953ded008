"""Scores while a GAN trains, and more of them at its end; one pass over one set of fakes for all of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from ganzoo.callbacks.base import Bar, save, time_left, warn_on_oserror
from ganzoo.core.atomic import keep_until
from ganzoo.core.files import open_file
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
Records = dict[str, dict[int, float]]  # figure -> step -> value, of the best ones


class Scores(BatchEndCallback):
    """Scores of the present generator every so often and, after training, of more fakes.

    Each figure is logged at its step, and at the last one, under its whole name, such as `fid_digits@1a2b_1k`; a
    `ModelCheckpoint` may monitor it as `fid`. With its protocol it goes to the run's `scores.jsonl`, that of the end to
    `scores.json`. Several of these callbacks with the same settings share one pass.

    Args:
        metrics: their names, see `ganzoo.evaluation.choice.METRICS`; [] for none. None takes, while training, one that
            costs next to nothing where the data has its own classifier ("fid") or modes to be counted ("modes"), and
            all usual ones after it; but nothing at all where it would be Inception.
        n: fakes of each evaluation while training.
        every_n_steps: batches between two of them.
        best: figures, such as fid or recall, by which the best checkpoint is kept as `checkpoints/best-<figure>.ckpt`;
            None for the first that can be ranked, [] for none.
        keep_best: how many of them are kept; if more than one, as `checkpoints/best-<figure>-<step>.ckpt`.
        split: of the data that the fakes are held against.
        extractor: of their features; None for the data's own.
        weights: a file with the extractor's weights, where there is no network to download them by.
        seed: of the fakes.
        final_n: fakes of the evaluation after training; None for what is usual
            (`ganzoo.evaluation.choice.usual_count`), 0 for no such evaluation. It is left out where a training is
            stopped before its end.

    Attributes:
        report: of the evaluation after training; None before it.
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
        check(Scores, {key: value for key, value in locals().items() if key != "self"})
        self.metrics, self.n, self.every_n_steps, self.best, self.keep_best = metrics, n, every_n_steps, best, keep_best
        self.split, self.extractor, self.weights, self.seed, self.final_n = split, extractor, weights, seed, final_n
        self.evaluation: Evaluation | None = None
        self.final: Evaluation | None = None
        self.report: Report | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse here what cannot be measured: before the first batch, and before a run has a folder."""
        self.evaluation = self.final = self.report = None
        self.played = False
        peers = self._peers(trainer)
        data = getattr(trainer, "datamodule", None)
        asked = [name for peer in peers for name in peer._asked(data)]
        if peers[0] is not self or not (asked or self.final_n):
            return  # the first of them asks for what the others want
        if not hasattr(data, "dataset"):
            raise MisconfigurationException("scores need one of ganzoo's data modules, to know the real images")
        self.folder = Path(trainer.log_dir or trainer.default_root_dir)  # to be asked on all processes
        at_the_end = None if None in [peer.metrics for peer in peers] else asked
        try:
            self._assemble(cast(GANModule, pl_module), data, asked, at_the_end)
        except (ValueError, OSError) as error:
            raise MisconfigurationException(f"scores: {error}") from error
        self.directions = self._directions(peers, data)

    @property
    def monitored(self) -> list[str]:
        """By which the figures of a training can be monitored."""
        scores = [] if self.evaluation is None else self.evaluation.failed().scores
        return [name for score in scores for name in (score.figure, score.name)]

    def _assemble(self, model: GANModule, data: Any, now: list[str], at_the_end: list[str] | None) -> None:
        """The evaluations while training and after it, of these metrics; they share an extractor."""
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
                self.final = evaluation(at_the_end, self.final_n)
            except ValueError as error:
                raise ValueError(f"final_n {self.final_n}: {error}" if self.final_n else str(error)) from error

    def _directions(self, peers: list[Scores], data: Any) -> dict[str, str]:
        """Which way the figures are better whose best checkpoints are kept."""
        metrics = self.evaluation.metrics if self.evaluation else []
        figures = [(metric.name, figure, way) for metric in metrics for figure, way in metric.figures.items() if way]
        directions = {figure: way for _, figure, way in figures}
        kept = [figure for peer in peers for figure in peer._best(data, figures)]
        if unknown := set(kept) - set(directions):
            there = ", ".join(directions) or "none among these metrics"
            raise MisconfigurationException(
                f"scores.best: {', '.join(sorted(unknown))} cannot be ranked by; there are {there}"
            )
        return {figure: directions[figure] for figure in kept}

    def _best(self, data: Any, figures: list[tuple[str, str, str]]) -> list[str]:
        """The figures whose best checkpoints this one keeps: those it names, or the first that can be ranked by of the
        metrics that it asks for."""
        if self.best is not None:
            return self.best
        asked = {name.partition(":")[0] for name in self._asked(data)}
        return [figure for metric, figure, _ in figures if metric in asked][:1]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.played = True
        if self.final is not None and trainer.is_global_zero:
            (self.folder / "scores.json").unlink(missing_ok=True)  # of another end
        if self.evaluation is not None:
            records = self._history(self.evaluation, trainer.global_step) if trainer.is_global_zero else {}
            self.records: Records = trainer.strategy.broadcast(records)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        step = trainer.global_step
        if self.evaluation is None or step % self.every_n_steps and step != trainer.max_steps:
            return
        report = self._measure(self.evaluation, trainer, cast(GANModule, pl_module))
        # For who monitors: under the figure's own name, too, as nobody knows a fingerprint by heart.
        names = {name: score.value for score in report.scores for name in (score.name, score.figure)}
        pl_module.log_dict(names, logger=False)
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / "scores.jsonl"
            with warn_on_oserror(path), open_file(path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"step": trainer.global_step, **report.as_dict()}) + "\n")
        for score in report.scores:
            if score.figure in self.directions and self._is_best(self.records, score.figure, step, score.value):
                self._keep(trainer, score.figure)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.final is None or not _finished(trainer):
            return
        if not self.played and trainer.strategy.broadcast((self.folder / "scores.json").exists()):
            return  # that run was at its end before; but perhaps it was killed while it was scored
        show = trainer.is_global_zero and trainer.progress_bar_callback is not None
        if show:
            print(f"scoring {len(self.final.fakes):,} fakes", file=sys.stderr)
        with progress_bar(show) as progress:
            self.report = self._measure(self.final, trainer, cast(GANModule, pl_module), progress)
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            with warn_on_oserror("scores.json"):
                self.report.save(self.folder / "scores.json")

    def _peers(self, trainer: Trainer) -> list[Scores]:
        """Those of the callbacks that share a pass; the first of them measures."""
        return [c for c in trainer.callbacks if isinstance(c, Scores) and c._settings() == self._settings()]  # type: ignore[attr-defined]

    def _settings(self) -> tuple[Any, ...]:
        """What must agree before several of these share a pass."""
        counts = self.n, self.every_n_steps, self.keep_best, self.final_n
        return (*counts, self.split, self.extractor, self.weights, self.seed)

    def _asked(self, data: Any) -> list[str]:
        return cheap(data) if self.metrics is None else self.metrics

    def _measure(
        self, evaluation: Evaluation, trainer: Trainer, model: GANModule, progress: Progress | None = None
    ) -> Report:
        try:
            report = evaluation.run(progress)
        except Exception as error:  # whatever it is, days of training are worth more
            rank_zero_warn(f"no scores at step {trainer.global_step}: {error}")
            report = evaluation.failed()
        model.publish({score.name: score.value for score in report.scores})
        return report

    def _is_best(self, records: Records, figure: str, step: int, value: float) -> bool:
        """Whether a figure is one of the best so far; the records are then those with it."""
        if value != value:
            return False
        sign = -1 if self.directions[figure] == "higher" else 1
        known = {**records.get(figure, {}), step: value}
        best = sorted(known, key=lambda step: (sign * known[step], step))[: self.keep_best]
        records[figure] = {step: known[step] for step in best}
        return step in best

    def _keep(self, trainer: Trainer, figure: str) -> None:
        folder = self.folder / "checkpoints"
        if self.keep_best == 1:
            save(trainer, folder / f"best-{figure}.ckpt")
            return
        kept = {folder / f"best-{figure}-{step:08d}.ckpt" for step in self.records[figure]}
        if save(trainer, folder / f"best-{figure}-{trainer.global_step:08d}.ckpt") and trainer.is_global_zero:
            for old in set(folder.glob(f"best-{figure}-*.ckpt")) - kept:
                old.unlink()

    def _history(self, evaluation: Evaluation, step: int) -> Records:
        """The best so far; what was measured after the checkpoint that a run goes on from is forgotten."""
        kept = keep_until(self.folder / "scores.jsonl", step)
        records: Records = {}
        for past in kept:
            for figure, value, protocol in _scores(past):
                if figure in self.directions and protocol in evaluation.protocols:
                    self._is_best(records, figure, past["step"], value)
        return records


class FID(Scores):
    """The Frechet inception distance while training: `Scores(["fid"], ...)`, which see for its settings."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(["fid"], **settings)


class InceptionScore(Scores):
    """The Inception score while training: `Scores(["is"], ...)`, which see for its settings."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(["is"], **settings)


class KID(Scores):
    """The kernel inception distance while training: `Scores(["kid"], ...)`, which see for its settings."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(["kid"], **settings)


@contextmanager
def progress_bar(show: bool = True) -> Iterator[Progress]:
    """What an evaluation can tell that it goes on; shown on a terminal, and gone when it is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, show=show, transient=True) as bar:
        tasks: dict[str, Any] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done)

        yield tell


def _scores(past: Any) -> list[tuple[str, float, Any]]:
    """Figures, values and protocols of a line of `scores.jsonl`; those that are not finite, and what another program
    has written, are left out."""
    try:
        found = [(score["figure"], score["value"], score["protocol"]) for score in past["scores"]]
    except (LookupError, TypeError):
        return []
    return [(figure, value, how) for figure, value, how in found if type(value) in (int, float) and type(figure) is str]


def _finished(trainer: Trainer) -> bool:
    """Whether a training came to its own end, rather than being stopped, of which Lightning counts the epoch, too."""
    steps, epochs = trainer.max_steps, trainer.max_epochs or -1
    if steps < 0 and epochs < 0:
        return min(time_left(trainer), default=1) <= 0
    return 0 < steps <= trainer.global_step or 0 < epochs <= trainer.current_epoch and not trainer.should_stop
