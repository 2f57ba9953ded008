"""Standard output and error, whose reader may have gone, or whose disk may be full."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from io import StringIO
from typing import Any

from ganzoo.cli.errors import UserError
from ganzoo.core.text import Escaped


class OutputError(UserError):
    """Standard output cannot be written.

    Attributes:
        closed: whether its reader has closed the pipe.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output: {error.strerror or error}")
        self.closed = isinstance(error, BrokenPipeError)


class Stream:
    """A standard stream whose failures cannot be mistaken for those of a file or another process.

    Args:
        stream: the stream.
        needed: whether a failure raises an `OutputError`; otherwise it is ignored.
    """

    def __init__(self, stream: Any, *, needed: bool) -> None:
        self.stream, self.needed = stream, needed

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        with self._failing():
            self.stream.write(text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with self._failing():
            self.stream.flush()

    def end(self) -> None:
        """Discards what cannot be written: the interpreter would otherwise flush again, and exit with code 120."""
        try:
            self.stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: the stream is closed
            if self.needed and isinstance(error, OSError):
                raise OutputError(error) from error
            if self.needed:
                raise


@contextmanager
def standard_streams() -> Iterator[None]:
    """Inside, failures of stderr are ignored, and those of stdout raise an `OutputError`; both are `Escaped`."""
    while (file := os.open(os.devnull, os.O_RDWR)) < 3:  # keeps files off the numbers of closed streams
        pass
    os.close(file)
    out, err = (getattr(stream, "terminal", stream) or StringIO() for stream in (sys.stdout, sys.stderr))
    out, err = Stream(out, needed=True), Stream(err, needed=False)
    try:
        with redirect_stdout(Escaped(out)), redirect_stderr(Escaped(err)):  # type: ignore[type-var]
            yield
    finally:
        out.end()
        err.end()


def ignore_stdout_failures() -> None:
    """From now on failures of stdout are ignored, too."""
    if isinstance(stream := getattr(sys.stdout, "terminal", None), Stream):
        stream.needed = False
