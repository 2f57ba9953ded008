"""FID's Inception, with weights that torch-fidelity converted."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ganzoo.evaluation.downloads import fetch, sha256, tensors
from ganzoo.evaluation.interfaces import Extractor, Outputs, fingerprint

INCEPTION = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
INCEPTION_HASH = "6726825d"  # first digits of the sha256


def fetch_inception() -> Path:
    """Path of Inception's weights in torch.hub's folder, shared with torchmetrics and torch-fidelity; downloaded if
    missing. With several processes, call it in one of them before the others.

    Raises:
        FileNotFoundError: the file is missing and could not be downloaded.
        ValueError: the file has another hash.
    """
    otherwise = ", give a copy of it with weights (--weights)"
    return fetch("Inception's weights", INCEPTION, INCEPTION_HASH, otherwise)


class Inception(Extractor):
    """The Inception v3 of 2015-12-05 (Szegedy et al. 2015, arXiv:1512.00567) that defines FID and IS, as ported by
    torch-fidelity.

    "features" [N, 2048] are the output of the last pooling, "logits" [N, 1008] that of the last layer without its bias,
    as in IS, "spatial" [N, 2023] the first 7 channels of `mixed_6/conv` at 17x17, as in sFID (Nash et al. 2021,
    arXiv:2103.03841).

    Args:
        weights: a file of weights; None for that of `fetch_inception`, downloaded if missing. With any other file,
            scores are named "other-inception".
        resize: "tf" as FID is defined, bit-identical to torch-fidelity; "clean" as in clean-fid (Parmar et al. 2022,
            arXiv:2104.11222), which Pillow computes on the CPU even for images on a GPU.

    Raises:
        FileNotFoundError: the file is missing, or could not be downloaded.
        ValueError: the file contains other weights.
    """

    channels, num_features, num_classes, spatial, pinned = 3, 2048, 1008, True, True
    citation = "inception-2015-12-05 (Szegedy et al. 2015), weights converted by torch-fidelity 0.2"

    def __init__(self, weights: str | Path | None = None, resize: Literal["tf", "clean"] = "tf") -> None:
        if resize not in RESIZES:
            raise ValueError(f"resize is {resize!r}; it takes 'tf' or 'clean'")
        path = fetch_inception() if weights is None else Path(weights).expanduser()
        self.network = _inception(path)
        own = "inception" if weights is None or sha256(path).startswith(INCEPTION_HASH) else "other-inception"
        self.name = own if resize == "tf" else f"{own}-clean"
        self._resize, words = RESIZES[resize]
        self.preprocessing = f"{words}, (x - 128) / 128"
        self.fingerprint = fingerprint(self.network, self.preprocessing)

    def extract(self, images: Tensor) -> Outputs:
        x = (self._resize(images) - 128) / 128
        outputs: Outputs = {}
        for name, layer in list(self.network.named_children())[:-1]:  # in order of use; the last is `fc`
            x = layer(x)
            if name == "Mixed_6d":
                outputs["spatial"] = x[:, :7].flatten(1)  # from branch1x1, the first in the concatenation
        outputs["features"] = x.flatten(1)
        outputs["logits"] = outputs["features"] @ self.network.get_parameter("fc.weight").T
        return outputs


def _inception(path: Path) -> nn.Module:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    if not path.is_file():
        raise FileNotFoundError(f"no weight file at {path}: check the path")
    file = io.BytesIO()  # given a path, torch-fidelity would unpickle any file
    torch.save(tensors(path, INCEPTION), file)
    file.seek(0)
    try:
        with torch.random.fork_rng(devices=[]):
            return FeatureExtractorInceptionV3("", ["2048"], feature_extractor_weights_path=file)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{path} does not contain the weights of FID's Inception: "
                         f"use a copy of {INCEPTION}") from error  # fmt: skip


def _resize_tf(images: Tensor) -> Tensor:
    """Bilinear as in TensorFlow 1: corners not aligned, no antialiasing, output pixel i samples at i * size / 299.

    The width is resized first, so that the intermediate image is computed once; the arithmetic per pixel is that of
    torch-fidelity.
    """
    x = images.float()
    for dim, shape in ((3, (-1,)), (2, (-1, 1))):
        size = x.shape[dim]
        at = torch.arange(299, dtype=torch.float32) * torch.tensor(size / 299, dtype=torch.float32)
        low = at.long()
        weight = (at - low).view(shape).to(x.device)
        before = x.index_select(dim, low.to(x.device))
        after = x.index_select(dim, (low + 1).clamp(max=size - 1).to(x.device))
        x = after.sub_(before).mul_(weight).add_(before)
    return x


def _resize_clean(images: Tensor) -> Tensor:
    """Pillow's bicubic filter, antialiased when downscaling, per channel in float; clipped but not rounded."""
    planes = [
        np.asarray(Image.fromarray(plane).resize((299, 299), Image.Resampling.BICUBIC))
        for plane in images.flatten(0, 1).float().cpu().numpy()
    ]
    return torch.from_numpy(np.stack(planes)).clamp(0, 255).unflatten(0, images.shape[:2]).to(images.device)


RESIZES: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "tf": (_resize_tf, "bilinear as in TensorFlow 1 to 299x299"),
    "clean": (_resize_clean, "Pillow's bicubic to 299x299 per channel in float, clipped to 0..255"),
}
