"""Starts a broker from a command line: options, settings, log, owner lock, lease, and a report to the starter."""

from __future__ import annotations

import argparse
import asyncio
import logging
import logging.handlers
import os
import sys
from typing import TYPE_CHECKING

from .. import __version__
from ..errors import EXIT_FAILURE, EXIT_HELD, BrokerError, PalaceHeld, StateRootError, file_hint
from ..lease.acquire import LeaseAcquisition, own_holder_id
from ..lease.files import LeaseFolder
from ..lease.machine.lease import NodeKind
from ..lease.share_probe import require_promises
from ..locality.mounts import is_local
from ..protocol.palace import PalaceIdentity
from ..settings import LogFormat
from ..settings_files import PrivateSettings, SharedSettings, settings_path
from ..system import kernel
from ..system.clock import Clock, Deadline
from ..system.command_note import command_at_work
from ..system.environment import LEFT_OUT, known_environment, settle_process
from ..system.lock import FileLock
from ..system.lock_notes import OwnerNote, read_holder
from ..system.paths import StateFiles
from ..system.private import VARIABLE
from ..system.process_ids import this_process
from ..system.spawn import StartReport
from .app import App
from .log_lines import LINE, LINE_TIME, JsonFormatter, LineFormatter
from .old_files import move_old_files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..lease.acquire import AcquiredLease
    from ..lease.machine.record import HolderId
    from ..settings import BrokerSettings

HANDOVER_S = 15.0  # besides drain_s: the other side sees our request and ends its engine, and we see that it did
PATIENCE_S = 27.0  # whatever drain_s is: our starter waits for 30 s; the other side goes on handing over
_NAMED = 10  # misplaced settings that are named one by one
_DOCTOR = "mempalace-broker doctor says where each belongs"
OWNER_WAIT_S = 2.0  # a leaving predecessor drops its lock last


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the daemon's own flags; people use `mempalace-broker run`, which fills them in."""
    parser = argparse.ArgumentParser(prog="mempalace-broker-daemon", description=__doc__)
    parser.add_argument("--palace", required=True, help="real path of the palace directory")
    parser.add_argument("--name", default="", help="the path by which mempalace opens it")
    parser.add_argument("--palace-by", default="default", choices=["flag", "env", "config", "default"])
    parser.add_argument("--graph", required=True, help="real path of the knowledge graph")
    parser.add_argument("--backend")
    parser.add_argument("--root", required=True, help="state root")
    parser.add_argument("--direct", action="store_true", help="open a palace that belongs to another kernel")
    parser.add_argument("--start-fd", type=int, default=-1, help="descriptor for the report to the starter")
    parser.add_argument("--started-by", default="", help="who started it, for status and log")
    parser.add_argument("--foreground", action="store_true", help="log to stderr as well")
    parser.add_argument("--version", action="version", version=__version__)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a broker until it leaves; return the exit code."""
    options = parse(sys.argv[1:] if argv is None else argv)
    report = StartReport(options.start_fd)
    try:
        return _run(options, report)
    except BrokerError as exc:
        report.failed(exc)
        print(f"mempalace-broker: {exc}", file=sys.stderr)
        return exc.exit_code
    except KeyboardInterrupt:
        return EXIT_FAILURE


def _run(options: argparse.Namespace, report: StartReport) -> int:
    degraded = settle_process(by_agent=options.start_fd >= 0)
    env = known_environment(os.environ)
    files = StateFiles(options.root, options.palace, env=env)
    if options.direct:
        files = files.direct(is_local)
    command = command_at_work(files)
    if command and not os.path.isdir(options.palace):
        what = f"{options.palace} is not there, while {command}, has it for itself."
        raise PalaceHeld(what, hint="wait until the command ends, or end it")
    files.prepare()
    settings = PrivateSettings.read(env).broker(env, options.palace)
    owner = FileLock(files.owner_lock)
    if not owner.acquire(Deadline.after(Clock(), OWNER_WAIT_S)):
        report.lost_race()
        if options.foreground:
            owner_id = read_holder(files.owner_lock)
            who = f"pid {owner_id.pid}" if owner_id is not None else "an unknown process"
            print(f"mempalace-broker: another broker owns {options.palace}: {who}", file=sys.stderr)
        return EXIT_HELD
    app: App | None = None
    try:
        problem = files.private.make()
        log = make_log("" if problem else files.log, settings, foreground=options.foreground)
        if not problem:
            move_old_files(files, log)
        held, since = acquire_lease(owner, files, settings, log, direct=options.direct)
        app = App(
            identity=PalaceIdentity(options.palace, options.graph, options.palace_by, options.backend, options.name),
            files=files,
            settings=settings,
            env=env,
            owner=owner,
            held=held,
            since=since,
            started_by=options.started_by,
            log=log,
            degraded=[*degraded, *_degraded(files, env, problem)],
            keeps=not problem,
        )
        log.info("broker %s, pid %d, started by %s", __version__, os.getpid(), options.started_by or "hand")
        try:
            return asyncio.run(app.run(report.ready))
        finally:
            app.let_go()
    finally:
        owner.release()
        if app is not None:
            app.hand_over()


def _degraded(files: StateFiles, env: Mapping[str, str], problem: str) -> list[tuple[str, str]]:
    """What is not as it should be around this broker, each with its hint. `problem`: of the private folder."""
    found = []
    if problem:
        what = f"no log, cached answers or exit reason is kept, and only default settings hold: {problem}"
        found.append((what, f"name a folder of your own in {VARIABLE}, for every agent alike"))
    if names := env.get(LEFT_OUT):
        what = f"variables of whoever started this broker do not reach the engine: {names}"
        found.append((what, f"put them under [broker] env in {settings_path(env) or 'config.toml'}"))
    shared = SharedSettings.read(files.toml)
    if shared.misplaced:
        found.append((f"settings in {shared.path} do not count: {', '.join(shared.misplaced[:_NAMED])}", _DOCTOR))
    return found


def acquire_lease(
    owner: FileLock, files: StateFiles, settings: BrokerSettings, log: logging.Logger, *, direct: bool
) -> tuple[AcquiredLease, int]:
    """Acquire the palace for this kernel, then write our name and address into the owner lock.

    Returns:
        the lease; and since which epoch all owners have kept the journal that is in our state root.

    The address is for clients that look for the record elsewhere (another $MEMPALACE_PATH, a bind mount of P alone).

    Raises:
        PalaceHeld: a broker on another kernel has the palace, or may have it.
        StateRootError: the leases can't be read or written.
    """
    before = OwnerNote.read(files.owner_lock) or OwnerNote(None, root=files.root)
    clock = Clock()
    local = is_local(files.palace)
    elsewhere = direct or local is False or (local is None and not kernel.MACOS)  # a network disk is no kernel's own
    me = own_holder_id(owner, clock, direct=elsewhere)
    deadline = Deadline.after(clock, min(settings.drain_s + HANDOVER_S, PATIENCE_S))
    try:
        folder = LeaseFolder(files.leases, me, local=local is True)
        if direct:
            folder.prepare()
            require_promises(folder.path, clock)
        held = LeaseAcquisition(folder, clock, deadline, minimum_epoch=before.epoch, log=log.info).run(files.palace)
    except BrokerError as exc:
        log.error("no lease: %s", exc)
        raise
    epoch = held.holder.epoch
    since = before.since if _follows(held, me, before.epoch) and before.root == files.root else epoch
    endpoint = f"unix:{files.socket}"
    OwnerNote(this_process(), epoch=epoch, endpoint=endpoint, root=files.root, since=since).write(owner)
    return held, since


def _follows(held: AcquiredLease, me: HolderId, last: int) -> bool:
    """Whether the owner before us is the one whose note is in the owner lock (epoch `last`), and wrote where we write:
    the host's brokers and those of each far kernel have journals of their own.
    """
    if held.previous is None:
        return True
    before = held.previous.holder
    kin = before.kind is me.kind and (me.kind is NodeKind.HOST or before.boot == me.boot)
    return kin and held.previous.epoch == last


def make_log(path: str, settings: BrokerSettings, *, foreground: bool) -> logging.Logger:
    """broker.log with one predecessor, 0600, where `path` is not ""; and stderr in the foreground.

    Raises:
        StateRootError: the file can't be written.
    """
    log = logging.getLogger("mempalace_broker")
    log.setLevel(settings.log_level.upper())
    log.propagate = False
    form = JsonFormatter() if settings.log_format is LogFormat.JSON else LineFormatter(LINE, LINE_TIME)
    handlers: list[logging.Handler] = [logging.NullHandler()]
    old_mask = os.umask(0o177)
    try:
        if path:
            handlers = [
                logging.handlers.RotatingFileHandler(path, maxBytes=settings.log_bytes, backupCount=1, encoding="utf-8")
            ]
    except OSError as exc:
        raise StateRootError(f"cannot write {path}: {exc.strerror or exc}.", hint=file_hint(exc)) from exc
    finally:
        os.umask(old_mask)
    if foreground:
        handlers.append(logging.StreamHandler(sys.stderr))
    for handler in handlers:
        handler.setFormatter(form)
        log.addHandler(handler)
    return log
