"""Benchmark: the time of the Frechet distance, and the memory of an evaluation by number of fakes, on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganzoo.cli.errors import UserError
from ganzoo.core.text import one_line
from tests.benchmarks.rows import GOALS, row, timed

if TYPE_CHECKING:
    from torch import Tensor

ROOT = Path(__file__).parents[2]
FEATURES = 2048  # Inception's
ROWS = (6000, 1000)  # more than features, and fewer
FAKES = (2_000, 5_000, 20_000, 200_000)
SAMPLE = 5_000  # maximum number of rows in the standard error of fid
SIZES = (256, 10)  # features and classes of the extractor in the memory benchmark


def frechet(device: str, repeats: int) -> dict[str, Any]:
    """CPU time and error of the distance between two Gaussians.

    The reference is the nuclear norm |A B^T|_* of the centred features, which avoids the error of squaring them.
    """
    import numpy as np
    import torch
    from scipy.linalg import sqrtm
    from torchmetrics.image.fid import _compute_fid

    from ganzoo.functional.frechet import Gaussian, frechet_distance

    raw: dict[str, Any] = {}
    for n in ROWS:
        print(f"\nfrechet: d = {FEATURES}, {n} rows a side; CPU time, median (p10 to p90) of {repeats}, interleaved")
        features = [_features(n, seed) for seed in range(2)]
        real, fake = (Gaussian.of(x) for x in features)
        real, root = timed(real.with_root)
        means, covs = [x.mean(0) for x in features], [torch.cov(x.T) for x in features]
        apart, traces = (means[0] - means[1]).square().sum(), covs[0].trace() + covs[1].trace()
        true = (apart + traces - 2 * _overlap(*features)).item()

        def with_sqrtm(covs: list[Tensor] = covs, rest: Tensor = apart + traces) -> float:
            return rest.item() - 2 * np.trace(sqrtm((covs[0] @ covs[1]).numpy())).real.item()

        contestants = {
            "ganzoo": lambda real=real, fake=fake: frechet_distance(real, fake),
            "torchmetrics": lambda m=means, s=covs: _compute_fid(m[0], s[0], m[1], s[1]).item(),
            "scipy": with_sqrtm,
        }
        found: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
        for repeat in range(repeats):
            for name, distance in contestants.items():
                if repeat == 0 or name != "scipy":  # scipy is slow
                    value, time = timed(distance)
                    found[name].append({"cpu": time.cpu, "wall": time.wall, "error": abs(value - true)})
        raw[str(n)] = {"true": true, "root": root.cpu, **found}
        goal = GOALS["frechet" if n > FEATURES else "frechet, few rows"]
        for name, text in (("torchmetrics", f"at least {goal}"), ("scipy", "")):
            pairs = zip(found[name], found["ganzoo"], strict=False)  # scipy ran once
            row(f"{name} / ganzoo", [other["cpu"] / ours["cpu"] for other, ours in pairs], ".1f", text)
        for name, figures in found.items():
            row(f"{name}, seconds", [figure["cpu"] for figure in figures], ".2f")
        row("the reals' root, computed once, seconds", [root.cpu], ".2f")
        for name, figures in found.items():
            row(f"{name}, error of {true:.4g}", [figure["error"] for figure in figures], ".0e")
    return raw


def _features(n: int, seed: int) -> Tensor:
    """[n, FEATURES] in float64: non-negative, correlated, with a decaying spectrum; the seed determines the mixture."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    scale = torch.arange(1, FEATURES + 1, dtype=torch.float64).rsqrt()
    mixture = torch.randn(FEATURES, FEATURES, generator=generator, dtype=torch.float64) / FEATURES**0.5
    return (torch.randn(n, FEATURES, generator=generator, dtype=torch.float64) * scale @ mixture + 0.05).relu()


def _overlap(x: Tensor, y: Tensor) -> Tensor:
    """tr (S1 S2)^(1/2) of the rows' covariances, from the triangular factors of QR."""
    import torch

    a, b = (torch.linalg.qr((z - z.mean(0)) / (len(z) - 1) ** 0.5, mode="r").R for z in (x, y))
    return torch.linalg.svdvals(a @ b.T).sum()


def memory(device: str, repeats: int) -> dict[str, list[float]]:
    """Peak memory in MB of processes that compute FID and IS of an increasing number of fakes."""
    print(
        f"\nmemory: peak MB added to a process by fid and is, {SIZES[0]} features, median (p10 to p90) of {repeats};"
        f"\nthe rows kept for the standard error of fid grow up to {SAMPLE:,} fakes"
    )
    raw: dict[str, list[float]] = {}
    for _ in range(repeats):
        for n in FAKES:
            code = f"from tests.benchmarks.scores import peak; peak({n}, {SIZES[0]}, {SIZES[1]})"
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
            done = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=ROOT
            )
            if done.returncode:
                raise UserError(f"evaluation of {n} fakes: {one_line(done.stderr.strip().rpartition(chr(10))[2])}")
            raw.setdefault(str(n), []).append(json.loads(done.stdout))
    for n in FAKES:
        row(f"{n:,} fakes", raw[str(n)], ".1f")
    for few, many in zip(FAKES, FAKES[1:], strict=False):
        more = [b - a for a, b in zip(raw[str(few)], raw[str(many)], strict=True)]
        goal = f"at most {GOALS['memory']}" if few >= SAMPLE else ""
        row(f"{many:,} minus {few:,}", more, ".1f", goal)
        row("  size of their features and logits", [4e-6 * (many - few) * sum(SIZES)], ".1f")
    return raw


def peak(n: int, num_features: int, num_classes: int) -> None:
    """Prints the MB by which an evaluation of n fakes raises this process's peak memory; for use in a new process."""
    import resource

    import torch
    from torch import nn

    from ganzoo.data import ArrayImages
    from ganzoo.evaluation.extractors import Custom
    from ganzoo.evaluation.interfaces import BLOCK
    from ganzoo.evaluation.measure import Evaluation
    from ganzoo.evaluation.sources import Reference, Source
    from tests.benchmarks.rows import cache_at

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.logits = nn.Linear(64, num_features), nn.Linear(num_features, num_classes)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = self.features(x.flatten(1)).relu()
            return x, self.logits(x)

    class Noise(Source):
        """Fakes that are generated on demand and not stored."""

        def __init__(self, n: int) -> None:
            self.n = n

        def __len__(self) -> int:
            return self.n

        def block(self, index: int) -> dict[str, Tensor]:
            generator = torch.Generator().manual_seed(index)
            return {"images": torch.randint(256, (BLOCK, 1, 8, 8), generator=generator, dtype=torch.uint8)}

    def evaluate(n: int) -> float:
        Evaluation(Noise(n), reference, ["fid", "is"], extractor=extractor).run()
        unit = 1e-6 if sys.platform == "darwin" else 1024e-6  # bytes on macOS, else KiB
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    torch.set_num_threads(1)
    reference = Reference("noise", "train", {"real": ArrayImages(Noise(BLOCK).block(0)["images"].repeat(16, 1, 1, 1))})
    extractor = Custom(Net(), "net", channels=1, image_size=(8, 8))
    with tempfile.TemporaryDirectory() as folder, cache_at(folder):
        before = evaluate(BLOCK)  # libraries, weights, the reals' statistics
        print(evaluate(n) - before)
