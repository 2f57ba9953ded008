"""The allocator keeps freed memory: a measurement of page faults."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

import ganzoo.__main__ as program
from ganzoo.core.allocator import LARGEST

GLIBC = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt")
FAULTS = """
import ctypes, resource, sys
from ganzoo.core.allocator import keep_freed_memory

keep, size = map(int, sys.argv[1:])
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
if keep:
    keep_freed_memory()


def batch():
    blocks = [ctypes.c_void_p(libc.malloc(size)) for _ in range(4)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    for block in blocks:
        libc.free(block)


batch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(2):
    batch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep: bool, size: int, **variables: str) -> int:
    """Page faults while four blocks of `size` bytes are written and freed, twice, after a first time; in a new
    process, as the allocator depends on what a process has done before."""
    usual = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", FAULTS, str(int(keep)), str(size)]
    return int(subprocess.run(command, env={**usual, **variables}, capture_output=True, check=True).stdout)


@pytest.mark.skipif(not GLIBC, reason="other C libraries have no mallopt")
@pytest.mark.parametrize("size", [1 << 20, LARGEST - 4096])
def test_freed_memory_is_kept(size):
    """Unless a variable of the user's says otherwise."""
    kept, returned, asked = faults(True, size), faults(False, size), faults(True, size, MALLOC_MMAP_THRESHOLD_="65536")
    assert kept <= 16, (kept, returned, asked)
    if size > 1 << 20:
        assert min(returned, asked) > 100, "each huge page of 2 MB, at least"


def test_the_program_keeps_freed_memory(monkeypatch):
    calls = []
    monkeypatch.setattr(program, "keep_freed_memory", lambda: calls.append("keep"))
    monkeypatch.setattr(program, "ignore", lambda: calls.append("ignore"))
    monkeypatch.setattr(program.cli, "main", lambda arguments: calls.append(arguments) or 3)
    assert program.main(["list"]) == 3 and calls == [["list"]]
    assert program.main() == 3 and calls[1:] == ["keep", None, "ignore"]
