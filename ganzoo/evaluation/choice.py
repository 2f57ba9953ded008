"""Which metrics, extractors, splits and counts there are, and which are taken where none is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, fields
from functools import partial
from typing import Any, Literal

from ganzoo.core.text import closest
from ganzoo.evaluation import metrics
from ganzoo.evaluation.interfaces import Metric
from ganzoo.evaluation.perceptual import PPL, ClassSimilarity, LPIPSDiversity
from ganzoo.evaluation.sources import Reference

METRICS: dict[str, type[Metric]] = {
    metric.name: metric
    for metric in (
        *(metrics.FID, metrics.InceptionScore, metrics.KID, metrics.PrecisionRecall, metrics.DensityCoverage),
        *(metrics.Memorisation, metrics.Accuracy, metrics.IntraFID, metrics.SFID, metrics.FIDInfinity),
        *(metrics.GaussianModes, metrics.Parzen, metrics.EBGANScore, PPL, LPIPSDiversity, ClassSimilarity),
    )
}
USUAL = ("fid", "is", "kid", "pr", "dc", "memorisation", "accuracy")  # where no modes can be counted


def usual_extractor(channels: int) -> str | None:
    """Of images that come without one of their own; None for points."""
    return {1: "inception-grey", 3: "inception"}.get(channels)


def usual_count(extractor: str | None) -> int:
    """Fakes of a whole evaluation: 50,000 through Inception, 26,000 Stacked-MNIST's, 2,500 points, else 10,000."""
    if extractor is None:
        return 2_500
    return 50_000 if "inception" in extractor else 26_000 if extractor.endswith("stacked") else 10_000


def usual_split(model: Any, data: Any) -> Literal["train", "val"]:
    """The training images, as published scores have it; held-out ones, where there are any, for a translator: their
    sources are new to it. The model is None for images of files."""
    translates = model is not None and model.source_channels is not None
    return "val" if translates and len(data.dataset("val")) else "train"


def choose(names: Sequence[str] | None, reference: Reference | None) -> list[Metric]:
    """The metrics of these names, which may go on with settings, as in `kid:size=500:subsets=20`.

    Args:
        names: of `METRICS`; None for "modes" where those of the data are known, else `USUAL`.
        reference: the reals, for what a metric must know of them.

    Raises:
        ValueError: there is no metric of a name, no such setting, or the data has no modes to be counted.
    """
    if isinstance(names, str):
        raise ValueError(f"metrics are a list: [{names}]")
    modes = _modes(reference.data if reference else None)
    if names is None:
        names = USUAL if modes is None else ["modes"]
    chosen: dict[str, Metric] = {}
    for text in dict.fromkeys(names):
        name, *settings = text.split(":")
        if name in chosen:
            raise ValueError(f"{name} is asked for twice; its figures would have one name: evaluate twice")
        chosen[name] = _metric(name, settings, modes)
    return list(chosen.values())


def _metric(name: str, settings: Sequence[str], modes: Any) -> Metric:
    """A metric by its name; `modes` makes the one that counts the data's modes, if it is not None."""
    if name not in METRICS:
        raise ValueError(f"no metric {name!r}{closest(name, METRICS, 'there are ' + ', '.join(METRICS))}")
    make: Any = METRICS[name] if name != "modes" else modes
    if make is None:
        raise ValueError("modes are counted on Gaussians and StackedMNIST; this data has none that are known")
    return make(**dict(_setting(METRICS[name], setting) for setting in settings))


def cheap(data: Any) -> list[str]:
    """What costs next to nothing while training: modes, where they are known, and FID by the data's own classifier."""
    if _modes(data) is not None:
        return ["modes"]
    return ["fid"] if getattr(data, "extractor", None) in ("digits", "mnist5k") else []


def _setting(metric: type[Metric], text: str) -> tuple[str, Any]:
    """`size=500` as the type of the field's default."""
    name, _, value = text.partition("=")
    defaults = {field.name: field.default for field in fields(metric) if field.default is not MISSING}
    if name not in defaults:
        raise ValueError(f"metrics: {metric.name} has no setting {name!r}; it has {', '.join(defaults) or 'none'}")
    try:
        found = type(defaults[name])(value)
        if name != "seed" and not isinstance(found, str) and found <= 0:
            raise ValueError
        return name, found
    except ValueError as error:
        kind = type(defaults[name]).__name__
        raise ValueError(
            f"{metric.name}: {name} is {value!r}; write {kind}s above 0, as {name}={defaults[name]}"
        ) from error


def _modes(data: Any) -> Any:
    data = getattr(data, "data", data)  # SemiSupervised has the images of another
    if hasattr(data, "centers"):
        centers = tuple(map(tuple, data.centers.tolist()))
        return partial(metrics.GaussianModes, centers, data.sigma, data.scale)
    return partial(metrics.StackedModes, data.protocol) if hasattr(data, "protocol") else None
