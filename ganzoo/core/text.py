"""Text: UTF-8 names, escapes for terminals, and suggestions for misspelled words."""

from __future__ import annotations

import difflib
import os
import re
import shlex
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

NEAR, NEAR_SHORT = 0.7, 0.66  # minimum similarity of a misspelling; short words: one of three letters may differ


def letters(text: str) -> str:
    """A file name or argument whose surrogate escapes are decoded if they are UTF-8: Python escapes bytes that the
    locale's encoding cannot decode. Other bytes stay escaped."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # lone surrogates, which JSON can contain
        return text


def composed(name: str) -> str:
    """A file name in NFC, so that names that look equal are equal: Macs store letters and accents separately (NFD)."""
    return unicodedata.normalize("NFC", letters(name))


def path_of(name: str | os.PathLike[str]) -> Path:
    """A path from a config or a user, in UTF-8 if the locale's encoding lacks its letters; `~` is expanded."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        name = os.fsdecode(os.fspath(name).encode("utf-8", "surrogateescape"))
    try:
        return Path(name).expanduser()
    except RuntimeError:  # ~name, and no user has this name
        return Path(name)


def quoted(argument: Any) -> str:
    """An argument as this system's shell reads it, for printed commands."""
    if os.name != "nt":
        return shlex.quote(str(argument))
    import subprocess  # slow, and needed here alone

    found = subprocess.list2cmdline([str(argument)])  # quotes for spaces only; cmd splits at & and others
    return found if '"' in found or re.fullmatch(r"[\w.:\\/=,+-]+", found) else f'"{found}"'


def one_line(text: Any) -> str:
    """Any text, on one line."""
    return " ".join(str(text).split())


def visible(text: Any, keep: str = "") -> str:
    """Text with non-printable characters escaped, except those to keep: names may contain terminal control
    sequences."""
    if (text := str(text)).isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in letters(text))


def printable(text: Any) -> str:
    """Text on one line with non-printable characters escaped; words of more than 255 characters, longer than any
    file name, are cut."""
    cut = re.sub(r"([^\s/]{40})[^\s/]{216,}", r"\1...", one_line(text))
    return visible(cut)


class Escaped:
    """A standard stream that escapes control characters, and characters that its encoding lacks.

    Attributes:
        terminal: the wrapped stream, for programs that draw on a terminal.
    """

    def __init__(self, stream: Any) -> None:
        self.terminal = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.terminal, name)

    def isatty(self) -> bool:
        """False, so that libraries write no colours, which would be escaped."""
        return False

    def write(self, text: str) -> int:
        again = "\r" if text.startswith("\r") else ""  # tqdm rewrites its line
        shown = again + visible(text[len(again) :], keep="\n\t")
        encoding = getattr(self.terminal, "encoding", None) or "utf-8"
        self.terminal.write(shown.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)


@contextmanager
def escaping() -> Iterator[None]:
    """Make both standard streams `Escaped`. They stay so after an exception, to escape its traceback."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(Any, stream and Escaped(stream)) for stream in before)  # a closed one is None
    yield
    sys.stdout, sys.stderr = before


def slip(word: str, known: Iterable[str]) -> str | None:
    """The known word that this word misspells by about one letter; None if there is none.

    Case, leading dashes and the storage of accents do not matter. Compound words, such as `trainer.max_steps`, are
    compared part by part; the least similar parts count, so a common prefix does not help.
    """
    plain = {_plain(name): name for name in reversed([*known])}  # if several are equal, the first
    likeness, name = max(((_likeness(_plain(word), name), name) for name in reversed(plain)), default=(0.0, ""))
    return plain[name] if likeness else None


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that this one misspells, or the only one that contains it as a part: `image_size` for `size`."""
    known = [*known]
    parts = [name for name in known if len(word) > 2 and set(_words(word)) <= set(_words(name))]
    return slip(word, known) or (parts[0] if len(parts) == 1 else None)


def closest(word: str, known: Iterable[str], otherwise: str) -> str:
    """`; did you mean 'x'?` with the known word nearest to this one, or `; otherwise`."""
    match = nearest(word, known)
    if match is not None and match != word and composed(match) == composed(word):  # they look the same
        return f"; did you mean {ascii(match)}, whose accents are encoded differently?"
    return f"; {otherwise}" if match is None else f"; did you mean {match!r}?"


def _plain(word: str) -> str:
    return composed(word).lower().lstrip("-")


def _words(word: str) -> list[str]:
    return re.split(r"[\W_]+", _plain(word))


def _likeness(a: str, b: str) -> float:
    """Similarity from 0 (unrelated) to 1."""
    ours, theirs = re.split(r"[./]", a), re.split(r"[./]", b)
    return min(map(_of_parts, ours, theirs)) if len(ours) == len(theirs) else 0.0


def _of_parts(a: str, b: str) -> float:
    ours, theirs = re.split(r"[_-]", a), re.split(r"[_-]", b)
    if len(ours) == len(theirs):
        return min(map(_ratio, ours, theirs))
    while len(ours) > 1 and len(theirs) > 1 and ours[0] == theirs[0]:
        del ours[0], theirs[0]
    return _ratio("_".join(ours), "_".join(theirs))


def _ratio(a: str, b: str) -> float:
    least = NEAR_SHORT if len(a) <= 3 else NEAR
    matcher = difflib.SequenceMatcher(None, a, b)
    if a == b or matcher.real_quick_ratio() < least or matcher.quick_ratio() < least:
        return float(a == b)
    return ratio if (ratio := matcher.ratio()) >= least else 0.0
