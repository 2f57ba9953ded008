"""Failing standard streams and signals: only output is lost, and exit codes are correct."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ganzoo.callbacks.run_folder import DEBOUNCE, RunFolder, RunLog
from ganzoo.cli import main
from ganzoo.cli.streams import OutputError, Stream, ignore_stdout_failures, standard_streams
from ganzoo.core import signals
from ganzoo.core.strategy import GANStrategy

ROOT = Path(__file__).parents[2]
CLOSED, FULL = BrokenPipeError(errno.EPIPE, "Broken pipe"), OSError(errno.ENOSPC, "No space left on device")


class Broken(io.StringIO):
    """Raises the error after `takes` writes."""

    def __init__(self, error: Exception, takes: int = 0) -> None:
        super().__init__()
        self.error, self.takes = error, takes

    def write(self, text: str) -> int:
        self.takes -= 1
        if self.takes < 0:
            raise self.error
        return super().write(text)


def test_only_a_needed_stream_raises_errors() -> None:
    needed, other = Stream(Broken(FULL), needed=True), Stream(Broken(FULL), needed=False)
    with pytest.raises(OutputError, match="^standard output: No space left on device$"):
        print("lost", file=needed)
    print("lost", file=other, flush=True)
    other.writelines(["lost", "too"])
    assert other.error is FULL, "all else is the stream's"
    closed = io.StringIO()
    closed.close()
    print("lost", file=Stream(closed, needed=False))
    with pytest.raises(ValueError, match="closed file"):
        print("lost", file=Stream(closed, needed=True))


@pytest.mark.parametrize(("error", "code"), [(CLOSED, 0), (FULL, 2)])
@pytest.mark.parametrize("command", ["list", "--help", "--version", "info dcgan/digits", "list --help"])
def test_exit_codes_of_commands_with_a_failing_stdout(error, code, command, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "stdout", Broken(error))
    assert main(command.split()) == code
    assert capsys.readouterr().err == ("" if code == 0 else "ganzoo: error: standard output: No space left on device\n")


def test_the_exit_code_is_kept_with_a_failing_stderr(monkeypatch) -> None:
    monkeypatch.setattr(sys, "stderr", Broken(CLOSED))
    assert main(["no such verb"]) == 2


@pytest.mark.parametrize("error", [CLOSED, FULL])
def test_training_completes_with_failing_stdout_and_stderr(error, monkeypatch, tmp_path) -> None:
    """All output fails: at the start, that of a callback, and at the end."""
    monkeypatch.chdir(tmp_path)
    Path("talks.py").write_text(
        "from lightning.pytorch import Callback\n\n\nclass Talks(Callback):\n"
        "    def on_train_batch_end(self, *args):\n        print('a batch')\n"
    )
    monkeypatch.setattr(sys, "stderr", Broken(error))
    monkeypatch.setattr(sys, "stdout", Broken(error))
    command = "fit --model DCGAN --model.width 4 --data Digits --data.image_size 8 --trainer.max_steps 2"
    options = "--trainer.callbacks+ talks.Talks --scores.final_n 0 --samples.video_fps 0 --trainer.accelerator cpu"
    assert main([*command.split(), *options.split()]) == 0
    assert Path("runs/001-dcgan-digits/checkpoints/last.ckpt").exists()


def test_a_broken_pipe_other_than_stdout_is_an_error(monkeypatch, capsys) -> None:
    def broken(*_: object) -> None:
        raise CLOSED

    monkeypatch.setattr("ganzoo.cli.catalog._list", broken)
    with pytest.raises(BrokenPipeError):
        main(["list"])


def test_stdout_is_needed_only_until_training_starts() -> None:
    with standard_streams():
        sys.stdout.terminal.stream = Broken(FULL)  # type: ignore[attr-defined]
        with pytest.raises(OutputError):
            print("a cost")
        ignore_stdout_failures()
        print("a batch")


COMMANDS = {
    "list > /dev/full": 2,
    "list | head -1": 0,
    "list >&-": 0,
    "no 2>&-": 2,
    "no 2> /dev/full": 2,
    "no <&- >&- 2>&-": 2,
}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's disk that is always full")
def test_exit_codes_in_the_shell_with_failing_streams() -> None:
    """As separate processes, since the interpreter flushes its streams at exit. None of the commands imports torch."""
    lines = [f"{sys.executable} -m ganzoo {command}; echo ${{PIPESTATUS[0]}} >&9" for command in COMMANDS]
    text = "\n".join(["exec 9>&1", *lines])
    shell = subprocess.run(["bash", "-c", text], capture_output=True, text=True, cwd=ROOT)
    codes = [int(line) for line in shell.stdout.split() if line.isdecimal()]
    assert codes == list(COMMANDS.values()), shell.stderr
    assert "Exception ignored" not in shell.stderr and "Traceback" not in shell.stderr


# Signals


def python(code: str) -> int:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode


@pytest.mark.parametrize("number", signals.TERMINATE)
def test_exit_codes_of_a_signal_during_imports(number: int) -> None:
    tell = f"lambda _: os.kill(os.getpid(), {int(number)})"
    code = f"import os, signal, ganzoo.cli as c; c.importlib.import_module = {tell}; "
    code += f"signal.signal({int(number)}, signal.SIG_DFL); "  # also under `nohup`
    assert python(code + "c.main(['fit'])") == 75
    assert python(code + "c.main(['evaluate'])") == -number


def test_a_signal_after_the_command_is_ignored() -> None:
    code = "import os, sys; sys.argv[1:] = ['--version']; from ganzoo.__main__ import main; main()"
    assert python(f"{code}; os.kill(os.getpid(), {int(signal.SIGTERM)})") == 0


def test_sighup_stays_ignored_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert signal.SIGHUP not in signals.set_handlers(lambda *_: None, *signals.CODES)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_signals_repeated_within_a_second_count_once(tmp_path, monkeypatch) -> None:
    """`timeout` signals the command, then its process group. A second Ctrl-C counts at any time."""
    run = RunFolder(tmp_path, {}, RunLog(tmp_path))
    now = 100.0
    monkeypatch.setattr("ganzoo.callbacks.run_folder.time.monotonic", lambda: now)
    tell = run._interrupt
    tell(signal.SIGTERM, None)
    now += DEBOUNCE - 0.1
    tell(signal.SIGTERM, None)
    tell(signal.SIGHUP, None)
    assert run.code == 75
    with pytest.raises(KeyboardInterrupt):
        tell(signal.SIGINT, None)
    now += 0.2
    with pytest.raises(KeyboardInterrupt):
        tell(signal.SIGTERM, None)


def test_strategies_are_registered_without_docstrings(monkeypatch) -> None:
    """As under `python -OO`."""
    seen = {}
    monkeypatch.setattr(GANStrategy, "__doc__", None)

    class Registry:
        def register(self, name: str, cls: type, description: str) -> None:
            seen[name] = description

    GANStrategy.register_strategies(Registry())
    assert set(seen.values()) == {""}


def test_a_second_sigterm_counts_after_one_second(tmp_path, monkeypatch):
    run, now = RunFolder(tmp_path, {}, RunLog(tmp_path)), 100.0
    monkeypatch.setattr("ganzoo.callbacks.run_folder.time.monotonic", lambda: now)
    run._interrupt(signal.SIGTERM, None)
    now = 100.9
    run._interrupt(signal.SIGTERM, None)
    now = 101.1
    with pytest.raises(KeyboardInterrupt):
        run._interrupt(signal.SIGTERM, None)


def test_processes_agree_on_a_signal_at_each_log(tmp_path, capfd):
    def reduce(signals, reduce_op):
        asked.append((int(signals), reduce_op))
        return torch.tensor(int(signal.SIGTERM))

    run, asked = RunFolder(tmp_path, {}, RunLog(tmp_path)), []
    run.period = 5
    strategy = SimpleNamespace(root_device=torch.device("cpu"), reduce=reduce)
    trainer = SimpleNamespace(world_size=2, global_step=4, strategy=strategy)
    assert not run._stop(trainer) and asked == []
    trainer.global_step = 5
    assert run._stop(trainer) and asked == [(0, "max")] and run.code == 75
    run.signal = 0
    run._interrupt(signal.SIGTERM, None)
    assert "stopping at the next step divisible by 5; repeat to stop immediately" in capfd.readouterr().err
