from __future__ import annotations

import sys

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread():
    """Small networks run fastest on one thread, and results do not depend on the machine."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_seed(monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)


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
