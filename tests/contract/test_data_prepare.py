"""`data prepare`: the shards do not depend on the number of processes or on interruptions."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ganzoo.cli import main
from ganzoo.data import ImageFolder, Shards
from ganzoo.data.prepare import prepare

pytest.importorskip("pyarrow", reason='shards need pip install "ganzoo[shards]"')
SIZE = 8
PER_SHARD = 6


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six images a shard, written in blocks of two."""
    monkeypatch.setattr("ganzoo.data.prepare.SHARD", PER_SHARD * 3 * SIZE * SIZE)
    monkeypatch.setattr("ganzoo.data.prepare.BLOCK", 2 * 3 * SIZE * SIZE)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return fill(tmp_path / "pictures", 20)


def fill(folder: Path, n: int, start: int = 0) -> Path:
    for i in range(start, start + n):
        file = folder / "ab"[i % 2] / f"{i:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (10, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def make(pictures: Path, out: Path, **settings: Any) -> dict[str, bytes]:
    prepare(str(pictures), str(out), **{"image_size": SIZE, **settings})
    return files(out)


def killed(pictures: Path, out: Path, syncs: int, jobs: int) -> bool:
    """Run `prepare` in a process that kills itself at fsync number `syncs` + 1; return whether it was killed."""

    def run() -> None:
        fsync, left = os.fsync, [syncs]

        def count(file: int) -> None:
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            fsync(file)

        os.fsync = count  # type: ignore[assignment]
        prepare(str(pictures), str(out), image_size=SIZE, jobs=jobs)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()  # no timeout: it would also wait for the child's own processes
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def test_shards_do_not_depend_on_the_number_of_processes(pictures: Path, tmp_path: Path) -> None:
    one, two = (make(pictures, tmp_path / f"out{jobs}", labels=True, jobs=jobs) for jobs in (1, 2))
    assert one == two
    assert sorted(one) == ["index.json", *(f"shard-{i:05d}.arrow" for i in range(4))]
    index = json.loads(one["index.json"])
    assert index["images"] == 20 and index["classes"] == ["a", "b"]
    assert [shard["images"] for shard in index["shards"]] == [6, 6, 6, 2]


@pytest.mark.parametrize("jobs", [1, 2])
def test_prepare_killed_at_any_write_can_be_repeated(pictures: Path, tmp_path: Path, jobs: int) -> None:
    """Killed before each fsync: with a partial index or shard, between two files, and at the end."""
    whole = make(pictures, tmp_path / "whole")
    moments = range(0, 13, 1 if jobs == 1 else 4)
    for moment in moments:  # index, four shards, index: two fsyncs each, of the file and its folder
        out = tmp_path / f"out{moment}"
        assert killed(pictures, out, moment, jobs) == (moment < 12)
        found = {name for name in files(out) if not name.endswith(".partial")}
        assert found == {"index.json", *sorted(whole)[1 : 1 + max(0, moment - 1) // 2]} - (
            {"index.json"} if moment == 0 else set()
        )
        if moment < 11:
            with pytest.raises((ValueError, FileNotFoundError)):
                Shards(str(out))
        assert make(pictures, out, jobs=jobs) == whole
    out = tmp_path / "again"
    assert all(killed(pictures, out, 2, jobs) for _ in range(2)) and make(pictures, out) == whole


def test_complete_shards_are_not_rewritten(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    whole = make(pictures, out)
    done: list[tuple[int, int]] = []
    monkeypatch.setattr("ganzoo.data.reading.Reading.__call__", None)
    assert make(pictures, out, progress=lambda *now: done.append(now)) == whole
    assert done == [(6, 20), (12, 20), (18, 20), (20, 20)]


@pytest.mark.parametrize("place", [0, 100, -500, -1000, -1])
def test_damaged_shards_are_rewritten(pictures: Path, tmp_path: Path, place: int) -> None:
    out = tmp_path / "out"
    whole = make(pictures, out)
    for damage in (whole["shard-00001.arrow"][:place], b""):
        (out / "shard-00001.arrow").write_bytes(damage)
        assert make(pictures, out) == whole
    flipped = bytearray(whole["shard-00001.arrow"])
    flipped[place] ^= 1
    (out / "shard-00001.arrow").write_bytes(flipped)
    if place != -1:  # the end-of-file marker, which carries no data
        assert make(pictures, out) == whole
    (out / "shard-00001.arrow").unlink()
    assert make(pictures, out) == whole


def test_shards_of_changed_images_are_rewritten(pictures: Path, tmp_path: Path) -> None:
    """No other shards are, and shards of deleted images are removed."""
    out = tmp_path / "out"
    before = make(pictures, out)
    Image.new("RGB", (9, 9), (1, 2, 3)).save(pictures / "b" / "19.png")
    after = make(pictures, out)
    assert {name for name in before if before[name] != after[name]} == {"index.json", "shard-00003.arrow"}
    for i in range(10, 20):
        (pictures / "ab"[i % 2] / f"{i}.png").unlink()
    fewer = make(pictures, out)
    assert len(fewer) == 3 and fewer == make(pictures, tmp_path / "anew")


def test_undecodable_images_are_refused_or_skipped(pictures: Path, tmp_path: Path) -> None:
    file = pictures / "a" / "02.png"
    file.write_bytes(file.read_bytes()[:200])
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=r"(?s)1 of 20 pictures cannot be decoded.*a/02.png: .*data.corrupt to skip"):
        make(pictures, out)
    with pytest.warns(UserWarning, match="skipped: 1 of 20 pictures cannot be decoded"):
        skipped = make(pictures, out, corrupt="skip", jobs=2)
    assert json.loads(skipped["index.json"])["images"] == 19
    assert make(pictures, out, corrupt="skip") == skipped
    with pytest.raises(ValueError, match="a/02.png"):
        make(pictures, out)
    file.unlink()
    assert json.loads(make(pictures, out)["index.json"])["images"] == 19
    (pictures / "a" / "junk.png").write_bytes(b"junk")
    with pytest.raises(ValueError, match="a/junk.png: not a picture"):
        make(pictures, out)


def test_a_shard_may_be_empty(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ganzoo.data.prepare.SHARD", 1)  # a shard for each picture
    file = pictures / "a" / "02.png"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.warns(UserWarning, match="skipped: 1 of 20 pictures"):
        skipped = make(pictures, tmp_path / "out", corrupt="skip")
    assert make(pictures, tmp_path / "out", corrupt="skip") == skipped
    found = Shards(str(tmp_path / "out"), num_workers=0, val_fraction=0)
    file.unlink()
    expected = ImageFolder(str(pictures), SIZE, num_workers=0, val_fraction=0)
    images = [module.dataset("train").__getitems__(range(19))["image"] for module in (found, expected)]
    assert sorted(map(bytes, images[0].numpy())) == sorted(map(bytes, images[1].numpy()))


@pytest.mark.parametrize(
    "arguments, words",
    [
        (
            "pictures out --image_size 8 --channels 1",
            "out contains shards with channels 3, not 1: choose another folder",
        ),
        ("pictures out --image_size 8 --fit squeeze", "with fit crop, not squeeze"),
        ("pictures out --image_size 8 --labels", "with classes none, not ['a', 'b']"),
        ("pictures out --image_size 9", "with image_size 8, not 9"),
        ("pictures new --image_size 0", "--image_size is 0; it takes a whole number from 1 to 16384"),
        ("pictures new --jobs many", "--jobs is 'many'; it takes a whole number"),
        ("pictures pictures --image_size 8", "pictures contains other files: choose an empty"),
        ("pictures pictures/a/00.png --image_size 8", "00.png is a file: choose another folder for the shards"),
        ("pictures/a new --image_size 8 --labels", "--labels takes the class from the subfolder"),
        ("pictures/a out --image_size 8", "with name pictures, not a"),
        ("pictures pictures/new --image_size 8 --labels", "lies in pictures, where it would be a class"),
        ("nowhere new", "There is no folder"),
        ("pictures", "required: OUT"),
        ("pictures new --size 8", "no option '--size'; did you mean '--image_size'?"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: str, words: str
) -> None:
    monkeypatch.chdir(pictures.parent)
    make(Path("pictures"), Path("out"))
    assert main(["data", "prepare", *arguments.split()]) == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error and error.startswith("ganzoo: error: ")
    assert not Path("new").exists()


def test_images_of_several_sizes_need_a_size(pictures: Path, tmp_path: Path) -> None:
    Image.new("RGB", (13, 10)).save(pictures / "b" / "99.png")
    with pytest.raises(
        ValueError, match="not of one size: b/99.png is 13x10, the first, a/00.png, is 12x10; resize them"
    ):
        make(pictures, tmp_path / "out", image_size=None)
    (pictures / "b" / "99.png").unlink()
    assert json.loads(make(pictures, tmp_path / "out", image_size=None)["index.json"])["image_size"] == [10, 12]


def test_the_command_suggests_verbs_and_skips_corrupt_images_on_request(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(pictures.parent)
    assert main(["data", "prepar", "pictures", "out"]) == 2
    assert "no command data 'prepar'; did you mean 'prepare'?" in capsys.readouterr().err
    (pictures / "a" / "bad.png").write_bytes(b"junk")
    command = ["data", "prepare", "pictures", "out", "--image_size", "8", "--jobs", "1"]
    assert main(command) == 2
    assert "or pass --corrupt skip, to train on the others" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="skipped"):
        assert main([*command, "--corrupt", "skip"]) == 0
    assert "out: 20 colour pictures of 8x8, in 4 shards" in capsys.readouterr().out


def test_file_names_that_are_not_utf8_are_escaped(pictures: Path, tmp_path: Path) -> None:
    try:
        (pictures / "a/00.png").rename(pictures / "a/caf\udce9.png")
    except OSError:  # UTF-8 only, as on macOS
        pytest.skip("no such names here")
    make(pictures, tmp_path / "out")
    shards, folder = Shards(str(tmp_path / "out")), ImageFolder(str(pictures), SIZE)
    assert "a/caf\\udce9.png" in [name for shard in shards._stored.shards.values() for name in shard.names.to_pylist()]
    assert torch.equal(shards.dataset("train")[0]["image"], folder.dataset("train")[0]["image"])
    assert len(shards.dataset("val")) == len(folder.dataset("val"))


def test_missing_pyarrow_is_reported(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(pictures.parent)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["data", "prepare", "pictures", "out"]) == 2
    assert 'pip install "ganzoo[shards]"' in capsys.readouterr().err and not Path("out").exists()


@pytest.mark.parametrize("channels, fit", [(1, "crop"), (3, "squeeze")])
def test_shards_hold_the_same_images_as_the_folder(pictures: Path, tmp_path: Path, channels: Any, fit: Any) -> None:
    make(pictures, tmp_path / "out", channels=channels, fit=fit)
    folder = ImageFolder(str(pictures), SIZE, channels, fit, num_workers=0).dataset("train")
    shards = Shards(str(tmp_path / "out"), num_workers=0).dataset("train")
    assert len(folder) == len(shards)
    for a, b in zip(folder._blocks(), shards._blocks(), strict=True):
        assert torch.equal(a["image"], b["image"])


def test_square_images_keep_their_size_by_default(tmp_path: Path) -> None:
    for i in range(3):
        Image.new("RGB", (7, 7), (i, i, i)).save(tmp_path / f"{i}.bmp")
    out = tmp_path / "out"
    assert prepare(str(tmp_path), str(out)).image_size == 7
    assert prepare(str(tmp_path), str(out), image_size=7).image_size == 7  # the same, explicitly


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_a_command_that_is_stopped(pictures: Path, tmp_path: Path, sign: signal.Signals) -> None:
    """No worker process survives, and the repeated command completes the shards."""
    fill(pictures, 600, start=20)
    whole = make(pictures, tmp_path / "whole")
    setting = f"p.SHARD, p.BLOCK = {PER_SHARD * 3 * SIZE**2}, {2 * 3 * SIZE**2}"
    code = f"import sys; p = __import__('ganzoo.data.prepare').data.prepare; {setting}; import ganzoo.cli as c"
    code += f"; sys.exit(c.main(['data', 'prepare', {str(pictures)!r}, 'out', '--image_size', '8', '--jobs', '2']))"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    out = tmp_path / "out"
    slow = "import os, time; f = os.fsync; os.fsync = lambda file: (time.sleep(0.05), f(file))[1]"  # 10 s in all
    command = [sys.executable, "-c", f"{slow}; {code}"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True)
    while not (out / "shard-00003.arrow").exists():
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(sign)
    assert process.wait(60) == (130 if sign == signal.SIGINT else -sign)
    assert not (out / "shard-00100.arrow").exists()
    for _ in range(300):  # workers poll for their parent
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        pytest.fail("some of its processes stay behind")
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, timeout=120)
    assert files(out) == whole
