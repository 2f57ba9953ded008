"""The allocator keeps freed memory: a measurement of page faults."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import resource
import sys

import pytest

import ganzoo.__main__ as program
from ganzoo.core.allocator import LARGEST, keep_freed_memory

GLIBC = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt")


def faults(keep: bool, variable: bool, size: int, results: multiprocessing.Queue) -> None:
    """Page faults while eight blocks of `size` bytes are written and freed, three times, after a first time."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    if variable:
        os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
    if keep:
        keep_freed_memory()

    def batch() -> None:
        blocks = [ctypes.c_void_p(libc.malloc(size)) for _ in range(8)]
        for block in blocks:
            ctypes.memset(block, 1, size)
        for block in blocks:
            libc.free(block)

    batch()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        batch()
    results.put(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)


@pytest.mark.skipif(not GLIBC, reason="other C libraries have no mallopt")
@pytest.mark.parametrize("size", [1 << 20, LARGEST - 4096])
def test_freed_memory_is_kept(size):
    """Unless a variable of the user's says otherwise."""
    counts = []
    for keep, variable in ((True, False), (False, False), (True, True)):
        results = multiprocessing.get_context("fork").Queue()
        process = multiprocessing.get_context("fork").Process(target=faults, args=(keep, variable, size, results))
        process.start()
        counts.append(results.get(timeout=60))
        process.join()
    kept, *returned = counts
    assert kept <= 16, counts
    if size > 1 << 20:
        assert min(returned) > 300, counts  # each huge page of 2 MB, at least


def test_the_program_keeps_freed_memory(monkeypatch):
    calls = []
    monkeypatch.setattr(program, "keep_freed_memory", lambda: calls.append("keep"))
    monkeypatch.setattr(program, "ignore", lambda: calls.append("ignore"))
    monkeypatch.setattr(program.cli, "main", lambda arguments: calls.append(arguments) or 3)
    assert program.main(["list"]) == 3 and calls == [["list"]]
    assert program.main() == 3 and calls[1:] == ["keep", None, "ignore"]
