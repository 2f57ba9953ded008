"""Zip archives of pictures are read like folders, and within limits."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ganzoo.data import ImageFolder, PairedFolder, Pictures, scan
from ganzoo.data.archive import members
from ganzoo.data.folder import FolderImages

NAMES = ("2/a.png", "2/deep/b.PNG", "10/c.png", "10/con.png", "10/new\nline.png", "10/e\u0301.png", "10/ö .png")


def fill(folder: Path, names: tuple[str, ...] = NAMES) -> Path:
    for i, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (9, 12, 3), dtype=np.uint8)).save(file)
    (folder / ".hidden.png").write_bytes(b"junk")
    (folder / "notes.txt").write_text("not a picture")
    return folder


def zipped(folder: Path, file: Path, prefix: str = "", **how: Any) -> Path:
    with zipfile.ZipFile(file, "w", **how) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, prefix + str(path.relative_to(folder)))
    return file


def facts(module: ImageFolder) -> dict[str, Any]:
    data = {split: module.dataset(split) for split in ("train", "val")}  # type: ignore[arg-type]
    found: dict[str, Any] = {split: images.fingerprint() for split, images in data.items()}
    for split, images in data.items():
        assert isinstance(images, FolderImages)
        batch = images.__getitems__(range(len(images)))
        found[f"{split} pixels"], found[f"{split} labels"] = batch["image"].tolist(), batch["label"].tolist()
    return {**found, "name": module.name, "classes": module.classes}


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_is_read_like_its_folder(tmp_path: Path, how: int) -> None:
    folder = fill(tmp_path / "pictures")
    options: dict[str, Any] = {"image_size": 8, "labels": True, "val_fraction": 0.4, "num_workers": 0}
    expected = facts(ImageFolder(str(folder), **options))
    assert len(expected["val pixels"]) > 1 and expected["classes"] == ["2", "10"]
    plain = zipped(folder, tmp_path / "pictures.zip", compression=how)
    assert facts(ImageFolder(str(plain), **options)) == expected
    nested = zipped(folder, tmp_path / "pictures.ZIP", "pictures/", compression=how)  # as file managers write it
    assert facts(ImageFolder(str(nested), **options)) == expected
    report, other = scan(str(nested), 8), scan(str(folder), 8)
    assert report == other and report.others == 1


def test_workers_read_a_zip(tmp_path: Path) -> None:
    file = zipped(fill(tmp_path / "pictures"), tmp_path / "a.zip")
    loader = ImageFolder(str(file), 8, val_fraction=0, num_workers=2, cache_gb=0, batch_size=7).train_dataloader()
    assert next(iter(loader))["image"].shape == (7, 3, 8, 8)


def test_pairs_and_scores_read_zips(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pictures")
    file = str(zipped(folder, tmp_path / "a.zip"))
    assert torch.equal(Pictures(file)[3]["image"], Pictures(folder)[3]["image"])
    assert Pictures(file).fingerprint() == Pictures(folder).fingerprint() and len(Pictures(file, limit=5)) == 5
    options: dict[str, Any] = {"image_size": 8, "num_workers": 0, "val_fraction": 0}
    mine = PairedFolder(file, source_path=str(folder), **options)
    assert torch.equal(mine.dataset("train")[0]["image"], mine.dataset("train")[0]["source"]) and mine.name == "a"


def test_files_of_macos_are_ignored(tmp_path: Path) -> None:
    write(
        tmp_path / "x.zip", ("cat/a.png", b""), ("__MACOSX/cat/._a.png", b""), ("__MACOSX/cat/b.png", b""), ("e/", b"")
    )
    found, folders = members(tmp_path / "x.zip")
    assert list(found) == ["cat/a.png"] and folders == {"cat", "e"}


def renamed(file: Path, old: bytes, new: bytes) -> Path:
    """Replaces a name in an archive by bytes of the same length."""
    content = file.read_bytes()
    assert len(old) == len(new) and content.count(old) == 2  # the member's and the directory's
    file.write_bytes(content.replace(old, new))
    return file


@pytest.mark.parametrize(
    ("stored", "name"),
    [
        (b"caf\xc3\xa9", "caf\u00e9"),  # not declared to be UTF-8
        (b"caf\xe9_", "caf\udce9_"),  # no UTF-8
        (b"a\\b\\c", "a/b/c"),
        (b".//cd", "cd"),
    ],
)
def test_names_of_other_programs(tmp_path: Path, stored: bytes, name: str) -> None:
    write(tmp_path / "x.zip", ("_____", b""))
    assert list(members(renamed(tmp_path / "x.zip", b"_____", stored))[0]) == [name]


def write(file: Path, *entries: tuple[str, bytes], **how: Any) -> None:
    with zipfile.ZipFile(file, "w", **how) as archive:
        for name, content in entries:
            archive.writestr(name, content)


def _bomb(file: Path) -> None:
    write(file, ("a.png", bytes(70 << 20)), compression=zipfile.ZIP_DEFLATED)


def _cut(file: Path) -> None:
    write(file, ("a.png", b"x" * 99))
    file.write_bytes(file.read_bytes()[:-30])


def _overlong(file: Path) -> None:
    """A member that claims a gigabyte of packed bytes."""
    write(file, ("a.png", b"x" * 99))
    content = bytearray(file.read_bytes())
    place = content.rfind(b"PK\1\2") + 20
    content[place : place + 4] = (1 << 30).to_bytes(4, "little")
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_bomb, "would unpack from .* to 73,400,320 bytes"),
        (_cut, "not a zip archive"),
        (_overlong, "a.png is larger than the archive"),
        (lambda file: write(file, ("../a.png", b"")), "the path of ../a.png leads out of it"),
        (lambda file: write(file, ("a/../../a.png", b"")), "leads out of it"),
        (lambda file: write(file, ("/a.png", b"")), "the path of /a.png leads out of it"),
        (lambda file: write(file, ("c:\\a.png", b"")), "leads out of it"),
        (lambda file: write(file, ("a.png", b""), ("./a.png", b"")), "it contains a.png twice"),
        (lambda file: file.write_bytes(b"text"), "not a zip archive"),
    ],
)
def test_unsafe_and_damaged_archives_are_refused(tmp_path: Path, make: Callable[[Path], Any], words: str) -> None:
    make(file := tmp_path / "bad.zip")
    with pytest.raises(ValueError, match=rf"bad\.zip cannot be read as a zip archive: .*{words}"):
        ImageFolder(str(file))


def test_unreadable_members_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = zipped(fill(tmp_path / "pictures", ("good.png", "bad.png", "kept.png")), tmp_path / "a.zip")
    content = bytearray(file.read_bytes())
    place = content.find(b"bad.png") + 40
    content[place] ^= 1
    file.write_bytes(content)
    assert scan(str(file)).unusable == {"bad.png": "damaged in the zip archive"}
    with zipfile.ZipFile(file, "a", zipfile.ZIP_BZIP2) as archive:
        archive.write(tmp_path / "pictures" / "good.png", "other.png")
    assert scan(str(file)).unusable["other.png"] == "encrypted, or compressed by a method other than deflate"
    content = bytearray(file.read_bytes())
    content[content.rfind(b"kept.png") - 46 + 8] |= 1  # the flag of encryption
    file.write_bytes(content)
    assert "encrypted" in scan(str(file)).unusable["kept.png"] and "good.png" not in scan(str(file)).unusable
    monkeypatch.setattr("ganzoo.data.archive.LARGEST", 99)
    assert "more than the limit of 99" in scan(str(file)).unusable["good.png"]
