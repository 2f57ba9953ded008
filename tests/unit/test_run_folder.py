"""Run folders: unique under concurrent starts, recreated if deleted, and without links to other folders."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import threading
from pathlib import Path

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image

from ganzoo.callbacks.run_folder import RunFolder, RunLog
from ganzoo.callbacks.samples import Samples
from ganzoo.checkpoint.sealed import read
from ganzoo.cli import main, preflight, resuming
from ganzoo.cli.errors import UserError
from ganzoo.cli.training import GANCLI, build
from ganzoo.core import runs
from ganzoo.core.runs import lock, next_run, runs_of, take_next

SMALL = (
    "fit --model GAN --model.hidden 8 --model.d_hidden 8 --data Digits --data.image_size 8 --trainer.max_steps 2 "
    "--trainer.enable_progress_bar false --scores.metrics [] --scores.final_n 0 --samples.video_fps 0 "
    "--diagnostics.every_n_steps 0 --trainer.accelerator cpu"
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def fit(options=""):
    return main(shlex.split(f"{SMALL} {options}"))


def listing(folder="runs"):
    return sorted(path.name for path in Path(folder).iterdir())


def test_concurrent_runs_have_different_numbers():
    """As in a sweep."""
    barrier, found = threading.Barrier(8), []

    def take(name):
        barrier.wait()
        found.extend(take_next(Path("runs"), name)[0] for _ in range(5))

    threads = [threading.Thread(target=take, args=("same" if i % 2 else f"other-{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert listing() == sorted(path.name for path in found) and all(map(Path.is_dir, found))
    assert len({path.name.partition("-")[0] for path in found}) == 40


def test_numbers_claimed_by_other_processes_are_skipped(monkeypatch):
    """One is claimed but has no folder yet; another is taken in the meantime, under a different name."""
    Path("runs/.001").mkdir(parents=True)
    assert take_next(Path("runs"), "a") == (Path("runs/002-a"), [Path("runs/002-a")])
    numbers = runs._numbers

    def late(root):
        seen = numbers(root)
        (root / "003-b").mkdir(exist_ok=True)
        return seen

    monkeypatch.setattr(runs, "_numbers", late)
    assert take_next(Path("runs"), "a")[0] == Path("runs/004-a")
    assert listing() == [".001", "002-a", "003-b", "004-a"]


def test_the_runs_folder_may_be_removed_concurrently(monkeypatch):
    """As by the run that created it, on being refused."""
    mkdir, gone = Path.mkdir, []

    def late(path, *args, **kwargs):
        if path.name == ".001" and not gone:
            gone.append(path)
            path.parent.rmdir()
        return mkdir(path, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", late)
    folder, made = take_next(Path("runs"), "a")
    assert gone and folder.is_dir() and made == [folder, Path("runs")]


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("x/../../home/project", "001-x-..-..-home-project"),
        ("gan-" + "a" * 255, "001-gan-" + "a" * 116),
        ("\x1b[2J", "001--[2J"),
    ],
)
def test_a_run_name_is_a_single_path_component(name, part):
    assert next_run(Path("runs"), name) == Path("runs", part) == take_next(Path("runs"), name)[0]


def test_a_run_folder_is_created_before_the_data_is_checked(monkeypatch):
    """Files of a run that starts and ends during the check are not changed."""
    whole, later = preflight.check_data, []

    def slow(*args):
        if not later:
            later.append(args)
            assert listing() == ["001-gan-digits"]
            assert fit("--model.hidden 9") == 0
            later.extend(
                sorted((path, path.read_bytes()) for path in Path("runs").glob("002-*/**/*") if path.is_file())
            )
        whole(*args)

    monkeypatch.setattr(preflight, "check_data", slow)
    assert fit() == 0
    assert listing() == ["001-gan-digits", "002-gan-digits"]
    assert all(Path(f"runs/{name}/checkpoints/last.ckpt").exists() for name in listing())
    assert all(path.read_bytes() == content for path, content in later[1:]) and len(later) > 5
    assert "hidden: 8" in Path("runs/001-gan-digits/config.yaml").read_text()


def test_refused_runs_leave_no_folder(capsys):
    assert fit("--data.batch_size 99999") == 2
    assert not Path("runs").exists()
    with pytest.raises(SystemExit) as caught, pytest.MonkeyPatch.context() as patch:
        patch.setattr(preflight, "check_data", lambda *_: sys.exit(listing()[0]))  # as SIGTERM does
        build("fit", shlex.split(SMALL)[1:])
    assert caught.value.code == "001-gan-digits"
    assert not Path("runs").exists()
    assert fit("--dry-run") == 0 and not Path("runs").exists()
    Path("runs/001-other").mkdir(parents=True)
    assert fit("--data.batch_size 99999") == 2 and listing() == ["001-other"]


def test_a_folder_with_a_checkpoint_is_never_discarded():
    """Whichever process has written the checkpoint."""
    folder, made = take_next(Path("runs"), "a")
    run = RunFolder(folder, {}, RunLog(folder), made)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/last.ckpt").touch()
    run.discard()
    assert folder.exists()
    (folder / "checkpoints/last.ckpt").unlink()
    run.discard()
    assert not Path("runs").exists()


@pytest.fixture
def cats(folder):
    """A run on pictures of cats, beside pictures of dogs."""
    for name, colour in {"cats": 10, "dogs": 200}.items():
        Path(name).mkdir()
        for i in range(8):
            Image.new("L", (8, 8), colour + i).save(f"{name}/{i}.png")
    assert fit(PICTURES + " --data.path cats") == 0
    return Path("runs/001-gan-cats")


PICTURES = "--data ImageFolder --data.channels 1 --data.batch_size 4 --data.num_workers 0"


def content(run):
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_resuming_with_other_data_starts_a_new_run_that_names_its_parent(cats, capsys):
    before = content(cats)
    assert fit(f"{PICTURES} --data.path dogs --ckpt_path {cats}") == 2
    assert "last.ckpt is at step 2 of 2; to continue, add --trainer.max_steps 4" in capsys.readouterr().err
    assert fit(f"{PICTURES} --data.path dogs --ckpt_path {cats} --trainer.max_steps 3") == 0
    told = f"data.path is 'dogs' here, but 'cats' in {cats}: continuing from {cats}"
    assert told in capsys.readouterr().err
    assert content(cats) == before and listing() == ["001-gan-cats", "002-gan-dogs"]
    child = Path("runs/002-gan-dogs")
    assert json.loads((child / "environment.json").read_text())["parent"] == f"{cats}/checkpoints/last.ckpt"
    assert read(child / "checkpoints/last.ckpt")["global_step"] == 3
    assert fit(f"{PICTURES} --data.path dogs --ckpt_path {child} --trainer.max_steps 4") == 0
    assert json.loads((child / "environment.json").read_text())["parent"] == f"{cats}/checkpoints/last.ckpt"
    assert fit(f"{PICTURES} --data.path ./cats/ --data.batch_size 2 --ckpt_path {cats} --trainer.max_steps 3") == 0
    assert listing() == ["001-gan-cats", "002-gan-dogs"] and "parent" not in (cats / "environment.json").read_text()


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ("{class_path: Digits}", "{class_path: ganzoo.data.Digits}", None),
        ("{class_path: Digits, init_args: {flip: true}}", "{class_path: Digits, init_args: {flip: false}}", None),
        ("{class_path: F, init_args: {path: a}}", "{class_path: F, init_args: {path: a/, new: 1}}", None),
        (
            "{class_path: F, init_args: {path: a}}",
            "{class_path: F, init_args: {path: b}}",
            "data.path is 'b' here, but 'a'",
        ),
        (
            "{class_path: F, init_args: {labels: null}}",
            "{class_path: F, init_args: {labels: 1}}",
            "data.labels is 1 here",
        ),
        ("{class_path: F}", "{class_path: other.G}", "data.class_path is 'other.G' here, but 'F'"),
        ("7", "{class_path: F}", "data is {'class_path': 'F'} here, but 7"),
        (
            "{class_path: P, init_args: {data: {class_path: F, init_args: {path: a}}}}",
            "{class_path: P, init_args: {data: {class_path: F, init_args: {path: b, batch_size: 3}}}}",
            "data.data.path is 'b' here, but 'a'",
        ),
    ],
)
def test_changed_data_arguments_make_a_new_run_except_those_of_training(before, after, found):
    rest = "model: {class_path: GAN, init_args: {hidden: 8, n_critic: %d}}\ndata: "
    Path("config.yaml").write_text(rest % 1 + before)
    said = resuming.difference(Path("config.yaml"), rest % 2 + after)
    assert said == found or said and found and said.startswith(found)


def test_changed_model_arguments_make_a_new_run_except_those_of_training():
    Path("config.yaml").write_text("model: {class_path: WGANGP, init_args: {gp_weight: 10, n_critic: 5}}")
    config = "model: {class_path: WGANGP, init_args: {gp_weight: %d, n_critic: 1}}\ndata: {class_path: Digits}"
    assert resuming.difference(Path("config.yaml"), config % 10) is None
    assert resuming.difference(Path("config.yaml"), config % 1) == "model.gp_weight is 1 here, but 10"
    Path("config.yaml").write_bytes(b"\xff")
    with pytest.raises(UserError, match="config.yaml is not UTF-8 text"):
        resuming.difference(Path("config.yaml"), config % 1)


def deleting(step, act, options=""):
    """A run that calls `act` on its folder at the start of a step."""

    class Act(Callback):
        def on_train_batch_start(self, trainer, *_):
            if trainer.global_step == step:
                act(Path("runs/001-gan-digits"))

    with pytest.MonkeyPatch.context() as patch:
        whole = GANCLI.instantiate_trainer

        def with_act(cli, **kwargs):
            trainer = whole(cli, **kwargs)
            trainer.callbacks.append(Act())
            return trainer

        patch.setattr(GANCLI, "instantiate_trainer", with_act)
        return fit(options)


def test_a_deleted_folder_is_recreated_and_reported(capsys):
    assert deleting(1, shutil.rmtree, "--trainer.max_steps 3") == 1
    told = capsys.readouterr().err
    run = Path("runs/001-gan-digits")
    assert f"{run} was deleted, and was recreated at step 2\n" in told
    assert f"Done at step 3, but {run} was deleted during the training: its earlier files are lost. In {run}:" in told
    command = next(line for line in told.splitlines() if "ganzoo fit" in line)
    assert main(shlex.split(command)[3:]) == 0 and read(run / "checkpoints/last.ckpt")["global_step"] == 6


def test_a_folder_deleted_at_the_end_is_reported(monkeypatch, capsys):
    monkeypatch.setattr(Samples, "on_fit_end", lambda *_: shutil.rmtree("runs"))
    assert fit() == 1
    told = capsys.readouterr().err
    assert "Done at step 2, but runs/001-gan-digits was deleted" in told and "Next:" not in told


def test_a_deleted_lock_is_recreated(capsys):
    assert deleting(1, lambda run: (run / ".lock").unlink()) == 0
    assert "deleted" not in capsys.readouterr().err and Path("runs/001-gan-digits/.lock").exists()


def test_a_folder_taken_over_by_another_run_is_not_written(capsys):
    """The run's own folder was moved, and another run has taken its name."""

    def act(run):
        run.rename("gone")
        run.mkdir()
        for name in (".lock", "config.yaml", "metrics.jsonl"):
            (run / name).write_text("its own")

    assert deleting(1, act) == 2
    assert "runs/001-gan-digits was deleted, and another training now uses it; start" in capsys.readouterr().err
    assert listing("runs/001-gan-digits") == [".lock", "config.yaml", "metrics.jsonl"]
    assert {path.read_text() for path in Path("runs/001-gan-digits").iterdir()} == {"its own"}


@pytest.mark.parametrize("name", ["samples", "checkpoints", "wandb", "tensorboard", "wandb/x/logs", "a/wandb/x/logs/y"])
def test_links_out_of_the_run_folder_are_refused(name, tmp_path):
    run, victim = Path("run"), Path("victim")
    victim.mkdir()
    (run / name).parent.mkdir(parents=True)
    (run / name).symlink_to(victim.absolute())
    with pytest.raises(MisconfigurationException, match=f"run/{name} is a link to {victim.absolute()}"):
        lock(run)
    (run / name).unlink()
    (run / "here").mkdir()
    (run / name).symlink_to((run / "here").absolute())
    lock(run)


def test_links_made_by_wandb_are_accepted():
    Path("run/wandb/offline-run-1/logs").mkdir(parents=True)
    Path("run/wandb/offline-run-1/logs/debug-core.log").symlink_to("/home/me/.cache/wandb/core.log")
    Path("run/wandb/latest-run").symlink_to("offline-run-1")
    lock(Path("run"))


def test_damaged_configs_of_other_runs_are_ignored():
    """In the search for runs with the same config."""
    for i, content in enumerate((b"same\n", b"\xff\xfe", b"same\n")):
        Path(f"runs/00{i}-x").mkdir(parents=True)
        Path(f"runs/00{i}-x/config.yaml").write_bytes(content)
    Path("runs/003-x/config.yaml").mkdir(parents=True)
    Path("runs/004-x").mkdir()
    Path("runs/004-x/config.yaml").symlink_to("nowhere")
    assert runs_of(Path("runs"), "same\n") == [Path("runs/000-x"), Path("runs/002-x")]


def test_run_1000_is_newer_than_run_999(tmp_path):
    made = [tmp_path / f"{number}-x" for number in (999, 1000)]
    for run in made:
        run.mkdir()
        (run / "config.yaml").write_text("same\n")
    assert runs_of(tmp_path, "same\n") == made
