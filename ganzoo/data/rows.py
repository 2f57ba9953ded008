"""Random access to the rows of a file that is larger than memory."""

from __future__ import annotations

import math
import os
import weakref
from collections import deque
from typing import Any

import numpy as np

from ganzoo.core.files import open_file

MOST_OPEN = 256  # open files of rows; the usual limit of a process is about 1,000, and large data sets have more shards
BYTES = np.dtype(np.uint8)
RECENT: deque[weakref.ref[Rows]] = deque()  # rows with open files, oldest first


class Rows:
    """Arrays of equal shape, stored contiguously in a file; each is read on access.

    Not a memory map: if the file is truncated, access beyond its end would kill the process with a signal.

    Attributes:
        shape: [N, ...]
        file: The open file; None if closed.

    Args:
        path: Path of the file.
        start: Offset of the first row in the file, in bytes.
        shape: [N, ...]
        dtype: Of the values.
    """

    def __init__(
        self, path: str | os.PathLike[str], start: int, shape: tuple[int, ...], dtype: np.dtype = BYTES
    ) -> None:
        self.path, self.start, self.shape, self.dtype = path, start, shape, dtype
        self._bytes = math.prod(shape[1:]) * dtype.itemsize
        self.file: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "file": None}

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, i: int) -> np.ndarray:
        """Row i, [...]."""
        if not 0 <= i < len(self):
            raise IndexError(i)
        return self.read(i, np.empty(self.shape[1:], self.dtype))

    def read(self, i: int, out: np.ndarray) -> np.ndarray:
        """Read row i into a contiguous array, and return that.

        Raises:
            ValueError: The file ends before the end of the row.
            OSError: The file cannot be read.
        """
        place = self.start + i * self._bytes
        if hasattr(os, "preadv"):  # without seeking: other processes and threads share the file
            file = self._opened()  # referred to while it is read: another thread may close or replace it
            n = os.preadv(file.fileno(), [out.data], place)
        else:
            part = np.fromfile(self.path, np.uint8, self._bytes, offset=place)
            n, out.view(np.uint8).reshape(-1)[: part.size] = part.size, part
        if n != self._bytes:
            raise ValueError("it is truncated")
        return out

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        self.file = None

    def _opened(self) -> Any:
        if (file := self.file) is None:
            while len(RECENT) >= MOST_OPEN:
                if (oldest := RECENT.popleft()()) is not None:
                    oldest.close()
            file = self.file = open_file(self.path, buffering=0)
            RECENT.append(weakref.ref(self))
        return file
