"""Diagnostics of GAN training: a curve for each failure mode, and one line of advice if it persists."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ganzoo.callbacks.base import condition, dataset_of, held_out, size_of
from ganzoo.core.frozen import evaluating, frozen, kept
from ganzoo.core.lightning_fixes import BatchEndCallback
from ganzoo.core.limits import CountFrom0, Limits, at_once, check
from ganzoo.core.module import GANModule
from ganzoo.core.pixels import scaled
from ganzoo.core.player import PLAYERS
from ganzoo.core.types import Batch
from ganzoo.evaluation.determinism import seeded
from ganzoo.functional.alarms import auc, clusters, mean_distance, near_held_out, reached
from ganzoo.functional.neighbours import copying, density_coverage

# What is measured
SIDE = 16  # pixels; larger images are averaged down to it, so that comparisons cost the same at any size
REFERENCE = 4096  # maximum number of training images that are searched for copies
NEIGHBOURS = 5  # k of coverage, as in its paper
CLUSTERS = 10  # of the training images; with n = 256, about 25 fakes per cluster are expected
DUE = 0.2  # a cluster with less than this share of its expected fakes counts as left out
PART = 64  # images per forward pass, or fewer if they are large

# Alarm thresholds, each with values of healthy runs (DCGAN on 16x16 digits, seeds 0, 1, every 500 batches)
WARM_UP = 4  # checks whose curves raise no alarm: an untrained G has low diversity, and D wins at first
COLLAPSED = 0.25  # diversity; healthy 0.93 to 0.99, untrained G 0.05
LEFT_OUT = 0.7  # modes; healthy 1.00, gan/ring with half of its modes lost 0.5
PERFECT, UNLIKE = 0.999, 0.1  # D_accuracy, coverage; healthy D_accuracy reaches 1.000, too, but coverage is 0.5 to 0.8
MEMORISED = 0.75  # D_overfit; healthy 0.50 to 0.59
COPIED, UNHELD = 0.6, 0.35  # copying, near_held_out; healthy 0.03 to 0.10 and 0.56 to 1.2, blurred reals 0.7 and 0.5
RESTLESS = 0.8  # drift; healthy 0.31, falling to 0.07; gan/digits, without averaging, 0.66 after warm-up


class Alarm(NamedTuple):
    """One failure mode.

    Attributes:
        patience: consecutive checks that raise the alarm, or end it.
        text: observation, meaning and one cure.
    """

    patience: int
    text: str


ALARMS = {
    "non-finite numbers": Alarm(
        1, "the fakes are not finite, although all weights are; resume an earlier checkpoint with a lower learning rate"
    ),
    "D is frozen": Alarm(
        2, "no weight has changed since the last check: no gradient reaches D, or its learning rate is 0; check both"
    ),
    "G is frozen": Alarm(
        2, "no weight has changed since the last check: no gradient reaches G, or its learning rate is 0; check both"
    ),
    "collapse": Alarm(
        2,
        "fakes are {diversity:.2f} times as diverse as reals: G generates nearly the same image from all "
        "latents; start again with lower learning rates",
    ),
    "modes left out": Alarm(
        3,
        "hardly any fake resembles {missing:.0%} of the reals: G does not generate these modes; "
        "lower G's learning rate, or use larger batches",
    ),
    "D wins": Alarm(
        5,
        "D recognises every fake (AUC {D_accuracy:.3f}), and few reals have a similar fake ({coverage:.0%}): G learns "
        "nothing from D; lower D's learning rate",
    ),
    "D memorises": Alarm(
        3,
        "D distinguishes training images from held-out ones (AUC {D_overfit:.2f}), so its scores of new images are "
        "unreliable; use more data, or augment it (model.augment, data.flip)",
    ),
    "copying": Alarm(
        3,
        "fakes are closer to training images than held-out reals are (probability {copying:.2f}): G copies its "
        "training data; use more data, or a smaller generator",
    ),
    "oscillation": Alarm(
        5,
        "between two checks a latent's image changes by {drift:.2f} times the distance between two reals: the "
        "players oscillate; lower both learning rates",
    ),
}


class Diagnostics(BatchEndCallback):
    """Logs `diagnostics/...`, and prints one line when a problem begins; the same line again only after the problem has
    ended.

    Each check compares the images of `sample` for the seeds 0 to n - 1 with n fixed training images and n held-out
    ones; `modes`, `copying` and `near_held_out` use up to 4,096 training images, or n if that is more. It does not
    affect training. Images are compared pixel by pixel, at 16x16 pixels or fewer. Curves are omitted if their
    data is missing: without a data module of ganzoo's, or without a validation split; `copying` and `near_held_out`,
    too, if the held-out images show other subjects; `D_overfit` then raises no alarm.

    - `D_accuracy`: AUC of D's scores in eval mode, held-out reals (without a validation split: training images) against
      fakes, as max(AUC, 1 - AUC), since energies are lower for reals. 0.5: chance; 1: perfect separation.
    - `D_overfit`: likewise, training images against held-out ones; ideally 0.5.
    - `diversity`: mean distance between two fakes, divided by that between two reals.
    - `modes`: share of the reals that lie in clusters which fakes reach.
    - `coverage`: share of the reals that have a fake among their nearest neighbours.
    - `copying`: probability that a fake is closer to the training images than a held-out real; ideally 0.5.
    - `near_held_out`: share of fakes whose nearest real is a held-out one, divided by chance; ideally 1, 0 for copies.
    - `drift`: mean distance between a latent's images at this check and the last, divided by that between two reals.

    Args:
        every_n_steps: batches between two checks; 0 for none. In the first four checks, only frozen players and
            non-finite numbers raise an alarm.
        n: number of fakes, of held-out images and, for the other curves, of training images; 11 to 10,000.
    """

    def __init__(self, every_n_steps: CountFrom0 = 500, n: Annotated[int, Limits(CLUSTERS + 1, 10_000)] = 256) -> None:
        check(Diagnostics, locals())
        self.every_n_steps = every_n_steps
        self.n = n
        self.active: dict[str, int] = {}  # current alarms, with the steps at which they began
        self._counts = dict.fromkeys(ALARMS, 0)  # consecutive checks that contradict `active`
        self._fakes: Tensor | None = None  # of the last check
        self._weights: dict[str, Tensor] = {}
        self._reals: _Reals | None = None

    def state_dict(self) -> dict[str, Any]:
        own = {"active": dict(self.active), "counts": dict(self._counts), "weights": dict(self._weights)}
        return {**own, "fakes": self._fakes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        active = state_dict["active"] if "active" in state_dict else state_dict["rung"]  # the key until November 2026
        self.active, self._counts = dict(active), {**self._counts, **state_dict["counts"]}
        self._fakes, self._weights = state_dict["fakes"], dict(state_dict["weights"])

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._reals = None  # the data may have changed

    @rank_zero_only
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if self.every_n_steps and trainer.global_step % self.every_n_steps == 0:
            self._check(trainer, pl_module)

    def _check(self, trainer: Trainer, model: Any) -> None:
        step = trainer.global_step
        for player in PLAYERS:
            weights = torch.stack([p.detach().float().sum() for p in getattr(model, player).parameters()]).cpu()
            same = player in self._weights and torch.equal(weights, self._weights[player])
            self._weights[player] = weights
            self._judge(f"{player[0].upper()} is frozen", step, same and self.every_n_steps >= model.n_critic)
        with _undisturbed(model):
            given = self._given(trainer, model)
            if model.source_channels is not None and given is None:
                return  # no sources
            key = "label" if model.source_channels is None else "source"
            images = model.sample(self.n, seeds=range(self.n), batch_size=part_of(model), **{key: given})
            finite = bool(images.isfinite().all())
            self._judge("non-finite numbers", step, not finite)
            if not finite:
                self._fakes = None
                return
            if self._reals is None:
                self._reals = _Reals(trainer, model, self.n)
            values = self._curves(model, images, given)
        # A frozen player explains all other symptoms.
        judged = step > WARM_UP * self.every_n_steps and not {"D is frozen", "G is frozen"} & self.active.keys()
        if values:
            model.publish({f"diagnostics/{name}": value for name, value in values.items()})
        for name, wrong in _verdicts(values, self._reals.alike).items():
            self._judge(name, step, wrong and judged, missing=1 - values.get("modes", 1), **values)

    def _given(self, trainer: Trainer, model: GANModule) -> Tensor | None:
        """Labels, cycling through the classes, or held-out sources."""
        if model.num_classes is not None:
            usual = torch.tensor(model.trained_labels())
            return usual[torch.arange(self.n) % len(usual)]
        batch = None if model.source_channels is None else held_out(trainer, self.n)
        return None if batch is None else batch["source"]

    def _curves(self, model: GANModule, images: Tensor, given: Tensor | None) -> dict[str, float]:
        """The curves for which there is data; values that are not finite are omitted."""
        assert self._reals is not None
        train, unseen = self._reals.train, self._reals.held_out
        fakes, before = small(images), self._fakes
        self._fakes = fakes
        values = {}
        if train is not None:
            reals = train.small[: self.n]
            scale = mean_distance(reals) or math.nan
            values["diversity"] = mean_distance(fakes) / scale
            values["modes"] = reached(train.small, fakes, self._reals.centres, DUE)
            values["coverage"] = density_coverage(reals, fakes, NEIGHBOURS)[1]
            if before is not None and before.shape == fakes.shape:
                values["drift"] = (fakes - before).norm(dim=1).mean().item() / scale
            scores = scores_of(model, train.images, train.given)
            unseen_scores = scores_of(model, unseen.images, unseen.given) if unseen else scores
            values["D_accuracy"] = _folded(unseen_scores, scores_of(model, images, given))
            if unseen is not None:
                values["D_overfit"] = _folded(scores, unseen_scores)
                if self._reals.alike:
                    values["copying"] = copying(train.small, unseen.small, fakes)[0]
                    values["near_held_out"] = near_held_out(train.small, unseen.small, fakes)
        return {name: value for name, value in values.items() if math.isfinite(value)}

    def _judge(self, name: str, step: int, wrong: bool, **seen: Any) -> None:
        """Counts checks that contradict the alarm's state; raises or ends it after `patience` of them."""
        self._counts[name] = self._counts[name] + 1 if wrong != (name in self.active) else 0
        if self._counts[name] < ALARMS[name].patience:
            return
        self._counts[name] = 0
        if wrong:
            self.active[name] = step
            print(f"{name} at step {step:,}: {ALARMS[name].text.format(**seen)}", file=sys.stderr)
        else:
            del self.active[name]


def _verdicts(values: dict[str, float], alike: bool = True) -> dict[str, bool]:
    """Problems that the available curves show; `alike` as in `_Reals`."""

    def over(name: str, limit: float) -> bool:
        return values.get(name, -math.inf) > limit

    def under(name: str, limit: float) -> bool:
        return values.get(name, math.inf) < limit

    collapsed, lost = under("diversity", COLLAPSED), under("modes", LEFT_OUT)
    return {
        "collapse": collapsed,
        "modes left out": lost and not collapsed,  # implied by collapse
        "D wins": over("D_accuracy", PERFECT) and under("coverage", UNLIKE),
        "D memorises": over("D_overfit", MEMORISED) and alike,  # else D may only know the subjects
        # Blurred images are close to all reals, held-out ones too; few distinct images give no reliable neighbours.
        "copying": over("copying", COPIED) and under("near_held_out", UNHELD) and not (collapsed or lost),
        "oscillation": over("drift", RESTLESS),
    }


class _Images:
    """Fixed images of a data set, for D and, downscaled, for comparisons.

    Args:
        data: a data set of ganzoo's.
        model: determines the condition that D reads.
        n: images for D.
        most: images in total.
    """

    def __init__(self, data: Any, model: GANModule, n: int, most: int) -> None:
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:most].tolist()
        first = scaled(data.__getitems__(order[:n]))
        self.images, self.given = first["image"], condition(model, first)
        parts = (scaled(data.__getitems__(order[i : i + PART]))["image"] for i in range(n, len(order), PART))
        self.small = torch.cat([small(self.images), *map(small, parts)])  # one part in memory at a time


class _Reals:
    """Training images with their clusters, and held-out images; each None if there are none or too few."""

    train: _Images | None = None
    held_out: _Images | None = None
    alike = True  # whether the held-out images are from the distribution of the training images

    def __init__(self, trainer: Trainer, model: GANModule, n: int) -> None:
        dataset = dataset_of(trainer)
        if dataset is None or len(dataset("train")) <= CLUSTERS:
            return
        self.train = _Images(dataset("train"), model, n, max(n, REFERENCE))
        self.centres = clusters(self.train.small, CLUSTERS)
        if len(dataset("val")):
            self.held_out = _Images(dataset("val"), model, n, n)
            self.alike = getattr(trainer.datamodule, "held_out_alike", True)  # type: ignore[attr-defined]


def small(images: Tensor) -> Tensor:
    """Images [N, C, H, W] as rows [N, d], downscaled to at most `SIDE` x `SIDE` pixels."""
    height, width = images.shape[-2:]
    return adaptive_avg_pool2d(images, (min(height, SIDE), min(width, SIDE))).flatten(1)


def part_of(model: GANModule) -> int:
    return min(PART, at_once(size_of(model)))


def scores_of(model: GANModule, images: Tensor, given: Tensor | None) -> Tensor:
    """D's scores [N] on the CPU: the mean over patches of the first tensor that it returns."""
    scores, most = [], part_of(model)
    for start in range(0, len(images), most):
        part = slice(start, start + most)
        y = None if given is None else given[part].to(model.device)
        output = model.discriminate(images[part].to(model.device), y)
        output = output if isinstance(output, Tensor) else output[0]
        scores.append(output.float().reshape(len(output), -1).mean(1).cpu())
    return torch.cat(scores)


def _folded(a: Tensor, b: Tensor) -> float:
    """max(AUC, 1 - AUC), since reals have the higher logits and critic values, but the lower energies."""
    if not (a.isfinite().all() and b.isfinite().all()):
        return math.nan
    area = auc(a, b)
    return max(area, 1 - area)


@contextmanager
def _undisturbed(model: GANModule) -> Iterator[None]:
    """Eval mode without gradients; restores modes, buffers and random states."""
    noise = seeded(0, model.device)  # the same noise of the generator at each check
    with evaluating(model), frozen(model.parameters()), kept(model.buffers()), torch.no_grad(), noise:
        yield
