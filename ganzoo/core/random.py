"""Stateless randomness: every seed is a function of (seed, step, ...), so a resumed run, or one with another number
of processes or workers, has the same random numbers."""

from __future__ import annotations

import os

import torch


def mix(*counters: int) -> int:
    """Hash integers to one seed in [0, 2**63) with the finaliser of SplitMix64.

    Neighbouring counters give unrelated seeds (torch's CPU generator only uses the low 32 bits).
    """
    h = 0
    for counter in counters:
        h = (h + counter + 0x9E3779B97F4A7C15) & (2**64 - 1)
        h = ((h ^ (h >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        h = ((h ^ (h >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
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
