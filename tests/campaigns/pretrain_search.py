"""The search before the training of a shipped model: one short run for each setting, by FID of its last state."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import yaml

from ganzoo.core.environment import environment
from tests.campaigns.children import Children
from tests.campaigns.pretrain_models import Model

ROWS = Path(__file__).parents[2] / ".github" / "pretraining" / "search.jsonl"
MINUTES = 3
LIMIT = 600  # CPU seconds of a run, with its start and its scores
QUIET = ["--samples.video_fps", "0", "--diagnostics.every_n_steps", "0", "--trainer.enable_progress_bar", "false"]
SCORED = ["--scores.metrics", "[fid]", "--scores.every_n_steps", "1000000", "--scores.final_n", "2000"]
Row = dict[str, Any]
_writing = Lock()


def search(config: Path, name: str, model: Model, rows: Path, work: Path, children: Children) -> list[Row]:
    """The finished runs of a model's settings, one row each; runs those that are missing."""
    for setting in range(len(model.settings)):
        if (row := wanted(config, name, model, setting)) not in map(asked, finished(rows, name)):
            done = run(config, row, work, children)
            rows.parent.mkdir(parents=True, exist_ok=True)
            with _writing, rows.open("a") as file:
                file.write(json.dumps(done) + "\n")
            print(f"{name}, {row['setting']}: {done['fid'] or done['failure']}", file=sys.stderr)
    return current(config, name, model, rows)


def wanted(config: Path, name: str, model: Model, setting: int) -> Row:
    """What identifies the run of a setting. `basis` is a hash of the config without the arguments searched."""
    text, values = config.read_text(), model.settings[setting]
    settings = yaml.safe_load(hold(text, dict.fromkeys(values, 0)))
    steps = max(1, settings["trainer"].pop("max_steps") * MINUTES // model.minutes)
    options = [word for key, value in values.items() for word in (f"--model.{key}", written(value))]
    options += [*model.short.split(), "--trainer.max_steps", str(steps), *SCORED]
    basis = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    said = ", ".join(f"{key.replace('_', ' ').replace('.', ' ')} {written(value)}" for key, value in values.items())
    return {"model": name, "setting": said, "values": values, "options": " ".join(options), "basis": basis}


def asked(row: Row) -> Row:
    return {key: row[key] for key in ("model", "setting", "values", "options", "basis")}


def finished(rows: Path, name: str) -> list[Row]:
    found = [json.loads(line) for line in rows.read_text().splitlines()] if rows.is_file() else []
    return [row for row in found if row["model"] == name]


def current(config: Path, name: str, model: Model, rows: Path) -> list[Row]:
    """The rows of the runs that the config and the settings of today ask for."""
    wants = [wanted(config, name, model, setting) for setting in range(len(model.settings))]
    return [row for row in finished(rows, name) if asked(row) in wants]


def run(config: Path, row: Row, work: Path, children: Children) -> Row:
    """Trains one setting; its row, without FID if it failed."""
    root = work / "search" / f"{row['model']}-{row['setting']}".replace("/", "-").replace(" ", "-").replace(",", "")
    shutil.rmtree(root, ignore_errors=True)  # left by a killed run
    words = [sys.executable, "-m", "ganzoo", "fit", "--config", str(config), "--seed_everything", "0"]
    words += ["--trainer.accelerator", "cpu", *row["options"].split(), *QUIET, "--trainer.default_root_dir", str(root)]
    status, seconds = children.run(words, LIMIT)
    if children.stopped:
        raise SystemExit(f"{row['model']}: stopped in its search; run the same command to resume")
    fid = None
    if not status:
        scores = json.loads(next(root.glob("*/scores.json")).read_text())["scores"]
        fid = next(score["value"] for score in scores if score["figure"] == "fid")
    failure = f"exit {status}" if status else "" if fid is not None else "not finite"
    made = {key: environment()[key] for key in ("ganzoo", "torch", "platform", "time")}
    return {**row, "fid": fid, "failure": failure, "cpu_seconds": round(seconds["cpu"], 1), "made": made}


def best(rows: Iterable[Row]) -> Row:
    """The row with the lowest FID.

    Raises:
        SystemExit: all runs failed.
    """
    good = [row for row in rows if row["fid"] is not None]
    if not good:
        raise SystemExit("all runs of the search failed: change the config or its settings")
    return min(good, key=lambda row: row["fid"])


def hold(text: str, values: Mapping[str, Any]) -> str:
    """A config's text with other values of arguments of the model, such as `optimizer.lr`. Comments stay, but not
    that a value is "not tuned yet"."""
    places = [(_node(text, key), value) for key, value in values.items()]
    for node, value in sorted(places, key=lambda place: -place[0].start_mark.index):
        text = text[: node.start_mark.index] + written(value) + text[node.end_mark.index :]
    return text.replace("not tuned yet", "from a search")


def held(text: str, keys: Iterable[str]) -> dict[str, Any]:
    """The values that a config has for these arguments."""
    return {key: yaml.safe_load(_node(text, key).value) for key in keys}


def _node(text: str, key: str) -> yaml.ScalarNode:
    """The place of an argument of the model in a config.

    Raises:
        ValueError: the config does not have it.
    """
    node: Any = yaml.compose(text)
    for part in ("model", *key.split(".")):
        while True:
            entries = {name.value: value for name, value in node.value} if isinstance(node, yaml.MappingNode) else {}
            if part in entries:
                break
            if "init_args" not in entries:
                raise ValueError(f"the config has no model.{key}, of which the search compares values: write it there")
            node = entries["init_args"]
        node = entries[part]
    return node


def written(value: Any) -> str:
    """A value in YAML; 0.0002 and not 2e-04, which YAML 1.1 reads as text."""
    return f"{value:.8f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
