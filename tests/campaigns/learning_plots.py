"""A plot of each table of the learning page: every run as a point, the mean of an arm as a line."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Sequence
from io import BytesIO
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.campaigns.learning_rows import Experiment

WIDTH, DPI = 9, 80  # inches, pixels per inch
COLOURS = 64  # of the palette, for small files
DECADES = 10  # ratio of the largest to the smallest distance from which their axis is logarithmic
Points = dict[str, dict[str, list[float]]]  # figure -> arm -> values


def points(experiment: Experiment, rows: Sequence[dict[str, Any]]) -> Points:
    """What the plot shows: the values of all finished runs, with an entry for each arm that has one."""
    arms = [arm for arm in experiment.arms if any(row["arm"] == arm and row["figures"] for row in rows)]
    return {
        name: {
            arm: [row["figures"][name] for row in rows if row["arm"] == arm and name in row["figures"]] for arm in arms
        }
        for name in experiment.figures
    }


def digest(found: Points) -> str:
    """A hash of the points, in the file's metadata, which shows whether the file is up to date."""
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16]


def plot(found: Points) -> bytes:
    """A PNG file with one panel for each figure and one line for each arm; the same points give the same bytes."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    arms = list(next(iter(found.values())))
    with matplotlib.rc_context({"font.size": 8}):
        figure = Figure((WIDTH, 0.8 + 0.19 * len(arms)), dpi=DPI, layout="constrained")
        panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
        for panel, (name, values) in zip(panels, found.items(), strict=True):
            for place, mine in enumerate(values.values()):
                panel.plot(mine, [place] * len(mine), "o", color="C0", markersize=3.5, alpha=0.7)
                if len(mine) > 1:
                    panel.plot([statistics.mean(mine)], [place], "|", color="C1", markersize=10, markeredgewidth=1.5)
            if logarithmic(name, every := sum(values.values(), [])):
                panel.set_xscale("log")
                ticks = (1.0, 2.0, 5.0) if max(every) < 50 * min(every) else (1.0,)
                panel.xaxis.set_major_locator(LogLocator(subs=ticks))
                panel.xaxis.set_major_formatter("{x:g}")
                panel.xaxis.set_minor_formatter("")
            panel.set_title(name, fontsize=9)
            panel.grid(alpha=0.3)
        panels[0].set_yticks(range(len(arms)), arms)
        panels[0].set_ylim(len(arms) - 0.4, -0.6)  # the first arm on top
        drawn = BytesIO()
        figure.savefig(drawn, format="png")
    facts, file = PngInfo(), BytesIO()
    facts.add_text("Description", digest(found))
    Image.open(drawn).convert("RGB").quantize(COLOURS).save(file, "PNG", optimize=True, pnginfo=facts)
    return file.getvalue()


def logarithmic(name: str, values: Sequence[float]) -> bool:
    """Whether the values are unbounded distances that span decades."""
    least, most = min(values, default=0), max(values, default=0)
    return ("fid" in name or name == "kl") and 0 < DECADES * least <= most
