"""Aliasing and translation equivariance: why textures stick to pixels (Karras et al. 2021, arXiv:2106.12423)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import conv2d, leaky_relu, pad

from ganzoo.functional.equivariance import low_pass, resample
from ganzoo.theory.base import DATA, DISCRIMINATOR, GENERATOR, panels
from ganzoo.theory.parts import seeded

NETWORKS = {
    "strided": "stride 2, nearest upsampling",
    "pointwise": "pointwise leaky ReLU",
    "filtered": "filtered leaky ReLU",
}


def band_limited(size: int, highest: float, seed: int, channels: int = 4) -> Tensor:
    """Periodic white noise [1, channels, size, size] with frequencies up to `highest` cycles per pixel; variance 1."""
    generator = seeded(seed)
    spectrum = torch.fft.rfft2(torch.randn(1, channels, size, size, generator=generator, dtype=torch.float64))
    down, right = torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)
    signal = torch.fft.irfft2(spectrum * (torch.hypot(down, right) <= highest), s=(size, size))
    return signal / signal.std()


def filtered_leaky_relu(x: Tensor, kernel: Tensor, slope: float = 0.2, gain: float = math.sqrt(2)) -> Tensor:
    """Leaky ReLU of the continuous signal: doubles the sampling rate, applies it, and removes the new high frequencies.

    Args:
        x: [N, C, H, W], periodic.
        kernel: [taps], of both filters, at the higher rate.
        slope: of negative values.
        gain: preserves the variance.
    """
    ahead, behind = (len(kernel) - 1) // 2, len(kernel) // 2  # together, the filters shift nothing
    x = gain * leaky_relu(resample(x, kernel, up=2, ahead=ahead), slope)
    return resample(x, kernel, down=2, ahead=behind)


def translate(x: Tensor, dx: float, dy: float) -> Tensor:
    """Shifts the periodic signal x [N, C, H, W] by dx pixels to the right and dy down; for whole pixels equal to
    `torch.roll`.

    Exact for signals below the Nyquist frequency.
    """
    h, w = x.shape[-2:]
    fy, fx = (torch.fft.fftfreq(n, dtype=x.dtype, device=x.device) for n in (h, w))
    turns = fy[:, None] * dy + fx * dx
    return torch.fft.ifft2(torch.fft.fft2(x) * torch.polar(torch.ones_like(turns), -2 * math.pi * turns)).real


def equivariance_db(f: Callable[[Tensor], Tensor], x: Tensor, shifts: Iterable[tuple[float, float]]) -> float:
    """EQ-T (eq. 3) in dB: 10 log10 2^2 / mean (f(t[x]) - t[f(x)])^2 over images, pixels, channels and shifts.

    Infinite if all are bit-identical. The paper uses whole-pixel shifts of the output and excludes pixels shifted in at
    the borders; periodic images have no borders.

    Args:
        f: images [N, C, H, W] -> images [N, C', H', W'] in [-1, 1], whose shifts are scaled by H' / H and W' / W.
        x: [N, C, H, W], periodic.
        shifts: (dx, dy) in pixels of x.
    """
    y = f(x)
    scale = [after / before for after, before in zip(y.shape[-2:], x.shape[-2:], strict=True)]
    errors = [
        (f(translate(x, dx, dy)) - translate(y, dx * scale[1], dy * scale[0])).double().square().mean()
        for dx, dy in shifts
    ]
    return 10 * torch.log10(4 / torch.stack(errors).mean()).item()


def network(kind: str, seed: int, channels: int = 4, depth: int = 3) -> Callable[[Tensor], Tensor]:
    """An untrained network on periodic images: 3x3 convolutions with leaky ReLU, then a 1x1 convolution to one channel.

    Args:
        kind: the nonlinearity: "pointwise": leaky ReLU of the samples; "strided": the same, with stride 2 and nearest
            upsampling; "filtered": leaky ReLU of the continuous signal (Karras et al. 2021, arXiv:2106.12423, section
            3.2).
        seed: of the weights, shared by all kinds.
        channels: of every layer but the last.
        depth: number of 3x3 convolutions.
    """
    generator = seeded(seed)
    shape = (depth, channels, channels, 3, 3)
    weights = torch.randn(shape, generator=generator, dtype=torch.float64) / math.sqrt(9 * channels)
    last = torch.randn(1, channels, 1, 1, generator=generator, dtype=torch.float64) / math.sqrt(channels)
    keeps = low_pass(cutoff=0.25, half_width=0.15, taps=12, rate=2)

    def f(x: Tensor) -> Tensor:
        for weight in weights:
            x = conv2d(pad(x, (1, 1, 1, 1), mode="circular"), weight)
            if kind == "filtered":
                x = filtered_leaky_relu(x, keeps)
                continue
            x = math.sqrt(2) * leaky_relu(x, 0.2)
            if kind == "strided":
                x = x[..., ::2, ::2].repeat_interleave(2, 2).repeat_interleave(2, 3)
        return conv2d(x, last)

    return f


def equivariance(kind: str, seed: int = 0, size: int = 16, shifts: int = 4) -> float:
    """EQ-T in dB of an untrained network with output scaled to [-1, 1], over random shifts of up to 2 pixels."""
    x, f = band_limited(size, 0.2, seed), network(kind, seed)
    largest = f(x).abs().max()
    some = torch.rand(shifts, 2, generator=seeded(seed)) * 4 - 2
    return equivariance_db(lambda moved: f(moved) / largest, x, [(dx, dy) for dx, dy in some.tolist()])


def moving(kind: str, shifts: Tensor, seed: int = 0, size: int = 16) -> tuple[Tensor, Tensor]:
    """A network's output while its input is shifted to the right.

    Returns:
        The middle row of the output for each shift [shifts, size], and the root mean square difference between the
        output and the shifted output of the unshifted input [shifts]; both relative to the largest absolute output.
    """
    x, f = band_limited(size, 0.2, seed), network(kind, seed)
    y = f(x)
    moved = [f(translate(x, shift, 0)) for shift in shifts.tolist()]
    errors = [
        (one - translate(y, shift, 0)).square().mean().sqrt() for one, shift in zip(moved, shifts.tolist(), strict=True)
    ]
    rows = torch.stack([one[0, 0, size // 2] for one in moved])
    return rows / y.abs().max(), torch.stack(errors) / y.abs().max()


def rectified(size: int = 32, finer: int = 16) -> dict[str, Tensor]:
    """A band-limited one-dimensional signal and its leaky ReLU.

    Returns:
        "signal" and "truth": the signal and its leaky ReLU on a grid `finer` times as fine [size * finer]; "sampled"
        and "later": the band-limited interpolation [size * finer] of the truth from its values at whole pixels, and at
        half-pixel positions; "filtered" and "filtered, later": the same for the filtered leaky ReLU.
    """
    coarse = band_limited(size, 0.3, 4, 1)[:, :, :1].expand(1, 1, size, size)  # constant along columns
    keeps = low_pass(cutoff=0.25, half_width=0.15, taps=12, rate=2)

    def pointwise(x: Tensor) -> Tensor:
        return math.sqrt(2) * leaky_relu(x, 0.2)

    def fine(x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(x[0, 0, 0])
        spectrum[-1] /= 2  # the Nyquist frequency stands for both signs
        return torch.fft.irfft(spectrum, n=size * finer) * finer

    def later(f: Callable[[Tensor], Tensor]) -> Tensor:
        return fine(f(translate(coarse, -0.5, 0))).roll(finer // 2)

    def filtered(x: Tensor) -> Tensor:
        return filtered_leaky_relu(x, keeps)

    return {
        "signal": fine(coarse),
        "truth": pointwise(fine(coarse)),
        "sampled": fine(pointwise(coarse)),
        "later": later(pointwise),
        "filtered": fine(filtered(coarse)),
        "filtered, later": later(filtered),
    }


def aliasing() -> Figure:
    """Why textures stick to pixels: the leaky ReLU of samples differs from that of the signal (Karras et al. 2021).

    Top: the kinks of a leaky ReLU have frequencies above the Nyquist limit (grey). Sampling turns them into wrong low
    frequencies, which depend on the position relative to the grid: the interpolations of two sample grids half a pixel
    apart differ. With upsampling and filtering (arXiv:2106.12423, section 3.2) they nearly agree. Bottom: rows of an
    untrained network's output while its input moves. With strides and nearest upsampling, features that should move
    along diagonals stay and jump. Right: the difference between the output and the shifted output; it is small only
    with filtering. EQ-T (eq. 3) expresses it in decibels.
    """
    figure, grid = panels(3, 2, 4.4, 3.4)
    curves = rectified()
    finer, size = 16, 32
    at = torch.arange(size * finer) / finer
    grid[0, 0].plot(at, curves["truth"], color=DATA, label="leaky ReLU of the signal")
    grid[0, 0].plot(at, curves["sampled"], color=GENERATOR, label="interpolated samples")
    grid[0, 0].plot(at, curves["later"], color=DISCRIMINATOR, label="the same, grid shifted by half a pixel")
    grid[0, 0].plot(at[::finer], curves["truth"][::finer], ".", color=GENERATOR)
    grid[0, 0].plot(at[finer // 2 :: finer], curves["truth"][finer // 2 :: finer], ".", color=DISCRIMINATOR)
    grid[0, 0].set(
        xlim=(0, 8), ylim=(-0.8, 1.8), xlabel="pixels", ylabel="value", title="the kinks fall between the samples"
    )
    grid[0, 0].legend(fontsize=8)
    frequencies = torch.arange(size * finer // 2 + 1) / size

    def decibels(signal: Tensor) -> Tensor:
        return 20 * (torch.fft.rfft(signal).abs() / len(signal) + 1e-7).log10()

    grid[0, 1].plot(frequencies, decibels(curves["truth"]), color=DATA, label="after the leaky ReLU")
    grid[0, 1].plot(frequencies, decibels(curves["signal"]), color="tab:green", label="the signal")
    grid[0, 1].axvspan(0.5, 1.5, color="lightgray")
    grid[0, 1].set(xlim=(0, 1.5), ylim=(-90, 0), xlabel="cycles per pixel", ylabel="amplitude, dB")
    grid[0, 1].set_title("new frequencies are above the Nyquist limit")
    changes = {"pointwise": curves["sampled"] - curves["later"]}
    changes["filtered"] = curves["filtered"] - curves["filtered, later"]
    colours = {"strided": "tab:red", "pointwise": GENERATOR, "filtered": "tab:green"}
    for kind, change in changes.items():
        grid[0, 2].plot(frequencies, decibels(change), color=colours[kind], label=NETWORKS[kind])
    grid[0, 2].set(xlim=(0, 0.5), ylim=(-120, 0), xlabel="cycles per pixel", ylabel="amplitude, dB")
    grid[0, 2].set_title("change due to a shift by half a pixel")
    shifts = torch.linspace(0, 6, 121)
    for axes, kind in zip(grid[1], ("strided", "filtered"), strict=False):
        rows, _ = moving(kind, shifts)
        axes.imshow(rows, cmap="RdBu", vmin=-1, vmax=1, aspect="auto", origin="lower", extent=(0, 16, 0, 6))
        axes.set(xlabel="pixel", ylabel="shift of the input, pixels")
        axes.set_title(f"{NETWORKS[kind]}: {equivariance(kind):.0f} dB")
    for kind, name in NETWORKS.items():
        _, errors = moving(kind, shifts)
        grid[1, 2].plot(shifts, errors, color=colours[kind], label=f"{name}: {equivariance(kind):.0f} dB")
    grid[1, 2].set(
        yscale="log", ylim=(1e-5, 20), xlabel="shift of the input, pixels", ylabel="rms error / largest output"
    )
    for axes in (grid[0, 1], grid[0, 2], grid[1, 2]):
        axes.legend(fontsize=8)
    return figure
