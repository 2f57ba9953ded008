"""Rows of a file that is larger than memory."""

from __future__ import annotations

import math
import os
import weakref
from collections import deque
from typing import Any

import numpy as np

from ganzoo.core.files import open_file

MOST_OPEN = 256  # files of rows; systems allow a process a thousand files, and a large data set has more shards
RECENT: deque[weakref.ref[Rows]] = deque()  # that have their files open


class Rows:
    """Arrays of bytes of one shape, one behind the other in a file; each is read when it is asked for.

    Not a memory map: who looks at one whose file has lost its end is killed by a signal.

    Attributes:
        shape: [N, ...]
        file: None where it is closed.

    Args:
        path: of the file.
        start: of the first row in it, in bytes.
        shape: [N, ...]
    """

    def __init__(self, path: str | os.PathLike[str], start: int, shape: tuple[int, ...]) -> None:
        self.path, self.start, self.shape = path, start, shape
        self._bytes = math.prod(shape[1:])
        self.file: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "file": None}

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, i: int) -> np.ndarray:
        """Row i, uint8 [...]."""
        if not 0 <= i < len(self):
            raise IndexError(i)
        return self.read(i, np.empty(self.shape[1:], np.uint8))

    def read(self, i: int, out: np.ndarray) -> np.ndarray:
        """Row i, into an array that is contiguous.

        Raises:
            ValueError: the file ends before it.
            OSError: it cannot be read.
        """
        place = self.start + i * self._bytes
        if hasattr(os, "preadv"):  # of a file that other processes and threads read, too
            n = os.preadv(self._opened().fileno(), [out.data], place)
        else:
            part = np.fromfile(self.path, np.uint8, self._bytes, offset=place)
            n, out.reshape(-1)[: part.size] = part.size, part
        if n != self._bytes:
            raise ValueError("it has lost its end")
        return out

    def close(self) -> None:
        """Until it is read again."""
        self.file = None

    def _opened(self) -> Any:
        if (file := self.file) is None:
            while len(RECENT) >= MOST_OPEN:
                if (oldest := RECENT.popleft()()) is not None:
                    oldest.close()
            file = self.file = open_file(self.path, buffering=0)
            RECENT.append(weakref.ref(self))
        return file
