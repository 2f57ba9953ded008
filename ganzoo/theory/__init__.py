"""The theory's pictures: what `python -m ganzoo theory` draws, and what the notebooks show.

Each is a function of no arguments, or of a training's `steps`, that returns a matplotlib figure. What it draws is
measured by another function beside it, which the tests ask, too.
"""

# figure -> (file, what it shows): a function of that name in `theory/<file>.py` draws it; its docstring is the caption
FIGURES = {
    "bilinear": ("dynamics", "f = xy under every update rule"),
}
