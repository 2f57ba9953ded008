"""Feature extractors: agreement with reference implementations, frozen weights, fingerprints and refused input."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
import shutil
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from PIL import Image
from safetensors.torch import load
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from ganzoo.data import Digits, Emoji, MNIST5k
from ganzoo.evaluation import downloads, extractors
from ganzoo.evaluation import inception as inception_file
from ganzoo.evaluation.classifier import ARCHITECTURES, FACTORS, PINNED, WEIGHTS, DigitNet, pinned
from ganzoo.evaluation.extractors import (
    Classifier,
    Custom,
    EmojiClassifier,
    Grey,
    Stacked,
    Torchvision,
    make,
)
from ganzoo.evaluation.inception import Inception, fetch_inception
from ganzoo.evaluation.interfaces import fingerprint
from tests.campaigns import classifier as command


def pictures(n=2, channels=3, size=32, width=None):
    shape = (n, channels, size, width or size)
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(size))


@pytest.fixture(scope="module")
def peer():
    """torch-fidelity's own network, with random weights and statistics."""
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *a, **k: None)
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        torch.manual_seed(0)
        network = FeatureExtractorInceptionV3("", ["2048", "logits_unbiased", "logits"])
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(0.5, 1.5)
    return network


@pytest.fixture(scope="module")
def weights(peer, tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "random.pth"
    torch.save(peer.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def inception(weights):
    return Inception(weights)


class Small(nn.Module):
    """Features and logits of 8x8 images, from a network with batch norm and dropout."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten())
        self.head = nn.Linear(144, 5)

    def forward(self, x):
        features = self.body(x)
        return features, self.head(features)


# Inception


@pytest.mark.parametrize(("n", "size", "width"), [(2, 32, 32), (1, 299, 299), (1, 512, 512), (1, 48, 300)])
def test_inception_is_bit_equal_to_torch_fidelity(peer, inception, n, size, width):
    images = pictures(n, size=size, width=width)
    with torch.no_grad():
        features, logits, biased = peer(images)
    outputs = inception(images)
    assert torch.equal(outputs["features"], features)
    assert torch.equal(outputs["logits"], logits)
    assert not torch.equal(outputs["logits"], biased)
    assert {key: list(value.shape) for key, value in outputs.items()} == {
        "features": [n, 2048],
        "logits": [n, 1008],
        "spatial": [n, 2023],
    }


def test_spatial_is_the_first_seven_channels_of_mixed_6(peer, inception):
    seen = []
    handle = peer.Mixed_6d.branch1x1.register_forward_hook(lambda layer, inputs, output: seen.append(output[:, :7]))
    with torch.no_grad():
        peer(pictures(1))
    handle.remove()
    assert seen[0].shape == (1, 7, 17, 17)
    assert torch.equal(inception(pictures(1))["spatial"], seen[0].flatten(1))


@pytest.mark.parametrize("size", [32, 512])
def test_clean_resize_is_an_antialiased_bicubic_interpolation_in_float(inception, weights, size):
    clean = Inception(weights, "clean")
    images = pictures(1, size=size)
    read = []
    handle = clean.network.Conv2d_1a_3x3.register_forward_pre_hook(lambda layer, inputs: read.append(inputs[0]))
    features = clean(images)["features"]
    handle.remove()
    # channel by channel along both axes, with the kernel of Keys (1981) at a = -1/2
    expected = np.stack([bicubic(bicubic(plane, 299).T, 299).T for plane in images[0].double().numpy()])
    np.testing.assert_allclose(read[0][0].numpy(), (expected.clip(0, 255) - 128) / 128, atol=1e-5)
    assert abs(expected - expected.round()).max() > 0.4
    assert not torch.equal(features, inception(images)["features"])
    assert clean.fingerprint != inception.fingerprint
    assert (clean.name, inception.name) == ("other-inception-clean", "other-inception")  # of random weights


def bicubic(rows, size):
    """Resample [H, W] to [H, size] by brute force; a shrinking image widens the kernel."""
    n = rows.shape[1]
    stretch = max(n / size, 1)
    out = np.empty((len(rows), size))
    for i in range(size):
        centre = (i + 0.5) * n / size
        first, last = max(int(centre - 2 * stretch + 0.5), 0), min(int(centre + 2 * stretch + 0.5), n)
        t = abs(np.arange(first, last) + 0.5 - centre) / stretch
        near = (1.5 * t - 2.5) * t * t + 1
        far = ((-0.5 * t + 2.5) * t - 4) * t + 2
        weight = np.where(t < 1, near, np.where(t < 2, far, 0))
        out[:, i] = rows[:, first:last] @ weight / weight.sum()
    return out


def test_a_pickle_is_refused_and_not_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    for name, save in {
        "torch.pth": torch.save,
        "plain.pth": lambda x, path: path.write_bytes(pickle.dumps(x, protocol=2)),
    }.items():
        save({"fc.weight": Evil()}, tmp_path / name)
        with pytest.raises(ValueError, match=rf"{name} is not a file of tensors .* use a copy of https://"):
            Inception(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_files_without_inceptions_weights_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no weight file at .*none\.pth"):
        Inception(tmp_path / "none.pth")
    for content in ({"fc.weight": torch.zeros(3)}, torch.zeros(3), [1]):
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(ValueError, match=r"other\.pth does not contain the weights") as error:
            Inception(tmp_path / "other.pth")
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="resize is 'pil'; it takes 'tf' or 'clean'"):
        Inception(tmp_path / "other.pth", resize="pil")


@pytest.fixture
def offline(monkeypatch, tmp_path):
    def download(url, path, *args, **kwargs):
        raise URLError("no such host\nat all")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    return tmp_path / "hub" / "checkpoints"


def test_the_error_of_a_failed_download_says_what_to_do(offline):
    for ask in (fetch_inception, Inception, lambda: make("inception", 3, (32, 32))):
        with pytest.raises(FileNotFoundError) as error:
            ask()
        message = str(error.value)
        file = offline / "weights-inception-2015-12-05-6726825d.pth"
        assert "no such host at all" in message and "\n" not in message
        assert inception_file.INCEPTION in message and str(file) in message and "--weights" in message
    with pytest.raises(FileNotFoundError, match=r"resnet18's weights .* save https://.* as .*resnet18-\w+\.pth"):
        Torchvision("resnet18")


def test_the_download_is_verified_and_reused(monkeypatch, tmp_path, weights, inception):
    asked = []

    def download(url, path, hash_prefix, progress):
        asked.append((url, hash_prefix))
        shutil.copy(weights, path)

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    path = fetch_inception()
    assert asked == [(inception_file.INCEPTION, "6726825d")]
    with weights.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    with pytest.raises(ValueError, match=f"{path} is damaged.* {found[:8]}.*delete it"):
        fetch_inception()
    monkeypatch.setattr(inception_file, "INCEPTION_HASH", found[:8])
    assert fetch_inception() == path
    assert Inception().fingerprint == inception.fingerprint
    assert len(asked) == 1


@pytest.mark.network
def test_real_weights_give_torch_fidelitys_scores(tmp_path):
    import torch_fidelity

    try:
        extractor = Inception()
    except FileNotFoundError as error:
        pytest.skip(f"needs the internet: {error}")
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 40, 3, 8, 8, generator=generator) * torch.tensor([1, 0.7]).view(2, 1, 1, 1, 1)
    sets = nn.functional.interpolate(coarse.flatten(0, 1) * 255, (64, 64), mode="bicubic").clamp(0, 255).byte()
    fakes, reals = sets.unflatten(0, (2, 40))
    for folder, images in (("fake", fakes), ("real", reals)):
        (tmp_path / folder).mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / folder / f"{i:02d}.png")
    scores = torch_fidelity.calculate_metrics(
        input1=str(tmp_path / "fake"), input2=str(tmp_path / "real"), isc=True, fid=True, isc_splits=1,
        samples_shuffle=False, cuda=False, cache=False, verbose=False,
    )  # fmt: skip
    fake, real = extractor(fakes), extractor(reals)
    p = fake["logits"].double().softmax(1)
    inception_score = (p * (p.log() - p.mean(0).log())).sum(1).mean().exp().item()
    assert inception_score == pytest.approx(scores["inception_score_mean"], rel=1e-5)
    x, y = (side["features"].double() for side in (fake, real))
    a, b = ((z - z.mean(0)) / 39**0.5 for z in (x, y))
    overlap = torch.linalg.svdvals(a @ b.T).sum()
    fid = (x.mean(0) - y.mean(0)).square().sum() + a.square().sum() + b.square().sum() - 2 * overlap
    assert fid.item() == pytest.approx(scores["frechet_inception_distance"], rel=1e-4)


# Torchvision


@pytest.fixture
def torchvisions(monkeypatch, tmp_path):
    """Puts a network with random weights in the place of torchvision's download."""
    from torchvision import models

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    sha256, claimed = downloads.sha256, lambda path: path.stem.rpartition("-")[2]
    monkeypatch.setattr(
        downloads, "sha256", lambda path: (claimed if path.parent.name == "checkpoints" else sha256)(path)
    )

    def put(name):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = models.get_model(name)
        path = tmp_path / "hub" / "checkpoints" / models.get_model_weights(name).DEFAULT.url.rpartition("/")[2]
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(network.state_dict(), path)
        return network.eval()

    return put


def test_torchvision_features_are_the_input_of_the_last_linear_layer(torchvisions):
    from torchvision.models import ResNet18_Weights

    network = torchvisions("resnet18")
    extractor = Torchvision("resnet18")
    images = pictures(2, size=40)
    outputs = extractor(images)
    with torch.no_grad():
        x = ResNet18_Weights.DEFAULT.transforms()(images)
        logits = network(x)
        network.fc = nn.Identity()
        features = network(x)
    assert torch.equal(outputs["features"], features) and torch.equal(outputs["logits"], logits)
    assert (extractor.name, extractor.num_features, extractor.num_classes) == ("torchvision-resnet18", 512, 1000)
    assert "ResNet18_Weights.IMAGENET1K_V1" in extractor.citation and "resize_size=[256]" in extractor.preprocessing


def test_torchvision_refuses_networks_without_a_linear_layer_and_unknown_names(torchvisions):
    torchvisions("squeezenet1_1")
    with pytest.raises(ValueError, match="squeezenet1_1 has no Linear layer"):
        Torchvision("squeezenet1_1")
    with pytest.raises(ValueError, match="no classifier 'resnet5'; did you mean .*'resnet50'"):
        Torchvision("resnet5")


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_torchvisions_files_are_verified_and_never_unpickled(torchvisions, monkeypatch, tmp_path):
    torchvisions("resnet18")
    (file,) = (tmp_path / "hub" / "checkpoints").iterdir()
    torch.save({"conv1.weight": Payload(tmp_path / "ran")}, file)
    with pytest.raises(ValueError, match="is not a file of tensors"):  # even if its hash were right
        Torchvision("resnet18")
    monkeypatch.undo()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=f"{file} is damaged or a different file"):
        Torchvision("resnet18")
    assert not (tmp_path / "ran").exists()


# Custom networks


def test_custom_takes_tensors_pairs_and_dicts():
    images, features = pictures(3, 1, 8), nn.Flatten()
    expected = images.flatten(1) / 127.5 - 1
    one = Custom(features, "one", channels=1, image_size=(8, 8))
    assert torch.equal(one(images)["features"], expected) and one(images).keys() == {"features"}
    assert (one.num_features, one.num_classes) == (64, None)
    pair = Custom(Small(), "pair", channels=1, image_size=(8, 8))
    assert (pair.num_features, pair.num_classes) == (144, 5)

    class Named(nn.Module):
        def forward(self, x):
            return {"features": x.flatten(1).double(), "spatial": x}

    named = Custom(Named(), "named", channels=1, image_size=(8, 8), preprocess=lambda x: x / 255)
    outputs = named(images)
    assert torch.equal(outputs["spatial"], images / 255) and outputs["features"].dtype == torch.float32


@pytest.mark.parametrize("module", [nn.Identity(), nn.Flatten(0), nn.LSTM(8, 8), nn.Upsample(4)])
def test_custom_refuses_other_outputs(module):
    with pytest.raises(ValueError, match="mine (must return|returns) features"):
        Custom(module, "mine", channels=1, image_size=(8, 8), preprocess=lambda x: x[:, 0].float())


def test_custom_is_a_frozen_copy():
    module = Small()
    extractor = Custom(module, "small", channels=1, image_size=(8, 8))
    images = pictures(4, 1, 8)
    before, state = extractor(images)["features"], copy.deepcopy(extractor.network.state_dict())
    with torch.no_grad():
        module.head.weight.add_(1)
    assert module.training and all(weight.requires_grad for weight in module.parameters())
    extractor.network.train()  # must have no effect
    assert torch.equal(extractor(images)["features"], before)
    assert not any(weight.requires_grad for weight in extractor.network.parameters())
    for name, tensor in extractor.network.state_dict().items():
        assert torch.equal(tensor, state[name])


# Digit classifiers


@pytest.mark.parametrize(("name", "data"), [("digits", Digits), ("mnist5k", MNIST5k)])
def test_checksum_and_accuracy_of_the_shipped_classifiers(name, data):
    extractor = make(name, 1, (28, 28))
    content = (WEIGHTS / f"{name}.safetensors").read_bytes()
    card = json.loads((WEIGHTS / f"{name}.json").read_text())
    assert hashlib.sha256(content).hexdigest() == PINNED[name] == card["sha256"]
    assert len(content) < 1e6
    test = data().dataset("test")
    batch = test.__getitems__(range(len(test)))
    outputs = extractor(batch["image"])
    right = (outputs["logits"].argmax(1) == batch["label"]).double().mean().item()
    assert right >= 0.975
    assert right == pytest.approx(card["accuracy"]["test"], abs=0.006)  # the card's is on resampled images
    assert outputs["features"].shape == (len(test), extractor.num_features)
    assert (outputs["features"].std(0) > 1e-3).all()  # no feature is dead


@pytest.mark.parametrize("name", ["emoji", "emoji-training"])
def test_checksum_and_accuracy_of_the_emoji_classifiers(name):
    content = (WEIGHTS / f"{name}.safetensors").read_bytes()
    card = json.loads((WEIGHTS / f"{name}.json").read_text())
    assert hashlib.sha256(content).hexdigest() == PINNED[name] == card["sha256"]
    assert len(content) < 1e6
    network = pinned(name).eval()
    _, splits = command.emoji()
    assert set(splits["test"][1]) == set(FACTORS)
    assert command.accuracy(network, *splits["test"]) == pytest.approx(card["accuracy"]["test"], abs=0.006)
    maps = network.maps(splits["test"][0][:200])
    assert [list(x.shape[1:]) for x in maps] == [[24, 32, 32], [48, 16, 16], [64, 8, 8], [64, 4, 4]]
    assert (maps[-1].mean((2, 3)).std(0) > 1e-3).sum() >= 60  # nearly no feature is dead


def test_emoji_logits_are_those_of_the_factor():
    data = Emoji("portraits", label="gender")
    test = data.dataset("test").__getitems__(range(93))
    found = {factor: make(f"emoji-{factor}", 3, (32, 32)) for factor in FACTORS}
    logits = found["gender"](test["image"])["logits"]
    card = json.loads((WEIGHTS / "emoji.json").read_text())
    assert (logits.argmax(1) == test["label"]).double().mean() > card["accuracy"]["test"]["gender"] - 0.1
    outputs = {factor: extractor(test["image"]) for factor, extractor in found.items()}
    assert {factor: output["logits"].shape[1] for factor, output in outputs.items()} == FACTORS
    assert all(torch.equal(output["features"], outputs["tone"]["features"]) for output in outputs.values())
    assert {e.num_classes for e in found.values()} == {*FACTORS.values()} and found["tone"].name == "emoji-tone"


def test_training_features_are_other_than_those_of_scores():
    first, second = (pinned(name).state_dict() for name in ("emoji", "emoji-training"))
    assert not any(torch.equal(first[key], second[key]) for key in first if key.endswith("weight"))
    with pytest.raises(ValueError, match="no extractor 'emoji-training'"):
        make("emoji-training", 3, (32, 32))
    with pytest.raises(ValueError, match="no factor 'age'"):
        EmojiClassifier("age")


def test_changed_weights_are_refused(monkeypatch, tmp_path):
    content = bytearray((WEIGHTS / "digits.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "digits.safetensors").write_bytes(content)
    monkeypatch.setattr("ganzoo.evaluation.classifier.WEIGHTS", tmp_path)
    with pytest.raises(ValueError, match=r"digits\.safetensors has been changed \(sha256 .*, not 427e6761"):
        Classifier("digits")
    with pytest.raises(ValueError, match="no classifier 'digit'; did you mean 'digits'"):
        Classifier("digit")


@pytest.mark.slow
def test_training_command_is_deterministic(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(command.EPOCHS, "digits", 1)
    state = torch.get_rng_state()
    for folder in "ab":
        assert command.main(["digits", "--out", str(tmp_path / folder)]) == 0
        torch.rand(3)
        torch.set_num_threads(2)
    first, second = ((tmp_path / folder / "digits.safetensors").read_bytes() for folder in "ab")
    assert first == second and torch.get_num_threads() == 2
    card = json.loads((tmp_path / "a" / "digits.json").read_text())
    assert card == json.loads(capsys.readouterr().out.partition("}\n{")[0] + "}")
    assert hashlib.sha256(first).hexdigest() == card["sha256"]
    network = DigitNet(**ARCHITECTURES["digits"]).eval()
    network.load_state_dict(load(first))
    test = Digits(image_size=16).dataset("test").__getitems__(range(200))
    right = network(test["image"] / 127.5 - 1)[1].argmax(1) == test["label"]
    assert right.sum().item() / 200 == card["accuracy"]["test"]
    torch.set_rng_state(state)


def test_augmentation_moves_by_little_and_keeps_the_background():
    spot = torch.full((500, 1, 16, 16), -1.0)
    spot[:, :, 8, 8] = 1
    with torch.random.fork_rng():
        torch.manual_seed(0)
        moved = (command.moved(spot) + 1)[:, 0]
    mass = moved.sum((1, 2))
    centre = (moved.sum(1) @ torch.arange(16.0) / mass - 8).abs()
    assert centre.max() < 0.08 * 16 + 0.5 and centre.std() > 0.2  # it turns and scales, too
    assert (moved[:, 0] == 0).all() and moved.min() == 0


# Adapters


def test_stacked_is_the_classifier_on_each_channel():
    single = Classifier("digits")
    stacked = Stacked(single)
    images = pictures(5, 3, 16)
    outputs = stacked(images)
    parts = [single(images[:, [i]]) for i in range(3)]
    torch.testing.assert_close(outputs["features"], torch.cat([part["features"] for part in parts], 1))
    p = [part["logits"].softmax(1) for part in parts]
    for n in range(5):
        for a, b, c in ((0, 0, 0), (9, 9, 9), (1, 2, 3), (7, 0, 4)):
            joint = p[0][n, a] * p[1][n, b] * p[2][n, c]
            torch.testing.assert_close(outputs["logits"][n, 100 * a + 10 * b + c].exp(), joint)
    torch.testing.assert_close(outputs["logits"].exp().sum(1), torch.ones(5))
    assert (stacked.name, stacked.num_features, stacked.num_classes) == ("digits-stacked", 192, 1000)
    with pytest.raises(ValueError, match="1 channel can be stacked; digits-stacked is not one"):
        Stacked(stacked)


def test_grey_repeats_the_channel(inception):
    grey = Grey(inception)
    images = pictures(1, 1, 32)
    assert torch.equal(grey(images)["features"], inception(images.repeat(1, 3, 1, 1))["features"])
    assert (grey.name, grey.channels, grey.num_features, grey.num_classes) == ("other-inception-grey", 1, 2048, 1008)
    assert grey.fingerprint != inception.fingerprint
    with pytest.raises(ValueError, match="inception-grey reads 1 channels"):
        Grey(grey)


# Extractors by name


def test_make_returns_extractors_by_name(monkeypatch, inception, torchvisions):
    monkeypatch.setattr("ganzoo.evaluation.inception.fetch_inception", lambda: Path("random.pth"))
    monkeypatch.setattr(inception_file, "_inception", lambda path: {"random.pth": inception.network}[path.name])
    for name in extractors.NAMES:
        channels = 1 if "grey" in name or name in ARCHITECTURES else 3
        extractor = make(name, channels, (32, 32))
        assert (extractor.name, extractor.channels) == (name, channels)
        assert make(extractor, channels, (32, 32)) is extractor
    torchvisions("mobilenet_v3_small")
    grey = make("torchvision-mobilenet_v3_small-grey", 1, (32, 32))
    assert (grey.name, grey.num_features) == ("torchvision-mobilenet_v3_small-grey", 1024)
    assert grey(pictures(1, 1))["logits"].shape == (1, 1000)
    small = make(Small(), 1, (8, 8))
    assert (small.name, small.num_features) == ("Small", 144)


@pytest.mark.parametrize(
    ("spec", "channels", "message"),
    [
        ("inceptoin", 3, "no extractor 'inceptoin'; did you mean 'inception'"),
        ("", 3, "no extractor ''; choose from inception"),
        ("digits-grey", 1, "no extractor 'digits-grey'; did you mean 'digits"),
        ("torchvision-resnet18-stacked", 3, "no extractor 'torchvision-resnet18-stacked'"),
        ("torchvision-restnet18", 3, "no classifier 'restnet18'; did you mean .*'resnet18'"),
        ("inception", 1, "'inception' reads 3 channels, but the images have 1: use 'inception-grey'"),
        ("inception-clean", 1, "use 'inception-clean-grey'"),
        ("inception-clean-grey", 3, "reads 1 channels, but the images have 3: use 'inception-clean'"),
        ("torchvision-vgg16", 1, "use 'torchvision-vgg16-grey'"),
        ("digits", 3, "'digits' reads 1 channels, but the images have 3: use 'inception', or 'digits-stacked' for"),
        ("mnist5k-stacked", 1, "reads 3 channels, but the images have 1: use 'mnist5k'"),
        ("inception", 4, "the images have 4: use a network of your own"),
    ],
)
def test_make_refuses_bad_names_and_channels_before_it_downloads(offline, spec, channels, message):
    with pytest.raises(ValueError, match=message):
        make(spec, channels, (32, 32))


def test_make_refuses_mismatched_channels_and_weights(weights):
    with pytest.raises(ValueError, match="'digits' reads 1 channels, but the images have 3"):
        make(Classifier("digits"), 3, (32, 32))
    with pytest.raises(ValueError, match="weights is for Inception only"):
        make("digits", 1, (32, 32), weights)


# All extractors


def extractors_of(inception):
    return [inception, Classifier("digits"), Custom(Small(), "small", channels=1, image_size=(8, 8))]


def test_wrong_images_are_refused(inception):
    for extractor in extractors_of(inception):
        wrong = 4 - extractor.channels
        with pytest.raises(ValueError, match=f"reads {extractor.channels} channels, but the images have {wrong}"):
            extractor(pictures(1, wrong, 8))
        with pytest.raises(ValueError, match="takes uint8 images"):
            extractor(pictures(1, extractor.channels, 8) / 255)


def test_autocast_does_not_change_the_outputs(inception):
    for extractor in extractors_of(inception):
        images = pictures(1, extractor.channels, 8)
        plain = extractor(images)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = extractor(images)
        for key, value in plain.items():
            assert value.dtype == torch.float32 and not value.requires_grad
            assert torch.equal(mixed[key], value)


def test_the_global_random_state_is_unchanged(weights, torchvisions):
    torchvisions("mobilenet_v3_small")
    module = Small()
    state = torch.get_rng_state()
    for extractor in (
        Inception(weights),
        Torchvision("mobilenet_v3_small"),
        Classifier("mnist5k"),
        Custom(module, "small", channels=1, image_size=(8, 8)),
    ):
        extractor(pictures(1, extractor.channels, 8))
    assert torch.equal(torch.get_rng_state(), state)


def test_an_extractor_adds_nothing_to_the_state_of_a_model_or_callback():
    extractor = Classifier("digits")

    class Model(LightningModule):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))
            self.extractor = extractor

    class Keeper(Callback):
        def __init__(self):
            self.extractor = extractor

    model = Model()
    assert list(model.state_dict()) == ["weight"] and len(list(model.parameters())) == 1
    assert Keeper().state_dict() == {}
    before = extractor(pictures(4, 1, 16))["features"]
    state = copy.deepcopy(extractor.network.state_dict())
    model.train().double()
    assert torch.equal(extractor(pictures(4, 1, 16))["features"], before)
    assert all(torch.equal(value, state[name]) for name, value in extractor.network.state_dict().items())


def test_fingerprint_changes_with_every_part_of_the_weights():
    network = Classifier("digits").network
    base = fingerprint(network, "x")
    assert base == fingerprint(copy.deepcopy(network), "x") != fingerprint(network, "y")
    for name in ("body.0.weight", "body.1.running_var", "head.bias"):
        other = copy.deepcopy(network)
        tensor = other.state_dict()[name].flatten()
        tensor[-1] = torch.nextafter(tensor[-1], torch.tensor(torch.inf))
        assert fingerprint(other, "x") != base
    assert fingerprint(copy.deepcopy(network).double(), "x") != base
    assert fingerprint(nn.Sequential(network), "x") != base  # other parameter names


def test_fingerprint_depends_on_neither_threads_nor_memory_format():
    one = Classifier("digits")
    torch.set_num_threads(2)
    assert Classifier("digits").fingerprint == one.fingerprint
    network = copy.deepcopy(one.network).to(memory_format=torch.channels_last)
    assert not network.body[3].weight.is_contiguous()
    assert fingerprint(network, one.preprocessing) == one.fingerprint
    assert one.tag == f"digits@{one.fingerprint[:4]}"


def test_fingerprint_of_custom_depends_on_structure_and_preprocessing():
    def halved(x):
        return x / 255

    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU())
    other = nn.Sequential(nn.Flatten(), copy.deepcopy(module[1]), nn.Tanh())
    kinds = [(module, None), (module, halved), (other, None)]
    prints = {Custom(m, "m", channels=1, image_size=(8, 8), preprocess=p).fingerprint for m, p in kinds}
    assert len(prints) == 3


def test_fingerprint_of_custom_depends_on_its_outputs_to_three_digits():
    def scaled(by):
        class Net(nn.Module):
            def forward(self, x):
                return x.flatten(1) * by

        return Custom(Net(), "m", channels=1, image_size=(8, 8)).fingerprint

    state = torch.get_rng_state()
    assert scaled(1) == scaled(1 + 1e-5)  # such differences occur between thread counts and devices
    assert len({scaled(by) for by in (1, 1.02, 10, -1)}) == 4
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.gpu
def test_on_a_gpu_fingerprints_are_the_same_and_features_close(inception):
    for extractor in (copy.deepcopy(inception), Classifier("digits"), Stacked(Classifier("digits"))):
        images = pictures(2, extractor.channels, 16)
        expected = extractor(images)
        extractor.to("cuda")
        assert fingerprint(extractor.network, "") == fingerprint(extractor.network.cpu(), "")
        outputs = extractor.to("cuda")(images.cuda())
        for key, value in expected.items():
            torch.testing.assert_close(outputs[key].cpu(), value, rtol=1e-3, atol=1e-4)
