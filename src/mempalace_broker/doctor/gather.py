"""Gathers the facts for `doctor` without judging them. Changes nothing, opens no database.

The only traces that it leaves: probes of lock files (a shared flock for an instant) and one status request.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
from typing import TYPE_CHECKING, Any

from ..errors import BrokerError, UsageError
from ..locality import mounts
from ..locality.locality import in_container, locate
from ..protocol.jsonrpc import load_object
from ..protocol.record import BadRecord, DiscoveryRecord
from ..protocol.write_lock import FOLDER, lock_name, read_note
from ..route.ask import BrokerReply, ask_broker, is_remote
from ..route.discover import ENDPOINT_VARIABLE, NO_SPAWN_VARIABLE, is_of, record_state
from ..route.machine.election import CONNECT_DENIED
from ..route.plan import Plan, plan_routes
from ..settings_files import PrivateSettings, SharedSettings, settings_path
from ..system import embedding_model as model
from ..system.clock import Deadline
from ..system.command_note import command_at_work
from ..system.file_trust import others_write, trusted_owners
from ..system.find_engine import SETTING, engine_on_path, find_engine
from ..system.find_palace import PALACE_VARIABLES, holds_store
from ..system.kernel import is_free
from ..system.lock import is_held, read_body
from ..system.lock_notes import read_holder, read_starter
from ..system.paths import ROOT_VARIABLE, home_of
from ..system.private import state_folder
from ..system.process_command import process_command
from ..system.process_ids import ALIVE, UNKNOWN, ProcessId, process_state
from ..system.record_file import RecordFile
from ..system.shared_files import SharedFolder
from .access_facts import look_at_access
from .database import look_at_database
from .facts import EngineFacts, Facts, FileEntry, FolderFacts, LockFacts, UpstreamProcess
from .integrations import find_integrations
from .open_files import find_open_files
from .upstream_clients import hook_routing, proxy_in_the_way

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..route.machine.election import RecordSeen
    from ..system.paths import Context, StateFiles
    from ..system.process_ids import ProcessState

ANSWER_S = 5.0
_NOTE_LIMIT = 1 << 20
_MAX_PID = 1 << 31
_VARIABLES = (ENDPOINT_VARIABLE, NO_SPAWN_VARIABLE, ROOT_VARIABLE, *PALACE_VARIABLES)
LEFTOVER_MARKS = (".corrupt", ".drift", "quarantine")


def gather(context: Context) -> Facts:
    """Look at everything. Raises UsageError where $MEMPALACE_BROKER names no socket."""
    identity, files, env, clock = context.identity, context.files, context.env, context.clock
    record, entry, origin, process = _record(files)
    settings, engine_named, problem, hint = _settings(identity.path, env)
    home = home_of(env)
    private = state_folder(identity.path, env)
    weights = model.status(home)
    locality = locate(files)
    plan, plan_problem = _plan(context, locality.filesystem) if locality.foreign else (None, "")
    return Facts(
        identity=identity,
        files=files,
        palace=_folder(identity.path),
        root=_folder(files.root),
        owner=_lock(files.owner_lock),
        engine_lock=_lock(files.engine_lock),
        start_lock=LockFacts(files.start_lock, is_held(files.start_lock), read_starter(files.start_lock)),
        record=record,
        record_entry=entry,
        record_origin=origin,
        record_process=process,
        reply=(reply := _ask(context)),
        socket=_entry(files.socket),
        lent_to=command_at_work(files),
        open_files=find_open_files(identity.path, identity.graph),
        integrations=find_integrations(home, env),
        upstream_processes=list(_upstream_processes(home)),
        upstream_lock=_upstream_lock(home, identity.name),
        hook_routing=hook_routing(env, home),
        proxy=proxy_in_the_way(env),
        engine=_engine(env, engine_named),
        model_state=weights.state,
        model_kind=weights.kind,
        model_folder=weights.folder,
        platform=sys.platform,
        uid=os.getuid(),
        now=clock.wall(),
        locality=locality,
        access=look_at_access(identity, files, plan),
        container=in_container(),
        plan=plan,
        plan_problem=plan_problem,
        bridge=_bridge(plan, context),
        has_palace=holds_store(identity.path),
        database=_database(reply, record, process),
        settings=settings,
        settings_problem=problem,
        settings_hint=hint,
        settings_path=settings_path(env),
        shared_settings=SharedSettings.read(files.toml),
        private_problem=private.problem() or _unwritable(private.path),
        state_folder=private.path,
        leftovers=_leftovers(identity.path),
        last_exit=files.exit.read_object(_NOTE_LIMIT),
        last_backup=files.backup.read_object(_NOTE_LIMIT),
        variables={name: env[name] for name in _VARIABLES if env.get(name)},
        remote=env[ENDPOINT_VARIABLE] if is_remote(env) else "",
    )


def _plan(context: Context, filesystem: str) -> tuple[Plan | None, str]:
    """The routes to a palace that another kernel owns, or what is wrong with their settings."""
    try:
        return plan_routes(context, filesystem), ""
    except BrokerError as exc:
        return None, str(exc)


def _bridge(plan: Plan | None, context: Context) -> dict[str, Any]:
    """The status of the bridge over ssh, empty where there is none."""
    if plan is None or plan.ssh is None:
        return {}
    from ..route.bridge.files import BridgeFiles
    from ..route.bridge.start import bridge_status

    try:
        return bridge_status(BridgeFiles(plan.ssh, context.env), Deadline.after(context.clock, ANSWER_S))
    except BrokerError as exc:
        return {"state": "unknown", "error": exc.message, "hint": exc.hint}


def _ask(context: Context) -> BrokerReply:
    try:
        return ask_broker(context, "broker/status", {}, Deadline.after(context.clock, ANSWER_S))
    except UsageError:
        raise
    except BrokerError as exc:
        return BrokerReply(CONNECT_DENIED, context.files.socket, None, exc.message)


def _database(reply: BrokerReply, record: DiscoveryRecord | BadRecord, process: ProcessState) -> str:
    """Ask the database if the broker that answered runs here; elsewhere the same address may mean another server."""
    if not isinstance(record, DiscoveryRecord) or process != ALIVE or reply.answer is None:
        return ""
    try:
        return look_at_database(reply) if reply.answer["broker"]["pid"] == record.pid else ""
    except (AttributeError, KeyError, TypeError):  # whoever answered is no broker; judge() reports that
        return ""


def _record(files: StateFiles) -> tuple[DiscoveryRecord | BadRecord, FileEntry, RecordSeen, ProcessState]:
    record = RecordFile(files.record).read()
    if isinstance(record, DiscoveryRecord) and not is_of(record, files):
        record = BadRecord("it is of another palace, from which this one was copied")
    origin = record_state(record, files.root)
    process = UNKNOWN
    if isinstance(record, DiscoveryRecord):
        process = process_state(ProcessId(record.pid, record.start, record.boot, record.pidns))
    return record, _entry(files.record), origin, process


def _entry(path: str) -> FileEntry:
    try:
        info = os.lstat(path)
    except OSError:
        return FileEntry(path)
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFSOCK: "socket", stat.S_IFLNK: "link"}
    kind = kinds.get(stat.S_IFMT(info.st_mode), "other")
    return FileEntry(path, kind, stat.S_IMODE(info.st_mode), info.st_uid, os.access(path, os.W_OK), others_write(info))


def _folder(path: str) -> FolderFacts:
    there = path
    while not os.path.exists(there) and there != os.path.dirname(there):
        there = os.path.dirname(there)
    try:
        free: int | None = shutil.disk_usage(there).free
    except OSError:
        free = None
    above = exposed_above(path)
    return FolderFacts(
        _entry(path),
        mounts.filesystem_of(path),
        mounts.is_local(path),
        free,
        _mounted_read_only(there),
        _entry(above) if above and mounts.is_local(above) is not False else None,
    )


def exposed_above(path: str) -> str:
    """The lowest folder above `path`, a real path, in which another user can put something else in the place of what
    leads there; "" if there is none.
    """
    owners = {os.geteuid(), 0}
    with contextlib.suppress(OSError):
        owners.update(trusted_owners(os.stat(path)))
    while path != os.path.dirname(path):
        path = os.path.dirname(path)
        try:
            info = os.stat(path)
        except OSError:
            continue
        if info.st_uid not in owners or (others_write(info) and not info.st_mode & stat.S_ISVTX):
            return path
    return ""


def _mounted_read_only(path: str) -> bool:
    """Return whether the filesystem is mounted read-only; False if that is unknown."""
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def _lock(path: str) -> LockFacts:
    held, who = is_held(path), read_holder(path)
    if who is None:
        return LockFacts(path, held)
    return LockFacts(path, held, who.pid, process_state(who), process_command(who.pid))


def _upstream_lock(home: str, palace: str) -> LockFacts:
    """The upstream write lock of this palace: flock on a file under HOME, its body "pid command"."""
    path = os.path.join(home, FOLDER, lock_name(os.path.normcase(os.path.realpath(palace))))
    pid, command = read_note(read_body(path))
    return LockFacts(path, is_held(path), pid, UNKNOWN, process_command(pid) or command if pid else "")


def _upstream_processes(home: str) -> Iterator[UpstreamProcess]:
    for kind, name in (("hub", "serverinfo.json"), ("daemon", "endpoint.json")):
        base = os.path.join(home, ".mempalace", "server" if kind == "hub" else "daemon")
        with contextlib.suppress(OSError):
            for key in sorted(os.listdir(base)):
                note = _json(os.path.join(base, key, name))
                pid = note.get("pid")
                if type(pid) is int and 0 < pid < _MAX_PID:
                    path = os.path.join(base, key, name)
                    palace = str(note.get("palace_path") or "")
                    yield UpstreamProcess(path, kind, pid, not is_free(pid), palace, process_command(pid))


def _settings(palace: str, env: Mapping[str, str]) -> tuple[dict[str, Any], str, str, str]:
    """(settings as JSON, engine setting, what is wrong with them, its hint)."""
    try:
        settings = PrivateSettings.read(env).broker(env, palace)
    except BrokerError as exc:
        return {}, "", exc.message, exc.hint
    return settings.as_json(), settings.engine, "", ""


def _unwritable(folder: str) -> str:
    """Why a private folder can't be made or written to, as far as that shows without trying; "" if it can."""
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    return "" if os.access(folder, os.W_OK | os.X_OK) else f"{folder} is not writable"


def _engine(env: Mapping[str, str], named: str) -> EngineFacts:
    try:
        found = find_engine({**env, SETTING: named}, sys.executable, env.get("PATH", os.defpath))
    except BrokerError as exc:
        return EngineFacts(problem=exc.message, hint=exc.hint)
    other = engine_on_path(env, env.get("PATH", os.defpath))
    differs = other is not None and other.version not in (None, found.version)
    on_path = (str(other.version), other.interpreter) if other is not None and differs else None
    return EngineFacts(found.interpreter, found.version or "", found.source, on_path=on_path)


def _leftovers(palace: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(palace) if any(mark in name for mark in LEFTOVER_MARKS))
    except OSError:
        return []


def _json(path: str) -> dict[str, Any]:
    folder, name = os.path.split(path)
    try:
        with SharedFolder.open(folder) as opened:
            return load_object(opened.read(name, _NOTE_LIMIT))
    except OSError:
        return {}
