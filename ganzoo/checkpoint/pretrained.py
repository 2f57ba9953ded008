"""Loads variants with their weights from a name, a checkpoint or a folder, without running code from files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

import ganzoo
from ganzoo.checkpoint import sealed
from ganzoo.checkpoint.sealed import CheckpointError
from ganzoo.core import from_data
from ganzoo.core.arguments import variant_name
from ganzoo.core.atomic import write_atomically, write_text
from ganzoo.core.files import open_file, read_text
from ganzoo.core.from_data import FromData
from ganzoo.core.module import GANModule
from ganzoo.core.text import closest, path_of

HEADER = 1 << 22  # maximum bytes of safetensors' JSON, about 100 per tensor


class Saved(NamedTuple):
    """A model as stored in a file.

    Attributes:
        variant: `module.Class`.
        arguments: of its constructor, plain values.
        weights: by their names in the model.
        slim: whether only the weights for sampling are stored; see `save_pretrained`.
    """

    variant: str
    arguments: dict[str, Any]
    weights: dict[str, torch.Tensor]
    slim: bool


def load(path: str | Path, variant: type[GANModule] | None = None, map_location: Any = "cpu") -> Any:
    """A trained model, in eval mode.

    Args:
        path: a Lightning checkpoint; a run's folder, for its last checkpoint; a folder written by `save_pretrained`;
            or, if no such path exists, the name of a model that comes with ganzoo: `load("dcgan-digits")`. Most of
            these are slim: their discriminators are untrained; `info NAME` says so.
        variant: the class, for a checkpoint of your own variant; None: the zoo's class that the file names. Other
            classes are not found automatically: a file must not decide what code is imported.
        map_location: the device of the model.

    Returns:
        An instance of the checkpoint's variant.

    Raises:
        FileNotFoundError: there is no such path, and no model of that name; `ganzoo.list_pretrained()` lists these.
        CheckpointError: (a ValueError) the file is not a checkpoint of ganzoo, damaged, unsafe, or of another variant.
    """
    (name, arguments, weights, slim), facts = read(path)
    cls = _resolve(name, variant, path)
    model = sealed.build(path, cls, arguments, weights, 20 if slim else 2)  # slim: D is missing, at most 5 times G
    model.configure_model()  # adds the averaged generator
    try:
        model.load_state_dict(_completed(weights, model) if slim else weights)
    except (AttributeError, RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise CheckpointError(
            f"{path}: its weights do not fit {name} ({reason}); load it with the code it was trained with"
        ) from error
    facts.give(model)
    return model.eval().to(map_location)


def save_pretrained(
    model: GANModule,
    folder: str | Path,
    *,
    slim: bool = False,
    averaged: bool = False,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write `model.safetensors` (weights) and `config.json` (variant, its plain arguments, classes, how pictures
    were read) to a folder.

    Args:
        model: any variant.
        folder: created if it does not exist.
        slim: write only the weights for sampling: the averaged generator, or the generator if there is none, and the
            model's own buffers. The model from `load` has the same samples; its generator is the averaged one, and all
            else, in particular the discriminator, is untrained.
        averaged: write all networks, but of the generator only its average, if there is one; ignored if `slim`. In the
            model from `load`, the generator and its average both have these weights.
        dtype: of the floating-point weights in the file, such as torch.float16; None keeps theirs. `load` converts the
            rounded weights back to the model's dtype.

    Returns:
        The folder.

    Raises:
        ValueError: a weight is too large for `dtype`.
    """
    folder = path_of(folder)
    config: dict[str, Any] = {"variant": variant_name(type(model)), "arguments": dict(model.hparams)}
    weights = model.state_dict()
    if slim:
        config["slim"], weights = True, _sampled(model)
    elif model.ema_half_life is not None and (averaged or model.ema is None):  # no average before a training
        own = {name: weight for name, weight in weights.items() if _part(name) != "ema"}
        config["averaged"], weights = True, {**own, **_sampled(model)}
    config |= from_data.stored(model)
    if dtype is not None:
        weights = {name: _rounded(name, w, dtype) for name, w in weights.items()}
    weights = {name: weight.contiguous().clone() for name, weight in weights.items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "model.safetensors", lambda file: file.write(save(weights, {"format": "pt"})))
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    return folder


def _rounded(name: str, weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if not weight.is_floating_point():
        return weight
    rounded = weight.to(dtype)
    if not torch.equal(rounded.isfinite(), weight.isfinite()):
        raise ValueError(f"{name} has numbers that are too large for {dtype}: choose torch.bfloat16, or no dtype")
    return rounded


def _sampled(model: GANModule) -> dict[str, torch.Tensor]:
    """The generator's weights, averaged if there is an average, and the model's own buffers."""
    weights = {name: weight for name, weight in model.state_dict().items() if _part(name) in ("", "generator")}
    if model.ema is not None:
        weights |= {f"generator.{name}": weight for name, weight in model.ema.state_dict().items()}
    return weights


def _completed(weights: dict[str, torch.Tensor], model: GANModule) -> dict[str, torch.Tensor]:
    """All weights of a model: the slim ones, their copies in the averaged generator, if any, and untrained others."""
    untrained = {name: w for name, w in model.state_dict().items() if _part(name) not in ("", "generator", "ema")}
    return {**untrained, **({} if model.ema is None else _averaged(weights)), **weights}


def _averaged(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The generator's weights by the names of the averaged generator's."""
    return {n.replace("generator", "ema", 1): weight for n, weight in weights.items() if _part(n) == "generator"}


def _part(name: str) -> str:
    """`generator` for `generator.layers.0.weight`, the empty string for the model's own `images_seen`."""
    return name.rpartition(".")[0].partition(".")[0]


def read(path: str | Path) -> tuple[Saved, FromData]:
    """Contents of a Lightning checkpoint, a `save_pretrained` folder or a model that comes with ganzoo, and what the
    model knows of its data.

    Raises:
        FileNotFoundError: there is no such path, and no model of that name.
        CheckpointError: the file is not a checkpoint of ganzoo, damaged, or unsafe.
    """
    name, path = str(path), path_of(path)
    if "://" in name:
        raise FileNotFoundError(f"{name} is not a local file; download it, and give its path")
    if not path.exists() and name in ganzoo.list_pretrained():
        path = ganzoo.PRETRAINED / name
    if path.is_dir():
        if not (of_a_run := sealed.in_order(path / "checkpoints")):
            return _read_folder(path)
        path = of_a_run[-1]
    checkpoint = read_checkpoint(path)
    own, arguments = checkpoint["ganzoo"], checkpoint["hyper_parameters"]
    return Saved(own["variant"], arguments, checkpoint["state_dict"], slim=False), _from_data(path, own, arguments)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A Lightning checkpoint of ganzoo as a dict, loaded with `weights_only=True`.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is damaged, unsafe, or not of ganzoo.
    """
    if not path.is_file():
        hint = closest(
            str(path), ganzoo.list_pretrained(), "give a run's .ckpt, or a folder written by save_pretrained"
        )
        raise FileNotFoundError(f"no checkpoint {path}{hint}")
    checkpoint = sealed.read(path)
    arguments = checkpoint.setdefault("hyper_parameters", {})  # Lightning omits it if there are none
    _check(path, checkpoint["ganzoo"].get("variant"), arguments, checkpoint.get("state_dict"))
    _from_data(path, checkpoint["ganzoo"], arguments)
    return checkpoint


def _read_folder(folder: Path) -> tuple[Saved, FromData]:
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} has no {name}; give a run's folder, or one written by save_pretrained")
    try:
        config = json.loads(read_text(folder / "config.json"))
        weights = _weights(folder / "model.safetensors")
    except (OSError, RecursionError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"{folder} is damaged ({error}); write or download it again") from error
    config = config if isinstance(config, dict) else {}
    _check(folder, config.get("variant"), config.get("arguments"), weights)
    if not isinstance(slim := config.get("slim", False), bool):
        raise CheckpointError(f"{folder} is damaged: slim is {slim!r}, not true or false; write or download it again")
    if odd := [name for name in weights if slim and _part(name) not in ("", "generator")]:
        raise CheckpointError(
            f"{folder} is damaged: it is declared slim (generator only), but has {odd[0]}; write it again"
        )
    if config.get("averaged"):
        weights = {**_averaged(weights), **weights}
    arguments = config["arguments"]
    return Saved(config["variant"], arguments, weights, slim), _from_data(folder, config, arguments)


def _weights(file: Path) -> dict[str, torch.Tensor]:
    with open_file(file) as opened:
        length = int.from_bytes(opened.read(8), "little")
    if length > HEADER:
        raise ValueError(f"its header has {length:,} bytes, more than {HEADER:,}")
    return load_file(file)


def _check(path: Path, variant: Any, arguments: Any, weights: Any) -> None:
    whole = isinstance(variant, str) and variant.isprintable()
    if not whole or not isinstance(arguments, dict) or not isinstance(weights, dict):
        raise CheckpointError(f"{path} is damaged: its variant, arguments or weights are missing; use another file")


def _from_data(path: Path, facts: dict[str, Any], arguments: dict[str, Any]) -> FromData:
    try:
        return from_data.saved(facts, arguments)
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: {error}; write or download it again") from error


def _resolve(name: str, variant: type[GANModule] | None, path: str | Path) -> type[GANModule]:
    cls = name.rpartition(".")[2]
    if variant is not None:
        if variant.__name__ != cls:
            raise CheckpointError(f"{path} is of class {name}, not {variant_name(variant)}; load it with its own class")
        return variant
    if cls not in ganzoo.VARIANTS or name != f"{ganzoo.VARIANTS[cls]}.{cls}":
        raise CheckpointError(
            f"{path} is of class {name}, which is not in the zoo; if you trust its code, pass the class: "
            f"load(path, variant={cls}), or --variant {name} on the command line"
        )
    return getattr(ganzoo, cls)
