"""Feature extractors by name: FID's Inception, torchvision's classifiers, ganzoo's own ones, and custom networks."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ganzoo.core.pixels import to_float
from ganzoo.core.text import closest
from ganzoo.evaluation.classifier import ARCHITECTURES, FACTORS, pinned, resized
from ganzoo.evaluation.determinism import seeded
from ganzoo.evaluation.downloads import fetch, tensors
from ganzoo.evaluation.inception import Inception
from ganzoo.evaluation.interfaces import Extractor, Outputs, fingerprint, probe

# Torchvision's and custom networks


class Torchvision(Extractor):
    """A torchvision classifier with its default weights and their transforms, most of which resize and crop the centre:
    of 232 pixels, resnet50 sees 224.

    "features" are the input of the last Linear layer, "logits" the output of the network.

    Args:
        name: in torchvision, such as "resnet50" or "vgg16".

    Raises:
        FileNotFoundError: the weights could not be downloaded.
        ValueError: torchvision has no such classifier, it has no Linear layer, or the weight file has another hash.
    """

    channels, pinned = 3, True

    def __init__(self, name: str) -> None:
        from torchvision import models

        known = models.list_models(module=models)
        if name not in known:
            raise ValueError(
                f"torchvision has no classifier {name!r}{closest(name, known, 'choose from ' + ', '.join(known))}"
            )
        weights: Any = models.get_model_weights(name).DEFAULT  # type: ignore[attr-defined]
        hashed = Path(weights.url).stem.rpartition("-")[2]
        tensors(fetch(f"{name}'s weights", weights.url, hashed), weights.url)  # torchvision would unpickle any file
        with torch.random.fork_rng(devices=[]):
            network = models.get_model(name, weights=weights)
        linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
        if not linear:
            raise ValueError(f"torchvision's {name} has no Linear layer, whose input would be the features; "
                             "choose another, such as resnet50")  # fmt: skip
        self.name, self.citation = f"torchvision-{name}", f"torchvision's {weights}"
        self.network = network.eval().requires_grad_(False)
        self._head, self._transform = linear[-1], weights.transforms()
        self.num_features, self.num_classes = self._head.in_features, self._head.out_features
        self.preprocessing = " ".join(repr(self._transform).split())
        self.fingerprint = fingerprint(network, self.preprocessing)

    def extract(self, images: Tensor) -> Outputs:
        read: list[Tensor] = []
        handle = self._head.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
        try:
            logits = self.network(self._transform(images))
        finally:
            handle.remove()
        return {"features": read[0], "logits": logits}


class Custom(Extractor):
    """A frozen copy of a network of the user's own.

    Args:
        module: returns features [N, d], or (features, logits), or a dict with "features" and any other outputs of
            metrics.
        name: in scores. The fingerprint is a hash of it, of weights and structure, and of the outputs for two fixed
            images, to three digits: code with other outputs has another fingerprint.
        channels: of the input.
        image_size: height and width of these two images, on which the network is run at once.
        preprocess: maps uint8 [N, C, H, W] to the module's input; by default, to [-1, 1].

    Raises:
        ValueError: the outputs have another form.
    """

    citation = ""

    def __init__(
        self,
        module: nn.Module,
        name: str,
        *,
        channels: int,
        image_size: tuple[int, int],
        preprocess: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.name, self.channels = name, channels
        self.network = copy.deepcopy(module).eval().requires_grad_(False)
        self._preprocess = preprocess or to_float
        words = (
            "x / 127.5 - 1" if preprocess is None else getattr(preprocess, "__qualname__", type(preprocess).__name__)
        )
        self.preprocessing = words
        weight = next(self.network.parameters(), torch.empty(0))
        with seeded(0, weight.device):
            outputs = self(probe(channels, image_size).to(weight.device))
        computed = [f"{name} {_three_digits(outputs[name])}" for name in sorted(outputs)]
        self.fingerprint = fingerprint(self.network, "\n".join([name, words, repr(self.network), *computed]))
        self.num_features = outputs["features"].shape[1]
        self.num_classes = outputs["logits"].shape[1] if "logits" in outputs else None
        self.spatial = "spatial" in outputs

    def extract(self, images: Tensor) -> Outputs:
        outputs = self._named(self.network(self._preprocess(images)))
        for key, output in outputs.items():
            shape = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
            if shape[:1] != [len(images)] or (key in ("features", "logits") and len(shape) != 2):
                raise ValueError(f"{self.name} returns {key} {shape} for {len(images)} images, not a tensor [N, d]")
        return {key: output.float() for key, output in outputs.items()}

    def _named(self, outputs: Any) -> dict[str, Any]:
        """The module's outputs as a dict with "features"."""
        if isinstance(outputs, Tensor):
            return {"features": outputs}
        if isinstance(outputs, tuple) and len(outputs) == 2:
            return {"features": outputs[0], "logits": outputs[1]}
        if isinstance(outputs, dict) and "features" in outputs:
            return outputs
        raise ValueError(f"{self.name} must return features [N, d], (features, logits) or a dict with 'features'; "
                         f"it returns a {type(outputs).__name__}")  # fmt: skip


def _three_digits(output: Tensor) -> str:
    """Root mean square, and mean in hundredths of it: the same on all devices and for any number of threads."""
    x = output.double().nan_to_num(0, 0, 0)
    size = x.square().mean().sqrt().item()
    return f"{size:.2e} {round(100 * x.mean().item() / (size or 1))}"


# The classifiers that come with ganzoo; `weights/<name>.json` records their training


class EmojiClassifier(Extractor):
    """The classifier of emoji that comes with ganzoo, trained on the training split of `Emoji`.

    "features" [N, 64] are the same for all factors.

    Args:
        factor: of the logits: "category", "subcategory", "tone", "gender" or "role".

    Raises:
        ValueError: the factor is unknown, or the weight file has been modified.
    """

    channels, num_features, pinned = 3, 64, True
    citation = "ganzoo/evaluation/weights/emoji.json"
    preprocessing = "bilinear, antialiased, to 32x32, x / 127.5 - 1"

    def __init__(self, factor: str) -> None:
        if factor not in FACTORS:
            raise ValueError(f"no factor {factor!r}{closest(factor, FACTORS, 'choose from ' + ', '.join(FACTORS))}")
        self.network = pinned("emoji").eval().requires_grad_(False)
        self.name, self._factor, self.num_classes = f"emoji-{factor}", factor, FACTORS[factor]
        self.fingerprint = fingerprint(self.network, self.preprocessing)

    def extract(self, images: Tensor) -> Outputs:
        features, logits = self.network(resized(images, 32))
        return {"features": features, "logits": logits[self._factor]}


class Classifier(Extractor):
    """A digit classifier that comes with ganzoo.

    Args:
        name: "digits", trained on the training split of `Digits`, or "mnist5k", on that of `MNIST5k`.

    Raises:
        ValueError: the name is unknown, or the weight file has been modified.
    """

    channels, num_classes, pinned = 1, 10, True

    def __init__(self, name: str) -> None:
        if name not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise ValueError(f"no classifier {name!r}{closest(name, ARCHITECTURES, f'choose from {known}')}")
        self._size = ARCHITECTURES[name]["size"]
        self.network = pinned(name).eval().requires_grad_(False)
        self.name, self.num_features = name, ARCHITECTURES[name]["num_features"]
        self.citation = f"ganzoo/evaluation/weights/{name}.json"
        self.preprocessing = f"bilinear, antialiased, to {self._size}x{self._size}, x / 127.5 - 1"
        self.fingerprint = fingerprint(self.network, self.preprocessing)

    def extract(self, images: Tensor) -> Outputs:
        features, logits = self.network(resized(images, self._size))
        return {"features": features, "logits": logits}


# Adapters for the number of channels


class Stacked(Extractor):
    """Applies a classifier of grey images to each of three channels, for Stacked MNIST.

    "features" [N, 3d] are concatenated; "logits" [N, K^3] are joint log-probabilities; for digits, class 100a + 10b + c
    means a, b, c in the channels in order.

    Args:
        extractor: reads 1 channel and has logits.

    Raises:
        ValueError: the extractor is not such a classifier.
    """

    channels = 3

    def __init__(self, extractor: Extractor) -> None:
        if extractor.channels != 1 or extractor.num_classes is None:
            raise ValueError(f"only a classifier with 1 channel can be stacked; {extractor.name} is not one")
        self._single, self.network, self.pinned = extractor, extractor.network, extractor.pinned
        self.name, self.citation = f"{extractor.name}-stacked", extractor.citation
        self.preprocessing = f"each channel by itself, {extractor.preprocessing}"
        self.fingerprint = hashlib.sha256(f"stacked {extractor.fingerprint}".encode()).hexdigest()
        self.num_features, self.num_classes = 3 * extractor.num_features, extractor.num_classes**3

    def extract(self, images: Tensor) -> Outputs:
        outputs = self._single.extract(images.flatten(0, 1)[:, None])
        a, b, c = outputs["logits"].log_softmax(1).unflatten(0, (-1, 3)).unbind(1)
        joint = a[:, :, None, None] + b[:, None, :, None] + c[:, None, None, :]
        return {"features": outputs["features"].reshape(len(images), -1), "logits": joint.flatten(1)}


class Grey(Extractor):
    """Applies an extractor of colour images to grey ones by repeating the channel.

    Args:
        extractor: reads 3 channels.

    Raises:
        ValueError: the extractor reads another number of channels.
    """

    channels = 1

    def __init__(self, extractor: Extractor) -> None:
        if extractor.channels != 3:
            raise ValueError(f"{extractor.name} reads {extractor.channels} channels; Grey needs an extractor with 3")
        self._colour, self.network = extractor, extractor.network
        self.spatial, self.pinned = extractor.spatial, extractor.pinned
        self.name, self.citation = f"{extractor.name}-grey", extractor.citation
        self.preprocessing = f"the channel three times, {extractor.preprocessing}"
        self.fingerprint = hashlib.sha256(f"grey {extractor.fingerprint}".encode()).hexdigest()
        self.num_features, self.num_classes = extractor.num_features, extractor.num_classes

    def extract(self, images: Tensor) -> Outputs:
        return self._colour.extract(images.expand(-1, 3, -1, -1))


# By name

NAMES = (
    *("inception", "inception-clean", "inception-grey", "inception-clean-grey"),
    *("digits", "digits-stacked", "mnist5k", "mnist5k-stacked"),
    *(f"emoji-{factor}" for factor in FACTORS),
)


def make(
    spec: str | Extractor | nn.Module, channels: int, image_size: tuple[int, int], weights: str | Path | None = None
) -> Extractor:
    """An extractor by name, or from a module.

    Args:
        spec: one of `NAMES`, "torchvision-NAME" or "torchvision-NAME-grey", an extractor, or a module, which becomes a
            `Custom` named after its class.
        channels: of the images.
        image_size: height and width of the images.
        weights: a file of Inception's weights.

    Raises:
        FileNotFoundError: weights are missing and could not be downloaded.
        ValueError: the name is unknown, the extractor reads another number of channels, or weights are given but
            it is not Inception.
    """
    if weights is not None and not (isinstance(spec, str) and spec.startswith("inception")):
        raise ValueError("weights is for Inception only; other extractors have their own: leave it out")
    if isinstance(spec, nn.Module):
        return Custom(spec, type(spec).__name__, channels=channels, image_size=image_size)
    if isinstance(spec, Extractor):
        _check_channels(spec.name, spec.channels, channels)
        return spec
    return _by_name(spec, channels, weights)


def _by_name(name: str, channels: int, weights: str | Path | None) -> Extractor:
    base, _, adapter = name.rpartition("-")
    if adapter not in ("grey", "stacked"):
        base, adapter = name, ""
    if name not in NAMES and not (base.startswith("torchvision-") and adapter != "stacked"):
        known = [*NAMES, "torchvision-resnet50"]
        raise ValueError(f"no extractor {name!r}{closest(name, known, 'choose from ' + ', '.join(known))}")
    _check_channels(name, 1 if adapter == "grey" or (not adapter and base in ARCHITECTURES) else 3, channels)
    if base.startswith("inception"):
        extractor: Extractor = Inception(weights, "clean" if base.endswith("clean") else "tf")
    elif base in ARCHITECTURES:
        extractor = Classifier(base)
    elif base.startswith("emoji-"):
        extractor = EmojiClassifier(base.removeprefix("emoji-"))
    else:
        extractor = Torchvision(base.removeprefix("torchvision-"))
    return {"grey": Grey, "stacked": Stacked}[adapter](extractor) if adapter else extractor


def _check_channels(name: str, reads: int, channels: int) -> None:
    if reads == channels:
        return
    cures = {(3, 1): f"use '{name}-grey'", (1, 3): "use 'inception'"} if not name.startswith("emoji") else {}
    if name.endswith(("-grey", "-stacked")):
        cures = dict.fromkeys(cures, f"use '{name.rpartition('-')[0]}'")
    elif name in ARCHITECTURES:
        cures[1, 3] += f", or '{name}-stacked' for stacked digits"
    cure = cures.get((reads, channels), "use a network of your own")
    raise ValueError(f"the extractor {name!r} reads {reads} channels, but the images have {channels}: {cure}")
