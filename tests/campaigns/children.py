"""Commands of one thread each, run from several threads of a campaign."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Any

STOPS = (signal.SIGINT, signal.SIGTERM)


class Children:
    """Passes SIGINT and SIGTERM on to all running commands, and starts no further ones. To be entered in the main
    thread."""

    def __init__(self) -> None:
        self.processes: set[subprocess.Popen[bytes]] = set()
        self.stopped = False

    def __enter__(self) -> Children:
        self.before = {number: signal.signal(number, self._stop) for number in STOPS}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, _: Any) -> None:
        self.stopped = True
        for process in list(self.processes):
            process.send_signal(number)

    def run(self, command: Sequence[str], limit: int | None = None) -> tuple[int, dict[str, float]]:
        """Runs a command; its exit status, and its seconds: {"wall", "cpu"}.

        Args:
            command: the words.
            limit: CPU seconds, after which it is killed.

        Raises:
            SystemExit: the campaign has been stopped.
        """
        if self.stopped:
            raise SystemExit("stopped; run the same command to resume")
        start = time.perf_counter()
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        self.processes.add(process)
        try:
            if limit:
                resource.prlimit(process.pid, resource.RLIMIT_CPU, (limit, limit))
            _, status, used = os.wait4(process.pid, 0)
        finally:
            self.processes.discard(process)
        process.returncode = os.waitstatus_to_exitcode(status)
        return process.returncode, {"wall": time.perf_counter() - start, "cpu": used.ru_utime + used.ru_stime}
