"""`python -m tests.campaigns.faults`: does an interrupted and resumed run end exactly as an uninterrupted one?

A row is one variant and one fault: the command is started, hit by the fault, and restarted until it finishes. Its last
checkpoint, logs, scores and pictures are then compared, bit by bit, with those of an uninterrupted run. Each row is
appended to a file when it is finished; existing rows are not run again. The page is generated from the rows.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import resource
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.utils._pytree import tree_flatten_with_path

import ganzoo
import ganzoo.cli.training  # imported once, for all forks
from ganzoo.checkpoint.sealed import read as read_checkpoint
from ganzoo.cli.paths import find_config
from ganzoo.core.drawing import to_pil
from ganzoo.core.environment import environment
from ganzoo.core.pixels import to_float
from ganzoo.core.text import one_line
from ganzoo.data import Digits
from tests.campaigns.faults_kinds import FAULTS, HELD_OUT, SAVES, STEPS, Course, Dies

PLACE = Path(__file__).parents[2] / ".github" / "faults"
FEW = ("GAN", "DCGAN", "WGANGP")  # for faults that are slow, or the same for all variants
FOR_FEW = ("dead rank", "group", "closed pipe", "two at once")
WORKERS = ("dead worker", "group", "closed pipe")
SMALL = {"width": 4, "hidden": 16, "d_hidden": 8, "z_hidden": 8, "y_hidden": 8, "z_dim": 6, "blocks": 1}
MOST_STARTS = 6
Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m tests.campaigns.faults", description=__doc__)
    names = ", ".join(FAULTS)
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=f"default: all; {names}")
    parser.add_argument("--variants", nargs="+", default=ganzoo.list_models(), metavar="NAME", help="default: all")
    parser.add_argument("--place", type=Path, default=PLACE, help="folder of rows.jsonl and README.md")
    parser.add_argument("--page", action="store_true", help="only write the page, from the existing rows")
    options = parser.parse_args(arguments)
    if unknown := {*options.faults} - {*FAULTS} | {*options.variants} - {*ganzoo.list_models()}:
        parser.error(
            f"unknown: {', '.join(unknown)}; faults are {names}; variants are {', '.join(ganzoo.list_models())}"
        )
    torch.set_num_threads(1)  # other threads do not survive a fork
    options.place.mkdir(parents=True, exist_ok=True)
    file = options.place / "rows.jsonl"
    done = {(row["variant"], row["fault"]) for row in read(file)}
    for variant in () if options.page else options.variants:
        asked = [f for f in options.faults or FAULTS if (variant, f) in cells() and (variant, f) not in done]
        with tempfile.TemporaryDirectory() as work:
            for fault in asked:
                row = strike(variant, fault, Path(work))
                with file.open("a") as opened:
                    opened.write(json.dumps(row) + "\n")
                print(f"{variant}, {fault}: {_cell(row)} ({row['cpu_seconds']:.0f} s)", flush=True)
    (options.place / "README.md").write_text(page(read(file)))
    return 0


def cells() -> list[tuple[str, str]]:
    """Pairs of variant and fault in a complete table."""
    return [(v, f) for v in ganzoo.list_models() for f in FAULTS if f not in FOR_FEW or v in FEW]


def read(file: Path) -> list[Row]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


# A row


def strike(variant: str, fault: str, work: Path) -> Row:
    """Compares one variant's run with one fault to an uninterrupted run, which is kept in the folder `work`."""
    used = _cpu_seconds()
    kind = {"corrupt image": "folder", "dead rank": "two"}.get(fault, "one")
    whole = reference(variant, kind, work)
    course = _course(variant, kind, work / variant / fault.replace(" ", "-"), workers=fault in WORKERS)
    FAULTS[fault].strike(course)
    _end(course, kind)
    trouble = [f"exit code {code}" for code, _ in course.starts[:-1] if code not in FAULTS[fault].codes]
    trouble += ["did not finish"] if course.starts[-1][0] else []
    # a worker's thread of this name prints a traceback if its batch is never fetched
    texts = [text for _, text in course.starts if "in _serve" not in text]
    trouble += [word for word in ("Traceback", "hung") if any(word in text for text in texts)]
    made = environment()
    return {
        "variant": variant,
        "fault": fault,
        "starts": [{"code": code, "said": _said(text)} for code, text in course.starts],
        "steps_lost": course.played - STEPS,
        "different": differences(whole, course.run),
        "trouble": trouble,
        "cpu_seconds": round(_cpu_seconds() - used, 1),
        "made": {key: made[key] for key in ("ganzoo", "torch", "lightning", "platform", "time")},
    }


def reference(variant: str, kind: str, work: Path) -> Path:
    """The folder of the uninterrupted run, which is trained at the first call."""
    place = work / variant / kind
    if not place.exists():
        course = _course(variant, kind, place)
        _end(course, kind)
        if [code for code, _ in course.starts] != [0]:
            raise RuntimeError(f"{variant} fails without a fault: {course.starts}")
    return next(place.glob("runs/*"))


def _course(variant: str, kind: str, place: Path, workers: bool = False) -> Course:
    course = Course(place, command(variant, kind, workers), f"{variant}, {place.name}")
    if kind == "folder":
        _write_digits(place / "digits")
    if kind == "two":
        # a config may name modules of the working folder
        (place / "dies.py").write_text(f"from {Dies.__module__} import Dies as Base\n\n\nclass Dies(Base):\n    pass\n")
    return course


def command(variant: str, kind: str, workers: bool = False) -> list[str]:
    """A variant's shipped config with small networks, more updates of D than of G, microbatches, flips and scores.

    Args:
        variant: its name.
        kind: "one" process with digits, one with a "folder" of pictures, or "two" processes with digits.
        workers: load the data in worker processes.
    """
    name = f"{variant.lower()}/digits"
    data = yaml.safe_load(find_config(name).read_text())["data"]
    below = "data.data" if "data" in data.get("init_args", {}) else "data"
    given = inspect.signature(getattr(ganzoo, variant)).parameters
    options = {
        **{f"model.{key}": value for key, value in SMALL.items() if key in given},
        "model.microbatches": 2,
        "model.share_fakes": False,  # needs microbatches 1
        **({} if "n_critic" in given else {"model.n_critic": 2}),  # variants with this argument have more
        **({below: "ImageFolder", f"{below}.path": "digits", f"{below}.labels": "true"} if kind == "folder" else {}),
        **(
            {f"{below}.channels": 1, f"{below}.cache_gb": 0, f"{below}.val_fraction": HELD_OUT}
            if kind == "folder"
            else {}
        ),
        f"{below}.image_size": 32 if variant == "FastGAN" else 16,  # its smallest size
        **({"model.group_size": 2} if "group_size" in given else {}),
        **({"model.stable": 150, "model.fade": 300} if "fade" in given else {}),  # of 640 images
        "data.batch_size": 16,
        "data.flip": "true",
        **({"data.num_workers": 2 if workers else 0}),
        **({"data.labels_per_class": 3} if data["class_path"] == "SemiSupervised" else {}),
        # half of the variants with averages and schedules
        **({"model.ema_half_life": 100, "model.lr_scheduler": "StepLR"} if len(variant) % 2 else {}),
        **({"model.lr_scheduler.step_size": 5} if len(variant) % 2 else {}),
        "trainer.max_steps": STEPS,
        "trainer.log_every_n_steps": 3,
        "trainer.accelerator": "cpu",
        "trainer.enable_progress_bar": "false",
        "checkpoint.every_n_steps": SAVES,
        "samples.every_n_steps": 10,
        "samples.rows": 2,
        "samples.columns": 2,
        "samples.video_fps": 0,
        "diagnostics.every_n_steps": 10,
        "diagnostics.n": 20,
        "scores.every_n_steps": 10,
        "scores.n": 20,
        "scores.final_n": 0 if kind == "folder" else 20,
        "ckpt_path": "last",
    }
    if kind == "two":
        options |= {"trainer.devices": 2, "trainer.callbacks+": "dies.Dies"}
    return ["fit", "--config", name, *(text for key, value in options.items() for text in (f"--{key}", str(value)))]


def _write_digits(folder: Path) -> None:
    """A hundred digits as PNGs, ten per class, in one folder per class."""
    data = Digits().dataset("train")
    labels = data.labels()
    assert labels is not None
    for label in range(10):
        (folder / str(label)).mkdir(parents=True)
        members = (labels == label).nonzero()[:10, 0].tolist()
        for i, picture in zip(members, to_pil(to_float(data.__getitems__(members)["image"])), strict=True):
            picture.save(folder / str(label) / f"{i}.png")


def _end(course: Course, kind: str) -> None:
    """Restarts the command until it succeeds, at most `MOST_STARTS` times."""
    for _ in range(MOST_STARTS):
        if not (course.processes() if kind == "two" else course.start()):
            return


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def _said(text: str) -> str:
    """The printed line with the reason for the end of a start, or for skipping the newest checkpoint."""
    lines = [one_line(line) for line in text.splitlines()]
    otherwise = lines[-1] if "Traceback" in text else ""
    return next((line for line in lines if re.match("ganzoo: error|Stopped|Done|.* is damaged", line)), otherwise)


def differences(whole: Path, run: Path) -> list[str]:
    """Names of the parts of two runs' last states, logs, scores and pictures that are not bit-identical."""
    states = [_leaves(folder / "checkpoints" / "last.ckpt") for folder in (whole, run)]
    found = [key for key in {**states[0], **states[1]} if not _same(*(state.get(key) for state in states))]
    for name in ("metrics.jsonl", "scores.jsonl", "scores.json"):
        logs = [_log(folder / name) for folder in (whole, run)]
        found += [name] if logs[0] != logs[1] else []
    pictures = [{file.name: file.read_bytes() for file in folder.glob("samples/*.png")} for folder in (whole, run)]
    # an interrupted run also draws its last state
    return [*found, *(["samples"] if not pictures[0].items() <= pictures[1].items() else [])]


def _leaves(file: Path) -> dict[str, Any]:
    """All values of a checkpoint, by their path in it."""
    leaves, _ = tree_flatten_with_path(read_checkpoint(file)) if file.exists() else ([], None)
    return {"".join(map(str, path)): value for path, value in leaves}


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return bool(a == b)


def _log(file: Path) -> list[Any]:
    """A log or a record of scores, without times and commit: writing rows changes the working tree."""
    text = file.read_text() if file.exists() else ""
    lines = text.splitlines() if file.suffix == ".jsonl" else [text or "null"]
    return [_timeless(json.loads(line)) for line in lines]


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if key not in ("time", "seconds", "commit")}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


# The page


def page(rows: list[Row]) -> str:
    """All rows as Markdown."""
    by = {(row["variant"], row["fault"]): row for row in rows}
    lines = [f"| {' | '.join(['variant', *FAULTS])} |", "|---" * (1 + len(FAULTS)) + "|"]
    for variant in ganzoo.list_models():
        found = [by.get((variant, fault)) for fault in FAULTS]
        lines.append(f"| {' | '.join([variant, *(_cell(row) if row else '-' for row in found)])} |")
    faults = ["| fault | what happens | exit codes | message, for example |", "|---|---|---|---|"]
    for fault, kind in FAULTS.items():
        mine = [row["starts"] for row in rows if row["fault"] == fault]
        codes = ", ".join(map(str, sorted({start["code"] for starts in mine for start in starts[:-1]})))
        texts = (start["said"] for starts in mine for start in starts)
        said = next((text for text in texts if text and not text.startswith(f"Done at step {STEPS}. ")), "")
        faults.append(f"| {fault} | {kind.text} | {codes} | {said.replace('|', '/')} |")
    equal = sum(not row["different"] for row in rows)
    parts = [
        "# Interrupted and uninterrupted runs",
        f"The shipped config of every variant on digits, reduced: {STEPS} batches of 16 in two microbatches, flips, "
        "two or more D updates per G update, averaged generators and schedules for half of the variants, scores, "
        f"diagnostics and samples; a checkpoint every {SAVES} batches. The fault occurs at a random moment, and the "
        "same command is restarted until it finishes. Compared with an uninterrupted run: all tensors and numbers of "
        "`last.ckpt` (weights, optimizers, averages, schedules, callbacks, loops, means), `metrics.jsonl`, "
        "`scores.jsonl` and `scores.json` without times, and the samples. Cells give the number of batches that had to "
        f"be repeated. **{equal} of {len(rows)} are bit-identical.** CPU, {_versions(rows)}.",
        "\n".join(lines),
        "\n".join(faults),
        "An exit code -N means that signal N ended the process. A full disk is simulated by a limit on file size; loss "
        "of the disk's cache in a power failure is not tested. Runs of two processes are compared with runs of two. "
        f"Tested with three variants only: {', '.join(FOR_FEW)}.",
        "Messages are quoted as printed by those runs; their wording may have changed since. Written by `python -m "
        "tests.campaigns.faults` from [rows.jsonl](rows.jsonl), which contains the exit code and last message of each "
        "start.",
    ]
    return "\n\n".join(parts) + "\n"


def _versions(rows: list[Row]) -> str:
    return "; ".join(sorted({f"torch {row['made']['torch']}, Lightning {row['made']['lightning']}" for row in rows}))


def _cell(row: Row) -> str:
    what = f"**different** ({', '.join(row['different'][:3])})" if row["different"] else "identical"
    return ", ".join([f"{what}, {row['steps_lost']}", *(f"**{text}**" for text in row["trouble"])])


if __name__ == "__main__":
    raise SystemExit(main())
