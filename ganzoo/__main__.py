"""`python -m ganzoo`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ganzoo import cli
from ganzoo.core.signals import ignore


def main(arguments: Sequence[str] | None = None) -> int:
    """`cli.main`; as a program, later signals to stop do not change the exit code."""
    code = cli.main(arguments)
    if arguments is None:
        ignore()
    return code


if __name__ == "__main__":
    sys.exit(main())
