"""Writes pickles as the official StyleGAN2-ADA, StyleGAN3 and R3GAN code does, of small networks with given tensors.

Written from descriptions of the files: StyleGAN's modules reduce to a function's argument, with their source text;
R3GAN's are ordinary objects.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

DATA = Path(__file__).parent / "data"
BUFFERS = ("w_avg", "noise_const", "resample_filter", "Kernel")
BUFFERS += ("magnitude_ema", "freqs", "phases", "transform", "up_filter", "down_filter")
FILTER = torch.outer(*2 * [torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8])
SOURCE = "raise RuntimeError('the source in the pickle was run')"


class EasyDict(dict):
    __module__ = "dnnlib.util"


def _reconstruct_persistent_obj(meta: Any) -> None: ...


_reconstruct_persistent_obj.__module__ = "torch_utils.persistence"


class Generator(nn.Module):
    __module__ = "training.networks"


class Persistent(Generator):
    """As decorated by torch_utils.persistence: it keeps its arguments."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._init_args, self._init_kwargs = (), EasyDict(options)
        self.weight_gain, self.cutoffs = np.float64(0.5), np.ones(3)  # such values are in the files, too

    def __reduce__(self) -> Any:
        meta = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": "Generator", "state": self.__dict__}
        return _reconstruct_persistent_obj, (meta,)


FAKES = {
    "training.networks": Generator,
    "torch_utils.persistence": _reconstruct_persistent_obj,
    "dnnlib.util": EasyDict,
}


def network(tensors: Mapping[str, Tensor], kind: type[nn.Module], **options: Any) -> nn.Module:
    """A tree of modules with tensors under these names."""
    top = kind(**options)
    for name, tensor in tensors.items():
        *path, last = name.split(".")
        module = top
        for part in path:
            if part not in module._modules:
                module.add_module(part, kind())
            module = module._modules[part]
        if last in BUFFERS:
            module.register_buffer(last, tensor)
        else:
            module.register_parameter(last, nn.Parameter(tensor, requires_grad=False))
    return top


def write(path: Path, content: Any, protocol: int = 4) -> Path:
    fakes = {}
    for name, thing in FAKES.items():
        fakes[name.partition(".")[0]] = ModuleType(name)
        fakes[name] = ModuleType(name)
        setattr(fakes[name], thing.__name__, thing)
    with patch.dict(sys.modules, fakes), path.open("wb") as file:
        pickle.dump(content, file, protocol)
    return path


def golden(file: str, tag: str) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Tensors of G and of D, and the other arrays, of a file of golden numbers."""
    arrays = {
        k.removeprefix(f"{tag}/"): torch.from_numpy(v) for k, v in np.load(DATA / file).items() if k.startswith(tag)
    }
    g, d = ({k[2:]: v for k, v in arrays.items() if k.startswith(f"{key}/")} for key in "GD")
    return g, d, {k: v for k, v in arrays.items() if "/" not in k}


def stylegan2(g: dict[str, Tensor], d: dict[str, Tensor], **changes: Any) -> dict[str, Any]:
    """Content of a StyleGAN2-ADA pickle; changed options by name, for both networks."""
    filters = {f"{name}.resample_filter": FILTER for name in ("synthesis.b8", "synthesis.b8.conv0")}
    synthesis = EasyDict(channel_base=128, channel_max=16, num_fp16_res=0, conv_clamp=None)
    options = {
        "z_dim": 16,
        "w_dim": 16,
        "mapping_kwargs": EasyDict(num_layers=2),
        "synthesis_kwargs": synthesis,
        **changes,
    }
    of_d = {"epilogue_kwargs": EasyDict(mbstd_group_size=4), "channel_base": 128, **changes}
    content = {
        "G": network({**g, "mapping.w_avg": g["mapping.w_avg"] + 1, **filters}, Persistent, **options),
        "D": network({**d, "b8.skip.resample_filter": FILTER}, Persistent, **of_d),
        "G_ema": network({**g, **filters}, Persistent, **options),
    }
    return {
        **content,
        "augment_pipe": network({"p": torch.zeros(())}, Persistent),
        "training_set_kwargs": EasyDict(a=1),
    }


def stylegan3(g: dict[str, Tensor], d: dict[str, Tensor], **changes: Any) -> dict[str, Any]:
    """Content of a StyleGAN3 pickle, with D, which is StyleGAN2's; changed options by name, for G and its average."""
    synthesis = EasyDict(channel_base=128, num_layers=6, magnitude_ema_beta=0.999, first_stopband=2**2.1)
    options = {"z_dim": 16, "mapping_kwargs": EasyDict(num_layers=2), "synthesis_kwargs": synthesis, **changes}
    of_d = {"epilogue_kwargs": EasyDict(mbstd_group_size=4)}
    return {
        "G": network({**g, "mapping.w_avg": g["mapping.w_avg"] + 1}, Persistent, **options),
        "D": network({**d, "b8.skip.resample_filter": FILTER}, Persistent, **of_d),
        "G_ema": network(g, Persistent, **options),
        "training_set_kwargs": EasyDict(a=1),
    }


def r3gan(g: dict[str, Tensor], d: dict[str, Tensor]) -> dict[str, Any]:
    """Content of an R3GAN pickle."""
    g, d = ({f"Model.{name}": tensor for name, tensor in of.items()} for of in (g, d))
    g["Model.MainLayers.1.Layers.0.Resampler.Kernel"] = FILTER
    first = next(iter(g))
    content = {
        "G": network({**g, first: g[first] + 1}, Generator),
        "D": network(d, Generator),
        "G_ema": network(g, Generator),
    }
    adam = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 2e-4}]}
    return {**content, "training_set_kwargs": EasyDict(a=1), "cur_nimg": 640, "D_opt_state": adam, "G_opt_state": adam}
