"""The cache of statistics: reused for the same images and extractor only; damaged files are recomputed."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
import warnings
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from ganzoo.data.datasets import ArrayImages
from ganzoo.evaluation.extractors import Classifier, Custom, Stacked
from ganzoo.evaluation.interfaces import Extractor
from ganzoo.evaluation.sweep import Statistics
from ganzoo.functional.frechet import Gaussian, frechet_distance

NAMES = ["features.moments", "features.rows"]


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv("GANZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "statistics"


def images(n=100, size=8, seed=0):
    return torch.randint(256, (n, 1, size, size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def network():
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 3, 3, stride=2), nn.AdaptiveAvgPool2d(2), nn.Flatten())


def custom(net=None, size=8, **settings):
    return Custom(net or network(), "mine", channels=1, image_size=(size, size), **settings)


class Counted(ArrayImages):
    """Counts the reads of several images; a single image is read only for its size."""

    reads = 0

    def __getitems__(self, tickets):
        self.reads += len(tickets) > 1
        return super().__getitems__(tickets)


def get(pixels=None, labels=None, extractor=None, names=NAMES, which="real"):
    """Return whether images were read, and the statistics."""
    data = Counted(images() if pixels is None else pixels, labels)
    states = Statistics({which: data}, extractor or custom(), "cpu").get(which, names)
    return data.reads > 0, states


def same(a, b):
    return all(
        x is y is None or (torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y)
        for name in NAMES
        for x, y in (zip(a[name], b[name], strict=True) if isinstance(a[name], Gaussian) else [(a[name], b[name])])
    )


def test_statistics_are_reused_under_another_name(folder):
    read, first = get()
    assert read and len(list(folder.iterdir())) == 2
    for which in ("real", "test"):
        read, again = get(which=which)
        assert not read and same(first, again)


def test_missing_statistics_are_computed_and_cached():
    get(names=["features.moments"])
    read, both = get()
    assert read
    read, again = get()
    assert not read and same(both, again)


def changed(pixels):
    pixels = pixels.clone()
    pixels[7, 0, 3, 4] ^= 1
    return pixels


def halve(x):
    return x / 255 - 0.5


def code(line):
    """A network without weights; all of these classes have the same name."""
    names = {"nn": nn, "torch": torch}
    exec(f"class Net(nn.Module):\n def forward(self, x): return {line}", names)
    return names["Net"]()


class Scaled(nn.Module):
    """`scale` is an attribute, not a weight."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return (x * self.scale).flatten(1)[:, :3]


class Own(Extractor):
    """A user's extractor with a constant fingerprint."""

    name, preprocessing, fingerprint, channels, num_features, citation = "own", "", "0" * 64, 1, 3, ""
    num_classes, network = None, nn.Identity()

    def __init__(self, scale):
        self.scale = scale

    def extract(self, images):
        return {"features": images.flatten(1)[:, :3] * self.scale}


def shifted(by):
    return lambda x: x.float() + by


def other_weight():
    net = network()
    with torch.no_grad():
        net[0].weight[0, 0, 0, 0] += 1e-6
    return net


@pytest.mark.parametrize(
    "other",
    [
        lambda: get(changed(images())),
        lambda: get(images().flip(0)),
        lambda: get(images()[:99]),
        lambda: get(torch.cat([images(), images()])),
        lambda: get(images(size=9)),
        lambda: get(labels=torch.arange(100)),
        lambda: get(extractor=custom(other_weight())),
        lambda: get(extractor=custom(preprocess=halve)),
        lambda: get(extractor=Custom(network(), "other", channels=1, image_size=(8, 8))),
    ],
    ids=["pixel", "order", "fewer", "twice", "size", "labels", "weight", "preprocessing", "name"],
)
def test_a_change_of_images_or_extractor_recomputes(other):
    get()
    read, states = other()
    assert read
    read, again = other()
    assert not read and same(states, again)
    read, _ = get()
    assert not read, "and takes nothing's place"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: custom(code("x.flatten(1)[:, :3]")), lambda: custom(code("x.flatten(1)[:, :3] * 1.0001"))),
        (lambda: custom(Scaled(1.0)), lambda: custom(Scaled(-1.0))),
        (lambda: custom(preprocess=shifted(0)), lambda: custom(preprocess=shifted(1))),
        (lambda: Own(1.0), lambda: Own(2.0)),
    ],
    ids=["code", "attribute", "closure", "extractor"],
)
def test_changes_outside_the_weights_recompute(one, other):
    read, mine = get(extractor=one())
    assert read and not get(extractor=one())[0]
    read, theirs = get(extractor=other())
    assert read and not same(mine, theirs)
    assert not get(extractor=one())[0], "and takes nothing's place"


def test_shipped_extractors_are_not_probed(monkeypatch):
    """So their statistics are reused with another number of threads and on another device."""
    monkeypatch.setattr("ganzoo.evaluation.sweep.probe", lambda *_: pytest.fail("asked"))
    for extractor in (Classifier("digits"), Stacked(Classifier("digits"))):
        get(torch.zeros(3, extractor.channels, 8, 8, dtype=torch.uint8), extractor=extractor)


def test_modified_images_in_memory_recompute():
    data = Counted(images())
    first = Statistics({"real": data}, custom(), "cpu").get("real", NAMES)
    data.images[0] = 0
    assert not same(first, Statistics({"real": data}, custom(), "cpu").get("real", NAMES))


def test_labels_in_another_order_recompute():
    get(labels=torch.arange(100))
    assert get(labels=torch.arange(100).flip(0))[0]
    assert not get(labels=torch.arange(100))[0]


def test_environment_variables_select_the_cache_folder(monkeypatch, tmp_path):
    get()
    monkeypatch.setenv("GANZOO_CACHE", str(tmp_path / "other"))
    assert get()[0] and not get()[0]
    monkeypatch.delenv("GANZOO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert get()[0] and not get()[0]
    assert len(list((tmp_path / "xdg" / "ganzoo" / "statistics").iterdir())) == 2


@pytest.mark.parametrize("n", [5, 12, 13, 100], ids=lambda n: f"n={n}")
def test_cached_statistics_equal_the_computed_ones(n):
    pixels = images(n)
    _, first = get(pixels)
    read, again = get(pixels)
    assert not read and same(first, again)
    moments = again["features.moments"]
    assert moments.root is not None and (moments.cov is None) == (n <= 12)
    assert abs(frechet_distance(moments, Gaussian.of(again["features.rows"]))) < 1e-12


# Damaged files


class Harm:
    """Creates a folder when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


def truncate(file, _):
    file.write_bytes(file.read_bytes()[:-100])


def empty(file, _):
    file.write_bytes(b"")


def flip(file, _):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)


def noise(file, _):
    file.write_bytes(bytes(range(256)) * 10)


def pickled(file, harm):
    file.write_bytes(pickle.dumps(Harm(harm)))


def objects(file, harm):
    np.savez(file, rows_of_output=np.array([Harm(harm)], dtype=object))
    assert zipfile.is_zipfile(file)


def other_arrays(file, _):
    np.savez(file, weights=np.zeros(3))


def other_rows(file, _):
    np.savez(file, rows_of_output=np.zeros((99, 12), dtype=np.float32))


def not_finite(file, _):
    np.savez(file, rows_of_output=np.full((100, 12), np.nan, dtype=np.float32))


def other_shapes(file, _):
    parts = {"n": np.array(100), "mean": np.zeros(12), "cov": np.zeros((11, 11)), "root": np.zeros((12, 12))}
    np.savez(file, **parts)


def no_root(file, _):
    np.savez(file, n=np.array(100), mean=np.zeros(12), cov=np.eye(12))


def infinite(file, _):
    parts = {"n": np.array(100), "mean": np.zeros(12), "cov": np.full((12, 12), np.inf), "root": np.eye(12)}
    np.savez(file, **parts)


def a_folder(file, _):
    file.unlink()
    (file / "x").mkdir(parents=True)


DAMAGE = [truncate, empty, flip, noise, pickled, objects, other_arrays, other_rows, not_finite, other_shapes, no_root]


@pytest.mark.parametrize("damage", [*DAMAGE, infinite], ids=lambda f: f.__name__)
def test_a_damaged_file_is_recomputed_with_a_warning_and_never_unpickled(damage, folder, tmp_path):
    _, first = get()
    for file in folder.iterdir():
        damage(file, tmp_path / "harm")
    with pytest.warns(UserWarning, match="is damaged .* and is recomputed") as warned:
        read, again = get()
    assert read and same(first, again) and len(warned) == 2
    assert all("\n" not in str(warning.message) for warning in warned)
    assert not (tmp_path / "harm").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read, again = get()
    assert not read and same(first, again)


@pytest.mark.parametrize("folder_is", ["a file", "under a file", "taken by a folder"])
def test_an_unwritable_cache_gives_one_warning(folder_is, monkeypatch, tmp_path, folder):
    _, first = get()
    if folder_is == "taken by a folder":
        for file in folder.iterdir():
            a_folder(file, None)
    else:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("GANZOO_CACHE", str(tmp_path / "file" / ("" if folder_is == "a file" else "deeper")))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        read, again = get()
    assert read and same(first, again)
    assert sum("could not be cached for other runs" in str(warning.message) for warning in warned) == 1
    assert "GANZOO_CACHE" in str(warned[-1].message)


# Atomic writes


def test_a_failed_save_leaves_no_file(folder, monkeypatch):
    def half(out, **_):
        out.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez", half)
    with pytest.warns(UserWarning, match="no space left"):
        read, _ = get()
    assert read and list(folder.iterdir()) == []


def _save_slowly(started):
    def half(out, **_):
        out.write(b"half")
        out.flush()
        started.set()
        time.sleep(60)

    np.savez = half
    get()


def test_a_process_killed_while_saving_leaves_only_a_partial_file(folder):
    context = multiprocessing.get_context("fork")
    started = context.Event()
    process = context.Process(target=_save_slowly, args=(started,))
    process.start()
    assert started.wait(30)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert [file.suffix for file in folder.iterdir()] == [".partial"]
    (folder / "0123.part").touch()  # left by an older version
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert get()[0] and not get()[0]
    assert {file.suffix for file in folder.iterdir()} == {".npz"}


def _at_once(barrier, found):
    torch.set_num_threads(1)
    barrier.wait()
    warnings.simplefilter("error")
    read, states = get()
    found.put((read, states["features.rows"].sum().item(), states["features.moments"].cov.sum().item()))


def test_concurrent_processes_agree_and_leave_complete_files(folder):
    context = multiprocessing.get_context("fork")
    barrier, found = context.Barrier(4), context.Queue()
    processes = [context.Process(target=_at_once, args=(barrier, found)) for _ in range(4)]
    for process in processes:
        process.start()
    results = [found.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert len({result[1:] for result in results}) == 1
    assert sorted(file.suffix for file in folder.iterdir()) == [".npz", ".npz"]
    read, states = get()
    assert not read and states["features.rows"].sum().item() == results[0][1]


def test_file_permissions_follow_the_umask(folder):
    get()
    mask = os.umask(0)
    os.umask(mask)
    assert all(file.stat().st_mode & 0o777 == 0o666 & ~mask for file in folder.iterdir())


def test_labels_are_read_from_the_data_and_not_cached(folder):
    labels = torch.arange(100)
    _, states = get(labels=labels, names=["labels.rows"])
    assert torch.equal(states["labels.rows"], labels) and not folder.exists()
