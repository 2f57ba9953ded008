"""Reads a pickle of the official StyleGAN or R3GAN code without calling anything that it names.

A pickle says which constructors to call. Here, every constructor of the official code makes an inert `Record` of its
arguments, and every other name is refused. Tensors are not built; their values remain bytes.

Run as a program, which needs no torch, it reads a pickle from stdin and writes its networks to stdout. Except on
Windows, its memory is limited, and it can open neither files nor connections.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from typing import Any, BinaryIO

try:
    import resource
except ImportError:  # on Windows
    resource = None  # type: ignore[assignment]

REFUSED = 65  # exit code; the reason is the last line of stderr
ROOM = 1 << 30  # bytes of memory beside the file's contents, which are there twice
LONGEST = 1 << 20  # maximum bytes of the description of all networks
NETWORKS = ("G", "D", "G_ema")
DICTS = ("collections.OrderedDict", "dnnlib.util.EasyDict")
KNOWN = re.compile(
    r"(training|torch_utils|dnnlib|R3GAN|BaselineGAN)\.[\w.]+|torch\.nn\.(modules|parameter)\.[\w.]+"
    r"|torch\._utils\._rebuild_(tensor_v2|parameter)|torch\.storage\._load_from_bytes|torch\.\w+Storage"
    r"|torch\.(Size|device|b?float\d+|int\d+|channels_last|contiguous_format)|collections\.OrderedDict"
    r"|numpy\.(dtype|ndarray)|numpy\._?core\.(multiarray\.(scalar|_reconstruct)|numeric\._frombuffer)|builtins\.set"
)
TENSORFLOW = re.compile(r"(dnnlib\.)?(tflib|tfutil)\.")
MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001  # at the start of a pickled storage


class Refused(ValueError):
    """The pickle is not read; the message continues `FILE ...`."""


class Record:
    """What a known name would have made.

    Attributes:
        origin: the name.
        args: of the call.
        state: attributes set after it.
    """

    origin = ""
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> Record:
        record = super().__new__(cls)
        record.args, record.state = args, {}
        return record

    def __setstate__(self, state: Any) -> None:
        self.state = state


class Reader(pickle.Unpickler):
    """An unpickler of plain values, dicts and `Record`s."""

    def find_class(self, module: str, name: str) -> Any:
        origin = f"{module}.{name}"
        if TENSORFLOW.match(origin):
            raise Refused(
                "is a TensorFlow pickle; convert it with legacy.py of the official stylegan2-ada-pytorch first, and "
                "give the result"
            )
        if not KNOWN.fullmatch(origin):
            raise Refused(
                f"names {origin[:80]!a}, which is not part of the official networks; loading it would run code, so it "
                "was refused: use another file"
            )
        return dict if origin in DICTS else type("Record", (Record,), {"origin": origin})

    def persistent_load(self, pid: Any) -> Any:
        return pid


def contents(file: BinaryIO) -> tuple[dict[str, Any], list[memoryview]]:
    """A description of a pickle's networks, and the bytes of their tensors.

    The description has `networks`: each tensor's storage, offset, size and stride by name; `options`: arguments of the
    networks' constructors, if stored; `storages`: type and number of bytes; `images`: seen in training.

    Raises:
        Refused: the pickle names other things than official networks, or has none.
        Exception: it is damaged.
    """
    content = Reader(file).load()
    if not isinstance(content, dict) or not any(isinstance(content.get(key), Record) for key in NETWORKS):
        raise Refused("has no networks G, D and G_ema; give a pickle that the official code writes in training")
    found = {key: content[key] for key in NETWORKS if isinstance(content.get(key), Record)}
    blobs: dict[int, tuple[int, bytes]] = {}  # number and content, by identity: each was read from the file once
    networks = {key: {name: _tensor(t, blobs) for name, t in _tensors(of)} for key, of in found.items()}
    storages = [_storage(blob) for _, blob in blobs.values()]
    index = {
        "networks": networks,
        "options": {key: _state(of).get("_init_kwargs", {}) for key, of in found.items()},
        "storages": [(kind, len(values)) for kind, values in storages],
        "images": content.get("cur_nimg"),
    }
    return index, [values for _, values in storages]


def _state(module: Record) -> dict[str, Any]:
    return module.args[0]["state"] if module.origin.endswith("._reconstruct_persistent_obj") else module.state


def _tensors(module: Record, prefix: str = "") -> Iterator[tuple[str, Record]]:
    """Parameters and buffers of a module and those within, by their names in its `state_dict`."""
    state = _state(module)
    for name, tensor in [*state["_parameters"].items(), *state["_buffers"].items()]:
        if tensor is not None:
            yield f"{prefix}{name}", tensor
    for name, inner in state["_modules"].items():
        if inner is not None:
            yield from _tensors(inner, f"{prefix}{name}.")


def _tensor(tensor: Record, blobs: dict[int, tuple[int, bytes]]) -> tuple[int, int, Any, Any]:
    """Number of its storage, offset, size and stride."""
    if tensor.origin == "torch._utils._rebuild_parameter":
        tensor = tensor.args[0]
    storage, offset, size, stride = tensor.args[:4]
    (blob,) = storage.args
    if (tensor.origin, storage.origin) != ("torch._utils._rebuild_tensor_v2", "torch.storage._load_from_bytes"):
        raise ValueError("not a tensor")
    number, _ = blobs.setdefault(id(blob), (len(blobs), blob))
    return number, offset, size, stride


def _storage(blob: bytes) -> tuple[str, memoryview]:
    """Type and values of a storage: torch.save wrote four pickles, one with the keys of all storages, and values."""
    file = BytesIO(blob)
    magic, version, system, (_, of, key, _, count, view), keys = (Reader(file).load() for _ in range(5))
    stored = int.from_bytes(file.read(8), "little")
    if (magic, version, view, keys, stored) != (MAGIC, VERSION, None, [key], count) or not system["little_endian"]:
        raise ValueError("not a storage")
    return of.origin, memoryview(blob)[file.tell() :]


def _text(index: dict[str, Any]) -> bytes:
    """JSON, in which names stand for what it cannot express.

    Raises:
        ValueError: it is too long: a few bytes of a pickle can stand for many values.
    """
    text = ""
    for part in json.JSONEncoder(skipkeys=True, default=_shown).iterencode(index):
        text += part
        if len(text) > LONGEST:
            raise ValueError("too many tensors or options")
    return text.encode()


def _shown(value: Any) -> Any:
    if isinstance(value, Record):
        return value.args[0] if value.origin == "torch.Size" else f"<{value.origin}>"
    return f"<{type(value).__name__}>"


def confine(size: int) -> None:
    """Limits this process to some memory, and to the files that are open: no others, no connections, no core dump."""
    if resource is None:
        return
    for kind, most in (resource.RLIMIT_AS, ROOM + 2 * size), (resource.RLIMIT_NOFILE, 0), (resource.RLIMIT_CORE, 0):
        with suppress(ValueError, OSError):  # lower already, or unknown to this system
            resource.setrlimit(kind, (most, most))


def main() -> int:
    source, out = sys.stdin.buffer, sys.stdout.buffer
    confine(os.fstat(source.fileno()).st_size)
    try:
        index, values = contents(source)
        text = _text(index)
    except Refused as error:
        reason = str(error)
    except MemoryError:
        reason = "needs far more memory than its size, so it was not read; use another file"
    except Exception as error:  # damaged files may raise anything
        reason = f"is damaged, or not a pickle of the official networks ({type(error).__name__}); download it again"
    else:
        out.write(len(text).to_bytes(8, "little") + text)
        out.writelines(values)
        out.flush()
        return 0
    print(reason, file=sys.stderr)
    return REFUSED


if __name__ == "__main__":
    sys.exit(main())
