"""Fixtures of dot-watch's tests."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from devbox.tests import needs


@pytest.fixture
def direct() -> Callable[..., bytes]:
    """Draws a text with `dot` itself; skips the test if there is no Graphviz."""
    needs.require_program("dot", "graphviz")

    def draw(text: str, layout: str = "dot", dpi: float = 150, form: str = "png") -> bytes:
        argv = [layout, f"-T{form}", f"-Gdpi={dpi}"]
        return subprocess.run(argv, input=text.encode(), capture_output=True, check=True, timeout=60).stdout

    return draw
