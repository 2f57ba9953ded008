"""User errors: one line with the cause and the cure."""

from __future__ import annotations

import argparse
import errno
import os
import re
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import ganzoo
from ganzoo.core.limits import Positive, Size, refusal
from ganzoo.core.text import closest, one_line

SLIPS = (ArithmeticError, AssertionError, AttributeError, LookupError, NameError, TypeError)  # need their type's name
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DISK = rf"\[Errno ({'|'.join(map(str, FULL))})\]|No space left|unexpected pos"  # the last one is from torch.save
MEMORY = r"can't allocate memory|out of memory|Unable to allocate|bad_alloc|ALLOC_FAILED"
PEER = r"gloo.*(closed by peer|reset by peer|Timed out|Broken pipe|refused)|NCCL|Connection closed by peer"
TRUST = "a package or folder whose classes a config may use, besides ganzoo, torch.optim, Lightning and .py files here"


class UserError(Exception):
    """An error that the user can fix; shown as one line, without a traceback."""


class Arguments(argparse.ArgumentParser):
    """The parser of all verbs but fit, validate and test."""

    def __init__(self, verb: str, description: str, usage: str | None = None) -> None:
        usage = usage and f"python -m ganzoo {verb} {usage}"
        super().__init__(f"python -m ganzoo {verb}", usage=usage, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        command = f"{self.prog} --help shows the usage"
        if match := re.match(r"unrecognized arguments: (\S+)", message):
            if not match[1].startswith("-"):
                raise UserError(f"unexpected argument {match[1]!r}; paths with spaces need quotes; {command}")
            options = [o for action in self._actions for o in action.option_strings if o not in ("-h", "--help")]
            raise UserError(f"no option {match[1]!r}{closest(match[1], options, command)}")
        raise UserError(f"{message.removeprefix('argument ').replace(': is ', ' is ', 1)}; {command}")


def number(kind: Any) -> Callable[[str], Any]:
    """An argparse type: an integer within the limits of an annotated type, such as `Count`; two for `Size`; a decimal
    fraction for `Positive`."""

    def parse(text: str) -> Any:
        value: Any = text
        if re.fullmatch(r"-?\d{1,18}", text):  # `int` refuses very long numbers
            value = int(text)
        elif kind == Positive and re.fullmatch(r"-?\d{0,18}\.\d{1,18}", text):
            value = float(text)
        elif kind == Size and (found := re.fullmatch(r"\[(\d{1,18}), *(\d{1,18})\]", text)):
            value = [int(side) for side in found.groups()]
        if (problem := refusal(value, kind)) is not None:
            raise argparse.ArgumentTypeError(problem)
        return value

    return parse


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, its cause, the cause of that, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def describe(error: BaseException) -> str:
    """Any exception in one line; with file and line number if raised in a user's own file."""
    chain = list(causes(error))
    for cause in chain:
        if isinstance(cause, UserError):
            return str(cause)
    for cause in chain:  # jsonargparse's cause of a union is the error of its first type only
        if found := re.search(r"^ *- (\w+ is .*; it takes .*)$", str(cause), re.MULTILINE):
            return found[1]
    error = next((cause for cause in chain if "Union subtypes" not in str(cause)), error)  # jsonargparse's wrapper
    text = one_line(error.msg if isinstance(error, SyntaxError) else error)
    if isinstance(error, OSError) and error.filename:
        text = f"{error.filename}: {error.strerror}"
    if (where := place(error)) or isinstance(error, SLIPS) or not text:
        text = f"{where}{type(error).__name__}: {text}; GANZOO_TRACEBACK=1 shows the traceback"
    return text


@contextmanager
def user_errors() -> Iterator[None]:
    """Converts all exceptions to UserErrors."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(describe(error)) from error


def place(error: BaseException) -> str:
    """`my_file.py, line 3: ` for the innermost frame in a user's own file, or an empty string."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}, line {error.lineno}: "
    paths = sysconfig.get_paths()
    others = (os.path.dirname(ganzoo.__file__), paths["stdlib"], paths["purelib"], paths["platlib"], "<")
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(others):
            return f"{Path(frame.filename).name}, line {frame.lineno}: "
    return ""


def mid_run(error: BaseException) -> str | None:
    """The cause of a failed training in one line if the user can fix it; None for a bug.

    Args:
        error: raised by the training, in a data-loading worker or in this process.
    """
    if "iter(combined_loader)" in str(error):  # raised by Lightning after a worker has died
        error = error.__context__ or error
    kind, text = _original(error)
    for cause in (error, error.__cause__):
        if isinstance(cause, OSError) and cause.errno in FULL and not re.search(DISK, text):
            text = f"[Errno {cause.errno}] {text}"
    line = re.sub(r"\[enforce fail at \S+\] (\. |err == 0\. )?", "", one_line(text))
    if re.search(r"cannot be decoded|can be decoded|conditioned on metric|is damaged \(", text):
        return line.rstrip(".")
    if "/torch_" in text and "No space left" in text or "Bus error" in text or "shared memory" in text:
        return "the workers' shared memory (/dev/shm) is full; lower data.cache_gb or data.num_workers, or set it to 0"
    if kind == "MemoryError" or re.search(r"OutOfMemory|ArrayMemoryError", kind) or re.search(MEMORY, text, re.I):
        what = re.split(r"(?<=\w)\. |; you tried", line)[0].rstrip(".")
        cure = "lower data.batch_size, raise model.microbatches, or make the model smaller"
        return f"out of memory{what and f' ({what})'}; {cure}"
    if re.search(DISK, text):
        return f"the disk is full, or its quota is exhausted ({line}); free some space"
    match = re.search(r"DataLoader worker \(pid.*?\)( is killed by signal: \w+)?", text)
    if match or _fetching(error):
        how = f"a data-loading process{match and match[1] or ' ended'}, probably for lack of memory"
        return f"{how}; lower data.num_workers, or set it to 0"
    if kind in ("DistBackendError", "DistNetworkError") or re.search(PEER, text):
        line = re.sub(r"\[/\S+\] ?", "", line)[:120]  # drops paths of source files
        return f"another process has died, or cannot be reached; see its message above ({line})"
    if isinstance(error, OSError) and (match := re.search(r"\[Errno \d+\] (.+?): ['\"](.+?)['\"]", text)):
        return f"{match[2]}: {match[1]}; it was accessible when training began: check the disk and permissions"
    return None


def at_start(error: BaseException) -> str:
    """The cause of an error before the end of the first batch, in one line."""
    if isinstance(error, OSError) and error.errno not in FULL:
        return describe(error)
    return mid_run(error) or describe(error)


def _fetching(error: BaseException) -> bool:
    """Whether the error was raised while fetching a batch from a worker process."""
    return any("resource_sharer" in frame.filename for frame in traceback.extract_tb(error.__traceback__))


def _original(error: BaseException) -> tuple[str, str]:
    """Type name and message of an exception; for a worker's, without the traceback that torch prepends."""
    name, text = type(error).__name__, str(error)
    if "in DataLoader worker process" not in text.partition("\n")[0]:
        return name, text
    found = re.findall(r"^([\w.]+)(?:: (.*(?:\n(?! |Traceback|$).*)*))?$", text, re.MULTILINE)
    return (found[-1][0].rpartition(".")[2], found[-1][1]) if found else (name, text)
