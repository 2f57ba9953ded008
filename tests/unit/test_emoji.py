"""Noto's emoji: pixels, labels, splits, and the script that builds them."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import avg_pool2d

from ganzoo.data import Emoji, Tones
from ganzoo.data.base import Split
from ganzoo.data.emoji import FILES, PACKAGE, PORTRAITS, Picture, classes, of, pictures, sheet
from tests.campaigns import emoji

SPLITS: tuple[Split, ...] = ("train", "val", "test")
HASHES = {  # sha256 of the decoded RGBA pixels
    "all-32.webp": "308e2817d42a8de354a1a9f96c50236a4b216e922f8815c1472204438fd6ff75",
    "portraits-64.webp": "273f7bdfbef0a9a2a45c0466ab217acc32b28796f342891d39fec7b975934b17",
}


def decoded(path: Path) -> str:
    with Image.open(path) as file:
        assert file.mode == "RGBA"
        return hashlib.sha256(np.asarray(file).tobytes()).hexdigest()


def picture(code: str) -> Picture:
    (found,) = (p for p in pictures() if p.code == code)
    return found


@pytest.mark.parametrize("name", HASHES)
def test_shipped_pixels(name: str) -> None:
    assert decoded(FILES / name) == HASHES[name]


def test_shipped_labels() -> None:
    content = (FILES / "labels.json").read_bytes()
    assert hashlib.sha256(content).hexdigest() == "9250dfc8868a884695433ac52d47deac1a7090fca24cb065eb6c52b96f58f989"


def test_sizes_of_subsets_and_splits() -> None:
    sizes = {subset: [len(of(subset, split)) for split in SPLITS] for subset in ("all", "portraits")}
    assert sizes == {"all": [2607, 389, 505], "portraits": [628, 96, 93]}
    assert {name: len(classes(name)) for name in ("category", "tone", "gender", "role")} == {
        "category": 8,
        "tone": 6,
        "gender": 3,
        "role": 52,
    }
    assert len({p.subcategory for p in pictures()}) == 95


def test_siblings_share_a_split() -> None:
    splits = defaultdict(set)
    for p in pictures():
        splits[p.base].add(p.split)
        splits[p.role].add(p.split) if p.role else None
    assert {len(found) for found in splits.values()} == {1}


def test_pictures_are_unique() -> None:
    assert len(sheet("all-32.webp")[: len(pictures())].flatten(1).unique(dim=0)) == len(pictures()) == 3501


def test_labels_of_known_pictures() -> None:
    farmer = picture("1F469-1F3FF-200D-1F33E")
    assert farmer[1:8] == ("WOMAN FARMER", "People & Body", "person-role", 5, "woman", "farmer", "1F469-200D-1F33E")
    assert picture("1F934-1F3FB")[4:7] == (1, "man", "royalty")
    assert picture("1F9D1-200D-1F384")[4:7] == (0, "person", "Claus")
    assert picture("1F468-200D-1F468-200D-1F466")[4:7] == (None, None, "family")
    assert picture("1F34E")[2:8] == ("Food & Drink", "food-fruit", None, None, None, "1F34E")
    assert picture("1F9D1-1F3FC-200D-1F91D-200D-1F9D1-1F3FE")[4:7] == (None, None, "holding hands")
    runner = "1F3C3-1F3FB-200D-2640-FE0F-200D-27A1-FE0F"
    assert picture(runner)[4:7] == (1, "woman", picture("1F3C3").role)


@pytest.mark.parametrize("factor, value", [("tone", 3), ("gender", "woman"), ("role", "farmer")])
def test_labels_of_data_are_the_factors(factor: str, value: object) -> None:
    data = Emoji("portraits", label=factor)  # type: ignore[arg-type]
    known = [getattr(pictures()[i], factor) == value for i in of("portraits", "train")]
    target = value if isinstance(value, int) else data.classes.index(str(value))
    labels = data.dataset("train").labels()
    assert labels is not None and (labels == target).tolist() == known and any(known)
    assert data.num_classes == len(data.classes) and data.extractor == f"emoji-{factor}"


def test_a_limit_thins_the_training_pictures_evenly() -> None:
    few, more = (Emoji("portraits", label="role", limit=n) for n in (100, 200))
    known = {image.numpy().tobytes() for image in Emoji("portraits").dataset("train").images}
    thin, thick = ([image.numpy().tobytes() for image in data.dataset("train").images] for data in (few, more))
    assert len(set(thin)) == 100 and len(set(thick)) == 200 and set(thin) < set(thick) < known
    roles = Emoji("portraits", label="role").dataset("train").labels()
    chosen = few.dataset("train").labels()
    assert roles is not None and chosen is not None
    absent = [label for label in range(52) if label not in roles]
    assert len(absent) == 12 and absent == Emoji("portraits", label="role").absent() == more.absent()
    assert Emoji("portraits").absent() == []
    found, all_of = chosen.bincount(minlength=52), roles.bincount(minlength=52)
    assert ((found == found.max()) | (found == found.max() - 1) | (found == all_of)).all()
    assert thin != thick[:100] and few.name == "Portraits-100"
    assert len(few.dataset("val")) == 96 and len(Emoji("portraits", limit=10**6).dataset("train")) == 628
    assert len(Emoji(limit=50).dataset("train")) == 50


def test_images_are_put_on_white() -> None:
    with Image.open(FILES / "all-32.webp") as file:
        tile = np.asarray(file)[32:64, 64:96].astype(int)  # picture 66
    image = sheet("all-32.webp")[66].permute(1, 2, 0).numpy()
    clear, opaque = tile[..., 3] == 0, tile[..., 3] == 255
    assert (image[clear] == 255).all() and (image[opaque] == tile[..., :3][opaque]).all()
    half = ~clear & ~opaque
    expected = 255 + (tile[..., :3] - 255) * tile[..., 3:] / 255
    assert half.any() and abs(image - expected).max() <= 0.5


def test_both_sizes_show_the_same_portraits() -> None:
    small, large = (Emoji("portraits", image_size=size).dataset("test") for size in (32, 64))
    difference = avg_pool2d(large.images.float(), 2) - small.images
    assert large.images.shape == (93, 3, 64, 64) and difference.abs().max() <= 1.5


def test_tones_are_pairs_of_the_same_people() -> None:
    data = Tones("medium", "yellow")
    by_pixels = {image.numpy().tobytes(): p for image, p in zip(sheet("all-32.webp"), pictures(), strict=False)}
    sizes = []
    for split in SPLITS:
        batch = data.dataset(split).__getitems__(range(len(data.dataset(split))))
        sources, images = ([by_pixels[x.numpy().tobytes()] for x in batch[key]] for key in ("source", "image"))
        assert [p.base for p in sources] == [p.base for p in images] and {p.split for p in images} == {split}
        assert {p.tone for p in sources} == {3} and {p.tone for p in images} == {0}
        assert batch["label"].unique().tolist() == [0]
        sizes.append(len(images))
    assert sizes == [104, 16, 15]


def test_unpaired_tones_have_no_person_in_both() -> None:
    data = Tones(paired=False, batch_size=52)
    (batch,) = data.train_dataloader()
    by_pixels = {image.numpy().tobytes(): p for image, p in zip(sheet("all-32.webp"), pictures(), strict=False)}
    sources, images = ({by_pixels[x.numpy().tobytes()].base for x in batch[key]} for key in ("source", "image"))
    assert len(sources) == len(images) == 52 and not sources & images
    assert len(data.dataset("train")) == 52 and len(data.dataset("val")) == 16


def test_distances_and_white_pixels_of_the_guide() -> None:
    """Medians over the portraits of the distance to the nearest neighbour: any, of another base, of another role."""
    rows = [p for p in pictures() if p.subcategory in PORTRAITS]
    images = sheet("all-32.webp")[: len(pictures())]
    x = torch.stack([image for image, p in zip(images, pictures(), strict=True) if p in rows]).flatten(1) / 255
    distance = torch.cdist(x, x) / x.shape[1] ** 0.5
    found = []
    for key in ([p.code for p in rows], [p.base for p in rows], [p.role for p in rows]):
        same = torch.tensor([[a == b for b in key] for a in key])
        found.append(distance.masked_fill(same, torch.inf).amin(1).median().item())
    assert found == pytest.approx([0.060, 0.126, 0.194], abs=6e-4)
    assert (images == 255).all(1).double().mean().item() == pytest.approx(0.40, abs=0.005)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"subset": "cats"}, "subset"),
        ({"label": "age"}, "label"),
        ({"label": "tone"}, "label is tone, which the subset all does not have: set subset to portraits"),
        ({"subset": "portraits", "label": "category"}, "choose tone, gender or role"),
        ({"limit": 0}, "limit"),
        ({"image_size": 64}, "the subset all has 32 pixels per side: for other sizes, run npm pack.*ImageFolder"),
        ({"subset": "portraits", "image_size": 48}, "the subset portraits has 32 and 64 pixels per side"),
    ],
)
def test_unknown_subsets_factors_and_sizes_are_refused(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Emoji(**arguments)  # type: ignore[arg-type]


def test_equal_tones_are_refused() -> None:
    with pytest.raises(ValueError, match="both dark: choose two different tones"):
        Tones("dark", "dark")


# The script that builds the files


def package(emojis: list[dict[str, object]], images: dict[str, np.ndarray]) -> tarfile.TarFile:
    """An archive in the npm package's layout."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:

        def add(name: str, content: bytes) -> None:
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))

        add("emoji.json", json.dumps(emojis).encode())
        for name, pixels in images.items():
            png = io.BytesIO()
            Image.fromarray(pixels).save(png, "PNG")
            add(f"img/google/64/{name}", png.getvalue())
    file.seek(0)
    return tarfile.open(fileobj=file)


def entry(code: str, category: str = "Symbols", **other: object) -> dict[str, object]:
    words = {"name": code, "category": category, "subcategory": "symbol", "sort_order": int(code, 16)}
    return {"unified": code, "image": f"{code.lower()}.png", **words, **other}


def test_build_leaves_out_flags_and_copies_and_averages_by_alpha(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = {f"{i}.png": rng.integers(0, 256, (64, 64, 4), np.uint8) for i in range(1, 6)}
    images["3.png"] = images["2.png"]
    images["1.png"][:2, :2] = [[[200, 0, 0, 100], [100, 0, 0, 50]], [[9, 9, 9, 0], [7, 0, 0, 0]]]
    images["1.png"][2:4, :2] = [9, 9, 9, 0]
    entries = [entry(str(i), "Flags" if i == 5 else "Symbols") for i in (4, 5, 3, 2, 1)]
    entries[0]["subcategory"] = "person"
    emoji.build(package(entries, images), tmp_path)
    rows = json.loads((tmp_path / "labels.json").read_text())
    assert rows[0] == list(Picture._fields) and [row[0] for row in rows[1:]] == ["1", "2", "4"]
    with Image.open(tmp_path / "all-32.webp") as file:
        pixels = np.asarray(file)
    assert pixels[0, 0].tolist() == [167, 0, 0, 38]  # (200 * 100 + 100 * 50) / 150, 150 / 4
    assert pixels[1, 0].tolist() == [0, 0, 0, 0]


def test_groups_are_split_within_their_category() -> None:
    rows = [Picture(str(i), "", f"c{i % 2}", "", None, None, None, str(i // 4 * 2 + i % 2), "train") for i in range(64)]
    found = emoji.with_splits(rows)
    splits = {(p.category, p.base): p.split for p in found}
    counts = {c: [sum(s == split for (k, _), s in splits.items() if k == c) for split in SPLITS] for c in ("c0", "c1")}
    assert counts == {"c0": [12, 2, 2], "c1": [12, 2, 2]}


@pytest.mark.network
@pytest.mark.slow
def test_build_gives_the_shipped_files(tmp_path: Path) -> None:
    npm = shutil.which("npm") or pytest.skip("needs npm")
    subprocess.run([npm, "pack", PACKAGE], cwd=tmp_path, check=True)
    (file,) = tmp_path.glob("*.tgz")
    emoji.main([str(file), "--out", str(tmp_path)])
    assert {name: decoded(tmp_path / name) for name in HASHES} == HASHES
    assert (tmp_path / "labels.json").read_bytes() == (FILES / "labels.json").read_bytes()


def test_other_packages_are_refused(tmp_path: Path) -> None:
    (tmp_path / "package.tgz").write_bytes(b"")
    with pytest.raises(SystemExit, match="is not emoji-datasource-google 16.0.0: sha256 e3b0c442"):
        emoji.main([str(tmp_path / "package.tgz"), "--out", str(tmp_path)])
