"""CGAN: the paper's layers, schedule and losses, and data without labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image
from torch import nn
from torch.optim import SGD

import ganzoo
from ganzoo.cli import main
from ganzoo.cli.paths import configs
from ganzoo.layers.maxout import Maxout
from ganzoo.networks.cgan import CGANDiscriminator, CGANGenerator
from ganzoo.testing import NoiseImages, fit


def cgan(**more):
    torch.manual_seed(0)
    return ganzoo.CGAN(**{"image_size": 8, "num_classes": 3, "hidden": 16, "d_hidden": 8, "z_dim": 6, **more})


def linear(network):
    return [(m.in_features, m.out_features) for m in network.modules() if isinstance(m, nn.Linear)]


def maxout(network):
    return [(m.linear.in_features, m.linear.out_features // m.pieces, m.pieces) for m in of(network, Maxout)]


def of(network, kind):
    return [m for m in network.modules() if isinstance(m, kind)]


def sgd(make_optimizer):
    optimizer = make_optimizer([nn.Parameter(torch.zeros(1))])
    (group,) = optimizer.param_groups
    return type(optimizer), group["lr"], group["momentum"], group["weight_decay"], group["nesterov"]


PAPER = {
    "4.1: z uniform in the unit hypercube, 100": (lambda gan: gan.latent(3).shape, (3, 100)),
    "4.1: G: z 200, y 1000, joint 1200": (
        lambda gan: linear(gan.generator),
        [(100, 200), (10, 1000), (1200, 1200), (1200, 784)],
    ),
    "4.1: G's ReLU": (lambda gan: len(of(gan.generator, nn.ReLU)), 3),
    "4.1: G's sigmoid": (lambda gan: len(of(gan.generator, nn.Sigmoid)), 1),
    "4.1: D: x 240 of 5, y 50 of 5, joint 240 of 4": (
        lambda gan: maxout(gan.discriminator),
        [(784, 240, 5), (10, 50, 5), (290, 240, 4)],
    ),
    "4.1: D's sigmoid layer": (lambda gan: linear(gan.discriminator)[-1], (240, 1)),
    "4.1: dropout in both": (lambda gan: [m.p for m in of(gan, nn.Dropout)], [0.5] * 6),
    "4.1: SGD of both": (
        lambda gan: [sgd(make) for make in gan.make_optimizer.values()],
        [(SGD, 0.1, 0.5, 0, False)] * 2,
    ),
    "4.1: one D step for one of G": (lambda gan: (gan.n_critic, gan.n_generator), (1, 1)),
    "4.1: batches of 100": (
        lambda _: yaml.safe_load(configs()["cgan/mnist"].read_text())["data"]["init_args"]["batch_size"],
        100,
    ),
}


@pytest.mark.parametrize("fact", PAPER)
def test_numbers_of_the_paper(fact):
    measure, expected = PAPER[fact]
    assert measure(ganzoo.CGAN()) == expected


def shapes(network):
    return [(name, p.shape) for name, p in network.state_dict().items()]


def test_network_defaults_match_the_variant():
    gan = ganzoo.CGAN()
    assert shapes(CGANGenerator()) == shapes(gan.generator) and shapes(CGANDiscriminator()) == shapes(gan.discriminator)
    assert [m.p for network in (CGANGenerator(), CGANDiscriminator()) for m in of(network, nn.Dropout)] == [0.5] * 6


def test_generator_scales_z_to_minus_1_to_1():
    """Compared with numpy. Unscaled, the constant mean of z in [0, 1) would outweigh the label."""
    model = cgan().eval()
    z, y = model.latent(5), torch.tensor([0, 2, 1, 1, 0])
    g = model.generator
    weights = [(m.weight.detach().numpy(), m.bias.detach().numpy()) for m in of(g, nn.Linear)]

    def relu(value, layer):
        weight, bias = weights[layer]
        return np.maximum(value @ weight.T + bias, 0)

    own = np.concatenate([relu(2 * z.numpy() - 1, 0), relu(np.eye(3, dtype=np.float32)[y], 1)], 1)
    logits = relu(own, 2) @ weights[3][0].T + weights[3][1]
    np.testing.assert_allclose(g(z, y).detach().numpy().reshape(5, -1), 2 / (1 + np.exp(-logits)) - 1, atol=1e-5)


def test_losses_match_equation_2():
    """Compared with a forward pass of D in numpy."""
    model = cgan().eval()
    x, y, z = torch.rand(5, 1, 8, 8) * 2 - 1, torch.tensor([0, 2, 1, 1, 0]), model.latent(5)
    d = model.discriminator

    def maxout(layer, value):
        weight, bias = (p.detach().numpy() for p in layer.linear.parameters())
        return (value @ weight.T + bias).reshape(5, -1, layer.pieces).max(2)

    def probability(images):
        pixels, classes = (images.numpy().reshape(5, -1) + 1) / 2, np.eye(3, dtype=np.float32)[y]
        hidden = np.concatenate([maxout(d.x[0], pixels), maxout(d.y[0], classes)], 1)
        weight, bias = (p.detach().numpy() for p in d.joint[2].parameters())
        return 1 / (1 + np.exp(-(maxout(d.joint[0], hidden) @ weight.T + bias)))[:, 0]

    with torch.no_grad():
        real, fake = probability(x), probability(model.generator(z, y))
        d_loss = model.discriminator_loss({"image": x, "label": y, "z": z})
        g_loss = model.generator_loss({"image": x, "label": y, "z": z})
    assert d_loss["real"].item() == pytest.approx(-np.log(real).mean(), rel=1e-5)
    assert d_loss["fake"].item() == pytest.approx(-np.log(1 - fake).mean(), rel=1e-5)
    assert g_loss["fake"].item() == pytest.approx(-np.log(fake).mean(), rel=1e-5)


def test_both_networks_read_the_label():
    model = cgan().eval()
    x, z = torch.rand(2, 1, 8, 8).repeat(2, 1, 1, 1), model.latent(2).repeat(2, 1)
    y = torch.tensor([0, 0, 1, 1])
    for output in (model.generator(z, y), model.discriminator(x, y)):
        assert not torch.allclose(output[:2], output[2:])
    a, b = (model.sample(seeds=[4], label=label) for label in (0, 2))
    assert not torch.allclose(a, b)


def test_dropout_is_on_in_training_and_off_in_sampling():
    model = cgan().train()
    z, y = model.latent(4), torch.zeros(4, dtype=torch.long)
    assert not torch.equal(model.generator(z, y), model.generator(z, y))
    assert torch.equal(model.sample(seeds=[1], label=1), model.sample(seeds=[1], label=1))


def test_latents_lie_in_the_unit_hypercube():
    z = cgan().latent(1000)
    assert z.min() >= 0 and z.max() < 1 and z.mean().item() == pytest.approx(0.5, abs=0.02)


def test_learning_rate_and_momentum_follow_the_papers_schedule():
    """lr 0.1 / 1.00004 per update of 100 images, down to 1e-6; momentum from .5 to .7."""
    model = cgan()
    trainer = fit(model, steps=1)
    for images, lr, momentum in [
        (0, 0.1, 0.5),
        (6_250_000, 0.1 / 1.00004**62_500, 0.6),
        (10**9, 1e-6, 0.7),
        (10**13, 1e-6, 0.7),
    ]:
        model.schedule(images)
        for optimizer in trainer.optimizers:
            assert optimizer.param_groups[0]["lr"] == pytest.approx(lr)
            assert optimizer.param_groups[0]["momentum"] == pytest.approx(momentum)


def test_a_momentum_above_the_papers_is_kept():
    model = cgan(optimizer=lambda params: SGD(params, lr=0.1, momentum=0.9))
    trainer = fit(model, steps=1)
    model.schedule(10**9)
    assert trainer.optimizers[0].param_groups[0]["momentum"] == 0.9


def test_a_given_scheduler_replaces_the_papers_schedule():
    model = cgan(
        optimizer=lambda params: SGD(params, lr=0.1),
        lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.ConstantLR(optimizer, 0.5, total_iters=9),
    )
    trainer = fit(model, steps=2)
    assert {optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers} == {0.05}


# Labels of the data


@pytest.mark.parametrize("name", ["CGAN", "ACGAN"])
@pytest.mark.parametrize(
    ("classes", "words"), [(None, "needs labels, but the data has none"), (4, "num_classes is 3, but 4 in the data")]
)
def test_data_without_labels_or_with_more_classes_is_refused(name, classes, words):
    model = getattr(ganzoo, name)(image_size=8, channels=1, num_classes=3)
    data = NoiseImages(model)
    data.num_classes = classes
    with pytest.raises(MisconfigurationException, match=words):
        fit(model, data, steps=1)


def test_a_label_out_of_range_is_refused():
    data = NoiseImages(model := cgan())
    data.num_classes, make_dataset = 4, data.make_dataset

    def mislabelled(split):
        dataset = make_dataset(split)
        data.num_classes = 3
        return dataset

    data.make_dataset = mislabelled
    data.dataset("train")
    with pytest.raises(MisconfigurationException, match="labels from 0 to 3; the model's classes are 0 to 2"):
        fit(model, data, steps=3)


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Options for a folder with images of two classes in subfolders."""
    monkeypatch.chdir(tmp_path)
    for i in range(16):
        path = tmp_path / "pictures" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (9 * i, i, 0)).save(path)
    small = ["--data.image_size", "8", "--data.batch_size", "4", "--data.val_fraction", "0", "--data.num_workers", "0"]
    quick = ["--trainer.max_steps", "1", "--samples.rows", "1", "--scores.final_n", "0"]
    return ["--data", "ImageFolder", "--data.path", "pictures", *small, *quick]


@pytest.mark.parametrize("name", ["CGAN", "ACGAN"])
def test_the_command_line_names_the_option_for_labels(name, pictures, capsys):
    assert main(["fit", "--model", name, *pictures]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ganzoo: error: {name} needs labels, but the data has none") and "data.labels true" in line


def test_the_command_line_passes_the_number_of_classes(pictures):
    assert main(["fit", "--model", "CGAN", "--model.hidden", "8", *pictures, "--data.labels", "true"]) == 0
    model = ganzoo.load("runs/001-cgan-pictures/checkpoints/last.ckpt")
    assert model.num_classes == 2 and model.sample(label=1).shape == (1, 3, 8, 8)


def test_a_variant_with_optional_num_classes_needs_no_labels(pictures, tmp_path, monkeypatch):
    """Its annotation `int | None` permits None, which the command line passes."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_either.py").write_text(
        "from ganzoo import DCGAN\n\n\n"
        "class Either(DCGAN):\n"
        "    def __init__(self, num_classes: int | None = 5, **arguments):\n"
        "        super().__init__(**arguments)\n"
        "        assert num_classes is None\n"
    )
    assert main(["fit", "--model", "my_either.Either", "--model.width", "4", *pictures]) == 0
