from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread():
    """Small networks run fastest on one thread, and results do not depend on the machine."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_seed(monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
