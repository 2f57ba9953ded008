"""Builds the sheets and labels of `Emoji` from an npm package: `python -m tests.campaigns.emoji PACKAGE.tgz --out DIR`.

`npm pack emoji-datasource-google@16.0.0` downloads the package. The pixels do not depend on Pillow's version; the bytes
of the files are those of Pillow 13.0.0 with libwebp 1.6.0.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ganzoo.data.emoji import ACROSS, GENDERS, PORTRAITS, Picture

SHA256 = "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438"  # of the package
LEFT_OUT = ("Flags", "Component")
HELD_OUT = 8  # one group in eight for val, and one for test

TONES = ("1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF")  # light to dark
SIGNS = {"2640": "woman", "2642": "man"}
PEOPLE = {"1F468": "man", "1F469": "woman", "1F9D1": "person"}
NOT_OF_ROLE = {*TONES, *SIGNS, "200D", "FE0F", "27A1"}  # code points of tone, gender and direction
GENDERED = {  # people whose gender is not a code point of its own; all others are "person"
    "woman": {"1F467", "1F475", "1F478", "1F930", "1F931", "1F936", "1F9D5"},
    "man": {"1F466", "1F474", "1F385", "1F934", "1FAC3"},
}
SIBLINGS = {  # roles with several base emoji
    "child": {"1F466", "1F467", "1F9D2"},
    "adult": {"1F9D1"},
    "older adult": {"1F474", "1F475", "1F9D3"},
    "royalty": {"1F478", "1F934", "1FAC5"},
    "pregnant": {"1F930", "1FAC3", "1FAC4"},
    "Claus": {"1F385", "1F936", "1F9D1-1F384"},
    "blond hair": {"1F471"},
    "beard": {"1F9D4"},
    "guard": {"1F482"},
    "turban": {"1F473"},
    "skullcap": {"1F472"},
    "veil": {"1F470"},
    "tuxedo": {"1F935"},
    "headscarf": {"1F9D5"},
    "dancing": {"1F483", "1F57A"},
    "holding hands": {"1F46B", "1F46C", "1F46D", "1F9D1-1F91D-1F9D1"},
    "kiss": {"1F48F", "1F9D1-2764-1F48B-1F9D1"},
    "couple": {"1F491", "1F9D1-2764-1F9D1"},
}
ROLES = {code: role for role, codes in SIBLINGS.items() for code in codes}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m tests.campaigns.emoji", description=__doc__)
    parser.add_argument("package", type=Path, metavar="PACKAGE.tgz")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="gets the sheets and labels.json")
    options = parser.parse_args(arguments)
    content = options.package.read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != SHA256:
        raise SystemExit(f"{options.package} is not emoji-datasource-google 16.0.0: sha256 {found}")
    with tarfile.open(fileobj=io.BytesIO(content)) as package:
        build(package, options.out)
    return 0


def build(package: tarfile.TarFile, out: Path) -> None:
    """Writes both sheets and the labels."""
    images, rows = unique(package)
    labels = with_splits(rows)
    small = [halved(image) for image in images]
    assert len({on_white(image) for image in small}) == len(small), "copies at 32x32"
    out.mkdir(parents=True, exist_ok=True)
    portraits = [image for image, row in zip(images, labels, strict=True) if row.subcategory in PORTRAITS]
    for name, pictures in (("all-32.webp", small), ("portraits-64.webp", portraits)):
        tiled(pictures).save(out / name, lossless=True, exact=True, quality=100, method=6)
    lines = ",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in labels)
    (out / "labels.json").write_text(f"[\n{json.dumps(Picture._fields)},\n{lines}\n]\n", encoding="utf-8")


def unique(package: tarfile.TarFile) -> tuple[list[Image.Image], list[Picture]]:
    """The pictures [64, 64] in Unicode's order, with their labels, but for exact copies of earlier ones."""
    seen: set[bytes] = set()
    images, rows = [], []
    for row, file in listed(json.loads(read(package, "emoji.json"))):
        image = Image.open(io.BytesIO(read(package, f"img/google/64/{file}"))).convert("RGBA")
        pixels = np.array(image)
        pixels[pixels[..., 3] == 0] = 0  # the colour of what is transparent
        if pixels.tobytes() not in seen:
            seen.add(pixels.tobytes())
            images.append(Image.fromarray(pixels))
            rows.append(row)
    return images, rows


def read(package: tarfile.TarFile, name: str) -> bytes:
    file = package.extractfile(f"package/{name}")
    assert file is not None
    return file.read()


def listed(emoji: list[dict[str, Any]]) -> Iterator[tuple[Picture, str]]:
    """Labels, without the split, and file of each picture and its skin variations, in Unicode's order."""
    for entry in sorted(emoji, key=lambda entry: entry["sort_order"]):
        if entry["category"] not in LEFT_OUT:
            for picture in (entry, *entry.get("skin_variations", {}).values()):
                yield labelled(entry, picture["unified"]), picture["image"]


def labelled(entry: dict[str, Any], code: str) -> Picture:
    base, name, category, sub = (entry[key] for key in ("unified", "name", "category", "subcategory"))
    parts = code.split("-")
    tones = [TONES.index(part) + 1 for part in parts if part in TONES]
    single = len({*tones}) <= 1 and ("skin_variations" in entry or sub in PORTRAITS)
    person = sub.startswith("person-") and sub != "person-symbol" or sub == "person"
    return Picture(
        *(code, name, category, sub),
        tone=(tones[0] if tones else 0) if single else None,
        gender=gender(parts) if person else None,
        role=role(name, parts) if person or sub in ("family", "person-symbol") else None,
        base=base,
        split="",
    )


def gender(parts: list[str]) -> str:
    known = [SIGNS[part] for part in parts if part in SIGNS] or [PEOPLE[part] for part in parts[:1] if part in PEOPLE]
    other = next((gender for gender, codes in GENDERED.items() if parts[0] in codes), GENDERS[0])
    return known[0] if known else other


def role(name: str, parts: list[str]) -> str:
    """The role of people; the same for all genders, tones and directions."""
    if name.startswith("FAMILY"):
        return "family"
    code = "-".join("1F9D1" if part in PEOPLE else part for part in parts if part not in NOT_OF_ROLE)
    if code in ROLES:
        return ROLES[code]
    words = re.sub(r" FACING RIGHT$|^PERSON:? (IN |WITH |DOING )?|^(WO)?MAN:? (IN |WITH )?", "", name)
    return ROLES.setdefault(code, words.lower())


def with_splits(rows: list[Picture]) -> list[Picture]:
    """Splits by role, or by base emoji of what has none, so that siblings share a split. Of each category's groups, and
    of the portraits', one in `HELD_OUT` is in val and one in test, in the order of their hashes."""
    pools: dict[tuple[str, bool], set[str]] = defaultdict(set)
    for row in rows:
        pools[row.category, row.subcategory in PORTRAITS].add(row.role or row.base)
    splits: dict[str, str] = {}
    for groups in pools.values():
        order = sorted(groups, key=lambda group: hashlib.sha256(group.encode()).digest())
        n = round(len(order) / HELD_OUT)
        for i, group in enumerate(order):
            assert group not in splits, f"{group} is in two pools"
            splits[group] = "val" if i < n else "test" if i < 2 * n else "train"
    return [row._replace(split=splits[row.role or row.base]) for row in rows]


def halved(image: Image.Image) -> Image.Image:
    """Each pixel the mean of four, weighted by alpha."""
    pixels = np.array(image).astype(np.uint32).reshape(32, 2, 32, 2, 4)
    alpha = pixels[..., 3:].sum((1, 3))
    colour = ((pixels[..., :3] * pixels[..., 3:]).sum((1, 3)) * 2 + alpha) // np.maximum(2 * alpha, 1)
    return Image.fromarray(np.concatenate([colour, (alpha + 2) // 4], -1).astype(np.uint8))


def on_white(image: Image.Image) -> bytes:
    sheet = Image.new("RGBA", image.size, "white")
    sheet.alpha_composite(image)
    return sheet.tobytes()


def tiled(pictures: list[Image.Image]) -> Image.Image:
    """All pictures, `ACROSS` to a row."""
    side = pictures[0].width
    sheet = Image.new("RGBA", (ACROSS * side, -(-len(pictures) // ACROSS) * side))
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i % ACROSS * side, i // ACROSS * side))
    return sheet


if __name__ == "__main__":
    raise SystemExit(main())
