"""`python -m tests.benchmarks`: the cost of training and scores here, compared with other implementations."""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ganzoo import __version__
from ganzoo.cli.errors import UserError


class Measurement(NamedTuple):
    """A benchmark: a function of this name in `tests.benchmarks.<module>`, called with the device and `repeats`."""

    module: str
    repeats: int
    quick: int  # repeats with --quick
    help: str
    default: bool = True  # runs without --only


MEASUREMENTS = {
    "overhead": Measurement("training", 9, 3, "ganzoo's overhead per training step"),
    "step": Measurement("training", 40, 12, "a DCGAN step, compared with a plain loop"),
    "modern": Measurement("training", 20, 6, "steps of SNGAN, SAGAN, BigGAN ...", default=False),
    "options": Measurement("options", 5, 2, "steps with augmentations and penalties", default=False),
    "stylegan2": Measurement(
        "styles", 12, 4, "StyleGAN2's updates, compared with a straightforward form", default=False
    ),
    "stylegan3": Measurement(
        "styles", 8, 2, "StyleGAN3's filtered nonlinearity, compared with the written-out form", default=False
    ),
    "start": Measurement("training", 3, 1, "startup time in seconds"),
    "frechet": Measurement("scores", 5, 1, "Frechet distance, compared with torchmetrics and scipy"),
    "memory": Measurement("scores", 3, 1, "memory of an evaluation by number of fakes"),
    "shards": Measurement("shards", 7, 2, "batches from shards, compared with a folder", default=False),
    "safety": Measurement("safety", 9, 3, "cost of checkpoints and of checks for non-finite values"),
    "tracking": Measurement("tracking", 10, 3, "cost of scores during training"),
    "evaluation": Measurement("evaluation", 5, 1, "complete evaluations, compared with torch-fidelity", default=False),
}


def main(arguments: Sequence[str] | None = None) -> int:
    listing = [f"  {name:<11}{m.help}{'' if m.default else ' (with --only)'}" for name, m in MEASUREMENTS.items()]
    parser = argparse.ArgumentParser(
        "python -m tests.benchmarks",
        description=__doc__,
        epilog="\n".join(["measurements:", *listing]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="device of the networks (default: cpu)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="number of torch threads (default: torch's choice)")
    parser.add_argument("--only", choices=tuple(MEASUREMENTS), metavar="NAME", help="one of the measurements below")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements to FILE")
    options = parser.parse_args(arguments)

    import lightning
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU; python -m ganzoo checks lists the devices")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    machine = {
        "device": torch.cuda.get_device_name() if options.device == "cuda" else f"cpu ({platform.machine()})",
        "threads": torch.get_num_threads(),
        "ganzoo": __version__,
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "python": platform.python_version(),
    }
    print(", ".join(f"{key} {value}" for key, value in machine.items()), flush=True)
    raw: dict[str, Any] = {"machine": machine}
    for name in [options.only] if options.only else [name for name, m in MEASUREMENTS.items() if m.default]:
        chosen = MEASUREMENTS[name]
        measure = getattr(importlib.import_module(f"tests.benchmarks.{chosen.module}"), name)
        try:
            raw[name] = measure(options.device, chosen.quick if options.quick else chosen.repeats)
        except UserError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 2
    if options.json is not None:
        options.json.write_text(json.dumps(raw, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
