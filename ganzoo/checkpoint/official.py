"""Converts pickles of the official StyleGAN2-ADA, StyleGAN3 and R3GAN code to `save_pretrained` folders.

No code in them runs. `inert.py` reads the pickle in a process of its own, which ends at limits of memory and time.
Here its tensors get our names, and every shape and option that our networks do not have is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

import ganzoo
from ganzoo.checkpoint import inert
from ganzoo.checkpoint.layouts import Layout, Networks, layout_of
from ganzoo.checkpoint.pretrained import save_pretrained
from ganzoo.checkpoint.sealed import CheckpointError, build
from ganzoo.core.atomic import path_part
from ganzoo.core.files import open_file
from ganzoo.core.module import GANModule
from ganzoo.core.text import quoted

SECONDS, SPEED = 60, 5e6  # time limit for reading a pickle: SECONDS, plus one second per SPEED bytes
STORAGES = {"Float": "float32", "Double": "float64", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64"}
OTHERS = {  # first bytes of files that are not pickles -> what the file is, and what to do
    rb"PK\x03\x04": "is a file of torch.save, such as a checkpoint of ganzoo, which needs no conversion: sample FILE",
    rb".{7}\0\{": "is a safetensors file, not a pickle; give the official .pkl, or a folder of save_pretrained",
    rb"\s*<": "is a web page, not the file behind it; download it again",
    rb"(?!\x80[\x02-\x05])": "is not a Python 3 pickle; give a .pkl that the official code wrote",
}
CHANGED = "of changed code; download it again, or use the code that wrote it"


def convert(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> GANModule:
    """Write the networks of an official pickle to a folder, as `save_pretrained` does.

    Args:
        path: of a .pkl with the networks G, D and G_ema.
        folder: a new or empty one. It is not created if the conversion fails.

    Returns:
        The model, with its `origin`, which is also in the folder's `config.json`.

    Raises:
        CheckpointError: the file is damaged, unsafe, of other code, or has networks unlike ours.
        OSError: the file cannot be read, or the folder not be written.
    """
    path, folder = Path(path), Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists, and is not an empty folder: choose a new one")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give a .pkl that the official code wrote")
    with open_file(path, buffering=0) as file:
        networks, index, digest = _read(path, file)
    try:
        layout = layout_of(networks)
        model = _model(path, layout, networks, index["options"])
    except KeyError as error:
        raise CheckpointError(f"{path} has no {error}: it is incomplete, or {CHANGED}") from error
    except (IndexError, RuntimeError) as error:
        raise CheckpointError(f"{path} has tensors of odd shapes: it is damaged, or {CHANGED}") from error
    except ValueError as error:
        raise error if isinstance(error, CheckpointError) else CheckpointError(f"{path}: {error}") from error
    if isinstance(images := index["images"], int) and 0 <= images < 2**40:
        model.images_seen = model.batch_parts * images
    model.origin = {"file": path.name, "sha256": digest, "licence": layout.licence}
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.absolute().parent, prefix=f"{path_part(folder.name)}.") as temporary:
        save_pretrained(model, whole := Path(temporary, "whole"))
        if folder.exists():
            folder.rmdir()
        whole.replace(folder)
    return model.eval()


def _read(path: Path, file: Any) -> tuple[Networks, dict[str, Any], str]:
    """Networks of a pickle, its description by `inert.contents`, and its sha256."""
    start = file.read(9)
    if problem := next((what for kind, what in OTHERS.items() if re.match(kind, start, re.DOTALL)), None):
        raise CheckpointError(f"{path} {problem.replace('FILE', quoted(path))}")
    file.seek(0)
    digest, size = hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
    file.seek(0)
    own = [str(Path(ganzoo.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-P", "-W", "ignore", "-m", inert.__name__]
    limits = {"env": {**os.environ, "PYTHONPATH": os.pathsep.join(own)}, "timeout": SECONDS + size / SPEED}
    with tempfile.TemporaryFile() as out:
        try:
            done = subprocess.run(command, stdin=file, stdout=out, stderr=subprocess.PIPE, **limits)  # type: ignore[call-overload]
        except subprocess.TimeoutExpired as error:
            raise CheckpointError(f"{path} takes far too long to read, so it was refused; use another file") from error
        said = [f"exit code {done.returncode}", *done.stderr.decode(errors="replace").splitlines()][-1]
        if done.returncode == inert.REFUSED:
            raise CheckpointError(f"{path} {said}")
        if done.returncode:
            raise CheckpointError(f"{path} crashed the process that reads it ({said}); use another file")
        out.seek(0)
        try:
            return *_tensors(out), digest
        except (LookupError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} is damaged: its tensors do not fit their data; download it again") from error


def _tensors(file: BinaryIO) -> tuple[Networks, dict[str, Any]]:
    """Networks in the output of `inert.main`, and their description; floats in float32."""
    index = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    storages = []
    for kind, length in index["storages"]:
        dtype = getattr(torch, STORAGES[kind.removeprefix("torch.").removesuffix("Storage")])
        storages.append(torch.frombuffer(bytearray(file.read(length)), dtype=dtype))

    left = 3 * sum(map(len, storages))  # numbers: the three networks may share their storages

    def tensor(number: int, offset: int, size: list[int], stride: list[int]) -> Tensor:
        nonlocal left
        values = storages[number]
        left -= prod(size)
        if prod(size) > len(values) or left < 0:
            raise ValueError("expanded")
        found = values.as_strided(size, stride, offset)
        return found.float() if found.is_floating_point() else found

    return {key: {name: tensor(*t) for name, t in of.items()} for key, of in index["networks"].items()}, index


def _model(path: Path, layout: Layout, networks: Networks, options: dict[str, Any]) -> GANModule:
    """The variant with the weights.

    Raises:
        KeyError: a tensor is missing.
        ValueError: the networks are unlike ours.
    """
    for key in inert.NETWORKS:
        _check_filters(key, networks[key])
    arguments, variant = layout.arguments(networks, options), layout.variant
    weights = {f"{key}.{name}": tensor for key, of in networks.items() for name, tensor in of.items()}
    model: GANModule = build(path, getattr(ganzoo, variant), arguments, weights)
    model.configure_model()  # adds the averaged generator
    for name, ours in layout.filters(model.generator).items():
        for key in ("G", "G_ema"):
            _check_filter(f"{key}.{name}", networks[key].pop(name), ours.float(), "than that of StyleGAN3's paper")
    for key, network in zip(inert.NETWORKS, (model.generator, model.discriminator, model.ema), strict=True):
        left, found = dict(networks[key]), {}
        for name, ours in network.state_dict().items():  # type: ignore[union-attr]
            theirs = left.pop(official := layout.theirs(name, arguments), None)
            if theirs is None:
                raise KeyError(f"{key}.{official}")
            found[name] = theirs.T if official == "EmbeddingLayer.weight" else theirs
            if found[name].shape != ours.shape:
                raise ValueError(
                    f"{key}.{official} has the shape {list(theirs.shape)}, unlike that of ganzoo's {variant}; use the "
                    "official code for it"
                )
        if left:
            raise ValueError(f"{key} has {min(left)}, which ganzoo's {variant} does not have; use the official code")
        network.load_state_dict(found)  # type: ignore[union-attr]
    return model


def _check_filters(key: str, network: dict[str, Tensor]) -> None:
    """Removes the resampling filters from a network's tensors.

    Raises:
        ValueError: they are not [1, 3, 3, 1] in each direction.
    """
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    for name in [name for name in network if name.endswith((".resample_filter", "Resampler.Kernel"))]:
        kernel = network.pop(name).squeeze()
        known = torch.outer(taps, taps) if kernel.ndim == 2 else taps
        _check_filter(f"{key}.{name}", kernel / kernel.sum(), known, "than [1, 3, 3, 1]")


def _check_filter(name: str, theirs: Tensor, ours: Tensor, which: str) -> None:
    """
    Raises:
        ValueError: they differ.
    """
    if theirs.shape != ours.shape or not torch.allclose(theirs, ours, atol=1e-5):
        raise ValueError(f"{name} is another filter {which}, the only one that ganzoo supports; use the official code")
