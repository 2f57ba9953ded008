"""Data sets that torchvision downloads and reads."""

from __future__ import annotations

import os
import pickle
import socket
from abc import abstractmethod
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ganzoo.core.limits import Pixels
from ganzoo.core.types import Batch
from ganzoo.data.base import GANDataModule, Split
from ganzoo.data.datasets import ArrayImages, Images, combine, digest_files
from ganzoo.data.decoding import open_picture, resize, square


class PictureImages(Images):
    """A torchvision data set that reads one PIL picture at a time, centre-cropped and resampled; no labels."""

    _labels = None

    def __init__(self, pictures: Any, image_size: int) -> None:
        self.pictures, self.image_size = pictures, image_size

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitems__(self, tickets: Sequence[int]) -> Batch:
        pictures = (self.picture(ticket % len(self)).convert("RGB") for ticket in tickets)
        return Batch(image=torch.stack([square(picture, self.image_size) for picture in pictures]))

    @abstractmethod
    def picture(self, i: int) -> Image.Image:
        """The i-th file, of a kind that is read: torchvision would open any that Pillow knows of."""


class CelebAImages(PictureImages):
    """CelebA's files."""

    def picture(self, i: int) -> Image.Image:
        return open_picture(self._folder() / self.pictures.filename[i])

    def _folder(self) -> Path:
        return Path(self.pictures.root) / self.pictures.base_folder / "img_align_celeba"

    def _digest(self) -> str:
        """Of the files' bytes: a hundred times faster than decoding them."""
        files = [self._folder() / name for name in self.pictures.filename]
        return combine("CelebA 1", self.image_size, *digest_files(files))


class LSUNImages(PictureImages):
    """LSUN's records."""

    def picture(self, i: int) -> Image.Image:
        (category,) = self.pictures.dbs
        with category.env.begin() as records:
            return open_picture(BytesIO(records.get(category.keys[i])))


class VisionData(GANDataModule):
    """Base of torchvision's data sets: a subclass of the same name as torchvision's gives the facts below.

    Args:
        image_size: Pixels per side, resampled where it is not the data set's own; None keeps that.
        root: Folder where the files are, or are downloaded to.
        download: Whether to download what is missing.
        **kwargs: See `GANDataModule`.

    Raises:
        RuntimeError: The data is not in `root` and could not be downloaded; raised when it is first read.
    """

    channels = 3
    num_classes: int | None = 10
    default_size = 32
    splits: dict[str, Any] = {"train": "train", "test": "test"}  # torchvision's words; val defaults to test
    split_argument = "split"

    def __init__(
        self, image_size: Pixels | None = None, root: str = "data", download: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.image_size = image_size or self.default_size
        self.root, self.download = os.path.expanduser(root), download

    def prepare_data(self) -> None:
        """Download what is missing."""
        for split in self.splits:
            self.dataset(split)  # type: ignore[arg-type]

    def make_dataset(self, split: Split) -> Images:
        arguments = {self.split_argument: self.splits.get(split, self.splits["test"])}
        if self.download:
            arguments["download"] = True
        timeout = socket.getdefaulttimeout()
        socket.setdefaulttimeout(10)  # seconds; torchvision sets none, and a dead network may swallow packets
        try:
            import torchvision

            data = getattr(torchvision.datasets, self.name)(self.root, **arguments)
        except Exception as error:  # torchvision raises anything, from URLError to lmdb.Error
            failed = "and could not be downloaded" if self.download else "and nothing was downloaded"
            raise RuntimeError(
                f"{self.name} was not found in {os.path.abspath(self.root)}, {failed}: {error}\n"
                f"Put its files there, or name their folder with root, {'or connect to the internet, ' * self.download}"
                "or use data that needs no files: --data Digits"
            ) from error
        finally:
            socket.setdefaulttimeout(timeout)
        return self.convert(data)

    def convert(self, data: Any) -> Images:
        """torchvision's arrays as uint8 in memory."""
        images = torch.as_tensor(data.data)
        if images.ndim == 3:  # [N, H, W]
            images = images[:, None]
        elif images.shape[-1] == 3:  # [N, H, W, C]
            images = images.permute(0, 3, 1, 2)
        labels: Tensor | None = None
        if self.num_classes is not None:
            labels = torch.as_tensor(data.targets if hasattr(data, "targets") else data.labels)
        return ArrayImages(resize(images, self.image_size).contiguous(), labels)


class MNIST(VisionData):
    """Handwritten digits, 28x28, one channel, 10 classes.

    train: the official 60,000; val and test: the official test split of 10,000.
    """

    channels = 1
    extractor = "mnist5k"
    default_size = 28
    splits = {"train": True, "test": False}
    split_argument = "train"


class FashionMNIST(MNIST):
    """Clothes, 28x28, one channel, 10 classes.

    train: the official 60,000; val and test: the official test split of 10,000.
    """

    extractor = "inception-grey"


class CIFAR10(VisionData):
    """Small photographs, 32x32, 10 classes.

    train: the official 50,000; val and test: the official test split of 10,000.
    """

    splits = {"train": True, "test": False}
    split_argument = "train"


class CIFAR100(CIFAR10):
    """Small photographs, 32x32, 100 classes.

    train: the official 50,000; val and test: the official test split of 10,000.
    """

    num_classes = 100


class SVHN(VisionData):
    """House numbers, 32x32, 10 classes.

    train: the official 73,257 (without "extra"); val and test: the official test split of 26,032.
    """


class STL10(VisionData):
    """Photographs, 96x96, without labels, as GANs use them.

    train: the official 5,000 training and 100,000 unlabelled images; val and test: the official test split of 8,000.
    """

    num_classes = None
    default_size = 96
    splits = {"train": "train+unlabeled", "test": "test"}


class CelebA(VisionData):
    """Aligned faces, 64x64 by default, without labels: the central 178x178 of each picture, resampled.

    The official splits: train 162,770, val 19,867, test 19,962. The download needs gdown.
    """

    num_classes = None
    default_size = 64
    splits = {"train": "train", "val": "valid", "test": "test"}

    def convert(self, data: Any) -> Images:
        """Read files as they are asked for."""
        return CelebAImages(data, self.image_size)  # the pictures are 178 wide: the largest square is the usual crop


class LSUN(VisionData):
    """One category of scenes, 64x64 by default, centre-cropped, without labels. Never downloaded; needs lmdb.

    train: the official `<category>_train_lmdb` in `root`; val and test: `<category>_val_lmdb` (300 images).
    torchvision writes its list of keys into the working directory, as `_cache_...`.

    Args:
        category: bedroom, bridge, church_outdoor, classroom, conference_room, dining_room, kitchen, living_room,
            restaurant or tower.
        image_size: Pixels per side.
        root: Folder that holds the `<category>_<split>_lmdb` folders.
        **kwargs: See `GANDataModule`.

    Raises:
        RuntimeError: The files are not there, or lmdb is not installed; raised when the data is first read.
    """

    num_classes = None
    split_argument = "classes"

    def __init__(self, category: str = "bedroom", image_size: Pixels = 64, root: str = "data", **kwargs: Any) -> None:
        super().__init__(image_size, root, download=False, **kwargs)
        self.splits = {"train": [f"{category}_train"], "test": [f"{category}_val"]}

    def make_dataset(self, split: Split) -> Images:
        for file in Path().glob("_cache_*"):
            with file.open("rb") as keys:
                try:
                    Keys(keys).load()
                except Exception as error:  # pickle raises anything
                    raise ValueError(f"{file.absolute()} is no list of LSUN's keys: delete it") from error
        return super().make_dataset(split)

    def convert(self, data: Any) -> Images:
        """Read records as they are asked for."""
        return LSUNImages(data, self.image_size)


class Keys(pickle.Unpickler):
    """Reads what consists of lists and bytes alone."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is neither")
