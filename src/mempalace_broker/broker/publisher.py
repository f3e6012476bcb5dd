"""What this broker writes for others to read: the discovery record, and in the private folder answers and exit reason.

Each write ends with an fsync, so a thread does it, one write after another.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from .. import __version__
from ..protocol.hello import WIRE_VERSION
from ..protocol.record import DiscoveryRecord
from ..system.kernel import file_id
from ..system.process_ids import in_child_namespace, this_process
from ..system.record_file import RecordFile

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from ..protocol.palace import PalaceIdentity
    from ..system.paths import StateFiles

T = TypeVar("T")


class Publisher:
    """Writes the files of one broker. Methods raise OSError as the system reports it, unless they say otherwise.

    Args:
        keeps: whether there is a private folder for answers and exit reason; without one they are not kept.
    """

    def __init__(self, record: DiscoveryRecord, files: StateFiles, log: logging.Logger, *, keeps: bool = True) -> None:
        self.record = record
        self._file = RecordFile(files.record)
        self._files = files
        self._log = log
        self._keeps = keeps
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="publish")
        self._withdrawn = False

    async def start(self, endpoints: list[str], token: str) -> None:
        """Publish the record for the first time."""
        await self._run(self._file.remove_temp_files)
        await self.publish(endpoints, token)

    async def publish(self, endpoints: list[str], token: str) -> None:
        """Write the record, unless it was withdrawn."""
        self.record.endpoints = endpoints
        self.record.token = token or None
        await self._run(self._write_record)

    async def is_published(self) -> bool:
        """Whether the file still is our record. Only reads."""
        return await self._run(lambda: self._file.holds(self.record))

    async def withdraw(self) -> None:
        """Remove the record, for good. Never raises."""
        self._withdrawn = True
        await self._run(self._remove_record)

    async def save_answers(self, data: bytes) -> None:
        """Write the cache of constant answers."""
        if self._keeps:
            await self._run(lambda: self._files.answers.write(data))

    async def note_exit(self, reason: str) -> None:
        """Write down why the broker leaves. Never raises."""
        if not self._keeps:
            return
        note = {"reason": reason, "at": time.time(), "pid": os.getpid(), "version": __version__}
        try:
            await self._run(lambda: self._files.exit.write(json.dumps(note).encode() + b"\n"))
        except OSError as exc:
            self._log.warning("cannot write %s: %s", self._files.exit.path, exc)

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    def _write_record(self) -> None:
        if not self._withdrawn:
            self._file.publish(self.record)

    def _remove_record(self) -> None:
        try:
            self._file.remove(self.record)
        except OSError as exc:
            self._log.warning("cannot remove the record: %s", exc)


def new_record(
    identity: PalaceIdentity, files: StateFiles, *, epoch: int, started_by: str, at: float
) -> DiscoveryRecord:
    """The record of a broker that this process is about to be; `at` in seconds since 1970."""
    me = this_process()
    return DiscoveryRecord(
        record=os.urandom(16).hex(),
        epoch=epoch,
        pid=me.pid,
        start=me.start,
        boot=me.boot,
        pidns=me.pidns,
        host=socket.gethostname(),
        lock=file_id(files.owner_lock),
        endpoints=[f"unix:{files.socket}"],
        wire=WIRE_VERSION,
        capabilities=["outcomes"],
        palace=identity.as_json(),
        broker_version=__version__,
        started_at=at,
        started_by=started_by,
        guest=in_child_namespace(),
    )
