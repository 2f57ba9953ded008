"""Simultaneous updates and consensus optimization, on f = xy and in networks."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.optim import SGD

from ganzoo import DCGAN, GAN, MLPGAN, WGAN
from ganzoo.cli import main
from ganzoo.cli.paths import additions
from ganzoo.core.consensus import set_gradients
from ganzoo.core.module import GANModule
from ganzoo.games.games import Bilinear
from ganzoo.games.rules import consensus, gradient, trajectory
from ganzoo.optim import FusedAdam
from ganzoo.testing import NoiseImages, check_bfloat16, check_resume, check_turns, fit


class Product(GANModule):
    """f = xy: G holds x, D holds y."""

    def __init__(self, lr: float = 0.1, **game):
        super().__init__(optimizer=lambda params: SGD(params, lr=lr), **game)
        self.generator, self.discriminator = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        for network in (self.generator, self.discriminator):
            nn.init.ones_(network.weight)

    def discriminator_loss(self, batch):
        return {"fake": -(self.generator.weight * self.discriminator.weight).sum()}

    def generator_loss(self, batch):
        return {"fake": (self.generator.weight * self.discriminator.weight).sum()}

    def latent(self, n, generator=None):
        return self.normal(generator, n, 1)


def images(n=400):
    return torch.utils.data.DataLoader([{"image": torch.zeros(1, 8, 8)}] * n, batch_size=2)


@pytest.mark.parametrize(("gamma", "rule", "settings"), [(0.0, gradient, {}), (1.0, consensus, {"gamma": 1.0})])
def test_networks_on_f_xy_follow_the_update_rule(gamma, rule, settings):
    model = Product(consensus=gamma)
    fit(model, images(), steps=100)
    end = torch.cat([model.generator.weight, model.discriminator.weight]).flatten().double()
    expected = trajectory(Bilinear(), rule, (1, 1), 100, **settings)[-1]
    torch.testing.assert_close(end, expected, rtol=1e-4, atol=1e-7)
    assert (expected.norm() > 2) == (gamma == 0)


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_consensus_adds_gamma_times_the_gradient_of_half_the_squared_norm(float64):
    """Central differences in MLPGAN with batch norm; their step is smaller than the distance between kinks of ReLU."""
    gamma, size = 0.7, {"layers_g": 2, "layers_d": 2, "hidden": 8, "d_hidden": 8, "z_dim": 4, "image_size": 4}
    torch.manual_seed(0)
    model = MLPGAN(**size, optimizer=lambda params: SGD(params, lr=1.0), consensus=gamma, dropout=0.0)
    x, z = torch.rand(16, 1, 4, 4) * 2 - 1, torch.rand(16, 4) * 2 - 1
    model.draw = lambda n, generator: {"z": z}
    players = {name: list(getattr(model, name).parameters()) for name in ("discriminator", "generator")}
    both = [p for own in players.values() for p in own]

    def v():
        losses = {name: sum(getattr(model, f"{name}_loss")({"image": x, "z": z}).values()) for name in players}
        return [g for name, own in players.items() for g in torch.autograd.grad(losses[name], own)]

    def half_square():
        return sum(g.square().sum().item() for g in v()) / 2

    start, field = [p.detach().clone() for p in both], v()
    fit(model, torch.utils.data.DataLoader([{"image": one} for one in x], batch_size=16), steps=1)
    push = [(old - p.detach() - g) / gamma for p, old, g in zip(both, start, field, strict=True)]
    probe = 1e-6 / math.sqrt(sum(one.square().sum().item() for one in push))
    found = []
    for sign in (1, -1):
        with torch.no_grad():
            for p, old, one in zip(both, start, push, strict=True):
                p.copy_(old + sign * probe * one)
        found.append(half_square())
    slope = sum(one.square().sum().item() for one in push)
    assert slope > 1e-8 and (found[0] - found[1]) / (2 * probe) == pytest.approx(slope, rel=1e-4)


class Linear(Product):
    """Each player's loss is linear in its own weight, so the gradients are constant."""

    def discriminator_loss(self, batch):
        return {"fake": -2 * self.discriminator.weight.sum()}

    def generator_loss(self, batch):
        return {"fake": 3 * self.generator.weight.sum()}


@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_gradients_have_the_memory_order_of_their_parameters(gamma):
    """The fused Adam reads both in the order of storage."""
    torch.manual_seed(0)
    p = torch.nn.Parameter(torch.randn(3, 2, 2, 2).to(memory_format=torch.channels_last))
    gradient = (p.square() / 2 + p).contiguous()
    assert gradient.stride() != p.stride()
    set_gradients([(p, gradient)], gamma, 1)
    assert p.grad is not None and p.grad.stride() == p.stride() and not p.grad.requires_grad
    assert torch.allclose(p.grad, gradient + gamma * (1 + p) * gradient)
    q = torch.nn.Parameter(p.detach().contiguous())
    q.grad = p.grad.contiguous()
    for parameter, fused in ((p, True), (q, False)):
        FusedAdam([parameter], lr=0.1, fused=fused).step()
    assert torch.allclose(p, q, atol=1e-6)


def test_constant_gradients_add_no_consensus_term():
    model = Linear(consensus=1.0)
    fit(model, images(), steps=1)
    assert (model.generator.weight.item(), model.discriminator.weight.item()) == pytest.approx((0.7, 1.2))


def test_both_losses_use_the_same_latents_and_the_next_batch_new_ones():
    model, seen = small_dcgan(consensus=1.0), []
    for name in ("discriminator_loss", "generator_loss"):
        equation = getattr(model, name)
        setattr(model, name, lambda batch, equation=equation: seen.append(batch["z"]) or equation(batch))
    fit(model, NoiseImages(model), steps=2)
    assert torch.equal(seen[0], seen[1]) and torch.equal(seen[2], seen[3]) and not torch.equal(seen[0], seen[2])


@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_frozen_weights_do_not_move(gamma):
    model = small_dcgan(consensus=gamma)
    weights = [next(network.parameters()) for network in (model.generator, model.discriminator)]
    before = [weight.requires_grad_(False).clone() for weight in weights]
    moving = model.generator.get_parameter(list(dict(model.generator.named_parameters()))[-1])
    start = moving.detach().clone()
    fit(model, NoiseImages(model), steps=2)
    assert all(torch.equal(a, b) for a, b in zip(before, weights, strict=True)) and not torch.equal(start, moving)


def small_dcgan(**more):
    torch.manual_seed(0)
    return DCGAN(16, 1, width=4, **more)


def test_batch_norm_statistics_are_updated_by_the_players_own_loss_only():
    """As with alternating updates, D's loss leaves G's batch norm unchanged, and G's loss D's."""
    model = small_dcgan(consensus=1.0)
    fit(model, NoiseImages(model), steps=3)
    counts = {
        player: {int(b) for name, b in getattr(model, player).named_buffers() if name.endswith("batches_tracked")}
        for player in ("discriminator", "generator")
    }
    assert counts == {"discriminator": {6}, "generator": {3}}  # D sees reals and fakes


@pytest.mark.parametrize(("variant", "sizes"), [(GAN, {"hidden": 8, "d_hidden": 8}), (DCGAN, {"width": 4})])
def test_variants_pass_the_contract_checks_with_consensus(variant, sizes):
    def make(**more):
        torch.manual_seed(0)
        return variant(image_size=16, channels=1, consensus=0.5, **sizes, **more)

    for check in (check_turns, check_resume, check_bfloat16):
        check(make)


@pytest.mark.parametrize("other", [{"n_critic": 2}, {"microbatches": 2}, {"compile_losses": True}])
def test_incompatible_arguments_are_refused(other):
    with pytest.raises(ValueError, match=f"consensus, which updates both players at once, needs {next(iter(other))}"):
        Product(consensus=1.0, **other)


@pytest.mark.parametrize("game", [{"microbatches": 2}, {"compile_losses": True}])
def test_incompatible_arguments_of_a_custom_play_are_refused(game):
    class AtOnce(DCGAN):
        def play(self, batch):
            self.minimize_at_once(batch)

    model = AtOnce(16, 1, width=4, **game)
    with pytest.raises(MisconfigurationException, match=f"simultaneous updates do not support {next(iter(game))}"):
        fit(model, NoiseImages(model), steps=1)


def test_negative_weights_and_custom_discriminator_steps_are_refused():
    with pytest.raises(ValueError, match="consensus is -1.0; it takes a number from 0"):
        Product(consensus=-1.0)
    with pytest.raises(ValueError, match="cannot be combined with WGAN.discriminator_step"):
        WGAN(16, 1, width=4, consensus=1.0)


@pytest.mark.parametrize("rule", [name for name in additions() if name.startswith("rules/")])
def test_a_rule_given_before_the_config_is_applied(rule, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = "--trainer.max_steps 2 --model.width 8 --scores.final_n 0"
    samples = "--samples.every_n_steps 2 --samples.rows 1 --samples.video_fps 0"
    assert main(["fit", "--config", rule, "--config", "dcgan/digits", *f"{options} {samples}".split()]) == 0
    (folder,) = Path("runs").iterdir()
    ours = yaml.safe_load(additions()[rule].read_text())["model"]["init_args"]
    arguments = yaml.safe_load((folder / "config.yaml").read_text())["model"]["init_args"]
    assert arguments["optimizer"]["class_path"] == ours["optimizer"]["class_path"]
    assert arguments["consensus"] == ours.get("consensus")


def test_a_users_file_overrides_an_earlier_addition(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("model: {init_args: {consensus: 1.5}}")
    for order in (["mlpgan/ring", "rules/consensus", "mine.yaml"], ["rules/consensus", "mlpgan/ring", "mine.yaml"]):
        assert main(["fit", *(word for name in order for word in ("--config", name)), "--print_config"]) == 0
        assert yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["consensus"] == 1.5


def test_a_variant_with_its_own_discriminator_step_refuses_the_consensus_config(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config", "wgan/digits", "--config", "rules/consensus"]) == 2
    assert "cannot be combined with WGAN.discriminator_step" in capsys.readouterr().err
    assert not Path("runs").exists()
