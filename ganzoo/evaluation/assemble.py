"""Inputs and defaults of an evaluation, for `ganzoo.evaluate`, the command `evaluate` and the callback `Scores`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ganzoo.core import from_data, readings
from ganzoo.core.limits import Count, Positive, Size, check
from ganzoo.core.module import GANModule
from ganzoo.core.pixels import usual_extractor
from ganzoo.data import ArrayImages, GANDataModule, Images, Pictures
from ganzoo.data.base import Split
from ganzoo.data.reading import Reading
from ganzoo.evaluation.choice import usual_count, usual_split
from ganzoo.evaluation.interfaces import Extractor
from ganzoo.evaluation.measure import Evaluation
from ganzoo.evaluation.processes import prepare
from ganzoo.evaluation.record import Report
from ganzoo.evaluation.sources import Fakes, Reals, Reference, check_images
from ganzoo.evaluation.sweep import Progress
from ganzoo.networks.features import Features


def evaluate(
    fakes: GANModule | Images | Tensor | np.ndarray | str | Path,
    reals: GANDataModule | Images | Tensor | np.ndarray | str | Path | None = None,
    metrics: Sequence[str] | None = None,
    *,
    n: Count | None = None,
    split: Split | None = None,
    seed: int = 0,
    extractor: str | Extractor | nn.Module | None = None,
    weights: str | None = None,
    device: Any = None,
    progress: Progress | None = None,
    truncation: Positive | None = None,
    standing_statistics: Count | None = None,
) -> Report:
    """Scores of a model, or of any images, with their protocols.

    Args:
        fakes: a model, or images: the path of a folder or .zip of pictures, or of a .npy/.npz file; a tensor or array
            [N, C, H, W], uint8 or float in [-1, 1]; or a data set of `ganzoo.data`.
        reals: a data module, or images as above; None for metrics that need none. Pictures in a folder are read as in
            the model's training (`model.readings`), if that is known.
        metrics: names, with settings as in "kid:size=500"; `python -m ganzoo evaluate --metrics list` prints all. None:
            all default ones that can be computed.
        n: number of fakes, for a model only; of a translator at most one for each source. None: 50,000 with Inception,
            26,000 for Stacked MNIST, 2,500 for points, otherwise 10,000.
        split: split of a data module, used as reals; None: "train", or, for a translator, "val" if it has images.
        seed: of a model's fakes.
        extractor: a name, such as "inception" or "digits", or a network of your own; None for the data's default.
        weights: a file with Inception's weights, if they cannot be downloaded.
        device: of the extractor; None for the model's device, or the CPU.
        progress: called with what is being read, the number of images done, and their total.
        truncation: of the latents, for a model only, as in `sample`; None: none.
        standing_statistics: number of passes that recompute the statistics of the model's batch norms, which the model
            then keeps: see `take_standing_statistics`; None: those of the training.

    Returns:
        One score per figure, with its protocol.

    Raises:
        ValueError: images are neither bytes nor finite floats in [-1, 1], floats appear to be in [0, 1], a metric
            cannot be computed, or an argument is for a model or a data module only.
        OSError: pictures or weights are missing.
    """
    sampling: dict[str, Any] = {"n": n, "truncation": truncation, "standing_statistics": standing_statistics}
    check(evaluate, {**sampling, "split": split, "seed": seed})
    if isinstance(reals, GANDataModule):
        prepare(reals)
    asked: dict[str, Any] = {"split": split, "seed": seed, "extractor": extractor, "weights": weights}
    return assemble(fakes, reals, metrics, **sampling, **asked, device=device).run(progress)


def assemble(
    fakes: GANModule | Images | Tensor | np.ndarray | str | Path,
    reals: GANDataModule | Images | Tensor | np.ndarray | str | Path | None = None,
    metrics: Sequence[str] | None = None,
    *,
    n: Count | None = None,
    split: Split | None = None,
    seed: int = 0,
    extractor: str | Extractor | nn.Module | None = None,
    weights: str | None = None,
    device: Any = None,
    resize: Size | None = None,
    truncation: Positive | None = None,
    standing_statistics: Count | None = None,
) -> Evaluation:
    """The checked `Evaluation` that `evaluate` runs, with defaults for arguments that are None.

    Arguments are those of `evaluate`, with a data module that has been prepared, and:

    Args:
        resize: pixels per side, or [height, width], to which pictures in folders are cropped and resized; None for
            their own size. If the model or the data module knows how its pictures were read, given pictures are read in
            the same way; real pictures for a model also get its size and channels.
    """
    model = fakes if isinstance(fakes, GANModule) else None
    if model is None and n is not None:
        raise ValueError(f"n is {n}, but only a model can generate n fakes; given images are all scored: leave n out")
    sampling = {"truncation": truncation, "standing_statistics": standing_statistics}
    if model is None and (of_models := [key for key, value in sampling.items() if value is not None]):
        raise ValueError(f"{of_models[0]} is for models; leave it out for given images")
    if split is not None and not isinstance(reals, GANDataModule):
        raise ValueError(
            f"split is {split!r}, but only a data module has splits; other images are all used: leave split out"
        )
    reference = _reference(reals, split, model, resize)
    if resize is not None and not any(isinstance(given, str | Path) for given in (fakes, reals)):
        raise ValueError("resize is for pictures from files, but none are given: leave it out")
    if model is not None:
        device = device or model.device
        like = reference.sets["real"] if reference else None
        n = n or usual_count(_extractor_name(extractor, reference))
        if model.source_channels is not None and like is not None:
            n = min(n, like.different_sources())  # repeated translations would count as different images
        source: Fakes | Reals = Fakes(model, n, seed, like, truncation, standing_statistics, device)
        classes = None if reference is None else getattr(reference.data, "num_classes", None)
        if source.translates and source.num_classes is not None and classes is not None:
            source.num_classes = classes  # its labels may lack the last ones
    else:
        like = readings.of(reals).get("image")
        check_images(images := _images(fakes, resize, "fakes", like), "the fakes")
        source = Reals(images, device or "cpu", _name(fakes))
    evaluation = Evaluation(source, reference, metrics, extractor=extractor, weights=weights, device=device or "cpu")
    if model is not None and evaluation.extractor is not None:
        _check_features(model, evaluation.extractor)
    if model is not None and standing_statistics is not None:  # last, since it changes the model
        model.take_standing_statistics(standing_statistics, truncation=truncation)
    return evaluation


def _check_features(model: GANModule, extractor: Extractor) -> None:
    """
    Raises:
        ValueError: the model was trained with the extractor's features.
    """
    for module in model.modules():
        if isinstance(module, Features) and module.are_in(extractor.network):
            raise ValueError(
                f"{extractor.name} has the features that the model was trained with ({module.name}), so its scores "
                "would be too good: choose another extractor"
            )


def _reference(reals: Any, split: Split | None, model: GANModule | None, resize: Size | None) -> Reference | None:
    if reals is None:
        return None
    if isinstance(reals, GANDataModule):
        if model is not None:
            from_data.agreed(from_data.known(model), from_data.of(reals, model.num_classes))
        return Reference.of(reals, split or usual_split(model, reals))
    like = None if model is None else model.readings.get("image")
    images = _images(reals, resize, "reals", like, model)
    reference = Reference(_name(reals), "all", {"real": images})
    reference.extractor = usual_extractor(images[0]["image"].shape[0])
    return reference


def _extractor_name(asked: str | Extractor | nn.Module | None, reference: Reference | None) -> str | None:
    """Name of the extractor, on which the default number of fakes depends; None for points."""
    if isinstance(asked, str):
        return asked
    if asked is not None:
        return asked.name if isinstance(asked, Extractor) else type(asked).__name__
    return reference.extractor if reference else "inception"


def _images(given: Any, resize: Size | None, what: str, like: Reading | None, model: GANModule | None = None) -> Images:
    """The given images as a data set; files are read `like` others, those for a model also with its size and channels,
    as far as these are known."""
    if isinstance(given, np.ndarray) and given.dtype.kind in "biuf":
        given = torch.from_numpy(np.ascontiguousarray(given))
    if isinstance(given, Tensor):
        return ArrayImages(given.detach().cpu().to_dense())
    if isinstance(given, str | Path):
        own = None if model is None else model.hparams.get("channels")
        channels: Any = own if own in (2, 4) else None  # pictures keep their alpha if the model's images have one
        if model is not None and like is not None and Path(given).suffix.lower() not in (".npy", ".npz"):
            channels, resize = like.channels, resize or like.size
        return Pictures(given, channels, image_size=resize, like=like)
    if isinstance(given, Images):
        return given
    kind = f"an array of {given.dtype}" if isinstance(given, np.ndarray) else f"of type {type(given).__name__}"
    who = "a model, " if what == "fakes" else "a data module, "
    raise ValueError(
        f"{what} is {kind}; it takes {who}a tensor or array [N, C, H, W], a path, or a data set of ganzoo.data: "
        "combine other images into one tensor with torch.stack or torch.cat"
    )


def _name(given: Any) -> str:
    return Path(given).resolve().name if isinstance(given, str | Path) else type(given).__name__
