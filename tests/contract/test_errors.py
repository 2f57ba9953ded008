"""Errors during training: one line for those that the user can fix, a traceback for bugs."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import warnings
from multiprocessing import resource_sharer
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset

from ganzoo.cli import main
from ganzoo.cli.errors import mid_run
from ganzoo.data import ImageFolder
from tests.unit.test_folder import fill, truncate


def caught(call):
    with pytest.raises(BaseException) as error:
        call()
    return error.value


class Failing(Dataset):
    """A dataset that calls `act` when it is read."""

    def __init__(self, act):
        self.act = act

    def __len__(self):
        return 4

    def __getitem__(self, i):
        self.act()


def in_worker(act):
    return caught(lambda: list(DataLoader(Failing(act), num_workers=1)))


def full_disk():
    raise OSError(errno.ENOSPC, "No space left on device", "cache/00.bin")


def missing_file():
    Path("/nowhere/a.bin").read_bytes()


def slip():
    return {}["key"]


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def broken(tmp_path):
    """A folder with a truncated image, and that file."""
    folder = fill(tmp_path / "pictures", 12)
    truncate(folder / "07.png")
    return folder, folder / "07.png"


@pytest.mark.parametrize("workers", [0, 1])
def test_an_undecodable_image_is_named(broken, workers):
    folder, file = broken
    data = ImageFolder(str(folder), image_size=8, batch_size=12, num_workers=workers, val_fraction=0.0)
    line = mid_run(caught(lambda: list(data.train_dataloader())))
    assert line.startswith(f"{file} cannot be decoded: ")
    assert line.endswith("Repair or remove it, or set data.corrupt to skip")
    assert "\n" not in line


def test_a_killed_worker_is_reported():
    line = mid_run(in_worker(kill))
    assert "a data-loading process" in line and line.endswith("lower data.num_workers, or set it to 0")


def test_a_worker_killed_during_the_last_batch_is_reported():
    """Lightning then raises that the loader was never started; the worker's death is the context."""
    error = RuntimeError("Please call `iter(combined_loader)` first.")
    assert mid_run(error) is None
    error.__context__ = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
    assert mid_run(error).startswith("a data-loading process is killed by signal: Killed")


def test_a_worker_that_died_with_unfetched_batches_is_reported(tmp_path):
    error = caught(lambda: resource_sharer._ResourceSharer.get_connection((str(tmp_path / "gone"), 1)))
    assert mid_run(error).startswith("a data-loading process ended")


@pytest.mark.parametrize(
    "ask",
    [lambda: torch.empty(2**50), lambda: bytearray(2**46), lambda: np.empty(2**46)],
    ids=["torch", "Python", "numpy"],
)
def test_out_of_memory_is_reported_with_its_cure(ask):
    for error in (caught(ask), in_worker(ask)):
        line = mid_run(error)
        assert line.startswith("out of memory")
        assert line.endswith("; lower data.batch_size, raise model.microbatches, or make the model smaller")
        assert "\n" not in line and "enforce" not in line and len(line) < 250


def test_out_of_memory_on_a_gpu_is_reported():
    text = (
        "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1 is free."
    )
    line = mid_run(torch.OutOfMemoryError(text))
    assert line.startswith("out of memory (CUDA out of memory); lower data.batch_size")
    line = mid_run(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert line.startswith("out of memory")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's disk that is always full")
def test_a_full_disk_is_reported():
    def text():
        with open("/dev/full", "w") as file:
            file.write("x" * 10**6)

    for call in (text, lambda: torch.save(torch.zeros(10**6), "/dev/full"), full_disk):
        line = mid_run(caught(call))
        assert line.startswith("the disk is full, or its quota is exhausted (") and line.endswith("); free some space")
    assert mid_run(in_worker(full_disk)).startswith("the disk is full")
    too_large = mid_run(OSError(errno.EFBIG, "File too large"))
    assert too_large.startswith("the disk is full, or its quota is exhausted ([Errno")


def test_a_missing_file_is_reported():
    for error in (caught(missing_file), in_worker(missing_file)):
        assert mid_run(error).startswith("/nowhere/a.bin: No such file or directory; ")


def test_full_shared_memory_is_reported():
    text = "unable to write to file </torch_123_456_7>: No space left on device (28)"
    assert "set it to 0" in mid_run(RuntimeError(text)) and "/dev/shm" in mid_run(RuntimeError(text))


def one_of_two(rank, store, said):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    dist.all_reduce(torch.zeros(3))
    if rank == 1:
        os._exit(1)
    try:
        while True:
            dist.all_reduce(torch.zeros(3))
    except Exception as error:
        said.send(mid_run(error))
    os._exit(0)


def test_the_death_of_another_rank_is_reported(tmp_path):
    context = multiprocessing.get_context("fork")
    heard, said = context.Pipe(duplex=False)
    processes = [context.Process(target=one_of_two, args=(rank, tmp_path / "store", said)) for rank in range(2)]
    for process in processes:
        process.start()
    assert heard.poll(60)
    assert heard.recv().startswith("another process has died, or cannot be reached; see its message above")
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 1]


@pytest.mark.parametrize(
    "error", [KeyError("key"), RuntimeError("shapes differ"), ZeroDivisionError("mine"), OSError()]
)
def test_other_errors_have_no_one_line_message(error):
    assert mid_run(error) is None


def test_other_errors_in_a_worker_have_no_one_line_message():
    assert mid_run(in_worker(slip)) is None


def test_warnings_are_one_line(monkeypatch):
    """Without the file and line of a library's code."""
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    main(["help"])
    assert warnings.formatwarning("skipped:\n  a.png", UserWarning, "code.py", 3) == "ganzoo: warning: skipped: a.png\n"
