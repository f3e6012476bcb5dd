"""Run a program for its output: without questions, bounded in size, and with no process left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .retry import LookupFailed

LARGEST = 1 << 20


class Output(NamedTuple):
    """The result of a program."""

    status: int
    stdout: bytes
    stderr: bytes

    @property
    def complaint(self) -> str:
        """The last line of stderr, for one line of a log."""
        lines = [line.strip() for line in self.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
        return "".join(char if char.isprintable() else "?" for char in lines[-1])[:200] if lines else ""


async def output_of(argv: Sequence[str], env: Mapping[str, str]) -> Output:
    """Run it in a process group of its own, killed with this coroutine. LookupFailed: it can't run, or prints a lot."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(env),
            start_new_session=True,
        )
    except OSError as exc:
        raise LookupFailed(f"{argv[0]} can't be run: {exc.strerror}") from exc
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        stdout, stderr = await asyncio.gather(_read(process.stdout), _read(process.stderr))
        return Output(await process.wait(), stdout, stderr)
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(process.pid, signal.SIGKILL)  # git's helper processes are in its group
        await process.communicate()  # reaps it and closes the pipes


async def _read(stream: asyncio.StreamReader) -> bytes:
    text = b""
    while chunk := await stream.read(1 << 16):
        text += chunk
        if len(text) > LARGEST:
            raise LookupFailed(f"more than {LARGEST >> 20} MiB of output")
    return text
