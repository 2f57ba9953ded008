"""Benchmark: the cost of checking each step for non-finite numbers, and of sealed checkpoints."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

from tests.benchmarks.loops import noise
from tests.benchmarks.rows import GOALS, row, silence

STEPS, BATCH = 20, 64  # of one run
WIDTH = {"cpu": 32, "cuda": 128}  # of the DCGAN
USUAL = 1000  # steps between two checkpoints in `fit`


def safety(device: str, repeats: int) -> dict[str, Any]:
    """Time for the checks and for saving, relative to the training step."""
    from lightning.pytorch import Trainer

    from ganzoo.callbacks.checkpoints import Checkpoints
    from ganzoo.core.player import Player
    from ganzoo.variants.dcgan import DCGAN

    print(f"\nsafety: DCGAN, 32x32, batch {BATCH}, width {WIDTH[device]}; median (p10 to p90) of {repeats}")
    raw: dict[str, list[float]] = {"step": [], "look": [], "save": []}
    check, batch_end = Player.check_finite, Checkpoints.on_train_batch_end
    for _ in range(repeats + 1):  # the first warms up
        looks: list[float] = []
        saves: list[float] = []
        try:
            Player.check_finite = _timed(check, looks)  # type: ignore[method-assign]
            Checkpoints.on_train_batch_end = _timed(batch_end, saves)  # type: ignore[method-assign]
            with tempfile.TemporaryDirectory() as folder, silence():
                trainer = Trainer(
                    accelerator="gpu" if device == "cuda" else "cpu",
                    devices=1,
                    max_steps=STEPS,
                    max_epochs=-1,
                    logger=False,
                    limit_val_batches=0,
                    default_root_dir=folder,
                    enable_model_summary=False,
                    enable_progress_bar=False,
                    callbacks=[Checkpoints(every_n_steps=STEPS)],
                )
                model = DCGAN(image_size=32, channels=3, width=WIDTH[device])
                begin = time.perf_counter()
                trainer.fit(model, datamodule=noise(32, 3, BATCH))
                whole = time.perf_counter() - begin
        finally:
            Player.check_finite, Checkpoints.on_train_batch_end = check, batch_end  # type: ignore[method-assign]
        raw["step"].append((whole - saves[-1]) / STEPS)
        raw["look"].append(sum(looks) / STEPS)
        raw["save"].append(saves[-1])
    raw = {name: seconds[1:] for name, seconds in raw.items()}
    step = statistics.median(raw["step"])
    shares = [100 * (look + save / USUAL) / step for look, save in zip(raw["look"], raw["save"], strict=True)]
    row(f"checks, and a checkpoint per {USUAL:,} steps, %", shares, ".2f", f"at most {GOALS['safety']}")
    row("  checks of both players, us per step", [1e6 * look for look in raw["look"]], ",.0f")
    row("  checkpoint with fsync and checksum, ms", [1e3 * save for save in raw["save"]], ",.0f")
    row("  step, ms", [1e3 * seconds for seconds in raw["step"]], ",.1f")
    return raw


def _timed(call: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    def timed(*arguments: Any, **more: Any) -> Any:
        begin = time.perf_counter()
        found = call(*arguments, **more)
        seconds.append(time.perf_counter() - begin)
        return found

    return timed
