"""Optimizers for games rather than minima; `ganzoo/games/rules.py` shows what they do on f = xy.

Each knows its own player alone, and in `GANModule.play` players move in turns, where the papers let them move at once.
On f = xy from (1, 1), in turns, lr 0.01, beta1 0.5, beta2 0.9, after 5000 steps, the radius is 0.094 of the first one
with Adam, 0.013 with OptimisticAdam, and 0.0018 with ExtraAdam, which takes two gradients a step. With beta2 0.999,
Adam's default, the last two are hardly better than Adam (0.70, 0.62, 0.61 after 1000 steps). As long as steps are
divided by the gradients' size none of them comes to rest.
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
    """Adam whose steps are corrected; not fused, for a step that fp16's scaler skips must not be corrected either.

    Args:
        params: as in torch.
        **adam: as in `FusedAdam`.
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
        """Change, in place, a parameter that Adam's step has moved from where it was `before`."""


class OptimisticAdam(CorrectedAdam):
    """Twice Adam's step, less the last one (Daskalakis et al. 2018, arXiv:1711.00141, algorithm 1).

    The first step is twice Adam's, as there.
    """

    def correct(self, p: Tensor, before: Tensor, state: dict[str, Any]) -> None:
        move = p - before
        p.add_(move if "last_move" not in state else move - state["last_move"])
        state["last_move"] = move


class ExtraAdam(CorrectedAdam):
    """Extragradient with Adam's steps (Gidel et al. 2019, arXiv:1802.10551, algorithm 4): look ahead, return, go.

    Every second `step` is one of the algorithm's: the first of each pair goes ahead, the second one takes the gradient
    it finds there and goes from where the first one was. So an update takes two batches, the weights after an odd
    number of steps are those ahead, and `max_steps` and `n_critic` count halves. Both feed the moments.
    """

    @property
    def ahead(self) -> bool:
        """Whether the weights are those ahead, from which the next step returns."""
        return any("return_to" in state for state in self.state.values())

    def correct(self, p: Tensor, before: Tensor, state: dict[str, Any]) -> None:
        if "return_to" in state:
            p.add_(state.pop("return_to") - before)
        else:
            state["return_to"] = before


def looks_ahead(optimizer: Optimizer) -> bool:
    """Whether an optimizer's weights are a look ahead, from which it will return."""
    if isinstance(optimizer, Lookahead):
        return looks_ahead(optimizer.inner)
    return isinstance(optimizer, ExtraAdam) and optimizer.ahead


class Lookahead(Optimizer):
    """After k steps of another optimizer, back to the share alpha of the way (Zhang et al. 2019, arXiv:1907.08610).

    In GANs (Chavdarova et al. 2021, arXiv:2006.14567) all players return at once. Here each returns after its own k-th
    step (with `n_critic` n, give the discriminator n k), so the discriminator is back before the generator's k-th step.
    On f = xy that costs speed, not convergence: in turns, SGD of 0.1, 1000 steps, the radius shrinks to 0.0064 of the
    first one, where a joint return makes it 0.0018. Between two returns the weights are the other optimizer's.

    Args:
        params: as in torch.
        optimizer: makes the other optimizer, whose moments are kept.
        k: its steps between two returns.
        alpha: 1 for no return, 0 for no progress.
    """

    def __init__(
        self,
        params: Any,
        optimizer: Callable[[Iterable], Optimizer] = lambda params: FusedAdam(params, lr=1e-3),
        k: int = 5,
        alpha: float = 0.5,
    ) -> None:
        if k < 1:
            raise ValueError(f"k counts from 1, got {k}")
        if not 0 < alpha <= 1:
            raise ValueError(f"alpha is a share, above 0 and up to 1, got {alpha}")
        self.inner = optimizer(params)
        super().__init__(self.inner.param_groups, {"k": k, "alpha": alpha})  # the same dicts: schedulers reach both
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
                state = self.state[p]  # after the inner step: an optimizer takes a state that is not empty for its own
                state.setdefault("slow", slow.get(p))
                state["taken"] = state.get("taken", 0) + 1
                if state["taken"] % group["k"] == 0:
                    p.copy_(state["slow"].lerp_(p, group["alpha"]))
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.inner.state, self.inner.param_groups = self.state, self.param_groups


def having_gradients(optimizer: Optimizer) -> list[Tensor]:
    """The parameters that a step moves."""
    return [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
