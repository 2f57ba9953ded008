"""`ganzoo.evaluate(model, Digits(image_size=16))`: scores in one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ganzoo.core.module import GANModule
from ganzoo.data import ArrayImages, GANDataModule, Images, Pictures
from ganzoo.data.base import Split
from ganzoo.evaluation.choice import Reference, usual_count, usual_split
from ganzoo.evaluation.interfaces import Extractor
from ganzoo.evaluation.measure import Evaluation, Progress
from ganzoo.evaluation.record import Report, describe
from ganzoo.evaluation.sources import Fakes, Reals, Source


def evaluate(
    fakes: GANModule | Images | Tensor | str | Path,
    reals: GANDataModule | Images | Tensor | str | Path | None = None,
    metrics: Sequence[str] | None = None,
    *,
    n: int | None = None,
    split: Split | None = None,
    seed: int = 0,
    extractor: str | Extractor | nn.Module | None = None,
    weights: str | None = None,
    device: Any = None,
    progress: Progress | None = None,
) -> Report:
    """Scores of a model, or of anybody's images, with how they were measured.

    Args:
        fakes: a model; or images: a folder of pictures or a .npy/.npz, by its path; uint8 [N, C, H, W]; a data set.
        reals: a data module, or images as above; None for metrics that need none.
        metrics: names of `ganzoo.evaluation.choice.METRICS`, with settings as in "kid:size=500"; None for all usual
            ones.
        n: fakes of a model; None for what is usual.
        split: of the data module that the fakes are held against; None for "train", or a translator's "val".
        seed: of a model's fakes.
        extractor: "inception", "digits", ..., or a network of your own; None for the data's own.
        weights: a file with Inception's weights, where they cannot be downloaded.
        device: where the extractor goes; None for where the model is, or the CPU.
        progress: called with what is read, how many images are done, and how many there are.

    Raises:
        ValueError: what is asked for cannot be computed; the message says why.
        OSError: pictures or weights are not there.
    """
    reference: Reference | None = None
    if isinstance(reals, GANDataModule):
        reals.prepare_data()
        usual = usual_split(fakes, reals) if isinstance(fakes, GANModule) else "train"
        reference = Reference.of(reals, split or usual)
    elif reals is not None:
        images = _images(reals)
        channels = images[0]["image"].shape[0]
        eyes = {1: "inception-grey", 3: "inception"}.get(channels)
        reference = Reference(_name(reals), "all", {"real": images}, eyes)
    source: Source
    if isinstance(fakes, GANModule):
        device = device or fakes.device
        like = reference.sets["real"] if reference else None
        eyes = extractor if isinstance(extractor, str) else reference.extractor if reference else "inception"
        source, subject = Fakes(fakes, n or usual_count(eyes), seed, like), describe(fakes, seed)
    else:
        source, subject = Reals(_images(fakes), device or "cpu"), {"name": _name(fakes)}
    evaluation = Evaluation(source, reference, metrics, extractor=extractor, weights=weights, device=device or "cpu")
    return evaluation.run(subject, progress)


def _images(given: Any) -> Images:
    if isinstance(given, Tensor):
        return ArrayImages(given)
    return Pictures(str(given)) if isinstance(given, str | Path) else given


def _name(given: Any) -> str:
    return Path(given).resolve().name if isinstance(given, str | Path) else type(given).__name__
