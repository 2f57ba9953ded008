"""Files that are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

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


def keep_until(file: Path, step: int) -> list[dict[str, Any]]:
    """Take out of a log of JSON lines what is of later steps, and what a crash left half written; return the rest."""
    text = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
    kept = []
    for line in text.splitlines():
        try:
            content = json.loads(line)
            earlier = content["step"] <= step
        except (ValueError, TypeError, LookupError, RecursionError):  # half a line, or another program's
            continue
        if earlier:
            kept.append((line, content))
    if (new := "".join(f"{line}\n" for line, _ in kept)) != text:
        write_atomically(file, lambda opened: opened.write(new.encode()))
    return [content for _, content in kept]
