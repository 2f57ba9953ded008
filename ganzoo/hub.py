"""A checkpoint or a folder -> the right variant with its weights; nothing is ever unpickled that could run code."""

from __future__ import annotations

import importlib
import json
import pickle
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import ganzoo
from ganzoo.core.module import GANModule
from ganzoo.core.turns import variant_name

T = TypeVar("T", bound=GANModule)


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
    name, arguments, weights = _read_folder(Path(path)) if Path(path).is_dir() else _read_file(Path(path))
    model = _resolve(name, variant, path)(**arguments)
    model.configure_model()  # adds the averaged generator
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise CheckpointError(f"{path}: the weights do not fit {name}: {reason}") from error
    return model.eval().to(map_location)


def save_pretrained(model: GANModule, folder: str | Path) -> Path:
    """Write `model.safetensors` (all weights) and `config.json` (variant and its plain arguments) into a folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"variant": variant_name(type(model)), "arguments": dict(model.hparams)}
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    return folder


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A Lightning checkpoint of ganzoo as a dict, with `weights_only=True`.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is damaged, unsafe, or not of ganzoo.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported global" in str(error) or "GLOBAL" in str(error):
            raise CheckpointError(f"{path} wants to run code and was not loaded; only take weights from it") from error
        raise CheckpointError(f"{path} is damaged, or no checkpoint") from error
    except (RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is truncated or damaged; try the checkpoint before it") from error
    if not isinstance(checkpoint, dict) or "ganzoo" not in checkpoint or "state_dict" not in checkpoint:
        raise CheckpointError(f"{path} is no checkpoint of ganzoo")
    return checkpoint


def _read_file(path: Path) -> tuple[str, dict[str, Any], dict[str, torch.Tensor]]:
    checkpoint = read_checkpoint(path)
    return checkpoint["ganzoo"]["variant"], dict(checkpoint.get("hyper_parameters", {})), checkpoint["state_dict"]


def _read_folder(folder: Path) -> tuple[str, dict[str, Any], dict[str, torch.Tensor]]:
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} has no {name}: it was not written by save_pretrained")
    try:
        config = json.loads((folder / "config.json").read_text())
        return config["variant"], config["arguments"], load_file(folder / "model.safetensors")
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder} is damaged: {error}") from error


def _resolve(name: str, variant: type[GANModule] | None, path: str | Path) -> type[GANModule]:
    zoo = {f"{module}.{cls}": (module, cls) for cls, module in ganzoo.VARIANTS.items()}
    if variant is not None:
        if variant_name(variant) != name and variant.__name__ != name.rsplit(".", 1)[-1]:
            raise CheckpointError(f"{path} is of {name}, not of {variant_name(variant)}")
        return variant
    if name not in zoo:
        raise CheckpointError(f"{path} is of {name}, which is not in the zoo; pass its class: load(path, variant=...)")
    module, cls = zoo[name]
    return getattr(importlib.import_module(module), cls)
