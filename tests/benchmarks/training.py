"""Benchmark: the cost of a training step, compared with a hand-written loop."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import time
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganzoo.cli.errors import UserError
from tests.benchmarks.loops import Loop, hinge_loop, naive, noise, plain_loop, tiny, tiny_networks
from tests.benchmarks.rows import GOALS, row, silence

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule

    from ganzoo.data import GANDataModule

# Steps per block; the loops alternate. For `overhead` a block has two pictures, a checkpoint and twenty logs; for
# the others blocks are short and many, so that the median ignores those disturbed by other processes.
BLOCK = {"overhead": 1000, "step": 4, "modern": 2}
WIDTH = {"cpu": 64, "cuda": 128}  # of the DCGAN
MODERN_WIDTH = {"cpu": 8, "cuda": 96}  # of the spectrally normalised networks

Pair = dict[str, float]  # seconds per step: wall and process CPU time, of fit and plain loop


def overhead(device: str, repeats: int) -> dict[str, list[Pair]]:
    """Overhead per step, with networks whose own computation is negligible."""
    print(f"\noverhead: CPU microseconds per step, median (p10 to p90) of {repeats} blocks of {BLOCK['overhead']}")
    raw: dict[str, list[Pair]] = {"ganzoo": [], "naive": []}
    for _ in range(repeats):  # alternating
        for name, make, everything in (("ganzoo", tiny, True), ("naive", naive, False)):
            plain = plain_loop(*tiny_networks(), 2, device)
            raw[name] += _race(make(), noise(1, 2, 8), plain, BLOCK["overhead"], 1, device, everything)
    added = {name: [1e6 * (pair["fit_cpu"] - pair["plain_cpu"]) for pair in pairs] for name, pairs in raw.items()}
    row("ganzoo: logs, samples, diagnostics, checkpoints", added["ganzoo"], ",.0f")
    row("a typical LightningModule", added["naive"], ",.0f")
    row("the plain loop itself", [1e6 * pair["plain_cpu"] for pair in raw["ganzoo"]], ",.0f")
    shares = [ours / theirs for ours, theirs in zip(added["ganzoo"], added["naive"], strict=True)]
    row("overhead of ganzoo / of that module", shares, ".3f", f"at most {GOALS['overhead']}")
    return raw


def step(device: str, repeats: int) -> dict[str, list[Pair]]:
    """Time of a DCGAN's step in `Trainer.fit`, relative to a plain loop with the same networks."""
    from ganzoo.variants.dcgan import DCGAN

    width = WIDTH[device]
    print(
        f"\nstep: DCGAN, 32x32, batch 64, width {width}; fit / plain loop, "
        f"median (p10 to p90) of {repeats} pairs of {BLOCK['step']} steps"
    )
    raw = {}
    for name, share in (("shared fakes", True), ("fresh fakes", False)):
        model = DCGAN(image_size=32, channels=3, width=width, share_fakes=share)
        plain = plain_loop(deepcopy(model.generator), deepcopy(model.discriminator), 100, device)
        pairs = raw[name] = _race(model, noise(32, 3, 64), plain, BLOCK["step"], repeats, device, True)
        for text, suffix, goal in (("CPU time", "_cpu", f"at most {GOALS[name]}"), ("wall time", "", "")):
            row(f"{name}, {text}", [pair[f"fit{suffix}"] / pair[f"plain{suffix}"] for pair in pairs], ".3f", goal)
        row("plain loop, ms", [1e3 * pair["plain"] for pair in pairs], ".1f")
    return raw


def modern(device: str, repeats: int) -> dict[str, list[Pair]]:
    """Time of a step of spectrally normalised GANs in `Trainer.fit`, relative to plain loops with their networks."""
    from functools import partial

    import ganzoo
    from ganzoo.functional.contrastive import conditional_contrastive, data_to_data

    width = MODERN_WIDTH[device]
    print(
        f"\nmodern: 32x32, batch 64, width {width}, one D step per G step; fit / plain loop, CPU time, "
        f"median (p10 to p90) of {repeats} pairs of {BLOCK['modern']} steps"
    )
    raw, names = {}, ("SNGAN", "ProjectionGAN", "SAGAN", "BigGAN", "ContraGAN", "ReACGAN")
    losses = {
        "ContraGAN": partial(conditional_contrastive, temperature=1.0),
        "ReACGAN": partial(data_to_data, margin=0.98, temperature=0.5),
    }
    for name in names:
        for kind, share in (("shared fakes", True), ("fresh fakes", False)):
            model = getattr(ganzoo, name)(image_size=32, z_dim=80, width=width, n_critic=1, share_fakes=share)
            networks, z_dim, classes = deepcopy((model.generator, model.discriminator)), model.z_dim, model.num_classes
            plain = hinge_loop(*networks, z_dim, classes, losses.get(name), share, device)
            pairs = _race(model, noise(32, 3, 64), plain, BLOCK["modern"], repeats, device, True)
            raw[f"{name}, {kind}"] = pairs
            shares = [pair["fit_cpu"] / pair["plain_cpu"] for pair in pairs]
            row(f"{name}, {kind}", shares, ".3f", f"at most {GOALS[kind]}")
        row("plain loop, ms of CPU", [1e3 * pair["plain_cpu"] for pair in pairs], ".1f")
    return raw


def start(device: str, repeats: int) -> dict[str, list[float]]:
    """Seconds of whole processes, and until the end of a run's first step."""
    print(f"\nstart: seconds of new processes, median (p10 to p90) of {repeats}")
    raw: dict[str, list[float]] = {}
    ganzoo = [sys.executable, "-m", "ganzoo"]
    fit = [*ganzoo, "fit", "--config=dcgan/digits", "--trainer.max_steps=1", "--scores.final_n=0"]
    fit.append(f"--trainer.accelerator={'gpu' if device == 'cuda' else 'cpu'}")
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            for name, command in {
                "ganzoo fit, complete": [*fit, f"--trainer.default_root_dir={folder}"],
                "ganzoo list": [*ganzoo, "list"],
                "ganzoo --help": [*ganzoo, "--help"],
                "import torch, for comparison": [sys.executable, "-c", "import torch"],
            }.items():
                begin = time.time()
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    raise UserError(f"{' '.join(command[1:])}: {done.stderr.strip().rpartition(chr(10))[2]}")
                raw.setdefault(name, []).append(time.time() - begin)
                for reals in Path(folder).glob("*/reals.png") if "fit" in command else ():  # written after step 1
                    raw.setdefault("ganzoo fit, to the end of step 1", []).append(reals.stat().st_mtime - begin)
    for name, seconds in raw.items():
        row(name, seconds, ".2f")
    return raw


# How two loops are compared


def _race(
    model: LightningModule, data: GANDataModule, plain: Loop, block: int, repeats: int, device: str, everything: bool
) -> list[Pair]:
    """Alternates blocks of steps of a fit with blocks of the plain loop; the first pair warms up.

    The plain loop reuses the fit's real images, so it has no loading time.

    Args:
        model: any module.
        data: its data.
        plain: one step of the plain loop.
        block: steps per block.
        repeats: number of measured pairs of blocks.
        device: cpu or cuda.
        everything: use the logger and callbacks of `fit`, rather than Lightning's defaults.
    """
    import torch
    from lightning.pytorch import Callback, Trainer

    def clock() -> tuple[float, float]:
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter(), time.process_time()

    def since(begin: tuple[float, float]) -> tuple[float, float]:
        wall, cpu = clock()
        return (wall - begin[0]) / block, (cpu - begin[1]) / block

    pairs: list[Pair] = []

    class Alternate(Callback):
        def __init__(self) -> None:
            self.batches = 0
            self.begin = self.plain = (0.0, 0.0)

        def on_train_batch_start(
            self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
        ) -> None:
            if self.batches % block == 0:
                if self.batches:
                    fit = since(self.begin)
                    pairs.append({"fit": fit[0], "plain": self.plain[0], "fit_cpu": fit[1], "plain_cpu": self.plain[1]})
                trainer.should_stop = len(pairs) > repeats
                # Set when Lightning is imported; without a GPU it slows down torch's optimizer steps.
                setting = os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
                begin = clock()
                for _ in range(0 if trainer.should_stop else block):
                    plain(batch["image"])
                self.plain = since(begin)
                if setting is not None:
                    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = setting
                self.begin = clock()
            self.batches += 1

    with tempfile.TemporaryDirectory() as folder, silence():
        own = _fit_setup(Path(folder) / "run") if everything else {"callbacks": []}
        trainer = Trainer(
            accelerator="gpu" if device == "cuda" else "cpu",
            devices=1,
            max_steps=10**9,
            default_root_dir=folder,
            enable_model_summary=False,
            limit_val_batches=0,
            **{**own, "callbacks": [Alternate(), *own["callbacks"]]},
        )
        trainer.fit(model, datamodule=data)
    if len(pairs) <= repeats:  # RunFolder ends the fit after Ctrl-C
        raise KeyboardInterrupt
    return pairs[1:]


def _fit_setup(folder: Path) -> dict[str, Any]:
    """The default logger, callbacks and profiler of `fit`, with a terminal's progress bar."""
    from rich.console import Console

    from ganzoo.callbacks.checkpoints import Checkpoints
    from ganzoo.callbacks.diagnostics import Diagnostics
    from ganzoo.callbacks.progress import GANProgress
    from ganzoo.callbacks.run_folder import RunFolder, RunLog
    from ganzoo.callbacks.samples import Samples
    from ganzoo.callbacks.scores import Scores
    from ganzoo.core.lightning_fixes import NoProfiler

    run, bar = RunFolder(folder, {}, RunLog(folder)), GANProgress()
    bar.console = Console(file=io.StringIO(), force_terminal=True, width=100)
    callbacks = [Diagnostics(), run, bar, Samples(video_fps=0), Scores(), Checkpoints()]
    return {"logger": run.metrics, "callbacks": callbacks, "profiler": NoProfiler()}
