"""Benchmark: whole evaluations compared with torch-fidelity's, with the same networks and images in memory."""

from __future__ import annotations

import io
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.benchmarks.rows import GOALS, cache_at, row, silence, timed

if TYPE_CHECKING:
    from torch import Tensor

CASES = ("digits", "inception")
FAKES = {"digits": 10_000, "inception": 128}
BATCH = 64  # the default of torch-fidelity and of ganzoo
RESULTS = {  # torch-fidelity's names of scores that do not depend on random subsets
    "frechet_inception_distance": "fid",
    "inception_score_mean": "is",
    "precision": "precision",
    "recall": "recall",
}


class Case(NamedTuple):
    """The evaluation, for both libraries."""

    fakes: Tensor  # uint8 [N, C, H, W]
    reals: Tensor
    metrics: list[str]
    extractor: str
    weights: str | None
    theirs: str  # torch-fidelity's extractor
    outputs: list[str]  # torch-fidelity's outputs of the extractor


def evaluation(device: str, repeats: int) -> dict[str, Any]:
    """Times of an evaluation: cold, and warm, with the reals' statistics or features in the caches."""
    raw: dict[str, Any] = {}
    for name in CASES:
        make, times = (digits, repeats) if name == "digits" else (inception, -(-repeats // 3))
        with tempfile.TemporaryDirectory() as folder:
            case = make(FAKES[name], Path(folder) / "weights.pth")
            what = f"{len(case.fakes):,} fakes and {len(case.reals):,} reals through {name}"
            print(f"\nevaluation: {', '.join(case.metrics)} of {what}, median (p10 to p90) of {times}, interleaved")
            # with many images and a large network, extraction takes nearly all time; it also warms up
            raw[name] = {"extraction": _extraction(case, device, times), **_race(case, device, times)}
    return raw


def _extraction(case: Case, device: str, repeats: int) -> dict[str, list[float]]:
    """CPU time (wall time on a GPU) of the extractors alone, in seconds per batch."""
    from torch_fidelity.utils import create_feature_extractor

    from ganzoo.evaluation.extractors import make

    images = case.fakes[:BATCH].to(device)
    cuda, clock = device == "cuda", "wall" if device == "cuda" else "cpu"
    ours = make(case.extractor, images.shape[1], (images.shape[2], images.shape[3]), case.weights).to(device)
    settings = {"cuda": cuda, "verbose": False, "feature_extractor_weights_path": case.weights}
    theirs = create_feature_extractor(case.theirs, case.outputs, **settings)
    contestants = {"ganzoo": lambda: ours(images)["features"].cpu(), "torch-fidelity": lambda: theirs(images)[0].cpu()}
    raw: dict[str, list[float]] = {name: [] for name in contestants}
    for repeat in range(repeats + 1):
        for name, extract in contestants.items():
            _, time = timed(extract)
            if repeat:  # the first warms up
                raw[name].append(getattr(time, clock))
    ratios = [b / a for a, b in zip(raw["ganzoo"], raw["torch-fidelity"], strict=True)]
    row(f"extraction alone: torch-fidelity / ganzoo, {clock} time", ratios, ".2f")
    return raw


def _race(case: Case, device: str, repeats: int) -> dict[str, Any]:
    contestants = {"ganzoo": _ours, "torch-fidelity": _theirs}
    times: dict[str, dict[str, list[dict[str, float]]]] = {state: {} for state in ("cold", "warm")}
    scores: dict[str, dict[str, float]] = {}
    with silence():
        for _ in range(repeats):
            with tempfile.TemporaryDirectory() as cache, cache_at(cache):
                for found in times.values():
                    for name, evaluate in contestants.items():
                        scores[name], time = timed(partial(evaluate, case, device, cache))
                        found.setdefault(name, []).append(time._asdict())
    for state, found in times.items():
        pairs = list(zip(*found.values(), strict=True))
        for clock, goal in (("wall", f"at least {GOALS['evaluation']}"), ("cpu", "")):
            row(f"{state}: torch-fidelity / ganzoo, {clock} time", [b[clock] / a[clock] for a, b in pairs], ".2f", goal)
        images = len(case.fakes) + (len(case.reals) if state == "cold" else 0)
        for name, figures in found.items():
            row(f"{state}: images/s of {name}", [images / time["wall"] for time in figures], ",.0f")
    differences = {key: abs(value - scores["ganzoo"][key]) for key, value in scores["torch-fidelity"].items()}
    print(
        "  differences: " + ", ".join(f"{key} {difference:.0e}" for key, difference in differences.items()), flush=True
    )
    return {"times": times, "scores": scores}


def _ours(case: Case, device: str, cache: str) -> dict[str, float]:
    from ganzoo.data import ArrayImages
    from ganzoo.evaluation.measure import Evaluation
    from ganzoo.evaluation.sources import Reals, Reference

    fakes, reals = ArrayImages(case.fakes), ArrayImages(case.reals)
    evaluation = Evaluation(
        Reals(fakes, device),
        Reference("bench", "train", {"real": reals}),
        case.metrics,
        extractor=case.extractor,
        weights=case.weights,
        device=device,
    )
    return {score.figure: score.value for score in evaluation.run().scores}


def _theirs(case: Case, device: str, cache: str) -> dict[str, float]:
    from torch.utils.data import Dataset
    from torch_fidelity import calculate_metrics

    class Images(Dataset[Any]):
        def __init__(self, images: Tensor) -> None:
            self.images = images

        def __len__(self) -> int:
            return len(self.images)

        def __getitem__(self, index: int) -> Tensor:
            return self.images[index]

    names = {"fid": "fid", "is": "isc", "kid": "kid", "pr": "prc"}
    found = calculate_metrics(
        input1=Images(case.fakes),
        input2=Images(case.reals),
        input2_cache_name="reals",
        cache_root=cache,
        cuda=device == "cuda",
        batch_size=BATCH,
        feature_extractor=case.theirs,
        feature_extractor_weights_path=case.weights,
        verbose=False,
        **{names[metric]: True for metric in case.metrics},
    )
    return {RESULTS[name]: float(value) for name, value in found.items() if name in RESULTS}


# Images and extractors


def digits(n: int, file: Path) -> Case:
    """Scikit-learn's digits and noisy copies of them, with ganzoo's small digit classifier; FID, IS, KID, precision and
    recall."""
    import torch
    from torch_fidelity import register_feature_extractor
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

    from ganzoo.data import Digits
    from ganzoo.evaluation.extractors import Classifier

    class Theirs(FeatureExtractorBase):
        def __init__(self, name: str, features_list: list[str], **_: Any) -> None:
            super().__init__(name, features_list)
            self.extractor = Classifier("digits")
            self.network = self.extractor.network  # registered, so that it moves to the device

        def forward(self, images: Tensor) -> tuple[Tensor, ...]:
            outputs = self.extractor(images)
            return tuple(outputs[name] for name in self.features_list)

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return ("features", "logits")

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "logits" if metric == "isc" else "features"

    name = "ganzoo-digits"
    if name not in FEATURE_EXTRACTORS_REGISTRY:
        register_feature_extractor(name, Theirs)
    data = Digits(image_size=16).dataset("train")
    reals = data.__getitems__(range(len(data)))["image"]
    generator = torch.Generator().manual_seed(0)
    copies = reals[torch.randint(len(reals), (n,), generator=generator)].float()
    noise = torch.randn(copies.shape, generator=generator) * 40
    fakes = (copies + noise).clamp(0, 255).byte()
    return Case(fakes, reals, ["fid", "is", "kid", "pr"], "digits", None, name, ["features", "logits"])


def inception(n: int, file: Path) -> Case:
    """Noise, with an untrained Inception, which is as slow as a trained one."""
    import torch
    from torch import nn
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Untrained(FeatureExtractorInceptionV3):
        def load_state_dict(self, *_: Any, **__: Any) -> None:  # type: ignore[override]
            for module in self.modules():
                if isinstance(module, nn.Conv2d):  # the default gives all images similar features
                    nn.init.kaiming_normal_(module.weight)

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(Untrained("", ["2048"], feature_extractor_weights_path=nothing).state_dict(), file)
        fakes, reals = torch.randint(256, (2, n, 3, 32, 32), dtype=torch.uint8)
    outputs = ["2048", "logits_unbiased"]
    return Case(fakes // 2, reals, ["fid", "is"], "inception", str(file), "inception-v3-compat", outputs)
