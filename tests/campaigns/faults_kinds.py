"""The faults of `python -m tests.campaigns.faults`: real signals, damaged files and resource limits."""

from __future__ import annotations

import io
import math
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ganzoo.callbacks.checkpoints import rolling
from ganzoo.checkpoint import sealed
from ganzoo.cli import main
from ganzoo.core.module import GANModule
from ganzoo.core.player import PLAYERS
from ganzoo.data.labels import fraction

SEED = "seed_everything: 0\n"  # in a resolved config
STEPS, SAVES = 40, 7  # batches per run, and between two checkpoints
HELD_OUT = 0.1  # share of a folder in the validation split
LIMIT = 120  # seconds after which a start counts as hung
RANK, STEP = "GANZOO_FAULT_RANK", "GANZOO_FAULT_STEP"  # environment variables that `Dies` reads
Act = Callable[[GANModule], None]


class Fault(NamedTuple):
    """A fault, its description and the exit codes that it may cause."""

    strike: Callable[[Course], None]  # starts the command with the fault; the caller then restarts it
    text: str
    codes: set[int]  # allowed for a start that the fault ends


class Course:
    """One command in its own folder, and its starts.

    Args:
        place: the folder, which must not exist.
        command: arguments of `ganzoo`.
        seed: determines when and where the fault occurs.
    """

    def __init__(self, place: Path, command: list[str], seed: str) -> None:
        place.mkdir(parents=True)
        self.place, self.command, self.random = place, command, random.Random(seed)
        self.starts: list[tuple[int, str]] = []  # exit code (or minus a signal's number) and output
        self._played = multiprocessing.Value("i", 0)

    @property
    def run(self) -> Path:
        """The command's first run; ignores that of `start_beside` with another seed."""
        return next(run for run in sorted(self.place.glob("runs/*")) if SEED in (run / "config.yaml").read_text())

    @property
    def played(self) -> int:
        """Number of batches, over all starts."""
        counted = self.place / "played"  # written by `Dies`
        return self._played.value + (counted.stat().st_size if counted.exists() else 0)

    def step(self, least: int = 2, most: int = STEPS - 2) -> int:
        return self.random.randint(least, most)

    def start(self, prepare: Callable[[], None] | None = None) -> int:
        """Calls `prepare`, then runs the command, in a fork of this process (to save the imports); its exit code."""
        return self._end(*self._begin(self.command, prepare))

    def start_beside(self, *options: str) -> None:
        """Runs the command twice at the same time, once with additional options."""
        both = [self._begin(self.command, None), self._begin([*self.command, *options], None, count=False)]
        for process, reader in both:
            self._end(process, reader)

    def _begin(
        self, command: list[str], prepare: Callable[[], None] | None, count: bool = True
    ) -> tuple[BaseProcess, int]:
        reader, writer = os.pipe()
        arguments = (writer, command, prepare, count)
        process = multiprocessing.get_context("fork").Process(target=self._child, args=arguments)
        process.start()
        os.close(writer)
        return process, reader

    def _end(self, process: BaseProcess, reader: int) -> int:
        with os.fdopen(reader, errors="replace") as said:
            text = _all_of(said, cast(int, process.pid))
        process.join()
        self.starts.append((process.exitcode or 0, text))
        return process.exitcode or 0

    def _child(self, writer: int, command: list[str], prepare: Callable[[], None] | None, counted: bool) -> None:
        os.setpgid(0, 0)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # undoes `nohup`
        os.chdir(self.place)
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        os.close(writer)
        sys.stdout = sys.stderr = os.fdopen(2, "w", buffering=1)  # replaces streams captured by a test

        def count(_: GANModule) -> None:
            self._played.value += 1

        if counted:
            _wrap("training_step", count, before=False)
        if prepare:
            prepare()
        os._exit(main(command))

    def processes(self, rank: int | None = None, step: int = 0) -> int:
        """Runs the command as a new process, which starts a second rank; kills `rank`, if given, after batch `step`."""
        environment = os.environ | {"OMP_NUM_THREADS": "1", RANK: str(rank), STEP: str(step)}
        command = [sys.executable, "-m", "ganzoo", *self.command]
        how: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        with subprocess.Popen(command, cwd=self.place, env=environment, start_new_session=True, **how) as process:
            text = _all_of(cast(IO[str], process.stdout), process.pid)
        self.starts.append((process.returncode, text))
        return process.returncode


class Dies(Callback):
    """Counts the batches of a training, and kills its process if rank and step match the environment variables."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.is_global_zero:
            with open("played", "a") as file:
                file.write(".")
        if os.environ[RANK] == str(trainer.global_rank) and os.environ[STEP] == str(trainer.global_step):
            _kill()


def _all_of(said: IO[str], group: int) -> str:
    """The output of a process group, which is killed if it hangs."""
    begun, timer = time.monotonic(), threading.Timer(LIMIT, os.killpg, (group, signal.SIGKILL))
    timer.start()
    text = said.read()
    timer.cancel()
    timer.join()
    return text + "\nhung" * (time.monotonic() - begun > LIMIT)


def _wrap(method: str, act: Act, *, before: bool) -> None:
    """Calls `act` before or after each call of a model's method."""
    whole = getattr(GANModule, method)

    def wrapped(self: GANModule, *args: Any, **kwargs: Any) -> Any:
        if before:
            act(self)
        result = whole(self, *args, **kwargs)
        if not before:
            act(self)
        return result

    setattr(GANModule, method, wrapped)


def at(step: int, act: Act, method: str = "training_step", before: bool = True) -> Callable[[], None]:
    """A `prepare` for `Course.start`, which calls `act` in batch `step`, counted from 1."""

    def once(model: GANModule) -> None:
        counted = model.trainer.global_step + (method == "minimize" or before)
        if counted == step:
            act(model)

    return lambda: _wrap(method, once, before=before)


def _kill(_: Any = None) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# The faults


def killed(course: Course) -> None:
    for least in (2, STEPS // 2):
        method, before = course.random.choice([("training_step", True), ("minimize", False), ("training_step", False)])
        course.start(at(course.step(least, least + 17), _kill, method, before))


def killed_while_saving(course: Course) -> None:
    def prepare(where: str, nth: int, share: float) -> None:
        whole, count = sealed.write_atomically, 0
        replace = Path.replace

        def half(write: Callable[[Any], Any], file: Any) -> None:
            write(buffer := io.BytesIO())
            file.write(buffer.getvalue()[: int(share * len(buffer.getvalue()))])
            file.flush()
            _kill()

        def renamed(self: Path, target: Any) -> Any:
            if where == "after the rename":
                replace(self, target)
            _kill()

        def saved(path: Any, write: Callable[[Any], Any]) -> None:
            nonlocal count
            count += 1
            if count == nth and where == "in the file":
                whole(path, lambda file: half(write, file))
            if count == nth:
                Path.replace = renamed  # type: ignore[method-assign]
            whole(path, write)

        sealed.write_atomically = saved

    for where in ("in the file", "before the rename", "after the rename"):
        nth, share = course.random.randint(1, 2), course.random.random()
        course.start(lambda where=where, nth=nth, share=share: prepare(where, nth, share))  # type: ignore[misc]


def terminated(course: Course) -> None:
    for least in (2, STEPS // 2):
        step = course.step(least, least + 17)
        course.start(at(step, lambda _: os.kill(os.getpid(), signal.SIGTERM), before=course.random.random() < 0.5))


def full_disk(course: Course) -> None:
    share = course.random.random()

    def fill(model: GANModule) -> None:
        size = rolling(Path(model.trainer.log_dir or "") / "checkpoints")[0].stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * size), resource.RLIM_INFINITY))

    course.start(at(course.step(SAVES + 1), fill))


def bad_number(course: Course) -> None:
    player = course.random.choice(PLAYERS)
    what = course.random.choice(["gradient", "weight"])

    def spoil(model: GANModule) -> None:
        weight = next(getattr(model, player).parameters())
        if what == "weight":
            with torch.no_grad():
                weight[0] = math.nan
        else:
            weight.register_hook(lambda gradient: gradient * math.inf)

    course.start(at(course.step(), spoil))


def corrupt_image(course: Course) -> None:
    folder = course.place / "digits"
    trained = [f for f in sorted(folder.rglob("*.png")) if fraction(f.relative_to(folder).as_posix()) >= HELD_OUT]
    file = course.random.choice(trained)
    whole = file.read_bytes()
    size = course.random.randint(20, len(whole) // 2)
    course.start(at(course.step(2, 15), lambda _: os.truncate(file, size)))
    file.write_bytes(whole)


def truncated_checkpoint(course: Course) -> None:
    course.start(at(course.step(2 * SAVES + 1), _kill))
    last = rolling(course.run / "checkpoints")[-1]
    os.truncate(last, course.random.randrange(last.stat().st_size))


def dead_worker(course: Course) -> None:
    which = course.random.randrange(2)
    course.start(at(course.step(), lambda _: multiprocessing.active_children()[which].kill()))


def dead_rank(course: Course) -> None:
    for rank, least in enumerate((2, STEPS // 2)):
        course.processes(rank, course.step(least, least + 17))


def group_signals(course: Course) -> None:
    numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL]
    for number, least in zip(course.random.sample(numbers, 4), (2, 11, 20, 30), strict=True):
        before = course.random.random() < 0.5
        tell = lambda _, number=number: os.killpg(0, number)  # type: ignore[misc]  # noqa: E731
        course.start(at(course.step(least, least + 8), tell, before=before))


def closed_output(course: Course) -> None:
    def strike(number: int, where: str) -> None:
        if where == "pipe":
            reader, file = os.pipe()
            os.close(reader)
        else:
            file = os.open(where, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(file, stream)
        if number:
            os.killpg(0, number)

    ways = [(signal.SIGTERM, "pipe"), (signal.SIGINT, "/dev/full"), (signal.SIGHUP, "pipe"), (0, "pipe")]
    for (number, where), least in zip(ways, (2, 11, 20, 30), strict=True):
        act = lambda _, number=number, where=where: strike(number, where)  # type: ignore[misc]  # noqa: E731
        course.start(at(course.step(least, least + 8), act))


def two_at_once(course: Course) -> None:
    course.start_beside("--seed_everything", "1")


FAULTS = {
    "killed": Fault(killed, "SIGKILL twice: before, in or after a batch", {-9}),
    "killed while saving": Fault(
        killed_while_saving,
        "SIGKILL while a checkpoint is written, before it is renamed, and right after",
        {-9},
    ),
    "SIGTERM": Fault(terminated, "SIGTERM twice", {75}),
    "full disk": Fault(
        full_disk, "from some batch on, files are limited to part of a checkpoint's size (RLIMIT_FSIZE)", {1}
    ),
    "bad number": Fault(bad_number, "a gradient becomes infinite, or a weight NaN", {2}),
    "corrupt image": Fault(
        corrupt_image, "an image of the training folder is truncated, and restored for the next start", {2}
    ),
    "truncated checkpoint": Fault(truncated_checkpoint, "SIGKILL; then the last checkpoint is truncated", {-9}),
    "dead worker": Fault(dead_worker, "SIGKILL of one of two loader workers", {2}),
    "dead rank": Fault(
        dead_rank,
        "SIGKILL of one of two training processes: first the main one, then its child",
        {2, -9},
    ),
    "group": Fault(
        group_signals,
        "SIGTERM, SIGINT, SIGHUP and SIGKILL, in random order, to the whole process group, with two workers",
        {75, 130, -9},
    ),
    "closed pipe": Fault(
        closed_output,
        "the output pipe is closed, then SIGTERM, SIGHUP or no signal; or the log's disk is full, then SIGINT; signals "
        "go to the whole process group, with two workers",
        {75, 130, 0},
    ),
    "two at once": Fault(two_at_once, "two trainings with different seeds start at the same time in one folder", {0}),
}
