"""What a file claims of itself is held against its size, before any of it is unpacked, allocated or built.

A stranger's file of a megabyte may claim to be a terabyte; each check here raises a ValueError that says so. And the
paths in it may lead anywhere.
"""

from __future__ import annotations

import math
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

PATHS = re.compile(r"(^|_)(dir|file)?(path|dir|directory|file|filename|folder|ckpt)s?(_|$)")  # keys of paths
MOST = 1_000_000  # values in a file of tensors; a checkpoint of a large model has 10,000
SMALL = 1 << 26  # bytes; so much may be unpacked, or built, of any file


def check_archive(file: BinaryIO, times: float = 1) -> None:
    """A zip archive unpacks to at most `times` its size. What torch writes is not compressed; arrays may be.

    Raises:
        ValueError: to more, or it is no archive.
    """
    size = file.seek(0, os.SEEK_END)
    try:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, OSError) as error:
        raise ValueError(f"no archive: {str(error)[:60]}") from error
    finally:
        file.seek(0)
    if unpacked > max(times * size, SMALL):
        raise ValueError(f"it would unpack to {unpacked:,} bytes from {size:,}")


def read_npz(file: BinaryIO, *names: str) -> dict[str, np.ndarray]:
    """Arrays of a .npz, those of these names or all; nothing is unpickled.

    Raises:
        ValueError, KeyError, OSError, zipfile.BadZipFile, zlib.error: they are not there, not whole, or not arrays of
            numbers as large as the file says.
    """
    check_archive(file, times=100)  # white pictures: 1000; photographs: 2
    with zipfile.ZipFile(file) as archive:
        for member in [archive.getinfo(f"{name}.npy") for name in names] or archive.infolist():
            with archive.open(member) as opened:
                version = npy.read_magic(opened)
                read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                shape, _, dtype = read(opened)
                if dtype.hasobject:
                    raise ValueError(f"{member.filename} holds Python objects, which are never unpickled")
                if opened.tell() + math.prod(shape) * dtype.itemsize != member.file_size:
                    raise ValueError(f"{member.filename} is no array of {dtype} {list(shape)}")
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in names or arrays.files}


def check_content(content: Any, size: int) -> None:
    """What was read from a file of `size` bytes has no tensor that is larger, and is not folded into itself.

    Args:
        content: numbers, strings, tensors, and dicts, lists and tuples of these.
        size: of the file, in bytes.

    Raises:
        ValueError: it has.
    """
    left, rest = MOST, [content]
    while rest:
        value = rest.pop()
        if isinstance(value, Tensor) and (
            value.layout != torch.strided or value.is_meta or value.numel() * value.element_size() > size
        ):
            raise ValueError(f"a tensor claims to be {list(value.shape)}, which {size:,} bytes cannot hold")
        inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple | set) else ()
        left -= 1 + len(inner)
        if left < 0:
            raise ValueError(f"it holds more than {MOST:,} values")
        rest += inner


def foreign_path(state: Any, folder: str) -> str | None:
    """The first path in what a callback saved that leads out of a folder, after links; None where none does.

    Args:
        state: numbers, strings, tensors, and dicts, lists and tuples of these. A string is a path if its key says so,
            if there is such a file, or if it leads upwards, home, to the root or to another machine.
        folder: that whoever goes on from the state may change.
    """
    rest = [(state, "")]
    while rest:
        value, key = rest.pop()
        if isinstance(value, str):
            if _is_path(value, key) and not _is_below(value, folder):
                return value
        elif isinstance(value, Mapping):
            rest += [*((name, key) for name in value), *((inner, str(name)) for name, inner in value.items())]
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
    """A model that is built inside has at most `times` the values of these weights, or few, and as many tensors.

    Twice, since parametrisations register a weight again.

    Raises:
        ValueError: it has more; the rest of it was not built.
    """
    values, tensors = max(times * sum(w.numel() for w in weights.values()), SMALL / 4), times * len(weights)

    def count(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        nonlocal values, tensors
        if tensor is not None:
            values -= tensor.numel()
            tensors -= 1
            if values < 0 or tensors < 0:
                raise ValueError("its arguments make a model that is larger than its weights")

    hooks = register_module_parameter_registration_hook(count), register_module_buffer_registration_hook(count)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
