"""Pictures with alpha, bands and more than 8 bits: what becomes of their values, and what is refused."""

from __future__ import annotations

import io
import re
import struct
import warnings
import zipfile
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import ganzoo
from ganzoo.callbacks.samples import Samples
from ganzoo.cli import main
from ganzoo.core.drawing import above, picture, shown, to_pil
from ganzoo.core.limits import Bounds, refusal
from ganzoo.core.pixels import as_bytes, to_float, to_uint16
from ganzoo.data import ImageFolder, PairedFolder, Pictures, Shards, UnpairedFolder
from ganzoo.data.decoding import header, upright
from ganzoo.data.prepare import prepare
from ganzoo.data.reading import Reading
from ganzoo.evaluation.assemble import assemble
from ganzoo.evaluation.sources import reduced
from ganzoo.testing import fit as training
from tests.variants import small

RNG = np.random.default_rng(0)
BANDS = RNG.integers(0, 65536, (6, 8, 5), dtype=np.uint16)
CONTIG: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "contig"}
PLAIN: dict[str, Any] = {"num_workers": 0, "val_fraction": 0, "image_size": [6, 8]}


def floats(values: np.ndarray, low: float = 0, high: float = 65535) -> torch.Tensor:
    """The image that values [H, W, C] become."""
    x = (values.astype(np.float64) - low) / (high - low) * 2 - 1
    return torch.from_numpy(x.clip(-1, 1)).permute(2, 0, 1).float()


def close(image: torch.Tensor, other: torch.Tensor) -> bool:
    return image.dtype == torch.float32 and image.shape == other.shape and bool((image - other).abs().max() < 3e-7)


def png16(values: np.ndarray, orientation: int = 1) -> bytes:
    """A PNG of 16 bits and 1 to 4 channels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, channels = values.shape
    exif = Image.Exif()
    exif[0x0112] = orientation
    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    lines = values.astype(">u2").reshape(height, -1).view(np.uint8)
    up = np.diff(lines, axis=0, prepend=lines[:1] * 0)  # PNG's filter 2
    rows = b"".join(b"\2" + row.tobytes() for row in up)
    parts = {b"IHDR": head, b"eXIf": exif.tobytes()[6:], b"IDAT": zlib.compress(rows), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, content) for kind, content in parts.items())


def bands(folder: Path, n: int = 3, values: np.ndarray = BANDS, **how: Any) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    for i in range(n):
        tifffile.imwrite(folder / f"{i}.tif", np.roll(values, i), **{**CONTIG, **how})
    return folder


def rgba(size: tuple[int, int] = (8, 6), seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    values[0, 0, 3] = 0
    return Image.fromarray(values)


# Bands and depth, without loss


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png_loses_nothing(tmp_path: Path, channels: int) -> None:
    values = BANDS[..., :channels]
    (tmp_path / "a.png").write_bytes(png16(values))
    seen = header(tmp_path / "a.png")
    assert not isinstance(seen, str) and (seen.bands, seen.dtype) == (channels, "uint16")
    assert seen.alpha == (channels in (2, 4))
    image = Reading([6, 8], channels, deep=True)(tmp_path / "a.png")
    assert close(image, floats(values))
    assert torch.equal(to_uint16(image).permute(1, 2, 0), torch.from_numpy(values.astype(np.int32)))
    (tmp_path / "a.png").write_bytes(png16(values, orientation=6))
    turned = Reading(None, channels, deep=True)(tmp_path / "a.png")
    assert close(turned, floats(np.rot90(values, -1)))
    seen = header(tmp_path / "a.png")
    assert not isinstance(seen, str) and (seen.size, seen.rotated) == ((6, 8), True)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_of_rasters_is_that_of_pillow(tmp_path: Path, orientation: int) -> None:
    values = np.arange(48, dtype=np.uint16).reshape(6, 8, 1)
    (tmp_path / "grey.png").write_bytes(png16(values, orientation))
    (tmp_path / "colour.png").write_bytes(png16(values.repeat(3, 2), orientation))
    tags = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "a.tif", values.repeat(5, 2), extratags=tags, **CONTIG)
    grey, *others = (np.asarray(upright(tmp_path / name).values) for name in ("grey.png", "colour.png", "a.tif"))  # type: ignore[union-attr]
    assert all((other == grey).all() for other in others)


@pytest.mark.parametrize("name", ["a.tif", "planar.tif", "a.npy", "fortran.npy", "big.npy", "a.npz", "two.npz"])
def test_bands_lose_nothing(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    if name == "planar.tif":
        tifffile.imwrite(file, BANDS.transpose(2, 0, 1), photometric="minisblack", planarconfig="separate")
    elif name.endswith("tif"):
        tifffile.imwrite(file, BANDS, compression="zlib", predictor=True, **CONTIG)
    elif name.endswith("npy"):
        np.save(file, {"f": np.asfortranarray(BANDS), "b": BANDS.astype(">u2")}.get(name[0], BANDS))
    else:
        np.savez_compressed(file, first=BANDS, **{"second": BANDS[::-1]} if name == "two.npz" else {})
    seen = header(file)
    assert not isinstance(seen, str)
    assert seen == ((8, 6), "5 x uint16", 5, False, "uint16", name == "two.npz", False)
    assert close(Reading(None, 5, deep=True)(file), floats(BANDS))
    assert torch.equal(
        Reading(None, 5)(file), torch.from_numpy((BANDS / 257).round().astype(np.uint8)).permute(2, 0, 1)
    )


@pytest.mark.parametrize("kind", ["int16", "int32", "uint32", "float16", "float32", "float64", "int8"])
def test_other_types_are_scaled_by_a_range(tmp_path: Path, kind: str) -> None:
    values = RNG.integers(-100 if kind[0] != "u" else 0, 100, (6, 8)).astype(kind)
    values[0, 0] = 120
    tifffile.imwrite(tmp_path / "a.tif", values)
    np.save(tmp_path / "a.npy", values)
    np.save(tmp_path / "colour.npy", values[..., None].repeat(3, 2))
    for name in ("a.tif", "a.npy"):
        seen = header(tmp_path / name)
        assert not isinstance(seen, str) and (seen.dtype, seen.bands) == (kind, 1)
        image = Reading(None, 1, range=(-60, 100), deep=True)(tmp_path / name)
        assert close(image, floats(values[..., None], -60, 100)) and image.max() == 1


def test_damaged_deep_pictures_are_left_out_of_the_range(tmp_path: Path) -> None:
    bands(tmp_path, 4)
    (tmp_path / "3.tif").write_bytes((tmp_path / "3.tif").read_bytes()[:-40])
    for range in ("data", None):
        with pytest.raises(ValueError, match="3.tif cannot be read: .*; repair or remove it"):
            ImageFolder(str(tmp_path), channels=5, range=range, **PLAIN)
        assert ImageFolder(str(tmp_path), channels=5, range=range, corrupt="skip", **PLAIN).reading.deep


def test_bands_are_read_from_a_zip(tmp_path: Path) -> None:
    bands(tmp_path / "tiff")
    (tmp_path / "npy").mkdir()
    np.save(tmp_path / "npy/0.npy", BANDS)
    for name in ("tiff", "npy"):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for file in (tmp_path / name).iterdir():
                archive.write(file, file.name)
        data = ImageFolder(str(tmp_path / f"{name}.zip"), channels=5, **PLAIN)
        assert close(data.dataset("train")[0]["image"], floats(BANDS))


@pytest.mark.parametrize(("bits", "warned"), [(14, True), (15, False)])
def test_a_quarter_of_the_range_is_little(tmp_path: Path, bits: int, warned: bool) -> None:
    bands(tmp_path, values=BANDS >> 16 - bits)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        ImageFolder(str(tmp_path), channels=5, **PLAIN)
    assert any("use a small part" in str(warning.message) for warning in found) == warned


def test_the_range_of_a_folder(tmp_path: Path) -> None:
    """None, "type", "data" and given numbers; they are stored with the reading."""
    low = BANDS // 16  # 12 bits
    bands(tmp_path, values=low)
    with pytest.warns(UserWarning, match=r"from 0 to 40\d\d in 3 of 3 pictures, use a small .*data, or to \[0, 4095\]"):
        data = ImageFolder(str(tmp_path), channels=5, **PLAIN)
    assert data.reading.range == "type" and data.reading.deep and "reduced" not in data.seen
    assert close(data.dataset("train")[0]["image"], floats(low))
    given = ImageFolder(str(tmp_path), channels=5, range=[0, 4095], **PLAIN)
    assert given.reading.range == (0, 4095) and given._pictures.cache is not None
    assert given._pictures.cache.dtype == torch.float32
    assert close(given.dataset("train")[0]["image"], floats(low, 0, 4095))
    found = ImageFolder(str(tmp_path), channels=5, range="data", **PLAIN)
    assert found.reading.range == (low.min(), low.max())
    prints = {module.dataset("train").fingerprint() for module in (data, given, found)}
    assert len(prints) == 3
    with pytest.warns(UserWarning, match="small part of 0 to 1e\\+06"):
        ImageFolder(str(tmp_path), channels=5, range=[0, 1e6], **PLAIN)


@pytest.mark.parametrize("kind", ["int16", "int32", "float32"])
def test_types_without_a_usual_range_need_one(tmp_path: Path, kind: str) -> None:
    bands(tmp_path, values=np.linspace(-1000, 3000, 48).reshape(6, 8).astype(kind), planarconfig=None)
    with pytest.raises(ValueError, match=rf"have {kind} values, from -1000 to 3000 in 3 of 3 .*set data.range to data"):
        ImageFolder(str(tmp_path), channels=1, **PLAIN)
    with pytest.raises(ValueError, match="set range to data"):
        Pictures(tmp_path)
    data = ImageFolder(str(tmp_path), channels=1, range=[-1000, 1000], **PLAIN)
    image = data.dataset("train")[0]["image"]
    assert image.min() == -1 and (image == 1).sum() == 24
    if kind == "float32":
        with pytest.raises(ValueError, match="float32 values, .* set data.range to data, or to"):
            ImageFolder(str(tmp_path), channels=1, range="type", **PLAIN)
    assert Pictures(tmp_path, range=[-1000, 3000])[0]["image"].float().mean() == pytest.approx(127.5, abs=1)


def test_8_bit_pictures_take_a_range_too(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[50] * 3, [100] * 3, [150] * 3]], np.uint8)).save(tmp_path / "a.png")
    data = ImageFolder(str(tmp_path), [1, 3], 1, range="data", num_workers=0, val_fraction=0)
    assert data.dataset("train")[0]["image"].flatten().tolist() == [-1, 0, 1]
    plain = ImageFolder(str(tmp_path), [1, 3], 1, range="type", num_workers=0, val_fraction=0)
    assert plain.dataset("train")[0]["image"].dtype == torch.uint8 and not plain.seen


# Alpha


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_kept(tmp_path: Path, channels: int) -> None:
    image = rgba().convert("LA" if channels == 2 else "RGBA")
    image.save(tmp_path / "a.png")
    Image.new("L", (8, 6), 9).save(tmp_path / "grey.png")
    values = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    data = ImageFolder(str(tmp_path), channels=channels, **PLAIN).dataset("train")
    assert torch.equal(data[0]["image"], values)
    assert data[1]["image"][:, 0, 0].tolist() == [*[9] * (channels - 1), 255]
    padded = Reading([6, 10], channels, "pad")(tmp_path / "a.png")
    assert torch.equal(padded[..., 1:-1], values) and not padded[..., 0].any()


@pytest.mark.parametrize("deep", [False, True])
def test_invisible_colours_have_no_weight_in_resampling(tmp_path: Path, deep: bool) -> None:
    image = Image.new("RGBA", (40, 40), (0, 255, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 20, 40))
    image.save(tmp_path / "a.png")
    small = Reading(8, 4, deep=deep)(tmp_path / "a.png")
    small = as_bytes(small[None])[0] if deep else small
    visible = small[3] > 8
    assert visible.float().mean() > 0.4 and (small[0][visible] > 245).all() and not small[1][visible].any()
    by_band = Reading(8, 4, deep=deep).image(upright(tmp_path / "a.png").resize((8, 8)))  # type: ignore[union-attr]
    assert by_band.shape == (4, 8, 8)


def test_deep_pictures_are_resampled_as_those_of_8_bits(tmp_path: Path) -> None:
    few = RNG.integers(70, 190, (4, 6, 4), dtype=np.uint8)
    image = Image.fromarray(few).resize((50, 30), Image.Resampling.BICUBIC)  # smooth: Pillow clips between two passes
    image.save(tmp_path / "a.png")
    image.convert("RGB").save(tmp_path / "b.png")
    for name, channels in (("a.png", 4), ("a.png", 2), ("a.png", 3), ("a.png", 1), ("b.png", 3), ("b.png", 1)):
        for size, fit in (([20, 24], "crop"), ([9, 30], "squeeze"), ([24, 24], "pad")):
            plain = Reading(size, channels, fit, "teal" if channels in (1, 3) else None)  # type: ignore[arg-type]
            deep = Reading(size, channels, fit, plain.background, deep=True)  # type: ignore[arg-type]
            one, other = plain(tmp_path / name), deep(tmp_path / name)
            if channels in (2, 4):  # invisible colours are free
                one, other = (
                    torch.cat([x[:-1] * (x[-1:] - low), x[-1:]]) for x, low in ((to_float(one), -1), (other, -1))
                )
            else:
                one = to_float(one)
            assert (one - other).abs().max() < 0.03, (name, channels, fit)
    values = np.linspace(0, 65535, 200 * 100).reshape(100, 200).astype(np.uint16)[..., None].repeat(5, 2)
    np.save(tmp_path / "a.npy", values)
    small = Reading([10, 10], 5, deep=True)(tmp_path / "a.npy")
    exact = np.asarray(
        Image.fromarray(values[:, 50:150, 0].astype(np.float32)).resize((10, 10), Image.Resampling.LANCZOS)
    )
    assert close(small, floats(exact[..., None].repeat(5, 2)))


def test_backgrounds(tmp_path: Path) -> None:
    image = Image.new("RGBA", (8, 6), (0, 0, 0, 0))
    image.save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(png16(np.zeros((6, 8, 4), np.uint16)))
    for name in ("a.png", "b.png"):
        for channels, colours in ((3, [255, 128, 0]), (1, [151])):
            for fit in ("crop", "pad"):
                read = Reading([9, 12], channels, fit, "#ff8000")(tmp_path / name)  # type: ignore[arg-type]
                assert (read.flatten(1).T - torch.tensor(colours)).abs().max() <= 1, (name, channels)
    for background, channels, words in (
        ("red", 4, "data.background is 'red', but only images of 1 or 3 channels have one, and data.channels is 4"),
        ("redd", 3, "background is 'redd', which is not a colour"),
    ):
        with pytest.raises(ValueError, match=words):
            ImageFolder(str(tmp_path), channels=channels, background=background, range="type", **PLAIN)
    with pytest.warns(UserWarning, match="2 of 2 pictures in .* have transparency and are put on red"):
        red = ImageFolder(str(tmp_path), background="red", range="type", **PLAIN)
    assert red.dataset("train")[0]["image"][:, 0, 0].tolist() == [1, -1, -1]


def test_associated_alpha_of_tiff_is_divided_out(tmp_path: Path) -> None:
    values = np.array([[[10_000, 0, 5_000, 30_000], [0, 0, 0, 0]]], np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", extrasamples=["assocalpha"])
    raster = upright(tmp_path / "a.tif")
    assert raster.values.tolist() == [[[21845, 0, 10922, 30_000], [0, 0, 0, 0]]]  # type: ignore[union-attr]


# What is refused or told


def test_pictures_of_other_channels_are_refused(tmp_path: Path) -> None:
    bands(tmp_path)
    with pytest.raises(
        ValueError, match=r"(?s)3 of 3 pictures in .* do not fit data.channels, which is 3: .*0.tif: 5 b.*to 5"
    ):
        ImageFolder(str(tmp_path), **PLAIN)
    rgba().convert("RGB").save(tmp_path / "colour.png")
    with pytest.raises(
        ValueError, match=r"(?s)1 of 4 .*which is 5: .*colour.png: 3 bands.*each kind into a folder of th"
    ):
        ImageFolder(str(tmp_path), channels=5, **PLAIN)
    with pytest.raises(ValueError, match=r"1 of 4 pictures .* 8x6 RGB, while 0.tif is 8x6 5 x uint16"):
        Pictures(tmp_path)
    plain = tmp_path / "plain"
    plain.mkdir()
    Image.new("RGB", (8, 6)).save(plain / "a.png")
    with pytest.warns(UserWarning, match="none of the 1 pictures .* has transparency.* set data.channels to 3"):
        ImageFolder(str(plain), channels=4, **PLAIN)
    (tmp_path / "frames").mkdir()
    tifffile.imwrite(tmp_path / "frames/a.tif", BANDS.transpose(2, 0, 1), photometric="minisblack")
    with pytest.raises(ValueError, match="(?s)which is 5: .*a.tif: 1 band.*frames are not bands"):
        ImageFolder(str(tmp_path / "frames"), channels=5, **PLAIN)


def test_mixed_depths_are_refused_or_scaled_by_type(tmp_path: Path) -> None:
    for i in range(3):
        Image.new("L", (8, 6), 51).save(tmp_path / f"{i}.png")
    (tmp_path / "deep.png").write_bytes(png16(np.full((6, 8, 1), 13107, np.uint16)))
    for options in ({}, {"range": "data"}, {"range": [0, 300]}):
        with pytest.raises(
            ValueError, match=r"(?s)1 of 4 pictures .* another depth than uint8: .*deep.png: uint16.*to type"
        ):
            ImageFolder(str(tmp_path), channels=1, **options, **PLAIN)
    data = ImageFolder(str(tmp_path), channels=1, range="type", **PLAIN).dataset("train")
    images = data.__getitems__(range(4))["image"]
    assert images.dtype == torch.float32 and torch.allclose(images, torch.full_like(images, -0.6))
    np.save(tmp_path / "ignored.npy", BANDS)
    seen = ImageFolder(str(tmp_path), channels=1, range="type", **PLAIN).seen
    assert seen == "3 uint8, 1 uint16, with the range of their type as -1 to 1; ignored: 1 .npy"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([1, 0], r"is \[1, 0\]; it takes \[lowest, highest\]"),
        ([0, float("nan")], r"it takes \[lowest, highest\]"),
        ([1], r"it takes one of type, data or \[lowest, highest\]"),
        ("auto", r"is 'auto'; it takes one of type, data or \[lowest, highest\]"),
    ],
)
def test_ranges_are_checked(tmp_path: Path, value: Any, words: str) -> None:
    bands(tmp_path)
    with pytest.raises(ValueError, match=words):
        ImageFolder(str(tmp_path), channels=5, range=value, **PLAIN)
    assert refusal([-1.5, 2], Bounds) is None


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    values = np.zeros((6, 8, 5), np.float32)
    values[1, 1, 1] = np.nan
    np.save(tmp_path / "a.npy", values)
    for range in ("data", [0, 1]):
        with pytest.raises(ValueError, match=r"a.npy cannot be read: values that are not finite; repair or remove it"):
            ImageFolder(str(tmp_path), channels=5, range=range, **PLAIN)
    with pytest.raises(ValueError, match="not finite"):
        Reading(8, 5, range=(0, 1), deep=True)(tmp_path / "a.npy")


def test_damaged_and_hostile_files_are_refused_by_their_headers(tmp_path: Path) -> None:
    def npy(shape: str, descr: str = "|u1", content: bytes = b"") -> bytes:
        text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + content

    def zipped(content: bytes, name: str = "a.npy") -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, content)
        return file.getvalue()

    objects = io.BytesIO()
    np.save(objects, np.array([{}], dtype=object), allow_pickle=True)
    good = npy("(6, 8, 5)", content=bytes(240))
    cases = {
        "claims": (npy("(9999, 9, 9999)"), "not that of an array"),
        "negative": (npy("(-2, -3, 5)", content=bytes(30)), "not that of an array"),
        "short": (good[:-1], "not that of an array"),
        "objects": (objects.getvalue(), "never unpickled"),
        "complex": (npy("(6, 8)", "<c8", bytes(384)), "complex64, not of integers"),
        "empty": (npy("(0, 8)"), "not that of an array"),
        "many": (npy("(2, 2, 6, 8)", content=bytes(192)), r"not a picture \[H, W\] or \[H, W, C\]"),
        "first": (npy("(5, 64, 96)", content=bytes(30720)), r"with 96 bands: put them last with numpy.moveaxis"),
        "no array": (b"PK", ""),
    }
    for name, (content, words) in cases.items():
        for suffix, text in {".npy": content, ".npz": zipped(content)}.items():
            file = tmp_path / f"{name}{suffix}"
            file.write_bytes(text)
            assert isinstance(seen := header(file), str) and seen, file
            assert words.replace("\\", "") in seen, (file, seen)
    (tmp_path / "bomb.npz").write_bytes(zipped(npy("(9000, 9000)", content=bytes(81_000_000))))
    with pytest.raises(ValueError, match="unpack|size"):
        Reading(8, 1)(tmp_path / "bomb.npz")
    (tmp_path / "none.npz").write_bytes(zipped(b"x", "a.txt"))
    assert header(tmp_path / "none.npz") == "it contains no array"
    tifffile.imwrite(tmp_path / "bomb.tif", np.zeros((3700, 3700, 5), np.uint8), compression="zlib", **CONTIG)
    assert "would unpack from" in str(header(tmp_path / "bomb.tif"))
    bands(tmp_path / "tiff", 1)
    whole = (tmp_path / "tiff/0.tif").read_bytes()
    tifffile.imwrite(tmp_path / "wide.tif", BANDS, **CONTIG)
    for i in range(4, len(whole) - 480, 3):  # every byte of the header
        (tmp_path / "wide.tif").write_bytes(whole[:i] + bytes([whole[i] ^ 0xFF]) + whole[i + 1 :])
        if not isinstance(header(tmp_path / "wide.tif"), str):
            try:
                read = Reading(None, 5)(tmp_path / "wide.tif")
            except Exception as error:
                assert str(error)
            else:
                assert read.numel() < 1e6


def test_without_tifffile_its_files_are_refused_with_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bands(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    with pytest.raises(ValueError, match=r'0.tif: more bits or bands than Pillow reads.*pip install "ganzoo\[tiff\]"'):
        ImageFolder(str(tmp_path), channels=5, **PLAIN)


# Other data modules


def test_pairs_of_other_channels_and_depths(tmp_path: Path) -> None:
    bands(tmp_path / "images")
    (tmp_path / "sources").mkdir()
    for i in range(3):
        rgba(seed=i).save(tmp_path / f"sources/{i}.png")
    options: dict[str, Any] = {"channels": 5, "source_channels": 4, **PLAIN}
    where = str(tmp_path / "images"), str(tmp_path / "sources")
    values = torch.from_numpy(np.array(rgba())).permute(2, 0, 1)
    pair = PairedFolder(*where, **options)
    assert pair.seen.startswith("image: 3 uint16, ") and pair.seen.endswith(
        "source: 3 with transparency, which is kept"
    )
    batch = pair.dataset("train")[0]
    assert close(batch["image"], floats(BANDS)) and (batch["source"] - to_float(values)).abs().max() < 1e-6
    unpaired = UnpairedFolder(*where, **options).dataset("train")[0]
    assert close(unpaired["image"], floats(BANDS)) and torch.equal(unpaired["source"], values)
    with pytest.raises(ValueError, match="do not fit data.source_channels, which is 5"):
        PairedFolder(*where, **{**options, "source_channels": 5})
    with pytest.raises(ValueError, match="data.background is 'red', but"):
        PairedFolder(*where, background="red", **options)
    beside = bands(tmp_path / "beside", values=np.concatenate([BANDS, BANDS[::-1]], axis=1))
    halves = PairedFolder(str(beside), channels=5, source_channels=5, **PLAIN).dataset("train")[0]
    assert close(halves["source"], floats(BANDS)) and close(halves["image"], floats(BANDS[::-1]))


def test_shards_keep_alpha_and_bands_and_refuse_depth(tmp_path: Path) -> None:
    folder = bands(tmp_path / "bands", values=(BANDS // 257).astype(np.uint8))
    prepare(str(folder), str(tmp_path / "out"), channels=5)
    shards = Shards(str(tmp_path / "out"), val_fraction=0, num_workers=0)
    plain = ImageFolder(str(folder), channels=5, **PLAIN)
    for i in range(3):
        assert torch.equal(shards.dataset("train")[i]["image"], plain.dataset("train")[i]["image"])
    assert shards.channels == 5 and shards.reading == plain.reading
    with pytest.raises(
        ValueError, match=r"(?s)8 bits per channel, but 3 of 3 pictures have more: .*0.tif: uint16.*folder itself"
    ):
        prepare(str(bands(tmp_path / "deep")), str(tmp_path / "other"), channels=5)
    clear = tmp_path / "clear"
    clear.mkdir()
    rgba().save(clear / "a.png")
    prepare(str(clear), str(tmp_path / "red"), background="red")
    with pytest.raises(ValueError, match="contains shards with background red, not none"):
        prepare(str(clear), str(tmp_path / "red"))
    red = Shards(str(tmp_path / "red"), val_fraction=0, num_workers=0).dataset("train")
    assert red[0]["image"][:, 0, 0].tolist() == [255, 0, 0]


def test_pictures_for_scores_are_what_they_are(tmp_path: Path) -> None:
    found = Pictures(bands(tmp_path / "bands"))
    assert (found.channels, found.deep) == (5, True)
    assert torch.equal(found[0]["image"], torch.from_numpy((BANDS / 257).round().astype(np.uint8)).permute(2, 0, 1))
    clear = tmp_path / "clear"
    clear.mkdir()
    for i in range(2):
        rgba(seed=i).save(clear / f"{i}.png")
    assert Pictures(clear).channels == 3
    assert torch.equal(Pictures(clear, 4)[0]["image"], torch.from_numpy(np.array(rgba())).permute(2, 0, 1))
    arrays = np.stack([BANDS, BANDS[::-1]])
    for name in ("a.npy", "a.npz"):
        np.save(tmp_path / name, arrays) if name == "a.npy" else np.savez(tmp_path / name, arrays)
        data = Pictures(tmp_path / name)
        assert (data.channels, data.deep) == (5, True) and torch.equal(data[0]["image"], found[0]["image"])
        assert Pictures(tmp_path / name, image_size=4)[0]["image"].shape == (5, 4, 4)
    np.save(tmp_path / "a.npy", arrays.transpose(0, 3, 1, 2)[:, :4])
    with pytest.raises(ValueError, match="not images as uint8 or uint16"):
        Pictures(tmp_path / "a.npy")


# Grids and scores


def test_grids_show_alpha_on_a_checkerboard_and_chosen_bands() -> None:
    images = torch.full((2, 4, 16, 16), -1.0)
    images[0, 3, :8] = 1
    seen = shown(images)
    assert seen.dtype == torch.uint8 and not seen[0, :, :8].any()
    assert seen[1, :, 0, [0, 1, 2, 3]].T.tolist() == [[205] * 3, [205] * 3, [255] * 3, [255] * 3]
    assert seen[1, 0, [0, 1, 2, 3], 0].tolist() == [205, 205, 255, 255]
    half = torch.tensor([-1.0, 0.0])[None, :, None, None].expand(1, 2, 16, 16)
    assert shown(half)[0, 0, 0, 0] == round(205 * 127 / 255) and shown(half).shape[1] == 1
    five = torch.linspace(-1, 1, 5)[None, :, None, None].expand(1, 5, 8, 8)
    assert shown(five)[0, :, 0, 0].tolist() == [-1, -0.5, 0] and shown(five, [4, 0, 0])[0, :, 0, 0].tolist() == [
        1,
        -1,
        -1,
    ]
    assert picture(five, 1, 8, bands=[4]).getpixel((2, 2)) in (255, (255, 255, 255))
    assert above(shown(images), shown(five.expand(2, -1, -1, -1)[..., :8]).repeat(1, 1, 2, 2), 1).shape == (
        4,
        3,
        16,
        16,
    )
    assert [to_pil(x)[0].mode for x in (images, half, images[:, :3])] == ["RGBA", "LA", "RGB"]
    with pytest.raises(ValueError, match="images of 5 channels cannot be drawn"):
        to_pil(five)
    for bad, words in (([5, 0, 0], "bands are 0 to 4"), ([0, 1], "takes one or three"), ([-1], "takes one or three")):
        with pytest.raises(ValueError, match=words):
            shown(five, bad)
    with pytest.raises(ValueError, match="bands is .*; it takes one or three numbers from 0 up"):
        Samples(bands=[0, 1])


@pytest.mark.parametrize("deep", [True, False])
def test_records_say_that_deep_pictures_of_any_data_module_are_reduced(deep: bool) -> None:
    reading = SimpleNamespace(deep=deep)
    for data in (SimpleNamespace(reading=reading), SimpleNamespace(readings={"image": reading})):
        assert reduced(data) == ({"depth": "reduced to 8 bits"} if deep else {})


def test_scores_of_other_channels_take_an_extractor_of_ones_own(tmp_path: Path) -> None:
    folder = bands(tmp_path / "bands", 8)
    for name in ("inception", "digits"):
        with pytest.raises(
            ValueError, match=rf"'{name}' reads \d channels?, but the images have 5: use a network of your"
        ):
            assemble(folder, folder, ["fid"], extractor=name)
    with pytest.raises(
        ValueError, match="fid needs an extractor, and no extractor here reads 5 channels; in Python, give one of your"
    ):
        assemble(folder, folder, ["fid"])
    with pytest.raises(ValueError, match="can be computed from these images: no extractor here reads 5 channels"):
        assemble(folder, folder)
    own = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(240, 2))
    report = assemble(folder, folder, ["fid"], extractor=own).run()
    assert report.scores[0].protocol["depth"] == "reduced to 8 bits" and report.scores[0].value == pytest.approx(
        0, abs=1e-6
    )
    plain = bands(tmp_path / "plain", 8, (BANDS // 257).astype(np.uint8))
    assert "depth" not in assemble(plain, plain, ["fid"], extractor=own).protocols[0]


# Commands


def run(words: str, *more: str) -> int:
    return main([*words.split(), *more])


def test_commands_with_bands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    bands(tmp_path / "five", 4, BANDS.repeat(2, 0).repeat(2, 1) // 16)
    assert run("checks --data five") == 0
    told = capsys.readouterr().out
    assert re.search(
        r"\ndepth: 4 uint16 from \d+ to 40\d\d; read as floats, without loss; data.range is mapped to -1 to 1\n", told
    )
    assert "bands: 4 with 5" in told and told.endswith("--data.path five --data.channels 5 --data.range data\n")
    fit = (
        "fit --model DCGAN --model.width 2 --data ImageFolder --data.path five --data.image_size 8 --data.batch_size 2"
    )
    fit += " --data.num_workers 0 --data.val_fraction 0 --trainer.max_steps 1 --samples.rows 2 --samples.columns 2"
    fit += " --trainer.enable_progress_bar false"
    assert run(f"{fit} --data.channels 3") == 2
    assert "4 of 4 pictures in " in (error := capsys.readouterr().err) and "set data.channels to 5" in error
    assert run(f"{fit} --data.channels 5 --data.range [0,4095] --samples.bands [5,1,0]") == 2
    assert "samples.bands is [5, 1, 0], but the images' bands are 0 to 4: choose from these" in capsys.readouterr().err
    assert not [*Path("runs").glob("*")]
    assert run(f"{fit} --data.channels 5 --data.range [0,4095] --samples.bands [4,1,0]") == 0
    assert "pictures: 4 uint16, with 0 to 4095 as -1 to 1" in capsys.readouterr().err
    (folder,) = Path("runs").iterdir()
    assert Image.open(folder / "reals.png").getbands() == ("R", "G", "B")
    assert run(f"sample {folder} -n 2 --format png --depth 16 --outdir a") == 0
    with tifffile.TiffFile("a/seed000001.tif") as tiff:
        assert (page := tiff.pages[0]).shape == (8, 8, 5) and page.dtype == np.uint16  # type: ignore[union-attr]
    assert run(f"sample {folder} -n 2 --format npy --depth 16 --outdir a") == 0
    images = np.load("a/samples.npy")
    assert images.shape == (2, 8, 8, 5) and images.dtype == np.uint16
    assert np.array_equal(tifffile.imread("a/seed000001.tif"), images[1])
    assert run(f"sample {folder} -n 2 --bands 4,3,9") == 2
    assert "--bands is [4, 3, 9], but the images' bands are 0 to 4" in capsys.readouterr().err
    assert run(f"sample {folder} -n 2 --depth 16") == 2
    assert "a grid has 8 bits per channel; use --format png or npy" in capsys.readouterr().err
    assert run(f"evaluate {folder} -n 4") == 2
    assert "no extractor here reads 5 channels; in Python, give one of your own" in capsys.readouterr().err
    assert run(f"evaluate {folder} -n 4 --extractor inception --metrics fid") == 2
    assert "'inception' reads 3 channels, but the images have 5: use a network of your own" in capsys.readouterr().err
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(320, 2))
    data = ImageFolder("five", 8, 5, range=[0, 4095], num_workers=0, val_fraction=0)
    report = ganzoo.evaluate(ganzoo.load(folder), data, ["fid"], n=4, extractor=network)
    assert report.scores[0].protocol["depth"] == "reduced to 8 bits"


@pytest.mark.parametrize("name", ["GAN", "WGAN", "EBGAN", "LAPGAN", "LSGAN"])
def test_variants_train_on_alpha(tmp_path: Path, name: str) -> None:
    rgba((16, 16)).save(tmp_path / "a.png")
    rgba((16, 16), 1).save(tmp_path / "b.png")
    data = ImageFolder(str(tmp_path), 16, 4, num_workers=0, val_fraction=0, batch_size=2)
    model = getattr(ganzoo, name)(**{**small(name), "image_size": 16, "channels": 4})
    training(model, data, steps=1)
    assert model.sample(2, seeds=[0, 1]).shape == (2, 4, 16, 16)
    assert [image.mode for image in model.sample(1, seeds=[0], output_type="pil")] == ["RGBA"]


@pytest.mark.parametrize("order", "<>")
def test_grey_of_16_bits_whose_0_is_white_is_inverted(tmp_path, order):
    values = np.array([[0, 1000], [40_000, 65_535]], np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite", byteorder=order)
    found = upright(tmp_path / "a.tif")
    assert np.array_equal(found.values[..., 0], 65_535 - values)


@pytest.mark.parametrize("bands", [2, 4])
def test_checks_suggests_channels_for_bands_without_opacity(tmp_path, capsys, bands):
    for i in range(4):
        np.save(tmp_path / f"{i}.npy", RNG.integers(0, 255, (16, 16, bands), np.uint8))
    assert main(["checks", "--data", str(tmp_path)]) == 0
    assert f"--data.channels {bands}" in capsys.readouterr().out
