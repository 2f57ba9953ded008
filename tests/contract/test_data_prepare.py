"""`data prepare`: the same shards, however many processes there are and whenever it was killed."""

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
    """Six pictures a shard, of which two are handed over at once."""
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
    """Whether a process that makes shards was killed by SIGKILL when it was about to wait for the disk once more."""

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
    process.join()  # with a timeout, it would wait for its processes, too
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def test_several_processes_write_what_one_writes(pictures: Path, tmp_path: Path) -> None:
    one, two = (make(pictures, tmp_path / f"out{jobs}", labels=True, jobs=jobs) for jobs in (1, 2))
    assert one == two
    assert sorted(one) == ["index.json", *(f"shard-{i:05d}.arrow" for i in range(4))]
    index = json.loads(one["index.json"])
    assert index["images"] == 20 and index["classes"] == ["a", "b"]
    assert [shard["images"] for shard in index["shards"]] == [6, 6, 6, 2]


@pytest.mark.parametrize("jobs", [1, 2])
def test_killed_again_and_again(pictures: Path, tmp_path: Path, jobs: int) -> None:
    """Before each wait for the disk: with half of the index or of a shard written, between two of them, at the end."""
    whole = make(pictures, tmp_path / "whole")
    moments = range(0, 13, 1 if jobs == 1 else 4)
    for moment in moments:  # index, four shards, index: two waits each, of the file and of its name
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


def test_what_is_whole_is_not_made_again(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    whole = make(pictures, out)
    done: list[tuple[int, int]] = []
    monkeypatch.setattr("ganzoo.data.prepare.decode", None)
    assert make(pictures, out, progress=lambda *now: done.append(now)) == whole
    assert done == [(6, 20), (12, 20), (18, 20), (20, 20)]


@pytest.mark.parametrize("place", [0, 100, -500, -1000, -1])
def test_a_damaged_shard_is_made_again(pictures: Path, tmp_path: Path, place: int) -> None:
    out = tmp_path / "out"
    whole = make(pictures, out)
    for damage in (whole["shard-00001.arrow"][:place], b""):
        (out / "shard-00001.arrow").write_bytes(damage)
        assert make(pictures, out) == whole
    flipped = bytearray(whole["shard-00001.arrow"])
    flipped[place] ^= 1
    (out / "shard-00001.arrow").write_bytes(flipped)
    if place != -1:  # of the mark that ends the file, which says nothing
        assert make(pictures, out) == whole
    (out / "shard-00001.arrow").unlink()
    assert make(pictures, out) == whole


def test_changed_pictures(pictures: Path, tmp_path: Path) -> None:
    """Only their shards are made again, and those of pictures that are gone are gone."""
    out = tmp_path / "out"
    before = make(pictures, out)
    Image.new("RGB", (9, 9), (1, 2, 3)).save(pictures / "b" / "19.png")
    after = make(pictures, out)
    assert {name for name in before if before[name] != after[name]} == {"index.json", "shard-00003.arrow"}
    for i in range(10, 20):
        (pictures / "ab"[i % 2] / f"{i}.png").unlink()
    fewer = make(pictures, out)
    assert len(fewer) == 3 and fewer == make(pictures, tmp_path / "anew")


def test_pictures_that_cannot_be_decoded(pictures: Path, tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    "arguments, words",
    [
        ("pictures out --image_size 8 --channels 1", "out holds shards with channels 3, not 1: name another folder"),
        ("pictures out --image_size 8 --fit squeeze", "with fit crop, not squeeze"),
        ("pictures out --image_size 8 --labels", "with classes none, not ['a', 'b']"),
        ("pictures out --image_size 9", "with image_size 8, not 9"),
        ("pictures new", "no squares of one size, such as a/00.png, 12x10"),
        ("pictures new --image_size 0", "--image_size is 0; it takes a whole number from 1 to 16384"),
        ("pictures new --jobs many", "--jobs is 'many'; it takes a whole number"),
        ("pictures pictures --image_size 8", "pictures holds other files: name an empty folder"),
        ("pictures pictures/a/00.png --image_size 8", "00.png is a file: name another folder for the shards"),
        ("pictures/a new --image_size 8 --labels", "--labels takes the class from the subfolder"),
        ("nowhere new", "There is no folder"),
        ("pictures", "required: OUT"),
        ("pictures new --size 8", "no option '--size'; did you mean '--image_size'?"),
    ],
)
def test_one_line_for_bad_input(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: str, words: str
) -> None:
    monkeypatch.chdir(pictures.parent)
    make(Path("pictures"), Path("out"))
    assert main(["data", "prepare", *arguments.split()]) == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error and error.startswith("ganzoo: error: ")
    assert not Path("new").exists()


def test_other_verbs_and_a_broken_picture(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(pictures.parent)
    assert main(["data", "prepar", "pictures", "out"]) == 2
    assert "no data 'prepar'; did you mean 'prepare'?" in capsys.readouterr().err
    (pictures / "a" / "bad.png").write_bytes(b"junk")
    command = ["data", "prepare", "pictures", "out", "--image_size", "8", "--jobs", "1"]
    assert main(command) == 2
    assert "or pass --corrupt skip, to train on the others" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="skipped"):
        assert main([*command, "--corrupt", "skip"]) == 0
    assert "out: 20 colour pictures of 8x8, in 4 shards" in capsys.readouterr().out


def test_a_name_that_is_not_utf8(pictures: Path, tmp_path: Path) -> None:
    try:
        (pictures / "a/00.png").rename(pictures / "a/caf\udce9.png")
    except OSError:  # a file system of UTF-8 alone, as Macs have
        pytest.skip("no such names here")
    make(pictures, tmp_path / "out")
    shards, folder = Shards(str(tmp_path / "out")), ImageFolder(str(pictures), SIZE)
    assert "a/caf\\udce9.png" in [name for shard in shards._stored.shards.values() for name in shard.names.to_pylist()]
    assert torch.equal(shards.dataset("train")[0]["image"], folder.dataset("train")[0]["image"])
    assert len(shards.dataset("val")) == len(folder.dataset("val"))


def test_without_pyarrow(pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(pictures.parent)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["data", "prepare", "pictures", "out"]) == 2
    assert 'pip install "ganzoo[shards]"' in capsys.readouterr().err and not Path("out").exists()


@pytest.mark.parametrize("channels, fit", [(1, "crop"), (3, "squeeze")])
def test_settings_are_those_of_a_folder(pictures: Path, tmp_path: Path, channels: Any, fit: Any) -> None:
    make(pictures, tmp_path / "out", channels=channels, fit=fit)
    folder = ImageFolder(str(pictures), SIZE, channels, fit, num_workers=0).dataset("train")
    shards = Shards(str(tmp_path / "out"), num_workers=0).dataset("train")
    assert len(folder) == len(shards)
    for a, b in zip(folder._blocks(), shards._blocks(), strict=True):
        assert torch.equal(a["image"], b["image"])


def test_its_own_size_is_kept(tmp_path: Path) -> None:
    for i in range(3):
        Image.new("RGB", (7, 7), (i, i, i)).save(tmp_path / f"{i}.bmp")
    out = tmp_path / "out"
    assert prepare(str(tmp_path), str(out)).image_size == 7
    assert prepare(str(tmp_path), str(out), image_size=7).image_size == 7  # the same said aloud


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_a_command_that_is_stopped(pictures: Path, tmp_path: Path, sign: signal.Signals) -> None:
    """As a whole, with its processes: none of them stays behind, and the same command goes on."""
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
    for _ in range(300):  # its processes look now and then whether it is still there
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        pytest.fail("some of its processes stay behind")
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, timeout=120)
    assert files(out) == whole
