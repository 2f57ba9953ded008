"""Signals that ask a training to stop: SIGINT, SIGTERM, and SIGHUP, which a closed terminal sends."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

RESUMABLE = 75  # exit code of a run to be resumed: EX_TEMPFAIL of sysexits.h
TERMINATE = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
CODES: dict[int, int] = {signal.SIGINT: 130, **dict.fromkeys(TERMINATE, RESUMABLE)}  # signal -> exit code


def set_handlers(handler: Any, *numbers: int) -> dict[int, Any]:
    """Install a handler for signals; returns the previous handlers. SIGHUP stays ignored under `nohup`. Outside of
    the main thread, which alone can install handlers, it does nothing."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    kept = [number for number in numbers if number in TERMINATE[1:] and signal.getsignal(number) is signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in numbers if number not in kept}


def restore_handlers(handlers: dict[int, Any]) -> None:
    """Restore the handlers returned by `set_handlers`."""
    for number, handler in handlers.items():
        signal.signal(number, handler or signal.SIG_DFL)


@contextmanager
def exit_on_terminate(leave: Callable[[int], Any] = sys.exit) -> Iterator[None]:
    """Exits with `RESUMABLE` on SIGTERM or SIGHUP inside; for code that has no state to save.

    Args:
        leave: called with the exit code.
    """
    before = set_handlers(lambda number, frame: leave(RESUMABLE), *TERMINATE)
    try:
        yield
    finally:
        restore_handlers(before)


@contextmanager
def starting_processes() -> Iterator[None]:
    """Blocks the signals of `CODES` inside, and for good in processes started there; this process receives them on
    exit. Also restores the handler of SIGCHLD."""
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    before, on_child_exit = signal.pthread_sigmask(signal.SIG_BLOCK, CODES), signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        set_handlers(on_child_exit or signal.SIG_DFL, signal.SIGCHLD)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore() -> None:
    """Ignore SIGTERM and SIGHUP in this process from now on."""
    for number in TERMINATE:
        signal.signal(number, signal.SIG_IGN)
