"""Folders of pictures: file formats, damaged files, classes, the cache, and the report."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import struct
import warnings
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ganzoo.data import ImageFolder, Pictures, folder, scan
from ganzoo.data.decoding import fitted, header
from ganzoo.data.finding import find
from ganzoo.data.folder import FolderImages
from ganzoo.data.labels import SPLITS, VAL, fraction, natural, places, split_folders
from ganzoo.data.reading import Reading

NOISE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def picture(seed: int, size: tuple[int, int] = (12, 10)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def fill(folder: Path, n: int = 20, names: str = "{:02d}.png") -> Path:
    for i in range(n):
        file = folder / names.format(i)
        file.parent.mkdir(parents=True, exist_ok=True)
        picture(i).save(file)
    return folder


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def everything(module: ImageFolder) -> Tensor:
    return torch.cat([b["image"] for split in (module.train_dataloader(), module.val_dataloader()) for b in split])


def grey(value: int | Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=torch.uint8).expand(3, 8, 8)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "A.PNG", "a.webp"])
def test_lossless_formats_decode_exactly(tmp_path: Path, name: str) -> None:
    options: dict[str, Any] = {"lossless": True} if name.endswith("webp") else {}
    Image.fromarray(NOISE).save(tmp_path / name, **options)
    assert torch.equal(Reading(8)(tmp_path / name), torch.from_numpy(NOISE).permute(2, 0, 1))


@pytest.mark.parametrize(
    "name, image, expected",
    [
        ("grey.png", Image.new("L", (8, 8), 77), 77),
        ("one_bit.png", Image.new("1", (8, 8), 1), 255),
        ("palette.gif", Image.new("RGB", (8, 8), (9, 9, 9)).quantize(), 9),
        ("sixteen.png", Image.fromarray(np.full((8, 8), 257 * 130, np.uint16)), 130),
        ("sixteen.tif", Image.fromarray(np.full((8, 8), 257 * 131 + 3, np.uint16)), 131),
        ("clear.png", Image.new("RGBA", (8, 8), (0, 0, 0, 0)), 255),
        ("half.png", Image.new("RGBA", (8, 8), (0, 0, 0, 128)), 127),
        ("grey_alpha.png", Image.new("LA", (8, 8), (0, 0)), 255),
        ("opaque.webp", Image.new("RGBA", (8, 8), (0, 0, 0, 255)), 0),
    ],
)
def test_image_modes_decode_to_8_bits(tmp_path: Path, name: str, image: Image.Image, expected: int) -> None:
    image.save(tmp_path / name)
    assert torch.equal(Reading(8)(tmp_path / name), grey(expected))
    assert torch.equal(Reading(8, channels=1)(tmp_path / name), grey(expected)[:1])
    assert ImageFolder(str(tmp_path), 8, num_workers=0)._held_out.shape == (1,)


def test_transparent_palette_and_key_colours_are_composited_on_white(tmp_path: Path) -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([10, 10, 10, 200, 0, 0])
    image.save(tmp_path / "p.gif", transparency=0)
    image.save(tmp_path / "p.png", transparency=0)
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "key.png", transparency=(1, 2, 3))
    for name in ("p.gif", "p.png", "key.png"):
        assert torch.equal(Reading(8)(tmp_path / name), grey(255)), name


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_colours_of_every_mode(tmp_path: Path, mode: str) -> None:
    colour = (200, 40, 90)
    image = Image.new("RGB", (100, 60), colour).convert(mode)
    image.save(tmp_path / "a.jpg", quality=95)
    expected = torch.tensor(image.convert("RGB").getpixel((0, 0)))[:, None, None]
    assert (Reading(8)(tmp_path / "a.jpg").int() - expected).abs().max() <= 3


def test_fast_jpeg_decoding_is_close_to_slow(tmp_path: Path) -> None:
    smooth = picture(0, (6, 6)).resize((480, 480), Image.Resampling.BICUBIC)
    smooth.save(tmp_path / "a.jpg", quality=95)
    slow = torch.from_numpy(np.array(smooth.resize((16, 16), Image.Resampling.LANCZOS))).permute(2, 0, 1)
    assert (Reading(16)(tmp_path / "a.jpg").int() - slow).abs().float().mean() < 1.5


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate clockwise to view
    Image.fromarray(NOISE).save(tmp_path / "a.png", exif=exif)
    assert torch.equal(Reading(8)(tmp_path / "a.png"), torch.from_numpy(NOISE).permute(2, 0, 1).rot90(-1, (1, 2)))


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def save_turned(file: Path, how: str) -> None:
    """A picture of 12 x 10 pixels with orientation 6 (a quarter turn), stored in the place that `how` names."""
    exif = Image.Exif()
    exif[0x0112] = 6
    more: dict[str, dict[str, Any]] = {"exif": {"exif": exif}, "xmp": {"xmp": XMP}, "tag": {"tiffinfo": {0x0112: 6}}}
    if file.suffix == ".png" and how != "exif":
        text = PngInfo()
        profile = exif.tobytes()
        if how == "xmp":
            text.add_itxt("XML:com.adobe.xmp", XMP.decode())
        if how == "profile":
            text.add_text("Raw profile type exif", f"\nexif\n{len(profile):8}\n{profile.hex()}\n")
        picture(0).save(file, pnginfo=text)
        end = chunk(b"IEND", b"")
        if how == "late":  # as ExifTool writes it
            file.write_bytes(file.read_bytes().removesuffix(end) + chunk(b"eXIf", profile[6:]) + end)
    else:
        picture(0).save(file, **more.get(how, {}))


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *((f"a.{suffix}", how) for suffix in ("jpg", "png", "webp") for how in ("exif", "xmp")),
        *(("a.png", "profile"), ("a.png", "late"), ("a.tif", "tag")),
        *((f"a.{suffix}", "not at all") for suffix in ("jpg", "png", "webp", "tif", "bmp", "gif")),
    ],
)
def test_header_and_decoder_agree_on_orientation(tmp_path: Path, name: str, how: str) -> None:
    save_turned(tmp_path / name, how)
    width, height = (12, 10) if how == "not at all" else (10, 12)
    assert Reading(None)(tmp_path / name).shape == (3, height, width)
    assert header(tmp_path / name)[0] == (width, height)
    report = scan(str(tmp_path))
    assert (report.width[0], report.height[0]) == (width, height)


def sixteen_bits(file: Path) -> None:
    """Save a colour PNG with 16 bits per channel, whose Pillow mode is RGB."""
    rows = b"".join(b"\0" + (np.arange(24, dtype=">u2") * 2700).tobytes() for _ in range(8))
    parts = {b"IHDR": struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0), b"IDAT": zlib.compress(rows), b"IEND": b""}
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, content) for kind, content in parts.items()))


def test_lost_bit_depth_and_transparency_are_reported(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ImageFolder(str(tmp_path), 8)
    sixteen_bits(tmp_path / "colour.png")
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(tmp_path / "grey.png")
    Image.new("RGBA", (8, 8), (9, 9, 9, 99)).save(tmp_path / "clear.png")
    Image.new("RGBA", (8, 8), (9, 9, 9, 255)).save(tmp_path / "opaque.png")
    clear = "have transparency and are put on white: clear.png; and 1 more"
    with pytest.warns(UserWarning) as told:
        assert Pictures(tmp_path, channels=3, image_size=8).deep
    texts = [" ".join(str(warning.message).split()) for warning in told]
    assert len(texts) == 2 and all(str(tmp_path) in text for text in texts)
    assert texts[0].startswith("2 of 7 pictures in ")
    assert texts[0].endswith("have more than 8 bits per channel and are reduced to 8: colour.png; and 1 more")
    assert texts[1].endswith(clear)
    with pytest.warns(UserWarning) as told:
        data = ImageFolder(str(tmp_path), 8, range="type")
    assert [" ".join(str(warning.message).split()).endswith(clear) for warning in told] == [True]
    assert data.seen == (
        "5 uint8, 2 uint16, with the range of their type as -1 to 1; 2 with transparency, put on white"
    )
    notes = {"colour.png": "uint16 from 0 to 61650", "grey.png": "uint16 from 40000 to 40000"}
    assert scan(str(tmp_path)).notes == {**notes, "clear.png": "transparent, put on white"}
    assert scan(str(tmp_path), 9).notes["grey.png"] == "8x8, below 9 pixels; uint16 from 40000 to 40000"


def test_an_animation_decodes_to_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("L", (8, 8), value) for value in (50, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert torch.equal(Reading(8)(tmp_path / "a.gif"), grey(50))
    assert "several frames" in scan(str(tmp_path), 8).notes["a.gif"]


def test_pictures_are_found_recursively_without_hidden_files(tmp_path: Path) -> None:
    fill(tmp_path / "deep/er", 3, "{}.PNG")
    fill(tmp_path, 2)
    fill(tmp_path / ".hidden", 1)
    (tmp_path / "._00.png").write_bytes(b"junk")
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "deep/loop").symlink_to(tmp_path, target_is_directory=True)
    module = ImageFolder(str(tmp_path), 8, val_fraction=0, num_workers=0)
    assert len(module.dataset("train")) == 5 and module.num_classes is None and module.name == tmp_path.name
    assert module.val_dataloader() == []


def test_errors_at_construction(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere"):
        ImageFolder(str(tmp_path / "nowhere"))
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(FileNotFoundError, match=r"looked for \.png .*\.gif \.npy \.npz, found 1 other files"):
        ImageFolder(str(tmp_path))
    with pytest.raises(NotADirectoryError, match="a.txt is a file"):
        ImageFolder(str(tmp_path / "a.txt"))


def test_splits_depend_on_file_names_only(tmp_path: Path) -> None:
    def names(module: ImageFolder) -> list[set[str]]:
        parts = [module.dataset("train"), module.dataset("val")]
        return [{p.pictures.files[i].name for i in p.members} for p in parts if isinstance(p, FolderImages)]

    train, val = names(ImageFolder(str(fill(tmp_path)), 8, val_fraction=0.3, num_workers=0, seed=1))
    assert not train & val and len(train | val) == 20 and 2 <= len(val) <= 10
    fill(tmp_path, 15, "more{}.png")
    more = names(ImageFolder(str(tmp_path), 8, val_fraction=0.3, num_workers=0, seed=2))
    assert train <= more[0] and val <= more[1]


def test_names_are_normalised_across_machines(tmp_path: Path) -> None:
    """Composed and decomposed accents are the same name; names need not be UTF-8."""
    digest = hashlib.blake2b("café.png".encode(), digest_size=4).digest()
    for name in ("caf\u00e9.png", "cafe\u0301.png", "caf\udcc3\udca9.png"):
        assert fraction(name) == int.from_bytes(digest) / 2**32
    fill(tmp_path / "cafe\u0301", 2)
    fill(tmp_path / "caf\u00e9", 2, "more{}.png")
    fill(tmp_path / "dog", 2)
    try:
        picture(0).save(tmp_path / "dog/caf\udce9.png")
    except OSError:  # a file system that allows only UTF-8, as on macOS
        pytest.skip("no such names here")
    module = ImageFolder(str(tmp_path), 8, labels=True, val_fraction=0, num_workers=0, batch_size=7)
    assert module.classes == ["caf\u00e9", "dog"] and module._pictures.labels is not None
    assert module._pictures.labels.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert len(everything(module)) == 7 and scan(str(tmp_path), 8).classes == {"caf\u00e9": 4, "dog": 3}


def test_tiff_pages_are_not_counted(tmp_path: Path) -> None:
    """Counting reads the directory of every page in Pillow: minutes for 100,000 pages."""
    first = Image.new("L", (8, 8))
    first.save(tmp_path / "a.tif", save_all=True, append_images=[first] * 30)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    (tmp_path / "a.tif").write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))  # a damaged page
    report = scan(str(tmp_path), 8)
    assert report.notes == {"a.tif": "several frames; only the first is used"} and not report.unusable


def test_control_characters_in_names_are_escaped_in_warnings(tmp_path: Path) -> None:
    """In names of folders and pictures, in the warnings of `corrupt: skip`."""
    folder = fill(tmp_path / "\x1b[31mred", 3)
    truncate(folder / "00.png")
    (folder / "\x1b[2Jbad.png").write_bytes(b"junk")
    (folder / "\x1bz.png").write_bytes((folder / "00.png").read_bytes())
    with pytest.warns(UserWarning) as caught:
        data = ImageFolder(str(folder), 8, corrupt="skip", val_fraction=0, num_workers=0).dataset("train")
        data.__getitems__(range(4))
    text = "".join(str(w.message) for w in caught)
    assert "\\x1b[31mred" in text and "\\x1b[2Jbad.png" in text and "\\x1bz.png" in text and "\x1b" not in text


def test_classes_are_the_subfolders(tmp_path: Path) -> None:
    fill(tmp_path / "dog/brown", 3)
    fill(tmp_path / "cat", 2)
    module = ImageFolder(str(tmp_path), 8, labels=True, val_fraction=0, num_workers=0, batch_size=7)
    assert module.classes == ["cat", "dog"] and module.num_classes == 2
    assert module.dataset("train").__getitems__([0, 1, 2, 3, 4])["label"].tolist() == [0, 0, 1, 1, 1]
    assert set(ImageFolder(str(tmp_path), 8, val_fraction=0, num_workers=0).dataset("train")[0]) == {"image"}
    fill(tmp_path, 1)
    with pytest.raises(ValueError, match="1 pictures lie directly in"):
        ImageFolder(str(tmp_path), 8, labels=True)
    with pytest.raises(ValueError, match="labels=True takes the class from the subfolder"):
        ImageFolder(str(tmp_path / "cat"), labels=True)


def test_a_folder_above_that_of_the_classes_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "pets/cat", 1)
    assert ImageFolder(str(tmp_path), 8, labels=True, num_workers=0).classes == ["pets"]
    fill(tmp_path / "pets/dog", 1)
    with pytest.raises(
        ValueError, match=r"(?s)have one class, pets, .* subfolders: \n  cat;\n  dog\.\n.* the folder pets"
    ):
        ImageFolder(str(tmp_path), 8, labels=True)
    assert ImageFolder(str(tmp_path), 8, num_workers=0).classes == []
    fill(tmp_path / "plants/tree", 1)
    assert ImageFolder(str(tmp_path), 8, labels=True, num_workers=0).classes == ["pets", "plants"]


def test_classes_are_sorted_by_their_numbers(tmp_path: Path) -> None:
    names = ["a", "a-1", "a2", "a10", "a10b", "b", "2", "10", "02"]
    for name in names:
        fill(tmp_path / name, 1)
    module = ImageFolder(str(tmp_path), 8, labels=True, val_fraction=0, num_workers=0)
    assert module.classes == ["02", "2", "10", "a", "a2", "a10", "a10b", "a-1", "b"]
    names = [Path(name).parent.name for name in module._pictures.names]
    assert [module.classes[label] for label in module.dataset("train").labels().tolist()] == names  # type: ignore[union-attr]
    assert natural("9" * 5000) > natural("8" * 5000)  # more digits than `int` takes


def test_a_class_without_a_readable_picture_keeps_its_number(tmp_path: Path) -> None:
    for name in ("a", "b", "d"):
        fill(tmp_path / name, 2)
    for file in (tmp_path / "b").iterdir():
        file.write_bytes(b"junk")
    (tmp_path / "c").mkdir()
    (tmp_path / ".cache").mkdir()
    with pytest.warns(UserWarning, match=r"(?s)2 of 4 classes in .* have no readable picture: \n  b;\n  c\.\n"):
        module = ImageFolder(str(tmp_path), 8, labels=True, val_fraction=0, num_workers=0, corrupt="skip")
    assert module.classes == ["a", "b", "c", "d"] and module.num_classes == 4
    assert module.dataset("train").labels().tolist() == [0, 0, 3, 3]  # type: ignore[union-attr]
    assert scan(str(tmp_path)).empty == ["b", "c"]


@pytest.mark.parametrize("labels", [False, True])
def test_folders_of_splits_are_not_classes(tmp_path: Path, labels: bool) -> None:
    fill(tmp_path / "train/cat", 3)
    fill(tmp_path / "train/dog", 2)
    fill(tmp_path / "val/dog", 1)
    (tmp_path / "val/cow").mkdir()
    (tmp_path / "notes/no class").mkdir(parents=True)
    with warnings.catch_warnings(action="ignore"):
        module = ImageFolder(str(tmp_path), 8, labels=labels, num_workers=0)
    assert [len(module.dataset(split)) for split in SPLITS] == [5, 1, 1]
    assert module.classes == (["cat", "cow", "dog"] if labels else [])
    assert not labels or module.dataset("val").labels().tolist() == [2]  # type: ignore[union-attr]
    (tmp_path / "thumbnail.png").touch()  # empty
    with warnings.catch_warnings(action="ignore"):
        module = ImageFolder(str(tmp_path), 8, labels=labels, corrupt="skip", num_workers=0)
    assert module.classes == (["cat", "cow", "dog"] if labels else [])
    (tmp_path / "thumbnail.png").unlink()
    fill(tmp_path / "test/cat", 4)
    assert [len(ImageFolder(str(tmp_path), 8, num_workers=0).dataset(split)) for split in SPLITS] == [5, 1, 4]
    fill(tmp_path / "train", 1, "beside.png")
    with pytest.raises(ValueError, match="1 pictures lie directly in .* or its folders train, val, test"):
        ImageFolder(str(tmp_path), 8, labels=True)
    fill(tmp_path / "other", 1)  # then they are ordinary folders
    module = ImageFolder(str(tmp_path), 8, labels=True, num_workers=0)
    assert module.classes == ["notes", "other", "test", "train", "val"]


def test_labels_of_stylegan(tmp_path: Path) -> None:
    fill(tmp_path, 4, "00000/img{:08d}.png")
    pairs = [[f"00000/img{i:08d}.png", label] for i, label in enumerate((3, 0, 11, 3))]
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": pairs}))
    with pytest.warns(UserWarning, match="9 of 12 classes"):
        module = ImageFolder(str(tmp_path), 8, labels=True, val_fraction=0, num_workers=0)
    assert module.dataset("train").labels().tolist() == [3, 0, 11, 3]  # type: ignore[union-attr]
    assert module.num_classes == 12 and module.classes[11] == "11"
    assert ImageFolder(str(tmp_path), 8).classes == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"labels": null}', "has no labels: pass labels=False"),
        ('{"labels": [["00.png", 0]]}', "has no class number for 1 pictures: .*01.png"),
        ('{"labels": [["00.png", 0], ["01.png", [0.5, 0.5]]]}', "has no class number for 1 pictures: .*01.png"),
        ('{"labels": [["00.png", 0], ["01.png", -1]]}', "has classes -1 to 0"),
        ('{"labels": [["00.png", 0], ["01.png", 1000000]]}', "has classes 0 to 1000000"),
        ('{"labels": [["00.png", 0, 1]]}', "is not a list of labels"),
        ('{"labels": [[0, 0]]}', "is not a list of labels"),
        ("[]", "is not a list of labels"),
        ("[" * 100_000, "is not a list of labels"),
        ("{", "is not a list of labels"),
        (" " * 2000, "more than 1,000 bytes"),
    ],
)
def test_bad_labels_of_stylegan(tmp_path: Path, text: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, 2)
    (tmp_path / "dataset.json").write_text(text)
    if text.isspace():
        monkeypatch.setattr("ganzoo.data.labels.MOST_JSON", 1000)
    with pytest.raises(ValueError, match=rf"(?s)dataset\.json .*{words}"):
        ImageFolder(str(tmp_path), 8, labels=True)


def test_files_that_are_not_pictures_are_refused_or_skipped(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    for i in range(12):
        (tmp_path / f"bad{i:02d}.jpg").write_bytes(b"junk")
    (tmp_path / "z.png").write_bytes(b"")
    words = r"(?s)13 of 16 files.*bad00.jpg: not a picture.*and 3 more.*data.corrupt to skip"
    with pytest.raises(ValueError, match=words):
        ImageFolder(str(tmp_path))
    with pytest.warns(UserWarning, match="skipped: 13 of 16"):
        module = ImageFolder(str(tmp_path), 8, corrupt="skip", val_fraction=0, num_workers=0)
    assert len(module.dataset("train")) == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_truncated_files_are_an_error_or_replaced(tmp_path: Path, workers: int) -> None:
    fill(tmp_path, 6)
    truncate(tmp_path / "02.png")
    truncate(tmp_path / "03.png")
    options: dict[str, Any] = {"val_fraction": 0, "num_workers": workers, "batch_size": 6}
    loader = CombinedLoader(ImageFolder(str(tmp_path), 8, **options).train_dataloader())
    with pytest.raises(RuntimeError, match=r"0[23]\.png cannot be decoded.*data.corrupt to skip"):
        list(loader)
    loader.reset()  # shuts the workers down, as Lightning does
    data = ImageFolder(str(tmp_path), 8, corrupt="skip", **options).dataset("train")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        twice = [data.__getitems__(range(6))["image"] for _ in range(2)]
    assert [str(w.message).count(".png") for w in caught] == [1, 1]
    assert torch.equal(twice[0], twice[1])
    assert torch.equal(twice[0][2], twice[0][4]) and torch.equal(twice[0][3], twice[0][4])


def test_a_folder_without_a_decodable_picture_is_an_error(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    truncate(tmp_path / "00.png")
    truncate(tmp_path / "01.png")
    with pytest.warns(UserWarning), pytest.raises(RuntimeError, match="None of the 2 pictures"):
        ImageFolder(str(tmp_path), 8, corrupt="skip", val_fraction=0, num_workers=0).dataset("train")[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_cache_changes_nothing_and_decodes_once(tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path)
    options: dict[str, Any] = {"image_size": 8, "batch_size": 4, "val_fraction": 0.3}
    plain = ImageFolder(str(tmp_path), cache_gb=0, num_workers=0, **options)
    cached = ImageFolder(str(tmp_path), num_workers=workers, **options)
    assert plain._pictures.cache is None and cached._pictures.cache is not None
    first = everything(cached)
    assert torch.equal(first, everything(plain))
    loader = cached.train_dataloader()
    for _ in range(8):  # enough epochs to include the images of dropped incomplete batches
        list(loader)
    assert cached._pictures.cached.all()
    monkeypatch.setattr("ganzoo.data.reading.Reading.__call__", None)
    assert torch.equal(everything(cached), first)


def test_scan_report(tmp_path: Path) -> None:
    fill(tmp_path / "a", 3)
    fill(tmp_path / "b", 2, "{}.JPG")
    Image.new("L", (30, 40)).save(tmp_path / "b/large.webp")
    Image.new("P", (4, 40)).save(tmp_path / "top.png")
    truncate(tmp_path / "a/01.png")
    (tmp_path / "a/text.png").write_text("hello")
    Image.fromarray(np.zeros((9, 9), np.float32)).save(tmp_path / "a/float.tiff")
    (tmp_path / "readme.md").write_text("hello")
    calls: list[tuple[int, int]] = []
    report = scan(str(tmp_path), 8, lambda done, total: calls.append((done, total)))
    assert calls == [(i, 9) for i in range(1, 10)]
    assert (report.images, report.others, report.sizes) == (9, 1, 4)
    assert report.extensions == {".png": 5, ".jpg": 2, ".webp": 1, ".tiff": 1}
    assert report.width == (4, 12, 30) and report.height == (9, 10, 40)
    assert report.modes["P"] == 1 and report.modes["RGB"] >= 4
    assert report.classes == {"a": 5, "b": 3, "": 1}
    assert set(report.unusable) == {"a/01.png", "a/text.png"}
    assert report.unusable["a/text.png"] == "not a picture" and "truncated" in report.unusable["a/01.png"]
    assert report.notes == {"top.png": "4x40, below 8 pixels", "a/float.tiff": "float32 from 0 to 0"}
    assert report.ranges == {"uint8": (6, 0, 255), "float32": (1, 0, 0)} and report.bands == {1: 1, 3: 6}
    assert report.suffixes == {".md": 1} and not report.rotated + report.animated + report.transparent


def test_the_cache_takes_at_most_its_share_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the shared memory that is free, and all of `cache_gb`."""
    monkeypatch.setattr(folder.os.path, "isdir", lambda path: True)
    monkeypatch.setattr(folder.shutil, "disk_usage", lambda path: SimpleNamespace(free=2000))

    def kept(n: int, cache_gb: float = 1.0, shared: bool = True) -> bool:
        how: Any = {"skip": False, "cache_gb": cache_gb, "shared": shared}
        return folder.Store(["x"] * n, (1, 10, 10), torch.uint8, **how).cache is not None

    assert kept(10) and not kept(11) and kept(11, shared=False)
    assert kept(10, 1.05e-6, False) and not kept(11, 1.05e-6, False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # processes of torchrun, which share it
    assert kept(5) and not kept(6)


@pytest.mark.parametrize("size", [64, [64, 16]])
def test_jpegs_are_decoded_at_twice_the_size_or_more(tmp_path: Path, size: Any) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as whole:
        expected = fitted(whole.convert("RGB"), size, "squeeze")
    assert torch.equal(Reading(size, fit="squeeze")(tmp_path / "a.jpg"), expected)


def test_labels_of_all_classes_are_known_without_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with `skip`, where those of the data set depend on which pictures can be decoded."""
    for name in ("a", "b", "c"):
        fill(tmp_path / name, 3)
    data = ImageFolder(str(tmp_path), 8, labels=True, corrupt="skip", val_fraction=0.0, num_workers=0)
    monkeypatch.setattr(folder.FolderPictures, "decode", lambda *_: pytest.fail("decoded"))
    assert data.absent() == []
    data._held_out[:6] = VAL  # pictures of a and b
    assert data.absent() == [0, 1]


def test_splits_in_a_single_folder_are_named(tmp_path: Path) -> None:
    """As in an archive that holds a folder of another name."""
    for name in ("pictures/train", "pictures/test"):
        fill(tmp_path / name, 3)
    with pytest.warns(UserWarning, match="look like splits, but are not used as splits, .* give the folder pictures"):
        ImageFolder(str(tmp_path), 8)


@pytest.mark.parametrize(
    ("layout", "labels"),
    [("train valid test", False), ("train valid test", True), ("Train Test", False), ("train val test .", False)],
)
def test_folders_that_look_like_splits_are_named(tmp_path: Path, layout: str, labels: bool) -> None:
    """A capital letter, another name, or a picture outside: all would be mixed without a word."""
    for name in layout.split():
        fill(tmp_path / name, 3)
    with pytest.warns(UserWarning, match="look like splits, but are not used as splits, .* rename them to train, val"):
        ImageFolder(str(tmp_path), 8, labels=labels)


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pictures, and the number of its class, would be missing."""
    for name in ("a", "b", "lost+found"):
        fill(tmp_path / name, 2)
    scandir = os.scandir

    def denied(path: Any) -> Any:
        if Path(path).name in ("a", "lost+found"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(PermissionError, match="a'$"):
        find(tmp_path)


@pytest.mark.parametrize("reverse", [False, True])
def test_names_of_linked_folders_do_not_depend_on_the_file_systems_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reverse: bool
) -> None:
    fill(tmp_path / "b", 2)
    (tmp_path / "a").symlink_to("b")
    walk = os.walk

    def ordered(*args: Any, **options: Any) -> Any:
        for place, below, names in walk(*args, **options):
            below.sort(reverse=reverse)
            yield place, below, names

    monkeypatch.setattr(os, "walk", ordered)
    assert [*find(tmp_path).pictures] == ["b/00.png", "b/01.png"]


def test_a_train_folder_alone_is_divided_by_hash() -> None:
    names = [f"train/{i}.png" for i in range(9)]
    assert not split_folders(names) and all(0 <= place < 1 for place in places(names))
    assert split_folders([*names, "val/0.png"]) and not split_folders(["val/0.png", "test/0.png"])
