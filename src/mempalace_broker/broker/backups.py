"""Makes the scheduled snapshots, with the command that a person would run, in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from ..protocol.jsonrpc import load_object
from ..system.paths import BESIDE_PALACE, expand, is_brokers
from ..system.private import private_home
from .machine.backup_schedule import BackupSchedule

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterator, Mapping

    from ..protocol.palace import PalaceIdentity
    from ..settings import BrokerSettings
    from ..system.clock import Clock
    from ..system.paths import StateFiles

_HOUR_S = 3600.0
_LOOK_S = 60.0  # the wall clock may be set meanwhile, and a laptop may sleep
_LIMIT_S = 4 * _HOUR_S  # for one snapshot: one of 100,000 drawers takes less than a minute
_END_S = 5.0  # for an interrupted command to remove its unfinished snapshot
_NOTE_LIMIT = 1 << 16
_BY_HAND = "mempalace-broker backup create"
_PREFIX = "mempalace-broker: "


class Backups:
    """The scheduled snapshots of one broker's palace. They need a private folder, for the note about the last one."""

    def __init__(
        self,
        identity: PalaceIdentity,
        files: StateFiles,
        settings: BrokerSettings,
        env: Mapping[str, str],
        clock: Clock,
        log: logging.Logger,
    ) -> None:
        self._identity = identity
        self._note = files.backup
        self._settings = settings
        self._env = env
        self._clock = clock
        self._log = log
        self._schedule = BackupSchedule(settings.backup_every_h * _HOUR_S, files.backup.read_object(_NOTE_LIMIT))
        self._child: asyncio.subprocess.Process | None = None

    async def run(self) -> None:
        """Make a snapshot whenever one is due, until cancelled."""
        while self._schedule.on:
            wait_s = self._schedule.due_in(self._clock.wall())
            await asyncio.sleep(min(max(wait_s, 1.0), _LOOK_S))
            now = self._clock.wall()
            if self._schedule.due_in(now) > 0:
                continue
            if self._schedule.changed_since(await asyncio.to_thread(_changed_at, self._identity), now):
                await self._make(now)
            else:
                self._schedule.skipped(now)

    async def _make(self, began: float) -> None:
        self._schedule.running = True
        try:
            said, why = await self._run_command()
        finally:
            self._schedule.running = False
        if why:
            self._schedule.failed(began, why)
            self._log.warning("no snapshot was made: %s", why)
        else:
            self._schedule.made(began, said)
            took = self._clock.wall() - began
            self._log.info(
                "snapshot %s made in %.1f s; writes waited %s s", said.get("name"), took, said.get("pause_s")
            )
        try:
            await asyncio.to_thread(self._note.write, json.dumps(self._schedule.note()).encode() + b"\n")
        except OSError as exc:
            self._log.warning("cannot write %s: %s", self._note.path, exc)

    async def _run_command(self) -> tuple[dict[str, Any], str]:
        """Run the command; return its facts, and why it failed or ""."""
        argv = [sys.executable, "-P", "-m", "mempalace_broker", "backup", "create", "--scheduled", "--json"]
        argv += ["--keep", str(self._settings.backup_keep)]
        argv += ["--dir", expand(folder, private_home())] if (folder := self._settings.backup_dir) else []
        argv += self._identity.options
        env = dict(self._env)
        if self._identity.by != "flag":
            env["MEMPALACE_PALACE_PATH"] = self._identity.name
        pipe = subprocess.PIPE
        try:
            child = self._child = await asyncio.create_subprocess_exec(
                *argv, env=env, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, start_new_session=True
            )
        except OSError as exc:  # this installation was replaced, or there is no room for one process more
            return {}, f"the command can't be run: {exc}"
        try:
            async with asyncio.timeout(_LIMIT_S):
                out, err = await child.communicate()
        except TimeoutError:
            await self.end()
            return {}, f"it was not done after {_LIMIT_S / _HOUR_S:g} hours"
        self._child = None
        if child.returncode == 0:
            return load_object(out), ""
        words = err.decode("utf-8", "replace").strip().splitlines()
        return {}, words[-1].removeprefix(_PREFIX) if words else f"exit code {child.returncode}"

    async def end(self) -> None:
        """End a running command, after `run` was cancelled."""
        child = self._child
        if child is None or child.returncode is not None:
            return
        for number in (signal.SIGINT, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(child.wait(), _END_S)
                return

    def as_json(self) -> dict[str, Any] | None:
        """Return the schedule for `status`, None if there is none."""
        return self._schedule.as_json(self._clock.wall())

    def degraded(self) -> Iterator[dict[str, str]]:
        """Yield an entry if the last snapshot failed."""
        said = self.as_json() or {}
        if said.get("error"):
            yield {"what": f"the last scheduled snapshot failed: {said['error']}", "hint": _BY_HAND}


def _changed_at(identity: PalaceIdentity) -> float:
    """Return when anything in the palace was last written, 0 if there is nothing."""
    beside = os.path.dirname(identity.path)
    files = [identity.graph, f"{identity.graph}-wal", *(os.path.join(beside, name) for name in BESIDE_PALACE)]
    for folder, folders, names in os.walk(identity.path):
        folders[:] = [name for name in folders if not is_brokers(name)]
        files += [os.path.join(folder, name) for name in names if not is_brokers(name)]
    times = [0.0]
    for file in files:
        with contextlib.suppress(OSError):  # it is gone
            times.append(os.stat(file, follow_symlinks=False).st_mtime)
    return max(times)
