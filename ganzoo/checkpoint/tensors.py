"""Checks files of torch.save as a whole before torch reads them: the contents must not be larger than the file."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterable
from typing import Any, BinaryIO

import torch

from ganzoo.checkpoint.bounds import check_content, open_archive
from ganzoo.checkpoint.pickles import check_pickle

LARGEST = 1 << 24  # maximum bytes of a pickle, which contains no tensors
ZIP = b"PK\x03\x04"
OLD = 5  # pickles at the start of an old file: magic number, version, machine, content, names of storages


def load(file: BinaryIO, map_location: Any = "cpu", old: bool = False) -> Any:
    """Content of a file of torch.save: numbers, strings, tensors, and dicts, lists and tuples of these.

    Args:
        file: read from its start to its end.
        map_location: device of the tensors.
        old: whether to accept files of torch before 1.6, which are no archives.

    Raises:
        Exception: the file is damaged, calls a forbidden function, or has content larger than itself.
    """
    check_file(file, old)
    content = torch.load(file, map_location=map_location, weights_only=True)
    check_content(content, file.seek(0, os.SEEK_END))
    return content


def check_file(file: BinaryIO, old: bool = False) -> None:
    """The checks of `load` that do not need the content; leaves the file at its start."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    archive = file.read(len(ZIP)) == ZIP or not old  # torch's own criterion
    file.seek(0)
    if archive:
        check_pickle(io.BytesIO(_pickle_of(file, size)))
    else:
        for _ in range(OLD):
            check_pickle(file)
    file.seek(0)


def _pickle_of(file: BinaryIO, size: int) -> bytes:
    """`data.pkl` of an archive as written by torch.

    Raises:
        Exception: the archive is damaged, or not as written by torch.
    """
    with open_archive(file) as archive:
        found = archive.infolist()
        folder = found[0].orig_filename.partition("/")[0]
        _check_members(found, folder, size)
        pickle = archive.getinfo(f"{folder}/data.pkl")
        if pickle.file_size > LARGEST:
            raise ValueError(f"its pickle has {pickle.file_size:,} bytes, more than {LARGEST:,}")
        return archive.read(pickle)


def _check_members(found: Iterable[zipfile.ZipInfo], folder: str, size: int) -> None:
    names: set[str] = set()
    end = 0
    for member in sorted(found, key=lambda member: member.header_offset):
        name = member.orig_filename
        if member.compress_type or member.compress_size != member.file_size or member.flag_bits & ~0x808:
            raise ValueError("it is compressed or encrypted, unlike files of torch.save")
        if member.extra and size < 1 << 32:  # for sizes over 4 GB; programs disagree if there are several
            raise ValueError("its zip directory has fields that torch.save does not write")
        if not name.isascii() or not name.isprintable() or not name.startswith(f"{folder}/") or name.lower() in names:
            raise ValueError(f"it has a member {name[:60]!r}, which torch.save does not write")
        if member.header_offset < end or (not names and member.header_offset):
            raise ValueError("its members overlap, or do not begin at its start")
        end = member.header_offset + 30 + len(name) + member.file_size
        names.add(name.lower())
    if end > size:
        raise ValueError(f"its members exceed the {size:,} bytes of the file")
