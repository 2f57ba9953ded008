"""Spectral norm, conditional batch norm, self-attention and residual blocks against their definitions."""

from __future__ import annotations

import copy
import math
import pickle
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d, interpolate

from ganzoo.core.frozen import kept
from ganzoo.layers.attention import SelfAttention
from ganzoo.layers.base import Conv2d
from ganzoo.layers.conditional_norm import ConditionalBatchNorm, class_table
from ganzoo.layers.residual import DeepDownBlock, DeepUpBlock, DownBlock, UpBlock
from ganzoo.layers.spectral import SpectralConv2d, SpectralEmbedding, SpectralLinear, normalised
from ganzoo.networks.base import DOWN, UP
from ganzoo.networks.residual import ResidualDiscriminator, ResidualGenerator


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


LAYERS = {
    "conv": (partial(SpectralConv2d, 6, 5, 3), torch.randn(2, 6, 8, 8)),
    "1x1": (partial(SpectralConv2d, 4, 9, 1, bias=False), torch.randn(2, 4, 3, 3)),
    "linear": (partial(SpectralLinear, 7, 3), torch.randn(2, 7)),
    "head": (partial(SpectralLinear, 7, 1), torch.randn(2, 7)),
    "table": (partial(SpectralEmbedding, 4, 6), torch.tensor([3, 0])),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_normalised_weight_has_the_largest_singular_value_1(name):
    """After some forward passes, each of which is one power iteration; the layer computes with this weight."""
    make, x = LAYERS[name]
    layer = make()
    with torch.no_grad():
        layer.weight.mul_(5)
        for _ in range(100):
            layer(x)
        singular = torch.linalg.svdvals(layer.weight.flatten(1))
        torch.testing.assert_close(normalised(layer), layer.weight / singular[0], rtol=1e-4, atol=1e-6)
        plain = type(layer).__base__(*make.args, **(make.keywords or {}))
        plain.load_state_dict({**layer.state_dict(), "weight": layer.weight / singular[0]}, strict=False)
        torch.testing.assert_close(layer(x), plain(x), rtol=1e-4, atol=1e-5)


def test_spectral_norm_follows_algorithm_1():
    """One iteration per forward pass in training, none in eval mode; no gradient through u and v."""
    layer = SpectralLinear(6, 4).double()
    w, u = layer.weight.detach().clone().requires_grad_(), layer.u.clone()
    assert u.norm().item() == pytest.approx(1)
    x = torch.randn(3, 6).double()
    for _ in range(2):
        v = (w.T @ u / (w.T @ u).norm()).detach()
        u = (w @ v / (w @ v).norm()).detach()
        sigma = u @ w @ v
        expected = x @ (w / sigma).T + layer.bias.detach()
        found = layer(x)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(layer.u, u)
    ours, theirs = torch.autograd.grad(found.tanh().sum(), layer.weight), torch.autograd.grad(expected.tanh().sum(), w)
    torch.testing.assert_close(ours, theirs)
    layer.eval()
    v = (w.T @ u / (w.T @ u).norm()).detach()
    torch.testing.assert_close(layer(x), x @ (w / (u @ w @ v)).T + layer.bias)
    torch.testing.assert_close(layer.u, u)


def test_the_vector_of_a_frozen_opponent_is_restored():
    """The power iterations of G's update do not count; a graph built with them remains valid."""
    layer = SpectralLinear(6, 4)
    before, x = layer.u.clone(), torch.randn(3, 6, requires_grad=True)
    with kept(layer.buffers()):
        out = layer(x)
        assert not torch.equal(layer.u, before)
    assert torch.equal(layer.u, before)
    out.sum().backward()
    assert x.grad.abs().max() > 0


def test_spectral_layers_can_be_saved_pickled_and_copied():
    layer = SpectralConv2d(3, 4, 3)
    layer(torch.randn(1, 3, 5, 5))
    assert set(layer.state_dict()) == {"weight", "bias", "u"}
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert all(torch.equal(value, other.state_dict()[key]) for key, value in layer.state_dict().items())


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_penalty_of_gradients_passes_through_spectral_norm(compiled):
    """Inside of `torch.func.grad`, where buffers must not be overwritten by `copy_`; compiled as a whole."""
    layer, x = SpectralConv2d(3, 4, 3), torch.randn(2, 3, 5, 5)
    layer.eval()

    def penalty(x):
        return torch.func.grad(lambda images: layer(images).tanh().sum())(x).square().sum()

    x_ = x.clone().requires_grad_()
    (inner,) = torch.autograd.grad(layer(x_).tanh().sum(), x_, create_graph=True)
    expected = torch.autograd.grad(inner.square().sum(), layer.weight)
    f = torch.compile(penalty, fullgraph=True, backend="aot_eager") if compiled else penalty
    torch.testing.assert_close(torch.autograd.grad(f(x), layer.weight), expected)
    before = layer.train().u.clone()
    f(x)
    assert not torch.equal(layer.u, before)


def test_sigma_is_accurate_under_autocast():
    layer = SpectralLinear(50, 40)
    other = copy.deepcopy(layer)
    with torch.autocast("cpu", torch.bfloat16):
        half = normalised(layer)
    assert half.dtype == torch.float32 and torch.equal(half, normalised(other)) and torch.equal(layer.u, other.u)


@pytest.mark.parametrize("of", ["labels", "vectors"])
def test_conditional_batch_norm(of):
    """Each image has the gains and shifts of its own condition; statistics are of the whole batch."""
    linear = partial(class_table, 3) if of == "labels" else partial(nn.Linear, 3)
    norm, x, c = ConditionalBatchNorm(4, linear), torch.randn(5, 4, 2, 3) * 3 + 1, torch.tensor([0, 2, 1, 2, 2])
    if of == "labels":
        torch.testing.assert_close(norm(x, c), nn.BatchNorm2d(4)(x))  # gain 1 and shift 0 at first
        for table in (norm.gain, norm.shift):
            nn.init.normal_(table.weight)
    condition = c if of == "labels" else torch.eye(3)[c]
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    found = norm(x, condition)
    for i in range(5):
        g, s = (m(condition[i : i + 1])[0] for m in (norm.gain, norm.shift))
        expected = (x[i] - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
        torch.testing.assert_close(found[i], (1 + g)[:, None, None] * expected + s[:, None, None])
    assert not list(norm.norm.parameters())


@pytest.mark.parametrize("features", [16, 4])
def test_attention_is_that_of_a_loop(features):
    layer, x = SelfAttention(features), torch.randn(2, features, 4, 6)
    assert torch.equal(layer(x), x)  # gamma is 0 at first
    assert [list(m.weight.shape[:2]) for m in (layer.theta, layer.phi, layer.g, layer.o)] == [
        *[[max(1, features // 8), features]] * 2,
        *([features // 2, features], [features, features // 2]),
    ]
    with torch.no_grad():
        layer.gamma.fill_(0.7)
        found = layer(x)
        theta, phi, g, o = (m.weight[:, :, 0, 0] for m in (layer.theta, layer.phi, layer.g, layer.o))
        for image, out in zip(x, found, strict=True):
            keys, values = (torch.einsum("oi,ihw->ohw", m, image) for m in (phi, g))
            cells = [(a, b) for a in range(2) for b in range(3)]
            pooled = [
                [t[:, 2 * a : 2 * a + 2, 2 * b : 2 * b + 2].amax((1, 2)) for a, b in cells] for t in (keys, values)
            ]
            for i in range(4):
                for j in range(6):
                    query = theta @ image[:, i, j]
                    scores = [math.exp(query @ key) for key in pooled[0]]
                    mixed = sum(s * value for s, value in zip(scores, pooled[1], strict=True)) / sum(scores)
                    torch.testing.assert_close(out[:, i, j], image[:, i, j] + 0.7 * o @ mixed, rtol=1e-4, atol=1e-5)


def relu(x):
    return x.clamp(min=0)


def up(x):
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


class Scaled(nn.Module):
    """A norm whose condition is a factor, to see where it acts."""

    def __init__(self, features):
        super().__init__()
        self.shift = nn.Parameter(torch.randn(features, 1, 1))

    def forward(self, x, c):
        return c * x + self.shift


C = torch.tensor(1.5)


def plain(conv):
    """The same convolution without resampling."""
    other = nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, padding=conv.padding)
    other.load_state_dict(conv.state_dict())
    return other


@pytest.mark.parametrize("make", [Conv2d, SpectralConv2d])
def test_resampling_within_a_convolution(make):
    """At the borders, too."""
    x = torch.randn(2, 3, 4, 6)
    bigger, smaller = (make(3, 5, 3, padding=1, **{way: True}).eval() for way in ("up", "down"))
    normal = [normalised(m) if make is SpectralConv2d else m.weight for m in (bigger, smaller)]
    torch.testing.assert_close(bigger(x), nn.functional.conv2d(up(x), normal[0], bigger.bias, padding=1))
    whole = nn.functional.conv2d(x, normal[1], smaller.bias, padding=1)
    torch.testing.assert_close(smaller(x), avg_pool2d(whole, 2))


def test_order_of_the_up_block():
    """As in appendix B: norm, ReLU, x2, conv, norm, ReLU, conv; the paper's shortcut is x2, then a 1x1 convolution."""
    block, x = UpBlock(4, 6, Scaled), torch.randn(2, 4, 3, 5)
    h = plain(block.conv1)(up(relu(block.norm1(x, C))))
    h = block.conv2(relu(block.norm2(h, C)))
    torch.testing.assert_close(block(x, C), h + block.shortcut(up(x)))
    torch.testing.assert_close(up(x), interpolate(x, scale_factor=2, mode="nearest"))


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(("n_out", "down"), [(6, True), (4, True), (6, False), (4, False)])
def test_order_of_the_down_block(first, n_out, down):
    """ReLU, conv, ReLU, conv, mean of 2x2; the shortcut is of x itself: a ReLU in place would change it."""
    block, x = DownBlock(4, n_out, 5, first=first, down=down), torch.randn(2, 4, 4, 6)
    given = x.clone()
    half = partial(avg_pool2d, kernel_size=2) if down else nn.Identity()
    h = plain(block.conv2)(relu(block.conv1(x if first else relu(x))))
    skip = x if n_out == 4 and not down else block.shortcut(x)
    torch.testing.assert_close(block(x), half(h) + half(skip))
    assert torch.equal(x, given) and isinstance(block.shortcut, nn.Identity) == (n_out == 4 and not down)


@pytest.mark.parametrize("bigger", [False, True])
@pytest.mark.parametrize("n_out", [8, 6])
def test_order_of_the_deep_up_block(bigger, n_out):
    """BigGAN-deep, figure 16: x2 before the first 3x3 convolution; the shortcut drops feature maps."""
    block, x = DeepUpBlock(8, n_out, Scaled, up=bigger), torch.randn(2, 8, 3, 5)
    double = up if bigger else nn.Identity()
    h = block.conv1(relu(block.norms[0](x, C)))
    h = plain(block.conv2)(double(relu(block.norms[1](h, C))))
    h = block.conv3(relu(block.norms[2](h, C)))
    h = block.conv4(relu(block.norms[3](h, C)))
    torch.testing.assert_close(block(x, C), h + double(x)[:, :n_out])
    assert block.conv2.weight.shape == (2, 2, 3, 3)


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("n_out", [4, 8])
def test_order_of_the_deep_down_block(down, n_out):
    """BigGAN-deep, figure 16: ReLU and mean of 2x2 before the last convolution; the shortcut appends feature maps."""
    block, x = DeepDownBlock(4, n_out, down=down), torch.randn(2, 4, 4, 6)
    half = partial(avg_pool2d, kernel_size=2) if down else nn.Identity()
    h = block.conv2(relu(block.conv1(relu(x))))
    h = block.conv4(half(relu(block.conv3(relu(h)))))
    skip = half(x) if n_out == 4 else torch.cat([half(x), block.more(half(x))], 1)
    torch.testing.assert_close(block(x), h + skip)
    assert block.conv2.weight.shape == (n_out // 4, n_out // 4, 3, 3)


# Networks


def test_feature_maps_of_each_size():
    """Brock et al. 2018, tables 4 to 9, from 64 pixels up; smaller images have the same maps in all layers."""
    assert {
        4: (16, 16, 8, 4, 2),
        5: (16, 16, 8, 4, 2, 1),
        6: (16, 16, 8, 8, 4, 2, 1),
        7: (16, 16, 8, 8, 4, 2, 1, 1),
    }.items() <= UP.items()
    assert {
        4: (1, 2, 4, 8, 16),
        5: (1, 2, 4, 8, 16, 16),
        6: (1, 2, 4, 8, 8, 16, 16),
        7: (1, 1, 2, 4, 8, 8, 16, 16),
    }.items() <= DOWN.items()
    assert [UP[n] for n in (1, 2, 3)] == [(4,) * (n + 1) for n in (1, 2, 3)]
    assert [DOWN[n] for n in (1, 2, 3)] == [(2,) * 3, (2,) * 3, (2,) * 4]
    assert len(UP) == len(DOWN) == 7


def test_images_are_the_tanh_of_a_normalised_relu():
    g, seen = ResidualGenerator(16, 1, 4, 2).eval(), []
    g.blocks[-1].register_forward_hook(lambda m, x, y: seen.append(y))
    found = g(torch.randn(2, 4))
    torch.testing.assert_close(found, torch.tanh(g.out(g.norm(seen[0]).clamp(min=0))))


def test_first_weights_of_the_projection_are_xaviers():
    """Uniform, with their own bound."""
    table = ResidualDiscriminator(32, 3, 16, num_classes=10).table.weight
    bound = (6 / sum(table.shape)) ** 0.5
    assert 0.8 * bound < table.abs().max() <= bound
