"""Benchmark: StyleGAN2's updates, compared with the straightforward form of the same operations."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from tests.benchmarks.rows import GOALS, row

BATCH = 16
SIZES = {"image_size": 32, "z_dim": 128, "maps": 2048, "mapping_layers": 2, "ema_half_life": None}

Pair = dict[str, float]  # seconds of one update here, and in the straightforward form


def stylegan2(device: str, repeats: int) -> dict[str, list[Pair]]:
    """CPU time of a gradient of each of the four losses, in turns; half of the batch for the path lengths, in both.

    The straightforward form has the weights of every image to compute their norms, [N, O, I, k, k], filters by zero
    insertion and a padded convolution, and keeps torch's memory format. Its networks are otherwise the same.
    """
    import torch

    from ganzoo.variants.stylegan2 import StyleGAN2

    torch.manual_seed(0)
    ours = StyleGAN2(**SIZES).to(device).eval()  # type: ignore[arg-type]
    theirs = straightforward(deepcopy(ours))
    side = SIZES["image_size"]
    print(
        f"\nstylegan2: {side}x{side}, batch {BATCH}; CPU time of the straightforward form / here, "
        f"median (p10 to p90) of {repeats} pairs"
    )
    batch: Any = {"image": torch.rand(BATCH, 3, side, side, device=device)}
    batch |= ours.draw(BATCH, torch.Generator(device).manual_seed(0))
    batch["directions"] = torch.randn(BATCH, 3, side, side, device=device)
    raw: dict[str, list[Pair]] = {}
    for name, equation, player in (
        ("G", "generator_loss", "generator"),
        ("path lengths", "path_loss", "generator"),
        ("D", "discriminator_loss", "discriminator"),
        ("R1", "r1_loss", "discriminator"),
    ):
        pairs = raw[name] = []
        for _ in range(repeats + 1):
            pair = {
                key: _seconds(model, player, getattr(model, equation), batch, device)
                for key, model in (("straightforward", theirs), ("here", ours))
            }
            pairs.append(pair)
        del pairs[0]  # warms up
        goal = f"at least {GOALS[f'stylegan2, {name}']}" if f"stylegan2, {name}" in GOALS else ""
        row(f"{name}, CPU time", [pair["straightforward"] / pair["here"] for pair in pairs], ".2f", goal)
        row(f"{name} here, CPU ms", [1e3 * pair["here"] for pair in pairs], ".0f")
    return raw


def _seconds(model: Any, player: str, equation: Callable[[Any], Any], batch: Any, device: str) -> float:
    """Time of the gradient of a loss; the other player is frozen."""
    import torch

    for name in ("generator", "discriminator"):
        getattr(model, name).requires_grad_(name == player)
        getattr(model, name).zero_grad()
    if device == "cuda":
        torch.cuda.synchronize()
    begin = time.process_time() if device == "cpu" else time.perf_counter()
    sum(equation(batch).values()).backward()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.process_time() if device == "cpu" else time.perf_counter()) - begin


def straightforward(model: Any) -> Any:
    """The model with the operations of its networks replaced."""
    import torch
    from torch.nn.functional import conv2d, conv_transpose2d, pad

    from ganzoo.layers.fir import FIRBlur, FIRDown, FIRUp
    from ganzoo.layers.modulated import EPS, ModulatedConv2d

    def modulated(layer: ModulatedConv2d) -> Callable[..., Any]:
        def forward(x: Any, style: Any) -> Any:
            own = layer.weight[None] * style[:, None, :, None, None]  # [N, O, I, k, k]
            norms = layer.gain * (own.square().sum((2, 3, 4)) + EPS).rsqrt()
            x = x * style[:, :, None, None]
            if layer.up:
                x = conv_transpose2d(x, layer.weight.transpose(0, 1), stride=2)
            else:
                x = conv2d(x, layer.weight, padding=layer.weight.shape[2] // 2)
            return x * norms[:, :, None, None]

        return forward

    def filtered(layer: Any) -> Callable[..., Any]:
        def forward(x: Any) -> Any:
            n, c, height, width = x.shape
            if isinstance(layer, FIRUp):
                x = pad(x.view(n, c, height, 1, width, 1), (0, 1, 0, 0, 0, 1)).view(n, c, 2 * height, 2 * width)
                x = pad(x, (2, 1, 2, 1))
            else:
                side = layer.padding if isinstance(layer, FIRBlur) else 1
                x = pad(x, (side, side, side, side))
            x = conv2d(x, layer.kernel.repeat(c, 1, 1, 1), groups=c)
            return x[:, :, ::2, ::2] if isinstance(layer, FIRDown) else x

        return forward

    model.to(memory_format=torch.contiguous_format)
    for module in list(model.modules()):
        if isinstance(module, ModulatedConv2d):
            module.forward = modulated(module)  # type: ignore[method-assign]
        elif isinstance(module, FIRUp | FIRDown | FIRBlur):
            module.forward = filtered(module)  # type: ignore[method-assign]
    return model
