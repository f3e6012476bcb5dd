"""Runs the devbox's programs, and skips tests whose Debian packages are missing."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from pi_devbox.expose.address import outward_address
from tests.proctools import eventually

BIN = Path(sys.executable).parent
_CI = os.environ.get("CI", "").lower() in {"1", "true"}


def _lacking(message: str) -> None:
    """Skip the test; in CI that is a failure."""
    if _CI:
        pytest.fail(message)
    pytest.skip(message)


def require_program(name: str, package: str) -> None:
    """Skip the test where a Debian package is not installed; in CI that is a failure."""
    if shutil.which(name) is None:
        _lacking(f"no {name} here; Debian: apt install {package}")


def require_outward() -> str:
    """An address of this machine that is not loopback: studio-expose listens on nothing else."""
    address = outward_address()
    if not address:
        _lacking("this machine has no address but loopback")
    return address


class Program:
    """A running program of the devbox, and its output so far.

    Attributes: process; output: the file with both of its streams.
    """

    def __init__(self, argv: list[str], output: Path, env: Mapping[str, str], cwd: Path) -> None:
        self.output = output
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                [str(BIN / argv[0]), *argv[1:]], stdout=file, stderr=file, stdin=subprocess.DEVNULL, env=env, cwd=cwd
            )

    @property
    def said(self) -> str:
        return self.output.read_text(encoding="utf-8", errors="replace")

    def says(self, text: str, timeout: float = 20.0, times: int = 1) -> None:
        """Wait until its output contains `text`."""

        def found() -> bool:
            assert self.process.poll() is None or text in self.said, f"it ended: {self.said}"
            return self.said.count(text) >= times

        eventually(found, timeout, f"{text!r} in {self.output}")

    def end(self, number: int = signal.SIGINT) -> int:
        """Send a signal; return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(20)


@contextlib.contextmanager
def running(argv: list[str], folder: Path, **env: str) -> Iterator[Program]:
    """Start a program in `folder`; end it afterwards."""
    clean = {name: value for name, value in os.environ.items() if name not in {"STUDIO_PORT", "DOT_WATCH_INTERVAL"}}
    program = Program(argv, folder / f"{argv[0]}.out", {**clean, **env}, folder)
    try:
        yield program
    finally:
        try:
            program.end()
        except subprocess.TimeoutExpired:
            program.process.kill()
            program.process.wait(10)
            raise


def run(argv: list[str], cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    command = [str(BIN / argv[0]), *argv[1:]]
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=30, check=False
    )
