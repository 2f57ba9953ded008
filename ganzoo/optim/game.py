"""Optimizers for games; `ganzoo/games/rules.py` shows their behaviour on f = xy.

Each optimizer updates one player. `GANModule.play` updates the players in turns; the papers update them simultaneously.
On f = xy from (1, 1), with alternating updates, lr 0.01, beta1 0.5 and beta2 0.9, the radius after 5000 steps is 0.094
of the initial one with Adam, 0.013 with OptimisticAdam, and 0.0018 with ExtraAdam, which needs two gradients per step.
With Adam's default beta2 of 0.999 the last two are hardly better than Adam: 0.62 and 0.61, against 0.70, after 1000
steps. None of them converges exactly, since Adam normalises the step size.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ganzoo.optim.adam import FusedAdam


class CorrectedAdam(FusedAdam):
    """Base class of Adam with a correction after each step.

    It is not fused: the fp16 gradient scaler calls `step` of a fused optimizer even for a step that it skips, and the
    correction would then be applied.

    Args:
        params: as in torch.
        **adam: arguments of `FusedAdam`, except `fused`: `lr`, `beta1`, `beta2`, `eps`, `weight_decay`.
    """

    def __init__(self, params: Any, **adam: Any) -> None:
        super().__init__(params, fused=False, **adam)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None if closure is None else torch.enable_grad()(closure)()
        moving = having_gradients(self)
        before = [p.clone() for p in moving]
        super().step()
        for p, old in zip(moving, before, strict=True):
            self.correct(p, old, self.state[p])
        return loss

    @abstractmethod
    def correct(self, p: Tensor, before: Tensor, state: dict[str, Any]) -> None:
        """Correct in place a parameter after Adam's step; `before` is its value before the step."""


class OptimisticAdam(CorrectedAdam):
    """Twice Adam's step minus the previous one (Daskalakis et al. 2018, arXiv:1711.00141, algorithm 1).

    The first step is twice Adam's, as in the algorithm.

    Args:
        params: as in torch.
        **adam: as in `CorrectedAdam`.
    """

    def correct(self, p: Tensor, before: Tensor, state: dict[str, Any]) -> None:
        move = p - before
        p.add_(move if "last_move" not in state else move - state["last_move"])
        state["last_move"] = move


class ExtraAdam(CorrectedAdam):
    """Extragradient with Adam's steps (Gidel et al. 2019, arXiv:1802.10551, algorithm 4): two calls per update.

    The first `step` of each pair extrapolates; the second returns to the initial weights and applies the gradient of
    the extrapolated ones. An update therefore takes two batches, the weights after an odd number of steps are
    extrapolated, and `max_steps` and `n_critic` count each step, that is, half an update. Both steps update the
    moments.

    Args:
        params: as in torch.
        **adam: as in `CorrectedAdam`.
    """

    @property
    def ahead(self) -> bool:
        """Whether the weights are extrapolated; the next step returns from them."""
        return any("return_to" in state for state in self.state.values())

    def correct(self, p: Tensor, before: Tensor, state: dict[str, Any]) -> None:
        if "return_to" in state:
            p.add_(state.pop("return_to") - before)
        else:
            state["return_to"] = before


def looks_ahead(optimizer: Optimizer) -> bool:
    """Whether an optimizer's current weights are extrapolated (ExtraAdam, also inside Lookahead)."""
    if isinstance(optimizer, Lookahead):
        return looks_ahead(optimizer.inner)
    return isinstance(optimizer, ExtraAdam) and optimizer.ahead


def takes_pairs(optimizer: Optimizer) -> bool:
    """Whether two steps of an optimizer make one update (ExtraAdam, also inside Lookahead)."""
    return isinstance(optimizer.inner if isinstance(optimizer, Lookahead) else optimizer, ExtraAdam)


class Lookahead(Optimizer):
    """After k steps of an inner optimizer, interpolates with weight alpha between the weights before and after them.

    Zhang et al. 2019 (arXiv:1907.08610); for GANs, Chavdarova et al. 2021 (arXiv:2006.14567), where all players
    interpolate at the same time. Here each player does so after its own k-th step (with `n_critic` n, use n k for the
    discriminator), so the discriminator interpolates before the generator's k-th step. On f = xy this slows convergence
    down: with alternating SGD, lr 0.1, 1000 steps, the radius shrinks to 0.0064 of the initial one, to 0.0018 with a
    joint interpolation.

    Args:
        params: as in torch.
        optimizer: makes the inner optimizer, whose moments are kept at interpolations.
        k: inner steps between two interpolations, 1 or more; an even number with ExtraAdam.
        alpha: weight of the inner optimizer's result, in (0, 1]; with 1 the interpolation has no effect.
    """

    def __init__(
        self,
        params: Any,
        optimizer: Callable[[Iterable], Optimizer] = lambda params: FusedAdam(params, lr=1e-3),
        k: int = 5,
        alpha: float = 0.5,
    ) -> None:
        if k < 1:
            raise ValueError(f"k is {k}; it takes a whole number from 1 up")
        if not 0 < alpha <= 1:
            raise ValueError(f"alpha is {alpha}; it takes a number in (0, 1]")
        self.inner = optimizer(params)
        if k % 2 and isinstance(self.inner, ExtraAdam):
            raise ValueError(f"k is {k}; it takes an even number with ExtraAdam, of which two steps are one update")
        super().__init__(self.inner.param_groups, {"k": k})  # the same dicts: schedulers reach both
        self.alpha = alpha  # not in the groups, where RMSprop has an alpha of its own
        self.defaults |= self.inner.defaults
        self.state = self.inner.state

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None if closure is None else torch.enable_grad()(closure)()
        slow = {p: p.clone() for p in having_gradients(self) if "slow" not in self.state.get(p, {})}
        self.inner.step()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]  # after the inner step, which treats a non-empty state as initialised
                state.setdefault("slow", slow.get(p))
                state["taken"] = state.get("taken", 0) + 1
                if state["taken"] % group["k"] == 0:
                    p.copy_(state["slow"].lerp_(p, self.alpha))
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.inner.state, self.inner.param_groups = self.state, self.param_groups


def having_gradients(optimizer: Optimizer) -> list[Tensor]:
    """Parameters that have a gradient."""
    return [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
