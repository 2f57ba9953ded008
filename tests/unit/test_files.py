"""Files that others have named: regular ones only, and without waiting."""

from __future__ import annotations

import ast
import os
import socket
from pathlib import Path

import pytest

import ganzoo
from ganzoo.core import files
from ganzoo.core.files import check_regular, open_file, read_text


def test_regular_files_and_links_to_them(tmp_path: Path) -> None:
    with open_file(tmp_path / "a", "w", encoding="utf-8") as file:
        file.write("ä")
    with open_file(tmp_path / "a", "a") as file:
        file.write("b")
    (tmp_path / "link").symlink_to("a")
    assert read_text(tmp_path / "link") == "äb" and open_file(tmp_path / "a").read() == "äb".encode()
    check_regular(tmp_path / "a")
    check_regular(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError):
        open_file(tmp_path / "nothing")
    with pytest.raises(IsADirectoryError):
        open_file(tmp_path)


@pytest.mark.parametrize("mode", ["rb", "r", "w", "a", "w+b"])
def test_others_are_refused_at_once(tmp_path: Path, mode: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for path, kind in ((tmp_path / "pipe", "pipe"), (tmp_path / "link", "pipe"), (Path("/dev/zero"), "device")):
        with pytest.raises(OSError, match=f"^{path} is a {kind}, not a file: remove it$"):
            open_file(path, mode)


def test_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # whose path may be too long for one
    with socket.socket(socket.AF_UNIX) as there:
        there.bind("socket")
        with pytest.raises(OSError, match="socket is a socket, not a file"):
            check_regular("socket")


def test_one_that_is_exchanged_between_two_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(files, "check_regular", lambda path: None)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with pytest.raises(OSError, match="is a pipe"):
        open_file(tmp_path / "pipe")
    assert not before or len(os.listdir("/proc/self/fd")) == before


def test_nobody_opens_files_otherwise() -> None:
    """But for new files, and for those of the package."""
    root = Path(ganzoo.__file__).parent
    own = {"core/files.py", "__init__.py", "cli/catalog.py", "evaluation/classifier.py"}
    new = {"core/atomic.py: partial.open"}
    found = set()
    for path in root.rglob("*.py"):
        name = path.relative_to(root).as_posix()
        for node in ast.walk(ast.parse(path.read_text())) if name not in own else ():
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called == "open" or called.endswith((".read_text", ".read_bytes", ".open")):
                    found.add(f"{name}: {called}")
    others = ("Image.open", "av.open", "os.open", "archive.open", "reference.open", "logger.open")  # of files, or new
    assert {call for call in found if not call.endswith(others)} == new
