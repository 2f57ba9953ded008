"""Player: the parameters and buffers changed by its update, and those left unchanged."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.optim import SGD

from ganzoo.core.finite import NonFiniteError, Watch
from ganzoo.core.player import PLAYERS, Player, clip_gradients
from ganzoo.optim.game import ExtraAdam, Lookahead


def network():
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def player(name="discriminator", make=lambda params: SGD(params, lr=0.1), **networks):
    nets = {key: network() for key in PLAYERS} | networks
    names = {p: f"{key}.{n}" for key, net in nets.items() for n, p in net.named_parameters()}
    return Player(name, nets, make(nets[name].parameters()), names), nets


class Strategy:
    def optimizer_step(self, optimizer, closure):
        optimizer.step(closure)


@pytest.mark.parametrize("name", PLAYERS)
def test_an_active_player_freezes_the_opponents_parameters_and_buffers(name):
    mover, nets = player(name)
    (other,) = set(PLAYERS) - {name}
    frozen_before = nets[other][0].weight.requires_grad_(False)  # frozen by the user
    before = {key: {n: b.clone() for n, b in net.named_buffers()} for key, net in nets.items()}
    with mover.active():
        assert all(p.requires_grad for p in nets[name].parameters())
        assert not any(p.requires_grad for p in nets[other].parameters())
        for net in nets.values():
            net(torch.randn(5, 2))
    assert not frozen_before.requires_grad and nets[other][0].bias.requires_grad
    moved = {key: not all(torch.equal(b, before[key][n]) for n, b in net.named_buffers()) for key, net in nets.items()}
    assert moved == {name: True, other: False}


def test_an_error_while_active_restores_the_opponent():
    mover, nets = player()
    with pytest.raises(ZeroDivisionError), mover.active():
        nets["generator"](torch.randn(5, 2))
        _ = 1 / 0
    assert all(p.requires_grad for p in nets["generator"].parameters())
    assert int(nets["generator"][1].num_batches_tracked) == 0


def test_a_graph_built_before_active_can_be_backpropagated_after_it():
    """As with shared fakes: G's forward pass, then D's update, then G's backward pass."""
    mover, nets = player()
    fakes = nets["generator"](torch.randn(5, 2))
    with mover.active():
        nets["generator"](torch.randn(5, 2))
    fakes.sum().backward()


def test_a_network_with_parameters_of_the_player_keeps_its_buffer_updates():
    """As with InfoGAN's Q: its buffers are not restored, and only its remaining parameters are frozen."""
    nets = {key: network() for key in PLAYERS}
    mine = [*nets["discriminator"].parameters(), nets["generator"][0].bias]
    names = {p: f"{key}.{n}" for key, net in nets.items() for n, p in net.named_parameters()}
    mover = Player("discriminator", nets, SGD(mine, lr=0.1), names)
    assert mover.opponent_buffers == []
    assert [id(p) for p in mover.opponent_parameters] == [
        id(p) for n, p in nets["generator"].named_parameters() if n != "0.bias"
    ]


def test_a_step_updates_the_parameters_and_sets_moved():
    mover, nets = player()
    start = nets["discriminator"][0].weight.detach().clone()
    assert not mover.moved
    nets["discriminator"][0](torch.ones(1, 2)).sum().backward()
    mover.step(Strategy())
    assert mover.moved
    torch.testing.assert_close(nets["discriminator"][0].weight, start - 0.1)


def test_extra_adam_is_ahead_after_every_odd_step():
    mover, nets = player(make=lambda params: ExtraAdam(params, lr=0.1))
    seen = []
    for _ in range(4):
        nets["discriminator"](torch.randn(4, 2)).square().sum().backward()
        mover.step(Strategy())
        seen.append(mover.ahead)
    assert seen == [True, False, True, False]
    assert not player()[0].ahead


def test_a_nested_extra_adam_is_ahead_too():
    mover, nets = player(make=lambda params: Lookahead(params, lambda p: ExtraAdam(p, lr=0.1), k=4))
    nets["discriminator"](torch.randn(4, 2)).square().sum().backward()
    mover.step(Strategy())
    assert mover.ahead


@pytest.mark.parametrize(
    ("terms", "gradient", "said"),
    [
        ([1.0, math.nan], 1.0, "term 'fake'"),
        ([1.0, 1.0], math.inf, "gradient of discriminator.0.bias"),
        ([-math.inf, 1.0], math.nan, "term 'real', gradient of discriminator.0.bias"),
    ],
)
def test_the_error_names_non_finite_terms_and_gradients(terms, gradient, said):
    mover, nets = player()
    for p in nets["discriminator"].parameters():
        p.grad = torch.ones_like(p)
    nets["discriminator"][0].bias.grad[1] = gradient
    with pytest.raises(NonFiniteError, match=f"^not finite at step 7: the discriminator's {said}$"):
        mover.check_finite(Watch(), 7, ["real", "fake"], torch.tensor(terms), scaled=False)
    if "term" not in said:  # the scaler skips such steps
        mover.check_finite(Watch(), 7, ["real", "fake"], torch.tensor(terms), scaled=True)


def test_finite_terms_with_an_infinite_sum_are_accepted():
    mover, nets = player()
    nets["discriminator"][0].bias.grad = torch.ones(3)
    mover.check_finite(Watch(), 1, ["real", "fake"], torch.tensor([3e38, 3e38]), scaled=False)


def test_gradients_are_unscaled_before_they_are_clipped_to_the_norm():
    parameter = nn.Parameter(torch.zeros(2))
    optimizer = SGD([parameter], lr=0.1)
    parameter.grad = torch.tensor([3.0, 4.0])
    clip_gradients(optimizer, 10.0, scaler=None)
    assert parameter.grad.tolist() == [3.0, 4.0]
    clip_gradients(optimizer, 1.0, scaler=None)
    torch.testing.assert_close(parameter.grad, torch.tensor([0.6, 0.8]))
    unscaled = []
    optimizer._step_supports_amp_scaling = True  # as in fused optimizers
    clip_gradients(optimizer, 1.0, SimpleNamespace(unscale_=unscaled.append))
    assert unscaled == [optimizer]
