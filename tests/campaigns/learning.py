"""`python -m tests.campaigns.learning`: do the variants reproduce the claims of their papers? Whole trainings.

A row is one arm of one experiment with one seed: `fit` with a committed config and options, and the figures of its last
state. Each row is appended to a file when it is finished; existing rows are not run again. A failed run is a row, too.
The page and its plots are generated from the rows alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import shutil
import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import yaml

from ganzoo.cli.paths import configs
from ganzoo.core.environment import environment
from tests.campaigns.learning_measures import LIMIT, Figures, Found, command
from tests.campaigns.learning_plots import plot, points
from tests.campaigns.learning_rows import EXPERIMENTS, Experiment

PLACE = Path(__file__).parents[2] / ".github" / "learning"
FIT = ["fit", "--trainer.enable_progress_bar", "false", "--samples.video_fps", "0", "--diagnostics.every_n_steps", "0"]
Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m tests.campaigns.learning", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"experiments (default: all): {', '.join(EXPERIMENTS)}"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="number of parallel trainings, of one thread each (default: 1)"
    )
    parser.add_argument("--work", type=Path, default=Path("runs/learning"), help="folder of the runs")
    parser.add_argument("--place", type=Path, default=PLACE, help="folder of rows.jsonl, README.md and plots")
    parser.add_argument("--page", action="store_true", help="only write the page and its plots, from the existing rows")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(EXPERIMENTS):
        parser.error(f"unknown experiment {', '.join(unknown)}; choose from {', '.join(EXPERIMENTS)}")
    options.place.mkdir(parents=True, exist_ok=True)
    file, lock = options.place / "rows.jsonl", Lock()

    def jobs() -> list[tuple[str, str, int]]:
        left = []
        for name in options.names or EXPERIMENTS:
            done = [row for row in read(file) if row["experiment"] == name and current(row)]
            finished = {(row["arm"], row["seed"]) for row in done}
            left += [(name, *job) for job in EXPERIMENTS[name].due(first(done)) if job not in finished]
        return left

    def one(job: tuple[str, str, int]) -> None:
        row = run(*job, options.work)
        with lock, file.open("a") as opened:
            opened.write(json.dumps(row) + "\n")
            print(f"{row['experiment']}, {row['arm']}, seed {row['seed']}, {row['cpu_seconds']:.0f} s:", flush=True)
            print(f"  {row['failure'] or row['figures']}", flush=True)

    if not options.page:
        with ThreadPoolExecutor(options.jobs) as pool:
            while left := jobs():  # a search has more jobs when its first ones are finished
                list(pool.map(one, left))
    write(options.place)
    return 0


def write(place: Path) -> None:
    """Writes README.md, and a plot for each table, from rows.jsonl."""
    rows = read(place / "rows.jsonl")
    (place / "README.md").write_text(page(rows))
    rows = last(rows)
    for name, experiment in EXPERIMENTS.items():
        mine = [row for row in rows if row["experiment"] == name]
        if any(row["figures"] for row in mine):
            (place / f"{name}.png").write_bytes(plot(points(experiment, mine)))


def read(file: Path) -> list[Row]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def last(rows: list[Row]) -> list[Row]:
    """The last row of each arm and seed."""
    return list({(row["experiment"], row["arm"], row["seed"]): row for row in rows}.values())


def options_of(name: str, arm: str, seed: int) -> str:
    """Options of `fit` for one row."""
    config, options, _ = EXPERIMENTS[name].arms[arm]
    return f"--config {config} --seed_everything {seed} {options.format(seed=seed)}".rstrip()


def first(rows: list[Row]) -> Found:
    """Figures of the runs with seed 0, by arm."""
    return {row["arm"]: row["figures"] for row in rows if row["seed"] == 0}


def current(row: Row) -> bool:
    """Whether the row's command is still that of its arm, the config unchanged, and the row not older than `since`."""
    asked = options_of(row["experiment"], row["arm"], row["seed"])
    config, _, since = EXPERIMENTS[row["experiment"]].arms[row["arm"]]
    same = row.get("basis") in (None, basis(config))  # rows of before December 2026 have none
    return row["command"] == f"python -m ganzoo fit {asked}" and same and (not since or row["made"]["time"] >= since)


def basis(config: str) -> str:
    """A hash of a config's settings."""
    settings = yaml.safe_load(configs()[config].read_text())
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def run(name: str, arm: str, seed: int, work: Path) -> Row:
    """Runs one training; a row with its figures, or none if it failed."""
    experiment, asked = EXPERIMENTS[name], options_of(name, arm, seed)
    place = work / name / arm.replace(" ", "-") / str(seed)
    shutil.rmtree(place, ignore_errors=True)  # left by a killed run
    figures: Figures = {}
    to = ["--trainer.default_root_dir", str(place)]
    seconds, _, failure = command(*FIT, *shlex.split(asked), *to, limit=experiment.limit)
    if not failure:
        try:
            figures = experiment.measure(next(place.iterdir()))
        except (OSError, ValueError, KeyError, StopIteration) as error:
            failure = f"no figures: {type(error).__name__} {error}"
    made = environment()
    return {
        "experiment": name,
        "arm": arm,
        "seed": seed,
        "command": f"python -m ganzoo fit {asked}",
        "basis": basis(experiment.arms[arm].config),
        "figures": figures,
        "failure": failure,
        "cpu_seconds": round(seconds, 1),
        "made": {key: made[key] for key in ("ganzoo", "torch", "lightning", "platform", "time")},
    }


# The page


def page(rows: list[Row]) -> str:
    """All experiments as Markdown; the last row of each arm and seed counts."""
    rows = last(rows)
    parts = [
        "# Are the papers' claims reproduced?",
        "Complete trainings of committed configs on small datasets. An arm is a config with options; its runs differ "
        "in the seed. Figures are those of the last state, never the best. "
        f"A run takes at most {LIMIT // 60} minutes on one CPU core, unless its table says more; failed runs are "
        "counted. Cells: mean and standard deviation over the seeds, or the values if there are fewer than three. "
        "Figures of different tables, datasets or extractors are not comparable. Plots: a point for each run, a line "
        "at the mean of an arm. Written by `python -m tests.campaigns.learning` from "
        "[rows.jsonl](rows.jsonl), which contains each run's command, figures and versions.",
    ]
    for name, experiment in EXPERIMENTS.items():
        mine = [row for row in rows if row["experiment"] == name]
        parts += [f"## {experiment.title}", experiment.note] if experiment.note else [f"## {experiment.title}"]
        if old := sum(not current(row) for row in mine):
            parts.append(
                f"**To be repeated:** {old} of {len(mine)} runs used earlier options or equations (see rows.jsonl)."
            )
        begun, done = {row["arm"] for row in mine}, {(row["arm"], row["seed"]) for row in mine}
        if mine and (missing := [arm for arm in experiment.arms if arm not in begun]):
            named = "; ".join(missing) if len(missing) <= 6 else f"{len(missing)} of {len(experiment.arms)} arms"
            parts.append(f"**Not run yet:** {named}.")
        if left := [job for job in experiment.due(first(mine)) if job[0] in begun and job not in done]:
            parts.append(f"**Not run yet:** further seeds, {len(left)} runs.")
        parts += [_table(experiment, mine), _claims(experiment, mine)] if mine else ["Not run yet."]
        if any(row["figures"] for row in mine):
            parts.append(f"![{experiment.title}]({name}.png)")
        parts.append(f"`python -m tests.campaigns.learning {name}`")
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(experiment: Experiment, rows: list[Row]) -> str:
    lines = [
        " | ".join(["| arm", *experiment.figures, "runs", "failed", "CPU s |"]),
        "|---" * (len(experiment.figures) + 4) + "|",
    ]
    for arm in experiment.arms:
        mine = [row for row in rows if row["arm"] == arm]
        if not mine:
            continue
        good = [row["figures"] for row in mine if not row["failure"]]
        cells = [_cell([found[figure] for found in good if figure in found]) for figure in experiment.figures]
        seconds = statistics.mean(row["cpu_seconds"] for row in mine)
        lines.append(f"| {arm} | {' | '.join(cells)} | {len(mine)} | {len(mine) - len(good)} | {seconds:.0f} |")
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    if len(values) < 3:
        return ", ".join(f"{value:.3g}" for value in values) or "-"
    return f"{statistics.mean(values):.3g} ± {statistics.stdev(values):.2g}"


def _claims(experiment: Experiment, rows: list[Row]) -> str:
    """How often each claim holds, over the seeds that have all figures it needs."""
    lines = []
    best = experiment.best(first(rows))
    for claim in experiment.claims:
        verdicts = []
        for seed in range(experiment.seeds):
            found: Found = {row["arm"]: row["figures"] for row in rows if row["seed"] == seed and not row["failure"]}
            found |= {method: found[arm] for method, arm in best.items() if arm in found}
            try:
                verdicts.append(claim.holds(found))
            except (KeyError, statistics.StatisticsError):
                continue
        if verdicts:
            word = "reproduced" if all(verdicts) else "depends on the seed" if any(verdicts) else "not reproduced"
            lines.append(f"- {claim.text}: **{word}** ({sum(verdicts)} of {len(verdicts)} seeds).")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
