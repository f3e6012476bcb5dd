"""What a check is, and how one runs: within a limit, in a place of its own, and never the end of the others."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import BrokerError
from ...route.engine_version import expected_engine
from ...system.paths import Context, home_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ...system.clock import Deadline
    from ...system.find_engine import EngineCommand

_TROUBLE = (BrokerError, OSError, ValueError, LookupError, TypeError, subprocess.SubprocessError)


class Verdict(StrEnum):
    """What came of a check."""

    OK = "ok"  # as docs/macos.md says of this system
    DIFFERS = "differs"  # otherwise, and the broker copes: worth a report
    FAILED = "failed"  # something that the broker needs does not hold
    SKIPPED = "skipped"


class Outcome(NamedTuple):
    """A verdict, the figure that it rests on, and why, where it is not "ok"."""

    verdict: Verdict
    figure: str = ""
    why: str = ""


class Check(NamedTuple):
    """`measure` looks and decides nothing, `judge` decides and looks at nothing: so every verdict can be tested."""

    name: str
    measure: Callable[[Bench], Any]
    judge: Callable[[Any], Outcome]
    limit_s: float = 20.0


class Skip(Exception):
    """A check that can't be made here; says why."""


class TookTooLong(Exception):
    """A time limit passed, perhaps in a call of the system that does not return."""


class Bench:
    """Where the checks work: a HOME and a palace of their own below `root`.

    Attributes:
        env: what the programs under test get: as little as a strict agent passes on, and the engine if there is one.
        engine: None where no mempalace was found; `no_engine` says why. share: the folder of --share.
        note: tells the person at the terminal something.
    """

    def __init__(self, root: Path, env: Mapping[str, str], note: Callable[[str], None] = lambda _: None) -> None:
        from ..demo.home import environment

        self.root = root
        self.home = root / "home"
        self.users_env = env
        self.note = note
        self.engine, self.no_engine = find_users_engine(env)
        (self.home / ".mempalace").mkdir(parents=True, mode=0o700)
        self.env = environment(env, self.home, self.engine)

    def context(self, palace: Path | None = None, env: Mapping[str, str] | None = None) -> Context:
        """The palace of this home, or another one."""
        from ...route.discover import meant_palace

        env = dict(env or self.env)
        return Context(meant_palace(env, str(palace) if palace else None), env)

    def ensure(self, palace: Path | None = None, env: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Find or start the broker: what `ensure` prints."""
        from ..serve import ensure

        return ensure(self.context(palace, env))

    @contextlib.contextmanager
    def broker(self, palace: Path | None = None, env: Mapping[str, str] | None = None) -> Iterator[dict[str, Any]]:
        """A broker that runs for as long as the block: what `ensure` says of it."""
        from ..stop import stop

        try:
            yield self.ensure(palace, env)
        finally:
            stop(self.context(palace, env), now=True, why="the selftest is over")


def find_users_engine(env: Mapping[str, str]) -> tuple[EngineCommand | None, str]:
    """The engine that a broker started from this environment runs, or why there is none."""
    try:
        return expected_engine(env), ""
    except BrokerError as exc:
        return None, exc.message


def run_check(check: Check, bench: Bench, deadline: Deadline) -> Outcome:
    """Make one check, in the time that it may take of what is left of all."""
    seconds = min(check.limit_s, deadline.remaining())
    if seconds <= 0:
        return Outcome(Verdict.SKIPPED, why="the time for all checks is over")
    try:
        with time_limit(seconds):
            measured = check.measure(bench)
        return check.judge(measured)
    except Skip as exc:
        return Outcome(Verdict.SKIPPED, why=str(exc))
    except TookTooLong:
        return Outcome(Verdict.FAILED, why=f"no result within {seconds:.0f} s")
    except _TROUBLE as exc:
        return Outcome(Verdict.FAILED, why=f"{type(exc).__name__}: {exc}")


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TookTooLong in the block after that time, out of a blocking call as well. Main thread only; they nest."""

    def ring(_number: int, _frame: object) -> None:
        raise TookTooLong

    begun = time.monotonic()
    before = signal.signal(signal.SIGALRM, ring)
    outer, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        left = max(outer - (time.monotonic() - begun), 0.001) if outer else 0.0
        signal.setitimer(signal.ITIMER_REAL, left)
        signal.signal(signal.SIGALRM, before)


def without_home(text: str, env: Mapping[str, str]) -> str:
    """The text with the user's home as ~: it is to be pasted into a report."""
    home = home_of(env)
    for path in sorted({home, os.path.realpath(home)} - {"", "/"}, key=len, reverse=True) if home else ():
        text = text.replace(path, "~")
    return text
