"""Frozen feature networks: their maps, what trains and stores them (nothing), and what identifies them."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torchvision import models

import ganzoo
import ganzoo.networks.features as module
from ganzoo.evaluation.assemble import assemble
from ganzoo.evaluation.classifier import PINNED, pinned
from ganzoo.evaluation.extractors import Custom
from ganzoo.networks.features import Features, load_features, perceptual_distance


@pytest.fixture
def images():
    return 2 * torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) - 1


@pytest.fixture
def untrained(monkeypatch):
    """torchvision's EfficientNet with random weights, VGG with zeros, without a download."""
    asked = []

    def random(path, url):
        name = asked[-1].split()[-1]
        torch.manual_seed(0)
        with torch.device("meta" if name == "vgg16" else "cpu"):
            state = models.get_model(name).state_dict()
        return {key: torch.zeros(value.shape) if value.is_meta else value for key, value in state.items()}

    monkeypatch.setattr(module, "fetch", lambda what, *_: asked.append(what))
    monkeypatch.setattr(module, "tensors", random)


def test_maps_of_the_emoji_classifier_are_its_own(images):
    with torch.no_grad():
        found, expected = Features("emoji-training")(images), pinned("emoji-training").eval().maps(images)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("name", "side"), [("emoji-training", 40), ("efficientnet_b0", 256), ("vgg16", 64)])
def test_table_of_sources(untrained, name, side):
    """Channels and sizes are those of the network's maps."""
    features = Features(name)
    maps = features(torch.zeros(1, 3, side, side))
    assert [m.shape[1] for m in maps] == list(features.source.channels)
    assert (
        [tuple(m.shape[2:]) for m in maps]
        == features.sizes(side)
        == [(side // s,) * 2 for s in features.source.strides]
    )


def test_maps_of_torchvision_are_those_before_the_next_layers(untrained, images):
    """Of images enlarged to 224 pixels, with ImageNet's mean and standard deviation."""
    features = Features()
    found = features(images[..., :24])
    torch.manual_seed(0)
    network = models.efficientnet_b0().eval()
    x = nn.functional.interpolate(images[..., :24], (299, 224), mode="bilinear")
    x = (x / 2 + 0.5 - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
        :, None, None
    ]
    with torch.no_grad():
        torch.testing.assert_close(found[0], network.features[:3](x))
        torch.testing.assert_close(found[3], network.features[:8](x))
    assert features.sizes([32, 24]) == [(74, 56), (37, 28), (18, 14), (9, 7)]


def test_nothing_trains_or_stores_them(images):
    features = Features("emoji-training").train()
    first = features(images)
    assert not list(features.parameters()) and not any(stage.training for stage in features.stages)
    assert [key for key, _ in features.named_buffers()] == ["mean", "std"]
    (identity,) = features.state_dict().values()
    assert bytes(identity.tolist()).decode() == f"emoji-training {PINNED['emoji-training'][:8]}"
    for copied in (copy.deepcopy(features), pickle.loads(pickle.dumps(features))):
        torch.testing.assert_close(copied(images), first)


def test_they_move_with_the_module(images):
    features = nn.Sequential(Features("emoji-training")).double()
    assert features(images.double())[0].dtype == torch.float64
    features[0].load()  # once
    loaded = Features("emoji-training")
    load_features(nn.ModuleList([loaded]))
    assert nn.Sequential(loaded).to(torch.float64)(images.double())[0].dtype == torch.float64


def test_weights_of_other_features_are_refused():
    state = Features("emoji-training").state_dict()
    Features("emoji-training").load_state_dict(state)
    with pytest.raises(ValueError, match="trained with the features emoji-training a295b073, not vgg16 397923af: set"):
        Features("vgg16").load_state_dict(state)
    with pytest.raises(ValueError, match="with the features missing, not"):
        Features("vgg16").load_state_dict({"_extra_state": None})


def test_missing_weights_are_one_clear_error(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    features = Features()  # building a model needs no weights
    with pytest.raises(
        FileNotFoundError, match=r"efficientnet_b0 could not.*no network.*save http.*(or choose|features)"
    ):
        features.load()
    (tmp_path / "hub" / "checkpoints" / "efficientnet_b0_rwightman-7f5810bc.pth").write_bytes(b"x")
    with pytest.raises(ValueError, match="damaged or a different file"):
        features.load()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("efficientnet-b0",), "features is efficientnet-b0; did you mean 'efficientnet_b0'"),
        (("inception",), "features is inception; it takes emoji-training, efficientnet_b0, vgg16"),
        (("vgg16", 4), "vgg16 reads grey or RGB images, but they have 4 channels"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Features(*arguments)


def test_grey_images_are_read_as_colour(images):
    grey = images[:, :1]
    features = Features("emoji-training", 1)
    torch.testing.assert_close(features(grey), features(grey.repeat(1, 3, 1, 1)))


def test_gradients_reach_the_images(images):
    """Twice differentiable, also by `torch.func`, compiled, and in half precision."""
    features = Features("emoji-training")
    features.load()

    def loss(x):
        return sum(m.square().mean() for m in features(x))

    x = images.clone().requires_grad_()
    (first,) = torch.autograd.grad(loss(x), x, create_graph=True)
    torch.testing.assert_close(torch.func.grad(loss)(images), first)
    assert torch.autograd.grad(first.square().sum(), x)[0].abs().sum() > 0
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    torch.testing.assert_close(torch.autograd.grad(compiled(x), x)[0], first)
    with torch.autocast("cpu", torch.bfloat16):
        assert features(images)[0].dtype == torch.bfloat16


def test_perceptual_distance(images):
    """By hand, from maps; of one image with itself 0; the target has no gradient."""
    features = Features("emoji-training")
    x, target = images.clone().requires_grad_(), images.flip(0).requires_grad_()
    distance = perceptual_distance(features, x, target)
    expected = 0
    for a, b in zip(features(x), features(target), strict=True):
        a, b = (m / m.square().sum(1, keepdim=True).sqrt() for m in (a, b))
        expected = expected + (a - b).square().sum(1).mean((1, 2))
    torch.testing.assert_close(distance, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(perceptual_distance(features, images, images), torch.zeros(2))
    distance.sum().backward()
    assert target.grad is None and x.grad.abs().sum() > 0


def test_features_that_train_do_not_judge(monkeypatch):
    """By weights, so under any name; those of scores are others."""
    from ganzoo.data import ArrayImages
    from tests.variants import small

    more = {"channels": 3, "num_classes": None, "features": "emoji-training"}
    gan = ganzoo.ProjectedGAN(**{**small("ProjectedGAN"), **more})
    images = ArrayImages(torch.randint(256, (20, 3, 8, 8), dtype=torch.uint8))
    mine = Custom(Tail(pinned("emoji-training")), "mine", channels=3, image_size=(8, 8))
    with pytest.raises(ValueError, match="mine has the features that the model was trained with .*: choose another"):
        assemble(gan, images, ["fid"], n=20, extractor=mine)
    assemble(gan, images, ["fid"], n=20, extractor="emoji-tone")
    assert not Features("vgg16").are_in(pinned("emoji-training"))  # not downloaded


class Tail(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(nn.functional.interpolate(x, (32, 32)))[0]
