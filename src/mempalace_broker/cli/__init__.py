"""The command line `mempalace-broker`: one small module per group of commands, `main` for all of them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code (docs/exit-codes.md). Errors become one line on stderr, never a traceback."""
    from .outcome import guarded
    from .root import root

    return guarded(root, list(sys.argv[1:] if argv is None else argv))
