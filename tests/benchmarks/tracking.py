"""Benchmark: the time that scores add to a training with a shipped config."""

from __future__ import annotations

import json
import math
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.rows import GOALS, Time, cache_at, row, silence

CONFIG = "dcgan/digits"
EVERY = 100  # steps between evaluations, so that a short run has several
HOOKS = ("on_fit_start", "on_train_start", "on_train_batch_end", "on_fit_end")


def tracking(device: str, repeats: int) -> dict[str, Any]:
    """Time in the callback, including its best checkpoints, relative to the training."""
    import yaml

    from ganzoo.callbacks.scores import Scores
    from ganzoo.cli.paths import find_config

    file, steps = find_config(CONFIG), EVERY * repeats
    planned, usual = yaml.safe_load(file.read_text())["trainer"]["max_steps"], Scores().every_n_steps
    print(f"\ntracking: {CONFIG}, {steps:,} steps, {repeats} evaluations; extrapolated to {planned:,} steps")
    with tempfile.TemporaryDirectory() as folder, cache_at(folder), silence():
        calls = _fit(file, device, steps, folder)
        lines = [json.loads(line) for log in Path(folder).glob("*/scores.jsonl") for line in log.open()]
    values = [line["scores"][0]["value"] for line in lines]
    saved = sum(value < min(values[:i], default=math.inf) for i, value in enumerate(values))
    (early,), (start,), batches, (end,) = (calls[name] for name in HOOKS)
    looks = [after.since(before) for before, after in batches[EVERY - 1 :: EVERY]]
    loop, final = end[0].since(start[1]), end[1].since(end[0])
    raw: dict[str, Any] = {"looks": [look._asdict() for look in looks], "saved": saved}
    raw |= {"loop": loop._asdict(), "final": final._asdict()}
    for i, clock in enumerate(Time._fields):
        prepared = sum(after[i] - before[i] for before, after in (early, start))
        step = (loop[i] - sum(look[i] for look in looks)) / steps
        later = [look[i] for look in looks[1:]]
        added = prepared + looks[0][i] + (planned // usual - 1) * statistics.median(later)
        raw[clock] = {"prepared": prepared, "step": step, "share": 100 * added / (planned * step)}
        raw[clock]["final_share"] = 100 * final[i] / (planned * step)
        goal = f"at most {GOALS['tracking']}" if clock == "cpu" else ""
        row(f"{clock} time of an evaluation per {usual:,} steps, %", [raw[clock]["share"]], ".2f", goal)
        row("  of the final evaluation, %", [raw[clock]["final_share"]], ".2f")
        row("  seconds per step", [step], ".4f")
        row("  first evaluation, s", [prepared + looks[0][i]], ".3f")
        row(f"  later ones, s; {saved} of {repeats} saved a checkpoint", later, ".3f")
        row("  final evaluation, s", [final[i]], ".2f")
    return raw


def _fit(file: Path, device: str, steps: int, folder: str) -> dict[str, list[tuple[Time, Time]]]:
    """Runs the config; start and end time of each call of the callback, by hook."""
    import ganzoo
    from ganzoo.cli.training import GANCLI

    for name in ganzoo.VARIANTS:
        getattr(ganzoo, name)  # so that jsonargparse finds it by its bare name
    settings = {
        "trainer.accelerator": "gpu" if device == "cuda" else "cpu",
        "trainer.devices": 1,
        "trainer.max_steps": steps,
        "trainer.default_root_dir": folder,
        "scores.every_n_steps": EVERY,
    }
    cli = GANCLI("fit", ["--config", str(file), *(f"--{key}={value}" for key, value in settings.items())])
    calls: dict[str, list[tuple[Time, Time]]] = {name: [] for name in HOOKS}

    def watched(name: str, hook: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            begin = Time.now()
            hook(*arguments)
            calls[name].append((begin, Time.now()))

        return call

    scores = cli.config_init.scores
    for name in HOOKS:
        setattr(scores, name, watched(name, getattr(scores, name)))
    cli.start()
    return calls
