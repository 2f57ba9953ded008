"""The cost of a training on this machine: seconds per step, and memory."""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Trainer

from ganzoo.core.lightning_fixes import BatchEndCallback, NoProfiler

try:
    import resource
except ImportError:  # on Windows
    resource = None  # type: ignore[assignment]


class Cost(NamedTuple):
    """The cost of one training step.

    Attributes:
        seconds: median over the steps after the warm-up; lazy terms, such as StyleGAN2's R1 in every 16th step, count
            only in the steps in which they are due.
        memory: peak in bytes, with all lazy terms, of the GPU, or of the process if trained on a CPU; 0 if unknown.
        images: batch size.
    """

    seconds: float
    memory: int
    images: int


def measure(model: Any, data: Any, steps: int, warm_up: int, **trainer: Any) -> Cost:
    """Trains a few batches on one device, without logs, checkpoints, validation and progress bar.

    Args:
        model: trained in place.
        data: its data module.
        steps: number of measured steps.
        warm_up: untimed steps before them. The first one builds and compiles; in the last one, all lazy terms are due,
            as they use the most memory in some models. From the second one on, optimizers have all their state.
        **trainer: accelerator and precision of Lightning's Trainer.
    """
    clock = _Clock(warm_up)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "limit_val_batches": 0}
    it = Trainer(
        devices=1,
        max_steps=warm_up + steps,
        max_epochs=-1,
        enable_model_summary=False,
        profiler=NoProfiler(),
        callbacks=[clock],
        **quiet,  # type: ignore[arg-type]
        **trainer,
    )
    on_gpu = it.strategy.root_device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "the run ends in")  # ProGAN's, of these steps
            it.fit(model, datamodule=data)
    except SystemExit as error:
        raise KeyboardInterrupt from error  # Lightning exits on Ctrl-C
    memory = torch.cuda.max_memory_allocated() if on_gpu else _memory_of_the_process()
    return Cost(statistics.median(clock.seconds[warm_up:]), memory, clock.images)


class _Clock(BatchEndCallback):
    """The wall time of each batch, including its loading; all lazy terms are due in the last batch of the warm-up."""

    def __init__(self, warm_up: int) -> None:
        self.warm_up = warm_up
        self.seconds: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.set_due(pl_module)
        self.images, self.seen = 0, pl_module.images_seen
        self.begin = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds.append(now - self.begin)
        self.images, self.seen, self.begin = pl_module.images_seen - self.seen, pl_module.images_seen, now
        self.set_due(pl_module)

    def set_due(self, model: Any) -> None:
        if len(self.seconds) == self.warm_up - 1:
            model.due = lambda every: True
        else:
            vars(model).pop("due", None)


def _memory_of_the_process() -> int:
    if resource is None:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
