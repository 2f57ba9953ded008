"""The summary at the end of `fit`: files, alarms, scores and next commands."""

from __future__ import annotations

import yaml
from lightning.pytorch import Trainer

from ganzoo.callbacks.checkpoints import Checkpoints
from ganzoo.callbacks.diagnostics import Diagnostics
from ganzoo.callbacks.run_folder import RunFolder
from ganzoo.callbacks.scores import Scores
from ganzoo.core.arguments import variant_name
from ganzoo.core.text import quoted, visible
from ganzoo.evaluation.record import Report

CONTENTS = {
    "samples": "sample grids during training, from fixed latents",
    "samples.mp4": "the sample grids as a video",
    "interpolation.png": "interpolations between latents",
    "truncation.png": "the same latents with truncations up to 1",
    "mixing.png": "coarse styles of the left images with fine styles of the top images",
    "reals.png": "training images",
    "metrics.jsonl": "losses and scores",
    "tensorboard": "losses, scores and pictures: tensorboard --logdir {root}",
    "wandb": "losses, scores and pictures for wandb",
    "scores.json": "the final scores, and how they were measured",
    "checkpoints/last.ckpt": "the last state",
    "config.yaml": "the resolved config",
    "environment.json": "versions, devices, command",
}
SHOWN = 6  # figures in the summary; scores.json has all


def summary(run: RunFolder, trainer: Trainer) -> str:
    """What `fit` prints at its end: state, files, alarms, scores and next commands."""
    state = "Stopped" if run.signal else "Done" if run.started else "Nothing to train: the run was already"
    full = _full(trainer)
    cure = f"remove the cause, and resume with --ckpt_path {quoted(run.folder)}"
    lost = f", but the last state could not be saved (see above): {cure}" if full else ""
    if not run.whole:
        lost = f", but {run.folder} was deleted during the training: its earlier files are lost"
    head = f"{state} at step {trainer.global_step:,}{lost}. In {run.folder}:"
    reports = [c.report for c in trainer.callbacks if isinstance(c, Scores) and c.report]  # type: ignore[attr-defined]
    parts = [_contents(run), _alarms(trainer), *map(_scores, reports)]
    if (run.folder / "config.yaml").exists():
        parts.append(_next(run, trainer, bool(reports)))
    return "\n".join(map(visible, [head, *(line for part in parts for line in part)]))


def _contents(run: RunFolder) -> list[str]:
    found = {name: what for name, what in CONTENTS.items() if (run.folder / name).exists()}
    for path in sorted((run.folder / "checkpoints").glob("best-*.ckpt")):
        found[f"checkpoints/{path.name}"] = f"best checkpoint by {path.stem.removeprefix('best-')}"
    root = quoted(run.folder.parent)
    return [f"  {name:<30}{what.replace('{root}', root)}" for name, what in found.items()]


def _next(run: RunFolder, trainer: Trainer, scored: bool) -> list[str]:
    """Commands to use the run."""
    model = trainer.lightning_module
    folder, config = (quoted(path) for path in (run.folder, run.folder / "config.yaml"))
    name = variant_name(type(model))
    own = "" if name.startswith("ganzoo.") else f" --variant {name}"
    of = "--seeds 0-63" if model.source_channels is None else "--source FOLDER"
    commands = [
        f"sample {folder} {of}{own}",
        f"evaluate {folder}{own}{'' if scored else '   # FID and others: not measured yet'}",
    ]
    if hasattr(model, "classify"):
        commands.append(f"test --config {config} --ckpt_path {folder}   # classification error")
    commands.append(f"fit --config {config} --ckpt_path {folder}{_more(run, trainer)}")
    return ["Next:", *(f"  python -m ganzoo {command}" for command in commands)]


def _more(run: RunFolder, trainer: Trainer) -> str:
    """Options that double the limits of a training, and the length of its schedule if the learning rate is 0 now; ""
    after a signal, as it has not reached them."""
    if run.signal:
        return ""
    limits = {"max_steps": trainer.max_steps, "max_epochs": trainer.max_epochs}
    more = "".join(f" --trainer.{name} {2 * limit}" for name, limit in limits.items() if limit and limit > 0)
    if any(group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups):
        return more
    config = yaml.safe_load(run.texts.get("config.yaml", "")) or {}
    schedule = config.get("model", {}).get("init_args", {}).get("lr_scheduler") or {}
    lengths = {k: v for k, v in schedule.get("init_args", {}).items() if k in ("total_iters", "falling_iters")}
    return more + "".join(f" --model.lr_scheduler.{name} {2 * length}" for name, length in lengths.items())


def _alarms(trainer: Trainer) -> list[str]:
    """Alarms that are still active at the end."""
    diagnostics = [c for c in trainer.callbacks if isinstance(c, Diagnostics)]  # type: ignore[attr-defined]
    return [f"Since step {step:,}: {name}" for c in diagnostics for name, step in c.active.items()]


def _scores(report: Report) -> list[str]:
    lines = [f"Scores of {report.scores[0].protocol['fakes']:,} fakes:"]
    shown = [score for score in report.scores if score.better][:SHOWN]
    width = max((len(score.name) for score in shown), default=0) + 2
    lines += [f"  {score.name:<{width}}{score.readable}" for score in shown]
    return lines + ([f"  and {more} more in scores.json"] if (more := len(report.scores) - len(shown)) > 0 else [])


def failed(run: RunFolder, trainer: Trainer) -> bool:
    """Whether the run was deleted, or its last state not written."""
    return not run.whole or _full(trainer)


def _full(trainer: Trainer) -> bool:
    """Whether the last state could not be written."""
    return any(c.failed for c in trainer.callbacks if isinstance(c, Checkpoints))  # type: ignore[attr-defined]
