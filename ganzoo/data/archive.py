"""Zip archives of pictures, read member by member without unpacking them."""

from __future__ import annotations

import os
import re
import struct
import zipfile
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from ganzoo.checkpoint.bounds import check_unpacked, open_archive
from ganzoo.core.files import open_file
from ganzoo.core.text import visible

LOCAL = struct.Struct("<4s22x2H")  # a member's own header: signature, lengths of its name and its extra field
UTF_8, ENCRYPTED = 0x800, 0x1  # flags
LARGEST = 1 << 30  # maximum bytes of a file to be read


class Member(NamedTuple):
    """A file in a zip archive. It keeps nothing open, so all threads and processes can read it."""

    archive: Path
    name: str
    offset: int  # of its local header
    packed: int  # bytes in the archive
    size: int  # bytes
    method: int
    crc32: int

    def __str__(self) -> str:
        return f"{self.archive}/{self.name}"

    def content(self) -> bytes:
        """Its uncompressed bytes.

        Raises:
            ValueError: It is encrypted, compressed by an unsupported method, too large, or damaged.
            zlib.error, OSError: It cannot be read.
        """
        if self.method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError("encrypted, or compressed by a method other than deflate")
        if self.size > LARGEST:
            raise ValueError(f"{self.size:,} bytes, more than the limit of {LARGEST:,}")
        with open_file(self.archive) as file:
            file.seek(self.offset)
            signature, *lengths = LOCAL.unpack(file.read(LOCAL.size).ljust(LOCAL.size, b"\0"))
            file.seek(sum(lengths), os.SEEK_CUR)
            content = file.read(self.packed)
        if self.method == zipfile.ZIP_DEFLATED:
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, self.size + 1)
        if signature != b"PK\3\4" or len(content) != self.size or zlib.crc32(content) != self.crc32:
            raise ValueError("damaged in the zip archive")
        return content


File = Path | Member


def open_any(file: File) -> Any:
    """A regular file or a member of an archive, open for reading."""
    return BytesIO(file.content()) if isinstance(file, Member) else open_file(file)


def stamp(file: File) -> str:
    """Changes with the content: size and time of a file, or size and CRC-32 of a member."""
    if isinstance(file, Member):
        return f"{file.size} crc32 {file.crc32}"
    found = file.stat()
    return f"{found.st_size} {found.st_mtime_ns}"


def is_archive(path: Path) -> bool:
    """Whether a path is that of a zip archive, by its name."""
    return path.suffix.lower() == ".zip" and path.is_file()


def name_of(root: Path) -> str:
    """Name of the pictures in a folder or an archive."""
    return root.resolve().stem if is_archive(root) else root.resolve().name


def members(path: Path) -> tuple[dict[str, Member], set[str]]:
    """The files of an archive by name, and all its folders, without hidden ones.

    Names are those of the unpacked files: `/` separates folders, and bytes that are not UTF-8 are surrogate escapes. If
    everything is in one folder of the archive's name, names are relative to that folder.

    Raises:
        ValueError: It is damaged, would unpack to more than 100 times its size, or has two files of one name or a path
            that leads out of it.
        OSError: It cannot be opened.
    """
    try:
        with open_file(path) as file, open_archive(file) as archive:
            size = file.seek(0, os.SEEK_END)
            check_unpacked(archive, size)
            found, folders = _listed(path, archive.infolist(), size)
    except OSError:
        raise
    except Exception as error:  # zipfile raises many types on damaged files
        raise ValueError(
            f"{visible(path.absolute())} cannot be read as a zip archive: {error}; write it again, or unpack it"
        ) from error
    top = f"{path.stem}/"
    if found and all(name.startswith(top) for name in found):
        found = {name.removeprefix(top): member for name, member in found.items()}
        folders = {name.removeprefix(top) for name in folders if name.startswith(top)}
    return found, folders


def _listed(path: Path, entries: list[zipfile.ZipInfo], size: int) -> tuple[dict[str, Member], set[str]]:
    found: dict[str, Member] = {}
    folders: set[str] = set()
    for entry in entries:
        name = _name(entry)
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if not parts or any(part.startswith(".") for part in parts) or parts[0] == "__MACOSX":
            continue
        whole = "/".join(parts)
        folders.update("/".join(parts[:n]) for n in range(1, len(parts)))
        if name.endswith("/"):
            folders.add(whole)
            continue
        if whole in found:
            raise ValueError(f"it contains {visible(whole)} twice")
        if entry.compress_size > size:
            raise ValueError(f"{visible(whole)} is larger than the archive")
        method = -1 if entry.flag_bits & ENCRYPTED else entry.compress_type
        place = entry.header_offset, entry.compress_size, entry.file_size
        found[whole] = Member(path, whole, *place, method, entry.CRC)
    return found, folders


def _name(entry: zipfile.ZipInfo) -> str:
    """The name of a member; most programs store UTF-8, also without declaring it."""
    name = entry.orig_filename
    if not entry.flag_bits & UTF_8:  # read by zipfile in code page 437
        name = name.encode("cp437").decode("utf-8", "surrogateescape")
    name = name.replace("\\", "/")  # of Windows
    if name.startswith("/") or re.match("[A-Za-z]:/", name) or ".." in name.split("/") or "\0" in name:
        raise ValueError(f"the path of {visible(name)} leads out of it")
    return name
