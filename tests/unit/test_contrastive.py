"""Class losses of ContraGAN and ReACGAN: sums by loops in numpy, gradients by differences, one process as several."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing import start_processes

from ganzoo.core.strategy import average, gather
from ganzoo.functional.contrastive import conditional_contrastive, data_to_data

LOSSES = {
    "2C": partial(conditional_contrastive, temperature=0.7),
    "D2D-CE": partial(data_to_data, margin=0.6, temperature=0.4),
}


def batch(n=7, d=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    e, p = (3 * torch.randn(n, d, generator=g, dtype=torch.float64) for _ in range(2))
    return e, p, torch.tensor([0, 2, 0, 1, 1, 0, 4] * 2)[:n]


def unit(rows):
    return [np.array(row) / math.sqrt(sum(x * x for x in row)) for row in rows.tolist()]


def by_loops_2c(e, p, y, t=0.7):
    e, p, y = unit(e), unit(p), y.tolist()
    total = 0.0
    for i in range(len(y)):
        own = math.exp(e[i] @ p[i] / t)
        same = every = 0.0
        for j in range(len(y)):
            if j != i:
                every += math.exp(e[i] @ e[j] / t)
                same += math.exp(e[i] @ e[j] / t) if y[j] == y[i] else 0
        total -= math.log((own + same) / (own + every))
    return total / len(y)


def by_loops_d2d(e, p, y, m_p=0.6, m_n=0.4, t=0.4):
    e, p, y = unit(e), unit(p), y.tolist()
    total = 0.0
    for i in range(len(y)):
        own = math.exp(min(e[i] @ p[i] - m_p, 0) / t)
        others = sum(math.exp(max(e[i] @ e[j] - m_n, 0) / t) for j in range(len(y)) if y[j] != y[i])
        total -= math.log(own / (own + others))
    return total / len(y)


BY_LOOPS = {"2C": by_loops_2c, "D2D-CE": by_loops_d2d}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("seed", range(3))
def test_the_loss_is_the_sum_by_loops(name, seed):
    given = batch(seed=seed)
    assert LOSSES[name](*given).item() == pytest.approx(BY_LOOPS[name](*given), rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_is_that_of_the_sum_by_loops(name):
    e, p, y = batch()
    e, p = e.requires_grad_(), p.requires_grad_()
    found = torch.autograd.grad(LOSSES[name](e, p, y), (e, p))
    step = 1e-6
    for which, gradient in enumerate(found):
        for i, j in np.ndindex(*gradient.shape):
            values = []
            for sign in (1, -1):
                moved = [e.detach().clone(), p.detach().clone()]
                moved[which][i, j] += sign * step
                values.append(BY_LOOPS[name](*moved, y))
            assert gradient[i, j].item() == pytest.approx((values[0] - values[1]) / (2 * step), abs=1e-8)


def test_easy_pairs_have_no_gradient():
    """Each image lies on its proxy, and images of different classes are orthogonal."""
    e = torch.eye(4, dtype=torch.float64)[:3].requires_grad_()
    p, y = e.detach().clone().requires_grad_(), torch.arange(3)
    loss = data_to_data(e, p, y, margin=0.9, temperature=0.5)
    assert loss.item() == pytest.approx(math.log(3))  # each of two negatives counts as exp(0), like the positive
    assert all(not gradient.any() for gradient in torch.autograd.grad(loss, (e, p)))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("n", [1, 5])
def test_a_batch_of_one_class_has_loss_and_gradient_0(name, n):
    e, p, _ = batch(n)
    e, p = e.requires_grad_(), p.requires_grad_()
    loss = LOSSES[name](e, p, torch.full((n,), 3))
    assert loss == 0
    assert all(torch.equal(gradient, torch.zeros_like(e)) for gradient in torch.autograd.grad(loss, (e, p)))


@pytest.mark.parametrize("loss", [conditional_contrastive, partial(data_to_data, margin=0.98)], ids=LOSSES)
def test_low_temperatures_and_rows_of_zeros_do_not_overflow(loss):
    """exp(1 / t) overflows in float32 for t below 0.0113."""
    e, p, y = (tensor.float() if tensor.is_floating_point() else tensor for tensor in batch())
    e[0] = 0
    e, p = e.requires_grad_(), p.requires_grad_()
    value = loss(e, p, y, temperature=1e-3)
    exact = loss(e.detach().double(), p.detach().double(), y, temperature=1e-3)
    assert value.item() == pytest.approx(exact.item(), rel=1e-4)
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(value, (e, p)))


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_is_computed_in_float32_under_autocast(name):
    e, p, y = batch()
    exact = LOSSES[name](e.float(), p.float(), y)
    with torch.autocast("cpu", torch.bfloat16):
        assert LOSSES[name](e.float(), p.float(), y) == exact


class Head(nn.Module):
    """x [N, 4] -> embeddings [N, 3] and proxies of the labels."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.proxies = nn.Linear(4, 3).double(), nn.Embedding(5, 3).double()

    def forward(self, x, y):
        return self.embed(x), self.proxies(y)


def whole():
    return torch.randn(8, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64), torch.arange(8) % 5


def differentiated(head, x, y):
    """Each loss and its gradients, averaged over the processes."""
    for name, loss in LOSSES.items():
        value = loss(*map(gather, (*head(x, y), y)))
        gradients = list(torch.autograd.grad(value, list(head.parameters())))
        if dist.is_initialized():
            average(gradients)
        yield name, [value.detach(), *gradients]


def process(rank, path):
    dist.init_process_group("gloo", f"file://{path}/store", rank=rank, world_size=2)
    x, y = (tensor.chunk(2)[rank] for tensor in whole())
    torch.save(dict(differentiated(Head(), x, y)), f"{path}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_have_the_loss_and_the_gradients_of_one(tmp_path):
    """Pairs of images in different processes count, and the gradients are not smaller by the number of processes."""
    start_processes(process, (tmp_path,), nprocs=2, start_method="fork")
    for name, values in differentiated(Head(), *whole()):
        for rank in range(2):
            found = torch.load(f"{tmp_path}/{rank}.pt")[name]
            for value, expected in zip(found, values, strict=True):
                assert expected.any()
                torch.testing.assert_close(value, expected, msg=lambda m, name=name: f"{name}: {m}")
