"""Files that are whole or not there, whatever happens while they are written; names of files that are safe."""

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
except ImportError:  # on Windows, where nobody can remove an open file
    fcntl = None  # type: ignore[assignment]

from ganzoo.core.files import LONGEST, open_file

PARTIAL = ".partial"  # ends the name of a file that is being written


def write_atomically(path: str | os.PathLike[str], write: Callable[[BinaryIO], Any]) -> None:
    """Write a file beside its place, wait until the disk has it, and only then give it its name.

    A process that is killed, or a disk that fills up, leaves the file that was there before. Where several processes
    write the same file, the last one wins. A link in the file's place is replaced, not followed.

    Args:
        path: of the file; its folder is there.
        write: is given the file, opened for reading and writing bytes.

    Raises:
        OSError: it cannot be written; the error names the file, and what was written of it is gone again.
    """
    path = Path(path)
    with naming(path):
        partial, file = _open_beside(path)
        try:
            with file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
                if fcntl is None:
                    file.close()
                partial.replace(path)  # while it is locked
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            with suppress(OSError):  # not every file system can
                os.fsync(folder)  # the name
        finally:
            os.close(folder)


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """An OSError inside that names no file, as that of a full disk, or one that nobody knows, names this one."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and str(error.filename or PARTIAL).endswith(PARTIAL):
            error.filename = os.fspath(path)
        raise


def remove_partial(folder: Path) -> None:
    """Remove what processes that were killed left half written in a folder of ganzoo's, but nothing that is being
    written now."""
    for path in [*folder.glob(f"*{PARTIAL}"), *folder.glob("*.part")]:  # .part until November 2026
        with suppress(OSError):  # somebody else removes it, too; or it is being written
            if fcntl is None or path.is_symlink() or not path.is_file():
                path.unlink()
                continue
            with path.open("r+b") as file:
                _lock(file, wait=False)
                path.unlink()


def path_part(text: str, most: int = 120) -> str:
    """One part of a path from any text, such as a name in a stranger's file: at most so many bytes (file
    systems take 143 or 255), no separators, nothing that cannot be printed, and not the name of a folder above."""
    part = "".join(c if c.isprintable() and c not in "/\\:" else "-" for c in text)
    return part.encode()[:most].decode(errors="ignore").strip(" .") or "-"


def _open_beside(path: Path) -> tuple[Path, BinaryIO]:
    """A new file in the same folder, as a rename between file systems is a copy; locked for this process."""
    while True:
        partial = path.with_name(f"{path_part(path.name)}.{uuid4().hex[:8]}{PARTIAL}")
        file = partial.open("x+b")
        with suppress(OSError):  # a file system without locks
            _lock(file, wait=True)
        if partial.exists():  # `remove_partial` of another process may have come before the lock
            return partial, file
        file.close()


def _lock(file: BinaryIO, wait: bool) -> None:
    """
    Raises:
        OSError: another process has it, or the file system has no locks.
    """
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def keep_until(file: Path, step: int) -> Iterator[dict[str, Any]]:
    """Take out of a log of JSON lines what is of later steps, and what a crash left half written; return the rest."""
    kept: list[bytes] = []
    changed = False
    with open_file(file) if file.exists() else nullcontext(BytesIO()) as opened:
        while line := opened.readline(LONGEST):
            try:
                at = json.loads(line)["step"]
            except (ValueError, TypeError, LookupError, RecursionError):  # half a line, or another program's
                at = None
            earlier = type(at) is int and at <= step
            changed |= not earlier or not line.endswith(b"\n")
            if earlier:
                kept.append(line.rstrip(b"\n") + b"\n")
    if changed:
        write_atomically(file, lambda opened: opened.writelines(kept))
    return map(json.loads, kept)
