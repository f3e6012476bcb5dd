"""The command line `mempalace-broker`: one small module per group of commands, `main` for all of them."""

from __future__ import annotations

import sys

from ..system.startup import INTERRUPT, exit_on, occupy_standard_descriptors, use_utf8

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code (docs/exit-codes.md). Errors become one line on stderr, never a traceback.

    Args:
        argv: None: this is the program itself, whose signals, encoding and descriptors are settled, too.
    """
    if argv is None:
        exit_on(INTERRUPT)  # until the command is loaded
        use_utf8()
        occupy_standard_descriptors()
    from .outcome import guarded
    from .root import root

    code = guarded(root, list(sys.argv[1:] if argv is None else argv))
    if argv is None:
        exit_on(INTERRUPT)  # while Python cleans up
    return code
