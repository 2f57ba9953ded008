"""Several processes, started by the command line, by a cluster's environment or by torchrun."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

from ganzoo.checkpoint.sealed import read

STEPS, BATCH, EPOCH = 30, 100, 13  # of Digits' 1,397 training images
RUN = Path("runs/001-gan-digits")
COMMAND = (
    "fit --model GAN --model.hidden 8 --model.d_hidden 4 --data Digits --data.image_size 8 "
    f"--data.batch_size {BATCH} --data.flip true --trainer.max_steps {STEPS} --trainer.log_every_n_steps 5 "
    "--checkpoint.every_n_steps 5 --samples.every_n_steps 1000 --samples.rows 2 --samples.columns 2 "
    "--samples.video_fps 0 --scores.metrics [] --scores.final_n 0 --diagnostics.every_n_steps 0 "
    "--trainer.accelerator cpu --trainer.enable_progress_bar false --trainer.callbacks+ look.Look --ckpt_path last"
)
LOOK = '''
import os, signal, time
import torch, torch.distributed as dist
from lightning.pytorch import Callback


class Look(Callback):
    """Writes down what each process sees; may end it."""

    def on_train_start(self, trainer, model):
        self.rows, self.batch, self.sent = [], {}, []
        data = trainer.train_dataloader.data  # Flipped(ArrayImages)
        whole = data.__getitems__

        def getitems(tickets):
            batch = whole(tickets)
            self.tickets, self.images = list(tickets), batch["image"].clone()
            return batch

        trainer.train_dataloader.data.__getitems__ = getitems
        with_draws = model.with_draws

        def drawn(batch):
            self.z.append((whole := with_draws(batch))["z"].clone())
            return whole

        model.with_draws, self.z = drawn, []
        reduce, broadcast = dist.all_reduce, dist.broadcast

        def count(name, call):
            def counted(*args, **kwargs):
                self.sent.append(name)
                return call(*args, **kwargs)
            return counted

        for name in ("all_reduce", "broadcast", "all_gather", "barrier", "broadcast_object_list", "all_gather_object",
                     "reduce", "scatter", "gather"):
            setattr(dist, name, count(name, getattr(dist, name)))

    def on_train_batch_start(self, trainer, model, batch, batch_idx):
        self.z.clear()

    def on_train_batch_end(self, trainer, model, *_):
        row = {"step": trainer.global_step, "tickets": self.tickets, "images": self.images, "z": list(self.z),
               "sent": list(self.sent)}
        torch.save(row, f"look-{trainer.world_size}-{trainer.global_rank}-{trainer.global_step:03d}.pt")
        self.sent.clear()
        if os.environ.get("END") == f"{trainer.global_rank} {trainer.global_step}":
            with open("ended", "w") as file:
                file.write(str(time.time()))
            number = int(os.environ["SIGNAL"])
            os.killpg(os.getpgid(0), number) if number == signal.SIGINT else os.kill(os.getpid(), number)
'''


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    Path("look.py").write_text(LOOK)


def start(options: str = "", before: tuple[str, ...] = ("-m", "ganzoo"), **environment: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *before, *shlex.split(f"{COMMAND} {options}")],
        env=os.environ | {key: str(value) for key, value in environment.items()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def end(*processes: subprocess.Popen, seconds: float = 120) -> list[tuple[int, str]]:
    """Exit codes and output; no process may hang or print a traceback."""
    ended = []
    try:
        for process in processes:
            text, _ = process.communicate(timeout=seconds)
            assert "Traceback" not in text, text
            ended.append((process.returncode, text))
    finally:
        for process in processes:
            try:
                os.killpg(process.pid, signal.SIGKILL)  # processes that it may have left
            except ProcessLookupError:
                continue
    return ended


def run(options: str = "", **environment: object) -> tuple[int, str]:
    return end(start(options, **environment))[0]


def seen(world: int, steps: range = range(1, STEPS + 1)) -> list[dict]:
    """The batches and latents of each step, concatenated in the order of the ranks."""
    found = []
    for step in steps:
        ranks = [torch.load(f"look-{world}-{rank}-{step:03d}.pt") for rank in range(world)]
        joined = {"tickets": sum((row["tickets"] for row in ranks), [])}
        joined["images"] = torch.cat([row["images"] for row in ranks])
        joined["z"] = [torch.cat(parts) for parts in zip(*(row["z"] for row in ranks), strict=True)]
        found.append(joined)
    return found


def assert_same(a: list[dict], b: list[dict]) -> None:
    for one, other in zip(a, b, strict=True):
        assert one["tickets"] == other["tickets"]
        assert torch.equal(one["images"], other["images"]), "flips"
        assert len(one["z"]) == len(other["z"]) == 2
        assert all(torch.equal(x, y) for x, y in zip(one["z"], other["z"], strict=True))


def weights() -> dict[str, torch.Tensor]:
    return read(RUN / "checkpoints" / "last.ckpt")["state_dict"]


def steps_logged() -> list[int]:
    return [json.loads(line)["step"] for line in (RUN / "metrics.jsonl").read_text().splitlines()]


def port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


def assert_each_image_once(world: int) -> None:
    """In one epoch, with equal shares for all ranks."""
    rows = [[torch.load(f"look-{world}-{rank}-{step:03d}.pt") for step in range(1, EPOCH + 1)] for rank in range(world)]
    shares = [list(itertools.chain(*(row["tickets"] for row in mine))) for mine in rows]
    assert {len(share) for share in shares} == {EPOCH * BATCH // world}
    assert set(Counter(itertools.chain(*shares)).values()) == {1}


def test_two_processes_share_the_data_and_send_one_message_per_update():
    """By `--trainer.devices 2` alone; two messages a step, as D and G are both updated."""
    code, text = run("--trainer.devices 2")
    assert code == 0 and "2 x cpu" in text and "Done at step 30" in text
    assert_each_image_once(2)
    for rank, step in itertools.product(range(2), range(1, STEPS + 1)):
        sent = torch.load(f"look-2-{rank}-{step:03d}.pt")["sent"]
        if step % 5 > 1:
            assert sent == ["all_reduce"] * 2, f"step {step}: {sent}"
        else:  # here means are logged, the state is saved, and the processes agree on whether to stop
            assert set(sent) <= {"all_reduce", "barrier", "all_gather_object"}, f"step {step}: {sent}"
    assert steps_logged() == list(range(5, STEPS + 1, 5))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["environment", "torchrun"])
def test_two_nodes_train_bit_identical_to_one_node_of_two_processes(how):
    """Both nodes are on one machine and told apart by their node ranks."""
    assert run("--trainer.devices 2")[0] == 0
    expected, two = weights(), seen(2)
    RUN.rename("one-node")
    options, place = "--trainer.num_nodes 2 --trainer.devices 1", {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port()}
    if how == "environment":
        nodes = [start(options, **place, NODE_RANK=rank) for rank in range(2)]
    else:
        torchrun = "-m torch.distributed.run --nnodes 2 --nproc-per-node 1 --master-addr 127.0.0.1 --master-port"
        before = shlex.split(f"{torchrun} {place['MASTER_PORT']}")
        nodes = [start(options, before=(*before, "--node-rank", str(rank), "-m", "ganzoo")) for rank in range(2)]
    ended = end(*nodes)
    assert [code for code, _ in ended] == [0, 0], ended
    assert_each_image_once(2)
    assert_same(seen(2), two)
    again = weights()
    assert all(torch.equal(value, again[key]) for key, value in expected.items())
    assert [path.name for path in Path("runs").iterdir()] == [RUN.name]


@pytest.mark.slow
def test_batches_flips_and_latents_do_not_depend_on_the_number_of_processes():
    """A run resumed with 1, 2 and again 1 processes is compared with a run of one."""
    assert run()[0] == 0
    whole = seen(1)
    for file in Path().glob("look-1-*"):
        file.unlink()
    RUN.rename("whole")
    assert run("--trainer.max_steps 11")[0] == 0
    go_on = f"--ckpt_path {RUN}"
    assert run(f"--trainer.devices 2 --trainer.max_steps 22 {go_on}")[0] == 0
    assert run(go_on)[0] == 0
    assert_same(whole, [*seen(1, range(1, 12)), *seen(2, range(12, 23)), *seen(1, range(23, STEPS + 1))])
    assert steps_logged() == list(range(5, STEPS + 1, 5))


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 75), (signal.SIGINT, 130), (signal.SIGKILL, 2)])
def test_a_signal_to_one_process_stops_both_and_the_run_can_be_resumed(number, expected, rank):
    """SIGTERM or SIGKILL to one of two processes, or Ctrl-C to both: no process hangs, and the same command resumes
    the run.
    """
    code, text = run("--trainer.devices 2", END=f"{rank} 12", SIGNAL=int(number))
    assert time.time() - float(Path("ended").read_text()) < 60
    if number == signal.SIGKILL:
        assert code == (-9 if rank == 0 else 2)
        assert text.count("another process has died, or cannot be reached") == 1, text
    else:
        assert code == expected, text
        assert (RUN / "checkpoints" / "last.ckpt").exists() and "Stopped at step 15" in text
        assert text.count("stopping at the next step divisible by 5") == (2 if number == signal.SIGINT else 1), text
    stopped = 10 if number == signal.SIGKILL else 15
    whole = seen(2, range(1, stopped + 1))
    code, text = run("--trainer.devices 2")
    assert code == 0, text
    assert_same(whole, seen(2, range(1, stopped + 1)))
    assert steps_logged() == list(range(5, STEPS + 1, 5))
