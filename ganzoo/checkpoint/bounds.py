"""Checks of untrusted files before anything is unpacked, allocated or built.

A file of a megabyte may declare contents of a terabyte; such files are rejected. The paths in a file may point
anywhere; `foreign_path` finds those.
"""

from __future__ import annotations

import math
import os
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.overrides import TorchFunctionMode

PATHS = re.compile(r"(^|_)(dir|file)?(path|dir|directory|file|filename|folder|ckpt)s?(_|$)")  # keys of paths
MOST = 1_000_000  # maximum values in a file of tensors; a checkpoint of a large model has 10,000
LARGER = "its arguments describe a model larger than its weights"
MAKERS = {torch.empty, torch.zeros, torch.ones, torch.full, torch.eye, torch.arange, torch.linspace, torch.logspace}
MAKERS |= {torch.rand, torch.randn, torch.randint, torch.randperm}
DEEPEST = 100  # maximum nesting of dicts, lists and tuples
DIRECTORY = 1 << 24  # maximum bytes of a zip archive's directory, about 70 per member
# Records at the end of a zip archive
END, END64, LOCATOR = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")
SMALL = 1 << 26  # bytes allowed for the contents or the model of any file, however small


def open_archive(file: BinaryIO) -> zipfile.ZipFile:
    """Open a zip archive with a single directory at its end, so that all programs find the same members.

    Only a short comment may follow the directory.

    Raises:
        ValueError, OSError, struct.error, zipfile.BadZipFile, NotImplementedError: the file is no such archive.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(start := max(size - 256, 0))
    tail = file.read()
    if (end := tail.rfind(b"PK\5\6")) < 0:
        raise ValueError("not a zip archive")
    _, *disks, here, members, length, offset, comment = END.unpack_from(tail, end)
    whole = end + END.size + comment == len(tail)
    if end >= LOCATOR.size + END64.size and tail[end - LOCATOR.size : end].startswith(b"PK\6\7"):
        _, disk, place, parts = LOCATOR.unpack_from(tail, end - LOCATOR.size)
        small = here, members, length, offset
        end -= LOCATOR.size + END64.size
        kind, rest, _, _, *more, here, members, length, offset = END64.unpack_from(tail, end)
        large = min(here, 0xFFFF), min(members, 0xFFFF), min(length, 0xFFFFFFFF), min(offset, 0xFFFFFFFF)
        whole = whole and kind == b"PK\6\6" and (rest, disk, place, parts, small) == (44, 0, start + end, 1, large)
        disks += more
    if not whole or any(disks) or here != members or offset + length != start + end:
        raise ValueError("its zip directory is missing, duplicated or not at its end")
    if length > DIRECTORY:
        raise ValueError(f"its zip directory has {length:,} bytes, more than {DIRECTORY:,}")
    archive = zipfile.ZipFile(file)
    if len(archive.infolist()) != members:
        raise ValueError("its zip directory has more members than it declares")
    return archive


def check_unpacked(archive: zipfile.ZipFile, size: int) -> None:
    """Reject an archive of `size` bytes that declares much larger contents.

    Raises:
        ValueError: it is rejected.
    """
    unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > max(100 * size, SMALL):  # images: 1000 times for white ones, 2 for photographs
        raise ValueError(f"it would unpack from {size:,} to {unpacked:,} bytes")


def check_method(member: zipfile.ZipInfo) -> None:
    """Reject a member that Python would decompress without a limit (bzip2, LZMA), or that is encrypted.

    Raises:
        ValueError: it is rejected.
    """
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
        raise ValueError(f"{member.filename} is encrypted, or not compressed as numpy does")


def npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array in numpy's format; the file is then at its first value.

    Raises:
        ValueError: it is damaged, or contains Python objects.
    """
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("it contains Python objects, which are never unpickled")
    return shape, dtype


def read_npz(file: BinaryIO, *names: str) -> dict[str, np.ndarray]:
    """Arrays of a .npz, those named or all; nothing is unpickled.

    Raises:
        Exception: arrays are missing or damaged, not numeric, or not of the size that the file claims.
    """
    size = file.seek(0, os.SEEK_END)
    with open_archive(file) as archive:
        check_unpacked(archive, size)
        for member in [archive.getinfo(f"{name}.npy") for name in names] or archive.infolist():
            check_method(member)
            with archive.open(member) as opened:
                shape, dtype = npy_header(opened)
                if opened.tell() + math.prod(shape) * dtype.itemsize != member.file_size:
                    raise ValueError(f"{member.filename} does not have the size of an array {list(shape)} of {dtype}")
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in names or arrays.files}


def check_content(content: Any, size: int) -> None:
    """Reject the content of a file if it has tensors larger than the file, all together more than three times as large
    (weights may be tied), or too many or too deeply nested values.

    Args:
        content: numbers, strings, tensors, and dicts, lists and tuples of these.
        size: of the file, in bytes.

    Raises:
        ValueError: the content is rejected.
    """
    left, rest, room = MOST, [(content, 0)], 3 * size
    while rest:
        value, depth = rest.pop()
        if isinstance(value, Tensor) and (
            value.layout != torch.strided or value.is_meta or value.numel() * value.element_size() > size
        ):
            raise ValueError(f"a tensor of shape {list(value.shape)} does not fit into {size:,} bytes")
        room -= value.numel() * value.element_size() if isinstance(value, Tensor) else 0
        if room < 0:
            raise ValueError(f"its tensors have far more than its {size:,} bytes")
        inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple | set) else ()
        left -= 1 + len(inner)
        if left < 0 or depth > DEEPEST:
            raise ValueError(f"it has more than {MOST:,} values, or {DEEPEST} levels of nesting")
        rest += [(part, depth + 1) for part in inner]


class _Sizes(TorchFunctionMode):
    """Runs functions that create tensors on the meta device first, and rejects results of more than `most` values."""

    def __init__(self, most: float) -> None:
        super().__init__()
        self.most = most

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in MAKERS and func(*args, **{**kwargs, "device": "meta"}).numel() > self.most:
            raise ValueError(LARGER)
        return func(*args, **kwargs)


def foreign_path(state: Any, folder: str) -> str | None:
    """The first path in the state of a callback that leads out of a folder, with links resolved; None if there is none.

    Args:
        state: numbers, strings, tensors, and dicts, lists and tuples of these. A string is a path if its key says so,
            if such a file exists, or if it is absolute, starts with `~`, or contains `..` or `://`. The outermost names
            are no paths.
        folder: in which training may change files after it resumes from the state.
    """
    rest = [(state, "")]
    while rest:
        value, key = rest.pop()
        if isinstance(value, str):
            if _is_path(value, key) and not _is_below(value, folder):
                return value
        elif isinstance(value, Mapping):
            names = () if value is state else value  # the outermost are those of the callback's own values
            rest += [*((name, key) for name in names), *((inner, str(name)) for name, inner in value.items())]
        elif isinstance(value, list | tuple | set):
            rest += [(inner, key) for inner in value]
    return None


def _is_path(text: str, key: str) -> bool:
    leads = os.path.isabs(text) or text.startswith("~") or ".." in Path(text).parts or "://" in text
    return bool(text) and bool(PATHS.search(key.lower()) or leads or "\0" in text or os.path.lexists(text))


def _is_below(text: str, folder: str) -> bool:
    if "://" in text or "\0" in text:
        return text.startswith(f"{folder}/") and ".." not in text.split("/")
    path, above = (Path(os.path.expanduser(name)).resolve() for name in (text, folder))
    return path.is_relative_to(above)


@contextmanager
def no_larger(weights: Mapping[str, Tensor], times: float = 2) -> Iterator[None]:
    """Inside, models may have `times` as many values as these weights, and `times` as many tensors.

    `SMALL` bytes of values are always allowed. The default is 2, since parametrisations register a weight again. Larger
    tensors are not even allocated.

    Raises:
        ValueError: the model is larger; it is not completed.
    """
    values, tensors = max(times * sum(w.numel() for w in weights.values()), SMALL / 4), times * len(weights)

    def count(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        nonlocal values, tensors
        if tensor is not None:
            values -= tensor.numel()
            tensors -= 1
            if values < 0 or tensors < 0:
                raise ValueError(LARGER)

    hooks = register_module_parameter_registration_hook(count), register_module_buffer_registration_hook(count)
    try:
        with _Sizes(values):
            yield
    finally:
        for hook in hooks:
            hook.remove()
