"""EBGAN: energy, hinge loss, decay of the margin and pull-away term against closed forms and the paper's sizes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import yaml
from torch import nn

import ganzoo
from ganzoo.cli.paths import configs
from ganzoo.functional.penalties import pull_away
from ganzoo.networks.autoencoder import ConvAutoEncoder, MLPAutoEncoder
from ganzoo.optim import FusedAdam
from ganzoo.testing import NoiseImages, fit
from tests.paper import layers

TINY = {"image_size": 8, "hidden": 8, "d_hidden": 5, "z_dim": 4}


def ebgan(**more):
    torch.manual_seed(0)
    return ganzoo.EBGAN(**{**TINY, **more})


class Given(nn.Module):
    """A discriminator with the given energies, so that gradients on them can be read."""

    def __init__(self, *energies):
        super().__init__()
        self.energy = nn.Parameter(torch.tensor(energies))

    def forward(self, x, y=None):
        return self.energy, torch.zeros(len(self.energy), 3)


def test_energy_is_the_norm_of_the_reconstruction_error():
    d = MLPAutoEncoder(4, 3, hidden=5).double().eval()
    x = torch.rand(6, 3, 4, 4, dtype=torch.float64) * 2 - 1
    energy, code = d(x)
    w, b, v, c = (p.detach().numpy() for p in d.parameters())
    flat = x.flatten(1).numpy()
    expected_code = np.maximum(flat @ w.T + b, 0)
    np.testing.assert_allclose(code.detach().numpy(), expected_code)
    error = expected_code @ v.T + c - flat
    np.testing.assert_allclose(energy.detach().numpy(), np.sqrt((error**2).sum(1)))


def test_an_untrained_discriminator_gives_a_black_image_an_energy_above_the_margin():
    """On MNIST's 784 pixels the first reconstructions are near 0, hence the energy is sqrt(784) = 28; m is 10."""
    model = ganzoo.EBGAN().eval()
    energy, _ = model.discriminator(-torch.ones(1, 1, 28, 28))
    assert energy.item() == pytest.approx(28, rel=0.02) and model.margin == 10


@pytest.mark.parametrize(
    "network", [MLPAutoEncoder(4, 1, 7, layers=3), ConvAutoEncoder(16, 1, width=2)], ids=["mlp", "conv"]
)
def test_the_energys_gradient_includes_the_target_of_the_reconstruction(network):
    """Compared with finite differences; a detached target, as in widely copied code, gives another gradient."""
    d = network.double().eval()
    size = 4 if isinstance(network, MLPAutoEncoder) else 16
    x = (torch.rand(1, 1, size, size, dtype=torch.float64) * 2 - 1).requires_grad_()
    (gradient,) = torch.autograd.grad(d(x)[0].sum(), x)
    step, numeric = 1e-6, torch.zeros(size * size, dtype=torch.float64)
    with torch.no_grad():
        for i in range(size * size):
            e = torch.zeros(size * size, dtype=torch.float64)
            e[i] = step
            e = e.view_as(x)
            numeric[i] = (d(x + e)[0] - d(x - e)[0]).item() / (2 * step)
    torch.testing.assert_close(gradient.flatten(), numeric, rtol=1e-5, atol=1e-7)
    half = (d.decoder(d.encoder(x)) - x.detach()).flatten(1).norm()
    (without_target,) = torch.autograd.grad(half, x)
    assert not torch.allclose(gradient, without_target, rtol=0.1)


def test_the_generator_has_gradients_through_the_target():
    """The decoder ignores its code, so that G's gradients come from the target of the reconstruction alone."""
    model = ebgan()
    nn.init.zeros_(model.discriminator.decoder[0].weight)
    (loss,) = model.generator_loss({"z": model.latent(4)}).values()
    gradients = torch.autograd.grad(loss, list(model.generator.parameters()))
    assert any(g.abs().max() > 1e-4 for g in gradients)


def test_losses_match_the_equations():
    model = ebgan(margin=4.0, pull_away_weight=0.1).eval()
    x, z = torch.rand(5, 1, 8, 8) * 2 - 1, model.latent(5)
    with torch.no_grad():
        real, fake = model.discriminator(x)[0].numpy(), model.discriminator(model.generator(z))[0].numpy()
        code = model.discriminator(model.generator(z))[1].numpy()
        d, g = model.discriminator_loss({"image": x, "z": z}), model.generator_loss({"z": z})
    assert sum(d.values()).item() == pytest.approx(real.mean() + np.maximum(0, 4.0 - fake).mean(), rel=1e-5)
    cosines = [
        (code[i] @ code[j] / np.linalg.norm(code[i]) / np.linalg.norm(code[j])) ** 2
        for i in range(5)
        for j in range(5)
        if i != j
    ]
    assert g["fake"].item() == pytest.approx(fake.mean(), rel=1e-5)
    assert g["pull_away"].item() == pytest.approx(0.1 * np.mean(cosines), rel=1e-3)


def test_the_hinge_ignores_fakes_above_the_margin():
    """Of four fakes with energies 1, 9, 10.5 and 30, with m = 10, D raises two and G lowers all."""
    model = ebgan()
    model.discriminator = Given(1.0, 9.0, 10.5, 30.0)
    batch = {"image": torch.zeros(4, 1, 8, 8), "z": model.latent(4)}
    (of_fakes,) = torch.autograd.grad(model.discriminator_loss(batch)["fake"], model.discriminator.energy)
    assert of_fakes.tolist() == [-0.25, -0.25, 0, 0]
    (of_g,) = torch.autograd.grad(model.generator_loss(batch)["fake"], model.discriminator.energy)
    assert of_g.tolist() == [0.25] * 4


def test_any_energy_up_to_the_margin_is_an_equilibrium():
    """With p_data = p_G, a constant energy up to m has the loss m, a larger one a larger loss (theorem 2)."""
    model = ebgan(margin=10.0)
    value = {}
    for constant in (0.0, 4.0, 10.0, 12.0):
        model.discriminator = Given(*[constant] * 3)
        terms = model.discriminator_loss({"image": torch.zeros(3, 1, 8, 8), "z": model.latent(3)})
        value[constant] = sum(terms.values()).item()
    assert value == {0.0: 10.0, 4.0: 10.0, 10.0: 10.0, 12.0: 12.0}


@pytest.mark.parametrize(("images", "margin"), [(0, 10), (250, 7.5), (500, 5), (1000, 0), (10**9, 0)])
def test_the_margin_decays_to_zero(images, margin):
    model = ebgan(margin=10, margin_images=1000)  # integers, but the margin takes fractions
    model.schedule(images)
    assert model.margin.item() == pytest.approx(margin)


def test_the_margin_is_constant_by_default_and_saved_with_the_weights():
    model = ebgan()
    model.schedule(10**9)
    assert model.margin == 10
    falling = ebgan(margin_images=64)
    fit(falling, NoiseImages(falling), steps=4)  # the last batch of 8 came after 24 images
    assert falling.margin.item() == pytest.approx(10 * (1 - 24 / 64))
    other = ebgan()
    other.load_state_dict(falling.state_dict())
    assert other.margin == falling.margin
    other.schedule(32)
    assert other.margin == 10, "training goes by the argument, whatever a checkpoint had"


def test_pull_away_of_orthogonal_and_of_parallel_codes():
    assert pull_away(torch.eye(5) * torch.arange(1.0, 6)[:, None]).item() == 0
    same = torch.tensor([1.0, -2.0, 3.0])
    assert pull_away(torch.stack([same, 3 * same, -same])).item() == pytest.approx(1)
    half = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    assert pull_away(half).item() == pytest.approx(math.cos(math.pi / 4) ** 2)


def test_pull_away_of_zero_codes_has_finite_gradients():
    codes = torch.zeros(3, 4)
    codes[0] = 1
    codes.requires_grad_()
    value = pull_away(codes)
    value.backward()
    assert value == 0 and codes.grad.isfinite().all()
    assert pull_away(torch.ones(1, 4)) == 0


def linear(network):
    return [(m.in_features, m.out_features) for m in network.modules() if isinstance(m, nn.Linear)]


def adam(make_optimizer):
    optimizer = make_optimizer([nn.Parameter(torch.zeros(1))])
    (group,) = optimizer.param_groups
    return type(optimizer), group["lr"], *group["betas"], group["eps"]


def weights(network):
    return [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)]


def stds(network):
    return [m.weight.std().item() for m in weights(network)]


def norms(network):
    return [m.num_features for m in network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]


def maps(network):
    return [(m.in_channels, m.out_channels) for m in weights(network) if not isinstance(m, nn.Linear)]


def config(name):
    return yaml.safe_load(configs()[f"ebgan/{name}"].read_text())["model"].get("init_args", {})


MNIST, FACES = "mnist-b", "celeba"
PAPER = {
    "figure 4 (b): nLayerG 5, sizeG 800": (
        *(MNIST, lambda gan: linear(gan.generator)),
        [(100, 800), *[(800, 800)] * 3, (800, 784)],
    ),
    "figure 4 (b): nLayerD 2, sizeD 1024": (MNIST, lambda gan: linear(gan.discriminator), [(784, 1024), (1024, 784)]),
    "figure 4 (b): no dropout": (MNIST, lambda gan: [m.p for m in of(gan, nn.Dropout)], [0.0]),
    "figure 4 (b): m": (MNIST, lambda gan: gan.margin.item(), 10.0),
    "figure 4 (b): no pull-away": (MNIST, lambda gan: gan.pull_away_weight, 0.0),
    "figure 4 (b): Adam": (
        *(MNIST, lambda gan: [adam(make) for make in gan.make_optimizer.values()]),
        [(FusedAdam, 1e-3, 0.9, 0.999, 1e-8)] * 2,
    ),
    "figure 4 (c): pull-away": (MNIST, lambda _: config("mnist-c"), {"pull_away_weight": 0.1}),
    "4.1: batch norm of G, not at its output": (MNIST, lambda gan: norms(gan.generator), [800] * 4),
    "4.1: batch norm of D, not at its input": (MNIST, lambda gan: norms(gan.discriminator), []),
    "4.1: ReLU": (MNIST, lambda gan: len(of(gan, nn.ReLU)), 4 + 1),
    "4.1: images in [-1, 1]": (MNIST, lambda gan: len(of(gan, nn.Tanh)), 1),
    "4.1: D's weights N(0, .002)": (MNIST, lambda gan: stds(gan.discriminator), [0.002] * 2),
    "4.1: G's weights N(0, .02)": (MNIST, lambda gan: stds(gan.generator), [0.02] * 5),
    "4.1: biases 0": (MNIST, lambda gan: sum(m.bias.abs().sum().item() for m in weights(gan)), 0),
    "z": (MNIST, lambda gan: (gan.latent(3).shape, gan.prior), ((3, 100), "uniform")),
    "the margin stays": (MNIST, lambda gan: gan.margin_images, None),
    "appendix C: Enc 64-128-256, Dec its mirror": (
        *(FACES, lambda gan: maps(gan.discriminator)),
        [(3, 64), (64, 128), (128, 256), (256, 128), (128, 64), (64, 3)],
    ),
    "appendix C: D's kernels, strides, padding": (
        *(FACES, lambda gan: {(m.kernel_size, m.stride, m.padding) for m in weights(gan.discriminator)}),
        {((4, 4), (2, 2), (1, 1))},
    ),
    "appendix C: D's batch norm": (FACES, lambda gan: norms(gan.discriminator), [128, 256, 128, 64]),
    "appendix C: D's ReLU": (FACES, lambda gan: len(of(gan.discriminator, nn.ReLU)), 3 + 2),
    "appendix C: G's feature maps": (
        *(FACES, lambda gan: maps(gan.generator)),
        [(1024, 512), (512, 256), (256, 128), (128, 3)],
    ),
    "appendix C: G's weights N(0, .02)": (FACES, lambda gan: stds(gan.generator), [0.02] * 5),
    "appendix C: D's weights N(0, .002)": (FACES, lambda gan: stds(gan.discriminator), [0.002] * 6),
    "appendix C: pull-away": (FACES, lambda gan: gan.pull_away_weight, 0.1),
}


def of(network, kind):
    return [m for m in network.modules() if isinstance(m, kind)]


@pytest.fixture(scope="module")
def papers():
    torch.manual_seed(0)
    faces = {key: value for key, value in config(FACES).items() if key != "optimizer"}
    return {MNIST: ganzoo.EBGAN(**config(MNIST)), FACES: ganzoo.EBGAN(64, 3, **faces)}


@pytest.mark.parametrize("fact", PAPER)
def test_numbers_of_the_paper(fact, papers):
    name, measure, expected = PAPER[fact]
    close = isinstance(expected, list) and expected and isinstance(expected[0], float) and expected[0]
    assert measure(papers[name]) == (pytest.approx(expected, rel=0.05) if close else expected)


def shapes(network):
    return [(name, p.shape) for name, p in network.state_dict().items()]


def test_network_defaults_match_the_variant(papers):
    networks = {MNIST: MLPAutoEncoder(), FACES: ConvAutoEncoder()}
    for name, network in networks.items():
        assert shapes(network) == shapes(papers[name].discriminator)
    assert [m.p for m in of(networks[MNIST], nn.Dropout)] == [0.0]


def test_a_deeper_encoder_has_relu_and_batch_norm_between_its_layers():
    """Section 4.1; the grid's nLayerD is 2 to 5."""
    encoder = MLPAutoEncoder(layers=4, hidden=8, dropout=0.5).encoder
    hidden = ["linear 8>8", "batchnorm1d", "relu", "dropout 0.5"]
    assert layers(encoder) == ["flatten", "linear 784>8", "relu", "dropout 0.5", *hidden, *hidden]


@pytest.mark.parametrize(("name", "margin"), [("celeba", 20.0), ("lsun", 80.0)])
def test_margins_for_64_pixels_suit_the_norm(name, margin, papers):
    """Section 2.3 writes the energy as a norm. An image of pixels +-1 that D reconstructs as 0 has the energy 110.9,
    above the margins; its mean square error would be 1, and that of any image at most 4."""
    assert config(name)["margin"] == margin
    with torch.no_grad():
        energy, _ = papers[FACES].eval().discriminator(torch.ones(1, 3, 64, 64))
    assert energy.item() == pytest.approx(math.sqrt(3 * 64 * 64), rel=0.02) and 4 < margin < energy


def test_deeper_discriminators_of_the_papers_grid():
    d = MLPAutoEncoder(28, 1, 256, layers=5, dropout=0.5)
    assert linear(d) == [(784, 256), *[(256, 256)] * 3, (256, 784)]
    assert [m.num_features for m in d.modules() if isinstance(m, nn.BatchNorm1d)] == [256] * 3  # not on D's input


@pytest.mark.parametrize(("size", "maps"), [(16, [4, 8, 16]), (64, [4, 8, 16]), (128, [4, 8, 16, 32])])
def test_the_convolutional_decoder_mirrors_the_encoder(size, maps):
    d = ConvAutoEncoder(size, 3, width=4)
    down = [m for m in d.encoder if isinstance(m, nn.Conv2d)]
    up = [m for m in d.decoder if isinstance(m, nn.ConvTranspose2d)]
    assert [m.out_channels for m in down] == maps and [m.out_channels for m in up] == [*maps[-2::-1], 3]
    x = torch.rand(2, 3, size, size)
    energy, code = d(x)
    side = size // 2 ** len(maps)
    assert energy.shape == (2,) and code.shape == (2, maps[-1] * side**2)
    assert d.decoder(d.encoder(x)).shape == x.shape


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"margin": -1.0}, "margin is"),
        ({"pull_away_weight": -0.1}, "pull_away_weight is"),
        ({"margin_images": 0}, "margin_images is 0; it takes a number above 0"),
        ({"layers_d": 1}, "layers_d is 1; an auto-encoder takes 2 or more"),
        ({"architecture": "vgg"}, "architecture is 'vgg'; it takes one of mlp, dcgan"),
        ({"architecture": "dcgan", "image_size": 8}, "16, 32, 64 or 128"),
    ],
)
def test_bad_arguments_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        ebgan(**wrong)


@pytest.mark.parametrize("name", ["mlp", "dcgan"])
def test_both_architectures_train(name):
    model = ebgan(architecture=name, image_size=16, pull_away_weight=0.1)
    before = {key: value.clone() for key, value in model.named_parameters()}
    fit(model, NoiseImages(model), steps=2)
    assert not any(torch.equal(value, before[key]) for key, value in model.named_parameters() if value.ndim > 1)
