"""Picture files below a folder or in an archive: finding them, and leaving out those that cannot be read."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ganzoo.core.files import in_threads
from ganzoo.core.text import visible
from ganzoo.data.archive import File, is_archive, members
from ganzoo.data.decoding import Header, header
from ganzoo.data.rasters import ARRAYS

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")


def readable(root: Path, files: dict[str, File], corrupt: str) -> dict[str, Header]:
    """The headers (see `header`) of all usable files; the others are passed to `leave_out`."""
    seen = dict(zip(files, in_threads(header, files.values()), strict=True))
    bad = {name: problem for name, problem in seen.items() if isinstance(problem, str)}
    leave_out(bad, len(files), f"files in {visible(root.absolute())} cannot be read as pictures", corrupt)
    return {name: found for name, found in seen.items() if not isinstance(found, str)}


def leave_out(bad: dict[str, str], n: int, what: str, corrupt: str) -> None:
    """Raise a ValueError for bad files (name -> problem), or warn if `corrupt` is "skip" and other files are left."""
    if not bad:
        return
    message = f"{len(bad)} of {n} {what}: {listing(bad)}"
    if len(bad) == n:
        raise ValueError(f"{message}.\nNo pictures are left to train on: repair these files, or check the path.")
    if corrupt == "refuse":
        raise ValueError(f"{message}.\nRemove them, or set data.corrupt to skip, to train on the others.")
    warnings.warn(f"skipped: {message}", stacklevel=4)


class Tree(NamedTuple):
    """The contents of a folder or an archive, without hidden files and folders; names are relative. Arrays are pictures
    if there are no others."""

    pictures: dict[str, File]  # sorted by name
    others: dict[str, File]
    folders: set[str]


def find(root: Path) -> Tree:
    """The files below a folder or in a zip archive.

    Raises:
        FileNotFoundError: It does not exist, or contains no pictures.
        NotADirectoryError: It is another file.
        OSError: A folder below it cannot be listed.
        ValueError: It is a damaged or unsafe archive.
    """
    if not root.exists():
        raise FileNotFoundError(f"There is no folder or file {root.absolute()}: check the path.")
    if not is_archive(root) and not root.is_dir():
        raise NotADirectoryError(f"{root.absolute()} is a file: give the folder of the pictures, or a .zip of them.")
    files, folders = members(root) if is_archive(root) else _walk(root)
    pictures = {name: files[name] for name in sorted(files) if name.lower().endswith(EXTENSIONS)}
    pictures = pictures or {name: files[name] for name in sorted(files) if name.lower().endswith(ARRAYS)}
    others = {name: file for name, file in files.items() if name not in pictures}
    if not pictures:
        raise FileNotFoundError(
            f"No pictures in {root.absolute()} or below: looked for {' '.join(EXTENSIONS + ARRAYS)}, found "
            f"{len(others)} other files: convert these, or check the path."
        )
    return Tree(pictures, others, folders)


def _walk(root: Path) -> tuple[Mapping[str, File], set[str]]:
    """All files and folders below a folder, by relative name; hidden ones are ignored."""
    files: dict[str, File] = {}
    folders, seen = set[str](), set[str]()
    for folder, below, names in os.walk(root, onerror=_refuse, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:  # a symbolic link to a folder seen before
            below.clear()
            continue
        seen.add(real)
        own = Path(folder).relative_to(root)
        kept = (name for name in below if not name.startswith(".") and name != "lost+found")
        below[:] = sorted(kept, key=partial(_links_last, folder))
        folders.add(own.as_posix())
        files |= {(own / name).as_posix(): Path(folder) / name for name in names if not name.startswith(".")}
    return files, folders - {"."}


def _links_last(folder: str, name: str) -> tuple[bool, str]:
    """A key that sorts folders before links, which may name the same ones."""
    return os.path.islink(os.path.join(folder, name)), name


def _refuse(error: OSError) -> None:
    """Raises an error of listing a folder, whose pictures would be missing, and with it the numbers of its class."""
    raise error


def listing(files: Iterable[str] | dict[str, str], most: int = 10) -> str:
    """The first `most` files, one per line, with the reasons if given."""
    named = [f"{name}: {why}" for name, why in files.items()] if isinstance(files, dict) else files
    lines = [visible(line) for line in named]
    rest = [f"and {len(lines) - most} more"] if len(lines) > most else []
    return ";".join(f"\n  {line}" for line in lines[:most] + rest)  # also legible if joined into one line
