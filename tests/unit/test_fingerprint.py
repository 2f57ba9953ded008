"""Fingerprints change with one pixel, label or transform, and with nothing else; labels; extractors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ganzoo import data
from ganzoo.core.types import Batch
from ganzoo.data import ArrayImages, Digits, Flipped, GANDataModule, ImageFolder, Images, StackedMNIST
from ganzoo.data.vision import CelebAImages


class Walked(Images):
    """Only the methods that a subclass must define; counts reads."""

    def __init__(self, images: Tensor, labels: Tensor | None) -> None:
        self.images, self.given, self.reads = images, labels, 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, tickets: Sequence[int]) -> Batch:
        self.reads += 1
        index = list(tickets)
        return Batch(image=self.images[index]) | ({} if self.given is None else Batch(label=self.given[index]))  # type: ignore[return-value]


def noise(n: int = 150, dtype: torch.dtype = torch.uint8, shape: tuple[int, ...] = (3, 4, 6)) -> Tensor:
    return torch.randint(256, (n, *shape), generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("n", [0, 1, 64, 150])
def test_array_and_generic_fingerprints_agree(n: int, labelled: bool, dtype: torch.dtype) -> None:
    images, labels = noise(n, dtype), torch.arange(n, dtype=torch.int32) % 7 if labelled else None
    walked, array = Walked(images, labels), ArrayImages(images, labels)
    assert array.fingerprint() == walked.fingerprint() and len(array.fingerprint()) == 64
    turned = images.transpose(2, 3).contiguous().transpose(2, 3)  # the same images in another memory layout
    assert ArrayImages(turned, None if labels is None else labels.repeat_interleave(2)[::2]).fingerprint() == (
        array.fingerprint()
    )
    found, expected = walked.labels(), array.labels()
    if labels is None or n == 0:
        assert found is None
    else:
        assert found is not None and found.dtype == torch.int64 and found.tolist() == labels.tolist()
        assert expected is not None and torch.equal(found, expected)


def test_every_change_of_the_data_changes_the_fingerprint() -> None:
    images, labels = noise(), torch.arange(150) % 7
    pixel, label = images.clone(), labels.clone()
    pixel[149, 2, 3, 5] ^= 1
    label[149] += 1
    others = [
        (images, labels),
        (pixel, labels),
        (images, label),
        (images, None),
        (images.flip(0), labels),
        (images[:149], labels[:149]),
        (images.float(), labels),
        (images.reshape(150, 3, 6, 4), labels),
        (images.reshape(50, 9, 4, 6), None),
    ]
    assert len({ArrayImages(*other).fingerprint() for other in others}) == len(others)
    assert Flipped(ArrayImages(images), 0).fingerprint() != ArrayImages(images).fingerprint()


def test_fingerprint_and_labels_are_computed_once() -> None:
    walked = Walked(noise(130), torch.zeros(130))
    walked.fingerprint(), walked.labels()
    assert walked.reads == 2 * 3
    walked.fingerprint(), walked.labels()
    assert walked.reads == 2 * 3
    unlabelled = Walked(noise(130), None)
    assert unlabelled.labels() is None and unlabelled.reads == 1


def fill(folder: Path, n: int = 12) -> Path:
    rng = np.random.default_rng(0)
    for i in range(n):
        file = folder / ("cat" if i < 5 else "dog") / f"{i:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (10, 12, 3), dtype=np.uint8)).save(file)
    return folder


def fingerprint(folder: Path, **options: Any) -> str:
    options = {"image_size": 8, "val_fraction": 0, "num_workers": 0} | options
    return ImageFolder(str(folder), **options).dataset("train").fingerprint()


def test_folder_fingerprint_covers_files_and_preprocessing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path)
    monkeypatch.setattr("ganzoo.data.reading.Reading.__call__", None)  # nothing is decoded
    options: list[dict[str, Any]] = [
        {},
        {"image_size": 9},
        {"channels": 1},
        {"fit": "squeeze"},
        {"labels": True},
        {"val_fraction": 0.5},
    ]
    first = [fingerprint(tmp_path, **option) for option in options]
    assert len(set(first)) == len(options)
    assert fingerprint(tmp_path, seed=3, cache_gb=0, batch_size=2, flip=True, corrupt="skip") == first[0]
    (tmp_path / "cat/04.png").rename(tmp_path / "dog/04.png")  # same order, another class
    assert fingerprint(tmp_path) == first[0] and fingerprint(tmp_path, labels=True) != first[4]
    pixels = np.array(Image.open(tmp_path / "dog/11.png"))
    pixels[9, 11, 2] ^= 1
    Image.fromarray(pixels).save(tmp_path / "dog/11.png")
    assert fingerprint(tmp_path) != first[0]


def test_folder_labels_without_decoding_and_with_skipped_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path)
    file = tmp_path / "cat/04.png"
    options: dict[str, Any] = {"image_size": 8, "labels": True, "val_fraction": 0, "num_workers": 0}
    file.write_bytes(file.read_bytes()[:200])  # truncated: replaced by the next file, a dog
    skipping = ImageFolder(str(tmp_path), corrupt="skip", **options).dataset("train")
    with pytest.warns(UserWarning, match="04.png"):
        labels = skipping.labels()
    assert labels is not None and labels.tolist() == [0] * 4 + [1] * 8
    monkeypatch.setattr("ganzoo.data.reading.Reading.__call__", None)
    labels = ImageFolder(str(tmp_path), **options).dataset("train").labels()
    assert labels is not None and labels.tolist() == [0] * 5 + [1] * 7 and labels.dtype == torch.int64
    assert ImageFolder(str(tmp_path), **options | {"labels": False}).dataset("train").labels() is None


def test_celeba_fingerprint_depends_on_files_and_size(tmp_path: Path) -> None:
    folder = tmp_path / "celeba/img_align_celeba"
    folder.mkdir(parents=True)

    class Faces:
        root, base_folder, filename = str(tmp_path), "celeba", ["2.jpg", "1.jpg"]

        def __len__(self) -> int:
            return 2

    for name in "12":
        (folder / f"{name}.jpg").write_bytes(name.encode())
    first = CelebAImages(Faces(), 64)
    assert first.fingerprint() != CelebAImages(Faces(), 32).fingerprint() and first.labels() is None
    (folder / "1.jpg").write_bytes(b"3")
    assert CelebAImages(Faces(), 64).fingerprint() != first.fingerprint()


@pytest.mark.parametrize(
    "cls, extractor",
    [
        (Digits, "digits"),
        (data.MNIST5k, "mnist5k"),
        (data.MNIST, "mnist5k"),
        (data.FashionMNIST, "inception-grey"),
        (data.CIFAR10, "inception"),
        (data.CelebA, "inception"),
        (data.LSUN, "inception"),
        (data.Gaussians, None),
        (StackedMNIST, "mnist5k-stacked"),
    ],
)
def test_extractors(cls: type[GANDataModule], extractor: str | None) -> None:
    assert cls().extractor == extractor


def test_extractor_depends_on_the_channels_unless_set(tmp_path: Path) -> None:
    fill(tmp_path)
    assert ImageFolder(str(tmp_path)).extractor == "inception"
    assert ImageFolder(str(tmp_path), channels=1).extractor == "inception-grey"
    module = GANDataModule()
    module.channels, module.extractor = 1, "my_net"
    assert module.extractor == "my_net"
