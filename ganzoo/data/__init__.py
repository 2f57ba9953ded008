"""Data modules: `Digits()`, `CIFAR10()`, `ImageFolder("my/pictures")` and others; usable without a Trainer."""

from ganzoo.data.base import GANDataModule
from ganzoo.data.datasets import ArrayImages, Flipped, Images
from ganzoo.data.derived import Pairs, SemiSupervised
from ganzoo.data.digits import Digits, MNIST5k
from ganzoo.data.emoji import Emoji, Tones
from ganzoo.data.folder import ImageFolder
from ganzoo.data.gaussians import Gaussians
from ganzoo.data.inspection import FolderReport, scan
from ganzoo.data.order import Loader, SequentialLoader
from ganzoo.data.paired import PairedFolder, UnpairedFolder
from ganzoo.data.pictures import Pictures
from ganzoo.data.reading import Reading
from ganzoo.data.shards import Shards
from ganzoo.data.stacked import StackedImages, StackedMNIST
from ganzoo.data.vision import CIFAR10, CIFAR100, LSUN, MNIST, STL10, SVHN, CelebA, FashionMNIST

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "LSUN",
    "MNIST",
    "STL10",
    "SVHN",
    "ArrayImages",
    "CelebA",
    "Digits",
    "Emoji",
    "FashionMNIST",
    "Flipped",
    "FolderReport",
    "GANDataModule",
    "Gaussians",
    "ImageFolder",
    "Images",
    "Loader",
    "MNIST5k",
    "PairedFolder",
    "Pairs",
    "Pictures",
    "Reading",
    "SemiSupervised",
    "SequentialLoader",
    "Shards",
    "StackedImages",
    "StackedMNIST",
    "Tones",
    "UnpairedFolder",
    "scan",
]
