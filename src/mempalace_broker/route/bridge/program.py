"""The bridge as a program: its lock, clearing up after the last one, signals, and the report to its starter."""

from __future__ import annotations

import argparse
import os
import signal
from typing import TYPE_CHECKING, Any

from ...errors import BrokerError
from ...system.clock import Clock, Deadline
from ...system.environment import raise_limits
from ...system.lock import FileLock
from ...system.lock_notes import read_note, write_note
from ...system.spawn import StartReport
from ..machine.bridge import LINGER_S
from .app import Bridge, say
from .files import BridgeFiles
from .ssh import Ssh, tie_children
from .transports import forget
from .tunnel import Tunnel
from .wire import FIELDS, SshTarget

if TYPE_CHECKING:
    from collections.abc import Sequence

LOCK_S = 10.0  # for a bridge that is leaving


class Leaving(Exception):
    """A signal told us to go."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bridge; return the exit code."""
    options = _parser().parse_args(argv)
    target = SshTarget(
        options.host,
        user=options.user,
        port=options.port,
        config=options.config,
        state_root=options.state_root,
        command=options.command,
    )
    files = BridgeFiles(target)
    raise_limits()
    tie_children()
    lock, report = FileLock(files.lock), StartReport(options.start_fd)
    try:
        if not lock.acquire(Deadline.after(Clock(), LOCK_S)):
            report.lost_race()
            return 0
        return _own(options, target, files, lock, report)
    except BrokerError as exc:
        report.failed(exc)
        return exc.exit_code


def _own(
    options: argparse.Namespace, target: SshTarget, files: BridgeFiles, lock: FileLock, report: StartReport
) -> int:
    """We hold the lock: clear up, serve, clear up."""
    ssh, clock = Ssh(target), Clock()

    def note(undo: list[list[str]]) -> None:
        write_note(lock, {"pid": os.getpid(), "undo": undo})

    forget(ssh, files.folder, _undo(files.lock))
    note([])
    bridge = Bridge(
        Tunnel(ssh, files.folder, clock, note=note, say=say),
        files.socket,
        options.linger,
        clock,
        in_place=lock.still_named,
    )
    say(f"bridge to {target}, started by {options.started_by}")
    _on_signals(_leave)
    try:
        bridge.listen()
        report.ready(f"unix:{files.socket}")
        bridge.run()
    except Leaving:
        say("told to leave")
    finally:
        _on_signals(signal.SIG_IGN)
        bridge.close()
        say("left")
    return 0


def _undo(path: str) -> list[list[str]]:
    """The forwards that the last holder of the lock noted."""
    undo = read_note(path).get("undo")
    return [item for item in undo if isinstance(item, list) and len(item) == 2] if isinstance(undo, list) else []


def _on_signals(handler: Any) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, handler)


def _leave(_number: int, _frame: object) -> None:
    raise Leaving


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mempalace_broker.route.bridge", description=__doc__)
    parser.add_argument("--folder", required=True)  # for people who list processes
    parser.add_argument("--started-by", default="")
    parser.add_argument("--linger", type=float, default=LINGER_S)
    parser.add_argument("--start-fd", type=int, default=-1)
    for name in FIELDS:
        parser.add_argument(f"--{name}", default=0 if name == "port" else "", type=int if name == "port" else str)
    return parser
