"""Fixtures of studio-expose's tests."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devbox.tests import needs
from devbox.tests.needs import Program

Exposed = Callable[..., tuple[Program, tuple[str, int]]]


@pytest.fixture
def expose(tmp_path: Path) -> Iterator[Exposed]:
    """Start the real studio-expose for a port; return the program, and the address it listens on."""
    outward = needs.require_outward()
    with contextlib.ExitStack() as stack:

        def start(port: int, *options: str) -> tuple[Program, tuple[str, int]]:
            argv = ["studio-expose", "--listen-port", "0", *options]
            program = stack.enter_context(needs.running(argv, tmp_path, STUDIO_PORT=str(port)))
            program.says("[Ctrl-C to stop]")
            found = re.search(r"relaying (\S+):(\d+) -> ", program.said)
            assert found
            assert found[1] == outward
            return program, (outward, int(found[2]))

        yield start
