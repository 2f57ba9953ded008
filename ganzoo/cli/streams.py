"""Standard output and error, of which nobody may be left to read, or for which the disk may have no room."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from io import StringIO
from typing import Any

from ganzoo.cli.errors import UserError


class OutputError(UserError):
    """What a command prints does not come through.

    Attributes:
        closed: whether nobody wants more of it.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output: {error.strerror or error}")
        self.closed = isinstance(error, BrokenPipeError)


class Stream:
    """A standard stream whose failures are not taken for those of a file or of another process.

    Args:
        stream: the stream.
        needed: whether the command is of no use without it, so that a failure is an `OutputError`; it is nothing
            otherwise.
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
        """Let go of what cannot be written: the interpreter would try once more, and end with code 120."""
        try:
            self.stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # a ValueError of a stream that somebody has closed
            if self.needed and isinstance(error, OSError):
                raise OutputError(error) from error
            if self.needed:
                raise


@contextmanager
def standard_streams() -> Iterator[None]:
    """Nothing inside fails because of what is said on stderr; what is printed, and is lost, is an `OutputError`."""
    while (file := os.open(os.devnull, os.O_RDWR)) < 3:  # streams that are closed, whose numbers files would get
        pass
    os.close(file)
    out, err = Stream(sys.stdout or StringIO(), needed=True), Stream(sys.stderr or StringIO(), needed=False)
    try:
        with redirect_stdout(out), redirect_stderr(err):  # type: ignore[type-var]
            yield
    finally:
        out.end()
        err.end()


def unheard() -> None:
    """From here to the end of the command, what is printed may be lost."""
    if isinstance(sys.stdout, Stream):
        sys.stdout.needed = False
