"""Shards give the batches of their source folder, also after resuming, and detect damage."""

from __future__ import annotations

import gc
import json
import os
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ganzoo import DCGAN
from ganzoo.cli import main
from ganzoo.cli.errors import mid_run
from ganzoo.data import ImageFolder, Shards, rows
from ganzoo.data.prepare import prepare
from ganzoo.data.shards import Shard, schema
from ganzoo.testing import _SaveAt, fit
from tests.benchmarks import __main__ as bench
from tests.benchmarks import shards as bench_shards

pa = pytest.importorskip("pyarrow", reason='shards need pip install "ganzoo[shards]"')
SIZE, N = 8, 30


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    for i in range(N):
        file = folder / "ab"[i % 2] / f"{i:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (10, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file)
    return folder


@pytest.fixture
def out(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five shards: four of seven pictures, the last of two."""
    monkeypatch.setattr("ganzoo.data.prepare.SHARD", 7 * 3 * SIZE * SIZE)
    prepare(str(pictures), str(tmp_path / "out"), image_size=SIZE, labels=True)
    return tmp_path / "out"


def shards(out: Path, **options: Any) -> Shards:
    return Shards(str(out), **{"batch_size": 4, "num_workers": 0, "flip": True, "val_fraction": 0.3, **options})


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_equal_those_of_the_source_folder(pictures: Path, out: Path, workers: int) -> None:
    options: dict[str, Any] = {"batch_size": 4, "val_fraction": 0.3, "flip": True, "seed": 3}
    folder = ImageFolder(str(pictures), SIZE, labels=True, num_workers=0, **options)
    mine = shards(out, num_workers=workers, seed=3)
    facts = ("name", "image_size", "channels", "classes", "num_classes", "extractor")
    assert [getattr(mine, fact) for fact in facts] == [getattr(folder, fact) for fact in facts]
    for name in ("train_dataloader", "val_dataloader", "test_dataloader", "train_dataloader"):
        a, b = list(getattr(folder, name)()), list(getattr(mine, name)())
        assert len(a) == len(b) > 0
        for x, y in zip(a, b, strict=True):
            assert x.keys() == y.keys() and all(torch.equal(x[key], y[key]) for key in x)
    for split in ("train", "val"):
        assert torch.equal(mine.dataset(split).labels(), folder.dataset(split).labels())
        assert mine.dataset(split)[0]["image"].shape == (3, SIZE, SIZE)


@pytest.mark.parametrize("kind", ["zip", "splits", "dataset.json"])
def test_shards_of_every_layout_equal_the_folder(
    pictures: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ganzoo.data.prepare.SHARD", 7 * 3 * SIZE * SIZE)
    source = pictures
    if kind == "zip":
        source = Path(shutil.make_archive(str(tmp_path / "pictures"), "zip", pictures))
    elif kind == "splits":
        source = tmp_path / "splits"
        for split, names in {"train": ("a", "b"), "val": ("a",), "test": ("b",)}.items():
            for name in names:
                shutil.copytree(pictures / name, source / split / name)
    else:
        files = sorted(file.relative_to(pictures).as_posix() for file in pictures.rglob("*.png"))
        (pictures / kind).write_text(json.dumps({"labels": [[name, i % 2] for i, name in enumerate(files)]}))
    prepare(str(source), str(tmp_path / "out"), image_size=SIZE, labels=True)
    mine, folder = (
        shards(tmp_path / "out"),
        ImageFolder(str(source), SIZE, labels=True, val_fraction=0.3, num_workers=0),
    )
    assert mine.classes == folder.classes and mine.name == folder.name
    for split in ("train", "val", "test"):
        theirs = folder.dataset(split)
        batch = mine.dataset(split).__getitems__(range(len(theirs)))
        assert len(mine.dataset(split)) == len(theirs) > 0
        assert torch.equal(batch["image"], theirs.__getitems__(range(len(theirs)))["image"])
        assert torch.equal(batch["label"], theirs.labels())
    if kind == "splits":  # then they are ordinary folders
        shutil.copytree(pictures / "a", source / "zoo" / "a")
        prepare(str(source), str(tmp_path / "new"), image_size=SIZE)
        shutil.rmtree(source / "zoo")
        prepare(str(source), str(tmp_path / "new"), image_size=SIZE)
        assert len(shards(tmp_path / "new").dataset("val")) == len(mine.dataset("val"))
    if kind == "dataset.json":  # a change of the labels alone
        (pictures / kind).write_text(json.dumps({"labels": [[name, 1 - i % 2] for i, name in enumerate(files)]}))
        prepare(str(source), str(tmp_path / "out"), image_size=SIZE, labels=True)
        assert torch.equal(shards(tmp_path / "out").dataset("train").labels(), 1 - mine.dataset("train").labels())


def test_shards_without_labels_and_without_held_out_pictures(pictures: Path, tmp_path: Path) -> None:
    prepare(str(pictures), str(tmp_path / "out"), image_size=SIZE)
    module = shards(tmp_path / "out", val_fraction=0)
    assert module.num_classes is None and module.val_dataloader() == [] and len(module.dataset("train")) == N
    assert set(module.dataset("train")[0]) == {"image"} and module.dataset("train").labels() is None


def test_the_fingerprint_depends_on_contents_and_split(
    pictures: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the hashes in the index, without reading pixels; shards of the same pictures have the same fingerprint."""
    found = shards(out).dataset("train").fingerprint()
    assert found != shards(out).dataset("val").fingerprint()
    assert found != shards(out, val_fraction=0.2).dataset("train").fingerprint()
    for name in ("a", "b"):
        for file in (pictures / name).iterdir():
            file.touch()
    prepare(str(pictures), str(tmp_path / "again"), image_size=SIZE, labels=True)
    assert shards(tmp_path / "again").dataset("train").fingerprint() == found
    Image.new("RGB", (9, 9)).save(pictures / "a" / "00.png")
    prepare(str(pictures), str(out), image_size=SIZE, labels=True)
    monkeypatch.setattr("ganzoo.data.shards.StoredShards.read", None)
    assert shards(out).dataset("train").fingerprint() != found


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_training_is_bit_identical(out: Path, tmp_path: Path, workers: int) -> None:
    """Resumed twice, each time within an epoch of five batches."""

    def run(stop: int | None = None, **more: Any) -> list[Tensor]:
        torch.manual_seed(0)
        model = DCGAN(image_size=SIZE, channels=3, width=4)
        fit(model, shards(out, num_workers=workers), steps=9, callbacks=[_SaveAt(str(tmp_path), (3, 7))], **more)
        return [value.clone() for value in model.state_dict().values()]

    whole = run()
    assert all(map(torch.equal, whole, run(ckpt_path=str(tmp_path / "3.ckpt"))))
    assert all(map(torch.equal, whole, run(ckpt_path=str(tmp_path / "7.ckpt"))))  # saved by the run resumed from step 3


def test_pickled_data_contains_no_pixels(out: Path) -> None:
    data = shards(out).dataset("train")
    sent = pickle.dumps(data)
    assert len(sent) < N * 3 * SIZE * SIZE / 2
    assert torch.equal(pickle.loads(sent)[3]["image"], data[3]["image"])


def test_shards_are_not_kept_open(out: Path) -> None:
    """A terabyte has more shards than a process may open files."""
    if not (fds := Path("/proc/self/fd")).exists():
        pytest.skip("no /proc")

    def opened() -> int:
        return sum(fd.resolve().suffix == ".arrow" for fd in fds.iterdir())

    gc.collect()  # of earlier tests
    before = opened()
    module = shards(out)
    assert len(module._stored.shards) == 5 and opened() == before
    assert module.dataset("train")[0]["image"].shape


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_every_flipped_byte_is_detected_or_harmless(pictures: Path, out: Path, step: int) -> None:
    """Or changes nothing: padding, and what says when the picture's file was changed."""
    for file in list((pictures / "a").iterdir())[2:] + list((pictures / "b").iterdir())[1:]:
        file.unlink()
    prepare(str(pictures), str(out), image_size=SIZE, labels=True)
    file = out / "shard-00000.arrow"
    whole = file.read_bytes()
    expected = everything(out)
    noticed = 0
    for place in range(0, len(whole), step):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        try:
            assert torch.equal(everything(out), expected), place
        except ValueError as error:
            assert str(file) in str(error) and "data prepare again" in str(error), place
            noticed += 1
    assert noticed > 2 * 3 * SIZE * SIZE // step


def everything(out: Path) -> Tensor:
    """Pixels and label of every picture."""
    module = shards(out)
    blocks = [block for split in ("train", "val") for block in module.dataset(split)._blocks()]
    return torch.cat([torch.cat([b["image"].flatten(1).long(), b["label"][:, None]], 1) for b in blocks])


def test_missing_truncated_and_foreign_shards_are_refused(out: Path, tmp_path: Path) -> None:
    file = out / "shard-00001.arrow"
    whole = file.read_bytes()
    for size in (0, 10, 700, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"shard-00001.arrow is damaged \(.*data prepare again"):
            shards(out)
    file.write_bytes((out / "shard-00002.arrow").read_bytes())
    with pytest.raises(ValueError, match="shard-00001.arrow is damaged .its rows do not match index.json"):
        shards(out)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"shard-00001.arrow is missing: .*data prepare again"):
        shards(out)
    with pytest.raises(ValueError, match="other columns"):
        Shard(out / "shard-00000.arrow", (3, 9, 9), True)


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_compressed_rows_are_refused_before_decompression(codec: str, tmp_path: Path) -> None:
    """Kilobytes may decompress to gigabytes; the shard has every type of column."""
    n, side = 100_000, 8
    columns = schema((1, side, side), labels=True)
    arrays = [pa.array([bytes(side * side)] * n, columns[0].type), pa.array([""] * n)]
    rows = pa.record_batch([*arrays, *(pa.array(np.zeros(n), kind.type) for kind in list(columns)[2:])], columns)
    options = pa.ipc.IpcWriteOptions(compression=codec)
    file = tmp_path / "shard.arrow"
    with pa.OSFile(str(file), "wb") as opened, pa.ipc.new_stream(opened, columns, options=options) as stream:
        stream.write_batch(rows)
    before = pa.default_memory_pool().max_memory()
    with pytest.raises(ValueError, match=r"shard.arrow is damaged \(compressed"):
        Shard(file, (1, side, side), labels=True)
    assert file.stat().st_size < 200_000 and pa.default_memory_pool().max_memory() == before
    with pa.OSFile(str(file), "wb") as opened, pa.ipc.new_stream(opened, columns) as stream:
        stream.write_batch(rows)
    assert len(Shard(file, (1, side, side), labels=True).images) == n


@pytest.mark.parametrize(
    "change",
    [
        {"format": "ganzoo shards 9"},
        {"shards": [{"images": 7}]},
        {"shards": [{"images": "7", "bytes": 1, "rows": "", "sha256": ""}]},
        {"shards": 5},
        {"image_size": "8"},
        {"image_size": -8},
        {"image_size": 2**62},
        {"channels": 2**30},
        '{"format": ' + "9" * 5000 + "}",
        " " * (1 << 24) + "{}",
        {"classes": [1]},
        {"classes": None},
        {"more": 1},
        "[" * 100_000,
        [],
        None,
    ],
)
def test_a_damaged_index_is_refused(out: Path, change: Any) -> None:
    index = json.loads((out / "index.json").read_text())
    text = (
        change if isinstance(change, str) else json.dumps({**index, **change} if isinstance(change, dict) else change)
    )
    (out / "index.json").write_text(text)
    with pytest.raises(ValueError, match=r"index.json is damaged, or not an index of shards \(.*data prepare$"):
        shards(out)


def test_missing_shards_or_pyarrow_are_refused(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        FileNotFoundError, match="nowhere is not a folder: give a folder written by python -m ganzoo data prep"
    ):
        shards(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="pictures contains no shards"):
        shards(tmp_path / "pictures")
    index = json.loads((out / "index.json").read_text())
    (out / "index.json").write_text(json.dumps({**index, "shards": None}))
    with pytest.raises(ValueError, match="out is not finished: run the same .*data prepare again"):
        shards(out)
    (out / "index.json").write_text(json.dumps(index))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r'pip install "ganzoo\[shards\]"'):
        shards(out)


def test_a_damaged_picture_stops_training_with_a_one_line_error(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(out.parent)
    shard = Shard(out / "shard-00000.arrow", (3, SIZE, SIZE), True)
    place = (out / "shard-00000.arrow").read_bytes().index(shard.images[2].tobytes())
    damaged = bytearray((out / "shard-00000.arrow").read_bytes())
    damaged[place : place + 7 * 3 * SIZE * SIZE] = bytes(7 * 3 * SIZE * SIZE)
    (out / "shard-00000.arrow").write_bytes(damaged)
    for workers in (0, 1):
        arguments = f"--data.path out --data.batch_size 20 --data.num_workers {workers} --trainer.max_steps 3"
        assert main(["fit", "--config", "dcgan/shards", *arguments.split(), "--scores.final_n", "0"]) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert "shard-00000.arrow is damaged" in error and "data prepare again" in error, error


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_truncated_while_it_is_read_raises_an_error(out: Path, workers: int) -> None:
    """With a memory map, a signal would kill the process."""
    data = shards(out, num_workers=workers, batch_size=4, val_fraction=0.0)
    batches = iter(data.train_dataloader())
    next(batches)
    for file in out.glob("*.arrow"):
        os.truncate(file, 2000 if file.stat().st_size > 2000 else 8)
    with pytest.raises(ValueError, match="shard-0000. is damaged|shard-0000..arrow is damaged") as error:
        list(batches)
    line = mid_run(error.value)
    assert line is not None and "is damaged (it is truncated): run the same python -m ganzoo data prepare again" in line


def test_the_number_of_open_files_is_limited(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [batch["image"] for batch in shards(out).train_dataloader()]
    monkeypatch.setattr(rows, "MOST_OPEN", 2)
    data, most = shards(out), 0
    for batch, expected in zip(data.train_dataloader(), whole, strict=True):
        assert torch.equal(batch["image"], expected)
        opened = [file for file in rows.RECENT if (row := file()) is not None and row.file is not None]
        most = max(most, len(opened))
    assert 0 < most <= 2


def test_rows_are_read_at_an_offset_pickled_and_bounds_checked(tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(bytes(range(10)))
    two = rows.Rows(tmp_path / "rows", 1, (2, 2, 2))
    assert [row.tolist() for row in two] == [[[1, 2], [3, 4]], [[5, 6], [7, 8]]] and len(two) == 2
    assert pickle.loads(pickle.dumps(two))[1].tolist() == [[5, 6], [7, 8]]
    with pytest.raises(IndexError):
        two[-1]


@pytest.mark.skipif(not hasattr(os, "preadv"), reason="other platforms open the file for each row")
def test_a_row_is_read_while_another_thread_closes_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows").write_bytes(bytes(range(8)))
    data, preadv = rows.Rows(tmp_path / "rows", 0, (2, 4)), os.preadv
    monkeypatch.setattr(os, "preadv", lambda *given: data.close() or preadv(*given))
    assert data[1].tolist() == [4, 5, 6, 7]


def test_benchmark_of_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_shards, "SIZES", {8: 70})
    monkeypatch.setattr(bench_shards, "PICTURES", (70, 140))
    monkeypatch.setattr(bench_shards, "_memory", lambda out: bench_shards.anonymous())  # without a new process
    assert bench.main(["--quick", "--only", "shards", "--json", str(tmp_path / "raw.json")]) == 0
    raw = json.loads((tmp_path / "raw.json").read_text())["shards"]
    assert all(len(rates) == 2 and min(rates) > 0 for rates in raw["rates"]["8"].values())
    assert not raw["memory"] or raw["memory"].keys() == {"70", "140"}
    assert "8x8: shards" in capsys.readouterr().out


@pytest.mark.slow
def test_memory_is_flat_in_the_number_of_pictures(tmp_path: Path) -> None:
    """`bench --only shards` measures it in detail."""
    if not Path("/proc/self/smaps_rollup").exists():
        pytest.skip("this system does not say what is no file's")
    found = []
    for n in (1_000, 20_000):
        pictures = bench_shards._pictures(tmp_path / f"{n}", n, 64)
        found.append(bench_shards._memory(bench_shards._prepare(pictures, tmp_path / f"out-{n}", 64)))
    assert found[1] - found[0] < 19_000 * 3 * 64 * 64 * 1e-6 / 20  # MB
