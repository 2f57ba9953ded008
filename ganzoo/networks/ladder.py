"""The ladder network (Rasmus et al. 2015, arXiv:1507.02672), fully connected, with the denoising cost as energy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from ganzoo.core.limits import Size, area


class Ladder(nn.Module):
    """x [N, C, H, W] in [-1, 1] -> weighted denoising costs (bottom layer [N], sum of all other layers [N]).

    Two encoder paths share weights, h^l = relu(norm(W^l h^(l-1)) + beta^l) from z^0 = (x + 1) / 2: a clean one, and one
    with Gaussian noise added to every normalised z^l. From the top, where u^L is the noisy path's softmax, the decoder
    estimates the clean z^l from the noisy z^l and from the layer above, u^l = norm(V^l z_hat^(l+1)) (algorithm 1):
    z_hat = (z_noisy - mu(u)) v(u) + mu(u), where mu and v have five parameters per unit. The cost of layer l is its
    weight times the mean over units of (z_clean - norm_clean(z_hat))^2.

    Batch statistics and noise are used in training; running statistics and no noise in eval mode, so that class and
    cost of an image do not depend on the batch.

    Args:
        image_size: pixels per side of a square, or [height, width].
        channels: of the image.
        num_classes: units of the top layer.
        hidden: units of the third to fifth hidden layer; the second has twice as many, the first four times.
        noise: standard deviation of the noise on pixels in [0, 1] and on every normalised layer.
        denoising: weights of the layers' denoising costs, from the pixels upwards; missing ones are 0.

    Raises:
        ValueError: no weights, more weights than layers, or a negative one.
    """

    def __init__(
        self,
        image_size: Size = 28,
        channels: int = 1,
        num_classes: int = 10,
        hidden: int = 250,
        noise: float = 0.3,
        denoising: Sequence[float] = (5000.0,),
    ) -> None:
        super().__init__()
        sizes = [channels * area(image_size), 4 * hidden, 2 * hidden, hidden, hidden, hidden, num_classes]
        if not 1 <= len(denoising) <= len(sizes) or min(denoising) < 0:
            raise ValueError(f"denoising: give 1 to {len(sizes)} weights, each 0 or more, got {list(denoising)}")
        self.noise, self.denoising = noise, [float(weight) for weight in denoising]
        pairs = list(zip(sizes[:-1], sizes[1:], strict=True))
        self.up = nn.ModuleList(nn.Linear(n, m, bias=False) for n, m in pairs)
        self.beta = nn.ParameterList(torch.zeros(m) for m in sizes[1:])
        self.gamma = nn.Parameter(torch.ones(num_classes))  # top only: elsewhere the next norm cancels a gain
        self.norm_up = nn.ModuleList(Norm(m) for m in sizes[1:])
        self.down = nn.ModuleList(nn.Linear(m, n, bias=False) for n, m in pairs)
        self.norm_down = nn.ModuleList(Norm(m) for m in sizes)
        self.combine = nn.ModuleList(Combinator(m) for m in sizes)
        for layer in (*self.up, *self.down):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)

    def forward(self, x: Tensor, y: Tensor | None = None, track: bool = False) -> tuple[Tensor, Tensor]:
        """The costs; `track` updates the running statistics."""
        clean, means, stds, _ = self.encode(x, noise=0.0, track=track)
        corrupted, _, _, logits = self.encode(x, noise=self.noise)
        costs: list[Tensor] = []  # from the top
        from_above = logits.softmax(1)
        for k in reversed(range(len(clean))):
            mean, std = self.norm_down[k](from_above, track)
            estimate = self.combine[k](corrupted[k], (from_above - mean) / std)
            if k < len(self.denoising):
                error = clean[k] - (estimate - means[k]) / stds[k]
                costs.append(self.denoising[k] * error.square().mean(1))
            from_above = self.down[k - 1](estimate) if k else estimate
        return costs[-1], torch.stack([torch.zeros_like(costs[-1]), *costs[:-1]]).sum(0)

    def classify(self, x: Tensor) -> Tensor:
        """Logits [N, K]; of the noisy path in training mode."""
        return self.encode(x, self.noise)[-1]

    def encode(
        self, x: Tensor, noise: float, track: bool = False
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor], Tensor]:
        """Each layer's z [N, m], the means and standard deviations [m] of its norm, and the logits [N, K]."""
        noise = noise if self.training else 0.0
        h = noisy((x.flatten(1) + 1) / 2, noise)
        layers, means, stds = [h], [h.new_zeros(1)], [h.new_ones(1)]
        for up, norm, beta in zip(self.up, self.norm_up, self.beta, strict=True):
            z = up(h)
            mean, std = norm(z, track)
            z = noisy((z - mean) / std, noise)
            h = relu(z + beta)
            layers, means, stds = [*layers, z], [*means, mean], [*stds, std]
        return layers, means, stds, self.gamma * (z + beta)


class Norm(nn.Module):
    """Mean and standard deviation of each unit. The buffers are named as batch norm's, so they are averaged over
    processes.

    Not a subclass of torch's batch norm, which `sync_batchnorm` would replace. With several processes, statistics are
    those of a process's share of the batch.
    """

    eps, momentum = 1e-5, 0.1  # torch's
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, n: int) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(n))
        self.register_buffer("running_var", torch.ones(n))
        self.register_load_state_dict_pre_hook(_drop_batch_count)

    def forward(self, z: Tensor, track: bool = False) -> tuple[Tensor, Tensor]:
        """z [N, n] -> mean and standard deviation [n]: of the batch in training mode, running ones in eval mode."""
        mean, var = self.running_mean, self.running_var
        if self.training:
            var, mean = torch.var_mean(z.float(), 0, correction=0)
            if track:
                with torch.no_grad():
                    self.running_mean.lerp_(mean, self.momentum)
                    self.running_var.lerp_(var, self.momentum)
        return mean, (var + self.eps).sqrt()


def _drop_batch_count(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Older checkpoints, in which this was a batch norm, have an unused count of batches."""
    state_dict.pop(f"{prefix}num_batches_tracked", None)


class Combinator(nn.Module):
    """z_hat = (z - mu(u)) v(u) + mu(u), with mu(u) = a1 sigmoid(a2 u + a3) + a4 u + a5 and likewise v: [N, n] each."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(10, n))
        with torch.no_grad():
            self.a[[1, 6]] = 1.0

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        mu, v = (a[0] * torch.sigmoid(a[1] * u + a[2]) + a[3] * u + a[4] for a in (self.a[:5], self.a[5:]))
        return (z - mu) * v + mu


def noisy(z: Tensor, std: float) -> Tensor:
    return z + std * torch.randn_like(z) if std else z
