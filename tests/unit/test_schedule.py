"""LinearTail, the decay of the learning rate at the end of training."""

from __future__ import annotations

import pytest
import torch

from ganzoo.optim import LinearTail


@pytest.mark.parametrize("step", [0, 799, 800, 801, 1000, 1199, 1200, 1300])
def test_the_learning_rate_is_constant_and_then_decays_linearly_to_zero(step):
    """As in the authors' code for CIFAR-10: lr min(3 - epoch / 400, 1) in 1,200 epochs."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = LinearTail(optimizer, total_iters=1200, falling_iters=400)
    for _ in range(step):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.3 * min(max(3 - step / 400, 0), 1))
