"""`python -m ganzoo`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ganzoo import cli
from ganzoo.core.allocator import keep_freed_memory
from ganzoo.core.signals import ignore


def main(arguments: Sequence[str] | None = None) -> int:
    """`cli.main`; as a program, freed memory is kept, and later signals to stop do not change the exit code."""
    if arguments is None:
        keep_freed_memory()
    code = cli.main(arguments)
    if arguments is None:
        ignore()
    return code


if __name__ == "__main__":
    sys.exit(main())
