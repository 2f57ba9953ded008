"""UTF-8 files, escaped control characters on terminals, and hints for misspelt names."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import types
import warnings
from pathlib import Path

import pytest
from rich.console import Console

import ganzoo
from ganzoo import cli
from ganzoo.callbacks import base
from ganzoo.core.files import read_text
from ganzoo.core.text import Escaped, closest, composed, escaping, nearest, printable, slip, visible

EVIL = "\x1b]0;title\x07\x9b31m\r\x00\u202e\udce9"
SHOWN = "\\x1b]0;title\\x07\\x9b31m\\r\\x00\\u202e\\udce9"
NFC, NFD = "caf\u00e9", "cafe\u0301"


def test_text_files_are_utf_8_with_or_without_a_byte_order_mark(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + "größe".encode())  # as Windows' Notepad does
    assert read_text(file) == "größe"
    file.write_bytes("größe".encode("latin-1"))
    with pytest.raises(ValueError, match=r"a\.yaml is not UTF-8 text \(byte 2\); save it as UTF-8"):
        read_text(file)


def test_names_are_composed_to_nfc():
    assert composed(NFD) == composed(NFC) == NFC
    assert composed("caf\udcc3\udca9") == NFC  # as Python decodes it in a locale other than UTF-8
    assert composed("caf\udce9") == "caf\udce9" and composed("\ud800") == "\ud800"


def test_invisible_characters_are_escaped():
    assert visible(EVIL) == SHOWN and visible("größe  日本 ±") == "größe  日本 ±"
    assert visible("a\nb") == "a\\nb" and visible("a\nb\tc", keep="\n\t") == "a\nb\tc"
    assert printable(" a\n  b\x1b") == "a b\\x1b"
    assert printable("x" * 255) == "x" * 255 and printable("x" * 256) == "x" * 40 + "..."


@pytest.mark.parametrize(
    ("encoding", "shown"), [("utf-8", "±日"), ("cp1252", "±\\u65e5"), ("ascii", "\\xb1\\u65e5"), (None, "±日")]
)
def test_streams_escape_control_and_unencodable_characters(encoding, shown):
    stream = io.TextIOWrapper(io.BytesIO(), encoding or "utf-8", newline="")
    if encoding is None:
        stream = io.StringIO()
    out = Escaped(stream)
    assert out.write(f"{EVIL}±日\n") == len(EVIL) + 3
    out.writelines([EVIL, "\t"])
    out.write("\r50%")  # as written by tqdm
    stream.seek(0)
    assert stream.read() == f"{SHOWN}{shown}\n{SHOWN}\t\r50%"


def test_streams_are_restored_except_stderr_after_an_error(capsys):
    before = sys.stdout, sys.stderr
    with escaping():
        print(EVIL)
    assert (sys.stdout, sys.stderr) == before
    with pytest.raises(KeyError), escaping():
        raise KeyError
    print(EVIL, file=sys.stderr)  # still escaped, for the traceback
    sys.stdout, sys.stderr = before
    out, err = capsys.readouterr()
    assert out == err == f"{SHOWN}\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_streams_are_no_terminals_to_libraries():
    """Which would write colours, that are escaped."""
    assert Terminal().isatty() and not Escaped(Terminal()).isatty()


def test_all_output_of_a_command_is_escaped(monkeypatch):
    """Including warnings, and output next to a progress bar, which itself needs control characters."""

    def verb(*_):
        print(EVIL)
        sys.stderr.write(warnings.formatwarning(EVIL, UserWarning, "evil.py", 1, ""))
        with base.Bar("{task.description}", auto_refresh=False) as bar:
            bar.add_task("drawing")
            print(EVIL)
            print(EVIL, file=sys.stderr)
        raise cli.UserError(EVIL)

    monkeypatch.setenv("TERM", "xterm")  # and not "dumb"
    monkeypatch.setattr(base, "Console", lambda **options: Console(width=200, force_terminal=True, **options))
    monkeypatch.setitem(sys.modules, "ganzoo.cli.evil", types.SimpleNamespace(main=verb))
    monkeypatch.setitem(cli.VERBS, "evil", cli.Verb("evil", ""))
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert cli.main(["evil"]) == 2
    assert (sys.stdout, sys.stderr) == (out, err)
    assert out.getvalue() == f"{SHOWN}\n"
    assert err.getvalue().startswith(f"ganzoo: warning: {printable(EVIL)}\n")
    assert err.getvalue().count(SHOWN) == 2 and "drawing" in err.getvalue() and "\x1b[" in err.getvalue()
    assert err.getvalue().endswith(f"ganzoo: error: {printable(EVIL)}\n")
    assert not {"\x07", "\x9b", "\x00", "\u202e"} & set(err.getvalue()) and "\x1b]" not in err.getvalue()


def test_names_that_are_too_long_are_refused(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    for command in (["sample", "x" * 300], ["info", "x" * 300], ["fit", "--config", "x" * 300], ["bench", "x" * 300]):
        assert cli.main(command) == 2
        assert capsys.readouterr().err == f"ganzoo: error: {'x' * 40}... File name too long\n"


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such locale")
def test_non_ascii_names_in_the_c_locale(tmp_path):
    """In a separate process, since the encoding of names is chosen at startup."""
    (tmp_path / "süß").mkdir()
    (tmp_path / "süß/own.yaml").write_text("# für 日本\nmodel: GAN\n", encoding="utf-8")
    code = """
from ganzoo.cli import main
from ganzoo.core.files import read_text; from ganzoo.core.text import path_of
assert path_of("s\\u00fc\\u00df/own.yaml").is_file() and path_of("s\\udcc3\\udcbc\\udcc3\\udc9f").is_dir()
assert main(["info", "s\\udcc3\\udcbc\\udcc3\\udc9f/own.yaml"]) == 0
assert main(["list"]) == 0
assert main(["info", "s\\u00fc"]) == 2
"""
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment["PYTHONPATH"] = str(Path(ganzoo.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"# f\\xfcr \\u65e5\\u672c\nmodel: GAN\n")
    assert done.stderr.startswith(b"ganzoo: error: no variant, config or file 's\\xfc'")


OPTIONS = ["--seeds", "--outdir", "--format", "--image_size", "--extractor", "trainer.max_steps", "trainer.logger"]
OPTIONS += ["trainer.gradient_clip_val", "samples.every_n_steps", "scores.every_n_steps", "fid", "kid", "DCGAN", "lr"]


@pytest.mark.parametrize(
    ("word", "meant"),
    {
        **{"--seed": "--seeds", "--outdri": "--outdir", "-format": "--format", "--size": "--image_size"},
        **{"--extract": "--extractor", "trainer.max_step": "trainer.max_steps", "fdi": "fid", "dcgan": "DCGAN"},
        **{"trainre.max_steps": "trainer.max_steps", "samples.every": "samples.every_n_steps", "lrr": "lr"},
        **dict.fromkeys(["--steps", "--output", "--foo", "--help", "trainer.foo", "trainer.gradient_penalty"]),
        **dict.fromkeys(["every", "trainer", "", "x", "is", "x" * 5000]),
    }.items(),
)
def test_hints_suggest_the_nearest_name(word, meant):
    assert nearest(word, OPTIONS) == meant


def test_hints_for_slips_and_differently_stored_accents():
    assert slip("path", ["class_path"]) is None and slip("class_pth", ["class_path"]) == "class_path"
    assert closest(NFC, ["dog", NFD], "no") == "; did you mean 'cafe\\u0301', whose accents are encoded differently?"
    assert closest("cat", ["dog"], "there is dog") == "; there is dog"
