"""Checkpoint files: atomic writes, and detection of changed bytes."""

from __future__ import annotations

import errno
import io
import multiprocessing
import os
import re
import time
import zipfile
from pathlib import Path

import pytest
import torch

import ganzoo
from ganzoo.checkpoint import sealed as checkpoints
from ganzoo.checkpoint.bounds import foreign_path
from ganzoo.checkpoint.sealed import CheckpointError, CheckpointIO, in_order, intact, newest, read
from ganzoo.core import atomic
from ganzoo.core.atomic import write_atomically
from ganzoo.testing import fit
from tests.variants import small


def write(path, step=1):
    content = {"ganzoo": {"variant": "x"}, "global_step": step, "w": torch.arange(4.0)}
    CheckpointIO().save_checkpoint(content, path)
    return path


def test_torch_load_reads_a_sealed_file(tmp_path):
    path = write(tmp_path / "a.ckpt")
    for mmap in (True, False):
        assert torch.load(path, weights_only=True, mmap=mmap)["w"].tolist() == [0, 1, 2, 3]
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None and archive.comment.startswith(b"ganzoo sha256 ")
    assert intact(path) and read(path)["w"].tolist() == [0, 1, 2, 3]


def test_a_flipped_bit_in_any_byte_is_detected(tmp_path):
    path = write(tmp_path / "a.ckpt")
    whole = path.read_bytes()
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :])
        assert not intact(path), i
        if i % 40 == 0 or i > len(whole) - 100:
            with pytest.raises(CheckpointError, match="damaged|no checkpoint"):
                read(path)


@pytest.mark.parametrize("flag", [b"sealed", b"ganzoo sha256"])
def test_a_damaged_seal_is_not_taken_for_a_missing_one(flag, tmp_path):
    path = write(tmp_path / "a.ckpt")
    path.write_bytes(path.read_bytes().replace(flag, flag[:-1] + b"_"))
    with pytest.raises(CheckpointError, match="damaged"):
        read(path)


def test_truncated_files_are_detected(tmp_path):
    path = write(tmp_path / "a.ckpt")
    whole = path.read_bytes()
    for n in (0, 1, 21, len(whole) // 2, len(whole) - 78, len(whole) - 1):
        path.write_bytes(whole[:n])
        assert not intact(path)
        with pytest.raises(CheckpointError):
            read(path)


def test_unsealed_files_of_lightning_are_read(tmp_path):
    torch.save({"ganzoo": {"variant": "x"}}, tmp_path / "a.ckpt")
    assert read(tmp_path / "a.ckpt")["ganzoo"] == {"variant": "x"}
    assert not intact(tmp_path / "a.ckpt")


def test_any_trainer_writes_sealed_files(tmp_path):
    torch.manual_seed(0)
    fit(ganzoo.DCGAN(**small("DCGAN")), steps=1).save_checkpoint(tmp_path / "a.ckpt")
    assert intact(tmp_path / "a.ckpt")
    path = tmp_path / "a.ckpt"
    path.write_bytes(path.read_bytes()[:-1] + b"0" if path.read_bytes()[-1:] != b"0" else path.read_bytes()[:-1] + b"1")
    with pytest.raises(CheckpointError, match="its sha256 does not match"):
        fit(ganzoo.DCGAN(**small("DCGAN")), steps=2, ckpt_path=path)


def test_the_error_of_a_damaged_checkpoint_names_the_previous_intact_one(tmp_path):
    first, second, third = (write(tmp_path / f"{step:08d}.ckpt", step) for step in (1, 2, 3))
    write(tmp_path / "best-fid.ckpt", 3)
    assert newest(tmp_path) == third
    for path in (third, second):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=f"an earlier checkpoint is intact: {first}$"):
        read(third)
    assert newest(tmp_path) == first
    first.unlink()
    assert newest(tmp_path) == tmp_path / "best-fid.ckpt", "better than to start a new run"
    (tmp_path / "best-fid.ckpt").unlink()
    with pytest.raises(CheckpointError, match="no earlier checkpoint is intact"):
        read(second)
    assert newest(tmp_path) is None


def test_checkpoints_are_ordered_by_step_with_the_best_first(tmp_path):
    for name, step in {"00000010": 10, "kept-00000009": 9, "last": 10, "best-fid": 20, "00000002": 2}.items():
        write(tmp_path / f"{name}.ckpt", step)
    assert [p.stem for p in in_order(tmp_path)] == ["best-fid", "00000002", "kept-00000009", "00000010", "last"]


# Writing


def write_on_and_on(path, said):
    """In a child process: write checkpoints in a loop and report each step once it is written."""
    with os.fdopen(said, "w") as out:
        for step in range(10**6):
            content = {"ganzoo": {}, "step": step, "w": torch.full((2**18,), float(step))}
            CheckpointIO().save_checkpoint(content, path)
            print(step, file=out, flush=True)


def test_a_process_killed_while_saving_leaves_a_complete_file(tmp_path):
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
def test_a_failed_write_leaves_the_old_file(failing, tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"before")

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    if failing != "write":
        monkeypatch.setattr(*(((atomic.os, "fsync", fail)) if failing == "fsync" else (Path, "replace", fail)))
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, fail if failing == "write" else lambda file: file.write(b"after"))
    assert path.read_bytes() == b"before" and os.listdir(tmp_path) == ["a"]


def test_a_full_disk_raises_oserror_at_any_offset(tmp_path, monkeypatch):
    """Also where torch replaces the file's error by its own."""

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


def written(name):
    """A file's name without the random part that distinguishes concurrent writes."""
    return re.sub(r"\.[0-9a-f]{8}\.partial$", ".partial", name)


def test_the_partial_file_is_written_in_the_target_folder(tmp_path, monkeypatch):
    """Not in the system's temporary folder, which may be on another file system."""
    monkeypatch.setenv("TMPDIR", "/nowhere")
    seen = []
    write_atomically(tmp_path / "a", lambda file: seen.extend(os.listdir(tmp_path)))
    assert [*map(written, seen)] == ["a.partial"] and os.listdir(tmp_path) == ["a"]


def test_the_file_is_synced_before_the_rename_and_the_folder_after_it(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(atomic.os, "fsync", lambda _: calls.append([*map(written, os.listdir(tmp_path))]))
    write_atomically(tmp_path / "a", lambda file: file.write(b"x"))
    assert calls == [["a.partial"], ["a"]], "the bytes, then the folder"


def test_partial_files_are_removed_unless_they_are_being_written(tmp_path):
    for name in ("a.partial", "b.0123abcd.partial", "c.part"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "elsewhere").write_bytes(b"x")
    (tmp_path / "d.partial").symlink_to(tmp_path / "elsewhere")
    write_atomically(tmp_path / "a", lambda _: atomic.remove_partial(tmp_path))
    assert sorted(os.listdir(tmp_path)) == ["a", "elsewhere"]


def test_a_partial_file_removed_before_it_is_locked_is_replaced(tmp_path, monkeypatch):
    """The write opens a new partial file."""
    lock, opened = atomic._lock, []

    def late(file, wait):
        if wait and not opened:
            atomic.remove_partial(tmp_path)
        opened.append(file.name)
        lock(file, wait)

    monkeypatch.setattr(atomic, "_lock", late)
    write_atomically(tmp_path / "a", lambda file: file.write(b"x"))
    assert len(set(opened)) == 2 and os.listdir(tmp_path) == ["a"]


def test_a_link_is_replaced_and_not_followed(tmp_path):
    """Also a link at the former name of partial files."""
    (tmp_path / "other").write_bytes(b"mine")
    for name in ("a", "a.partial"):
        (tmp_path / name).symlink_to(tmp_path / "other")
    write_atomically(tmp_path / "a", lambda file: file.write(b"x"))
    assert (tmp_path / "other").read_bytes() == b"mine" and (tmp_path / "a").read_bytes() == b"x"
    assert not (tmp_path / "a").is_symlink()


def test_concurrent_writes_of_one_file(tmp_path):
    """Each has its own partial file; the last rename wins."""

    def write_other(file):
        write_atomically(tmp_path / "a", lambda other: other.write(b"other"))
        assert (tmp_path / "a").read_bytes() == b"other"
        file.write(b"last")

    write_atomically(tmp_path / "a", write_other)
    assert (tmp_path / "a").read_bytes() == b"last" and os.listdir(tmp_path) == ["a"]


def test_file_names_may_have_the_maximum_length(tmp_path):
    for name in ("a" * 255, "é" * 127):
        write_atomically(tmp_path / name, lambda file: file.write(b"x"))
        assert (tmp_path / name).read_bytes() == b"x"


def test_errors_name_the_file(tmp_path):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for folder, words in {tmp_path: "No space left", tmp_path / "nowhere": "No such file"}.items():
        with pytest.raises(OSError, match=f"{words}.*{re.escape(str(folder / 'a'))}'$"):
            write_atomically(folder / "a", full)


SAFE = {"best_model_path": "run/checkpoints/a.ckpt", "monitor": "G/loss", "mode": "min", "x": [1.5, torch.ones(2)]}


@pytest.mark.parametrize(
    ("state", "path"),
    [
        (SAFE, None),
        ({**SAFE, "best_k_models": {"run/a.ckpt": 1.0, "run/../precious": 2.0}}, "run/../precious"),
        ({**SAFE, "last_model_path": "precious"}, "precious"),
        ({**SAFE, "last_model_path": ""}, None),
        ({"old": ["precious"]}, "precious"),  # this folder exists
        ({"old": ["precious-not"]}, None),
        ({"precious": 1.0}, None),  # the name of a value
        ({"old": {"precious": 1.0}}, "precious"),
        ({"old": ("/etc/nothing",)}, "/etc/nothing"),
        ({"a": {"b": ["~/nothing"]}}, "~/nothing"),
        ({"a": "../nothing"}, "../nothing"),
        ({"a": "file:///nothing"}, "file:///nothing"),
        ({"a": "run\0"}, "run\0"),
        ({"a": "run/link/b.ckpt"}, "run/link/b.ckpt"),
        ({"a": "run/link-inside/b.ckpt", "dirpath": "run", "logDir": "run/x"}, None),
    ],
)
def test_foreign_paths_in_the_state_of_a_callback(state, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("precious", "run/checkpoints", "G"):
        Path(name).mkdir(parents=True)
    Path("precious/b.ckpt").touch()
    Path("run/link").symlink_to("../precious")
    Path("run/link-inside").symlink_to("checkpoints")
    assert foreign_path(state, "run") == path
    assert foreign_path(state, str(tmp_path / "run")) == path


def test_foreign_paths_in_an_object_store():
    assert foreign_path({"best_model_path": "s3://mine/run/a.ckpt"}, "s3://mine/run") is None
    for path in ("s3://mine/run-2/a.ckpt", "s3://mine/run/../b", "s3://other/a"):
        assert foreign_path({"best_model_path": path}, "s3://mine/run") == path


def test_a_folder_is_never_removed_as_a_checkpoint(tmp_path):
    (tmp_path / "folder").mkdir()
    file = write(tmp_path / "a.ckpt")
    for path in (file, file, tmp_path / "folder"):
        CheckpointIO().remove_checkpoint(path)
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("x/../../home/project", "x-..-..-home-project"),
        ("..", "-"),
        ("a\\b:c", "a-b-c"),
        ("\x1b[2J\n\udce9", "-[2J--"),
        (" cats of mine. ", "cats of mine"),
        ("é" * 200, "é" * 60),
        ("", "-"),
    ],
)
def test_path_part_replaces_unsafe_characters(text, part):
    assert atomic.path_part(text) == part


def test_a_file_with_a_broken_seal_is_not_unpickled(tmp_path, monkeypatch):
    path = write(tmp_path / "00000001.ckpt")
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    monkeypatch.setattr(checkpoints.torch, "load", lambda *_, **__: pytest.fail("it was unpickled"))
    with pytest.raises(CheckpointError, match="sha256"):
        read(path)
