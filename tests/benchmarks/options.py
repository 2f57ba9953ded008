"""Benchmark: the cost of augmentations and penalties."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from lightning.fabric.utilities.exceptions import MisconfigurationException

from tests.benchmarks.rows import row, silence

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule

    from ganzoo.data import GANDataModule

CONFIGS = ("dcgan/emoji", "wgangp/emoji")
WARM_UP, BLOCK = 2, 16  # steps; a block has one step of a penalty with interval 16
OPTIONS = {
    "none": "",
    "DiffAugment": "--model.augment DiffAugment",
    "ADA": "--model.augment ADA --model.augment.p 0.5",
    "APA": "--model.augment APA --model.augment.p 0.5",
    "R1": "--model.penalties R1",
    "R1, interval 16": "--model.penalties R1 --model.penalties.interval 16",
    "R1, difference": "--model.penalties R1 --model.penalties.difference 0.01",
    "R2": "--model.penalties R2",
    "GradientPenalty": "--model.penalties GradientPenalty",
    "BCR": "--model.penalties BCR",
    "ZCR": "--model.penalties ZCR",
    "LeCam": "--model.penalties LeCam",
    "Orthogonal": "--model.penalties Orthogonal",
    "top_k": "--model.top_k 0.5",
}


def options(device: str, repeats: int) -> dict[str, dict[str, list[float]]]:
    """Seconds per step with each option, for each config; in turns, so that other processes disturb all alike."""
    kind = "CPU time" if device == "cpu" else "wall time"
    raw: dict[str, dict[str, list[float]]] = {}
    for config in CONFIGS:
        print(f"\noptions: {kind} of a step of {config} / without, median (p10 to p90) of {repeats} blocks of {BLOCK}")
        trainings = {name: _built(config, text) for name, text in OPTIONS.items()}
        raw[config] = {name: [] for name in OPTIONS}
        for turn in range(1 + repeats):  # the first warms up
            for name in [*raw[config]]:
                try:
                    seconds = _block(*trainings[name], device)
                except MisconfigurationException:
                    del raw[config][name]  # the variant refuses this option
                    continue
                if turn:
                    raw[config][name].append(seconds)
        plain = raw[config]["none"]
        row("none, ms", [1e3 * seconds for seconds in plain], ".1f")
        for name in OPTIONS:
            if name not in raw[config]:
                print(f"  {name:<50}{'refused':>8}")
            elif name != "none":
                row(name, [a / b for a, b in zip(raw[config][name], plain, strict=True)], ".2f")
    return raw


def _built(config: str, options: str) -> tuple[LightningModule, GANDataModule]:
    from ganzoo.cli.training import build

    with silence():
        cli = build("fit", ["--config", config, *options.split()], dry=True)
    return cli.model, cli.datamodule


def _block(model: LightningModule, data: GANDataModule, device: str) -> float:
    """Seconds per step of one block, without logs, samples and checkpoints."""
    import torch
    from lightning.pytorch import Callback, Trainer

    from ganzoo.core.lightning_fixes import NoProfiler

    seconds: list[float] = []

    class Clock(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
            if device == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.process_time() if device == "cpu" else time.perf_counter())

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "limit_val_batches": 0}
    with silence():
        Trainer(
            accelerator="gpu" if device == "cuda" else "cpu",
            devices=1,
            max_epochs=-1,
            max_steps=WARM_UP + BLOCK,
            enable_model_summary=False,
            profiler=NoProfiler(),
            callbacks=[Clock()],
            **quiet,  # type: ignore[arg-type]
        ).fit(model, datamodule=data)
    return (seconds[-1] - seconds[WARM_UP - 1]) / BLOCK
