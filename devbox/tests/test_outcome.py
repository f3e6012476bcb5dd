"""How the commands of the devbox end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from devbox.tests.needs import BIN


@pytest.mark.parametrize(
    "argv", [["dot-watch", "--help"], ["pi-devbox", "--version"], ["dot-watch", "--once", "a.dot"]]
)
def test_a_reader_that_left_is_141(argv: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.dot").write_text("digraph { a }")
    (tmp_path / "dot").write_text("#!/bin/sh\necho error >&2\n")
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


SLOW_IMPORT = """
import builtins, sys, time
real = builtins.__import__
def slow(name, *rest, **more):
    if name == "click":
        sys.stdout.write("importing")
        sys.stdout.flush()
        time.sleep(60)
    return real(name, *rest, **more)
builtins.__import__ = slow
sys.argv = ["x"]
from pi_devbox.{module} import main
main()
"""


@pytest.mark.parametrize("module", ["dotwatch", "expose", "cli"])
def test_ctrl_c_while_modules_are_imported_shows_no_traceback(module: str) -> None:
    argv = [sys.executable, "-c", SLOW_IMPORT.format(module=module)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(9) == b"importing"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=20)[1] == b""
    assert process.returncode == 130
