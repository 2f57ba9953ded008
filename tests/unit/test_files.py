"""Opening untrusted paths: regular files only, without blocking."""

from __future__ import annotations

import ast
import os
import socket
from pathlib import Path

import pytest

import ganzoo
from ganzoo.core import files
from ganzoo.core.files import check_regular, in_threads, open_file, read_text


def test_regular_files_and_links_to_them_are_opened(tmp_path: Path) -> None:
    with open_file(tmp_path / "a", "w", encoding="utf-8") as file:
        file.write("ä")
    with open_file(tmp_path / "a", "a", encoding="utf-8") as file:
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
def test_pipes_and_devices_are_refused_without_blocking(tmp_path: Path, mode: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for path, kind in ((tmp_path / "pipe", "pipe"), (tmp_path / "link", "pipe"), (Path("/dev/zero"), "device")):
        with pytest.raises(OSError, match=f"^{path} is a {kind}, not a file: remove it$"):
            open_file(path, mode)


def test_sockets_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # as the absolute path may be too long for a socket
    with socket.socket(socket.AF_UNIX) as there:
        there.bind("socket")
        with pytest.raises(OSError, match="socket is a socket, not a file"):
            check_regular("socket")


def test_a_pipe_created_after_the_check_is_refused_and_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(files, "check_regular", lambda path: None)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with pytest.raises(OSError, match="is a pipe"):
        open_file(tmp_path / "pipe")
    assert not before or len(os.listdir("/proc/self/fd")) == before


def test_the_package_opens_untrusted_files_through_open_file_only() -> None:
    """Exceptions: newly created files, and files of the package itself."""
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
    others = ("Image.open", "av.open", "os.open", "archive.open", "reference.open", "logger.open")  # open files, or new
    assert {call for call in found if not call.endswith(others)} == new


def test_threads_work_in_order_on_a_bounded_number_of_items() -> None:
    started: list[int] = []
    results = in_threads(lambda i: started.append(i) or i, range(2500))
    assert next(results) == 0 and len(started) <= 1000
    assert [*results] == [*range(1, 2500)]
