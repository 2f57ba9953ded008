"""Names and defaults: metrics, extractors, splits and numbers of fakes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, fields
from functools import partial
from typing import Any, Literal

from ganzoo.core.limits import ArgumentError, check
from ganzoo.core.text import closest
from ganzoo.evaluation import metrics
from ganzoo.evaluation.equivariance import EQR, EQTFrac, EQTInt
from ganzoo.evaluation.interfaces import Metric
from ganzoo.evaluation.perceptual import PPL, ClassSimilarity, LPIPSDiversity
from ganzoo.evaluation.sources import Reference

METRICS: dict[str, type[Metric]] = {
    metric.name: metric
    for metric in (
        *(metrics.FID, metrics.InceptionScore, metrics.KID, metrics.PrecisionRecall, metrics.DensityCoverage),
        *(metrics.Authenticity, metrics.Copying, metrics.Accuracy, metrics.IntraFID, metrics.SFID),
        *(
            metrics.FIDInfinity,
            metrics.GaussianModes,
            metrics.Parzen,
            metrics.EBGANScore,
            metrics.TruePartners,
            PPL,
            LPIPSDiversity,
            ClassSimilarity,
        ),
        *(EQTInt, EQTFrac, EQR),
    )
}
USUAL = ("fid", "is", "kid", "pr", "dc", "authenticity", "copying", "accuracy")  # for data without known modes


def usual_count(extractor: str | None) -> int:
    """Default number of fakes: 50,000 with Inception, 26,000 for Stacked MNIST, 2,500 without an extractor, as for
    points, otherwise 10,000."""
    if extractor is None:
        return 2_500
    if extractor.removeprefix("other-").startswith("inception"):
        return 50_000
    return 26_000 if extractor.endswith("stacked") else 10_000


def usual_split(model: Any, data: Any) -> Literal["train", "val"]:
    """The training images, as in published scores; for translators, held-out images if there are any, since their
    sources are new to the model. The model is None for images from files."""
    translates = model is not None and model.source_channels is not None
    return "val" if translates and len(data.dataset("val")) else "train"


def choose(names: Sequence[str] | None, reference: Reference | None) -> list[Metric]:
    """Metrics by name, with optional settings, as in `kid:size=500:subsets=20`.

    Args:
        names: keys of `METRICS`; None for "modes" if the modes of the data are known, else `USUAL`, and "pairs" if the
            true translations of the data's sources are known.
        reference: the reals, whose modes may be known.

    Raises:
        ValueError: a metric or setting is unknown, a metric is named twice, or the data has no known modes for "modes".
    """
    if isinstance(names, str):
        raise ValueError(f"metrics must be a list: [{names}]")
    modes = _modes(reference.data if reference else None)
    if names is None:
        partners = reference is not None and reference.partners
        names = ["modes"] if modes is not None else (*USUAL, "pairs") if partners else USUAL
    chosen: dict[str, Metric] = {}
    for text in dict.fromkeys(names):
        name, *settings = text.split(":")
        if name in chosen:
            raise ValueError(f"{name} is requested twice, so two scores would have the same name: evaluate each alone")
        chosen[name] = _metric(name, settings, modes)
    return list(chosen.values())


def _metric(name: str, settings: Sequence[str], modes: Any) -> Metric:
    """A metric by name; `modes` constructs the metric "modes", or is None if the data's modes are unknown."""
    if name not in METRICS:
        raise ValueError(f"no metric {name!r}{closest(name, METRICS, 'choose from ' + ', '.join(METRICS))}")
    make: Any = METRICS[name] if name != "modes" else modes
    if make is None:
        raise ValueError("modes can be counted for Gaussians and StackedMNIST only; choose other metrics for this data")
    given = dict(_setting(METRICS[name], setting) for setting in settings)
    try:
        check(METRICS[name], given)
    except ArgumentError as error:
        raise ValueError(f"{name}: {error}") from error
    return make(**given)


def cheap(data: Any) -> list[str]:
    """Default metrics during training, at little cost: modes if known, or FID with the data's own classifier."""
    if _modes(data) is not None:
        return ["modes"]
    extractor = getattr(data, "extractor", None)
    return ["fid"] if extractor is not None and not extractor.startswith("inception") else []


def _setting(metric: type[Metric], text: str) -> tuple[str, Any]:
    """Parses a setting, such as `size=500`; its type is that of the field's default."""
    name, _, value = text.partition("=")
    defaults = {field.name: field.default for field in fields(metric) if field.default is not MISSING}
    if name not in defaults:
        raise ValueError(f"metrics: {metric.name} has no setting {name!r}; it has {', '.join(defaults) or 'none'}")
    try:
        return name, type(defaults[name])(value)
    except ValueError:
        return name, value  # refused by its type


def _modes(data: Any) -> Any:
    data = getattr(data, "data", data)  # SemiSupervised wraps another data module
    if hasattr(data, "centers"):
        centers = tuple(map(tuple, data.centers.tolist()))
        return partial(metrics.GaussianModes, centers, data.sigma, data.scale)
    return partial(metrics.StackedModes, data.protocol) if hasattr(data, "protocol") else None
