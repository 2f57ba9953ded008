"""LadderEBGAN: the ladder's paths and costs, and the losses of the variant."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.nn.functional import cross_entropy

import ganzoo
from ganzoo.augment import DiffAugment
from ganzoo.networks.ladder import Combinator, Ladder
from ganzoo.optim import FusedAdam
from ganzoo.testing import NoiseImages, fit

ALL = (1000.0, 10.0, 0.1, 0.1, 0.1, 0.1, 0.1)
TINY = {"image_size": 8, "num_classes": 3, "hidden": 8, "d_hidden": 4, "z_dim": 4}


def ladder(**more):
    torch.manual_seed(0)
    network = Ladder(4, 1, 3, **{"hidden": 4, "denoising": ALL, **more})
    for p in network.parameters():  # no parameter at its initial 0, so that all paths contribute
        nn.init.normal_(p, std=0.5)
    return network


def model(**more):
    torch.manual_seed(0)
    return ganzoo.LadderEBGAN(**{**TINY, **more})


def images(n=10, size=4):
    return torch.rand(n, 1, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def adam(make_optimizer):
    optimizer = make_optimizer([nn.Parameter(torch.zeros(1))])
    (group,) = optimizer.param_groups
    return type(optimizer), group["lr"], *group["betas"], group["eps"]


def linear(network):
    return [(m.in_features, m.out_features) for m in network.modules() if isinstance(m, nn.Linear)]


def stds(layers):
    return [m.weight.std().item() for m in layers]


UP = [(784, 1000), (1000, 500), (500, 250), (250, 250), (250, 250), (250, 10)]
PAPER = {
    "Rasmus et al.: sizes": (lambda gan: linear(gan.discriminator.up), UP),
    "Rasmus et al.: the decoder mirrors them": (
        lambda gan: linear(gan.discriminator.down),
        [(m, n) for n, m in UP],
    ),
    "Rasmus et al.: ten parameters a unit": (lambda gan: [len(m.a) for m in gan.discriminator.combine], [10] * 7),
    "Rasmus et al., code: combinators start with slopes of 1": (
        lambda gan: [m.a.unique(dim=1).flatten().tolist() for m in gan.discriminator.combine],
        [[0, 1, 0, 0, 0, 0, 1, 0, 0, 0]] * 7,
    ),
    "Rasmus et al., code: weights N(0, 1 / inputs)": (
        lambda gan: stds([*gan.discriminator.up, *gan.discriminator.down]),
        pytest.approx([n**-0.5 for n, _ in UP] + [m**-0.5 for _, m in UP], rel=0.03),
    ),
    "Rasmus et al., code: shifts start at 0, the scale at 1": (
        lambda gan: ({v for b in gan.discriminator.beta for v in b.tolist()}, gan.discriminator.gamma.tolist()),
        ({0.0}, [1.0] * 10),
    ),
    "Rasmus et al.: noise": (lambda gan: gan.discriminator.noise, 0.3),
    "Rasmus et al.: the bottom layer's weight": (lambda gan: gan.discriminator.denoising, [5000.0]),
    "Rasmus et al.: Adam": (lambda gan: adam(gan.make_optimizer["discriminator"]), (FusedAdam, 2e-3, 0.9, 0.999, 1e-8)),
    "EBGAN 4.1: G's Adam": (lambda gan: adam(gan.make_optimizer["generator"]), (FusedAdam, 1e-3, 0.9, 0.999, 1e-8)),
    "EBGAN 4.1: G": (lambda gan: linear(gan.generator), [(100, 800), *[(800, 800)] * 3, (800, 784)]),
    "EBGAN 4.1: G's weights N(0, .02)": (
        lambda gan: stds([m for m in gan.generator.modules() if isinstance(m, nn.Linear)]),
        pytest.approx([0.02] * 5, rel=0.03),
    ),
    "EBGAN 4.1: G's batch norm": (
        lambda gan: [m.num_features for m in gan.generator.modules() if isinstance(m, nn.BatchNorm1d)],
        [800] * 4,
    ),
    "EBGAN: z": (lambda gan: (gan.latent(3).shape, gan.prior), ((3, 100), "uniform")),
    "ours: margin and its fall": (lambda gan: (gan.margin.item(), gan.margin_images), (100.0, 3e6)),
    "ours: the norm's eps and momentum": (
        lambda gan: {(m.eps, m.momentum) for m in (*gan.discriminator.norm_up, *gan.discriminator.norm_down)},
        {(1e-5, 0.1)},
    ),
}


@pytest.fixture(scope="module")
def papers():
    torch.manual_seed(0)
    return ganzoo.LadderEBGAN()


@pytest.mark.parametrize("fact", PAPER)
def test_numbers_of_the_papers(fact, papers):
    measure, expected = PAPER[fact]
    assert measure(papers) == expected


def shapes(network):
    return [(name, p.shape) for name, p in network.state_dict().items()]


def test_network_defaults_match_the_variant(papers):
    network = Ladder()
    assert shapes(network) == shapes(papers.discriminator)
    assert (network.noise, network.denoising) == (papers.discriminator.noise, papers.discriminator.denoising)


def test_sync_batchnorm_does_not_convert_the_ladders_norms():
    gan = model(noise=0.0)
    x = images(6, 8)
    batch = {"image": x, "z": gan.latent(6), "labelled": (x, torch.tensor([0, 1, 2, 0, 1, 2]))}
    before = [equation(batch) for equation in (gan.discriminator_loss, gan.generator_loss)]
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(gan)
    assert any(isinstance(m, nn.SyncBatchNorm) for m in converted.generator.modules())
    after = [equation(batch) for equation in (converted.discriminator_loss, converted.generator_loss)]
    torch.testing.assert_close(after, before)


def test_old_checkpoints_with_batch_norms_load():
    gan = model()
    old = {name: value + 0.5 if "running" in name else value for name, value in gan.state_dict().items()}
    norms = [name.removesuffix("running_mean") for name in old if name.startswith("discriminator") and "_mean" in name]
    gan.load_state_dict(old | {f"{name}num_batches_tracked": torch.tensor(7) for name in norms})
    assert len(norms) == 6 + 7 and all((norm.running_mean == 0.5).all() for norm in gan.discriminator.norm_up)


def test_without_noise_the_clean_and_corrupted_paths_are_equal():
    network = ladder(noise=0.0)
    clean, *_, of_clean = network.encode(images(), noise=0.0)
    corrupted, *_, of_corrupted = network.encode(images(), noise=network.noise)
    assert all(torch.equal(a, b) for a, b in zip(clean, corrupted, strict=True))
    assert torch.equal(of_clean, of_corrupted)


def test_noise_is_added_in_training_mode_only():
    network = ladder(noise=0.3)
    assert not torch.equal(network.classify(images()), network.classify(images()))
    network.eval()
    assert torch.equal(network.classify(images()), network.classify(images()))
    assert torch.equal(network(images())[0], network(images())[0])


def test_noise_has_its_standard_deviation():
    network = ladder(noise=0.3)
    network.up[0].weight.data.zero_()  # then the first layer consists of noise only
    layers, *_ = network.encode(torch.zeros(20_000, 1, 4, 4), noise=0.3)
    assert (layers[0] - 0.5).std().item() == pytest.approx(0.3, rel=0.02)  # 0 is black, 1 white
    assert layers[1].std().item() == pytest.approx(0.3, rel=0.02)


def test_denoising_costs_of_an_exact_decoder_are_0():
    """v = 1 and mu = 0 return the noisy z: without noise the clean one, up to the normalisation of each layer."""
    network = ladder(noise=0.0)
    for k, combine in enumerate(network.combine):
        combine.a.data.zero_()
        combine.a.data[9] = 1.0
        if k:  # the cost normalises the estimate with the statistics of the clean z
            _, means, stds, _ = network.encode(images(), noise=0.0)
            with torch.no_grad():
                combine.a[9] = stds[k]  # z_hat = std z + mean, which the normalisation maps back to z
                combine.a[4] = means[k] / (1 - stds[k])
    bottom, above = network(images())
    assert bottom.abs().max() < 1e-6 * ALL[0] and above.abs().max() < 1e-3
    network.combine[0].a.data[9] = 0.5
    assert network(images())[0].min() > 1


def test_denoising_costs_match_numpy():
    """Layer by layer in numpy, without noise."""
    network = ladder(noise=0.0).double()
    x = images().double()
    bottom, above = network(x)
    eps = 1e-5
    p = {key: value.detach().numpy() for key, value in network.state_dict().items()}

    def sigmoid(t):
        return 1 / (1 + np.exp(-t))

    z, mean, std = [(x.flatten(1).numpy() + 1) / 2], [0.0], [1.0]
    h = z[0]
    for k in range(6):
        pre = h @ p[f"up.{k}.weight"].T
        mean.append(pre.mean(0))
        std.append(np.sqrt(pre.var(0) + eps))
        z.append((pre - mean[-1]) / std[-1])
        h = np.maximum(z[-1] + p[f"beta.{k}"], 0)
    logits = p["gamma"] * (z[-1] + p["beta.5"])
    u = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    costs = {}
    for k in range(6, -1, -1):
        u = (u - u.mean(0)) / np.sqrt(u.var(0) + eps)
        a = p[f"combine.{k}.a"]
        mu = a[0] * sigmoid(a[1] * u + a[2]) + a[3] * u + a[4]
        v = a[5] * sigmoid(a[6] * u + a[7]) + a[8] * u + a[9]
        estimate = (z[k] - mu) * v + mu
        costs[k] = ALL[k] * (((estimate - mean[k]) / std[k] - z[k]) ** 2).mean(1)
        u = estimate @ p[f"down.{k - 1}.weight"].T if k else None
    # the statistics are float32
    np.testing.assert_allclose(bottom.detach().numpy(), costs[0], rtol=1e-4)
    np.testing.assert_allclose(above.detach().numpy(), sum(costs[k] for k in range(1, 7)), rtol=1e-4)


def test_the_combinator_can_represent_the_conditional_mean():
    """z = s + n with s ~ N(mu, 1) and n ~ N(0, .09): E[s | z] = (z - mu) / 1.09 + mu."""
    combine = Combinator(1)
    combine.a.data.zero_()
    combine.a.data[3], combine.a.data[9] = 1.0, 1 / 1.09  # mu(u) = u, v = 1 / 1.09
    z, u = torch.tensor([[2.0]]), torch.tensor([[0.5]])
    assert combine(z, u).item() == pytest.approx(1.5 / 1.09 + 0.5)


def test_layers_without_a_weight_have_no_cost():
    network = ladder(denoising=(1000.0,), noise=0.0)
    full = ladder(noise=0.0)
    assert torch.equal(network(images())[1], torch.zeros(10))
    torch.testing.assert_close(network(images())[0], full(images())[0])


def test_running_statistics_are_updated_by_real_images_only():
    network = ladder()
    before = network.norm_up[0].running_mean.clone()
    network(images()), network.classify(images())
    assert torch.equal(network.norm_up[0].running_mean, before)
    network(images(), track=True)
    z = network.up[0]((images().flatten(1) + 1) / 2)
    torch.testing.assert_close(network.norm_up[0].running_mean, 0.1 * z.mean(0).detach())
    expected = 0.9 + 0.1 * z.var(0, correction=0).detach()
    torch.testing.assert_close(network.norm_up[0].running_var, expected)


def test_in_eval_mode_outputs_do_not_depend_on_the_batch():
    network = ladder()
    for _ in range(5):
        network(images(), track=True)
    network.eval()
    torch.testing.assert_close(network.classify(images())[:1], network.classify(images(1)))
    torch.testing.assert_close(network(images())[0][:1], network(images(1))[0])


def test_losses_match_their_equations():
    gan = model(noise=0.0, margin=400.0, denoising=ALL)
    x, z = images(6, 8), gan.latent(6)
    label = torch.tensor([0, 1, 2, 0, 1, 2])
    batch = {"image": x, "z": z, "labelled": (x.flip(0), label)}
    d = {key: value.item() for key, value in gan.discriminator_loss(batch).items()}
    with torch.no_grad():
        real, above = gan.discriminator(x)
        fake, _ = gan.discriminator(gan.generator(z))
        logits = gan.discriminator.classify(x.flip(0))
    assert d["real"] == pytest.approx(real.mean().item(), rel=1e-4)
    assert d["above"] == pytest.approx(above.mean().item(), rel=1e-4)
    assert d["fake"] == pytest.approx((400 - fake).clamp(min=0).mean().item(), rel=1e-4) and d["fake"] > 0
    assert d["label"] == pytest.approx(cross_entropy(logits, label).item(), rel=1e-4)
    assert gan.generator_loss(batch)["fake"].item() == pytest.approx(fake.mean().item(), rel=1e-4)


def test_with_margin_0_d_gets_no_gradient_from_fakes():
    gan = model(margin_images=100)
    gan.schedule(100)
    x = images(6, 8)
    batch = {"image": x, "z": gan.latent(6), "labelled": (x, torch.zeros(6, dtype=torch.long))}
    fake = gan.discriminator_loss(batch)["fake"]
    gradients = torch.autograd.grad(fake, list(gan.discriminator.parameters()), allow_unused=True)
    assert fake == 0 and all(g is None or not g.any() for g in gradients)


def test_the_gradient_of_the_energy_reaches_g():
    """Initial combinators estimate 0 for all inputs, so the gradient passes through the clean target."""
    gan = model()
    (loss,) = gan.generator_loss({"z": gan.latent(6)}).values()
    gradients = torch.autograd.grad(loss, list(gan.generator.parameters()))
    assert any(g.abs().max() > 1e-3 for g in gradients)


@pytest.mark.parametrize("augment", [None, DiffAugment()], ids=["plain", "augmented"])
def test_validation_logs_the_error_of_the_clean_path(augment):
    """On held-out images as they are."""

    class Rows:
        def __init__(self):
            self.values = {}

        def __call__(self, values):
            self.values |= values

    gan, rows = model(augment=augment), Rows()
    gan.publish = rows
    data = NoiseImages(gan)
    trainer = fit(gan, data, steps=3, limit_val_batches=1.0, log_every_n_steps=1)
    assert "error" in rows.values and 0 <= rows.values["error"] <= 1
    gan.eval()
    data.setup("validate")
    wrong = total = 0
    for batch in trainer.val_dataloaders:
        image, label = batch["labelled"]
        image = image if image.is_floating_point() else image / 127.5 - 1
        wrong += (gan.discriminator.classify(image).argmax(1) != label).sum().item()
        total += len(label)
    assert rows.values["val/error"] == pytest.approx(wrong / total)


def test_classes_are_the_same_in_training_mode():
    gan, x = model(), images(50, 8)
    assert torch.equal(gan.train().classify(x), gan.eval().classify(x))


def test_data_without_labels_is_refused():
    gan = model()
    with pytest.raises(MisconfigurationException, match="SemiSupervised"):
        gan.discriminator_loss({"image": images(4, 8), "z": gan.latent(4)})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"margin": -1.0}, "margin is -1.0; it takes a number from 0"),
        ({"margin_images": 0}, "margin_images is 0; it takes a number above 0"),
    ],
)
def test_a_bad_margin_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        model(**wrong)


@pytest.mark.parametrize("denoising", [(), (1.0,) * 8, (-1.0,)])
def test_bad_denoising_weights_are_named(denoising):
    with pytest.raises(ValueError, match="denoising"):
        model(denoising=denoising)
