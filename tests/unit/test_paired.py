"""Paired and unpaired folders for translators: pairing, augmentation, shuffling and errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ganzoo.core.types import Batch
from ganzoo.data import GANDataModule, Loader, PairedFolder, UnpairedFolder
from ganzoo.data.base import Split

SPLITS: tuple[Split, ...] = ("train", "val", "test")
PLAIN: dict[str, Any] = {"image_size": 8, "num_workers": 0, "val_fraction": 0, "batch_size": 4}


def noise(seed: int, size: tuple[int, int] = (8, 8)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)


def save(file: Path, array: np.ndarray, mode: str = "RGB") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).convert(mode).save(file)


def level(value: int, width: int = 8) -> np.ndarray:
    return np.full((8, width, 3), value, np.uint8)


def fill(folder: Path, n: int, start: int = 0, mode: str = "RGB", width: int = 8) -> str:
    """n pictures of constant brightness start, start + 1, ..."""
    for i in range(n):
        save(folder / f"{i:02d}.png", level(start + i, width), mode)
    return str(folder)


def tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array).permute(2, 0, 1)


def loader(module: GANDataModule, rank: int = 0, world_size: int = 1, num_workers: int = 0) -> Loader:
    data = module.training_images(3)
    return Loader(data, 4, seed=3, rank=rank, world_size=world_size, num_workers=num_workers)


def epochs(loader: Loader, n: int = 2) -> Iterator[Batch]:
    for epoch in range(n):
        loader.set_epoch(epoch)
        yield from loader


def same(a: Batch, b: Batch) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)  # type: ignore[literal-required]


def assert_exact(make: Any) -> None:
    """Batches are the same for any number of processes and workers, and after resuming."""
    whole = list(epochs(loader(make())))
    assert len(whole) > 4
    parts = [list(epochs(loader(make(), rank, 2))) for rank in range(2)]
    for batch, *halves in zip(whole, *parts, strict=True):
        assert same(batch, {key: torch.cat([half[key] for half in halves]) for key in batch})  # type: ignore
    assert all(map(same, whole, epochs(loader(make(), num_workers=2))))
    again = loader(make())
    again.load_state_dict({"epoch": 1, "batch": 1})
    rest = list(again)
    assert all(map(same, whole[-len(rest) :], rest)) and len(rest) == len(whole) // 2 - 1


def test_side_by_side_pictures_are_split_into_halves(tmp_path: Path) -> None:
    left, right = noise(0), noise(1)
    save(tmp_path / "a.png", np.concatenate([left, right], 1))
    module = PairedFolder(str(tmp_path), **PLAIN)
    pair = module.dataset("train")[0]
    assert torch.equal(pair["source"], tensor(left)) and torch.equal(pair["image"], tensor(right))
    assert (module.source_channels, module.channels, module.num_classes) == (3, 3, None)
    other = PairedFolder(str(tmp_path), source_side="right", channels=1, **PLAIN)
    pair = other.dataset("train")[0]
    assert torch.equal(pair["source"], tensor(right)) and pair["image"].shape == (1, 8, 8)
    assert module.dataset("train").fingerprint() != other.dataset("train").fingerprint()
    assert module.dataset("train").labels() is None


def test_halves_are_cropped_separately(tmp_path: Path) -> None:
    tall = np.concatenate([np.tile(noise(0)[:, :4], (4, 1, 1)), np.tile(noise(1)[:, :4], (4, 1, 1))], 1)  # 2 x (4x32)
    save(tmp_path / "a.png", tall)
    pair = PairedFolder(str(tmp_path), **PLAIN | {"image_size": 4}).dataset("train")[0]
    assert torch.equal(pair["source"], tensor(tall[14:18, :4])) and torch.equal(pair["image"], tensor(tall[14:18, 4:]))


def test_odd_widths_are_refused_or_skipped(tmp_path: Path) -> None:
    fill(tmp_path, 2, width=16)
    save(tmp_path / "odd.png", level(9, 15))
    with pytest.raises(
        ValueError, match=r"(?s)1 of 3 pictures in .* have an odd width.*odd.png: 15 pixels wide.*corrupt"
    ):
        PairedFolder(str(tmp_path), **PLAIN)
    with pytest.warns(UserWarning, match="odd.png"):
        assert len(PairedFolder(str(tmp_path), corrupt="skip", **PLAIN).dataset("train")) == 2


def test_pictures_in_two_folders_are_paired_by_name(tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / f"photos/deep/{i}.png", noise(i))
        save(tmp_path / f"maps/deep/{i}.bmp", noise(10 + i), "L")
    path, source_path = str(tmp_path / "photos"), str(tmp_path / "maps")
    module = PairedFolder(path, source_path, source_channels=1, **PLAIN)
    assert module.name == "photos" and module.source_channels == 1
    batch = module.dataset("train").__getitems__([0, 1, 2])
    assert all(torch.equal(batch["image"][i], tensor(noise(i))) for i in range(3))
    grey = [np.array(Image.fromarray(noise(10 + i)).convert("L")) for i in range(3)]
    assert all(torch.equal(batch["source"][i, 0], torch.from_numpy(grey[i])) for i in range(3))
    first = module.dataset("train").fingerprint()
    save(tmp_path / "maps/deep/1.bmp", noise(99), "L")
    assert PairedFolder(path, source_path, source_channels=1, **PLAIN).dataset("train").fingerprint() != first


def test_names_are_matched_after_unicode_normalisation(tmp_path: Path) -> None:
    """File names from macOS contain decomposed accents."""
    for folder, name in {"photos": "caf\u00e9", "maps": "cafe\u0301"}.items():
        fill(tmp_path / folder, 3)
        save(tmp_path / folder / f"{name}.png", level(50))
    photos, maps = str(tmp_path / "photos"), str(tmp_path / "maps")
    assert len(PairedFolder(photos, maps, **PLAIN).dataset("train")) == 4
    save(tmp_path / "photos/cafe\u0301.bmp", level(50))
    with pytest.raises(ValueError, match="same name as"):
        PairedFolder(photos, maps, **PLAIN)


def test_files_without_a_partner_are_refused_or_skipped(tmp_path: Path) -> None:
    fill(tmp_path / "a", 4)
    fill(tmp_path / "b", 3)
    save(tmp_path / "b/lone.png", level(0))
    save(tmp_path / "b/01.bmp", level(0))
    save(tmp_path / "b/02.png", level(0, 16))
    folders = str(tmp_path / "a"), str(tmp_path / "b")
    with pytest.raises(ValueError) as error:
        PairedFolder(*folders, **PLAIN)
    text = str(error.value)
    assert text.startswith("4 of 9 files do not form pairs of the same name and aspect ratio")
    for words in ("a/03.png: no source", "b/lone.png: no target", "b/01.png: same name as 01.bmp", "corrupt"):
        assert words in text, words
    assert "a/02.png: 8x8, but its source is 16x8" in text
    with pytest.warns(UserWarning, match="do not form pairs"):
        assert len(PairedFolder(*folders, corrupt="skip", **PLAIN).dataset("train")) == 2
    save(tmp_path / "c/x.png", level(0))
    with pytest.raises(ValueError, match="(?s)do not form pairs .*a/00.png: no source.*Rename or resize them"):
        PairedFolder(folders[0], str(tmp_path / "c"), corrupt="skip", **PLAIN)
    with pytest.raises(ValueError, match="set path to the images"):
        PairedFolder(folders[0], folders[0], **PLAIN)


def test_a_broken_picture_is_skipped_with_its_partner(tmp_path: Path) -> None:
    fill(tmp_path / "a", 3)
    fill(tmp_path / "b", 3, 100)
    file = tmp_path / "b/01.png"
    save(file, noise(0))
    file.write_bytes(file.read_bytes()[:-60])
    folders = str(tmp_path / "a"), str(tmp_path / "b")
    with pytest.raises(RuntimeError, match=r"a/01.png or .*b/01.png cannot be decoded"):
        PairedFolder(*folders, **PLAIN).dataset("train")[1]
    with pytest.warns(UserWarning, match="01.png"):
        batch = PairedFolder(*folders, corrupt="skip", **PLAIN).dataset("train").__getitems__([0, 1, 2])
    assert batch["image"][:, 0, 0, 0].tolist() == [0, 2, 2]
    assert batch["source"][:, 0, 0, 0].tolist() == [100, 102, 102]


def lengths(module: GANDataModule) -> list[int]:
    return [len(module.dataset(split)) for split in SPLITS]


def test_splits_are_folders_or_decided_by_hash(tmp_path: Path) -> None:
    fill(tmp_path / "p/train", 5, width=16)
    fill(tmp_path / "p/val", 2, width=16)
    assert lengths(PairedFolder(str(tmp_path / "p"), **PLAIN)) == [5, 2, 2]
    fill(tmp_path / "p/test", 3, width=16)
    assert lengths(PairedFolder(str(tmp_path / "p"), **PLAIN)) == [5, 2, 3]
    fill(tmp_path / "p/more", 20, width=16)  # besides the folders of splits: split by hash
    train, val, test = lengths(PairedFolder(str(tmp_path / "p"), **PLAIN | {"val_fraction": 0.4}))
    assert train + val == 30 and val == test > 2
    with pytest.raises(ValueError, match="all 30 pictures are held out: lower val_fraction"):
        PairedFolder(str(tmp_path / "p"), **PLAIN | {"val_fraction": 1})


def test_a_pair_shares_its_crop_and_flip(tmp_path: Path) -> None:
    for i in range(13):
        save(tmp_path / f"a/{i:02d}.png", noise(i, (11, 11)))
        save(tmp_path / f"b/{i:02d}.png", 255 - noise(i, (11, 11)))

    def make(**options: Any) -> PairedFolder:
        settings = PLAIN | {"jitter": 3, "flip": True} | options
        return PairedFolder(str(tmp_path / "a"), str(tmp_path / "b"), **settings)

    pairs = list(epochs(loader(make())))
    assert all(torch.equal(255 - pair["image"], pair["source"]) for pair in pairs)
    data = make().training_images(3)
    seen = [data.__getitems__([13 * epoch])["image"][0] for epoch in range(30)]
    whole = tensor(noise(0, (11, 11)))
    cuts = [
        (turned, top, left)
        for image in seen
        for turned in (0, 1)
        for top in range(4)
        for left in range(4)
        if torch.equal(image.flip(-1) if turned else image, whole[:, top : top + 8, left : left + 8])
    ]
    assert len(cuts) == 30 and len(set(cuts)) > 12
    assert {top for _, top, _ in cuts} == {left for *_, left in cuts} == {0, 1, 2, 3}
    assert make().dataset("train")[0]["image"].shape == make(jitter=0).training_images(3)[0]["image"].shape == (3, 8, 8)
    assert torch.equal(make().dataset("train")[0]["image"], make(jitter=0, flip=False).training_images(3)[0]["image"])
    assert_exact(make)
    with pytest.raises(ValueError, match="jitter is -1"):
        make(jitter=-1)


def test_folders_in_the_layout_of_cyclegan(tmp_path: Path) -> None:
    for letter, start, n in (("A", 0, 3), ("B", 100, 5)):
        fill(tmp_path / f"set/train{letter}", n, start)
    module = UnpairedFolder(str(tmp_path / "set"), **PLAIN)
    assert module.name == "set" and lengths(module) == [5, 0, 0]
    (tmp_path / "set/trainB/a.heic").touch()
    apart = UnpairedFolder(str(tmp_path / "set/trainB"), str(tmp_path / "set/trainA"), **PLAIN)
    assert apart.seen == "image: ignored: 1 .heic"
    batch = module.dataset("train").__getitems__(range(5))
    assert batch["image"][:, 0, 0, 0].tolist() == [100, 101, 102, 103, 104]
    assert batch["source"][:, 0, 0, 0].tolist() == [0, 1, 2, 0, 1]
    assert module.dataset("train").__getitems__([8])["source"][0, 0, 0, 0] == 2  # all sources can be reached
    assert module.dataset("train").different_sources() == 3 and module.dataset("val").different_sources() == 0
    fill(tmp_path / "set/testA", 2, 50)
    fill(tmp_path / "set/testB", 1, 150)
    module = UnpairedFolder(str(tmp_path / "set"), **PLAIN)
    assert lengths(module) == [5, 1, 1]
    assert module.dataset("val")[0]["source"][0, 0, 0] == 50 and module.dataset("val")[0]["image"][0, 0, 0] == 150


@pytest.mark.parametrize("n, m", [(14, 4), (4, 14), (12, 12)])
def test_unpaired_pictures_are_shuffled_independently_without_repetition(tmp_path: Path, n: int, m: int) -> None:
    path, source_path = fill(tmp_path / "b", n), fill(tmp_path / "a", m, 100)
    data = UnpairedFolder(path, source_path, **PLAIN).training_images(3)
    assert len(data) == max(n, m)
    met, pairs = [], []
    for epoch in range(2):
        it = Loader(data, 2, seed=3)
        it.set_epoch(epoch)
        batches = list(it)
        seen = {key: torch.cat([b[key] for b in batches])[:, 0, 0, 0] for key in ("image", "source")}  # type: ignore
        short = seen["source"] if m <= n else seen["image"]
        for start in range(0, len(short), min(n, m)):  # each pass is without repetition
            part = short[start : start + min(n, m)].tolist()
            assert len(set(part)) == len(part)
            met.append(part)
        pairs.append(sorted(zip(*(t.tolist() for t in seen.values()), strict=True)))
        assert len(set((seen["image"] if m <= n else seen["source"]).tolist())) == max(n, m)
    assert pairs[0] != pairs[1] and len(set(map(tuple, met))) > len(met) / 2
    if n == m:
        assert len({b - a for a, b in pairs[0]}) > 2  # no fixed partners


def test_unpaired_batches_are_reproducible(tmp_path: Path) -> None:
    for i in range(13):
        save(tmp_path / f"b/{i}.png", noise(i, (11, 11)))
        if i < 5:
            save(tmp_path / f"a/{i}.png", noise(20 + i, (11, 11)))

    def make() -> UnpairedFolder:
        return UnpairedFolder(str(tmp_path / "b"), str(tmp_path / "a"), jitter=3, flip=True, **PLAIN)

    assert_exact(make)
    data = make().training_images(3)
    assert data[0]["image"].shape == data[0]["source"].shape == (3, 8, 8)


def test_unpaired_pictures_are_flipped_independently(tmp_path: Path) -> None:
    ramp = np.arange(8, dtype=np.uint8)[None, :, None].repeat(8, 0).repeat(3, 2)
    for i in range(4):
        save(tmp_path / f"b/{i}.png", ramp)
        save(tmp_path / f"a/{i}.png", ramp + 100)
    data = UnpairedFolder(str(tmp_path / "b"), str(tmp_path / "a"), flip=True, **PLAIN).training_images(0)
    batch = data.__getitems__(range(40))
    coins = {(int(a[0, 0, 0]), int(b[0, 0, 0])) for a, b in zip(batch["image"], batch["source"], strict=True)}
    assert coins == {(0, 100), (0, 107), (7, 100), (7, 107)}


def test_unpaired_fingerprints_depend_only_on_the_pictures(tmp_path: Path) -> None:
    path, source_path = fill(tmp_path / "b", 3), fill(tmp_path / "a", 3, 100)
    first = UnpairedFolder(path, source_path, **PLAIN).dataset("train").fingerprint()
    assert UnpairedFolder(path, source_path, flip=True, seed=4, **PLAIN).dataset("train").fingerprint() == first
    save(tmp_path / "a/01.png", noise(0))
    assert UnpairedFolder(path, source_path, **PLAIN).dataset("train").fingerprint() != first


@pytest.mark.parametrize("cls", [PairedFolder, UnpairedFolder])
def test_a_grey_folder_beside_a_coloured_one_needs_its_own_channels(tmp_path: Path, cls: Any) -> None:
    colour, grey = fill(tmp_path / "colour", 3), fill(tmp_path / "grey", 3, mode="L")
    words = "all pictures in .*grey are grey, but those in .*colour are not, and .* are both 3: set data."
    with pytest.raises(ValueError, match=words + "source_channels to 1"):
        cls(colour, grey, **PLAIN)
    with pytest.raises(ValueError, match=words + "channels to 1"):
        cls(grey, colour, **PLAIN)
    pair = cls(colour, grey, source_channels=1, **PLAIN).dataset("train")[0]
    assert pair["image"].shape == (3, 8, 8) and pair["source"].shape == (1, 8, 8)
    assert cls(colour, grey, channels=1, source_channels=1, **PLAIN).dataset("train")[0]["image"].shape == (1, 8, 8)
    save(tmp_path / "grey/03.png", level(0))  # no longer all grey
    save(tmp_path / "colour/03.png", level(0))
    assert cls(colour, grey, **PLAIN).dataset("train")[0]["source"].shape == (3, 8, 8)


def test_unusual_folders_are_refused(tmp_path: Path) -> None:
    fill(tmp_path / "trainA", 3)
    fill(tmp_path / "testB", 3)
    with pytest.raises(ValueError, match="one contains the other, so pictures would be both"):
        UnpairedFolder(str(tmp_path), str(tmp_path / "trainA"), **PLAIN)
    with pytest.raises(ValueError, match=r"no pictures in .*trainB: "):
        UnpairedFolder(str(tmp_path), **PLAIN)


def test_missing_folders_are_refused(tmp_path: Path) -> None:
    fill(tmp_path / "trainA", 3)
    with pytest.raises(ValueError, match=r"no pictures in .*trainB: .*data.source_path"):
        UnpairedFolder(str(tmp_path), **PLAIN)
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere"):
        UnpairedFolder(str(tmp_path), str(tmp_path / "nowhere"), **PLAIN)
    (tmp_path / "trainA/bad.png").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"(?s)1 of 4 files in .*bad.png: not a picture"):
        UnpairedFolder(str(tmp_path), str(tmp_path / "trainA"), **PLAIN)
