"""How the commands of the devbox end."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from devbox.tests.needs import BIN


@pytest.mark.parametrize(
    "argv", [["dot-watch", "--help"], ["pi-devbox", "--version"], ["dot-watch", "--once", "a.dot"]]
)
def test_a_reader_that_left_is_141(argv: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.dot").write_text("digraph { a }")
    (tmp_path / "dot").write_text("#!/bin/sh\necho picture\n")
    (tmp_path / "dot").chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    reading, writing = os.pipe()
    os.close(reading)
    try:
        command = [str(BIN / argv[0]), *argv[1:]]
        done = subprocess.run(
            command, cwd=tmp_path, env=env, stdout=writing, stderr=subprocess.PIPE, timeout=30, check=False
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")
