"""Signals that ask a training to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

AGAIN = 75  # exit code of a run to be resumed: EX_TEMPFAIL of sysexits.h
TOLD = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # closed terminal: SIGHUP
CODES: dict[int, int] = {signal.SIGINT: 130, **dict.fromkeys(TOLD, AGAIN)}  # signal -> exit code


def take(handler: Any, *numbers: int) -> dict[int, Any]:
    """Install a handler for signals; returns the previous handlers. SIGHUP stays ignored under `nohup`. Outside of
    the main thread, which alone can install handlers, it does nothing."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    kept = [number for number in numbers if number in TOLD[1:] and signal.getsignal(number) is signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in numbers if number not in kept}


def give_back(handlers: dict[int, Any]) -> None:
    """Restore the handlers returned by `take`."""
    for number, handler in handlers.items():
        signal.signal(number, handler or signal.SIG_DFL)


def again(code: int = AGAIN) -> NoReturn:
    raise SystemExit(code)


@contextmanager
def told_to_end(leave: Callable[[int], Any] = again) -> Iterator[None]:
    """Exits with `AGAIN` on SIGTERM or SIGHUP inside; for code that has no state to save.

    Args:
        leave: called with the exit code.
    """
    before = take(lambda number, frame: leave(AGAIN), *TOLD)
    try:
        yield
    finally:
        give_back(before)


@contextmanager
def starting_processes() -> Iterator[None]:
    """Blocks the signals of `CODES` inside, and for good in processes started there; this process receives them on
    exit. Also restores the handler of SIGCHLD."""
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    before, at_their_end = signal.pthread_sigmask(signal.SIG_BLOCK, CODES), signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        take(at_their_end or signal.SIG_DFL, signal.SIGCHLD)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore() -> None:
    """Ignore SIGTERM and SIGHUP in this process from now on."""
    for number in TOLD:
        signal.signal(number, signal.SIG_IGN)
