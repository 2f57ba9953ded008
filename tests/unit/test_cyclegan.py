"""CycleGAN: the paper's networks, the losses, the order of updates and the pools of fakes."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from functools import cache

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn
from torch.nn.functional import l1_loss

from ganzoo import CycleGAN, load, save_pretrained
from ganzoo.core.strategy import GANStrategy
from ganzoo.networks.patch import PatchDiscriminator
from ganzoo.networks.resnet import ResNetTranslator
from ganzoo.testing import NoiseImages, check_resume, fit
from tests.paper import LINEAR, NORMS, begins, layers, optimizers, spread
from tests.variants import small


def make(**more):
    torch.manual_seed(0)
    return CycleGAN(**{**small("CycleGAN"), **more})


def batch(model, n=3):
    generator = torch.Generator().manual_seed(0)
    shape = {"image": model.hparams["channels"], "source": model.source_channels}
    return {key: 2 * torch.rand(n, c, 16, 16, generator=generator) - 1 for key, c in shape.items()}


@pytest.mark.parametrize(("image_size", "published"), [(256, 11.378), (128, 7.838)])
def test_parameter_counts_of_the_published_networks(image_size, published):
    """The public PyTorch port has 11.378 M, 7.838 M and 2.765 M parameters. Its norms have no scale and shift, but the
    convolutions before them have a (redundant) bias: one parameter per channel instead of two."""
    with torch.device("meta"):
        resnet, patch = ResNetTranslator(image_size), PatchDiscriminator(256, 3, None, 64, 70)
    for network, count in ((resnet, published), (patch, 2.765)):
        norms = sum(m.num_features for m in network.modules() if isinstance(m, nn.InstanceNorm2d))
        assert round((sum(p.numel() for p in network.parameters()) - norms) / 1e6, 3) == count


@cache
def default():
    with torch.device("meta"):
        return CycleGAN()


@cache
def narrow():
    torch.manual_seed(0)
    return CycleGAN(64, width=16, blocks=2)


BLOCK = ["conv 256>256 3/1+1 reflect no bias", "instance norm 256", "relu"]
RESNET = [  # c7s1-64, d128, d256, 9 x R256, u128, u64, c7s1-3
    *("reflect 3", "conv 3>64 7/1+0 no bias", "instance norm 64", "relu"),
    *("conv 64>128 3/2+1 no bias", "instance norm 128", "relu"),
    *("conv 128>256 3/2+1 no bias", "instance norm 256", "relu"),
    *(BLOCK + BLOCK[:-1]) * 9,
    *("up 256>128 3/2+1 no bias", "instance norm 128", "relu", "up 128>64 3/2+1 no bias", "instance norm 64", "relu"),
    *("reflect 3", "conv 64>3 7/1+0", "tanh"),
]
PATCH = [  # C64-C128-C256-C512
    *("conv 3>64 4/2+1", "leaky 0.2", "conv 64>128 4/2+1 no bias", "instance norm 128", "leaky 0.2"),
    *("conv 128>256 4/2+1 no bias", "instance norm 256", "leaky 0.2"),
    *("conv 256>512 4/1+1 no bias", "instance norm 512", "leaky 0.2", "conv 512>1 4/1+1"),
]
PAPER = {  # from the appendix unless a section is named; from the authors' code where the paper has none
    "4: Adam": (lambda gan: optimizers(gan, "kind"), ["FusedAdam"] * 2),
    "4: learning rate": (lambda gan: optimizers(gan, "lr"), [2e-4] * 2),
    "code: beta1, beta2": (lambda gan: optimizers(gan, "betas"), [(0.5, 0.999)] * 2),
    "Adam's other numbers": (lambda gan: optimizers(gan, "eps", "weight_decay"), [1e-8, 1e-8, 0, 0]),
    "one step each": (lambda gan: (gan.n_critic, gan.n_generator), (1, 1)),
    "eq. 3": (lambda gan: (gan.cycle, gan.directions, gan.gan), (10, "both", 1)),
    "5.2: identity loss": (lambda gan: gan.identity, 0),
    "4: pool": (lambda gan: {name: pool.capacity for name, pool in gan.pools.items()}, {"image": 50, "source": 50}),
    "G": (lambda gan: layers(gan.generator["to_image"]), RESNET),
    "F": (lambda gan: layers(gan.generator["to_source"]), RESNET),
    "below 256 pixels, 6 blocks": (
        lambda gan: layers(ResNetTranslator(128)).count("relu") - 5,
        6,
    ),
    "D_Y": (lambda gan: layers(gan.discriminator["image"]), PATCH),
    "D_X": (lambda gan: layers(gan.discriminator["source"]), PATCH),
    "the networks' own defaults": (
        lambda gan: (layers(ResNetTranslator()), layers(PatchDiscriminator())),
        (RESNET, PATCH),
    ),
    "first weights": (lambda gan: spread(narrow().generator, LINEAR), begins(0, 0.02)),
    "D's first weights": (lambda gan: spread(narrow().discriminator, LINEAR), begins(0, 0.02)),
    "Lua code: first gains": (lambda gan: spread(narrow().generator, NORMS), begins(1, 0.02)),
    "Lua code: D's first gains": (lambda gan: spread(narrow().discriminator, NORMS), begins(1, 0.02)),
}


@pytest.mark.parametrize(("find", "number"), PAPER.values(), ids=PAPER)
def test_numbers_of_the_paper(find, number):
    assert find(default()) == number


def test_a_residual_block_with_zero_weights_is_the_identity():
    network = ResNetTranslator(16, 1, 1, 4, blocks=1)
    (block,) = (m for m in network.layers if type(m).__name__ == "ResidualBlock")
    nn.init.zeros_(block.layers[-1].weight)
    x = torch.randn(2, 16, 4, 4)
    assert torch.equal(block(x), x)


def test_translators_take_any_size_divisible_by_4():
    network = ResNetTranslator(16, 1, 2, 4, blocks=1)
    assert network(torch.randn(1, 2, 20, 28)).shape == (1, 1, 20, 28)


def test_losses_match_the_equations():
    model = make(channels=2, cycle=3.0, identity=2.0)
    b = batch(model)
    x, y = b["source"], b["image"]
    g, f = model.generator["to_image"], model.generator["to_source"]
    d_y, d_x = model.discriminator["image"], model.discriminator["source"]

    def distance(a, b):
        return (a - b).abs().sum() / a.numel()

    terms = model.generator_loss(b)
    torch.testing.assert_close(terms["image"], ((d_y(g(x)) - 1) ** 2).sum() / d_y(y).numel())
    torch.testing.assert_close(terms["source"], ((d_x(f(y)) - 1) ** 2).sum() / d_x(x).numel())
    torch.testing.assert_close(terms["cycle"], 3 * (distance(f(g(x)), x) + distance(g(f(y)), y)))
    torch.testing.assert_close(terms["identity"], 2 * (distance(g(y), y) + distance(f(x), x)))
    assert len(terms) == 4
    expected = {"real_image": d_y(y) - 1, "fake_image": d_y(g(x)), "real_source": d_x(x) - 1, "fake_source": d_x(f(y))}
    terms = model.discriminator_loss(b)
    assert set(terms) == set(expected)
    for name, error in expected.items():
        torch.testing.assert_close(terms[name], (error**2).mean() / 2, msg=name)


@pytest.mark.parametrize(
    ("arm", "names"),
    [
        ({"gan": 0.0}, {"cycle"}),
        ({"cycle": 0.0}, {"image", "source"}),
        ({"directions": "forward"}, {"image", "source", "cycle"}),
        ({"directions": "backward"}, {"image", "source", "cycle"}),
        ({"gan": 0.5}, {"image", "source", "cycle"}),
    ],
)
def test_losses_of_the_ablation_study(arm, names):
    """Cycle loss alone, GAN loss alone, one cycle direction: the remaining terms equal those of the full objective."""
    model = make(**arm)
    b = batch(model)
    x, y = b["source"], b["image"]
    g, f = model.generator["to_image"], model.generator["to_source"]
    whole, terms = make().generator_loss(b), model.generator_loss(b)
    forward, backward = 10 * l1_loss(f(g(x)), x), 10 * l1_loss(g(f(y)), y)
    whole["cycle"] = {"forward": forward, "backward": backward}.get(model.directions, forward + backward)
    assert set(terms) == names
    for name, term in terms.items():
        torch.testing.assert_close(term, (1 if name == "cycle" else model.gan) * whole[name])
    assert len(model.discriminator_loss(b)) == 4, "the discriminators are trained in any case"


def test_the_identity_loss_is_off_by_default():
    model = make()
    assert set(model.generator_loss(batch(model))) == {"image", "source", "cycle"}


def test_the_discriminator_loss_uses_given_fakes():
    model = make()
    b = batch(model)
    terms = model.discriminator_loss({**b, "fakes": (b["image"], b["source"])})
    for domain in ("image", "source"):
        torch.testing.assert_close(terms[f"fake_{domain}"], model.discriminator[domain](b[domain]).square().mean() / 2)


@pytest.mark.parametrize(("game", "passes"), [({}, 4), ({"microbatches": 2}, 10), ({"n_generator": 2}, 10)])
def test_discriminators_are_trained_on_fakes_from_before_the_generators_step(game, passes):
    """One generator step takes four forward passes; several steps or microbatches take two more, for the fakes."""
    model, made, turns, shown = make(pool=0, **game), [], [], []
    data = NoiseImages(model)
    for network in model.generator.values():
        network.register_forward_hook(lambda m, x, y: made.append(y.detach()))
    minimize, d_loss = model.minimize, model.discriminator_loss

    def watched(loss, batch, *, player):
        turns.append((player, len(made)))
        minimize(loss, batch, player=player)

    def looked(batch):
        shown.append(batch["fakes"])
        return d_loss(batch)

    model.minimize, model.discriminator_loss = watched, looked
    fit(model, data, steps=1)
    assert [player for player, _ in turns] == ["generator"] * model.n_generator + ["discriminator"]
    assert turns[0][1] == 2 and turns[-1][1] == len(made) == passes, "the discriminators' step makes none"
    for i, fakes in enumerate(made[:2]):
        torch.testing.assert_close(torch.cat([part[i] for part in shown]), fakes, rtol=0, atol=0)


def test_share_fakes_is_refused():
    with pytest.raises(ValueError, match="share_fakes: CycleGAN always reuses"):
        make(share_fakes=True)


def test_batches_without_a_generator_step_train_the_discriminators():
    model = make(n_critic=2, pool=0)
    before = copy.deepcopy(model.state_dict())
    fit(model, steps=1)
    moved = {key.split(".")[0] for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {"discriminator", "images_seen"}


def test_pools_hold_fakes_of_training_and_not_of_validation():
    model = make(pool=20)
    fit(model, steps=2, limit_val_batches=1.0, val_check_interval=1)
    assert [len(pool.images) for pool in model.pools.values()] == [16, 16]
    assert model.pools["image"].images[0].shape == (1, 16, 16)
    assert model.pools["source"].images[0].shape == (2, 16, 16)
    fit(model, steps=2)
    assert [len(pool.images) for pool in model.pools.values()] == [20, 20]


@pytest.mark.parametrize("forget", [False, True])
def test_resuming_restores_the_pools(forget):
    class Forgetful(CycleGAN):
        def on_load_checkpoint(self, checkpoint):
            super().on_load_checkpoint(checkpoint)
            for pool in self.pools.values():
                pool.images.clear()

    def fill(**more):
        torch.manual_seed(0)
        return (Forgetful if forget else CycleGAN)(**small("CycleGAN"), pool=10, **more)

    with pytest.raises(AssertionError, match="different after resuming") if forget else nullcontext():
        check_resume(fill)


def test_loaded_weights_have_empty_pools(tmp_path):
    model = make(pool=10)
    trainer = fit(model, steps=2)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert not any("pool" in key for key in model.state_dict())
    for path in (tmp_path / "a.ckpt", save_pretrained(model, tmp_path / "b")):
        assert load(path).pools["image"].images == []
    share = torch.load(tmp_path / "a.ckpt", weights_only=True)["ganzoo"]["pools"]
    assert [{domain: len(images) for domain, images in pools.items()} for pools in share] == [
        {"image": 10, "source": 10}
    ]


def test_load_from_checkpoint_restores_the_pools(tmp_path):
    model = make(pool=10)
    fit(model, steps=1).save_checkpoint(tmp_path / "a.ckpt")
    again = CycleGAN.load_from_checkpoint(tmp_path / "a.ckpt")
    for domain, pool in model.pools.items():
        assert torch.equal(torch.stack(again.pools[domain].images), torch.stack(pool.images))


def test_each_process_saves_and_restores_its_own_pools(tmp_path):
    class Keep(Callback):
        def on_train_start(self, trainer, pl_module):
            torch.save(contents(pl_module), tmp_path / f"start{trainer.global_rank}.pt")

        def on_train_end(self, trainer, pl_module):
            trainer.save_checkpoint(tmp_path / "a.ckpt")
            torch.save(contents(pl_module), tmp_path / f"end{trainer.global_rank}.pt")

    def contents(model):
        return {domain: pool.images for domain, pool in model.pools.items()}

    def two(**more):
        strategy = GANStrategy(process_group_backend="gloo", start_method="fork")
        fit(make(), strategy=strategy, devices=2, callbacks=[Keep()], **more)

    fit(make(), steps=1, callbacks=[Keep()])
    whole = torch.load(tmp_path / "end0.pt")
    two(steps=1)
    shares = [torch.load(tmp_path / f"end{rank}.pt") for rank in range(2)]
    two(steps=2, ckpt_path=tmp_path / "a.ckpt")
    again = [torch.load(tmp_path / f"start{rank}.pt") for rank in range(2)]
    for domain in ("image", "source"):
        torch.testing.assert_close(shares[0][domain] + shares[1][domain], whole[domain])
        assert all(
            torch.equal(torch.stack(a[domain]), torch.stack(b[domain])) for a, b in zip(shares, again, strict=True)
        )


def test_learning_rates_are_constant_and_then_decay_linearly():
    model = make(constant_images=100, decay_images=50)
    trainer = fit(model, steps=1)
    for images, rate in [(0, 2e-4), (100, 2e-4), (125, 1e-4), (140, 4e-5), (150, 0.0), (1000, 0.0)]:
        model.schedule(images)
        for optimizer in trainer.optimizers:
            assert optimizer.param_groups[0]["lr"] == pytest.approx(rate, abs=1e-12)


def test_without_decay_a_given_scheduler_sets_the_learning_rates():
    model = make(lr_scheduler=lambda opt: torch.optim.lr_scheduler.ExponentialLR(opt, 0.5))
    trainer = fit(model, steps=2)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(5e-5)


def test_both_directions_use_the_averaged_generators():
    model = make(ema_half_life=100.0)
    model.configure_model()
    b = batch(model)
    with torch.no_grad():
        for p in model.generator.parameters():
            p.add_(0.1)  # samples use the average
    torch.testing.assert_close(model.sample(source=b["source"]), model.ema["to_image"](b["source"]))
    back = model.translate_back(b["image"])
    assert back.shape == (3, 2, 16, 16) and not back.requires_grad
    torch.testing.assert_close(back, model.ema["to_source"](b["image"]))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"cycle": -1.0}, "it takes a number from 0"),
        ({"identity": -1.0}, "it takes a number from 0"),
        ({"cycle": 0.0, "gan": 0.0}, "must not both be 0"),
        ({"directions": "up"}, "it takes one of both, forward, backward"),
        ({"identity": 5.0}, "identity needs equal numbers of channels, not 1 and 2"),
        ({"pool": -1}, "pool is -1; it takes a whole number from 0"),
        ({"constant_images": -1}, "constant_images is -1; it takes a whole number from 0"),
        ({"decay_images": 0}, "decay_images is 0; it takes a whole number from 1"),
        ({"decay_images": 9, "lr_scheduler": lambda optimizer: None}, "give only one"),
        ({"image_size": 18}, "need 8, 12, 16"),
        ({"image_size": 4}, "need 8, 12, 16"),
        ({"blocks": -1}, "blocks is -1; it takes a whole number from 0 to 1000"),
        ({"receptive_field": 70}, "use 34 or less"),
    ],
)
def test_bad_arguments_are_refused(bad, words):
    with pytest.raises(ValueError, match=words):
        make(**bad)
