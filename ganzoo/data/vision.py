"""Data sets that torchvision downloads and reads."""

from __future__ import annotations

import os
import pickle
import string
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ganzoo.core.files import open_file, socket_timeout
from ganzoo.core.limits import Share, Size
from ganzoo.core.types import Batch
from ganzoo.data.base import GANDataModule, Split
from ganzoo.data.datasets import ArrayImages, Chosen, Images, combine, digest_files
from ganzoo.data.decoding import fitted, open_picture, resize
from ganzoo.data.reading import Reading, squeezed


class PictureImages(Images):
    """A torchvision data set of single PIL pictures, centre-cropped and resampled; no labels."""

    _labels = None

    def __init__(self, pictures: Any, image_size: Size) -> None:
        self.pictures, self.image_size = pictures, image_size

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitems__(self, tickets: Sequence[int]) -> Batch:
        pictures = (self.picture(ticket % len(self)) for ticket in tickets)
        return Batch(image=torch.stack([fitted(picture, self.image_size) for picture in pictures]))

    @abstractmethod
    def picture(self, i: int) -> Image.Image:
        """Picture i in colour, read with `open_picture`: torchvision would accept all of Pillow's formats."""


class CelebAImages(PictureImages):
    """The pictures of CelebA."""

    def picture(self, i: int) -> Image.Image:
        with open_picture(self._folder() / self.pictures.filename[i]) as picture:
            return picture.convert("RGB")

    def _folder(self) -> Path:
        return Path(self.pictures.root) / self.pictures.base_folder / "img_align_celeba"

    def _digest(self) -> str:
        """Hashes the files' bytes: a hundred times faster than decoding them."""
        files = [self._folder() / name for name in self.pictures.filename]
        return combine("CelebA 1", self.image_size, *digest_files(files))


class LSUNImages(PictureImages):
    """The pictures of an LSUN category."""

    def picture(self, i: int) -> Image.Image:
        (category,) = self.pictures.dbs
        with category.env.begin() as records, open_picture(BytesIO(records.get(category.keys[i]))) as picture:
            return picture.convert("RGB")


class VisionData(GANDataModule):
    """Base of torchvision's data sets: a subclass is named like torchvision's class and sets the class attributes.

    Args:
        image_size: Pixels per side after resampling, or [height, width]; None keeps the data set's own size.
        root: Folder of the files, also for downloads.
        download: Whether to download missing files.
        **kwargs: See `GANDataModule`.

    Raises:
        RuntimeError: The data is not in `root` and could not be downloaded; raised when it is first read.
    """

    channels = 3
    num_classes: int | None = 10
    default_size = 32
    cropped = False  # whether it consists of files, cropped and resampled on access, instead of square arrays
    splits: dict[Split, Any] = {"train": "train", "test": "test"}  # torchvision's names
    split_argument = "split"

    def __init__(
        self, image_size: Size | None = None, root: str = "data", download: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.image_size = image_size or self.default_size
        whole = squeezed(self.image_size, self.channels)
        self.readings = {"image": Reading(self.image_size, self.channels)} if self.cropped else whole
        self.root, self.download = os.path.expanduser(root), download

    def prepare_data(self) -> None:
        """Download missing files."""
        for split in self.splits:
            self.dataset(split)

    def make_dataset(self, split: Split) -> Images:
        return self.official(split)

    def official(self, split: Split) -> Images:
        """A split as defined by the data set's authors."""
        arguments = {self.split_argument: self.splits[split]}
        if self.download:
            arguments["download"] = True
        try:
            import torchvision

            with socket_timeout():
                data = getattr(torchvision.datasets, self.name)(self.root, **arguments)
        except Exception as error:  # torchvision raises many types, from URLError to lmdb.Error
            failed = "and could not be downloaded" if self.download else "and was not downloaded"
            raise RuntimeError(
                f"{self.name} was not found in {os.path.abspath(self.root)}, {failed}: {error}\n"
                f"Put its files there, or set root to their folder, {'or connect to the internet, ' * self.download}"
                "or use data that needs no files: --data Digits"
            ) from error
        return self.convert(data)

    def convert(self, data: Any) -> Images:
        """torchvision's arrays as uint8 images in memory."""
        images = torch.as_tensor(data.data)
        if images.ndim == 3:  # [N, H, W]
            images = images[:, None]
        elif images.shape[-1] == 3:  # [N, H, W, C]
            images = images.permute(0, 3, 1, 2)
        labels: Tensor | None = None
        if self.num_classes is not None:
            labels = torch.as_tensor(data.targets if hasattr(data, "targets") else data.labels)
        return ArrayImages(resize(images, self.image_size).contiguous(), labels)


class Divided(VisionData):
    """Base of data sets with only train and test: val is the end of the official training images.

    Args:
        image_size: Pixels per side after resampling, or [height, width]; None keeps the data set's own size.
        root: Folder of the files, also for downloads.
        download: Whether to download missing files.
        val_fraction: Share of the official training images, from the end, that form val, 0 to 1; None for the data
            set's default. With 0, val is empty, as in papers that use all of these images for training and scores.
        **kwargs: See `GANDataModule`.
    """

    held_out = 0.1  # the default val_fraction

    def __init__(
        self,
        image_size: Size | None = None,
        root: str = "data",
        download: bool = True,
        val_fraction: Share | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_size, root, download, **kwargs)
        self.val_fraction = self.held_out if val_fraction is None else val_fraction

    def make_dataset(self, split: Split) -> Images:
        if split == "test":
            return super().make_dataset("test")
        whole = self._whole
        kept = len(whole) - round(self.val_fraction * len(whole))
        return subrange(whole, range(kept) if split == "train" else range(kept, len(whole)))

    @cached_property
    def _whole(self) -> Images:
        """The official training images, read once for both train and val."""
        return self.official("train")


def subrange(data: Images, members: range) -> Images:
    """A contiguous range of images; a view if they are in memory."""
    if not isinstance(data, ArrayImages):
        return Chosen(data, members)
    span, labels = slice(members.start, members.stop), data.labels()
    return ArrayImages(data.images[span], None if labels is None else labels[span])


class MNIST(Divided):
    """Handwritten digits, 28x28, one channel, 10 classes.

    train: the first 50,000 of the official 60,000; val: their last 10,000, as in the code of Goodfellow et al. (2014);
    test: the official 10,000.

    Args:
        image_size: Pixels per side after resampling, or [height, width]; None: the data set's own size.
        root: Folder of the files, also for downloads.
        download: Whether to download missing files.
        val_fraction: Share of the official training images, from the end, that form val; None: as above.
        **kwargs: See `GANDataModule`.

    Raises:
        RuntimeError: The files are not in `root` and could not be downloaded; raised when the data is first read.
    """

    channels = 1
    extractor = "mnist5k"
    default_size = 28
    splits = {"train": True, "test": False}
    split_argument = "train"
    held_out = 1 / 6


class FashionMNIST(MNIST):
    """Clothes, 28x28, one channel, 10 classes.

    train: the first 50,000 of the official 60,000; val: their last 10,000; test: the official 10,000.

    Arguments and errors are those of `MNIST`.
    """

    extractor = "inception-grey"


class CIFAR10(Divided):
    """Small photographs, 32x32, three channels, 10 classes.

    train: the first 45,000 of the official 50,000; val: their last 5,000; test: the official 10,000. Published scores
    use all 50,000: `val_fraction` 0.

    Arguments and errors are those of `MNIST`.
    """

    splits = {"train": True, "test": False}
    split_argument = "train"


class CIFAR100(CIFAR10):
    """Small photographs, 32x32, three channels, 100 classes.

    train: the first 45,000 of the official 50,000; val: their last 5,000; test: the official 10,000.

    Arguments and errors are those of `MNIST`.
    """

    num_classes = 100


class SVHN(Divided):
    """House numbers, 32x32, three channels, 10 classes.

    train: the first 65,931 of the official 73,257 (without "extra"); val: their last 7,326; test: the official 26,032.

    Arguments and errors are those of `MNIST`.
    """


class STL10(Divided):
    """Photographs, 96x96, three channels, without labels, as is usual for GANs.

    train: the official 5,000 training images and the first 89,500 of the 100,000 unlabelled ones; val: the last 10,500
    of these; test: the official 8,000.

    Arguments and errors are those of `MNIST`.
    """

    num_classes = None
    default_size = 96
    splits = {"train": "train+unlabeled", "test": "test"}


class CelebA(VisionData):
    """Aligned faces, 64x64 by default, three channels, without labels: the central 178x178 pixels, resampled.

    The official splits: train 162,770, val 19,867, test 19,962. The download requires gdown.

    Arguments and errors are those of `MNIST`, without `val_fraction`; `image_size` is 64 by default.
    """

    num_classes = None
    default_size = 64
    cropped = True
    splits = {"train": "train", "val": "valid", "test": "test"}

    def convert(self, data: Any) -> Images:
        """Pictures read on access."""
        return CelebAImages(data, self.image_size)  # 178 pixels wide: the largest square is the usual crop


class LSUN(Divided):
    """One category of scenes, 64x64 by default, centre-cropped, without labels. Not downloaded; requires lmdb.

    train and val: `<category>_train_lmdb` in `root`, the last hundredth of which is val by default; test: the official
    `<category>_val_lmdb`, 300 images. torchvision writes its list of keys to `_cache_...` in the working directory.

    Args:
        category: bedroom, bridge, church_outdoor, classroom, conference_room, dining_room, kitchen, living_room,
            restaurant or tower.
        image_size: Pixels per side, or [height, width].
        root: Folder of the `<category>_<split>_lmdb` folders.
        val_fraction: Share of the official training images, from the end, that form val, 0 to 1.
        **kwargs: See `GANDataModule`.

    Raises:
        RuntimeError: The files are missing, or lmdb is not installed; raised when the data is first read.
    """

    num_classes = None
    cropped = True
    split_argument = "classes"

    def __init__(
        self,
        category: str = "bedroom",
        image_size: Size = 64,
        root: str = "data",
        val_fraction: Share = 0.01,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_size, root, download=False, val_fraction=val_fraction, **kwargs)
        self.splits = {"train": [f"{category}_train"], "test": [f"{category}_val"]}

    def official(self, split: Split) -> Images:
        root = os.path.join(self.root, f"{self.splits[split][0]}_lmdb")
        file = Path("_cache_" + "".join(c for c in root if c in string.ascii_letters))  # as torchvision names it
        if file.is_file():
            with open_file(file) as keys:
                try:
                    Keys(keys).load()
                except Exception as error:  # pickle raises many types
                    raise ValueError(f"{file.absolute()} is not a list of LSUN keys: delete it") from error
        return super().official(split)

    def convert(self, data: Any) -> Images:
        """Records read on access."""
        return LSUNImages(data, self.image_size)


class Keys(pickle.Unpickler):
    """An unpickler that accepts only lists and bytes."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is neither a list nor bytes")
