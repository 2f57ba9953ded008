"""Files of torch.save: plain values are read; pickles that could allocate more than their size are refused unread."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import Counter, OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ganzoo.checkpoint import pickles, tensors


def saved(content: Any, **how: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **how)
    return file.getvalue()


def packed(pickled: bytes | None = None, compression: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    """A torch file with this pickle, by default that of a tensor, and with additional members."""
    with zipfile.ZipFile(io.BytesIO(saved(torch.zeros(4)))) as good:
        contents = {name.partition("/")[2]: good.read(name) for name in good.namelist()}
    if pickled is not None:
        contents["data.pkl"] = pickled
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in (contents | members).items():
            archive.writestr(f"archive/{name}", content)
    return file.getvalue()


def optimizer() -> dict[str, Any]:
    net = nn.Linear(2, 2)
    adam = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 2)).sum().backward()
    adam.step()
    return adam.state_dict()


PLAIN = {
    "numbers": [1, -1, 2**40, 2**600, 1.5, True, None, "text", "ü\U0001f600" * 100, (), [], {}, ((1,), (1, 2, 3, 4))],
    "many": list(range(5000)),
    "keys": {1: 2, "a": 3, None: 4, 0.5: 5, b"x": 6, "k" * 100: {"k" * 100: 1}},
    "calls": [b"bytes", bytearray(b"abc"), {1, "a"}, set(), 1j, Counter("hello"), OrderedDict(a=OrderedDict())],
    "torch's": [torch.Size([1, 2]), torch.float16, torch.device("cpu"), torch.device("cuda:1")],
    "network": nn.BatchNorm2d(3).state_dict(),  # an OrderedDict with metadata
    "parameter": nn.Parameter(torch.ones(3)),
    "optimizer": optimizer(),
    "tensors": [torch.tensor(1, dtype=t) for t in (torch.bfloat16, torch.bool, torch.uint16, torch.complex64)],
    "views": [torch.arange(12).reshape(3, 4).T, torch.arange(12)[::2], torch.empty(0, 3)],
    "shared": [shared := torch.ones(3), shared, shared[:2]],
}


@pytest.mark.parametrize("content", PLAIN.values(), ids=PLAIN)
def test_plain_values_saved_by_torch_are_read(content):
    assert repr(tensors.load(io.BytesIO(saved(content)))) == repr(content)


@pytest.mark.parametrize("content", [PLAIN["network"], PLAIN["optimizer"]])
def test_files_of_old_torch_are_read_only_on_request(content):
    data = saved(content, _use_new_zipfile_serialization=False)
    assert repr(tensors.load(io.BytesIO(data), old=True)) == repr(content)
    with pytest.raises(ValueError, match="not a zip archive"):
        tensors.load(io.BytesIO(data))


class Wide:
    def __init__(self, x: int) -> None:
        self.x = x


def test_safe_globals_added_by_the_user_are_called():
    content = {"loss": np.float64(0.5), "wide": Wide(3)}
    with pytest.raises(pickle.UnpicklingError, match="GLOBAL .* is called"):
        tensors.load(io.BytesIO(saved(content)))
    known = [np.dtype, type(np.dtype("float64")), np.float64(1).__reduce__()[0], Wide]
    with torch.serialization.safe_globals(known):
        assert tensors.load(io.BytesIO(saved(content)))["wide"].x == 3


def text(string: str) -> bytes:
    return b"X" + struct.pack("<I", len(string.encode())) + string.encode()


def call(function: str, *arguments: bytes) -> bytes:
    """Opcodes that call a function."""
    return b"c" + function.replace(" ", "\n").encode() + b"\n(" + b"".join(arguments) + b"tR"


LARGE = b"J" + struct.pack("<i", 1 << 30)
LONG_LIST = b"](" + b"K\x01" * 20000 + b"e"
KEYS = [b"\x8a\x0c" + (k * (2**61 - 1)).to_bytes(12, "little") for k in range(99, 102)]
MAKES_MORE = {
    "bytearray": call("builtins bytearray", LARGE),
    "bytearray of Python 2": call("__builtin__ bytearray", LARGE),
    "tensor": call("torch FloatTensor", LARGE),
    "Tensor": call("torch Tensor", LARGE),
    "storage": call("torch.storage UntypedStorage", LARGE),
    "new storage": b"ctorch.storage\nUntypedStorage\n" + LARGE + b"\x85\x81",
    "codec": call("_codecs encode", text("a" * 20000), text("punycode")),
    "hidden codec": text("punycode") + b"q\x010" + call("_codecs encode", text("a" * 20000), b"h\x01"),
    "copied text": b"(" + text("a" * 20000) + b"q\x01" + call("_codecs encode", b"h\x01", text("latin1")) * 3 + b"l",
    "copied list": b"(" + LONG_LIST + b"q\x01" + call("builtins set", b"h\x01") * 3 + b"t",
    "copied keys": b"(}q\x01" + call("collections Counter", b"h\x01") * 3 + b"t",
    "copied state": b"(}q\x01" + (call("collections OrderedDict") + b"h\x01b") * 3 + b"t",
    "ordered list": call("collections OrderedDict", LONG_LIST),
    "copied sizes": b"((K\x01tq\x01" + call("torch._utils _rebuild_tensor_v2", b"NK\x00h\x01h\x01") + b"t",
    "sparse": call("torch._utils _rebuild_sparse_tensor", b"NN"),
    "meta": call("torch._utils _rebuild_meta_tensor_no_storage", b"NNNN"),
    "any of them": call("torch._tensor _rebuild_from_type_v2", b"NNNN"),
    "copied bytes": b"("
    + call("_codecs encode", text("a"), text("latin1"))
    + b"q\x01"
    + call("builtins bytearray", b"h\x01")
    + b"t",
    "collisions": b"}(" + b"".join(key + b"N" for key in KEYS) + b"u",
    "collisions of one": b"}" + b"".join(key + b"Ns" for key in KEYS),
    "collisions of tuples": b"}((K\x01K\x02tNu",
    "collisions in a set": call("builtins set", b"](" + b"".join(KEYS) + b"e"),
    "later in a list": b"(]q\x01h\x01(K\x01et",
    "set_ of a tensor": b"(" + call("torch._utils _rebuild_tensor_v2") + b"}bt",
    "new set": b"\x8f",
    "frame": b"\x95" + struct.pack("<Q", 1 << 40),
    "old number": b"I1" + b"0" * 4000 + b"\n",
    "old list": b"(l",
    "instance": b"(ibuiltins\nbytearray\n",
    "object": b"(cbuiltins\nbytearray\no",
    "no tuple": text("a") + b"Q",
    "ten million bytes": b"\x8e" + struct.pack("<Q", 10**7),
    "no memo": b"h\x05",
    "no mark": b"t",
    "ends": b"X\xff\xff\xff\x7f",
}


@pytest.mark.parametrize("opcodes", MAKES_MORE.values(), ids=MAKES_MORE)
def test_pickles_that_can_expand_are_refused_before_torch_load(opcodes, monkeypatch):
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises((ValueError, LookupError, TypeError, pickle.UnpicklingError)) as caught:
        tensors.load(io.BytesIO(packed(b"\x80\x02" + opcodes + b".")))
    assert "NoneType" not in str(caught.value)


def test_the_opcodes_and_bytes_of_a_pickle_are_limited(monkeypatch):
    data = saved(list(range(100)))
    monkeypatch.setattr(pickles, "MOST", 200)
    tensors.check_file(io.BytesIO(data))
    monkeypatch.setattr(pickles, "MOST", 100)
    with pytest.raises(ValueError, match="more than 100 opcodes"):
        tensors.check_file(io.BytesIO(data))
    monkeypatch.setattr(tensors, "LARGEST", 100)
    with pytest.raises(ValueError, match="its pickle has .* bytes"):
        tensors.check_file(io.BytesIO(data))


GOOD = saved([torch.ones(3)])
MARK, END = GOOD.rfind(b"PK\6\6"), GOOD.rfind(b"PK\5\6")


def changed(place: int, value: bytes) -> bytes:
    return GOOD[:place] + value + GOOD[place + len(value) :]


ARCHIVES = {
    "compressed": packed(compression=zipfile.ZIP_DEFLATED),
    "behind another one": packed() + GOOD,
    "before another one": GOOD + packed(),
    "behind bytes": b"PK\3\4" + GOOD,
    "before bytes": GOOD + b"x",
    "directory of 32 bits elsewhere": changed(END + 16, b"\0\0\0\0"),
    "directory of 64 bits elsewhere": changed(MARK + 48, b"\0\0\0\0"),
    "larger directory": changed(MARK + 40, b"\1\0"),
    "fewer members": changed(MARK + 24, b"\1\0\0\0\0\0\0\0\1").replace(GOOD[END : END + 12], b"PK\5\6\0\0\0\0\1\0\1\0"),
    "another disk": changed(END + 4, b"\1"),
    "mark elsewhere": changed(MARK + 56 + 8, b"\0\0"),
    "a name twice": packed(**{"DATA.pkl": b""}),
    "no text": packed(**{"a\x1bb": b""}),
    "TorchScript": packed(**{"constants.pkl": b"\x80\x02)."}),
    "a comment with an end": GOOD[:-2] + b"\x16\0" + GOOD[END:],
}


@pytest.mark.parametrize("data", ARCHIVES.values(), ids=ARCHIVES)
def test_archives_that_torch_does_not_write_are_refused(data):
    with pytest.raises((ValueError, RuntimeError, zipfile.BadZipFile)):
        tensors.load(io.BytesIO(data))


def test_overlapping_members_are_refused():
    """The directory lists the bytes of one member under two names, as in zip bombs."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02N.")
        for name in ("a/data/0", "a/data/1"):
            archive.writestr(name, b"1234")
        archive.filelist[2].header_offset = archive.filelist[1].header_offset
    with pytest.raises(ValueError, match="overlap"):
        tensors.check_file(file)


def test_extra_fields_of_members_are_refused():
    file, info = io.BytesIO(), zipfile.ZipInfo("archive/data.pkl")
    info.extra = struct.pack("<HH", 0x7777, 4) + b"abcd"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(info, b"\x80\x02N.")
    with pytest.raises(ValueError, match="fields that torch.save does not write"):
        tensors.check_file(io.BytesIO(file.getvalue()))
