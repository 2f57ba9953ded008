from __future__ import annotations

import ctypes
import functools
import gc
import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from lightning.fabric.utilities import registry
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

LONG = ["test_hostile.py", "test_configs.py", "test_readme.py", "test_contract.py", "test_theory.py", "test_turns.py"]
PAGE = 4096  # bytes
ROOM = 64 << 20  # bytes by which the process may grow before memory is freed
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def pytest_collection_modifyitems(items):
    """Runs slow files first, so that both processes finish within seconds of each other."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def pytest_collection_finish():
    """Excludes everything imported so far from later garbage collections, which saves half a second each."""
    gc.collect()
    gc.freeze()


def resident() -> int:
    """Resident memory of the process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


held = 0  # bytes after memory was last freed


def give_back():
    """Frees memory: trainers and models form reference cycles, and the allocator keeps small freed blocks."""
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
    give_back()  # including that of the module's fixtures
    gc.freeze()  # what survives a module lives on, so later collections need not visit it


@pytest.fixture(autouse=True)
def _memory_stays_flat_within_a_module():
    yield
    if LIBC is not None and resident() > held + ROOM:
        give_back()


@pytest.fixture(autouse=True)
def _one_thread():
    """Small networks run fastest on one thread, and results do not depend on the number of cores."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_seed(monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)


@pytest.fixture(autouse=True, scope="session")
def _sigterm_ends_the_tests():
    """Keeps trainings from handling SIGTERM, which would end only one of them; forks install handlers as usual."""
    here, install = os.getpid(), signal.signal

    def installed(number, handler):
        if number == signal.SIGTERM and os.getpid() == here:
            return signal.getsignal(number)
        return install(number, handler)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signal, "signal", installed)
        yield


@pytest.fixture(autouse=True, scope="session")
def _workers_are_not_waited_for():
    """A loader that ends as garbage, as after an error, does not reach its workers, and torch waits 5 s for each; as
    long it may take to see that one was killed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)
        patch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.2,))
        yield


@pytest.fixture(autouse=True, scope="session")
def _packages_are_searched_once():
    """Each of thousands of trainers reads the metadata of all installed packages, which takes 10 ms."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "entry_points", functools.cache(registry.entry_points))
        yield


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory):
    """The tests have their own cache of statistics of real images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _own_files_are_forgotten():
    """Several tests write and import their own `my_gan.py`."""
    yield
    sys.modules.pop("my_gan", None)
