"""Layers and losses of Salimans et al. 2016 against loops and explicit statistics, and activations kept by autograd."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ganzoo.functional.losses import log_fake, log_smoothed
from ganzoo.layers.equalised import EqualisedConv2d
from ganzoo.layers.history import HistoricalAverage
from ganzoo.layers.minibatch import MinibatchDiscrimination
from ganzoo.layers.noise import GaussianNoise
from ganzoo.layers.resnext import ResNeXtBlock
from ganzoo.layers.virtual_norm import VirtualBatchNorm


def test_minibatch_discrimination_matches_the_papers_double_sum():
    layer = MinibatchDiscrimination(4, kernels=3, dims=2)
    x = torch.randn(5, 4)
    t = layer.weight.detach().view(4, 3, 2)
    expected = torch.zeros(5, 3)
    for i in range(5):
        for j in range(5):
            for b in range(3):
                distance = sum(abs(sum(x[i, a] * t[a, b, c] - x[j, a] * t[a, b, c] for a in range(4))) for c in (0, 1))
                expected[i, b] += math.exp(-distance)
    joined = layer(x)
    torch.testing.assert_close(joined[:, :4], x)
    torch.testing.assert_close(joined[:, 4:], expected)


def test_kernels_of_minibatch_discrimination_are_the_authors():
    """100 of five dimensions."""
    assert MinibatchDiscrimination(250).weight.shape == (250, 100 * 5)


def test_minibatch_discrimination_detects_a_collapsed_batch():
    layer = MinibatchDiscrimination(4, kernels=3)
    one = torch.randn(1, 4)
    torch.testing.assert_close(layer(one.expand(7, 4))[:, 4:], torch.full((7, 3), 7.0))
    apart = layer(1000 * torch.randn(7, 4))[:, 4:]
    assert (apart < 1.1).all()


def test_initial_minibatch_discrimination_is_not_saturated():
    x = torch.randn(32, 250).relu()
    closeness = MinibatchDiscrimination(250)(x)[:, 250:] / 32
    assert 0.1 < closeness.mean() < 0.9


@pytest.mark.parametrize("pixels", [(), (3, 2)], ids=["rows", "images"])
def test_virtual_batch_norm_adds_each_example_to_the_reference_batch(pixels):
    norm = VirtualBatchNorm(4, reference=6, eps=0.0)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        norm.bias.copy_(torch.tensor([0.5, 0.0, -0.5, 1.0]))
    reference, own = torch.randn(6, 4, *pixels), torch.randn(3, 4, *pixels) * 2 + 1
    out = norm(torch.cat([reference, own]))

    def normalised(x, by):
        by = by.transpose(0, 1).flatten(1)  # [channels, values]
        shape = (4, *[1] * len(pixels))
        x = (x - by.mean(1).view(shape)) / by.std(1, correction=0).view(shape)
        return x * norm.weight.view(shape) + norm.bias.view(shape)

    torch.testing.assert_close(out[:6], normalised(reference, reference))
    for i in range(3):
        torch.testing.assert_close(out[6 + i], normalised(own[i], torch.cat([reference, own[i : i + 1]])))


def test_virtual_batch_norm_does_not_depend_on_the_batch():
    norm, reference, own = VirtualBatchNorm(4, reference=6), torch.randn(6, 4), torch.randn(3, 4)
    together = norm(torch.cat([reference, own]))
    alone = norm(torch.cat([reference, own[1:2]]))
    torch.testing.assert_close(together[:6], alone[:6])
    torch.testing.assert_close(together[7], alone[6])


def test_virtual_batch_norm_of_bfloat16_has_float32_statistics():
    norm, x = VirtualBatchNorm(4, reference=6), (torch.randn(9, 4) + 20).bfloat16()
    torch.testing.assert_close(norm(x), norm(x.float()), check_dtype=False)


def test_historical_average_is_the_mean_of_all_past_parameters():
    net = nn.Linear(3, 2)
    history = HistoricalAverage(net.parameters())
    past = [nn.utils.parameters_to_vector(net.parameters()).detach().clone()]
    for _ in range(6):
        with torch.no_grad():
            for p in net.parameters():
                p += torch.randn_like(p)
        theta = nn.utils.parameters_to_vector(net.parameters())
        penalty, expected = history(net.parameters()), theta - torch.stack(past).mean(0)
        torch.testing.assert_close(penalty, expected.square().sum())
        gradients = torch.cat([g.flatten() for g in torch.autograd.grad(penalty, list(net.parameters()))])
        torch.testing.assert_close(gradients, 2 * expected.detach())
        history.update(net.parameters())
        past.append(theta.detach().clone())
    assert set(history.state_dict()) == {"mean", "count"} and not list(history.parameters())


def test_noise_has_its_standard_deviation_and_is_off_in_eval_mode():
    noise, x = GaussianNoise(0.3), torch.ones(100_000)
    assert noise(x).std().item() == pytest.approx(0.3, rel=0.02)
    assert torch.equal(noise.eval()(x), x)


def test_the_optimal_d_under_label_smoothing():
    """D = 0.9 p / (p + q) (section 3.4), for p = (.6, .3, .1) and q = (.2, .3, .5); D is a table."""
    p, q = torch.tensor([6, 3, 1]), torch.tensor([2, 3, 5])
    logit = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = torch.optim.LBFGS([logit], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-14)

    def loss():
        optimizer.zero_grad()
        value = -log_smoothed(logit.repeat_interleave(p), 0.9) - log_fake(logit.repeat_interleave(q))
        value.backward()
        return value

    optimizer.step(loss)
    torch.testing.assert_close(torch.sigmoid(logit.detach()), (0.9 * p / (p + q)).double(), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "network",
    [nn.Sequential(EqualisedConv2d(16, 32, 3), EqualisedConv2d(32, 32, 3)), ResNeXtBlock(16)],
    ids=["equalised", "resnext"],
)
def test_autograd_keeps_one_tensor_of_each_active_layer(network):
    """Its result, which the next layer needs, too, and not what precedes the activation."""
    found, x = set(), torch.randn(7, 16, 8, 8, requires_grad=True)

    def keep(tensor):
        if len(tensor) == 7:
            found.add(tensor.untyped_storage().data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(x)
    assert len(found) == 3  # with the input
