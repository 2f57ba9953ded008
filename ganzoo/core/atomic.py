"""Files that are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

LONGEST = 1 << 20  # bytes of a record, a config, or a line of a log
PARTIAL = ".partial"  # ends the name of a file that is being written


def write_atomically(path: str | os.PathLike[str], write: Callable[[BinaryIO], Any]) -> None:
    """Write a file beside its place, wait until the disk has it, and only then give it its name.

    A process that is killed, or a disk that fills up, leaves the file that was there before.

    Args:
        path: of the file; its folder is there.
        write: is given the file, opened for reading and writing bytes.

    Raises:
        OSError: it cannot be written; what was written of it is gone again.
    """
    path = Path(path)
    partial = path.with_name(path.name + PARTIAL)  # in the same folder: a rename between file systems is a copy
    try:
        with partial.open("w+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
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


def read_text(file: Path, most: int = LONGEST) -> str:
    """A small file of text.

    Raises:
        ValueError: it is larger than `most` bytes, of which no more are read, or no UTF-8.
        OSError: it cannot be opened.
    """
    with file.open("rb") as opened:
        content = opened.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    return content.decode()


def keep_until(file: Path, step: int) -> Iterator[dict[str, Any]]:
    """Take out of a log of JSON lines what is of later steps, and what a crash left half written; return the rest."""
    kept: list[bytes] = []
    changed = False
    with file.open("rb") if file.exists() else nullcontext(BytesIO()) as opened:
        while line := opened.readline(LONGEST):
            try:
                earlier = json.loads(line)["step"] <= step
            except (ValueError, TypeError, LookupError, RecursionError):  # half a line, or another program's
                earlier = False
            changed |= not earlier or not line.endswith(b"\n")
            if earlier:
                kept.append(line.rstrip(b"\n") + b"\n")
    if changed:
        write_atomically(file, lambda opened: opened.writelines(kept))
    return map(json.loads, kept)
