"""Adam variants whose arguments are plain numbers, so that the command line can read defaults from lambdas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class FusedAdam(torch.optim.Adam):
    """torch's Adam with separate arguments for the betas, and its fused kernel (half the time of the for-loop).

    Args:
        params: as in torch.
        lr: learning rate.
        beta1: decay of the gradient's average.
        beta2: decay of the squared gradient's average.
        eps: added to the denominator.
        weight_decay: weight of the L2 penalty.
        fused: use one kernel for all parameters.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        fused: bool = True,
    ) -> None:
        super().__init__(params, lr, (beta1, beta2), eps, weight_decay, fused=fused)

    def load_state_dict(self, state_dict: Any) -> None:
        """As in torch, and in the memory order of each parameter, which the fused kernel assumes."""
        super().load_state_dict(state_dict)
        for p, state in self.state.items():
            for key, value in state.items():
                if isinstance(value, Tensor) and value.shape == p.shape and value.stride() != p.stride():
                    state[key] = torch.empty_like(p).copy_(value)


class EpsInRootAdam(Optimizer):
    """Adam that divides by sqrt(v + eps) instead of sqrt(v) + eps, as the code of Salimans et al. 2016
    (arXiv:1606.03498).

    With eps = 1e-8, steps shrink for gradients below 1e-4: for a constant gradient of 1e-5 the step is 0.0995 lr;
    torch's Adam takes 0.999 lr.

    Args:
        params: as in torch.
        lr: learning rate.
        beta1: decay of the gradient's average.
        beta2: decay of the squared gradient's average.
        eps: added to that average, inside the root.
    """

    def __init__(
        self, params: Any, lr: float = 1e-3, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": (beta1, beta2), "eps": eps})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            if moving := [p for p in group["params"] if p.grad is not None]:
                self._move(moving, [p.grad for p in moving], group)
        return loss

    def _move(self, moving: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        lr, eps, (beta1, beta2) = group["lr"], group["eps"], group["betas"]
        for p in moving:
            if not self.state[p]:
                self.state[p].update(step=0, exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
            self.state[p]["step"] += 1
        states = [self.state[p] for p in moving]
        first, second = [s["exp_avg"] for s in states], [s["exp_avg_sq"] for s in states]
        torch._foreach_lerp_(first, gradients, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, gradients, gradients, 1 - beta2)
        roots = torch._foreach_div(second, [1 - beta2 ** s["step"] for s in states])
        torch._foreach_add_(roots, eps)
        torch._foreach_sqrt_(roots)
        torch._foreach_addcdiv_(moving, first, roots, [-lr / (1 - beta1 ** s["step"]) for s in states])


def for_more_steps(optimizer: Optimizer, steps: float) -> None:
    """Correct an optimizer that takes more than one step per batch, in place.

    With r = 1 / steps the learning rate becomes lr r, and the decays of Adam's averages, and RMSprop's, beta^r, so the
    weights move as far per batch, and a batch is remembered as long (Karras et al. 2020, StyleGAN2, arXiv:1912.04958,
    appendix B). Other optimizers are unchanged: SGD's steps are proportional to the gradient.

    Args:
        optimizer: new.
        steps: per batch, on average.
    """
    for group in [optimizer.defaults, *optimizer.param_groups] if steps > 1 else []:
        if "betas" in group:
            group["betas"] = tuple(beta ** (1 / steps) for beta in group["betas"])
        elif "alpha" in group and "momentum" in group:
            group["alpha"] **= 1 / steps
        else:
            continue
        group["lr"] /= steps


def settings(optimizers: Sequence[Optimizer]) -> list[list[dict[str, Any]]]:
    """Constructor arguments (learning rates and others) of each parameter group of the optimizers."""
    return [[{key: group[key] for key in o.defaults} for group in o.param_groups] for o in optimizers]


def initial(optimizers: Sequence[Optimizer]) -> list[list[dict[str, Any]]]:
    """As `settings`, with the initial learning rates of scheduled optimizers."""
    given = settings(optimizers)
    for optimizer, groups in zip(optimizers, given, strict=True):
        for group, own in zip(optimizer.param_groups, groups, strict=True):
            if "initial_lr" in group:
                own["lr"] = group["initial_lr"]
    return given


def set_all(optimizers: Sequence[Optimizer], given: list[list[dict[str, Any]]]) -> None:
    """Set the optimizers to a result of `settings`."""
    for optimizer, groups in zip(optimizers, given, strict=True):
        for group, own in zip(optimizer.param_groups, groups, strict=True):
            group.update(own)
