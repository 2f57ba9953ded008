"""Adam with epsilon inside the square root, as in the code of Salimans et al. (2016)."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from ganzoo.cli import main
from ganzoo.optim import EpsInRootAdam, FusedAdam
from ganzoo.testing import fit
from ganzoo.variants.dcgan import DCGAN

SETTINGS = {"lr": 0.003, "beta1": 0.5, "beta2": 0.9, "eps": 1e-4}


def gradient(t, size=7):
    """Magnitudes from 1e-6 to 1, with random signs."""
    generator = np.random.default_rng(t)
    return generator.choice([-1, 1], size) * 10.0 ** generator.uniform(-6, 0, size)


def run(optimizer, p, steps):
    for t in steps:
        p.grad = torch.from_numpy(gradient(t)).to(p.dtype)
        optimizer.step()


def reference(steps, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8):
    """Numpy reference in float64: theta - lr m_hat / sqrt(v_hat + eps)."""
    theta, m, v = np.ones(7), np.zeros(7), np.zeros(7)
    for t in range(1, steps + 1):
        g = gradient(t)
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        theta = theta - lr * m / (1 - beta1**t) / np.sqrt(v / (1 - beta2**t) + eps)
    return theta


@pytest.mark.parametrize("settings", [{}, SETTINGS], ids=["defaults", "other"])
def test_matches_the_reference_in_float64(settings):
    p = torch.nn.Parameter(torch.ones(7, dtype=torch.float64))
    run(EpsInRootAdam([p], **settings), p, range(1, 51))
    np.testing.assert_allclose(p.detach().numpy(), reference(50, **settings), rtol=1e-12)


@pytest.mark.parametrize(("make", "step"), [(EpsInRootAdam, 0.0995), (FusedAdam, 0.999)])
def test_step_size_for_a_small_gradient(make, step):
    """For a constant gradient of 1e-5, epsilon inside the root shrinks the step; outside it does not."""
    p = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = make([p], lr=1.0)
    for _ in range(10):
        p.grad = torch.full_like(p, 1e-5)
        optimizer.step()
    assert -p.item() / 10 == pytest.approx(step, abs=1e-4)


@pytest.mark.parametrize("cut", [1, 5])
def test_a_resumed_optimizer_is_bit_identical(cut):
    whole, part = (torch.nn.Parameter(torch.ones(7)) for _ in range(2))
    run(EpsInRootAdam([whole], **SETTINGS), whole, range(1, 13))
    first = EpsInRootAdam([part], **SETTINGS)
    run(first, part, range(1, cut + 1))
    resumed = torch.nn.Parameter(part.detach().clone())
    second = EpsInRootAdam([resumed])
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    run(second, resumed, range(cut + 1, 13))
    assert torch.equal(resumed, whole)


def test_steps_are_counted_per_parameter_and_parameters_without_gradient_stay():
    early, late, still = (torch.nn.Parameter(torch.ones(7, dtype=torch.float64)) for _ in range(3))
    optimizer = EpsInRootAdam([{"params": [early, late]}, {"params": [still], "lr": 1.0}], **SETTINGS)
    run(optimizer, early, range(1, 4))
    early.grad = None
    run(optimizer, late, range(1, 6))
    np.testing.assert_allclose(early.detach().numpy(), reference(3, **SETTINGS), rtol=1e-12)
    np.testing.assert_allclose(late.detach().numpy(), reference(5, **SETTINGS), rtol=1e-12)
    assert torch.equal(still, torch.ones_like(still)) and not optimizer.state[still]


def test_step_returns_the_loss_of_the_closure():
    p = torch.nn.Parameter(torch.ones(1))

    def closure():
        loss = p.square().sum()
        loss.backward()
        return loss

    assert EpsInRootAdam([p], lr=0.1).step(closure) == 1 and p < 1


def test_a_variant_trains_with_it_in_bfloat16():
    model = DCGAN(image_size=8, channels=1, width=4, optimizer=lambda params: EpsInRootAdam(params, **SETTINGS))
    trainer = fit(model, steps=2, precision="bf16-mixed")
    assert [o.param_groups[0]["betas"] for o in trainer.optimizers] == [(0.5, 0.9)] * 2
    assert all(p.isfinite().all() for p in model.parameters())


def test_the_command_line_selects_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    optimizer = ["--model.optimizer", "ganzoo.optim.EpsInRootAdam", "--model.optimizer.beta1", "0.25"]
    data = ["--data", "Digits", "--data.batch_size", "4", "--scores.final_n", "0", "--trainer.max_steps", "1"]
    assert main(["fit", "--model", "GAN", "--model.hidden", "8", *optimizer, *data]) == 0
    checkpoint = torch.load(next(tmp_path.rglob("last.ckpt")), weights_only=True)
    assert checkpoint["optimizer_states"][0]["param_groups"][0]["betas"] == (0.25, 0.999)


def test_a_loaded_state_has_the_memory_order_of_the_parameters():
    """As of a checkpoint from before the network was in channels_last."""
    torch.manual_seed(0)
    start, gradients = torch.randn(3, 2, 2, 2), torch.randn(2, 3, 2, 2, 2)
    found = []
    for later in (torch.contiguous_format, torch.channels_last):
        state = None
        value = start
        for gradient, order in zip(gradients, (torch.contiguous_format, later), strict=True):
            p = torch.nn.Parameter(value.clone(memory_format=order))
            adam = FusedAdam([p], lr=0.1)
            if state is not None:
                adam.load_state_dict(state)
            p.grad = torch.empty_like(p).copy_(gradient)
            adam.step()
            value, state = p.detach(), adam.state_dict()
        found.append(value)
    assert torch.allclose(*found, atol=1e-6)


def test_the_default_rate():
    assert FusedAdam([torch.nn.Parameter(torch.ones(1))]).defaults["lr"] == 1e-3
