"""Checkpoint files: whole or not there, and noticed if a byte has changed."""

from __future__ import annotations

import errno
import io
import multiprocessing
import os
import time
import zipfile
from pathlib import Path

import pytest
import torch

import ganzoo
from ganzoo.checkpoint import sealed as checkpoints
from ganzoo.checkpoint.sealed import CheckpointError, CheckpointIO, in_order, intact, newest, read
from ganzoo.core import atomic
from ganzoo.core.atomic import write_atomically
from ganzoo.testing import fit
from tests.variants import small


def write(path, step=1):
    content = {"ganzoo": {"variant": "x"}, "global_step": step, "w": torch.arange(4.0)}
    CheckpointIO().save_checkpoint(content, path)
    return path


def test_torch_reads_a_sealed_file_as_before(tmp_path):
    path = write(tmp_path / "a.ckpt")
    for mmap in (True, False):
        assert torch.load(path, weights_only=True, mmap=mmap)["w"].tolist() == [0, 1, 2, 3]
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None and archive.comment.startswith(b"ganzoo sha256 ")
    assert intact(path) and read(path)["w"].tolist() == [0, 1, 2, 3]


def test_every_flipped_byte_is_noticed(tmp_path):
    path = write(tmp_path / "a.ckpt")
    whole = path.read_bytes()
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :])
        assert not intact(path), i
        if i % 40 == 0 or i > len(whole) - 100:
            with pytest.raises(CheckpointError, match="damaged|no checkpoint"):
                read(path)


@pytest.mark.parametrize("flag", [b"sealed", b"ganzoo sha256"])
def test_a_damaged_seal_is_no_missing_one(flag, tmp_path):
    path = write(tmp_path / "a.ckpt")
    path.write_bytes(path.read_bytes().replace(flag, flag[:-1] + b"_"))
    with pytest.raises(CheckpointError, match="damaged"):
        read(path)


def test_truncated_files_are_noticed(tmp_path):
    path = write(tmp_path / "a.ckpt")
    whole = path.read_bytes()
    for n in (0, 1, 21, len(whole) // 2, len(whole) - 78, len(whole) - 1):
        path.write_bytes(whole[:n])
        assert not intact(path)
        with pytest.raises(CheckpointError):
            read(path)


def test_lightnings_own_files_are_read_without_a_seal(tmp_path):
    torch.save({"ganzoo": {"variant": "x"}}, tmp_path / "a.ckpt")
    assert read(tmp_path / "a.ckpt")["ganzoo"] == {"variant": "x"}
    assert not intact(tmp_path / "a.ckpt")


def test_any_trainer_writes_sealed_files(tmp_path):
    torch.manual_seed(0)
    fit(ganzoo.DCGAN(**small("DCGAN")), steps=1).save_checkpoint(tmp_path / "a.ckpt")
    assert intact(tmp_path / "a.ckpt")
    path = tmp_path / "a.ckpt"
    path.write_bytes(path.read_bytes()[:-1] + b"0" if path.read_bytes()[-1:] != b"0" else path.read_bytes()[:-1] + b"1")
    with pytest.raises(CheckpointError, match="its sha256 is not what was written"):
        fit(ganzoo.DCGAN(**small("DCGAN")), steps=2, ckpt_path=path)


def test_the_one_before_a_damaged_one_is_offered(tmp_path):
    first, second, third = (write(tmp_path / f"{step:08d}.ckpt", step) for step in (1, 2, 3))
    write(tmp_path / "best-fid.ckpt", 3)
    assert newest(tmp_path) == third
    for path in (third, second):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=f"the one before it is whole: {first}$"):
        read(third)
    assert newest(tmp_path) == first
    first.unlink()
    assert newest(tmp_path) == tmp_path / "best-fid.ckpt", "better than to start anew"
    (tmp_path / "best-fid.ckpt").unlink()
    with pytest.raises(CheckpointError, match="no whole one before it"):
        read(second)
    assert newest(tmp_path) is None


def test_order_is_that_of_the_steps(tmp_path):
    for name, step in {"00000010": 10, "kept-00000009": 9, "last": 10, "best-fid": 20, "00000002": 2}.items():
        write(tmp_path / f"{name}.ckpt", step)
    assert [p.stem for p in in_order(tmp_path)] == ["best-fid", "00000002", "kept-00000009", "00000010", "last"]


# Writing


def write_on_and_on(path, said):
    """In a process of its own: one checkpoint after the other, each told when it is there."""
    with os.fdopen(said, "w") as out:
        for step in range(10**6):
            content = {"ganzoo": {}, "step": step, "w": torch.full((2**18,), float(step))}
            CheckpointIO().save_checkpoint(content, path)
            print(step, file=out, flush=True)


def test_a_process_killed_while_it_saves_leaves_a_whole_file(tmp_path):
    path = tmp_path / "a.ckpt"
    for n in range(10):
        reader, said = os.pipe()
        process = multiprocessing.get_context("fork").Process(target=write_on_and_on, args=(path, said))
        process.start()
        os.close(said)
        with os.fdopen(reader) as told:
            first = told.readline()
            time.sleep(0.003 * n)
            process.kill()
            done = int((first + told.read()).split()[-1])
        process.join()
        content = read(path)
        assert content["step"] in (done, done + 1) and bool((content["w"] == content["step"]).all())


@pytest.mark.parametrize("failing", ["write", "fsync", "replace"])
def test_what_cannot_be_written_leaves_what_was_there(failing, tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"before")

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    if failing != "write":
        monkeypatch.setattr(*(((atomic.os, "fsync", fail)) if failing == "fsync" else (Path, "replace", fail)))
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, fail if failing == "write" else lambda file: file.write(b"after"))
    assert path.read_bytes() == b"before" and os.listdir(tmp_path) == ["a"]


def test_a_disk_is_full_wherever_it_fills_up(tmp_path, monkeypatch):
    """torch raises errors of its own in place of the file's."""

    class Small(io.BytesIO):
        def write(self, data):
            if self.tell() + len(data) > self.size:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    whole = write(tmp_path / "a.ckpt").stat().st_size
    monkeypatch.setattr(checkpoints, "write_atomically", lambda path, write: write(Small()))
    for Small.size in range(0, whole, 50):
        with pytest.raises(OSError, match="No space"):
            write(tmp_path / "a.ckpt")


def test_the_file_is_written_beside_its_place(tmp_path, monkeypatch):
    """Not in the system's folder for such things, which may be another file system."""
    monkeypatch.setenv("TMPDIR", "/nowhere")
    seen = []
    write_atomically(tmp_path / "a", lambda file: seen.extend(os.listdir(tmp_path)))
    assert seen == ["a.partial"] and os.listdir(tmp_path) == ["a"]


def test_the_disk_has_the_bytes_before_the_name(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(atomic.os, "fsync", lambda _: calls.append(os.listdir(tmp_path)))
    write_atomically(tmp_path / "a", lambda file: file.write(b"x"))
    assert calls == [["a.partial"], ["a"]], "the bytes, then the folder"


def test_nothing_is_loaded_of_a_file_whose_seal_is_broken(tmp_path, monkeypatch):
    path = write(tmp_path / "00000001.ckpt")
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    monkeypatch.setattr(checkpoints.torch, "load", lambda *_, **__: pytest.fail("it was unpickled"))
    with pytest.raises(CheckpointError, match="sha256"):
        read(path)
