"""Atomic writes of files, removal of partial ones, and safe file names."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

try:
    import fcntl
except ImportError:  # on Windows, where open files cannot be removed
    fcntl = None  # type: ignore[assignment]

from ganzoo.core.files import LONGEST, open_file

PARTIAL = ".partial"  # suffix of a file that is being written


def write_atomically(path: str | os.PathLike[str], write: Callable[[BinaryIO], Any], durable: bool = True) -> None:
    """Write to a temporary file in the same folder, fsync it, and rename it.

    If the process is killed or the disk is full, the previous file remains. With several concurrent writers, the last
    one wins. A link at `path` is replaced, not followed.

    Args:
        path: of the file; its folder must exist.
        write: called with a binary file, open for reading and writing.
        durable: False: without fsync, which takes milliseconds; a power failure may then lose the file.

    Raises:
        OSError: the file cannot be written; the error names it, and the temporary file is removed.
    """
    path = Path(path)
    with naming(path):
        partial, file = _open_beside(path)
        try:
            with file:
                write(file)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
                if fcntl is None:
                    file.close()
                partial.replace(path)  # still locked
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    if durable and os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            with suppress(OSError):  # some file systems cannot
                os.fsync(folder)  # makes the rename durable
        finally:
            os.close(folder)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """`write_atomically` of a text in UTF-8."""
    write_atomically(path, lambda file: file.write(text.encode()))


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Sets `filename` of an OSError raised inside to this path if it is unset (a full disk) or names a partial file."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and str(error.filename or PARTIAL).endswith(PARTIAL):
            error.filename = os.fspath(path)
        raise


def remove_partial(folder: Path) -> None:
    """Remove partial files of killed processes from one of ganzoo's folders, but none that are being written."""
    for path in [*folder.glob(f"*{PARTIAL}"), *folder.glob("*.part")]:  # .part: the suffix until November 2026
        with suppress(OSError):  # removed by another process, or being written
            if fcntl is None or path.is_symlink() or not path.is_file():
                path.unlink()
                continue
            with open_file(path, "r+b") as file:
                _lock(file, wait=False)
                path.unlink()


def path_part(text: str) -> str:
    """One component of a path from any text, such as a name in an untrusted file: not empty, at most 120 bytes
    (file systems allow 255, eCryptfs 143), printable, without separators, never `..`."""
    part = "".join(c if c.isprintable() and c not in "/\\:" else "-" for c in text)
    return part.encode()[:120].decode(errors="ignore").strip(" .") or "-"


def _open_beside(path: Path) -> tuple[Path, BinaryIO]:
    """A new file, locked by this process, in the same folder, since files cannot be renamed across file systems."""
    while True:
        partial = path.with_name(f"{path_part(path.name)}.{uuid4().hex[:8]}{PARTIAL}")
        file = partial.open("x+b")
        with suppress(OSError):  # a file system without locks
            _lock(file, wait=True)
        if partial.exists():  # `remove_partial` of another process may have removed it before the lock
            return partial, file
        file.close()


def _lock(file: BinaryIO, wait: bool) -> None:
    """
    Raises:
        OSError: another process holds the lock, or the file system has no locks.
    """
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def append_row(file: Path, row: dict[str, Any]) -> None:
    """Appends a record to a log of JSON lines; on a new line, even if a full disk has cut off the last one."""
    with open_file(file, "a+b") as opened:
        cut = opened.seek(0, os.SEEK_END) and opened.seek(-1, os.SEEK_END) >= 0 and opened.read(1) != b"\n"
        opened.write(b"\n" * cut + json.dumps(row, allow_nan=False).encode() + b"\n")


def keep_until(file: Path, step: int) -> Iterator[dict[str, Any]]:
    """Remove invalid lines and records of later steps from a log of JSON lines; returns the remaining records."""
    kept: list[bytes] = []
    changed = False
    with open_file(file) if file.exists() else nullcontext(BytesIO()) as opened:
        while line := opened.readline(LONGEST):
            try:
                at = json.loads(line)["step"]
            except (ValueError, TypeError, LookupError, RecursionError):  # a truncated line, or one of another program
                at = None
            earlier = type(at) is int and at <= step
            changed |= not earlier or not line.endswith(b"\n")
            if earlier:
                kept.append(line.rstrip(b"\n") + b"\n")
    if changed:
        write_atomically(file, lambda opened: opened.writelines(kept))
    return map(json.loads, kept)
