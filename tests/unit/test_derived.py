"""Derived data: sources, halves and order of `Pairs`, and the labelled images of `SemiSupervised`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from PIL import Image
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from ganzoo.core.types import Batch
from ganzoo.data import (
    ArrayImages,
    Digits,
    GANDataModule,
    Gaussians,
    ImageFolder,
    Images,
    Loader,
    Pairs,
    SemiSupervised,
)
from ganzoo.data.base import Split
from ganzoo.data.derived import edges, grey, mosaic


class Numbered(GANDataModule):
    """n images whose left column has their index as brightness; classes 0, 0, 0, 1, 1, 1, 2, 2, 2, 0, ..."""

    num_classes = 3

    def __init__(self, n: int = 30, channels: int = 1, image_size: int = 6, dtype: torch.dtype = torch.uint8) -> None:
        super().__init__(batch_size=7, flip=True)
        self.n, self.channels, self.image_size, self.dtype = n, channels, image_size, dtype

    def make_dataset(self, split: Split) -> Images:
        n = self.n if split == "train" else 6
        images = torch.zeros(n, self.channels, self.image_size, self.image_size, dtype=torch.uint8)
        images[..., 0] = torch.arange(n)[:, None, None]
        labels = torch.arange(n) // 3 % 3
        return ArrayImages(images if self.dtype == torch.uint8 else images / 127.5 - 1, labels)


def numbers(images: Tensor) -> list[int]:
    return images[:, 0, 0].amax(-1).tolist()


def loader(module: GANDataModule, rank: int = 0, world_size: int = 1, num_workers: int = 0) -> Loader:
    data = module.training_images(3)
    return Loader(data, 4, seed=3, rank=rank, world_size=world_size, num_workers=num_workers)


def epochs(loader: Loader, n: int = 2) -> Iterator[Batch]:
    for epoch in range(n):
        loader.set_epoch(epoch)
        yield from loader


def same(a: Batch, b: Batch) -> bool:
    return a.keys() == b.keys() and all(map(torch.equal, tree_leaves(dict(a)), tree_leaves(dict(b))))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Pairs(Numbered(), flip=True),
        lambda: Pairs(Numbered(), paired=False, flip=True),
        lambda: SemiSupervised(Numbered(), 2, flip=True),
    ],
)
def test_batches_do_not_depend_on_processes_workers_or_interruptions(make: Any) -> None:
    whole = list(epochs(loader(make())))
    parts = [list(epochs(loader(make(), rank, 2))) for rank in range(2)]
    for batch, *halves in zip(whole, *parts, strict=True):
        assert same(batch, tree_map(lambda *t: torch.cat(t), *halves))
    assert all(map(same, whole, epochs(loader(make(), num_workers=2))))
    again = loader(make())
    again.load_state_dict({"epoch": 1, "batch": 1})
    rest = list(again)
    assert all(map(same, whole[-len(rest) :], rest)) and len(rest) == len(whole) // 2 - 1 > 0
    assert not any(map(same, whole, Loader(make().training_images(4), 4, seed=4)))


def test_attributes_are_those_of_the_data() -> None:
    module = Pairs(Digits(image_size=16, batch_size=3), batch_size=5)
    assert (module.image_size, module.channels, module.num_classes, module.extractor) == (16, 1, 10, "digits")
    assert (module.name, module.source_channels, module.batch_size) == ("Digits-edges", 1, 5)
    batch = next(iter(module.train_dataloader()))
    assert batch["image"].shape == batch["source"].shape == (5, 1, 16, 16) and batch["label"].shape == (5,)
    assert batch["source"].unique().tolist() == [0, 255]
    data, digits = module.dataset("train"), Digits(image_size=16).dataset("train")
    assert torch.equal(data[5]["image"], digits[5]["image"]) and len(data) == len(digits)
    labels = data.labels()
    assert labels is not None and torch.equal(labels, digits.labels())  # type: ignore[arg-type]
    assert Pairs(Numbered(channels=3), "low-resolution", factor=2).source_channels == 3
    assert Pairs(Numbered(channels=3), "grey", paired=False).name == "Numbered-grey-unpaired"
    scaled = module.on_after_batch_transfer(batch, 0)
    assert scaled["source"].unique().tolist() == [-1, 1]


def test_prepare_data_is_passed_on() -> None:
    class Downloaded(Numbered):
        done = 0

        def prepare_data(self) -> None:
            self.done += 1

    for cls in (Pairs, SemiSupervised):
        data = Downloaded()
        cls(data).prepare_data()
        assert data.done == 1


def test_edges_of_a_square_are_thin_and_closed() -> None:
    image = torch.full((1, 1, 12, 12), 20, dtype=torch.uint8)
    image[..., 3:9, 4:10] = 200
    drawn = edges(image)[0, 0] == 0
    assert drawn.any(1).nonzero()[:, 0].tolist() in ([*range(2, 9)], [*range(3, 10)], [*range(3, 9)], [*range(2, 10)])
    assert drawn[6].sum() == 2 and drawn[:, 7].sum() == 2  # a single pixel thick, on both sides
    assert 18 <= drawn.sum() <= 24 and not drawn[5:7, 6:8].any()
    assert (edges(torch.full((1, 1, 5, 5), 77, dtype=torch.uint8)) == 255).all()  # no edges
    weak = torch.full((1, 1, 12, 12), 20, dtype=torch.uint8)
    weak[..., 3:9, 4:10] = 24
    assert torch.equal(edges(weak)[0, 0] == 0, drawn)  # thresholds are relative to the image


def test_edges_of_a_disc_lie_on_a_circle() -> None:
    disc = ((torch.arange(17)[:, None] - 8) ** 2 + (torch.arange(17) - 8) ** 2 < 36)[None, None].byte() * 200
    drawn = (edges(disc) == 0)[0, 0]
    radius = ((drawn.nonzero() - 8).float().norm(dim=1) - 6).abs()
    assert radius.max() < 1.2 and 28 <= drawn.sum() <= 50
    colour = torch.cat([disc, torch.zeros_like(disc), disc // 2], 1)
    assert torch.equal(edges(colour), edges(grey(colour)))


def test_sources_do_not_depend_on_the_batch() -> None:
    images = torch.randint(256, (33, 3, 20, 20), generator=torch.Generator().manual_seed(0)).byte()
    for draw in (edges, grey, lambda x: mosaic(x, 5)):
        whole = draw(images)
        assert all(torch.equal(draw(images[i : i + 1])[0], whole[i]) for i in range(33))


def test_edges_of_digits() -> None:
    drawn = edges(Digits(image_size=16).dataset("train").__getitems__(range(200))["image"]) == 0
    share = drawn.float().mean((1, 2, 3))
    assert share.min() > 0.08 and share.max() < 0.4


def test_grey_and_mosaic() -> None:
    colours = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 20, 30]], dtype=torch.uint8)[:, :, None, None]
    assert grey(colours).flatten().tolist() == [76, 150, 29, 18]
    image = torch.arange(16, dtype=torch.uint8).reshape(1, 1, 4, 4)
    rows = [[2, 2, 4, 4], [2, 2, 4, 4], [10, 10, 12, 12], [10, 10, 12, 12]]  # 2.5, 4.5 ... are rounded to even
    assert mosaic(image, 2)[0, 0].tolist() == rows


def test_float_images_have_the_same_sources() -> None:
    module = Pairs(Numbered(dtype=torch.float32), "low-resolution", factor=3)
    expected = Pairs(Numbered(), "low-resolution", factor=3)
    batch, other = (m.dataset("train").__getitems__([7, 8]) for m in (module, expected))
    assert batch["image"].dtype == torch.float32 and torch.equal(batch["source"], other["source"])


def test_unpaired_halves_are_disjoint() -> None:
    module = Pairs(Numbered(31), "low-resolution", paired=False, factor=6)  # the mean of a sixth of the pixels
    fixed = module.dataset("train").__getitems__(range(16))
    images, sources = numbers(fixed["image"]), {round(6 * m) for m in numbers(fixed["source"])}
    assert len(module.dataset("train")) == 16 and len(set(images)) == 16
    assert fixed["label"].tolist() == [i // 3 % 3 for i in images]
    edges = Pairs(Numbered(31), paired=False)
    assert edges.dataset("train").__getitems__(range(16))["image"].equal(fixed["image"])
    halves = module._halves(Numbered(31).dataset("train"))
    theirs = numbers(halves[1].data.__getitems__(range(15))["image"])  # type: ignore[attr-defined]
    assert not set(theirs) & set(images) and len(set(theirs)) == 15
    assert sources == {6 * (n // 6) for n in theirs}
    seen = [torch.cat([b["image"] for b in Loader(edges.training_images(s), 4, seed=s)]) for s in (0, 1)]
    assert [set(numbers(part)) for part in seen] == [set(images)] * 2 and not torch.equal(*seen)
    val = module.dataset("val").__getitems__(range(6))
    assert len(module.dataset("val")) == 6 and torch.equal(val["source"], mosaic(val["image"], 6))


def test_unpaired_sources_are_shuffled_independently() -> None:
    class Bright(Numbered):
        def make_dataset(self, split: Split) -> Images:
            return ArrayImages(torch.arange(30, dtype=torch.uint8)[:, None, None, None].expand(30, 1, 6, 6))

    module = Pairs(Bright(), "low-resolution", paired=False, factor=2)
    pairs = [
        list(zip(numbers(batch["image"]), numbers(batch["source"]), strict=True))
        for batch in epochs(Loader(module.training_images(0), 15), 3)
    ]
    assert all(len(set(source for _, source in epoch)) == 15 for epoch in pairs)  # each once in an epoch
    assert len({pair for epoch in pairs for pair in epoch}) > 35  # partners change
    for epoch in pairs:
        assert not {image for image, _ in epoch} & {source for _, source in epoch}


def test_image_and_source_are_flipped_together() -> None:
    data = Pairs(Digits(image_size=16), flip=True).training_images(0)
    plain = Pairs(Digits(image_size=16)).training_images(0)
    batch, straight = (d.__getitems__(range(40)) for d in (data, plain))
    flipped = [not torch.equal(a, b) for a, b in zip(batch["image"], straight["image"], strict=True)]
    assert 8 < sum(flipped) < 32
    for key in ("image", "source"):
        turned = [s.flip(-1) if f else s for s, f in zip(straight[key], flipped, strict=True)]  # type: ignore
        assert torch.equal(batch[key], torch.stack(turned))  # type: ignore[literal-required]


def test_fingerprints() -> None:
    modules = [
        Numbered(),
        Pairs(Numbered()),
        Pairs(Numbered(), "low-resolution", factor=2),
        Pairs(Numbered(), "low-resolution", factor=3),
        Pairs(Numbered(), paired=False),
        Pairs(Numbered(29)),
    ]
    found = [module.dataset("train").fingerprint() for module in modules]
    assert len(set(found)) == len(found)
    assert Pairs(Numbered(), flip=True, seed=1, batch_size=2).dataset("train").fingerprint() == found[1]
    assert SemiSupervised(Numbered(), 2).dataset("train").fingerprint() == found[0]

    class Walked(Images):  # the generic fingerprint includes sources
        def __init__(self, source: int) -> None:
            self.source = source

        def __len__(self) -> int:
            return 3

        def __getitems__(self, tickets: Any) -> Batch:
            image = torch.zeros(len(tickets), 1, 2, 2)
            return Batch(image=image, source=image + self.source)

    assert Walked(0).fingerprint() != Walked(1).fingerprint()


def test_labelled_images_are_balanced_and_depend_on_the_label_seed() -> None:
    module = SemiSupervised(Numbered(), 2)
    labels = torch.arange(30) // 3 % 3
    assert sorted(labels[module.members].tolist()) == [0, 0, 1, 1, 2, 2]
    assert module.members == SemiSupervised(Numbered(), 2, seed=9, batch_size=1).members
    assert len({tuple(SemiSupervised(Numbered(), 2, label_seed=s).members) for s in range(5)}) == 5
    assert set(module.members) <= set(SemiSupervised(Numbered(), 4).members)
    assert (module.name, module.num_classes, module.extractor) == ("Numbered-2-labels", 3, "inception-grey")


def test_labelled_batches() -> None:
    module = SemiSupervised(Numbered(), 2, batch_size=7, seed=0)
    batches = list(module.train_dataloader())
    assert [set(batch) for batch in batches] == [{"image", "labelled"}] * 4  # the other labels are hidden
    met: list[int] = []
    for batch in batches:
        images, labels = batch["labelled"]
        assert images.shape == batch["image"].shape and images.dtype == torch.uint8
        assert labels.tolist() == [i // 3 % 3 for i in numbers(images)]
        met += numbers(images)
    passes = [met[start : start + 6] for start in range(0, 24, 6)]
    assert all(sorted(one) == module.members for one in passes) and len(set(map(tuple, passes))) > 2
    assert len({i for batch in batches for i in numbers(batch["image"])}) == 28
    val = next(iter(module.val_dataloader()))
    assert torch.equal(val["labelled"][0], val["image"]) and torch.equal(val["labelled"][1], val["label"])
    scaled = module.on_after_batch_transfer(batches[0], 0)
    assert scaled["labelled"][0].min() == -1 and scaled["labelled"][1].dtype == torch.int64


def test_labelled_images_follow_the_flip_setting() -> None:
    def turned(flip: bool) -> int:
        batch = SemiSupervised(Numbered(), 3, flip=flip).training_images(0).__getitems__(range(30))
        return int((batch["labelled"][0][..., -1] > 0).any(-1).any(-1).sum())

    assert turned(False) == 0 and 5 < turned(True) < 25


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Pairs(None), "data is null; it takes a GANDataModule"),  # type: ignore[arg-type]
        (lambda: SemiSupervised(3), "data is 3; SemiSupervised needs"),  # type: ignore[arg-type]
        (lambda: Pairs(Numbered(), "edge"), "task is 'edge'; it takes one of edges, grey, low-resolution"),  # type: ignore
        (lambda: Pairs(Numbered(), "grey"), "Numbered is already grey: choose the task edges"),
        (lambda: Pairs(Gaussians()), "Gaussians has 2 channels"),
        (
            lambda: Pairs(Numbered(), "low-resolution"),
            "factor is 4; it must .* divide image_size 6: choose one of 2, 3",
        ),
        (lambda: Pairs(Numbered(), "low-resolution", factor=1), "factor is 1; it must be above 1"),
        (lambda: SemiSupervised(Numbered(), 0), "labels_per_class is 0; it takes a whole number from 1"),
        (
            lambda: SemiSupervised(Numbered(), 10).train_dataloader(),
            "class 1 of Numbered has 9 .* lower it to 9 or less",
        ),
        (
            lambda: SemiSupervised(Numbered(5), 1).train_dataloader(),
            "class 2 of Numbered has no training images: add some",
        ),
    ],
)
def test_bad_arguments_are_refused(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        make()
    assert "\n" not in str(error.value)


def test_semi_supervised_refuses_data_without_labels(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="has no labels, which SemiSupervised needs"):
        SemiSupervised(ImageFolder(str(tmp_path), 8, num_workers=0))


def test_data_modules_nested_in_yaml() -> None:
    text = """
    class_path: Pairs
    init_args:
      task: low-resolution
      batch_size: 3
      data: {class_path: SemiSupervised, init_args: {data: {class_path: Digits, init_args: {image_size: 16}}}}
    """
    parser = ArgumentParser()
    parser.add_argument("--data", type=GANDataModule)
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes  # its name in older versions
    module = instantiate(parser.parse_object({"data": yaml.safe_load(text)})).data
    assert module.name == "Digits-10-labels-low-resolution" and module.image_size == 16
    assert next(iter(module.train_dataloader()))["source"].shape == (3, 1, 16, 16)


@pytest.mark.parametrize(("weak", "lines"), [(50, 1), (51, 2)])
def test_edges_exceed_a_quarter_of_the_steepest(weak: int, lines: int) -> None:
    image = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    image[..., 4:], image[..., 12:] = 200, 200 - weak
    found = (edges(image)[0, 0, 8] == 0).sum()
    assert found == lines
