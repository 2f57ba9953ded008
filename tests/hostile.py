"""Hostile files, built for real, given to whatever reads such files, in a process whose audit hook sees what they do.

Run by `test_hostile.py` as `python -m tests.hostile`, in an empty folder; prints a line of JSON for each case.
"""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import pickletools
import resource
import signal
import struct
import sys
import time
import traceback
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image
from safetensors.torch import save_file

import ganzoo
from ganzoo.cli import main
from ganzoo.data import Digits, ImageFolder, PairedFolder
from ganzoo.data.prepare import prepare
from ganzoo.data.shards import FORMAT, schema
from ganzoo.evaluation import cache
from ganzoo.evaluation.perceptual import network
from tests import official

CANARY = Path("canary").absolute()  # what every payload makes
ROOM = 4 << 30  # bytes of address space above what is taken when the first case begins
SECONDS = 60  # that a case may take before the process is killed
BOMB = 320 << 20  # bytes that a bomb unpacks to
Entry = Callable[[str], Any]
Case = tuple[str, Entry, str, str]  # name, what reads, the file, words of the answer


# What is watched

EVENTS = {
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "socket.connect",
    "pickle.find_class",
}
EVENTS |= {"os.remove", "os.rename", "os.chmod", "shutil.rmtree", "webbrowser.open"}
READER = [sys.executable, "-P", "-W", "ignore", "-m", "ganzoo.checkpoint.inert"]  # of `convert`
FILES = {"os.remove", "os.rename", "shutil.rmtree"}  # where a run is gone on with, these are allowed in its folder
seen: list[str] = []
watching = False
inside: str | None = None  # of the run that is gone on with


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Notes what no file may do, and stops it."""
    if not watching:
        return
    bad = event in EVENTS and not (event == "subprocess.Popen" and arguments[1] == READER)
    if event in FILES and inside:  # a link itself, not what it leads to
        ends = arguments[: 2 if event == "os.rename" else 1]
        bad = not all(below(Path(os.fsdecode(end)).parent) for end in ends)
    if event == "pickle.find_class":
        bad = arguments[0].partition(".")[0] not in ("torch", "collections")  # torch-fidelity reads what was checked
    if event == "import":
        bad = "canary" in arguments[0]
    elif event == "exec":
        bad = CANARY.name in repr(arguments)
    elif event == "open":
        path, mode, flags = arguments
        writes = any(letter in (mode or "") for letter in "wax+") or flags & (os.O_WRONLY | os.O_RDWR)
        here = isinstance(path, int) or below(path) or os.path.realpath(os.fsdecode(path)) == os.devnull
        bad = bool(writes) and (not here or CANARY.name in os.path.realpath(os.fsdecode(path)))
    if bad:
        seen.append(f"{event} {arguments!r}"[:200])
        raise RuntimeError("the canary was reached")


def below(path: Any) -> bool:
    """Whether a file is in the run's folder, or, where none is gone on with, in the working folder."""
    return os.path.realpath(os.fsdecode(path)).startswith(inside or os.getcwd())


class Evil:
    """Pickled, it is a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


TOUCH = f"touch {CANARY}"
CALLS = Evil(os.system, TOUCH)


# What reads

OPTIONS = ["--model", "GAN", "--model.hidden", "8", "--model.d_hidden", "8", "--data", "Digits"]
SHORT = ["--trainer.max_steps", "2", "--trainer.enable_progress_bar", "false", "--scores.final_n", "0"]
SHORT += ["--samples.video_fps", "0"]
DEEP = 20_000  # brackets; PyYAML looks at all of them for each


def typed(*words: str) -> Entry:
    """A command, with the file for each `{}`."""
    return lambda file: main([word.replace("{}", file) for word in words])


def tiny() -> ganzoo.GAN:
    return ganzoo.GAN(image_size=8, channels=1, hidden=8, d_hidden=8)


def quiet_trainer() -> Trainer:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return Trainer(max_steps=1, max_epochs=-1, **quiet)  # type: ignore[arg-type]


def trained(file: str | None) -> None:
    trainer = quiet_trainer()
    trainer.fit(tiny(), Digits(), ckpt_path=file)
    trainer.save_checkpoint("good.ckpt")


READERS: dict[str, Entry] = {
    "load": lambda file: ganzoo.load(file),
    "load_from_checkpoint": lambda file: ganzoo.GAN.load_from_checkpoint(file),
    "sample": typed("sample", "{}"),
    "info": typed("info", "{}"),
    "evaluate": typed("evaluate", "{}", "reals.npy"),
}
RESUME: dict[str, Entry] = {
    "Trainer.fit": trained,
    "Trainer.validate": lambda file: quiet_trainer().validate(tiny(), Digits(), ckpt_path=file, verbose=False),
    "fit": typed("fit", *OPTIONS, *SHORT, "--ckpt_path", "{}"),
    "validate": typed("validate", *OPTIONS, "--ckpt_path", "{}"),
}
FOLDERS: dict[str, Entry] = {
    "checks": typed("checks", "--data", "{}"),
    "ImageFolder": lambda file: ImageFolder(file, image_size=8).train_dataloader(),
    "PairedFolder": lambda file: PairedFolder(file, source_path="pictures/good", image_size=8).train_dataloader(),
    "fit": typed("fit", *OPTIONS[:-2], "--data", "ImageFolder", "--data.path", "{}", "--data.image_size", "8", *SHORT),
    "evaluate": typed("evaluate", "{}", "reals.npy"),
    "sample --source": typed("sample", "cyclegan-emoji", "--source", "{}"),
}


# What is read


def checkpoints() -> Iterator[Case]:
    """Files of torch: what calls, what lies about its size, what names a class."""
    good = torch.load("good.ckpt", weights_only=True)
    good["ganzoo"].pop("sealed", None)
    every = {**READERS, **RESUME}

    def saved(name: str, content: Any, **how: Any) -> str:
        file = _alone(name)
        torch.save(content, file, **how)
        return file

    calls = {name: saved(f"calls-in-{name}", {**good, name: {"x": CALLS}}) for name in good if name != "ganzoo"}
    calls["top"] = saved("calls", CALLS)
    calls["ganzoo"] = saved("calls-in-ganzoo", {**good, "ganzoo": {**good["ganzoo"], "x": CALLS}})
    calls["eval"] = saved("evals", {**good, "x": Evil(eval, f"open({str(CANARY)!r}, 'w')")})
    calls["a global of numpy"] = saved("global", {**good, "x": Evil(np.memmap, str(CANARY), "u1", "w+", 0, (1,))})
    calls["old format"] = saved("old", {**good, "x": CALLS}, _use_new_zipfile_serialization=False)
    Path("plain.ckpt").write_bytes(pickle.dumps({**good, "x": CALLS}))
    Path("stylegan.pkl").write_bytes(pickle.dumps({"G_ema": Evil(exec, f"open({str(CANARY)!r}, 'w')")}))
    calls |= {"plain pickle": "plain.ckpt", "StyleGAN's pickle": "stylegan.pkl"}
    for name, file in calls.items():
        entries = every if name == "top" else {"load": READERS["load"]}  # all read by checkpoint/sealed.py
        yield from ((f"checkpoint, calls in {name}", entry, file, file) for entry in entries.items())

    archive = zipfile.ZipFile("good.ckpt")
    data = archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl")))
    large = b"J" + struct.pack("<i", 2_000_000_000)
    slow = "".join(map(chr, range(0x400, 0xD000))).encode() * 2
    text = b"X" + struct.pack("<I", len(slow)) + slow
    call = b"\x80\x02c%s\n(%stR."
    bombs = {  # few bytes that take torch gigabytes or hours
        "bytearray": {"data.pkl": call % (b"__builtin__\nbytearray", b"\x8a\x05" + (8 << 30).to_bytes(5, "little"))},
        "punycode": {"data.pkl": call % (b"_codecs\nencode", text + b"X\x08\0\0\0punycode")},
        "EMPTY_LIST": {"data.pkl": b"\x80\x02(" + b"]" * 600_000 + b"t."},
        "EMPTY_SET, deflated": {"data.pkl": b"\x80\x02(" + b"\x8f" * 4_000_000 + b"t."},
        "two directories": {"data.pkl": None},
    }
    for name, members in bombs.items():
        file = _packed(name, members, "good.ckpt", deflate=name.endswith("deflated"))
        if name == "two directories":  # Python reads that of a good archive, torch the one before it
            with zipfile.ZipFile(file) as bomb:
                place = bomb.start_dir
            content, end = Path(file).read_bytes(), Path(saved("unsealed", good)).read_bytes()
            Path(file).write_bytes(_two_directories(content, place, end))
        yield from ((f"checkpoint, {name}", (r, every[r]), file, file) for r in ("load", "info"))
    reference = {"reference": 2_000_000, "z_dim": 1000}
    variant = {**good["ganzoo"], "variant": "ganzoo.variants.improved_gan.ImprovedGAN"}
    file = saved("reference", {**good, "ganzoo": variant, "hyper_parameters": reference})
    yield "checkpoint, reference", ("load", READERS["load"]), file, file
    bad = {
        "SETITEM on a class": _packed("setitem", {"data.pkl": b"\x80\x02ctorch\nFloatStorage\nX\x01\0\0\0aK\x01s."}),
        "BUILD of a module": _packed("build", {"data.pkl": b"\x80\x02ctorch\nload\n}X\x01\0\0\0aK\x01sb."}),
        "a storage larger than its data": _packed("storage", {"data.pkl": _grown(data, large)}, "good.ckpt"),
        "a decompression bomb in data.pkl": _packed("bomb", {"data.pkl": None}, "good.ckpt"),
        "a decompression bomb in a tensor": _packed("bomb-0", {"data/0": None}, "good.ckpt"),
        "a damaged entry first": _packed("entry", {"data.pkl": data}, "good.ckpt", damage=True),
        "an expanded tensor": saved("folded", {**good, "x": torch.zeros(1).expand(1 << 40)}),
        "a meta tensor": saved("meta", {**good, "x": torch.empty(1 << 40, device="meta")}),
    }
    for name, value in {"exponentially nested lists": _laughs(), "a list that contains itself": _itself()}.items():
        file = saved(name, {**good, "hyper_parameters": {"x": value}})
        yield from ((f"checkpoint, {name}", (reader, every[reader]), file, file) for reader in ("info", "fit"))
    most = {name: entry for name, entry in every.items() if name != "validate"}  # which reads as `fit` does
    for i, (name, file) in enumerate(bad.items()):
        readers = ("load", "fit") if i else most
        yield from ((f"checkpoint, {name}", (reader, most[reader]), file, file) for reader in readers)
    wide = {
        "wide": {**good["hyper_parameters"], "hidden": 10**9},
        "wider": {**good["hyper_parameters"], "hidden": 10**5},
        "deep": {**good["hyper_parameters"], "layers_g": 10**9, "layers_d": 10**9},
        "large": {**good["hyper_parameters"], "image_size": 2**30},
        "instantiator": {**good["hyper_parameters"], "_instantiator": "os.system", "_class_path": "os.system"},
    }
    for name, arguments in wide.items():
        file = saved(name, {**good, "hyper_parameters": arguments})
        yield from ((f"checkpoint, {name}", entry, file, file) for entry in READERS.items() if entry[0] != "info")
    Path("canary_module.py").write_text("class GAN: pass\n")
    for variant in ("os.system", "builtins.eval", "canary_module.GAN", "../../etc/passwd", "ganzoo.cli.main", 7):
        file = saved("variant", {**good, "ganzoo": {**good["ganzoo"], "variant": variant}})
        for reader in ("load", "load_from_checkpoint", "sample", "evaluate") if variant == "os.system" else ("load",):
            yield f"checkpoint, variant {variant!r}", (reader, READERS[reader]), file, file
    for url in ("http://127.0.0.1:9/evil.ckpt", "https://127.0.0.1:9/e.ckpt", "s3://bucket/e.ckpt", "file:///e.ckpt"):
        readers = most if url.startswith("http:") else ("load", "load_from_checkpoint", "Trainer.fit")
        yield from ((f"checkpoint, {url}", (reader, most[reader]), url, "") for reader in readers)
    Path("dcp").mkdir()
    Path("dcp/.metadata").write_bytes(pickle.dumps(CALLS))
    yield from (("checkpoint, DCP's metadata", entry, "dcp", "dcp") for entry in most.items())
    ugly = "-\x1b[2J\nall is well\u202e.ckpt"
    Path(ugly).write_bytes(b"PK\x03\x04")
    for reader in ("sample", "info", "evaluate"):
        yield "checkpoint, control characters in the name", (reader, READERS[reader]), f"./{ugly}", "\\x1b[2J"


def conversions() -> Iterator[Case]:
    """Pickles of official code; `tests/unit/test_official.py` has more."""
    call = pickle.dumps(CALLS, 2)
    source = {
        "type": "class",
        "version": 6,
        "module_src": f"import os; os.system({TOUCH!r})",
        "class_name": "G",
        "state": {},
    }
    made = official.network({"MainLayers.0.Layers.0.Basis": torch.ones(2, 4, 4)}, official.Generator)
    made._buffers["x"] = Evil(
        torch._utils._rebuild_tensor_v2, Evil(torch.storage._load_from_bytes, call), 0, (1,), (1,)
    )
    contents = {
        "calls": {"G": CALLS},
        "evals": Evil(eval, f"open({str(CANARY)!r}, 'w')"),
        "a global of numpy": Evil(np.memmap, str(CANARY), "u1", "w+", 0, (1,)),
        "a call in a storage": {key: made for key in ("G", "D", "G_ema")},
        "source": {"G": Evil(official._reconstruct_persistent_obj, source)},
    }
    for name, content in contents.items():
        file = official.write(Path(f"{name}.pkl"), content)
        yield f"official pickle, {name}", ("convert", typed("convert", "{}", "converted")), str(file), str(file)
    bombs = {"memo": b"Nr\xff\xff\xff\x7f.", "bytes": b"\x8e" + (1 << 40).to_bytes(8, "little") + b"."}
    for name, opcodes in {**bombs, "deep": b"}(" + b")" + b"\x85" * 300_000 + b"K\x01u."}.items():
        Path(f"{name}.pkl").write_bytes(b"\x80\x04" + opcodes)
        yield f"official pickle, {name}", ("convert", typed("convert", "{}", "converted")), f"{name}.pkl", f"{name}.pkl"


def _grown(data: bytes, number: bytes) -> bytes:
    """A pickle in which the first storage claims so many values."""
    places = [(op.name, position) for op, _, position in pickletools.genops(data)]
    end = next(i for i, (name, _) in enumerate(places) if name == "BINPERSID")
    start = next(i for i in range(end, 0, -1) if places[i][0].startswith("BININT"))
    return data[: places[start][1]] + number + data[places[start + 1][1] :]


def _packed(
    name: str, members: dict[str, bytes | None], base: str = "", damage: bool = False, deflate: bool = False
) -> str:
    """An archive as torch writes it, with members of our own; None is a bomb."""
    rest = {}
    if base:
        archive = zipfile.ZipFile(base)
        rest = {member.partition("/")[2]: archive.read(member) for member in archive.namelist()}
    file = _alone(name)
    with zipfile.ZipFile(file, "w") as out:
        if damage:
            out.writestr("x/.data/first", b"0" * 100)
        for member, content in {"version": b"3\n", "byteorder": b"little", **rest, **members}.items():
            if content is None:
                with out.open(_deflated(f"x/{member}"), "w") as opened:
                    for _ in range(BOMB >> 20):
                        opened.write(bytes(1 << 20))
            else:
                out.writestr(f"x/{member}", content, zipfile.ZIP_DEFLATED if deflate else None)
    if damage:
        Path(file).write_bytes(b"PK\x03\x04" + os.urandom(60) + Path(file).read_bytes()[64:])
    return file


def _alone(name: str) -> str:
    """A file in a folder of its own: whoever refuses it looks at all checkpoints beside it for a whole one."""
    Path(name).mkdir(exist_ok=True)
    return f"{name}/bad.ckpt"


def _two_directories(bomb: bytes, directory: int, good: bytes) -> bytes:
    """An archive with a mark of 64 bits that points to the bomb's directory, and lies behind that of a good archive.

    Python takes what lies before the mark, torch what the mark points to.
    """
    members = (len(bomb) - 22 - directory, directory)
    count = struct.unpack_from("<H", bomb, len(bomb) - 12)[0]
    elsewhere = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, *members)
    mark, end = good.rfind(b"PK\6\7"), good.rfind(b"PK\5\6")
    start = len(bomb) + len(elsewhere)
    whole = bytearray(bomb + elsewhere + good)
    struct.pack_into("<Q", whole, start + mark + 8, len(bomb))
    struct.pack_into("<H2H2L", whole, start + end + 6, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
    return bytes(whole)


def _deflated(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.compress_type, info._compresslevel = zipfile.ZIP_DEFLATED, 1  # type: ignore[attr-defined]
    return info


def _laughs() -> list[Any]:
    value: list[Any] = ["ha"] * 10
    for _ in range(20):
        value = [value] * 10
    return value


def _itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def folders() -> Iterator[Case]:
    """What `save_pretrained` writes, written by somebody else."""
    good = json.dumps({"variant": "ganzoo.variants.gan.GAN", "arguments": {}})
    weights = {"images_seen": torch.tensor(0)}
    header = lambda text, more=b"": struct.pack("<Q", len(text)) + text + more  # noqa: E731
    entry = '"%s":{"dtype":"F32","shape":[%d],"data_offsets":[%d,%d]}'
    save_file(weights, "plain.safetensors")
    plain = Path("plain.safetensors").read_bytes()
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(CALLS))
    overlap = ("{" + entry % ("a", 2, 0, 8) + "," + entry % ("b", 2, 0, 8) + "}").encode()
    huge = ("{" + entry % ("a", 1 << 60, 0, 1 << 62) + "}").encode()
    contents = {
        "giant header": (good, struct.pack("<Q", 1 << 62) + b"{}"),
        "long header": (good, header(b"{" + b" " * (110 << 20) + b"}")),
        "overlap": (good, header(overlap, bytes(8))),
        "claims": (good, header(huge, bytes(8))),
        "polyglot": (good, plain + zipped.getvalue()),
        "pickle": (good, pickle.dumps(CALLS)),
        "nested header": (good, header(b"[" * 100_000)),
        "nested config": ("[" * 100_000, plain),
        "spaces": (" " * (2 << 20) + good, plain),
        "empty tensors": (good, header(("{" + ",".join(entry % (i, 0, 0, 0) for i in range(200_000)) + "}").encode())),
        "no text": ("\x00\ud800", plain),
        "no object": ("[1]", plain),
        "long number": ('{"variant": ' + "9" * 5000 + "}", plain),
        "os.system": (json.dumps({"variant": "os.system", "arguments": {"command": TOUCH}}), plain),
        "path": (json.dumps({"variant": "../../evil.GAN", "arguments": {}}), plain),
        "own module": (json.dumps({"variant": "canary_module.GAN", "arguments": {}}), plain),
        "wide": (json.dumps({"variant": "ganzoo.variants.gan.GAN", "arguments": {"hidden": 10**9}}), plain),
        "slim wide": (
            json.dumps({"variant": "ganzoo.variants.dcgan.DCGAN", "arguments": {"width": 10**6}, "slim": True}),
            plain,
        ),
        "deep": (json.dumps({"variant": "ganzoo.variants.gan.GAN", "arguments": {"layers_g": 10**9}}), plain),
        "escapes": (json.dumps({"variant": "\x1b[2J\nGAN", "arguments": {}}), plain),
    }
    for name, (config, tensors) in contents.items():
        folder = Path("pretrained", name)
        folder.mkdir(parents=True)
        (folder / "config.json").write_bytes(config.encode(errors="surrogatepass"))
        (folder / "model.safetensors").write_bytes(tensors)
        unlike = name in ("path", "own module", "wide", "deep")  # `fit` compares, in a run folder that it then removes
        for reader in ("load", "sample", "evaluate", *([] if unlike else ["fit"])):
            yield f"folder, {name}", (reader, {**READERS, **RESUME}[reader]), str(folder), str(folder)
    record = Path("pretrained/records")
    ganzoo.save_pretrained(tiny(), record)
    for i, text in enumerate(("[" * 100_000, "[1]", '{"config": 7}', '{"config": "canary.yaml"}')):
        (record / "record.json").write_text(text)
        yield f"folder, record {i}", ("evaluate", typed("evaluate", "{}")), str(record), "json" if i < 3 else "canary"


def arrays() -> Iterator[Case]:
    """numpy's files: pictures to be scored, and cached statistics of real ones."""
    objects = np.array([CALLS, CALLS], dtype=object)
    np.save("objects.npy", objects, allow_pickle=True)
    np.savez("objects.npz", arr_0=objects)
    Path("pickle.npy").write_bytes(pickle.dumps(CALLS))
    Path("pickle.npz").write_bytes(pickle.dumps(CALLS))

    def header(shape: str, descr: str = "|u1") -> bytes:
        text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()

    texts = {
        "claims": header(f"({1 << 40}, 8, 8, 1)"),
        "overflows": header(f"({1 << 62}, {1 << 62}, 8, 1)"),
        "negative": header("(-5, 8, 8, 1)"),
        "calls": header(f"__import__('os').system({TOUCH!r})"[:60]),
        "nested": b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 20) + b"[" * (1 << 20),
        "ends": header("(4, 8, 8, 1)") + bytes(10),
    }
    for name, text in texts.items():
        Path(f"{name}.npy").write_bytes(text)
        with zipfile.ZipFile(f"{name}.npz", "w") as out:
            out.writestr("arr_0.npy", text)
    with zipfile.ZipFile("bomb.npz", "w") as out, out.open(_deflated("arr_0.npy"), "w") as opened:
        opened.write(header(f"({BOMB >> 6}, 8, 8, 1)"))
        for _ in range(BOMB >> 20):
            opened.write(bytes(1 << 20))
    for kind, method in (("bz2", zipfile.ZIP_BZIP2), ("lzma", zipfile.ZIP_LZMA)):
        with zipfile.ZipFile(f"{kind}.npz", "w", method) as out:  # decompressed at once, whatever size it claims
            out.writestr("arr_0.npy", header("(4, 8, 8, 1)") + bytes(256))
    with zipfile.ZipFile("path.npz", "w") as out:
        out.writestr("../../canary.npy", header("(4, 8, 8, 1)") + bytes(256))
    for file in sorted({*Path().glob("*.npy"), *Path().glob("*.npz")} - {Path("reals.npy"), Path("colour.npy")}):
        yield f"array, {file}", ("evaluate", typed("evaluate", "{}", "reals.npy")), str(file), str(file)
        yield f"array, {file}", ("reals", typed("evaluate", "reals.npy", "{}")), str(file), str(file)
        if file.suffix == ".npz":
            yield f"statistics, {file}", ("cache", _cached), str(file), str(file)


def _cached(file: str) -> None:
    with warnings.catch_warnings(record=True, action="always") as told:
        assert cache.load(Path(file), 2) is None
    raise ValueError(str(told[0].message))


def weights() -> Iterator[Case]:
    """Weights of extractors, from a stranger, or lying where a download would."""
    torch.save({"a": CALLS}, "calls.pth")
    torch.save({"a": CALLS}, "old.pth", _use_new_zipfile_serialization=False)
    torch.save({"a": torch.zeros(1)}, "other.pth")
    torch.save({"a": torch.zeros(1).expand(1 << 40)}, "folded.pth")
    Path("bomb.pth").write_bytes(Path("bomb/bad.ckpt").read_bytes())
    score = typed("evaluate", "colour.npy", "colour.npy", "--metrics", "fid", "--weights", "{}")
    for file in ("calls.pth", "old.pth", "other.pth", "folded.pth", "bomb.pth"):
        yield f"weights, {file}", ("--weights", score), file, file
    hub = Path(os.environ["TORCH_HOME"], "hub/checkpoints")
    hub.mkdir(parents=True)
    for name in ("alexnet-owt-7be5be79.pth", "resnet18-f37072fd.pth", "weights-inception-2015-12-05-6726825d.pth"):
        (hub / name).write_bytes(Path("old.pth").read_bytes())
    fid = ("evaluate", "colour.npy", "colour.npy", "--metrics", "fid")
    yield "weights in the cache", ("inception", typed(*fid)), "", "inception"
    yield "weights in the cache", ("torchvision", typed(*fid, "--extractor", "torchvision-resnet18")), "", "resnet18"
    yield "weights in the cache", ("LPIPS", lambda file: network("alex")), "", "alexnet"


def pictures() -> Iterator[Case]:
    """Folders with one bad picture among good ones."""
    Path("eps").write_bytes(
        eps := b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(x) run\nshowpage\n%%EOF\n"
    )
    Path("gs").write_text(f"#!/bin/sh\n{TOUCH}\n")  # what Pillow would run
    Path("gs").chmod(0o755)

    def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
        parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), *chunks]
        parts += [(b"IDAT", zlib.compress(bytes(min((width + 1) * height, 200 << 20)), 1)), (b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in parts
        )

    def made(kind: str, **how: Any) -> bytes:
        file = io.BytesIO()
        Image.new("L", (8, 8)).save(file, kind, **how)
        return file.getvalue()

    bad = {
        "postscript": eps,
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>canary</script></svg>',
        "pickle": pickle.dumps(CALLS),
        "bomb": png(60_000, 60_000),
        "lesser bomb": png(12_000, 12_000),
        "text bomb": png(8, 8, *[(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 20)))] * 90),
        "gif": made("GIF").replace(struct.pack("<HH", 8, 8), struct.pack("<HH", 65_000, 65_000)),
        "tiff": made("TIFF").replace(b"\x01\x01\x04\x00\x01\x00\x00\x00\x08", b"\x01\x01\x04\x00\x01\x00\x00\x00\xff")
        + b"",
        "bmp": b"BM" + struct.pack("<IIIIiiHHIIIIII", 54, 0, 54, 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0),
        "cut": made("PNG")[:40],
        "ppm": b"P5 8 8 255\n" + bytes(64),
    }
    ugly = "-\x1b[2J\nbad.png"
    for name, content in {"good": made("PNG"), **bad}.items():
        folder = Path("pictures", name)
        folder.mkdir(parents=True)
        for i in range(3):
            Image.new("L", (8, 8)).save(folder / f"{i}.png")
        (folder / ugly).write_bytes(content)
        if name == "good":
            continue
        for entry in FOLDERS.items():
            if name == "tiff" or (name == "cut" and entry[0] not in ("checks", "sample --source")):
                continue
            yield f"picture, {name}", entry, str(folder), "-\\x1b[2J"


def archives() -> Iterator[Case]:
    """Zip archives of pictures."""
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "PNG")
    good = file.getvalue()

    def saved(name: str, *members: tuple[str, bytes], **how: Any) -> bytes:
        with zipfile.ZipFile(f"{name}.zip", "w", **how) as out:
            for member, content in [("0.png", good), ("1.png", good), *members]:
                out.writestr(member, content)
        return Path(f"{name}.zip").read_bytes()

    saved("climbs", ("../../canary.png", good))
    saved("absolute", (str(CANARY), good))
    saved("twice", ("./0.png", good))
    saved("calls", ("a.png", pickle.dumps(CALLS)))
    saved("postscript", ("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EOF\n"))
    bomb = saved("bombs", ("a.png", bytes(BOMB)), compression=zipfile.ZIP_DEFLATED)
    place = bomb.rfind(b"PK\1\2") + 24  # a bomb that claims to be small
    Path("denies.zip").write_bytes(bomb[:place] + struct.pack("<I", 999) + bomb[place + 4 :])
    plain = saved("plain")
    place = plain.rfind(b"PK\1\2")
    Path("claims.zip").write_bytes(plain[: place + 20] + struct.pack("<I", 1 << 31) + plain[place + 24 :])
    Path("far.zip").write_bytes(plain[: place + 42] + struct.pack("<I", 1 << 31) + plain[place + 46 :])
    Path("cut.zip").write_bytes(plain[:-9])
    Path("tail.zip").write_bytes(plain + bytes(99))
    inside = {"calls": "a.png", "postscript": "a.png", "denies": "a.png", "far": "1.png"}
    for name in ("climbs", "absolute", "twice", "bombs", "claims", "cut", "tail", *inside):
        for reader in FOLDERS if name in ("climbs", "calls") else ("checks", "ImageFolder"):
            entry = FOLDERS[reader]
            how = reader if name in inside else f"{reader} of all"  # `checks` tells of bad pictures in good archives
            yield f"archive, {name}", (how, entry), f"{name}.zip", inside.get(name, f"{name}.zip")


GAN_AND_DATA = "model: {class_path: GAN, init_args: {hidden: 8, d_hidden: 8}}\ndata: {class_path: Digits}\n"


def configs() -> Iterator[Case]:
    """YAML that names code, or that says more than it holds."""
    call = f"init_args: {{command: '{TOUCH}'}}"
    lol = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lol += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 20)]
    callback = "trainer: {{max_steps: 2, callbacks: [{{class_path: {}, init_args: {{{}}}}}]}}"
    callbacks = {
        "Popen": callback.format("subprocess.Popen", f"args: [touch, {CANARY}]"),
        "reexported": callback.format("lightning.pytorch.trainer.os.system", f"command: {TOUCH}"),
        "rmtree": callback.format("shutil.rmtree", "path: ."),
        "hub": callback.format("torch.hub.load", "repo_or_dir: canary/canary, model: x"),
        "function": callback.format("LambdaCallback", "on_fit_start: os.system"),
        "function behind": callback.format("LambdaCallback", "on_fit_start: lightning.pytorch.callbacks.os.remove"),
        "instantiator": callback.format("lightning.pytorch.cli.instantiate_class", "args: [], init: {}"),
        "ours": callback.format("LambdaCallback", "on_fit_start: ganzoo.cli.main"),
        "elsewhere": callback.format("canary_package.Canary", ""),
        "ftp": callback.format("lightning.pytorch.callbacks.ModelCheckpoint", "dirpath: 'ftp://127.0.0.1:9/x'"),
        "ftp profiler": "trainer: {profiler: {class_path: lightning.pytorch.profilers.SimpleProfiler, init_args: "
        "{dirpath: 'ftp://127.0.0.1:9/x', filename: x}}}",
        "ftp logger": "trainer: {logger: {class_path: CSVLogger, init_args: {save_dir: 'ftp://127.0.0.1:9/x'}}}",
        "profiler": "trainer: {profiler: {class_path: cProfile.runctx, init_args: {statement: x}}}",
        "logger": "trainer: {logger: {class_path: logging.FileHandler, init_args: {filename: canary}}}",
        "plugin": "trainer: {plugins: [{class_path: os.system, init_args: {command: x}}]}",
        "strategy": "trainer: {strategy: {class_path: multiprocessing.Process, init_args: {target: os.system}}}",
        "trust": "trust: [os]",
        "bomb": "\n".join(lol),
        "digits": f"seed_everything: {'9' * 5000}",
        "power": "seed_everything: 10**10**10",
        "hexadecimal": f"seed_everything: 0x{'f' * 5000}",
        "another": "config: canary.yaml",
        "itself": "config: itself.yaml",
        "zeros": "ckpt_path: /dev/zero",
        "url": "ckpt_path: http://127.0.0.1:9/evil.ckpt",
        "escapes": '"\\e[2J": 1',
        "items": f"x: [{','.join('x' * 2_000_000)}]",
        "more items": f"x: [{','.join('x' * 40_000)}]",
        "merges": "\n".join(["a0: &a0 {k: 1}", *(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}" for i in range(1, 30))]),
        "wide merges": f"a: &a {{{','.join(f'k{i}: 1' for i in range(4000))}}}\nb: {{<<: [{'*a,' * 8000}*a]}}",
        "base 60": f"seed_everything: {':'.join('1' * 40_000)}",
    }
    texts = {name: GAN_AND_DATA + text for name, text in callbacks.items()}
    model = "data: {class_path: Digits}\ntrainer: {max_steps: 2}\nmodel: "
    texts |= {
        "model": f"{model}{{class_path: os.system, {call}}}",
        "short": f"{model}os.system",
        "optimizer": f"{model}{{class_path: GAN, init_args: {{optimizer: {{class_path: builtins.eval}}}}}}",
        "lambda": f"{model}{{class_path: GAN, init_args: {{lr_scheduler: {{class_path: torch.optim.lr_scheduler."
        "LambdaLR, init_args: {lr_lambda: os.system}}}}",
        "torch.load": f"{model}{{class_path: torch.load, init_args: {{f: calls.ckpt, weights_only: false}}}}",
        "unpickler": f"{model}{{class_path: pickle.load, init_args: {{file: x}}}}",
        "tag": f'{model}!!python/object/apply:os.system ["{TOUCH}"]',
        "new": f"{model}!!python/object/new:os.system [{TOUCH}]",
        "name": f"{model}!!python/name:os.system",
        "module": f"{model}!!python/module:canary_module",
        "nested": f"{model}{'[' * DEEP}",
        "device": f"{model}/dev/zero",
        "bombs elsewhere": f"{model}bomb.yaml",
        "no text": f"{model}\x00",
    }
    for name, text in texts.items():
        file = f"{name}.yaml"
        Path(file).write_text(text)
        yield f"config, {name}", ("fit", typed("fit", "--config", "{}")), file, ""
    evil = f"import os\nos.system({TOUCH!r})\nfrom ganzoo.data import Digits as Data\n"
    for name in ("downloads/their_run", "their_package"):  # where a stranger's run lies, with code beside its config
        Path(name).mkdir(parents=True)
        Path(name, "evil.py").write_text(evil)
    Path("their_package/__init__.py").touch()
    data = {
        "data in a subfolder": "data: {class_path: downloads.their_run.evil.Data}",
        "data in a package": "data: {class_path: their_package.evil.Data}",
        "data": f"data: {{class_path: os.system, {call}}}",
        "data tag": f'data: !!python/object/apply:os.system ["{TOUCH}"]',
        "data elsewhere": "data: {class_path: canary_package.Canary}",
        "data bomb": "\n".join(lol) + "\ndata: {class_path: Digits}",
        "data of data": "data: {class_path: Pairs, init_args: {data: {class_path: os.system}}}",
        "data nested": f"data: {'[' * DEEP}",
    }
    for name, text in data.items():
        Path(f"{name}.yaml").write_text(text)
        reals = typed("evaluate", "reals.npy", "{}", "--metrics", "fid")
        yield f"config, {name}", ("evaluate", reals), f"{name}.yaml", ""
        run = Path("stranger", name)
        run.joinpath("checkpoints").mkdir(parents=True)
        run.joinpath("checkpoints/last.ckpt").write_bytes(Path("good.ckpt").read_bytes())
        run.joinpath("config.yaml").write_text(text)
        yield f"run, {name}", ("evaluate", typed("evaluate", "{}", "--metrics", "fid")), str(run), ""
    file = "data in a subfolder.yaml"
    print_it = typed("fit", "--model", "GAN", "--config", "{}", "--print_config")
    yield "config, data in a subfolder", ("--print_config", print_it), file, "--trust downloads"
    yield "argument", ("--trust os", typed("fit", "--trust", "os", *OPTIONS)), "", "--trust"
    yield "argument", ("--model os.system", typed("fit", "--model", "os.system", *OPTIONS[2:])), "", "os.system"


def shards() -> Iterator[Case]:
    """Compressed rows, which Arrow unpacks at once, and indices of absurd shards."""
    Path("shards").mkdir()
    fit = typed("fit", *OPTIONS[:-1], "Shards", "--data.path", "{}", *SHORT)
    n, columns = 10_000_000, schema((1, 8, 8), labels=False)
    rows = [pa.array(np.zeros((n // 64, 64), np.uint8).view("V64")[:, 0].tolist(), columns[0].type)]
    rows += [pa.array([""] * (n // 64)), *(pa.array(np.zeros(n // 64), kind.type) for kind in list(columns)[2:])]
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.OSFile("shards/shard-00000.arrow", "wb") as file, pa.ipc.new_stream(file, columns, options=options) as out:
        out.write_batch(pa.record_batch(rows, columns))
    entry = {"images": n // 64, "bytes": os.path.getsize("shards/shard-00000.arrow"), "rows": "", "sha256": ""}
    index = {"format": FORMAT, "images": n, "name": "x", "image_size": 8, "channels": 1, "fit": "crop", "classes": []}
    texts = {"compressed": [entry], "many": [{**entry, "images": 1 << 62}] * 100_000, "nested": "[" * 100_000}
    for name, found in texts.items():
        text = found if isinstance(found, str) else json.dumps({**index, "shards": found})
        Path("shards/index.json").write_text(text)
        yield f"shards, {name}", ("fit", fit), "shards", "index.json" if name == "nested" else "shard-00000.arrow"


def records() -> Iterator[Case]:
    """JSON that a run leaves, and links in its folder."""
    texts = (
        "[" * 100_000,
        "[" + "[]," * 400_000 + "1]",
        "[1]",
        '{"schema": 1}',
        '{"schema": ' + "9" * 5000 + "}",
        "\x1b[2J",
        "\x80",
    )
    for i, text in enumerate(texts):
        Path(f"record{i}.json").write_bytes(text.encode("latin1"))
        compare = typed("evaluate", "--compare", "{}", "{}x")
        Path(f"record{i}.jsonx").write_bytes(text.encode("latin1"))
        yield f"record {i}", ("--compare", compare), f"record{i}.json", f"record{i}.json"
    run = Path("linked/checkpoints")
    run.mkdir(parents=True)
    run.joinpath("last.ckpt").write_bytes(Path("good.ckpt").read_bytes())
    run.joinpath("../config.yaml").write_text(GAN_AND_DATA)
    Path("victim").mkdir()
    Path("victim/last.ckpt").write_bytes(Path("good.ckpt").read_bytes())
    names = {"metrics.jsonl": CANARY, "checkpoints/last.ckpt.partial": CANARY, "environment.json": CANARY}
    folders = ("samples", "wandb", "tensorboard", "wandb/x/logs", "checkpoints/deep")
    for name, target in {**names, **dict.fromkeys(folders, Path("victim").absolute())}.items():
        run.parent.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
        run.parent.joinpath(name).symlink_to(target)
        fit = typed("fit", *OPTIONS, *SHORT, "--ckpt_path", "{}")
        yield f"link, {name}", ("fit", fit), "linked", name
        run.parent.joinpath(name).unlink()
    run.rename("linked/elsewhere")
    run.symlink_to(Path("victim").absolute())
    yield "link, checkpoints", ("fit", typed("fit", *OPTIONS, *SHORT, "--ckpt_path", "{}")), "linked", "checkpoints"
    run.unlink()
    Path("linked/elsewhere").rename(run)


class Removes(Callback):
    """Of its own, which it has made earlier."""

    old: Any = None

    def state_dict(self) -> dict[str, Any]:
        return {"old": self.old}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.old = state_dict["old"]

    def on_train_batch_end(self, *_: Any) -> None:
        if self.old is not None:
            os.remove(self.old)


def going_on(file: str) -> None:
    """With callbacks that write, and remove, in the checkpoint's folder."""
    run = Path(file).parent
    best = ModelCheckpoint(dirpath=run, every_n_train_steps=1, save_last=True, monitor="D/loss", save_top_k=1)
    every = ModelCheckpoint(dirpath=run, every_n_train_steps=1)
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(
        max_steps=4 if Path(file).exists() else 2,
        max_epochs=-1,
        log_every_n_steps=1,
        default_root_dir=run,
        callbacks=[best, every, Removes()],
        **quiet,  # type: ignore[arg-type]
    )
    trainer.fit(tiny(), Digits(), ckpt_path=file if Path(file).exists() else None)
    trainer.save_checkpoint(file)


def runs() -> Iterator[Case]:
    """Runs that are gone on with: what they name is not theirs. The last of a case is the folder that it may change."""
    Path("precious/deep").mkdir(parents=True)
    Path("precious/deep/thesis").write_text("years")
    Path("callbacks").mkdir()
    with redirect_stderr(io.StringIO()):
        going_on("callbacks/good.ckpt")
    good = torch.load("callbacks/good.ckpt", weights_only=True)
    good["ganzoo"].pop("sealed")
    keys = ("old", "best_model_path", "last_model_path", "kth_best_model_path", "best_k_models")
    precious = str(Path("precious").absolute())
    paths = ("callbacks/../precious/deep/thesis", "{}/../../precious", "{}/link/deep", precious, f"file://{precious}")
    for key, path in [*((key, "{}/../../precious/deep/thesis") for key in keys), *zip(keys, paths, strict=True)]:
        run = Path("callbacks", f"{key}-{len(path)}")
        run.mkdir()
        path = path.replace("{}", str(run.absolute()))
        Path(run, "link").symlink_to("../../precious")
        states = copy.deepcopy(good["callbacks"])
        for state in states.values():
            if key in state:
                state[key] = {path: torch.tensor(9.0)} if key == "best_k_models" else path
                state |= {"kth_best_model_path": path} if key == "best_k_models" else {}
            if "dirpath" in state:
                state["dirpath"] = str(run.absolute())
        torch.save({**good, "callbacks": states}, run / "a.ckpt")
        yield f"state, {key} {path}", ("Trainer.fit", going_on), f"{run}/a.ckpt", str(run)

    Path("shots").mkdir()
    for i in range(8):
        Image.new("L", (8, 8), i).save(f"shots/{i}.png")
    for i, name in enumerate(("x/../../precious", "/precious", "\x1b[2J\n" + "a" * 300)):
        prepare("shots", f"shards-{i}", channels=1)
        index = Path(f"shards-{i}/index.json")
        index.write_text(json.dumps({**json.loads(index.read_text()), "name": name}))
        Path(folder := f"of-shards-{i}").mkdir()
        shards = ["--data", "Shards", "--data.path", "{}", "--data.batch_size", "2", "--data.num_workers", "0"]
        fit = typed("fit", *OPTIONS[:-2], *shards, *SHORT, "--trainer.default_root_dir", folder)
        yield f"shards, {name!r}", ("fit", fit), f"shards-{i}", folder

    run = Path("scored/checkpoints")
    run.mkdir(parents=True)
    run.joinpath("last.ckpt").write_bytes(Path("good.ckpt").read_bytes())
    run.joinpath("../config.yaml").write_text(GAN_AND_DATA)
    for name in ("scores.json", "scores.json.partial"):
        run.parent.joinpath(name).symlink_to(CANARY)
    score = typed("evaluate", "{}", "reals.npy", "--metrics", "fid", "--extractor", "digits", "-n", "50")
    yield "link, scores.json", ("evaluate", score), "scored", "scored"


# What shows that the watch is awake


def controls() -> Iterator[Case]:
    """The ways that are not taken: each must be seen."""
    yield "control, weights_only=False", ("", lambda f: torch.load(f, weights_only=False)), "calls/bad.ckpt", ""
    fetch = LightningModule.load_from_checkpoint.__func__  # type: ignore[attr-defined]
    yield "control, Lightning's URL", ("", lambda f: fetch(ganzoo.GAN, f)), "http://127.0.0.1:9/evil.ckpt", ""
    yield "control, allow_pickle", ("", lambda f: np.load(f, allow_pickle=True)), "pickle.npy", ""
    yield "control, unsafe YAML", ("", lambda f: yaml.unsafe_load(Path(f).read_text())), "tag.yaml", ""
    yield "control, Ghostscript", ("", lambda f: Image.open(f).load()), "eps", ""
    yield "control, import", ("", lambda f: __import__("canary_module")), "", ""
    yield "control, write", ("", lambda f: Path("../canary").write_text("")), "", ""


def memory() -> int:
    """Bytes at the peak."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def listing(folder: str = "") -> dict[str, tuple[int, int]]:
    """Size and time of every file, link and folder below; pathlib would take three times as long."""
    found = {}
    with os.scandir(folder or ".") as entries:
        for entry in entries:
            path, stat = f"{folder}{entry.name}", entry.stat(follow_symlinks=False)
            found[path] = stat.st_size, stat.st_mtime_ns
            if entry.is_dir(follow_symlinks=False):
                found |= listing(f"{path}/")
    return found


def attempt(name: str, entry: tuple[str, Entry], file: str, words: str, own: bool) -> dict[str, Any]:
    """One file, one reader: what came of it. Words of the answer, or the run's own folder, in which it may go on."""
    global watching, inside
    inside = os.path.realpath(words) if own else None
    out, err = io.StringIO(), io.StringIO()
    before, started = listing(), time.perf_counter()
    seen.clear()
    signal.alarm(SECONDS)
    outcome, said = "done", ""
    with redirect_stdout(out), redirect_stderr(err):
        watching = True
        try:
            code = entry[1](file)
            outcome = {1: "told", 2: "refused"}.get(code, "done")  # `checks` tells of all that is wrong
            said = err.getvalue() if code == 2 else out.getvalue()
        except Exception as error:
            watching = False
            kind = type(error).__mro__
            known = any(cls.__name__ in ("ValueError", "OSError", "MisconfigurationException") for cls in kind)
            outcome = "refused" if known else "raised"
            said = str(error) if known else traceback.format_exc()
        finally:
            watching = False
    signal.alarm(0)
    return {
        "name": f"{name}; {entry[0]}",
        "outcome": outcome,
        "said": said,
        "words": words,
        "typed": said.startswith("ganzoo: error: "),
        "did": list(seen),
        "wrote": sorted(path for path, what in listing().items() if before.get(path) != what),
        "seconds": round(time.perf_counter() - started, 2),
        "memory": memory(),
    }


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    warnings.simplefilter("ignore")
    trained(None)
    np.save("reals.npy", np.zeros((4, 8, 8, 1), np.uint8))
    np.save("colour.npy", np.zeros((4, 8, 8, 3), np.uint8))
    with redirect_stdout(io.StringIO()):
        typed(
            "evaluate", "reals.npy", "reals.npy", "--metrics", "fid", "--json", "scores.json", "--extractor", "digits"
        )("")
        typed("fit", *OPTIONS, *SHORT)("")
    sys.addaudithook(watch)
    peak = memory()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
    for group in sys.argv[1:] or (
        "checkpoints",
        "conversions",
        "folders",
        "arrays",
        "weights",
        "pictures",
        "archives",
        "configs",
        "shards",
        "records",
        "runs",
        "controls",
    ):
        for case in globals()[group]():
            print(json.dumps({"group": group, **attempt(*case, own=group == "runs"), "peak": peak}), flush=True)
