"""Run the planned commands in the foreground, and retry a unit that fails. IO only."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import DevboxError
from .commands import Command, Unit

PAUSES_S = (5.0, 15.0)  # a registry in trouble needs some seconds


class BuildFailed(DevboxError):
    """A command failed in every attempt."""


def run_units(
    units: Sequence[Unit], root: Path, *, attempts: int, say: Callable[[str], None], sleep: Callable[[float], None]
) -> None:
    """Run all units in order, each up to `attempts` times; BuildFailed names the command that kept failing."""
    for unit in units:
        for attempt in range(1, attempts + 1):
            failed = _run(unit, root, say)
            if failed is None:
                break
            command, status = failed
            again = f"attempt {attempt} of {attempts}"
            if attempt == attempts:
                raise BuildFailed(
                    f"`{shlex.join(command.argv)}` ended with {status} ({again}).",
                    hint="read its output above; the same command continues with the finished layers",
                )
            pause = PAUSES_S[min(attempt, len(PAUSES_S)) - 1]
            say(f"ended with {status} ({again}), retrying in {pause:.0f} s")
            sleep(pause)


def buildx_works() -> bool:
    """Whether docker has buildx, and an engine that answers."""
    return _succeeds("docker", "buildx", "version") and _succeeds("docker", "version")


def buildah_works() -> bool:
    """Whether buildah runs."""
    return _succeeds("buildah", "--version")


def _run(unit: Unit, root: Path, say: Callable[[str], None]) -> tuple[Command, int] | None:
    """Run a unit; return the command that fails, and its status."""
    for command in unit:
        say(f"$ {shlex.join(command.argv)}")
        quiet = subprocess.DEVNULL if command.may_fail else None
        try:
            status = subprocess.run(command.argv, cwd=root, stdout=quiet, stderr=quiet, check=False).returncode
        except OSError as exc:
            raise BuildFailed(
                f"{command.argv[0]} can't be run: {exc.strerror}.", hint="install it, or choose another --builder"
            ) from exc
        if status and not command.may_fail:
            return command, status
    return None


def _succeeds(*argv: str) -> bool:
    if shutil.which(argv[0]) is None:
        return False
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
