"""The trained models that ganzoo ships: `python -m tests.campaigns.pretrain` trains those that are missing.

Each is a committed config with seed 0, trained on one CPU thread; the last state is shipped, never the best one. Before
it, short runs compare the settings of `pretrain_models.py`, and the best one is written into the config. What is
finished is not run again, and an interrupted training is resumed; models whose config has not changed are kept.
`--page` only rewrites the cards, the tables and the pictures.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

import torch
import yaml
from torch import Tensor

import ganzoo
from ganzoo.checkpoint.pretrained import load, read_checkpoint, save_pretrained
from ganzoo.cli.errors import UserError
from ganzoo.cli.parsing import datamodule
from ganzoo.cli.paths import find_checkpoint, find_config, record_of
from ganzoo.core.module import GANModule
from ganzoo.core.pixels import to_float, to_uint8
from ganzoo.data import GANDataModule
from ganzoo.evaluation import evaluate
from ganzoo.evaluation.assemble import assemble
from ganzoo.evaluation.choice import cheap
from ganzoo.evaluation.record import Report, made
from tests.campaigns import pretrain_page, pretrain_search, pretrain_wall
from tests.campaigns.children import Children
from tests.campaigns.pretrain_models import MODELS, Model

SEED = 0
QUICK = 200  # fakes in the evaluation that the tests repeat
SAMPLES = 64  # compared to choose how weights are stored
OPTIONS = ["--seed_everything", str(SEED), "--trainer.accelerator", "cpu", "--scores.final_n", "0"]
_shipping = Lock()  # an evaluation sets torch's global state


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m tests.campaigns.pretrain", description=__doc__)
    parser.add_argument(
        "configs", nargs="*", default=MODELS, help="config names or files (default: those of pretrain_models.py)"
    )
    parser.add_argument(
        "--out", type=Path, default=ganzoo.PRETRAINED, metavar="DIR", help="output folder, with a subfolder per model"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("runs/pretrained"), metavar="DIR", help="folder of the trainings"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="number of parallel trainings, of one thread each (default: 1)"
    )
    parser.add_argument(
        "--rows", type=Path, default=pretrain_search.ROWS, metavar="FILE", help="finished runs of the search"
    )
    parser.add_argument(
        "--page", action="store_true", help="only write cards, tables and pictures, from the existing models"
    )
    options = parser.parse_args(arguments)
    try:
        configs = [] if options.page else [find_config(name) for name in options.configs]
    except UserError as error:
        parser.error(str(error))
    problems = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with Children() as children, ThreadPoolExecutor(options.jobs) as pool:
            every = [pool.submit(make, config, options.out, options.work, options.rows, children) for config in configs]
            for made_ in every:
                try:
                    made_.result()
                except SystemExit as problem:  # the others go on
                    problems.append(str(problem))
        pretrain_page.write(options.out)
        pretrain_wall.write(options.out)
    finally:
        torch.set_num_threads(threads)
    if problems:
        print("\n".join(dict.fromkeys(problems)), file=sys.stderr)
    return int(bool(problems))


def make(config: Path, out: Path, work: Path, rows: Path, children: Children) -> Path:
    """Searches the settings of one model, trains it and writes it, skipping what is already done; its folder."""
    name = f"{config.parent.name}/{config.stem}"
    model, folder = MODELS.get(name, Model()), out / name.replace("/", "-")
    if up_to_date(folder, config):
        print(f"{folder}: up to date", file=sys.stderr)
        return folder
    found = pretrain_search.search(config, name, model, rows, work, children)
    if found:
        config.write_text(pretrain_search.hold(config.read_text(), pretrain_search.best(found)["values"]))
    settings = settings_of(config)
    run, seconds = train(config, name, settings, work, children)
    facts = {"config": name, "settings": settings, "seed": SEED, **seconds, "search": found}
    with _shipping:
        return ship(run, folder, datamodule(settings["data"]), facts, model.whole)


def settings_of(config: Path) -> dict[str, Any]:
    return json.loads(json.dumps(yaml.safe_load(config.read_text())))


def up_to_date(folder: Path, config: Path) -> bool:
    record = record_of(folder)
    return bool(record) and (record["settings"], record["seed"]) == (settings_of(config), SEED)


def train(
    config: Path, name: str, settings: dict[str, Any], work: Path, children: Children
) -> tuple[Path, dict[str, Any]]:
    """Trains, or resumes an interrupted training; the run's folder, and the seconds summed over all its parts."""
    digest = hashlib.sha256(json.dumps([settings, SEED], sort_keys=True).encode()).hexdigest()
    root = work / f"{name.replace('/', '-')}-{digest[:8]}"  # a changed config is a new training
    root.mkdir(parents=True, exist_ok=True)
    clock = root / "seconds.json"
    parts = json.loads(clock.read_text()) if clock.is_file() else []
    command = [sys.executable, "-m", "ganzoo", "fit", "--config", str(config), *OPTIONS]
    command += ["--trainer.default_root_dir", str(root), "--trainer.enable_progress_bar", "false"]
    if (run := _newest(root)) is None or _steps(run) < settings["trainer"]["max_steps"]:
        parts.append(None)  # remains None if this process is killed
        clock.write_text(json.dumps(parts))
        status, parts[-1] = children.run(command + ([] if run is None else ["--ckpt_path", str(run)]))
        clock.write_text(json.dumps(parts))
        run = _newest(root)
        if status or run is None or _steps(run) < settings["trainer"]["max_steps"]:
            raise SystemExit(f"{name}: the training ended early (status {status}); run the same command to resume")
    known = [part for part in parts if part]
    seconds = {key: round(sum(part[key] for part in known), 1) for key in ("wall", "cpu")}
    return run, {"seconds": {**seconds, "parts": len(parts), "parts_not_counted": len(parts) - len(known)}}


def _newest(root: Path) -> Path | None:
    """The last run that has a checkpoint."""
    return max((file.parents[1] for file in root.glob("*/checkpoints/*.ckpt")), default=None)


def _steps(run: Path) -> int:
    return read_checkpoint(find_checkpoint(str(run)))["global_step"]


def ship(run: Path, folder: Path, data: GANDataModule, facts: dict[str, Any], whole: bool | None = None) -> Path:
    """Writes a run's last state, and its record, from which the card and the table are generated; `whole` is that of
    `Model`."""
    data.prepare_data()
    checkpoint = find_checkpoint(str(run))
    model = load(checkpoint)
    stored = store(model, folder, data, whole)
    shipped = load(folder)
    file = folder / "model.safetensors"
    record = {
        "variant": type(model).__name__,
        **facts,
        "command": " ".join(["python -m ganzoo fit --config", facts["config"], *OPTIONS]),
        "steps": read_checkpoint(checkpoint)["global_step"],
        "images_seen": int(model.images_seen),
        "parameters": {
            player: sum(w.numel() for w in getattr(model, player).parameters())
            for player in ("generator", "discriminator")
        },
        "num_classes": model.num_classes,
        "source_channels": model.source_channels,
        **stored,
        "bytes": file.stat().st_size,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "made": {"python": platform.python_version(), **made("cpu"), "threads": 1},
        "date": datetime.now(UTC).date().isoformat(),
        "scores": evaluate(shipped, data, figures(shipped, data)).as_dict(),
        "held_out": evaluate(shipped, data, figures(shipped, data, "test")[:2], split="test").as_dict(),
        "quick": quick(shipped, data).as_dict(),
        "error": None if stored["slim"] else error(shipped, data),
    }
    (folder / "record.json").write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
    return folder


def figures(model: GANModule, data: GANDataModule, split: Any = None) -> list[str]:
    """Names of all default metrics that can be computed, FID and KID first; KID with subsets of half the images, if
    there are fewer than 2,000."""
    evaluation = assemble(model, data, split=split)
    names = [metric.name for metric in evaluation.metrics if metric.name not in ("fid", "kid")]
    assert evaluation.reference is not None
    return ["fid", f"kid:size={min(1000, len(evaluation.reference.sets['real']) // 2, len(evaluation.fakes))}", *names]


def store(model: GANModule, folder: Path, data: GANDataModule, whole: bool | None = None) -> dict[str, Any]:
    """Writes the weights in the smallest faithful form, and returns which.

    Only the generator, unless the model is a classifier or `whole` says otherwise; the averaged one, if there is one.
    In half precision if no byte of 64 samples changes by more than 2 of 255, which is invisible, and no class of a test
    image changes; otherwise unchanged.
    """
    slim = not (hasattr(model, "classify") if whole is None else whole)
    before, classes = to_uint8(shots(model, data)).int(), None if slim else classified(model, data)
    for dtype, most in ((torch.float16, 2), (None, 0)):
        try:
            save_pretrained(model, folder, slim=slim, averaged=not slim, dtype=dtype)
        except ValueError:  # too large for half precision
            continue
        copy = load(folder)
        off = (to_uint8(shots(copy, data)).int() - before).abs()
        same = classes is None or torch.equal(classes, classified(copy, data))
        if same and off.max() <= most:
            break
    else:
        raise RuntimeError(f"{folder}: the stored weights do not reproduce the model's samples")
    return {
        "slim": slim,
        "dtype": "float32" if dtype is None else "float16",
        "samples_off": {"bytes": round((off > 0).double().mean().item(), 6), "by_at_most": int(off.max())},
    }


def shots(model: GANModule, data: GANDataModule) -> Tensor:
    """Samples [64, C, H, W], compared to choose how weights are stored."""
    source = None if model.source_channels is None else pretrain_wall.held_out(model, data, SAMPLES, "source")
    return model.sample(seeds=range(SAMPLES), source=source)


def quick(model: GANModule, data: GANDataModule) -> Report:
    """A one-second evaluation: FID or modes, and accuracy if images have requested classes."""
    asked = model.num_classes is not None or (model.source_channels is not None and data.num_classes is not None)
    return evaluate(model, data, [*cheap(data), *(["accuracy"] if asked else [])], n=QUICK)


def classified(model: Any, data: GANDataModule) -> Any:
    """Classes [N] of the test images if the model is a classifier, else None."""
    if not hasattr(model, "classify"):
        return None
    images = data.dataset("test")
    return model.classify(to_float(images.__getitems__(range(len(images)))["image"]))


def error(model: GANModule, data: GANDataModule) -> dict[str, Any] | None:
    """The numbers of test images and of misclassified ones; None unless the model is a classifier."""
    classes, labels = classified(model, data), data.dataset("test").labels()
    if classes is None or labels is None:
        return None
    return {"split": "test", "images": len(labels), "wrong": int((classes != labels).sum())}


if __name__ == "__main__":
    raise SystemExit(main())
