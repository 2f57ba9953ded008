"""The order of batches depends on seed and epoch only, not on processes, workers or interruptions."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import signal
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from ganzoo.cli.errors import mid_run
from ganzoo.core import signals
from ganzoo.core.random import mix
from ganzoo.core.types import Batch
from ganzoo.data import ArrayImages, Digits, Flipped, GANDataModule, Images, Loader, SequentialLoader, order


class Numbers(Images):
    """A data set whose labels are the tickets."""

    def __init__(self, size: int = 23) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitems__(self, tickets: Sequence[int]) -> Batch:
        return Batch(image=torch.zeros(len(tickets), 1, 1, 1), label=torch.tensor(tickets))


def tickets(loader: Any) -> list[list[int]]:
    return [batch["label"].tolist() for batch in loader]


def epochs(loader: Loader, n: int) -> list[list[int]]:
    seen = []
    for epoch in range(n):
        loader.set_epoch(epoch)
        seen += tickets(loader)
    return seen


def test_order_is_a_function_of_seed_and_epoch() -> None:
    loader = Loader(Numbers(), 4, seed=3)
    assert len(loader) == 5
    first, second = tickets(loader), tickets(loader)  # without set_epoch, each pass is the next epoch
    again = Loader(Numbers(), 4, seed=3)
    again.set_epoch(1)
    assert tickets(again) == second
    again.set_epoch(0)
    assert tickets(again) == first
    assert tickets(Loader(Numbers(), 4, seed=4)) != first
    flat = [t for batch in second for t in batch]
    assert len(set(flat)) == 20 and all(23 <= t < 46 for t in flat) and [t % 23 for t in flat] != sum(first, [])


def test_an_abandoned_epoch_restarts() -> None:
    loader = Loader(Numbers(), 4)
    assert next(iter(loader))["label"].tolist() == next(iter(loader))["label"].tolist()


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_partition_the_global_batches(world_size: int) -> None:
    ranks = [epochs(Loader(Numbers(), 4, seed=1, rank=r, world_size=world_size), 2) for r in range(world_size)]
    assert [sum(parts, []) for parts in zip(*ranks, strict=True)] == epochs(Loader(Numbers(), 4, seed=1), 2)


def test_workers_change_neither_the_order_nor_the_global_random_state() -> None:
    state, python = torch.get_rng_state(), random.getstate()
    assert epochs(Loader(Numbers(), 4, num_workers=2), 2) == epochs(Loader(Numbers(), 4), 2)
    assert torch.equal(torch.get_rng_state(), state) and random.getstate() == python


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_after_every_batch(workers: int) -> None:
    whole = epochs(Loader(Numbers(), 4, num_workers=workers), 2)
    first, loader = Loader(Numbers(), 4, num_workers=workers), Loader(Numbers(), 4, num_workers=workers)
    states = []
    for epoch in range(2):
        first.set_epoch(epoch)
        states += [first.state_dict() for _ in first]
    assert states == [{"epoch": e, "batch": b} for e in range(2) for b in range(1, 6)]
    for done, state in enumerate(states, 1):
        loader.load_state_dict(state)
        iterator = iter(loader)  # Lightning's order of calls: load, iter, set_epoch, next
        loader.set_epoch(state["epoch"])
        if state["batch"] < len(loader):
            assert [batch["label"].tolist() for batch in iterator] == whole[done : 5 * (state["epoch"] + 1)]
            assert loader.state_dict() == {"epoch": state["epoch"], "batch": 5}
        loader.set_epoch(state["epoch"] + 1)
        if state["epoch"] == 0:
            assert tickets(loader) == whole[5:]


def test_second_resume_in_the_same_epoch() -> None:
    whole, state = tickets(Loader(Numbers(), 4)), {"epoch": 0, "batch": 1}
    for done in (1, 3):
        loader = Loader(Numbers(), 4)
        loader.load_state_dict(state)
        assert [b["label"].tolist() for b in itertools.islice(loader, 2)] == whole[done : done + 2]
        state = loader.state_dict()
        assert state == {"epoch": 0, "batch": done + 2}


class Asked(Numbers):
    """Labels are the reading process's disposition of each stop signal: 1 if ignored, plus 2 if blocked."""

    def __getitems__(self, tickets: Any) -> Any:
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        how = [(signal.getsignal(n) is signal.SIG_IGN) + 2 * (n in blocked) for n in signals.CODES]
        return {"label": torch.tensor(how)}


def test_workers_ignore_the_signals_that_stop_a_run() -> None:
    """The signals are ignored, and blocked from the start of each worker."""
    loader, others = Loader(Asked(), 4, num_workers=1), multiprocessing.active_children()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.getsignal(signal.SIGCHLD)
    batches = iter(loader)
    assert next(batches)["label"].tolist() == [3, 3, 3]
    assert before == (signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.getsignal(signal.SIGCHLD))
    for number in signals.CODES:
        for worker in {*multiprocessing.active_children()} - {*others}:
            os.kill(worker.pid or 0, number)
    assert len(list(batches)) == 4


def test_a_killed_worker_is_reported_at_the_next_batch(request: pytest.FixtureRequest) -> None:
    """Not during a step, where torch's signal handler would raise."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a DataLoader of another test may have left torch's
    request.addfinalizer(lambda: signal.signal(signal.SIGCHLD, before))
    others, batches = multiprocessing.active_children(), iter(Loader(Numbers(), 4, num_workers=1))
    next(batches)
    (worker,) = {*multiprocessing.active_children()} - {*others}
    worker.kill()
    os.waitid(os.P_PID, worker.pid or 0, os.WEXITED | os.WNOWAIT)
    time.sleep(0.01)  # time for a signal handler to run
    with pytest.raises(RuntimeError, match=r"is killed by signal: Killed") as error:
        next(batches)
    assert mid_run(error.value) is not None


def test_a_process_with_waiting_workers_exits() -> None:
    def child() -> None:
        global kept
        kept = iter(Loader(Numbers(), 4, num_workers=1))
        next(kept)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    hangs = process.is_alive()
    process.kill()
    assert not hangs


def test_bad_batch_sizes_are_refused() -> None:
    with pytest.raises(
        ValueError, match="cannot be divided equally among 3 processes: choose a multiple of 3, for example 9"
    ):
        Loader(Numbers(), 8, world_size=3)
    with pytest.raises(ValueError, match="exceeds the 23 training images.*lower batch_size to 22"):
        Loader(Numbers(), 24, world_size=2)
    with pytest.raises(ValueError, match="would have no batch: add images"):
        Loader(Numbers(), 24, world_size=24)


@pytest.mark.parametrize("workers", [0, 2])
def test_sequential_loaders_of_all_ranks_cover_the_data(workers: int) -> None:
    parts = [SequentialLoader(Numbers(), 4, rank=r, world_size=3, num_workers=workers) for r in range(3)]
    seen = [tickets(part) for part in parts]
    assert [len(part) for part in parts] == [len(batches) for batches in seen]
    assert sum(sum(seen, []), []) == list(range(23))
    assert tickets(parts[0]) == seen[0]


def test_flip_is_a_function_of_seed_and_ticket() -> None:
    images = torch.arange(23 * 4, dtype=torch.uint8).reshape(23, 1, 1, 4)
    data = Flipped(ArrayImages(images), seed=5)
    for chosen in ([0, 1, 2, 3], [3, 2, 26, 49]):
        for image, t in zip(data.__getitems__(chosen)["image"], chosen, strict=True):
            assert torch.equal(image, images[t % 23].flip(-1) if mix(5, t) & 1 else images[t % 23])
    coins = [[mix(5, 23 * epoch + i) & 1 for i in range(23)] for epoch in range(2)]
    assert coins[0] != coins[1] and 0 < sum(coins[0]) < 23


class NumbersModule(GANDataModule):
    image_size = channels = 1
    num_classes = None

    def make_dataset(self, split: str) -> Images:
        return Numbers()


class Recorder(LightningModule):
    """Manual optimization of one weight; records the tickets of its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[list[int]] = []

    def on_train_start(self) -> None:
        # Lightning 2.6 resumed from the last batch of an epoch does not count the next epoch as started;
        # checkpoints of that epoch would be marked as taken at its end.
        loop = self.trainer.fit_loop
        if loop.restarted_mid_epoch and loop.epoch_progress.current.completed == loop.epoch_progress.current.ready:
            loop.reset_restart_stage()

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        self.seen.append(batch["label"].tolist())
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.weight * batch["label"].sum())
        optimizer.step()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 1e-4)


def train(folder: Path, workers: int, resume: Path | None = None, **checkpoint: Any) -> Recorder:
    model = Recorder()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(
            max_epochs=3,
            logger=False,
            accelerator="cpu",
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            callbacks=[ModelCheckpoint(folder, "{step}", save_top_k=-1, **checkpoint)],
        )
        trainer.fit(model, NumbersModule(batch_size=4, num_workers=workers, seed=1), ckpt_path=resume)
    return model


@pytest.mark.parametrize("workers", [0, 2])
def test_overfit_batches_repeats_the_same_batches(workers: int) -> None:
    first = epochs(Loader(Numbers(), 4, seed=1), 1)
    model = Recorder()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = Trainer(max_epochs=3, overfit_batches=2, accelerator="cpu", enable_model_summary=False, **quiet)  # type: ignore[arg-type]
        trainer.fit(model, NumbersModule(batch_size=4, num_workers=workers, seed=1))
    assert model.seen == 3 * first[:2]


@pytest.mark.parametrize("workers", [0, 2])
def test_trainer_resumes_exactly(tmp_path: Path, workers: int) -> None:
    whole = train(tmp_path, workers, every_n_train_steps=1)
    assert whole.seen == epochs(Loader(Numbers(), 4, seed=1), 3)
    for step in (2, 5, 8, 10) if workers == 0 else (5, 8):  # mid-epoch, and the last batch of an epoch
        again = train(tmp_path / "second", workers, tmp_path / f"step={step}.ckpt", every_n_train_steps=1)
        assert again.seen == whole.seen[step:], step
        assert torch.equal(again.weight, whole.weight)
    third = train(tmp_path / "third", workers, tmp_path / "second/step=9.ckpt", every_n_train_steps=1)
    assert third.seen == whole.seen[9:]  # the second resume in one epoch


@pytest.mark.parametrize("when", [{"save_on_train_epoch_end": True}, {"save_on_train_epoch_end": False}])
def test_trainer_resumes_after_an_epoch(tmp_path: Path, when: dict[str, Any]) -> None:
    whole = train(tmp_path, 0, **when)
    for step in (5, 10):
        assert train(tmp_path / "second", 0, tmp_path / f"step={step}.ckpt", **when).seen == whole.seen[step:]


def test_data_module_scales_bytes_on_the_device() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8)
    batch = {"image": pixels, "source": torch.ones(3), "label": torch.arange(3), "labelled": (pixels, torch.arange(3))}
    scaled = NumbersModule().on_after_batch_transfer(batch, 0)
    expected = torch.tensor([-1, -0.6, 1])
    torch.testing.assert_close(scaled["image"], expected)
    torch.testing.assert_close(scaled["labelled"][0], expected)
    assert isinstance(scaled["source"], Tensor) and torch.equal(scaled["source"], torch.ones(3))
    assert torch.equal(scaled["label"], torch.arange(3))


def test_the_order_does_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tickets(Loader(Numbers(), 4))
    monkeypatch.setattr(order, "BLOCK", 2)
    assert tickets(Loader(Numbers(), 4)) == whole
    loader = Loader(Numbers(), 4)
    loader.load_state_dict({"epoch": 0, "batch": 1})
    assert tickets(loader) == whole[1:]


def test_batches_are_pinned_for_a_gpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for a CPU beside a GPU, which may be in use."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self + 1)
    data = Digits(batch_size=10, num_workers=0)
    plain = next(iter(data.train_dataloader()))["image"]
    for device, added in (("cpu", 0), ("cuda", 1)):
        strategy = SimpleNamespace(root_device=torch.device(device))
        data.trainer = SimpleNamespace(global_rank=0, world_size=1, overfit_batches=0, strategy=strategy)
        assert torch.equal(next(iter(data.train_dataloader()))["image"], plain + added)
        assert torch.equal(next(iter(data.val_dataloader()))["image"], data.dataset("val").images[:10] + added)


def test_fewer_held_out_images_than_processes_are_refused() -> None:
    """Lightning would stop some processes with an error of its own, and leave the others waiting."""
    data = Digits(image_size=8, batch_size=600)
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    data.trainer = SimpleNamespace(global_rank=0, world_size=300, overfit_batches=0, strategy=strategy)  # type: ignore[assignment]
    with pytest.raises(ValueError, match="val has 200 images, fewer than the 300 processes: use more images"):
        data.val_dataloader()
