"""Mutated shipped configs: `fit` succeeds, or it prints one line that names the key and leaves no files."""

from __future__ import annotations

import copy
import math
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from PIL import Image

import ganzoo
from ganzoo import data
from ganzoo.cli import main
from ganzoo.cli.paths import configs
from tests.contract.test_configs import EMBEDDED, FOLDERS, noise, original

SECONDS = 20  # limit for one mutation
ROOM = 6 * 2**30  # bytes of address space in addition to the tests' own
CONFIGS = {  # configs with a model, on data that needs no preparation
    name: path for name, path in configs().items() if "model:" in path.read_text() and "Shards" not in path.read_text()
}
# One short step of small networks; part of the config rather than options, which would override the mutations
SMALL = {"width": 4, "hidden": 16, "d_hidden": 8, "z_hidden": 8, "y_hidden": 8, "d_y_hidden": 8, "blocks": 1}
SMALL |= {"group_size": 2}  # divides R3GAN's width
QUICK: dict[str, Any] = {
    "trainer": {"max_steps": 1, "accelerator": "cpu", "enable_progress_bar": False, "limit_val_batches": 1},
    "samples": {"every_n_steps": 100, "rows": 1, "columns": 2, "video_fps": 0},
    "scores": {"metrics": [], "final_n": 0},
    "diagnostics": {"every_n_steps": 500},
    "checkpoint": {"every_n_steps": 1000},
}
Key = tuple[str, ...]


class Mutation(NamedTuple):
    """A mistake in a config.

    Attributes:
        kind: kind of mistake; a key of `KINDS`.
        config: name of the shipped config.
        key: path of the key that is changed.
        value: new value, name or place.
    """

    kind: str
    config: str
    key: Key
    value: Any = None

    def __str__(self) -> str:
        return f"{self.kind}: {self.config}: {'.'.join(self.key)} -> {self.value!r}"


@cache
def shipped(name: str) -> Any:
    return yaml.load(CONFIGS[name].read_text(), yaml.CSafeLoader)


def small(name: str) -> dict[str, Any]:
    """A shipped config with small networks and a short training."""
    config = copy.deepcopy(shipped(name))
    for section, values in QUICK.items():
        config[section] = {**config.get(section, {}), **values}
    model, images = config["model"], config["data"]
    arguments = model.setdefault("init_args", {})
    takes = getattr(ganzoo, model["class_path"]).__init__.__annotations__
    arguments.update({key: value for key, value in SMALL.items() if key in takes})
    images.setdefault("init_args", {}).update(batch_size=4, num_workers=0)
    return config


def keys(tree: Any, above: Key = ()) -> Iterator[Key]:
    """The path of every key of a config."""
    for key, value in tree.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from keys(value, (*above, key))


def at(tree: Any, key: Key) -> Any:
    for part in key:
        tree = tree[part]
    return tree


def put(tree: Any, key: Key, value: Any) -> None:
    for part in key[:-1]:
        tree = tree.setdefault(part, {})
    tree[key[-1]] = value


def typo(name: str) -> str:
    """The name with two letters swapped."""
    middle = len(name) // 2
    return name[: middle - 1] + name[middle] + name[middle - 1] + name[middle + 1 :]


# Generators of (key, value): where a mistake is made, and the new name, value or place


def names(config: Any, change: Any) -> Iterator[tuple[Key, Any]]:
    for key in keys(config):
        if len(key[-1]) > 2 and (new := change(key[-1])) != key[-1]:
            yield key, new


def leaves(config: Any, values: list[Any], kinds: tuple[type, ...]) -> Iterator[tuple[Key, Any]]:
    for key in keys(config):
        if key[-1] != "class_path" and type(at(config, key)) in kinds:
            for value in values:
                if type(value) is not type(at(config, key)) or value != at(config, key):
                    yield key, value


def classes(config: Any) -> Iterator[tuple[Key, Any]]:
    wrong = [
        "Nonesuch",
        "ganzoo.Nonesuch",
        "no_such_file.MyClass",
        "os.system",
        "torch.nn.Linear",
        3,
        None,
        ["DCGAN"],
        "",
    ]
    for key in keys(config):
        if key[-1] == "class_path":
            now = at(config, key)
            for value in [*wrong, now[:-2] + now[-1], "DCGAN" if key[0] == "data" else "Digits"]:
                yield key, value


def moves(config: Any) -> Iterator[tuple[Key, Any]]:
    homes = [("model", "init_args"), ("data", "init_args"), ("trainer",), ("samples",), ()]
    for key in keys(config):
        if (
            len(key) > 1
            and key[-1] not in ("class_path", "init_args", "data")
            and not (key[0] == "data" and len(key) > 3)
        ):
            for home in homes:
                if home != key[:-1] and not {key[-1]} & {"every_n_steps"}:
                    yield key, home


def sections(config: Any) -> Iterator[tuple[Key, Any]]:
    for key in keys(config):
        if isinstance(at(config, key), dict):
            for value in ([1, 2], 3, "words", None, True):
                yield key, value


def options(config: Any) -> Iterator[tuple[Key, Any]]:
    known = set(keys(config))
    for key, values in OPTIONS.items():
        if "optimizer" not in key[:-1] or key[:3] in known:
            yield from ((key, value) for value in values)


HUGE, NAN, INF = 10**9, math.nan, math.inf
OPTIONS: dict[Key, list[Any]] = {
    ("trainer", "precision"): ["fp17", 7, "64-true", "16-true"],
    ("trainer", "devices"): [0, -1, "gpu", HUGE, 1.5, [0, 0], []],
    ("trainer", "num_nodes"): [0, -1, "two"],
    ("trainer", "accelerator"): ["cuda", "gpu", "mps", "tpu", "quantum", 3],
    ("trainer", "strategy"): ["ddp", "fsdp", "gna", 3],
    ("trainer", "max_steps"): [0, -5, "many", 1.5, NAN, None],
    ("trainer", "max_epochs"): [0, -5, "many", 1.5],
    ("trainer", "min_steps"): [-1, "few", HUGE],
    ("trainer", "max_time"): ["a while", -1, {"hours": "x"}, {"centuries": 1}],
    ("trainer", "log_every_n_steps"): [0, -1, "x", 1.5],
    ("trainer", "limit_train_batches"): [0, -1, 1.5, NAN, "x"],
    ("trainer", "limit_val_batches"): [-1, 1.5, NAN, "x"],
    ("trainer", "overfit_batches"): [-1, 1.5, "x"],
    ("trainer", "val_check_interval"): [0, -1, 1.5, "x", HUGE],
    ("trainer", "check_val_every_n_epoch"): [0, -1, "x", 0.5],
    ("trainer", "num_sanity_val_steps"): [-2, "x"],
    ("trainer", "gradient_clip_val"): [1.0, -1, "x"],
    ("trainer", "accumulate_grad_batches"): [0, 2, "x"],
    ("trainer", "profiler"): ["slow", 3],
    ("trainer", "logger"): ["CsvLogger", 3, "Digits", {"class_path": "Nonesuch"}],
    ("trainer", "callbacks"): [
        "Nonesuch",
        3,
        [{"class_path": "Digits"}],
        [{"class_path": "Samples", "init_args": {"a": 1}}],
    ],
    ("trainer", "default_root_dir"): ["/proc/nothing/here", 3, ["a"]],
    ("trainer", "deterministic"): ["x", 3],
    ("trainer", "detect_anomaly"): ["x", 3],
    ("trainer", "fast_dev_run"): [-1, "x"],
    ("trainer", "reload_dataloaders_every_n_epochs"): [-1, "x"],
    ("trainer", "use_distributed_sampler"): ["x"],
    ("trainer", "sync_batchnorm"): ["x"],
    ("trainer", "inference_mode"): ["x"],
    ("trainer", "benchmark"): ["x"],
    ("trainer", "enable_checkpointing"): ["x", 3],
    ("trainer", "plugins"): ["nonesuch", 3],
    ("seed_everything",): [-1, "x", 2**70, 1.5, NAN, [1]],
    ("ckpt_path",): ["runs/nothing", 3, "", ["a"], "last.ckpt"],
    ("checkpoint", "every_n_steps"): [0, -1, "x", 1.5],
    ("checkpoint", "every_minutes"): [0, -1, "x", NAN],
    ("checkpoint", "keep_last"): [0, -5, "x", 1.5, None],
    ("checkpoint", "keep_every_n_images"): [0, -1, "x"],
    ("checkpoint", "rollbacks"): [-1, "x", 1.5],
    ("checkpoint", "monitor"): ["fid"],
    ("samples", "every_n_steps"): [0, -1, "x", 1.5, None],
    ("samples", "rows"): [0, -1, HUGE, "x", 10**5],
    ("samples", "columns"): [0, -1, HUGE, "x"],
    ("samples", "video_fps"): [-1, HUGE, "x", 1.5],
    ("scores", "metrics"): [["nope"], "fid", [3], ["fid:n=x"], ["fid", "fid"]],
    ("scores", "n"): [0, -1, HUGE, "x", None],
    ("scores", "every_n_steps"): [0, -1, "x"],
    ("scores", "best"): ["fid", 3],
    ("scores", "split"): ["all", 3],
    ("scores", "extractor"): ["eyes", 3],
    ("scores", "weights"): ["nothing.pth", 3],
    ("scores", "seed"): ["x", 1.5, None],
    ("scores", "final_n"): [-1, "x", 10**12],
    ("diagnostics", "every_n_steps"): [-1, "x", 1.5],
    ("diagnostics", "n"): [0, 3, -1, HUGE, "x"],
    ("model", "init_args", "n_critic"): [0, -1, "x", 1.5, None],
    ("model", "init_args", "microbatches"): [0, 3, -1, HUGE, "x"],
    ("model", "init_args", "clip_norm"): [0, -1, NAN, "x", INF],
    ("model", "init_args", "ema_half_life"): [0, -1, NAN, "x", INF],
    ("model", "init_args", "ema_ramp_up"): [0, -1, NAN, "x"],
    ("model", "init_args", "compile_losses"): ["x", 3],
    ("model", "init_args", "image_size"): [7, 16],
    ("model", "init_args", "num_classes"): [7, None],
    ("model", "init_args", "nonesuch"): [1],
    ("model", "init_args", "width"): [HUGE, NAN, 0.5],
    ("model", "init_args", "z_dim"): [0, HUGE, 10**12, "x"],
    ("model", "init_args", "lr_scheduler"): ["Nonesuch", 3, {"class_path": "StepLR"}],
    ("model", "init_args", "optimizer"): [
        "Adm",
        3,
        {"class_path": "SGD", "init_args": {"betas": [0, 1]}},
        {"class_path": "Adam", "init_args": {"lr": "fast"}},
        {"class_path": "Adam", "init_args": {"betas": [0.5, 2]}},
        {"class_path": "SGD", "init_args": {"momentum": -1}},
    ],
    ("model", "init_args", "optimizer", "init_args", "lr"): [-1, 0, "x", NAN, INF, 1e30, None],
    ("model", "init_args", "optimizer", "init_args", "beta1"): [-1, 1, 2, NAN, "x"],
    ("model", "init_args", "optimizer", "init_args", "eps"): [-1, NAN, "x"],
    ("model", "init_args", "optimizer", "init_args", "weight_decay"): [-1, NAN, "x", 1e30],
    ("data", "init_args", "batch_size"): [0, -1, HUGE, "x", 1.5, None],
    ("data", "init_args", "num_workers"): [-1, HUGE, "x", 1.5],
    ("data", "init_args", "flip"): ["x", 3],
    ("data", "init_args", "seed"): [-1, "x", 2**70, 1.5, NAN],
    ("data", "init_args", "image_size"): [0, 7, 1, 10**6, -8, "x", 5000],
    ("data", "init_args", "path"): ["nothing", 3, "", None],
    ("data", "init_args", "nonesuch"): [1],
}
KINDS: dict[str, Any] = {
    "two letters swapped": lambda config: names(config, typo),
    "other case": lambda config: names(config, str.upper),
    "letter dropped": lambda config: names(config, lambda name: name[:2] + name[3:]),
    "letter doubled": lambda config: names(config, lambda name: name[:3] + name[2:]),
    "deleted": lambda config: ((key, None) for key in keys(config) if not {*key} & ENDS),
    "moved": moves,
    "other type": lambda config: leaves(config, ["words", [1, 2], {"a": 1}, None, True, "7"], (int, float)),
    "out of range": lambda config: leaves(config, [0, -1, HUGE, 1e30, NAN, INF, 2.5], (int, float)),
    "wrong word": lambda config: leaves(config, ["nonesuch", 3, ["a"], None, True], (str,)),
    "not a boolean": lambda config: leaves(config, ["maybe", 3, [True], None], (bool,)),
    "wrong class": classes,
    "wrong section": sections,
    "broken text": lambda config: (((name,), name) for name in TEXTS),
    "option": options,
}
ENDS = {"trainer", "max_steps", "scores", "final_n"}  # needed for a short training
TEXTS = {
    "tab": lambda text: text.replace("\n  class_path", "\n\tclass_path", 1),
    "indentation": lambda text: text.replace("\n  class_path", "\n   class_path", 1),
    "outdented": lambda text: text.replace("\n  init_args", "\ninit_args", 1),
    "double class_path": lambda text: text.replace("  class_path: ", "  class_path: Nonesuch\n  class_path: ", 1),
    "double trainer": lambda text: text + "trainer:\n  max_steps: 3\n",
    "no colon": lambda text: text.replace("class_path:", "class_path", 1),
    "no space": lambda text: text.replace("class_path: ", "class_path:", 1),
    "bracket": lambda text: text.replace("class_path: ", "class_path: [", 1),
    "quote": lambda text: text.replace("class_path: ", 'class_path: "', 1),
    "tag": lambda text: text.replace("class_path: ", "class_path: !!python/name:os.system ", 1),
    "empty": lambda text: "",
    "list": lambda text: "- " + text.replace("\n", "\n  "),
    "not text": lambda text: "\x00\x01\x02",
}


# Mutations that `fit` may accept: their values are valid
NOT_NEEDED = {"final_n", "enable_progress_bar", "limit_val_batches", "ema_half_life", "ema_ramp_up", "decay_images"}
NOT_NEEDED |= {"margin_images", "source_path", "blocks", "num_workers", "label"}
COUNTS = {"width", "hidden", "d_hidden", "z_hidden", "y_hidden", "d_y_hidden", "z_dim", "rows", "columns", "batch_size"}
COUNTS |= {"labels_per_class", "layers_g", "layers_d", "image_size", "n"}
FROM_0 = {"num_workers", "video_fps", "final_n", "jitter", "blocks"}
HARMLESS = [("trainer.min_steps", HUGE), ("scores.metrics", ["fid", "fid"]), ("scores.extractor", "eyes")]
HARMLESS += [("data.init_args.seed", -1)]


def may_pass(mutation: Mutation) -> bool:
    """Whether the mutated config may be valid: a key may be left out, a width may be 7."""
    kind, _, key, value = mutation
    name = key[-1]
    if kind == "deleted":
        return True
    if kind in ("other type", "not a boolean", "wrong word") and value is None:
        return (
            name in NOT_NEEDED or key == ("checkpoint", "every_n_steps") or key == ("data", "init_args", "image_size")
        )
    if kind == "wrong section" and value is None:
        return name in ("lr_scheduler", "augment")
    if kind == "other type":
        return value == "7"
    if kind == "out of range":
        if value == -1:
            return name in ("label_seed", "max_steps")
        return math.isfinite(value) and value < 1e30 and (name not in COUNTS | FROM_0 or value == 0 and name in FROM_0)
    return kind == "option" and (".".join(key), value) in HARMLESS


@cache
def by_kind() -> list[list[Mutation]]:
    bases = {name: small(name) for name in sorted(CONFIGS)}
    return [
        [Mutation(kind, name, *where) for name, config in bases.items() for where in find(config)]
        for kind, find in KINDS.items()
    ]


def every(seed: int = 0) -> Iterator[Mutation]:
    """All mutations, alternating between the kinds, each kind in a fixed random order."""
    shuffle = random.Random(seed).shuffle
    queues = []
    for found in map(list, by_kind()):
        shuffle(found)
        seen = Counter[Any]()
        turns = []
        for mutation in found:  # one of each first: otherwise keys of every config crowd out the others
            seen[what] = seen[what := (mutation.key, repr(mutation.value))] + 1
            turns.append(seen[what])
        queues.append(iter([mutation for _, mutation in sorted(zip(turns, found, strict=True), key=itemgetter(0))]))
    while queues:
        for queue in list(queues):
            if (mutation := next(queue, None)) is None:
                queues.remove(queue)
            elif mutation.key[-1] != "max_steps" or mutation.value not in (-1, HUGE):  # endless training
                yield mutation


def written(mutation: Mutation) -> str:
    """The mutated config."""
    kind, name, key, value = mutation
    config = small(name)
    if kind == "broken text":
        return TEXTS[value](yaml.safe_dump(config, sort_keys=False))
    if kind in ("moved", "deleted"):
        content = at(config, key[:-1]).pop(key[-1])
        if kind == "moved":
            put(config, (*value, key[-1]), content)
    elif isinstance(value, str) and "letter" in kind or kind == "other case":
        above = at(config, key[:-1])
        renamed = {value if name == key[-1] else name: content for name, content in above.items()}
        above.clear()
        above.update(renamed)
    else:
        put(config, key, value)
    return yaml.safe_dump(config, sort_keys=False)


@contextmanager
def guarded() -> Iterator[None]:
    """Limit the time to `SECONDS` and the memory to `ROOM`."""

    def late(*_: Any) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, late)
    resource.setrlimit(resource.RLIMIT_AS, (pages + ROOM, hard))
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def problem(mutation: Mutation, code: Any, text: str, left: bool) -> str | None:
    """What is wrong with the outcome of a command; None if nothing.

    Args:
        mutation: mutation of its config, mutated.yaml.
        code: exit code, or the exception that it raised.
        text: its stderr.
        left: whether it left a run folder.
    """
    if isinstance(code, BaseException):
        return f"{type(code).__name__}: {code}"
    if "Traceback" in text or "GANZOO_TRACEBACK" in text:
        return "a traceback"
    if code == 0:
        return None if may_pass(mutation) else "was accepted"
    if code != 2 or left:
        return f"exit code {code}{', and a run folder was created' if left else ''}"
    first, *more = text.splitlines()
    if more or not first.startswith("ganzoo: error: "):
        return "not a one-line error"
    named = mutation.key[-1:]
    if mutation.kind == "broken text":
        named = ("mutated.yaml",)
    elif isinstance(mutation.value, str | list):
        named += tuple(mutation.value)[:1] if isinstance(mutation.value, list) else (mutation.value.split(".")[-1],)
    if mutation.kind in ("wrong section", "deleted"):
        named += (*mutation.key, *keys_of(at(small(mutation.config), mutation.key)))
    return None if any(str(name) and str(name) in first for name in named) else "does not name the mutated key"


def keys_of(value: Any) -> list[str]:
    return [key[-1] for key in keys(value)] if isinstance(value, dict) else []


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder; data sets that need a download are noise."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GANZOO_TRACEBACK", raising=False)
    for cls in (data.MNIST, data.CIFAR10, data.CelebA, data.LSUN, data.STL10):
        monkeypatch.setattr(cls, "prepare_data", lambda self: None)
        monkeypatch.setattr(cls, "make_dataset", noise)
    return tmp_path


def write_images(config: dict[str, Any]) -> None:
    """Those that a config names, in the working folder."""
    if original(config) in FOLDERS:
        arguments = config["data"]["init_args"]
        sides = [arguments[side] for side in ("path", "source_path") if side in arguments]
        if config["data"]["class_path"] == "UnpairedFolder" and len(sides) == 1:
            sides = [f"{sides[0]}/trainA", f"{sides[0]}/trainB"]
        for file in (Path(side, f"{i}.png") for side in sides for i in range(8)):
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (140, 80), (30, 60, 90)).save(file)


def ends(mutation: Mutation, capfd: Any) -> str | None:
    """Train the mutated config in this process; return what is wrong with the outcome, or None."""
    write_images(small(mutation.config))
    Path("mutated.yaml").write_text(written(mutation))
    shutil.rmtree("runs", ignore_errors=True)
    start = time.monotonic()
    try:
        with guarded(), warnings.catch_warnings(action="ignore"):
            code: Any = main(["fit", "--config", "mutated.yaml"])
    except (Exception, SystemExit) as error:
        code = error
    text = capfd.readouterr().err
    wrong = problem(mutation, code, text, Path("runs").exists())
    return wrong and f"{mutation}\n    {wrong}, after {time.monotonic() - start:.1f} s: {text[-400:].strip()}"


@pytest.mark.parametrize("mutation", [*islice(every(), 42)], ids=str)
def test_a_mutated_config_succeeds_or_is_refused_in_one_line(mutation, place, capfd):
    assert (wrong := ends(mutation, capfd)) is None, wrong


@pytest.mark.slow
def test_five_hundred_mutated_configs_succeed_or_are_refused_in_one_line(place, capfd):
    failures = [wrong for mutation in islice(every(seed=1), 500) if (wrong := ends(mutation, capfd)) is not None]
    assert not failures, f"{len(failures)} of 500\n" + "\n".join(failures)


WHOLE = islice((mutation for mutation in every(seed=2) if original(small(mutation.config)) in EMBEDDED), 20)


@pytest.mark.slow
@pytest.mark.parametrize("mutation", [*WHOLE], ids=str)
def test_a_mutated_config_as_a_command_succeeds_or_is_refused_in_one_line(mutation, place):
    Path("mutated.yaml").write_text(written(mutation))
    command = [sys.executable, "-m", "ganzoo", "fit", "--config", "mutated.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (wrong := problem(mutation, done.returncode, done.stderr, Path("runs").exists())) is None, (
        f"{wrong}: {done.stderr}"
    )
