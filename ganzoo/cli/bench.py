"""`bench CONFIG`: images/s, step time and peak memory on this machine, at each precision, eager and compiled.

Takes the options of `fit`, such as --data.batch_size 256. Each row is measured in a new process.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import re
import traceback
from collections.abc import Sequence
from typing import Any

from ganzoo.cli.errors import Arguments, UserError, number, user_errors
from ganzoo.cli.paths import find_config
from ganzoo.core.atomic import write_text
from ganzoo.core.limits import Count
from ganzoo.core.text import path_of

PRECISIONS = ("32-true", "bf16-mixed")
WARM_UP = 3  # steps
MOST = 1 << 16  # images; no larger batch is tried


def main(verb: str, arguments: Sequence[str]) -> int:
    parser = Arguments(verb, __doc__ or "", "CONFIG [--KEY VALUE ...] [--steps N] [--eager] [--json FILE]")
    parser.add_argument("config", help="name of a shipped config, or a config file")
    parser.add_argument("--steps", type=number(Count), default=20, metavar="N", help="timed steps (default: 20)")
    parser.add_argument("--eager", action="store_true", help="skip the compiled rows, which take a minute or more each")
    parser.add_argument("--json", type=path_of, metavar="FILE", help="write the rows to this file")
    options, rest = parser.parse_known_args(arguments)
    if given := [word for word in rest if re.match(r"--(trainer\.precision|model\.compile_losses)(=|$)", word)]:
        raise UserError(f"bench compares precisions and compiled losses itself; leave {given[0].partition('=')[0]} out")
    find_config(options.config)  # fails before a process is started
    if (file := options.json) is not None and (file.is_dir() or not file.parent.is_dir()):
        raise UserError(f"--json {file} cannot be written; name a file in an existing folder")
    fit = ["--config", options.config, *rest]
    rows: list[dict[str, Any]] = []
    for precision in PRECISIONS:
        for compiled in (False,) if options.eager else (False, True):
            name = f"{precision}, {'compiled' if compiled else 'eager'}"
            more = ["--trainer.precision", precision, "--model.compile_losses", str(compiled).lower()]
            row = {"name": name, **measured([*fit, *more], options.steps)}
            rows.append(row)
            if len(rows) == 1:
                if "error" in row:
                    raise UserError(row["error"])
                print(f"{options.config}: {row['parameters']}; batches of {row['images']} on {row['device']}")
                print(f"{'':<24}{'images/s':>10}{'ms/step':>12}{'peak MB':>10}")
            print(_line(row), flush=True)
    if rows[0]["device"].startswith("cuda"):
        eager = [*fit, "--trainer.precision", PRECISIONS[0], "--model.compile_losses", "false"]
        print(f"largest batch that fits, at {PRECISIONS[0]}, eager: {largest(eager, rows[0]['images'])}")
    if options.json is not None:
        machine = {"machine": platform.machine(), "python": platform.python_version()}
        with user_errors():
            write_text(options.json, json.dumps({**machine, "rows": rows}, indent=2) + "\n")
    return 0


def measured(fit: list[str], steps: int) -> dict[str, Any]:
    """One row, measured in a new process; with an "error" if that fails."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(fit, steps, sender))
    process.start()
    sender.close()
    try:
        row = receiver.recv()
    except EOFError:
        row = {"error": "the process ended without a result; it may have been killed for lack of memory"}
    process.join()
    return row


def largest(fit: list[str], images: int) -> str:
    """The largest batch that fits, found by doubling, and why the next one does not."""
    while images < MOST:
        row = measured([*fit, "--data.batch_size", str(2 * images)], 1)
        if "error" in row:
            return f"{images:,} ({2 * images:,}: {row['error']})"
        images *= 2
    return f"{images:,} or more"


def _measure(fit: list[str], steps: int, sender: Any) -> None:
    import torch

    from ganzoo.cli.cost import measure
    from ganzoo.cli.errors import at_start
    from ganzoo.cli.training import build
    from ganzoo.core.allocator import keep_freed_memory
    from ganzoo.core.player import parameters

    keep_freed_memory()  # as `fit` does
    try:
        cli = build("fit", fit, dry=True)
        config = cli.config_init.trainer
        where = {"accelerator": config.accelerator, "precision": config.precision}
        cost = measure(cli.model, cli.datamodule, steps, WARM_UP, **where)
        device = cli.trainer.strategy.root_device.type
        name = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
        row: dict[str, Any] = {**cost._asdict(), "device": f"{device} ({name})", "parameters": parameters(cli.model)}
    except Exception as error:  # reported in this row
        if os.environ.get("GANZOO_TRACEBACK"):
            traceback.print_exc()
        row = {"error": at_start(error)}
    sender.send(row)


def _line(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"  {row['name']:<22}{row['error']}"
    images, seconds, memory = row["images"], row["seconds"], row["memory"]
    return f"  {row['name']:<22}{images / seconds:>10,.0f}{1e3 * seconds:>12,.1f}{memory / 1e6:>10,.0f}"
