"""wandb (offline) and TensorBoard: their files contain the values of `metrics.jsonl`."""

from __future__ import annotations

import ast
import json
import multiprocessing
import shlex
import signal
import struct
import sys
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import ganzoo
from ganzoo.cli import main
from ganzoo.cli.paths import additions, configs

wandb = pytest.importorskip("wandb")
pytest.importorskip("tensorboard")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: E402
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData  # noqa: E402
from wandb.proto.wandb_internal_pb2 import Record  # noqa: E402

QUICK = (
    "fit --config dcgan/digits --model.width 4 --data.batch_size 16 --samples.every_n_steps 2 --samples.rows 2 "
    "--trainer.log_every_n_steps 1 --scores.n 20 --scores.final_n 20 --scores.every_n_steps 2 "
    "--diagnostics.every_n_steps 2 --diagnostics.n 11 --checkpoint.every_n_steps 2 "
)
STILL = "--samples.video_fps 0"
BOTH = "--config logging/wandb --config logging/tensorboard "
RUN = Path("runs/001-dcgan-digits")
KILL = r"""
import os, signal, time
from pathlib import Path
from lightning.pytorch import Callback

class Kill(Callback):
    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 5:
            (file,), end = Path("runs").rglob("*.wandb"), time.monotonic() + 60
            while b'trainer/global_step\x82\x01\x015' not in file.read_bytes() and time.monotonic() < end:
                time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module", autouse=True)
def _offline(tmp_path_factory):
    wandb.teardown()  # end what another test module has set up
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("NETRC", str(tmp_path_factory.mktemp("home") / "netrc"))
        patch.delenv("WANDB_API_KEY", raising=False)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of four steps with both loggers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("whole"))
        assert main(shlex.split(f"{QUICK} {BOTH} --trainer.max_steps 4")) == 0
        assert [path.name for path in Path().iterdir()] == ["runs"], "something was written beside the runs"
        return RUN.absolute()


def test_wandb_logs_every_value_at_its_step(whole):
    assert values(rows(read_wandb(whole))) == logged(whole)


def test_tensorboard_logs_every_value_at_its_step(whole):
    single = {key: np.float32(value) for key, value in logged(whole).items()}
    assert scalars(events(whole)) == single


def test_losses_scores_and_diagnostics_are_logged(whole):
    keys = {key for _, key in logged(whole)}
    assert {"images", "D/loss", "G/loss"} <= keys and any(key.startswith("diagnostics/") for key in keys)
    assert {step for step, key in logged(whole) if key.startswith("fid")} == {2, 4}
    assert any(step == 4 and key.startswith("precision") for step, key in logged(whole)), "only measured at the end"


def test_wandb_logs_images_and_video(whole):
    found = media(rows(read_wandb(whole)))
    assert list(found) == PICTURES
    (folder,) = whole.glob("wandb/offline-run-*/files")
    for (step, key), path in found.items():
        if key == "video":
            assert (folder / path).read_bytes() == (whole / "samples.mp4").read_bytes()
        else:
            assert same((folder / path).read_bytes(), file_of(whole, step, key)), (step, key)


def test_tensorboard_logs_images_and_video(whole):
    board = events(whole)
    found = {(e.step, key): e for key in board.Tags()["images"] for e in board.Images(key)}
    assert sorted(found) == sorted(PICTURES)
    for (step, key), event in found.items():
        assert Image.open(BytesIO(event.encoded_image_string)).size == (event.width, event.height)
        if key != "video":
            assert same(event.encoded_image_string, file_of(whole, step, key)), (step, key)
    video = Image.open(BytesIO(found[4, "video"].encoded_image_string))
    assert video.format == "GIF" and video.n_frames == 3


def test_the_config_is_logged(whole):
    config = yaml.safe_load((whole / "config.yaml").read_text())
    (record,) = (r.config for r in read_wandb(whole) if any(item.key == "model" for item in r.config.update))
    assert config.items() <= {item.key: json.loads(item.value_json) for item in record.update}.items()
    data = HParamsPluginData.FromString(
        events(whole).summary_metadata["_hparams_/session_start_info"].plugin_data.content
    )
    got = data.session_start_info.hparams
    assert (
        got["model.init_args.width"].number_value == 4 and got["data.class_path"].string_value == "ganzoo.data.Digits"
    )
    assert (
        got["trainer.max_steps"].number_value == 4 and got["seed_everything"].number_value == config["seed_everything"]
    )


def test_the_wandb_run_is_named_after_its_folder_and_has_no_artifacts(whole):
    (run,) = (r.run for r in read_wandb(whole) if r.HasField("run"))
    assert (run.display_name, run.project) == ("001-dcgan-digits", "ganzoo")
    assert (whole / "wandb" / "id").read_text() == f"{run.run_id}\n"
    assert not any(r.HasField("artifact") for r in read_wandb(whole)), "no checkpoint goes out unasked"


def test_a_killed_run_is_resumed_in_both_loggers(tmp_path, monkeypatch, whole):
    """Killed after step 5 and resumed from step 4: TensorBoard shows each step once, wandb shows step 5 twice."""
    monkeypatch.chdir(tmp_path)
    Path("kill.py").write_text(KILL)
    monkeypatch.syspath_prepend("")
    command = f"{QUICK} {BOTH} --trainer.max_steps 6 --trainer.callbacks kill.Kill"
    wandb.teardown()  # so that the fork starts its own service process
    killed = multiprocessing.get_context("fork").Process(target=main, args=(shlex.split(command),))
    killed.start()
    killed.join(300)
    assert killed.exitcode == -signal.SIGKILL
    config = yaml.safe_load((RUN / "config.yaml").read_text())
    config["trainer"]["callbacks"] = None
    Path("again.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", "again.yaml", "--ckpt_path", str(RUN)]) == 0

    expected = logged(RUN)
    assert {step for step, _ in expected} == set(range(1, 7))
    assert {key: value for key, value in expected.items() if key[0] <= 3} == {
        key: value for key, value in logged(whole).items() if key[0] <= 3
    }
    board = events(RUN)
    assert scalars(board) == {key: np.float32(value) for key, value in expected.items()}
    assert [e.step for e in board.Images("samples")] == [0, 2, 4, 6]
    assert [e.step for e in board.Scalars("D/loss")] == [1, 2, 3, 4, 5, 6]
    assert [e.step for e in events(RUN, purge=False).Scalars("D/loss")] == [1, 2, 3, 4, 5, 5, 6], "it was hidden"

    first, second = sorted(RUN.glob("wandb/offline-run-*/run-*.wandb"))
    assert first.name == second.name, "another id"
    before, after = values(rows(read(first))), values(rows(read(second)))
    assert before | after == expected
    again = before.keys() & after.keys()
    assert {step for step, _ in again} == {5} and all(before[key] == after[key] for key in again)


@pytest.mark.parametrize("order", ["--config logging/tensorboard {}", "{} --config logging/tensorboard"])
def test_the_order_of_configs_does_not_matter(order, capsys):
    assert main(["fit", *order.format("--config dcgan/digits").split(), "--print_config"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert [logger["class_path"] for logger in config["trainer"]["logger"]] == [
        "ganzoo.callbacks.loggers.RunTensorBoard"
    ]
    assert config["trainer"]["max_steps"] == 6000


def test_logger_options_are_passed_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = "--config logging/wandb --trainer.logger.project mine --trainer.logger.tags [a,b] --trainer.max_steps 1"
    assert main(shlex.split(f"{QUICK} {STILL} {options}")) == 0
    (run,) = (r.run for r in read_wandb(RUN) if r.HasField("run"))
    assert run.project == "mine" and list(run.tags) == ["a", "b"]


@pytest.mark.parametrize("name", ["wandb", "tensorboard"])
def test_lightning_loggers_still_work(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cls = {"wandb": "WandbLogger", "tensorboard": "TensorBoardLogger"}[name]
    options = f"--trainer.logger {cls} --trainer.logger.save_dir {Path('elsewhere').absolute()} --trainer.max_steps 2"
    assert main(shlex.split(f"{QUICK} {options}")) == 0
    wandb.finish()
    assert not (RUN / name).exists()
    if name == "wandb":
        (file,) = Path("elsewhere/wandb").glob("offline-run-*/run-*.wandb")
        got = {key: value for key, value in values(rows(read(file))).items() if key[1] != "epoch"}
        assert got == logged(RUN) and (2, "video") in media(rows(read(file)))
    else:
        board = EventAccumulator("elsewhere/lightning_logs/version_0", {"images": 0, "scalars": 0}).Reload()
        assert logged(RUN).keys() <= scalars(board).keys() and "video" in board.Tags()["images"]


def test_a_missing_wandb_is_reported_only_if_requested(tmp_path, monkeypatch, capsys):
    """`list` and `fit` work without wandb; `--config logging/wandb` is refused before the run starts."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name == "wandb" or name.startswith("wandb.")]:
        monkeypatch.setitem(sys.modules, name, None)
    run = shlex.split(f"{QUICK} {STILL} --trainer.max_steps 1")
    assert main(["list"]) == 0
    assert main([*run, "--config", "logging/wandb"]) == 2
    assert "ganzoo: error: logging/wandb needs wandb: pip install wandb\n" in capsys.readouterr().err
    assert not Path("runs").exists()
    assert main(run) == 0


def test_no_module_imports_wandb_at_its_top():
    """Neither wandb itself nor a part of it."""
    for path in Path(ganzoo.__file__).parent.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert "wandb" not in ast.unparse(node).replace(".", " ").split(), path


def test_a_missing_wandb_login_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    wandb.teardown()
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr("sys.stdin", StringIO())
    try:
        assert main(shlex.split(f"{QUICK} --config logging/wandb --trainer.max_steps 1")) == 2
    finally:
        wandb.teardown()
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ganzoo: error")]
    assert len(error) == 1 and "wandb login" in error[0] and "WANDB_MODE=offline" in error[0]
    assert not list(Path().iterdir()), "nothing is left of it"


def test_a_resumed_run_continues_without_a_logger_that_cannot_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(f"{QUICK} {STILL} --config logging/tensorboard --trainer.max_steps 2")) == 0
    monkeypatch.setattr("ganzoo.callbacks.loggers.RunTensorBoard.open", lambda *_: 1 / 0)
    with pytest.warns(UserWarning, match="tensorboard cannot start: division by zero"):
        assert main(["fit", "--config", f"{RUN}/config.yaml", "--ckpt_path", str(RUN), "--trainer.max_steps", "3"]) == 0
    assert {step for step, _ in logged(RUN)} == {1, 2, 3}


def test_a_failing_logger_is_warned_about_once(tmp_path, monkeypatch, recwarn):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ganzoo.callbacks.loggers.RunTensorBoard.log_metrics", lambda *_, **__: 1 / 0)
    assert main(shlex.split(f"{QUICK} {STILL} --config logging/tensorboard --trainer.max_steps 4")) == 0
    assert len([w for w in recwarn if "RunTensorBoard could not log" in str(w.message)]) == 1
    assert {step for step, _ in logged(RUN)} == {1, 2, 3, 4}
    assert [e.step for e in events(RUN).Images("samples")] == [0, 2, 4], "what it does take, it gets"


def test_logger_configs_are_listed_as_additions(capsys):
    assert {"logging/tensorboard", "logging/wandb"} <= set(additions()) and not set(additions()) & set(configs())
    assert main(["list"]) == 0
    assert capsys.readouterr().out.partition("\nadditions")[2].count("  logging/") == 2
    assert main(["info", "logging/wandb"]) == 0 and "RunWandb" in capsys.readouterr().out
    assert main(["fit", "--config", "logging/wandb"]) == 2 and "--config dcgan/digits" in capsys.readouterr().err


PICTURES = [(0, "samples"), (1, "reals"), (2, "samples"), (4, "samples"), (4, "interpolation"), (4, "video")]


def logged(run):
    """`metrics.jsonl` as {(step, key): value}; values logged twice at a step must be equal."""
    found = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        step = row.pop("step")
        for key, value in row.items():
            assert found.setdefault((step, key), value) == value
    return found


def file_of(run, step, key):
    return (run / f"samples/{step:08d}.png" if key == "samples" else run / f"{key}.png").read_bytes()


def same(a, b):
    return np.array_equal(*(np.asarray(Image.open(BytesIO(x)).convert("RGB")) for x in (a, b)))


def events(run, purge=True):
    sizes = {"images": 0, "scalars": 0}
    return EventAccumulator(str(run / "tensorboard"), sizes, purge_orphaned_data=purge).Reload()


def scalars(board):
    return {(e.step, key): np.float32(e.value) for key in board.Tags()["scalars"] for e in board.Scalars(key)}


def read_wandb(run):
    (file,) = run.glob("wandb/offline-run-*/run-*.wandb")
    return read(file)


def read(file):
    """The records of a `.wandb` file: seven bytes, then LevelDB's log format, in blocks of 32 KiB."""
    wandb.teardown()  # so that its process has written everything
    data, at, parts, records = file.read_bytes(), 7, [], []
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)  # kind: 1 whole, 2 first, 3 middle, 4 last
        parts.append(data[at + 7 : at + 7 + length])
        at += 7 + length
        if kind in (1, 4):
            records.append(Record.FromString(b"".join(parts)))
            parts = []
    return records


def rows(records):
    found = []
    for record in (record for record in records if record.HasField("history")):
        found.append({})
        for item in record.history.item:
            *above, key = item.nested_key or [item.key]
            row = found[-1].setdefault(above[0], {}) if above else found[-1]
            row[key] = json.loads(item.value_json)
    return found


def values(rows):
    found = {}
    for row in rows:
        for key, value in row.items():
            if isinstance(value, int | float) and not key.startswith("_") and key != "trainer/global_step":
                assert found.setdefault((row["trainer/global_step"], key), value) == value
    return found


def media(rows):
    """{(step, key): file}, in the order in which they were logged."""
    found = {}
    for row in rows:
        for key, value in row.items():
            if isinstance(value, dict) and "_type" in value:
                found[row["trainer/global_step"], key] = (value.get("filenames") or [value["videos"][0]["path"]])[0]
    return found
