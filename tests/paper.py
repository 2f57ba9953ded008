"""The values that the tables `PAPER` in the variants' tests compare: layers, optimizers, initial weights."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

NORMS = nn.BatchNorm2d | nn.InstanceNorm2d
LINEAR = nn.Linear | nn.Conv2d | nn.ConvTranspose2d


def layers(network: nn.Module) -> list[str]:
    """One line per layer, in order of construction: "conv 3>64 5/2+2" has kernel 5, stride 2, padding 2."""
    return [line(module) for module in network.modules() if not list(module.children())]


def line(m: Any) -> str:
    match m:
        case nn.Conv2d() | nn.ConvTranspose2d():
            kind = "conv" if isinstance(m, nn.Conv2d) else "up"
            reflect = " reflect" if m.padding_mode == "reflect" else ""
            text = f"{kind} {m.in_channels}>{m.out_channels} {m.kernel_size[0]}/{m.stride[0]}+{m.padding[0]}{reflect}"
            return text + ("" if m.bias is not None else " no bias")
        case nn.Linear():
            return f"linear {m.in_features}>{m.out_features}" + ("" if m.bias is not None else " no bias")
        case nn.GroupNorm():
            return f"group norm {m.num_channels} in {m.num_groups}"
        case nn.BatchNorm2d() | nn.InstanceNorm2d():
            kind = "batch" if isinstance(m, nn.BatchNorm2d) else "instance"
            return f"{kind} norm {m.num_features}" + ("" if m.affine else " without gains")
        case nn.LeakyReLU():
            return f"leaky {m.negative_slope}"
        case nn.Dropout():
            return f"dropout {m.p}"
        case nn.ReflectionPad2d():
            return f"reflect {m.padding[0]}"
    return type(m).__name__.lower()


def optimizers(model: Any, *names: str) -> list[Any]:
    """Settings of both players' optimizers; "kind" is the class name."""
    made = model.configure_optimizers()[0]
    return [type(o).__name__ if name == "kind" else o.defaults[name] for name in names for o in made]


def spread(network: nn.Module, kinds: Any) -> tuple[float, float, float]:
    """Mean and standard deviation of the weights of all layers of some classes, and their largest absolute bias."""
    found = [m for m in network.modules() if isinstance(m, kinds)]
    weights = torch.cat([m.weight.detach().flatten() for m in found])
    biases = [m.bias.detach().flatten() for m in found if getattr(m, "bias", None) is not None]
    return weights.mean().item(), weights.std().item(), torch.cat([*biases, torch.zeros(1)]).abs().max().item()


def all_of(network: nn.Module, pattern: str) -> set[float]:
    """The values of all parameters whose names end with a pattern."""
    found = [p for name, p in network.named_parameters() if re.search(f"({pattern})$", name)]
    return set(torch.cat([p.detach().flatten() for p in found]).tolist())


def begins(mean: float, deviation: float) -> Any:
    """The expected `spread`, within five standard errors for thousands of weights (mean 0) or hundreds of gains (1)."""
    return pytest.approx((mean, deviation, 0.0), abs=(0.06 if mean == 0 else 0.15) * deviation)


def prior(z: Tensor) -> str:
    """The distribution of thousands of latents: one of the two in papers, or else their standard deviation."""
    z, largest = z.flatten(), z.abs().max().item()
    if 0.99 < largest <= 1 and abs(z.std().item() - 3**-0.5) < 0.02:
        return "uniform in (-1, 1)"
    return "standard normal" if 3 < largest < 6 and abs(z.std().item() - 1) < 0.02 else f"deviation {z.std()}"
