from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
from pathlib import Path

import pytest
import torch

LONG = ["test_hostile.py", "test_configs.py", "test_readme.py", "test_contract.py", "test_theory.py", "test_turns.py"]
PAGE = 4096  # bytes
ROOM = 64 << 20  # bytes that tests may add to the process before what they left is looked for
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def pytest_collection_modifyitems(items):
    """Files that take long come first: at the end, the two processes then wait for each other for seconds only."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def pytest_collection_finish():
    """What is imported by now stays: no later collection need look at it, which would take it half a second."""
    gc.collect()
    gc.freeze()


def resident() -> int:
    """Bytes of memory that the process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


held = 0  # bytes, after memory was last given back


def give_back():
    """A trainer and its model are a cycle, and what was freed in small pieces, the allocator keeps."""
    global held
    if LIBC is not None:
        gc.collect()
        LIBC.malloc_trim(0)
        held = resident()


@pytest.fixture(autouse=True, scope="module")
def _memory_stays_flat(request):
    yield
    for value in vars(request.module).values():
        if hasattr(value, "cache_clear") and value.__module__ == request.module.__name__:
            value.cache_clear()  # default models
    give_back()  # what fixtures of the module held, too


@pytest.fixture(autouse=True)
def _memory_stays_flat_within_a_module():
    yield
    if LIBC is not None and resident() > held + ROOM:
        give_back()


@pytest.fixture(autouse=True)
def _one_thread():
    """Small networks run fastest on one thread, and results do not depend on the machine."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_seed(monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)


@pytest.fixture(autouse=True, scope="session")
def _sigterm_ends_the_tests():
    """It would end one training, and the tests would go on. In forks, trainings have their handlers."""
    here, install = os.getpid(), signal.signal

    def installed(number, handler):
        if number == signal.SIGTERM and os.getpid() == here:
            return signal.getsignal(number)
        return install(number, handler)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signal, "signal", installed)
        yield


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory):
    """Statistics of real images are kept for the tests alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _own_files_are_forgotten():
    """Tests write a `my_gan.py` each."""
    yield
    sys.modules.pop("my_gan", None)
