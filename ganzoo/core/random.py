"""Stateless randomness: every seed is a function of (seed, step, ...), so a resumed run, or one with another number
of processes or workers, has the same random numbers."""

from __future__ import annotations

import math
import os

import torch
from torch import Tensor

GAMMA = 0x9E3779B97F4A7C15  # of SplitMix64
FIRST, SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def mix(*counters: int) -> int:
    """Hash integers to one seed in [0, 2**63) with the finaliser of SplitMix64.

    Neighbouring counters give unrelated seeds (torch's CPU generator only uses the low 32 bits).
    """
    h = 0
    for counter in counters:
        h = (h + counter + GAMMA) & (2**64 - 1)
        h = ((h ^ (h >> 30)) * FIRST) & (2**64 - 1)
        h = ((h ^ (h >> 27)) * SECOND) & (2**64 - 1)
        h ^= h >> 31
    return h >> 1


def global_seed() -> int:
    """The seed given to `lightning.seed_everything` (the CLI's `seed_everything` key), or 0."""
    return int(os.environ.get("PL_GLOBAL_SEED", 0))


class Randomness:
    """Random generators of a model in training and validation; `restart` seeds them as functions of counters.

    Attributes:
        seed: `global_seed()` at creation.
        shared: for latents and all else that is equal on every process; on the model's device.
        counters: those of the last `restart`.
    """

    def __init__(self) -> None:
        self.seed = global_seed()
        self.counters: tuple[int, ...] = (0,)
        self.shared = torch.Generator()
        self._apart: torch.Generator | None = None

    def __getstate__(self) -> dict[str, int]:
        return {"seed": self.seed}  # `restart` seeds the generators before each use

    def __setstate__(self, state: dict[str, int]) -> None:
        self.__init__()  # type: ignore[misc]
        self.seed = state["seed"]

    def restart(self, device: torch.device, *counters: int, rank: int) -> None:
        """Reseed `shared` from (seed, counters), and torch's own generators from (seed, counters, rank)."""
        if self.shared.device != device:
            self.shared = torch.Generator(device)
        self.counters, self._apart = counters, None
        self.shared.manual_seed(mix(self.seed, *counters))
        noise = mix(self.seed, *counters, 1 + rank)
        torch.default_generator.manual_seed(noise)  # microseconds; `torch.manual_seed` takes 100
        if device.type != "cpu":
            torch.get_device_module(device).manual_seed(noise)

    @property
    def apart(self) -> torch.Generator:
        """A generator like `shared`, but independent of it, so that options do not change what a variant draws."""
        if self._apart is None:
            self._apart = torch.Generator(self.shared.device)
            self._apart.manual_seed(mix(self.seed, *self.counters, -1))
        return self._apart


class Numbers:
    """Random numbers for each image of a batch, functions of its key and the counters: the same in any microbatch, on
    any process and device, and within a compiled graph. The n-th of an image is the n-th of SplitMix64 (Steele et al.
    2014), started at its key.

    Args:
        keys: [N] int64, random.
        counters: different ones give unrelated numbers.
    """

    def __init__(self, keys: Tensor, *counters: int) -> None:
        for counter in counters:
            keys = _finalised(keys + _signed(GAMMA * (counter + 1)))
        self.keys, self.drawn = keys, 0

    def uniform(self, *shape: int) -> Tensor:
        """[N, *shape] float32, multiples of 2^-24 in [0, 1)."""
        first, self.drawn = self.drawn, self.drawn + math.prod(shape)
        steps = torch.arange(first + 1, self.drawn + 1, device=self.keys.device) * _signed(GAMMA)
        bits = _shifted(_finalised(self.keys[:, None] + steps), 40)
        return (bits.float() * 2**-24).view(len(self.keys), *shape)

    def normal(self, *shape: int) -> Tensor:
        """[N, *shape] float32, standard normal, by the method of Box and Muller."""
        radius, angle = self.uniform(2, *shape).unbind(1)
        return (-2 * torch.log1p(-radius)).sqrt() * torch.cos(2 * math.pi * angle)


def _finalised(h: Tensor) -> Tensor:
    """The finaliser in `mix`, of int64, whose products wrap around."""
    h = (h ^ _shifted(h, 30)) * _signed(FIRST)
    h = (h ^ _shifted(h, 27)) * _signed(SECOND)
    return h ^ _shifted(h, 31)


def _shifted(h: Tensor, bits: int) -> Tensor:
    return (h >> bits) & ((1 << (64 - bits)) - 1)  # as if unsigned


def _signed(number: int) -> int:
    """The int64 with the low 64 bits of a number."""
    return (number + 2**63) % 2**64 - 2**63
