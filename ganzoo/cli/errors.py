"""Errors for people: one line that names the cause and the cure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class UserError(Exception):
    """Something that the user can mend; shown as one line, without a traceback."""


def closest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the known word that is most like this one, or nothing."""
    lower = {name.lower(): name for name in known}
    match = difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.5)
    return f"; did you mean {lower[match[0]]!r}?" if match else ""


def explain(message: str, options: Iterable[str] = (), classes: Iterable[str] = ()) -> str:
    """jsonargparse's message, which spans up to fifty lines, in one.

    Args:
        message: its text.
        options: known option names, for a suggestion.
        classes: known class names, likewise.
    """
    text = message.strip()
    keys = [key for key in re.findall(r'Parser key "([^"]+)"', text) if key != "config"]
    where = f"{'.'.join(keys)}: " if keys else ""
    if match := re.search(r"[Oo]ption '([^']+)' is not accepted|does not accept option '([^']+)'", text):
        name = match[1] or match[2]
        owner = re.search(r"class_path '(?:\w+\.)*(\w+)'", text)
        of = f" of {owner[1]}" if owner else ""
        last = name.removesuffix(".class_path").removesuffix(".init_args")
        return f"no option {last!r}{of}{closest(last, options) or closest(last.split('.')[-1], options)}"
    if match := re.search(r"Unrecognized arguments: (\S+)", text, re.IGNORECASE):
        name = match[1].split("=")[0].lstrip("-")
        return f"no option '--{name}'{closest(name, options)}"
    if match := re.search(r"Expected a dot import path string: (\S+)", text):
        return f"{where}no class {match[1]!r}{closest(match[1], classes)}; your own is written my_file.MyClass"
    if match := re.search(r"File does not exist: '?([^'\n]+)", text):
        return f"{where}no file {match[1]!r}"
    if match := re.search(r"the following arguments are required: (.+)", text):
        missing = match[1].replace("fit.", "--").replace("validate.", "--").replace("test.", "--")
        return f"missing: {missing}; or give a whole config, such as --config dcgan/digits"
    if match := re.search(r"Expected an? (.+?)\. Got value: (.+)", text):
        kind = re.sub(r"<class '(.+?)'>", r"\1", match[1])
        return f"{where}expected {kind}, got {match[2].strip()!r}"
    reasons = re.findall(r"^ *- (.+)$", text, re.MULTILINE)
    reasons = [reason for reason in reasons if not re.match(r"Expected a|Does not validate|Problem with given", reason)]
    if reasons:
        return where + reasons[0]
    return " ".join(text.split())[:300]
