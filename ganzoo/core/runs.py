"""The folders of runs: their numbers, and the lock of the process that trains in one."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import IO

from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ganzoo.core.atomic import path_part
from ganzoo.core.files import check_regular, open_file

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

_locks: dict[str, IO[str]] = {}  # of this process


def next_run(root: Path, name: str) -> Path:
    """`root/NNN-name` with the number after the largest in use."""
    return root / f"{max(_numbers(root), default=0) + 1:03d}-{path_part(name)}"


def take_next(root: Path, name: str) -> tuple[Path, list[Path]]:
    """Creates and locks the folder of `next_run`; simultaneous runs get different numbers. Only the first process of a
    run does; the others guess the folder until `RunFolder.setup`.

    Returns:
        The folder, and all folders that were created, innermost first.
    """
    if not _is_first():
        return next_run(root, name), []
    made = [] if root.exists() else [root]
    number = 0
    while True:
        root.mkdir(parents=True, exist_ok=True)
        number = max(number, *_numbers(root), 0) + 1
        mark = root / f".{number:03d}"  # whoever creates it owns the number
        try:
            mark.mkdir()
        except (FileExistsError, FileNotFoundError):  # or another run has removed the root
            continue
        try:
            if number not in _numbers(root):
                folder = root / f"{number:03d}-{path_part(name)}"
                folder.mkdir()
                lock(folder)
                return folder, [folder, *made]
        finally:
            mark.rmdir()


def _numbers(root: Path) -> set[int]:
    return {int(match[1]) for path in root.glob("*") if (match := re.match(r"(\d{1,9})-", path.name))}


def runs_of(root: Path, config: str) -> list[Path]:
    """Runs with this resolved config, in order of their numbers."""
    files = [file for file in root.glob("*-*/config.yaml") if _bytes(file) == config.encode()]
    return sorted((file.parent for file in files), key=lambda run: (len(run.name.partition("-")[0]), run.name))


def _bytes(file: Path) -> bytes | None:
    """Contents of another run's file; None if it is not a readable file."""
    try:
        with open_file(file) as opened:
            return bytes(opened.read())
    except OSError:
        return None


def lock(folder: Path) -> None:
    """Locks a run until this process ends; with several processes, for the first of them.

    Raises:
        MisconfigurationException: another process has the lock, or the folder contains a link that leads elsewhere.
        OSError: a file in it is a pipe, a device or a socket.
    """
    _check_links(folder)
    file = _lock_file(folder)
    if fcntl is None or file in _locks or not _is_first():
        return
    _locks[file] = opened = open_file(file, "w", encoding="utf-8")  # closing it would release the lock
    try:
        fcntl.lockf(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)  # flock would be inherited by workers
    except BlockingIOError as error:
        del _locks[file]
        raise MisconfigurationException(
            f"another process is training in {folder}; wait until it has ended, or start a new run without --ckpt_path"
        ) from error
    except OSError:  # a file system without locks
        pass


def is_locked(folder: Path) -> bool:
    """Whether the folder at this path is still the one that this process has locked; True if it has locked none."""
    file = _locks.get(path := _lock_file(folder))
    try:
        return file is None or os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
    except OSError:  # a network file system may recover
        return True


def unlock(folder: Path) -> None:
    """Releases the lock of a run's folder."""
    if (file := _locks.pop(_lock_file(folder), None)) is not None:
        file.close()


def _lock_file(folder: Path) -> str:
    """Its absolute path, which is asked for in every batch: pathlib takes longer."""
    return os.path.abspath(os.path.join(folder, ".lock"))


def _is_first() -> bool:
    """Whether this is the first process of a training, as far as known before there is a Trainer."""
    return not getattr(rank_zero_only, "rank", 0) and not int(os.environ.get("NODE_RANK") or 0)


def _check_links(folder: Path) -> None:
    """Ensures that training writes inside the run only, even if the run comes from somebody else.

    Raises:
        MisconfigurationException: a file or a folder of the run is a link that leads elsewhere.
        OSError: it is a pipe, a device or a socket.
    """
    own = set(folder.glob("wandb/*/logs/*"))  # wandb links to its own log; each start uses another folder
    for path in folder.rglob("*"):
        if path.is_symlink() and path not in own and not path.resolve().is_relative_to(folder.resolve()):
            raise MisconfigurationException(f"{path} is a link to {path.resolve()}, outside the run; delete the link")
        check_regular(path)
