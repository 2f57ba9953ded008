"""One pass over the fakes, one over the reals that are not cached, and all metrics."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ganzoo.core.pixels import usual_extractor
from ganzoo.evaluation.choice import choose
from ganzoo.evaluation.extractors import make
from ganzoo.evaluation.interfaces import Extractor, Figures, Given, Metric, States
from ganzoo.evaluation.processes import broadcast, failing_together, first_before_others, is_first
from ganzoo.evaluation.record import Protocol, Report, Score, made, protocol, score_name
from ganzoo.evaluation.sources import Reference, Source
from ganzoo.evaluation.sweep import Progress, Statistics, sweep

STAY = {"model", "images.rows", "images.spread"}  # states that stay on their device
OWN = "no extractor here reads {} channels; in Python, give one of your own: ganzoo.evaluate(..., extractor=my_network)"
# A metric may fail on these images, or need too much memory
UNCOMPUTED = (ValueError, MemoryError, torch.OutOfMemoryError, torch.linalg.LinAlgError)


class Evaluation:
    """Fakes, reference, metrics and extractor of an evaluation, checked and ready to run.

    Args:
        fakes: images of a model or from files.
        reference: the reals; None for metrics of the fakes alone.
        metrics: their names; None for all default ones that can be computed.
        extractor: a name, an extractor or a network; None for the reference's default.
        weights: a file with Inception's weights, if they cannot be downloaded.
        device: of the extractor and the images.

    Attributes:
        fakes: as given.
        reference: as given.
        extractor: None if no metric needs one.
        metrics: to be computed.
        missing: names of default metrics that cannot be computed.
        protocols: one per metric.

    Raises:
        ValueError: an unknown name, an extractor that does not fit the images, too few images for a metric, ...
        OSError: the extractor's weights are missing and could not be downloaded.
    """

    def __init__(
        self,
        fakes: Source,
        reference: Reference | None,
        metrics: Sequence[str] | None = None,
        *,
        extractor: str | Extractor | nn.Module | None = None,
        weights: str | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.fakes, self.reference = fakes, reference
        with failing_together():
            images = fakes.block(0)["images"]  # for their shape
        asked = choose(metrics, reference)
        with failing_together():
            sets = {} if reference is None else _sets(reference, asked, images)
        if extractor is None:
            extractor = usual_extractor(images.shape[1]) if reference is None else reference.extractor
        self.extractor = _extractor(extractor, asked, images, weights, device)
        self.statistics = Statistics(sets, self.extractor, device)
        given = Given(
            sizes={"fake": len(fakes), **{which: len(data) for which, data in sets.items()}},
            channels=images.shape[1],
            image_size=(images.shape[2], images.shape[3]),
            extractor=self.extractor,
            num_classes=fakes.num_classes,
            model=fakes.model is not None,
            split="" if reference is None else reference.split,
            truncated=fakes.truncation is not None,
            partners=reference is not None and reference.partners and fakes.translates,
            latents=plain_latents(fakes.model),
            moves=hasattr(fakes.model, "moved"),
            held_out_alike=getattr(reference and reference.data, "held_out_alike", True),
        )
        self.metrics = first_before_others(lambda: _computable(asked, given, insist=metrics is not None))
        self.missing = [metric.name for metric in asked if metric not in self.metrics]
        if not self.metrics:
            these = "fakes alone; add real images" if reference is None else f"{len(fakes):,} fakes; use more"
            if self.extractor is None and _other(given):
                these = f"these images: {OWN.format(given.channels)}"
            raise ValueError(f"nothing to measure: none of the default metrics can be computed from {these}")
        self.protocols = self._protocols(images)

    @property
    def names(self) -> dict[str, str]:
        """Full names of the figures: {"fid": "fid_digits@1a2b_1k"}."""
        each = zip(self.metrics, self.protocols, strict=True)
        return {figure: score_name(figure, how) for metric, how in each for figure in metric.figures}

    def run(self, progress: Progress | None = None) -> Report:
        """Computes the scores, on all processes together; the first one calls `progress`.

        The figures of a metric that cannot be computed are NaN, with a warning.

        Raises:
            ValueError: the generator's images are not finite, or no metric can be computed.
        """
        states = self._states(progress)
        with failing_together():
            if torch.device(self.statistics.device).type == "cuda":  # 50,000 images' neighbours take a CPU minutes
                states = {which: _moved(values, self.statistics.device) for which, values in states.items()}
            outcome = self._outcome(states) if is_first() else []
        return self._report(broadcast(outcome))

    def _outcome(self, states: States) -> list[Figures]:
        """The figures of each metric. One that fails does not lose the others, unless all fail."""
        found: list[Figures] = []
        problems: list[Exception] = []
        for metric in self.metrics:
            try:
                found.append(metric.compute(states))
            except UNCOMPUTED as error:
                problems.append(error)
                found.append(_unknown(metric))
        if len(problems) == len(found):
            raise problems[0]
        for problem in problems:
            warnings.warn(f"not computed: {problem}", stacklevel=2)
        return found

    def failed(self) -> Report:
        """The report of a failed evaluation: every figure is NaN."""
        return self._report([_unknown(metric) for metric in self.metrics])

    def _report(self, outcome: Sequence[Figures]) -> Report:
        """The figures as a report, with names and protocols."""
        found = [
            Score(score_name(figure, how), value, error, metric.error if error is not None else "", better, figure, how)
            for metric, how, figures in zip(self.metrics, self.protocols, outcome, strict=True)
            for figure, better in metric.figures.items()
            for value, error in [figures[figure]]
        ]
        return Report(self.fakes.subject, found, made(self.statistics.device))

    def _protocols(self, images: Tensor) -> list[Protocol]:
        channels, height, width = images.shape[1:]
        kind = "coordinate" if images.is_floating_point() else "channel"
        shape = f"{height}x{width}, {channels} {kind}{'s' if channels > 1 else ''}"
        with failing_together():
            about = self.reference.about() if self.reference is not None and is_first() else None
            held = {
                which: {f"{which}_images": len(data), f"{which}_fingerprint": data.fingerprint()}
                for which, data in self.statistics.sets.items()
                if which != "real" and is_first()
            }
        about, held = broadcast((about, held))
        found = []
        for metric in self.metrics:
            reals = about if self.fakes.of_reals or set(metric.needs) - {"fake"} else None
            how = protocol(metric, self.extractor, shape, len(self.fakes), reals, self.fakes.sampling)
            found.append(how | {key: value for which in metric.needs for key, value in held.get(which, {}).items()})
        return found

    def _states(self, progress: Progress | None) -> dict[str, dict[str, Any]]:
        needs: dict[str, dict[str, None]] = {}
        for metric in self.metrics:
            for which, wanted in metric.needs.items():
                needs.setdefault(which, {}).update(dict.fromkeys(wanted))
        of_fakes = [name for name in needs.pop("fake", {}) if name != "model"]
        states = {which: self.statistics.get(which, list(names), progress) for which, names in needs.items()}
        fake = sweep(self.fakes, self.extractor, of_fakes, "fakes", progress) if of_fakes else {}
        return {**states, "fake": {**fake, "model": self.fakes.model}}


def _sets(reference: Reference, metrics: Iterable[Metric], fakes: Tensor) -> dict[str, Any]:
    """The reference's sets, after loading those that the metrics need; raises if fakes and reals differ in shape."""
    for which in {which for metric in metrics for which in metric.needs} - {"fake"}:
        reference.open(which)
    real = reference.sets["real"][0]["image"]
    if fakes.shape[1:] != real.shape:
        one, other = (f"{c} x {h} x {w}" for c, h, w in (fakes.shape[1:], real.shape))
        raise ValueError(
            f"the fakes are {one} (channels, height, width), but the reals {other}: use the data that the model was "
            "trained on (--resize resizes pictures from files)"
        )
    return reference.sets


def _extractor(
    asked: str | Extractor | nn.Module | None,
    metrics: Iterable[Metric],
    images: Tensor,
    weights: str | None,
    device: torch.device | str,
) -> Extractor | None:
    """The extractor on its device; None if none is given or no metric needs it."""
    if asked is None or not any(metric.extracts for metric in metrics):
        return None
    channels, height, width = images.shape[1:]
    return first_before_others(lambda: make(asked, channels, (height, width), weights).to(device))


def _computable(metrics: Iterable[Metric], given: Given, insist: bool) -> list[Metric]:
    """The metrics that can be computed; with `insist`, all of them, or the error of the first that cannot."""
    found = []
    for metric in metrics:
        try:
            if given.extractor is None and metric.extracts:
                if _other(given):
                    raise ValueError(f"{metric.name} needs an extractor, and {OWN.format(given.channels)}")
                raise ValueError(f"{metric.name} needs images, but these are points in the plane; use the metric modes")
            metric.check(given)
            found.append(metric)
        except (OSError, ValueError):  # an OSError: weights could not be downloaded
            if insist:
                raise
    return found


def _unknown(metric: Metric) -> Figures:
    return dict.fromkeys(metric.figures, (math.nan, None))


def plain_latents(model: Any) -> bool:
    """Whether images depend on latents [n, z_dim] and labels alone."""
    if model is None or model.source_channels is not None:
        return False
    z = model.latent(1, torch.Generator())
    return isinstance(z, Tensor) and z.ndim == 2


def _other(given: Given) -> bool:
    """Whether these are images, but neither grey nor colour."""
    return given.channels not in (1, 3) and given.image_size != (1, 1)


def _moved(states: Mapping[str, Any], device: torch.device | str) -> dict[str, Any]:
    """The states with their tensors on the device, except those of `STAY`."""

    def move(value: Any) -> Any:
        return tree_map(lambda x: x.to(device) if isinstance(x, Tensor) else x, value)

    return {name: value if name in STAY else move(value) for name, value in states.items()}
