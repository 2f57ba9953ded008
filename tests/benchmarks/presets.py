"""`python -m tests.benchmarks.presets [PRESET ...]`: peak memory and time of a training step, by preset and batch.

A PRESET is a function or class of `ganzoo.variants`, with arguments if any: stylegan2.paper256,microbatches=2.
Images and labels are random. Each line is measured in a new process, on one device, in one batch in which all lazy
terms are due, after 25 million images (so ProGAN is fully grown). A step's time is the mean over a cycle of lazy terms.
The memory is that of torch's tensors, as CUDA counts it for GPUs, without Python and its libraries.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import platform
import re
import signal
import sys
import tempfile
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from itertools import accumulate
from pathlib import Path
from typing import Any

from ganzoo.cli.errors import mid_run, number
from ganzoo.core.limits import Count
from ganzoo.core.text import one_line
from tests.benchmarks.rows import silence

PRESETS = (
    "stylegan2.cifar,num_classes=10",
    "stylegan2.paper256",
    "stylegan2.paper1024",
    "stylegan3.ffhq256",
    "stylegan3.ffhq256,rotation=true",
    "stylegan3.ffhq",
    "stylegan3.ffhq,rotation=true",
    "r3gan.cifar10",
    "r3gan.imagenet32",
    "r3gan.ffhq64",
    "r3gan.imagenet64",
    "r3gan.ffhq256",
    "progan.cifar10",
    "progan.celebahq",
)
PRECISIONS = ("32-true", "bf16-mixed")
SEEN = 25_000_000  # images
NAMES = {"generator_loss": "G", "discriminator_loss": "D", "r1_loss": "R1", "path_loss": "path"}  # of updates


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m tests.benchmarks.presets",
        description=__doc__,
        epilog="\n  ".join(["presets:", *PRESETS]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    count = number(Count)
    parser.add_argument("presets", nargs="*", metavar="PRESET", help="default: those below")
    parser.add_argument("--batch", type=count, nargs="+", default=[1, 2, 4, 8, 32], metavar="N", help="images")
    parser.add_argument("--precision", choices=PRECISIONS, nargs="+", default=PRECISIONS)
    parser.add_argument("--steps", type=count, default=1, metavar="N", help="batches, of which the fastest counts")
    parser.add_argument("--gb", type=count, default=9, metavar="N", help="memory of a process on a CPU, in GiB")
    parser.add_argument("--seconds", type=count, default=120, metavar="N", help="CPU time of a process")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to this file")
    options = parser.parse_args(arguments)
    for preset in options.presets:
        try:
            function(preset)
        except (ImportError, AttributeError) as error:
            parser.error(f"{preset}: {error}")

    import lightning
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    print(f"{device} ({name}), {date.today()}, torch {torch.__version__}, lightning {lightning.__version__}")
    print("one thread, CPU time" if device == "cpu" else "wall time", end="; MB: ")
    print("kept between steps (weights, gradients, Adam, averaged G); peaks of updates; of the whole step")
    if device == "cpu":
        print("GPU: not measured; torch finds none")
    rows = []
    for preset in options.presets or PRESETS:
        for precision in options.precision:
            for batch in options.batch:
                row = measured(preset, batch, precision, device, options.steps, options.gb, options.seconds)
                rows.append({"preset": preset, "batch": batch, "precision": precision, **row})
                print(line(rows[-1]), flush=True)
    if options.json is not None:
        machine = {"device": f"{device} ({name})", "torch": torch.__version__, "python": platform.python_version()}
        options.json.write_text(json.dumps({**machine, "rows": rows}, indent=2) + "\n")
    return 0


def line(row: dict[str, Any]) -> str:
    start = f"{row['preset']:<40}{row['precision']:>11}{row['batch']:>4}  "
    if "error" in row:
        return f"{start}not measured: {row['error']}"
    peaks = ", ".join(f"{name} {peak / 1e6:,.0f}" for name, peak in row["peaks"].items())
    sizes = f"{row['kept'] / 1e6:>7,.0f}; {peaks}; {row['peak'] / 1e6:,.0f} in {row['where']}"
    return f"{start}{sizes}; {row['seconds']:.2f} s"


def measured(
    preset: str, batch: int, precision: str, device: str, steps: int, gigabytes: int, seconds: int
) -> dict[str, Any]:
    """`measure` in a new process with limits; with an "error" if that fails."""
    os.environ["KINETO_LOG_LEVEL"] = "6"  # the profiler writes to stderr
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    limits = (gigabytes, seconds) if device == "cpu" else (None, None)
    process = context.Process(target=_measure, args=((preset, batch, precision, device, steps), *limits, sender))
    process.start()
    sender.close()
    try:
        row = receiver.recv()
    except EOFError:
        row = {}
    process.join()
    if not row:
        late = process.exitcode == -signal.SIGXCPU
        row = {"error": f"over {seconds} CPU s" if late else "the process ended; it may have been killed for memory"}
    return row


def _measure(asked: tuple[Any, ...], gigabytes: int | None, seconds: int | None, sender: Any) -> None:
    import torch

    if gigabytes is not None and seconds is not None:
        import resource

        torch.set_num_threads(1)
        until = int(time.process_time()) + seconds
        resource.setrlimit(resource.RLIMIT_CPU, (until, until + 5))
        resource.setrlimit(resource.RLIMIT_DATA, (gigabytes << 30, gigabytes << 30))
    try:
        with silence():
            row = measure(*asked)
    except Exception as error:
        why = mid_run(error) or one_line(error)
        memory = re.match("out of memory|could not create", why)  # oneDNN's message
        row = {"error": f"over {gigabytes} GiB" if memory and gigabytes else why}
    sender.send(row)


def measure(preset: str, batch: int, precision: str, device: str = "cpu", steps: int = 1) -> dict[str, Any]:
    """Bytes and seconds of a training step.

    Returns:
        `kept`: memory before a batch; `peaks`: that of each update; `peak`: that of the batch; `where`: the update
        with this peak; `seconds`: of a batch on average.
    """
    import torch
    from lightning.pytorch import Trainer
    from torch.utils.data import DataLoader

    from ganzoo.core.lightning_fixes import NoProfiler
    from ganzoo.core.limits import sides

    gauge = _Tensors() if device == "cpu" else _Cuda()
    with gauge.counting():
        model = made(preset)
        channels, size = model.hparams["channels"], sides(model.hparams["image_size"])
        data: dict[str, Any] = {"image": torch.rand(batch, channels, *size) * 2 - 1}
        if model.num_classes is not None:
            data["label"] = torch.arange(batch) % model.num_classes
        model.images_seen = SEEN
        spans = _Spans(model, gauge)
        Trainer(
            accelerator="gpu" if device == "cuda" else "cpu",
            devices=1,
            precision=precision,  # type: ignore[arg-type]
            max_steps=steps,
            log_every_n_steps=0,
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            profiler=NoProfiler(),
            callbacks=[_callback(spans)],
        ).fit(model, DataLoader([data] * steps, batch_size=None))  # type: ignore[arg-type]
    kept, peaks = gauge.peaks()
    whole = peaks.pop("step")
    where = next((name for name, peak in peaks.items() if peak == whole), "between")
    return {"kept": kept, "peaks": peaks, "peak": whole, "where": where, "seconds": spans.mean()}


def made(preset: str) -> Any:
    """The model of `variant.function,argument=value,...`; values are JSON."""
    given = (part.partition("=") for part in preset.split(",")[1:])
    return function(preset)(**{key: json.loads(value) for key, _, value in given})


def function(preset: str) -> Any:
    """The part of a preset before its arguments."""
    module, _, name = preset.split(",")[0].partition(".")
    return getattr(importlib.import_module(f"ganzoo.variants.{module}"), name)


class _Spans:
    """Marks the updates of a model, in each of which all lazy terms are due."""

    def __init__(self, model: Any, gauge: Any) -> None:
        self.model, self.gauge = model, gauge
        self.seconds: dict[str, list[float]] = {}
        self.every: dict[str, int] = {}  # batches from one update to the next
        self.minimize = model.minimize
        model.minimize, model.due = self.update, lambda every: True

    def update(self, loss: Any, batch: Any, *, player: str, interval: int = 1) -> None:
        name = NAMES.get(loss.__name__, f"{player[0].upper()} {loss.__name__}")
        self.every[name] = interval * (self.model.n_critic if player == "generator" else 1)
        with self.span(name):
            self.minimize(loss, batch, player=player, interval=interval)

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        begin = self.gauge.now()
        with self.gauge.span(name):
            yield
        self.seconds.setdefault(name, []).append(self.gauge.now() - begin)

    def mean(self) -> float:
        """Seconds of a batch, on average over a cycle of the lazy terms."""
        least = {name: min(seconds) for name, seconds in self.seconds.items()}
        rest = least.pop("step") - sum(least.values())
        return rest + sum(seconds / self.every[name] for name, seconds in least.items())


def _callback(spans: _Spans) -> Any:
    import torch
    from lightning.pytorch import Callback, Trainer

    class Steps(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 0:  # gradients and the optimizers' states exist from the second batch on
                for optimizer in trainer.optimizers:
                    for group in optimizer.param_groups:
                        for p in group["params"]:
                            p.grad = torch.zeros_like(p)
                    optimizer.step()
            self.step = spans.span("step")
            self.step.__enter__()

        def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
            self.step.__exit__(None, None, None)

    return Steps()


class _Tensors:
    """Counts torch's allocations on a CPU, by its profiler."""

    now = staticmethod(time.process_time)

    @contextmanager
    def counting(self) -> Iterator[None]:
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as self.profile:
            yield

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        from torch.profiler import record_function

        with record_function(f"span {name}"):
            yield

    def peaks(self) -> tuple[int, dict[str, int]]:
        """Bytes before the first step, and at most in the spans of each name."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "trace.json")
            self.profile.export_chrome_trace(str(file))
            events = json.loads(file.read_text())["traceEvents"]
        memory = sorted((e["ts"], e["args"]["Addr"], e["args"]["Bytes"]) for e in events if e["name"] == "[memory]")
        changes = list(_changes(memory))
        times = [at for at, _ in changes]
        totals = [0, *accumulate(change for _, change in changes)]  # before each of the times, and after the last
        found: dict[str, int] = {}
        kept = 0
        for span in sorted((e for e in events if e["name"].startswith("span ")), key=lambda e: e["ts"]):
            begin, end, name = span["ts"], span["ts"] + span["dur"], span["name"].removeprefix("span ")
            first, last = bisect_left(times, begin), bisect_right(times, end)
            kept = kept or totals[first]
            found[name] = max(found.get(name, 0), *totals[first : last + 1])
        return kept, found


def _changes(memory: Sequence[tuple[float, int, int]]) -> Iterator[tuple[float, int]]:
    """Times and bytes, without the release of what was allocated before the profile: torch may report it, too."""
    known = set()
    for at, address, size in memory:
        if size > 0:
            known.add(address)
            yield at, size
        elif address in known:
            known.remove(address)
            yield at, size


class _Cuda:
    """Reads torch's counters of a GPU's memory."""

    def __init__(self) -> None:
        self.kept = self.whole = 0
        self.found: dict[str, int] = {}

    @contextmanager
    def counting(self) -> Iterator[None]:
        yield

    def now(self) -> float:
        import torch

        torch.cuda.synchronize()
        return time.perf_counter()

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        from torch import cuda

        self.kept = self.kept or cuda.memory_allocated()
        self.whole = max(self.whole, cuda.max_memory_allocated())
        cuda.reset_peak_memory_stats()
        yield
        self.found[name] = max(self.found.get(name, 0), cuda.max_memory_allocated())

    def peaks(self) -> tuple[int, dict[str, int]]:
        return self.kept, {**self.found, "step": max(self.whole, *self.found.values())}


if __name__ == "__main__":
    sys.exit(main())
