"""Benchmarks: StyleGAN2's updates and StyleGAN3's filtered nonlinearity, compared with the straightforward form of the
same operations."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from tests.benchmarks.rows import GOALS, row

BATCH = 16
SIZES = {"image_size": 32, "z_dim": 128, "maps": 2048, "mapping_layers": 2, "ema_half_life": None}

Pair = dict[str, float]  # seconds of one update here, and in the straightforward form

MAPS = 8, 64  # images and feature maps
LAYERS = {  # samples of a side before and after, upsampling, and whether the second filter is radial
    "T, up 2": (54, 52, 2, False),
    "T, up 4": (38, 52, 4, False),
    "R, up 2": (52, 52, 2, True),
}


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


def stylegan3(device: str, repeats: int) -> dict[str, dict[str, list[float]]]:
    """CPU time of the nonlinearity of 32 pixels' layers, its gradient and its second derivatives, in turns, and bytes
    that are kept for the backward pass.

    The written-out form inserts zeros, pads, convolves each map at the higher rate, twice, and drops samples. It is
    measured in torch's memory format and with channels last, of which the faster is the comparison.
    """
    import torch

    from ganzoo.layers.filtered import FilteredLeaky

    print(
        f"\nstylegan3: {MAPS[0]} images, {MAPS[1]} maps; CPU time of the faster written-out form / here, "
        f"median (p10 to p90) of {repeats}"
    )
    raw: dict[str, dict[str, list[float]]] = {}
    goal = f"at least {GOALS['stylegan3']}"
    for name, (size, out, up, radial) in LAYERS.items():
        torch.manual_seed(0)
        layer = FilteredLeaky(*_filters(up, radial), up, 2, size, out).to(device)
        x = torch.randn(*MAPS, size, size, device=device)
        last = x.contiguous(memory_format=torch.channels_last)
        written = written_out(layer, out)
        forms = {"contiguous": (written, x), "channels last": (written, last), "here": (layer, last)}
        times = {form: [_derivatives(*given, device) for _ in range(repeats + 1)][1:] for form, given in forms.items()}
        found = raw[name] = {}
        for i, what in enumerate(("forward", "forward and backward", "second derivatives")):
            seconds = {form: [run[i] for run in runs] for form, runs in times.items()}
            best = min((seconds[form] for form in ("contiguous", "channels last")), key=statistics.median)
            found |= {f"{what}, written out": best, what: seconds["here"]}
            row(f"{name}: {what}, CPU time", [a / b for a, b in zip(best, seconds["here"], strict=True)], ".2f", goal)
            row(f"{name}: {what} here, CPU ms", [1e3 * time for time in seconds["here"]], ".0f")
        kept = {form: _kept(*forms[form]) for form in ("channels last", "here")}
        found |= {"kept, written out": [kept["channels last"]], "kept": [kept["here"]]}
        row(f"{name}: bytes kept for the backward pass", [kept["channels last"] / kept["here"]], ".1f", goal)
        row(f"{name}: kept here, MB", [kept["here"] / 1e6], ".1f")
    return raw


def _filters(up: int, radial: bool) -> tuple[Any, Any]:
    from ganzoo.functional.equivariance import low_pass, radial_low_pass

    return low_pass(0.5, 0.3, 6 * up, up), (radial_low_pass if radial else low_pass)(0.5, 0.3, 12, 2)


def written_out(layer: Any, out: int) -> Callable[[Any], Any]:
    """The operation of a `FilteredLeaky` with outputs of this size, as a composition of separate ones."""
    import torch
    from torch.nn.functional import conv2d, leaky_relu, pad

    def filtered(x: Any, taps: Any) -> Any:
        n = x.shape[1]
        if taps.ndim == 2:
            return conv2d(x, taps.expand(n, 1, -1, -1), groups=n)
        return conv2d(conv2d(x, taps.expand(n, 1, 1, -1), groups=n), taps[:, None].expand(n, 1, -1, 1), groups=n)

    def forward(x: Any) -> Any:
        n, c, size, _ = x.shape
        up, down, first, second = layer.up, layer.down, layer.first, layer.second
        total = (out - 1) * down + len(second) + len(first) - 1 - size * up
        before = (total + up) // 2
        last = x.is_contiguous(memory_format=torch.channels_last)
        order = torch.channels_last if last else torch.contiguous_format
        fine = torch.empty(n, c, size * up, size * up, device=x.device, memory_format=order).zero_()
        fine[:, :, ::up, ::up] = x
        fine = filtered(pad(fine, (before, total - before) * 2), first)
        return filtered(leaky_relu(fine, 0.2), second)[:, :, ::down, ::down]

    return forward


def _derivatives(f: Callable[[Any], Any], x: Any, device: str) -> list[float]:
    """Seconds of f(x), of its gradient with it, and of the derivatives of the gradient's square with both."""
    import torch

    def run(order: int) -> None:
        given = x.detach().requires_grad_(order > 0)
        with torch.set_grad_enabled(order > 0):
            y = f(given)
        if order == 1:
            torch.autograd.grad(y, given, torch.ones_like(y))
        elif order == 2:
            direction = torch.ones_like(y).requires_grad_()
            (gradient,) = torch.autograd.grad(y, given, direction, create_graph=True)
            torch.autograd.grad(gradient.square().sum(), direction)

    return [_clocked(lambda order=order: run(order), device) for order in range(3)]  # type: ignore[misc]


def _kept(f: Callable[[Any], Any], x: Any) -> float:
    """Bytes that a call keeps for the backward pass, besides its input."""
    import torch

    kept: dict[int, int] = {}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() != x.untyped_storage().data_ptr():
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = f(x.detach().requires_grad_())  # noqa: F841  # so that none of its tensors has the place of a freed one
    return sum(kept.values())


def _seconds(model: Any, player: str, equation: Callable[[Any], Any], batch: Any, device: str) -> float:
    """Time of the gradient of a loss; the other player is frozen."""
    for name in ("generator", "discriminator"):
        getattr(model, name).requires_grad_(name == player)
        getattr(model, name).zero_grad()
    return _clocked(lambda: sum(equation(batch).values()).backward(), device)


def _clocked(work: Callable[[], Any], device: str) -> float:
    """Seconds of work: CPU time on a CPU."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
    begin = time.process_time() if device == "cpu" else time.perf_counter()
    work()
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
