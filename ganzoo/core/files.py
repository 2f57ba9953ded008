"""Opening untrusted paths: regular files only, without blocking; many in threads; a time limit for downloads."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

A = TypeVar("A")
B = TypeVar("B")

LONGEST = 1 << 20  # maximum bytes of a record, a config, or a line of a log
KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def in_threads(do: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """`do` of each item, in order; only a thousand are submitted at once, since each takes memory while it waits."""
    rest = iter(items)
    with ThreadPoolExecutor() as pool:
        while part := [*islice(rest, 1000)]:
            yield from pool.map(do, part)


@contextmanager
def socket_timeout(seconds: float = 10) -> Iterator[None]:
    """For downloads by torch.hub and torchvision, which set no timeout, and would hang on a network that drops
    packets."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def open_file(path: str | os.PathLike[str], mode: str = "rb", **how: Any) -> Any:
    """The built-in `open` for regular files and links to them; pipes and terminals would block.

    Args:
        path: of the file.
        mode: as for `open`.
        **how: buffering, encoding, errors, newline.

    Raises:
        OSError: the path is a pipe, a device or a socket, or cannot be opened.
    """
    return open(path, mode, opener=_open, **how)


def read_text(path: str | os.PathLike[str], most: int = LONGEST) -> str:
    """Text of a small regular file in UTF-8, without a byte-order mark.

    Raises:
        ValueError: the file is longer than `most` bytes (the rest is not read), or not UTF-8; the message names it.
        OSError: the path is a pipe, a device or a socket, or cannot be opened.
    """
    with open_file(path) as file:
        content: bytes = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"{os.fspath(path)} has more than {most:,} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{os.fspath(path)} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None


def check_regular(path: str | os.PathLike[str]) -> None:
    """Reject a pipe, a device or a socket before a library opens the path; the path need not exist.

    Raises:
        OSError: the path is one of these.
    """
    if (path := Path(path)).exists():
        _refuse(path, path.stat().st_mode)


def _refuse(path: str | os.PathLike[str], mode: int) -> None:
    if (kind := KINDS.get(stat.S_IFMT(mode))) is not None:
        raise OSError(f"{os.fspath(path)} is {kind}, not a file: remove it")


def _open(path: str, flags: int) -> int:
    check_regular(path)  # opening a device may have side effects
    file = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
    try:
        _refuse(path, os.fstat(file).st_mode)  # it may have been replaced in between
    except OSError:
        os.close(file)
        raise
    return file
