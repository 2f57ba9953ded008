"""Pictures written by any program, for scoring: order, exact decoding and errors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from ganzoo.data import ArrayImages, Pictures, SequentialLoader
from ganzoo.data.reading import Reading
from ganzoo.data.rows import Rows

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (7, 9, 11, 3), dtype=np.uint8)  # N, H, W, C


def fill(folder: Path, images: np.ndarray = NOISE, name: str = "{:02d}.png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / name.format(i))
    return folder


def nchw(images: np.ndarray = NOISE) -> Tensor:
    return torch.from_numpy(images).reshape(*images.shape[:3], -1).permute(0, 3, 1, 2)


def everything(data: Pictures) -> Tensor:
    return data.__getitems__(range(len(data)))["image"]


@pytest.mark.parametrize("name", ["{}.png", "{}.bmp", "{}.TIFF"])
@pytest.mark.parametrize("grey", [False, True])
def test_pictures_are_decoded_exactly(tmp_path: Path, name: str, grey: bool) -> None:
    images = NOISE[..., 0] if grey else NOISE
    data = Pictures(fill(tmp_path, images, name))
    assert torch.equal(everything(data), nchw(images)) and everything(data).is_contiguous()
    assert (len(data), data.channels, data.image_size) == (7, 1 if grey else 3, (9, 11))
    assert data.labels() is None and torch.equal(data[8]["image"], nchw(images)[1])
    assert len(Pictures(str(tmp_path), limit=3)) == 3


def test_files_are_found_recursively_in_sorted_order_without_hidden_ones(tmp_path: Path) -> None:
    for name, i in (("b.png", 2), ("a/z.png", 1), ("a/deep/1.PNG", 0)):
        fill(tmp_path / name, NOISE[i : i + 1], "x.png")
        (tmp_path / name / "x.png").rename(tmp_path / "file")
        (tmp_path / name).rmdir()
        (tmp_path / "file").rename(tmp_path / name)
    fill(tmp_path / ".hidden")
    (tmp_path / "._a.png").write_bytes(b"junk")
    (tmp_path / "log.txt").write_text("")
    assert torch.equal(everything(Pictures(tmp_path)), nchw()[:3])


def test_transparent_and_palette_pictures_are_converted_to_rgb(tmp_path: Path) -> None:
    fill(tmp_path)
    clear = Image.new("RGBA", (11, 9), (10, 20, 30, 255))
    clear.putpixel((10, 8), (0, 0, 0, 0))
    clear.save(tmp_path / "clear.png")
    Image.fromarray(NOISE[0]).quantize(4).save(tmp_path / "palette.png")
    data = Pictures(tmp_path)
    assert data.channels == 3 and len(data) == 9
    image = data[7]["image"]
    assert image[:, 0, 0].tolist() == [10, 20, 30] and image[:, 8, 10].tolist() == [255, 255, 255]


def test_bilevel_16_bit_and_grey_alpha_pictures_are_grey(tmp_path: Path) -> None:
    Image.new("1", (4, 4), 1).save(tmp_path / "a.png")
    Image.fromarray(np.full((4, 4), 257 * 130, np.uint16)).save(tmp_path / "b.png")
    Image.new("LA", (4, 4), (9, 255)).save(tmp_path / "c.png")
    assert everything(Pictures(tmp_path))[:, :, 0, 0].tolist() == [[255], [130], [9]]
    assert everything(Pictures(tmp_path, channels=3))[:, :, 0, 0].tolist() == [[255] * 3, [130] * 3, [9] * 3]


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in "ab":
        Image.new("RGB", (40, 20)).save(tmp_path / f"{name}.jpg", exif=exif)
    Image.new("RGB", (20, 40)).save(tmp_path / "c.jpg")
    data = Pictures(tmp_path)
    assert data.image_size == (40, 20) and everything(data).shape == (3, 3, 40, 20)


def test_pictures_of_different_sizes_or_modes_are_refused_unless_converted(tmp_path: Path) -> None:
    fill(tmp_path)
    Image.new("RGB", (11, 8)).save(tmp_path / "03.png")
    with pytest.raises(ValueError) as caught:
        Pictures(tmp_path)
    message = str(caught.value)
    for words in (
        "1 of 7 pictures",
        str(tmp_path),
        "03.png, 11x8 RGB",
        "00.png is 11x9 RGB",
        "evaluate ... --resize N",
    ):
        assert words in message
    assert "\n" not in message
    sized = Pictures(tmp_path, image_size=6)
    assert sized.image_size == (6, 6) and torch.equal(sized[1]["image"], Reading(6)(tmp_path / "01.png"))
    Image.new("L", (11, 9)).save(tmp_path / "03.png")
    cases: list[dict[str, Any]] = [{}, {"image_size": 6}]
    for options in cases:
        with pytest.raises(
            ValueError, match=r"03.png, 11x9 L, while 00.png is 11x9 RGB: convert them all to grey or all to colour$"
        ):
            Pictures(tmp_path, **options)
    assert Pictures(tmp_path, channels=1).channels == 1
    grey = torch.from_numpy(np.array(Image.fromarray(NOISE[0]).convert("L")))
    assert torch.equal(Pictures(tmp_path, channels=1)[0]["image"][0], grey)
    assert everything(Pictures(tmp_path, channels=3))[3].max() == 0


def test_invalid_folders_and_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere"):
        Pictures(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere.npy"):
        Pictures(tmp_path / "nowhere.npy")
    with pytest.raises(FileNotFoundError, match="No pictures in"):
        Pictures(tmp_path)
    fill(tmp_path)
    with pytest.raises(NotADirectoryError, match=r"00.png is a file: give a folder of pictures, or a \.npy"):
        Pictures(tmp_path / "00.png")
    with pytest.raises(ValueError, match="has too few pictures, 1: a score needs at least 2"):
        Pictures(tmp_path, limit=1)
    (tmp_path / "03.png").write_bytes(b"junk")
    (tmp_path / "04.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"(?s)2 of 7 files.*03.png: not a picture.*04.png: not a picture.*Repair"):
        Pictures(tmp_path)


def test_files_truncated_or_changed_after_opening_are_refused(tmp_path: Path) -> None:
    data = Pictures(fill(tmp_path))
    file = tmp_path / "05.png"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="05.png cannot be decoded: .*Repair or remove it"):
        everything(data)
    Image.new("RGB", (5, 5)).save(file)
    with pytest.raises(ValueError, match="05.png decodes to 5x5"):
        everything(data)


@pytest.mark.parametrize("kind", ["npy", "npz"])
@pytest.mark.parametrize("channels", [1, 3])
def test_arrays_are_read_from_npy_and_npz(tmp_path: Path, kind: str, channels: int) -> None:
    images, file = NOISE[..., :channels], tmp_path / f"samples.{kind}"
    if kind == "npy":
        np.save(file, images)
    else:
        np.savez(file, images, np.arange(7))  # as ADM's: arr_0 and arr_1
    data = Pictures(file)
    assert torch.equal(everything(data), nchw(images)) and torch.equal(data[8]["image"], nchw(images)[1])
    assert (len(data), data.channels, data.image_size, data.labels()) == (7, channels, (9, 11), None)
    assert data.fingerprint() == ArrayImages(nchw(images)).fingerprint()
    assert len(Pictures(file, limit=2)) == 2
    fill(tmp_path / "files", images if channels == 3 else images[..., 0])
    cases: list[dict[str, Any]] = [{"image_size": 6}, {"channels": 4 - channels}, {"image_size": 20, "channels": 1}]
    for options in cases:
        assert torch.equal(everything(Pictures(file, **options)), everything(Pictures(tmp_path / "files", **options)))


@pytest.mark.parametrize(
    "array, words",
    [
        (NOISE.astype(np.float32), r"float32 \[7, 9, 11, 3\], not images as uint8"),
        (NOISE.transpose(0, 3, 1, 2), r"uint8 \[7, 3, 9, 11\].*put channels last"),
        (NOISE[0], r"uint8 \[9, 11, 3\]"),
        (NOISE[:, :0], r"uint8 \[7, 0, 11, 3\]"),
        (NOISE[:1], "too few pictures, 1"),
        (np.array([{}]), "cannot be read as an array: .*(allow_pickle|Python objects)"),
    ],
)
@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_arrays_of_other_types_or_shapes_are_refused(tmp_path: Path, array: np.ndarray, words: str, kind: str) -> None:
    file = tmp_path / f"a.{kind}"
    np.save(file, array, allow_pickle=True) if kind == "npy" else np.savez(file, array)
    with pytest.raises(ValueError, match=words):
        Pictures(file)


def test_invalid_array_files_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", images=NOISE)
    np.save(tmp_path / "half.npy", NOISE)
    np.savez(tmp_path / "half.npz", NOISE)
    for name in ("half.npy", "half.npz"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:900])
    (tmp_path / "junk.npy").write_bytes(b"junk")
    (tmp_path / "empty.npz").write_bytes(b"")
    for name in ("other.npz", "half.npy", "half.npz", "junk.npy", "empty.npz"):
        with pytest.raises(ValueError, match=f"{name} cannot be read as an array"):
            Pictures(tmp_path / name)


def test_the_fingerprint_depends_on_pictures_and_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path)
    options: list[dict[str, Any]] = [{}, {"channels": 1}, {"image_size": 6}, {"limit": 6}]
    found = [Pictures(tmp_path, **option).fingerprint() for option in options]
    assert len(set(found)) == len(options)
    (tmp_path / "06.png").rename(tmp_path / "6.png")
    monkeypatch.setattr("ganzoo.data.reading.Reading.__call__", None)  # the fingerprint needs no decoding
    assert Pictures(tmp_path, channels=3).fingerprint() == found[0]
    changed = NOISE.copy()
    changed[2, 8, 10, 2] ^= 1
    assert Pictures(fill(tmp_path / "changed", changed)).fingerprint() != found[0]


def test_pictures_are_read_in_forked_workers(tmp_path: Path) -> None:
    """Decoding threads also work in forked workers."""
    data = Pictures(fill(tmp_path))
    everything(data)
    loader = SequentialLoader(data, 3, num_workers=1)
    assert torch.equal(torch.cat([batch["image"] for batch in loader]), nchw())
    assert isinstance(loader._loader, DataLoader)


def test_c_ordered_npy_arrays_are_read_from_the_file_on_access(tmp_path: Path) -> None:
    """Arrays in Fortran order are loaded into memory; a file truncated after opening is refused."""
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    np.save(tmp_path / "a.npy", images)
    np.save(tmp_path / "f.npy", np.asfortranarray(images))
    mine, other = Pictures(tmp_path / "a.npy", limit=5), Pictures(tmp_path / "f.npy")
    assert len(mine) == 5 and isinstance(mine.array, Rows) and not isinstance(other.array, Rows)
    for i in (4, 0):
        expected = torch.from_numpy(images[i]).permute(2, 0, 1)
        assert torch.equal(mine.__getitems__([i])["image"][0], expected)
        assert torch.equal(other.__getitems__([i])["image"][0], expected)
    os.truncate(tmp_path / "a.npy", 500)
    with pytest.raises(ValueError, match=r"a.npy is damaged \(it is truncated\): write it again"):
        mine.__getitems__([3])
