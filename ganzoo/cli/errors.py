"""Errors for people: one line that names the cause and the cure."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import ganzoo

SLIPS = (ArithmeticError, AssertionError, AttributeError, LookupError, NameError, TypeError)  # not written for readers


class UserError(Exception):
    """Something that the user can mend; shown as one line, without a traceback."""


class Arguments(argparse.ArgumentParser):
    """The parser of a verb that trains nothing."""

    def __init__(self, verb: str, description: str, usage: str | None = None) -> None:
        usage = usage and f"python -m ganzoo {verb} {usage}"
        super().__init__(f"python -m ganzoo {verb}", usage=usage, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        command = f"{self.prog} --help lists what it takes"
        if match := re.match(r"unrecognized arguments: (\S+)", message):
            options = [option for action in self._actions for option in action.option_strings]
            raise UserError(f"no option {match[1]!r}{closest(match[1], options, command)}")
        raise UserError(f"{message.removeprefix('argument ')}; {command}")


def closest(word: str, known: Iterable[str], otherwise: str) -> str:
    """`; did you mean 'x'?` for the known word that is most like this one, or `; otherwise`."""
    match = nearest(word, known)
    return f"; {otherwise}" if match is None else f"; did you mean {match!r}?"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like this one, whatever the case of its letters."""
    lower = {name.lower(): name for name in known}
    match = difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.5)
    return lower[match[0]] if match else None


def one_line(text: Any) -> str:
    """Any text, on one line."""
    return " ".join(str(text).split())


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, the one that it was raised from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def describe(error: BaseException) -> str:
    """Any exception in one line; with its place, where it comes from a user's own file."""
    chain = list(causes(error))
    for cause in chain:
        if isinstance(cause, UserError):
            return str(cause)
    error = next((cause for cause in chain if "Union subtypes" not in str(cause)), error)  # jsonargparse's wrapping
    text = one_line(error.msg if isinstance(error, SyntaxError) else error)
    if isinstance(error, OSError) and error.filename:
        text = f"{error.filename}: {error.strerror}"
    if (where := place(error)) or isinstance(error, SLIPS) or not text:
        text = f"{where}{type(error).__name__}: {text}; GANZOO_TRACEBACK=1 shows all of it"
    return text


@contextmanager
def user_errors() -> Iterator[None]:
    """Every exception inside is the user's to mend."""
    try:
        yield
    except (UserError, BrokenPipeError):
        raise
    except Exception as error:
        raise UserError(describe(error)) from error


def place(error: BaseException) -> str:
    """`my_file.py, line 3: ` for the innermost line of a user's own file, or nothing."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}, line {error.lineno}: "
    paths = sysconfig.get_paths()
    others = (os.path.dirname(ganzoo.__file__), paths["stdlib"], paths["purelib"], paths["platlib"], "<")
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(others):
            return f"{Path(frame.filename).name}, line {frame.lineno}: "
    return ""
