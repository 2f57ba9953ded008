"""Text: of files, which is UTF-8; for terminals, which get no control characters; and words that were meant."""

from __future__ import annotations

import difflib
import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

NEAR, NEAR_SHORT = 0.7, 0.66  # likeness of a slip to what was meant; of three letters one may differ


def letters(text: str) -> str:
    """A file's name or an argument, with letters for those bytes that are UTF-8: where the locale is not, Python has
    bytes in their place. Other bytes stay."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # halves of letters, which JSON can hold
        return text


def composed(name: str) -> str:
    """A file's name as text that is equal for names that look the same: Macs store letters and accents apart (NFD)."""
    return unicodedata.normalize("NFC", letters(name))


def path_of(name: str | os.PathLike[str]) -> Path:
    """A path that a config or a user names, in UTF-8 where the locale's encoding lacks its letters; `~` is the home."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        name = os.fsdecode(os.fspath(name).encode("utf-8", "surrogateescape"))
    return Path(name).expanduser()


def one_line(text: Any) -> str:
    """Any text, on one line."""
    return " ".join(str(text).split())


def visible(text: Any, keep: str = "") -> str:
    """Any text with all that is not seen written out, but for the characters to keep: a name may steer a terminal."""
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in letters(str(text)))


def printable(text: Any) -> str:
    """Any text, on one line, with all that is not seen written out; words beyond 255 letters, which no file's name has,
    are cut."""
    cut = re.sub(r"([^\s/]{40})[^\s/]{216,}", r"\1...", one_line(text))
    return visible(cut)


class Escaped:
    """A standard stream through which all is printed: what would steer a terminal, and what the stream's encoding has
    no letters for, is written out.

    Attributes:
        terminal: the stream itself, for what draws on a terminal.
    """

    def __init__(self, stream: Any) -> None:
        self.terminal = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.terminal, name)

    def write(self, text: str) -> int:
        again = "\r" if text.startswith("\r") else ""  # tqdm writes its line anew
        shown = again + visible(text[len(again) :], keep="\n\t")
        encoding = getattr(self.terminal, "encoding", None) or "utf-8"
        self.terminal.write(shown.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)


@contextmanager
def escaping() -> Iterator[None]:
    """Both standard streams are `Escaped`; after an error that nobody caught they stay so, as its traceback follows."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(Any, stream and Escaped(stream)) for stream in before)  # a closed one is None
    yield
    sys.stdout, sys.stderr = before


def slip(word: str, known: Iterable[str]) -> str | None:
    """The known word that was meant by this one, which differs in a letter or so; None where none is near.

    Case, dashes before it, and how accents are stored do not matter. Words of several parts, `trainer.max_steps`, are
    as near as the parts that differ most: what two words share at the start says nothing.
    """
    plain = {_plain(name): name for name in reversed([*known])}  # of equal ones, the first
    likeness, name = max(((_likeness(_plain(word), name), name) for name in reversed(plain)), default=(0.0, ""))
    return plain[name] if likeness else None


def nearest(word: str, known: Iterable[str]) -> str | None:
    """What this word is a slip of, or the one that it is a part of: `size` of `image_size`."""
    known = [*known]
    parts = [name for name in known if len(word) > 2 and set(_words(word)) <= set(_words(name))]
    return slip(word, known) or (parts[0] if len(parts) == 1 else None)


def closest(word: str, known: Iterable[str], otherwise: str) -> str:
    """`; did you mean 'x'?` for the known word that is nearest to this one, or `; otherwise`."""
    match = nearest(word, known)
    if match is not None and match != word and composed(match) == composed(word):  # they look the same
        return f"; did you mean {ascii(match)}, whose accents are stored otherwise?"
    return f"; {otherwise}" if match is None else f"; did you mean {match!r}?"


def _plain(word: str) -> str:
    return composed(word).lower().lstrip("-")


def _words(word: str) -> list[str]:
    return re.split(r"[\W_]+", _plain(word))


def _likeness(a: str, b: str) -> float:
    """From 0, which is that of other words, to 1."""
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
