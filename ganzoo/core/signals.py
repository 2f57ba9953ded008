"""Signals that ask a training to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

AGAIN = 75  # sysexits' EX_TEMPFAIL: run me again
TOLD = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # by a program, a terminal
CODES: dict[int, int] = {signal.SIGINT: 130, **dict.fromkeys(TOLD, AGAIN)}


def take(handler: Any, *numbers: int) -> dict[int, Any]:
    """Handle signals in this way; the handlers so far. What `nohup` has made of SIGHUP stays, and so do all signals in
    threads that cannot handle any."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    kept = [number for number in numbers if number in TOLD[1:] and signal.getsignal(number) is signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in numbers if number not in kept}


def give_back(handlers: dict[int, Any]) -> None:
    """The handlers that `take` found."""
    for number, handler in handlers.items():
        signal.signal(number, handler or signal.SIG_DFL)


def again(code: int = AGAIN) -> NoReturn:
    raise SystemExit(code)


@contextmanager
def told_to_end(leave: Callable[[int], Any] = again) -> Iterator[None]:
    """SIGTERM, or a terminal that is closed, while there is nothing to save: run me again.

    Args:
        leave: is called with the exit code.
    """
    before = take(lambda number, frame: leave(AGAIN), *TOLD)
    try:
        yield
    finally:
        give_back(before)


@contextmanager
def starting_processes() -> Iterator[None]:
    """Processes that are started inside get none of these signals, this one gets them afterwards; and what it does when
    another ends stays as it was."""
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
    """From now on, in this process, but for Ctrl-C."""
    for number in TOLD:
        signal.signal(number, signal.SIG_IGN)
