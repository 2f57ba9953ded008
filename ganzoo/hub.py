"""A checkpoint or a folder -> the right variant with its weights; nothing is ever unpickled that could run code."""

from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import ganzoo
from ganzoo.core.arguments import variant_name
from ganzoo.core.module import GANModule


class CheckpointError(ValueError):
    """A file that is damaged, unsafe, or of another variant; the message says which and what to do."""


def load(path: str | Path, variant: type[GANModule] | None = None, map_location: Any = "cpu") -> Any:
    """A trained model, in eval mode.

    Args:
        path: a Lightning checkpoint, or a folder that `save_pretrained` wrote.
        variant: the class, for a checkpoint of your own variant. Only the zoo's classes are found by themselves: a
            file must not decide what code is imported.
        map_location: the device.

    Returns:
        An instance of the checkpoint's variant.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        CheckpointError: it is no checkpoint of ganzoo, damaged, unsafe, or of another variant.
    """
    name, arguments, weights = read(path)
    cls = _resolve(name, variant, path)
    try:
        model = cls(**arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: {name} does not take its arguments ({error}); was its code changed?") from error
    model.configure_model()  # adds the averaged generator
    try:
        model.load_state_dict(weights)
    except (RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise CheckpointError(f"{path}: its weights do not fit {name} ({reason}); was its code changed?") from error
    return model.eval().to(map_location)


def save_pretrained(model: GANModule, folder: str | Path) -> Path:
    """Write `model.safetensors` (all weights) and `config.json` (variant and its plain arguments) into a folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"variant": variant_name(type(model)), "arguments": dict(model.hparams)}
    weights = {name: tensor.contiguous().clone() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    return folder


def read(path: str | Path) -> tuple[str, dict[str, Any], dict[str, torch.Tensor]]:
    """The variant's name, its arguments and all weights, of a Lightning checkpoint or a `save_pretrained` folder.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        CheckpointError: it is no checkpoint of ganzoo, damaged, or unsafe.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    checkpoint = read_checkpoint(path)
    return checkpoint["ganzoo"]["variant"], checkpoint["hyper_parameters"], checkpoint["state_dict"]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A Lightning checkpoint of ganzoo as a dict, with `weights_only=True`.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is damaged, unsafe, or not of ganzoo.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} holds weights alone, no training to go on with; name a run or its .ckpt")
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint {path}; name a run's .ckpt, or a folder that save_pretrained wrote")
    try:
        with warnings.catch_warnings(action="ignore"):  # of pickle's protocol, where the file is none of torch's
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises anything: RuntimeError, EOFError, KeyError, struct.error, ...
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise CheckpointError(f"{path} wants to run code and was not loaded; take weights from it alone") from error
        raise CheckpointError(f"{path} is damaged, unsafe, or no checkpoint; try the one before it") from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("ganzoo"), dict):
        raise CheckpointError(f"{path} is no checkpoint of ganzoo; name one that fit wrote")
    arguments = checkpoint.setdefault("hyper_parameters", {})  # Lightning leaves it out where there are none
    _check(path, checkpoint["ganzoo"].get("variant"), arguments, checkpoint.get("state_dict"))
    return checkpoint


def _read_folder(folder: Path) -> tuple[str, dict[str, Any], dict[str, torch.Tensor]]:
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} has no {name}; name a folder that save_pretrained wrote")
    try:
        config = json.loads((folder / "config.json").read_text())
        weights = load_file(folder / "model.safetensors")
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{folder} is damaged ({error}); write or download it anew") from error
    config = config if isinstance(config, dict) else {}
    _check(folder, config.get("variant"), config.get("arguments"), weights)
    return config["variant"], config["arguments"], weights


def _check(path: Path, variant: Any, arguments: Any, weights: Any) -> None:
    if not isinstance(variant, str) or not isinstance(arguments, dict) or not isinstance(weights, dict):
        raise CheckpointError(f"{path} is damaged: it names no variant, arguments or weights; try another one")


def _resolve(name: str, variant: type[GANModule] | None, path: str | Path) -> type[GANModule]:
    cls = name.rpartition(".")[2]
    if variant is not None:
        if variant.__name__ != cls:
            raise CheckpointError(f"{path} is of {name}, not of {variant_name(variant)}; load it with its own class")
        return variant
    if cls not in ganzoo.VARIANTS or name != f"{ganzoo.VARIANTS[cls]}.{cls}":
        raise CheckpointError(
            f"{path} is of {name}, which is not in the zoo; name its class: load(path, variant={cls}), or --variant "
            f"{name} on the command line"
        )
    return getattr(ganzoo, cls)
