"""The job API: takes requests of mempalace's clients, runs jobs through the broker's protocol, keeps them on disk.

    GET  /health                        POST /jobs   {kind, payload, dedupe_key, priority} -> 202 {job}
    GET  /jobs?limit=N, /jobs/ID        POST /shutdown   refused: the broker is not theirs to stop

A job is on disk before it is accepted, and its outcome is proved before it runs again: see machine/job.py.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from ...protocol.jsonrpc import load, to_bytes
from ..machine.lifecycle import BrokerState
from .machine.job import Job, JobState, asked_for
from .machine.queue import JobQueue
from .session import JobSession
from .store import JobStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...system.clock import Clock
    from ...system.private import PrivateFolder
    from ..http.client import Client
    from ..runner import ProtocolRunner
    from ..tasks import Tasks

MAX_BODY = 1 << 20
_SHOWN, _LONG_NUMBER = 20, 6
_FAILED = {"error": "that failed: mempalace-broker logs"}
_STOP = "this is mempalace-broker, which serves other sessions, too: `mempalace-broker stop` ends it"


class JobService:
    """All jobs of one broker.

    Args:
        palace: its real path, as clients know it. number: gives each client its number.
    """

    def __init__(
        self,
        runner: ProtocolRunner,
        *,
        private: PrivateFolder,
        palace: str,
        clock: Clock,
        tasks: Tasks,
        number: Callable[[], int],
    ) -> None:
        self.queue = JobQueue()
        self._runner = runner
        self._store = JobStore(private)
        self._palace = palace
        self._epoch = runner.protocol.host.epoch
        self._clock = clock
        self._tasks = tasks
        self._number = number
        self._known: set[str] = set()  # whose outcome on the connection before is known: they need not ask
        self._timer: asyncio.TimerHandle | None = None
        self._loading = False
        self._loaded = asyncio.Event()
        self._submitting = asyncio.Lock()  # one by one, or two jobs with one key might both be accepted

    def load(self) -> None:
        """Take over the jobs of earlier brokers, once."""
        if not self._loading:
            self._loading = True
            self._tasks.start("load-jobs", self._load())

    async def _load(self) -> None:
        try:
            jobs, failed = await asyncio.to_thread(self._store.load)
            for why in failed:
                self._runner.log.warning("a job of an earlier broker is left alone: %s", why)
            for job in jobs:
                job.state = JobState.QUEUED if not job.over else job.state
                self.queue.add(job, len(job.encode()))
        except OSError as exc:
            self._runner.log.warning("the jobs of earlier brokers can't be read: %s", exc)
        finally:
            self._loaded.set()
        self._pump()

    # -- requests

    def handle(self, client: Client, method: str, target: str, body: bytes) -> None:
        """Answer a request; that for a new job is answered once the job is on disk."""
        client.reply = self
        self._tasks.start("job-api", self._answer(client, method, target, body))

    def lost(self) -> None:
        """Do nothing: a job is kept even if the client's connection breaks."""

    async def _answer(self, client: Client, method: str, target: str, body: bytes) -> None:
        status, told = 500, _FAILED
        try:
            await self._loaded.wait()  # a client may ask for a job of the broker before
            if method == "POST" and urlsplit(target).path == "/jobs":
                async with self._submitting:
                    status, told = await self._accept(body)
            else:
                status, told = (409, {"error": _STOP}) if method == "POST" else self._look(target)
        finally:  # it waits as long as we owe an answer
            client.reply = None
            client.respond(status, to_bytes(told))

    def _look(self, target: str) -> tuple[int, dict[str, Any]]:
        parts = urlsplit(target)
        asked = parse_qs(parts.query)
        if parts.path == "/health":
            return 200, self._health()
        if parts.path == "/jobs":
            limit = asked.get("limit", [""])[0]
            count = int(limit) if limit.isdecimal() and len(limit) < _LONG_NUMBER else _SHOWN
            return 200, {"jobs": [job.as_json() for job in self.queue.newest(count)]}
        job = self.queue.get(parts.path.rpartition("/")[2])
        if job is None:
            return 404, {"error": "unknown job"}
        payload = asked.get("include_payload", [""])[0].lower() in ("1", "true", "yes", "on")
        return 200, {"job": job.as_json(payload=payload)}

    def _health(self) -> dict[str, Any]:
        running = self.queue.running(long=True) or self.queue.running(long=False)
        return {
            "ok": True,
            "worker_alive": True,
            "pid": os.getpid(),
            "palace_path": self._palace,
            "backend": None,
            "active_job_id": running.id if running is not None else None,
            "counts": self.queue.counts(),
        }

    async def _accept(self, body: bytes) -> tuple[int, dict[str, Any]]:
        if len(body) > MAX_BODY:
            return 413, {"error": f"a job has at most {MAX_BODY} bytes"}
        try:
            asked = load(body)
            if not isinstance(asked, dict):
                raise ValueError("the body must be an object")
            id_, secret = os.urandom(16).hex(), os.urandom(16).hex()
            job = asked_for(asked, id_=id_, secret=secret, now=self._clock.wall(), epoch=self._epoch)
        except ValueError as exc:
            return 400, {"error": str(exc)}
        twin = self.queue.twin(job)
        if twin is not None:
            return 202, {"job": twin.as_json(payload=True)}
        if why := self.queue.refusal(len(body)):
            return 503, {"error": why}
        try:
            await asyncio.to_thread(self._store.save, job)
        except OSError as exc:
            return 507, {"error": f"the job can't be kept: {exc}"}
        self._known.add(job.id)
        self.queue.add(job, len(body))
        told = {"job": job.as_json(payload=True)}
        self._pump()
        return 202, told

    # -- running

    def _pump(self) -> None:
        if self._runner.protocol.state != BrokerState.SERVING:
            return  # the next broker goes on
        now = self._clock.monotonic()
        for long in (False, True):
            job = self.queue.next(now, long=long)
            if job is not None:
                job.begins(self._clock.wall())
                self._tasks.start("run-job", self._run(job))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self.queue.next_at(now)
        if at is not None:
            self._timer = asyncio.get_running_loop().call_later(at - now, self._pump)

    async def _run(self, job: Job) -> None:
        try:
            if job.unproved:
                stays = await self._prove(job)
            else:
                stays = job.id in self._known or await self._ask(job)
            if not stays:
                return  # the broker leaves: the next one asks
            if not (job.over or job.waits):
                self._known.discard(job.id)
                job.given = self._clock.wall()
                answer = await self._say(job, job.line())
                if answer is None:
                    return
                if job.took(answer, self._clock.wall()):  # the outcome of that connection is known
                    self._known.add(job.id)
                    job.connection += 1
            if job.waits:
                self.queue.put_back(job, self._clock.monotonic())
            await self._keep(job)
        finally:
            self._pump()

    async def _ask(self, job: Job) -> bool:
        """Ask for the outcome of a job of an earlier broker; return whether this broker stays."""
        job.connection += 1
        answer = await self._say(job, job.question(self._clock.wall()))
        if answer is None:
            return False
        job.took_outcome(answer, self._clock.wall())
        if job.waits and not job.unproved:
            job.begins(self._clock.wall())
            await self._commit(job)
        return True

    async def _prove(self, job: Job) -> bool:
        """Ask the store for the outcome of a job's last run; return whether this broker stays."""
        job.connection += 1
        answer = await self._say(job, job.proof())
        if answer is None:
            return False
        job.took_proof(answer, self._clock.wall())
        if not (job.over or job.waits) and not await self._commit(job):
            job.unproved = True
        return True

    async def _commit(self, job: Job) -> bool:
        """Write to disk that the job runs next on a new connection of ours; unkept, it might run twice, so it waits."""
        job.connection += 1
        job.epoch = self._epoch
        kept = await self._keep(job)
        if not kept:
            job.state = JobState.QUEUED
        return kept

    async def _say(self, job: Job, line: bytes) -> dict[str, Any] | None:
        heard: asyncio.Future[dict[str, Any] | None] = asyncio.get_running_loop().create_future()

        def hear(answer: dict[str, Any] | None) -> None:
            if not heard.done():
                heard.set_result(answer)

        JobSession(self._runner, self._number(), [job.hello(os.getpid()), line], hear).start()
        return await heard

    async def _keep(self, job: Job) -> bool:
        """Write the state of a job to disk; return whether that succeeded."""
        if job.state is JobState.FAILED:
            text = "a job of mempalace (%s) failed: `mempalace daemon wait %s` shows why"  # which may quote the memory
            self._runner.log.warning(text, job.kind, job.id)
        try:
            await asyncio.to_thread(self._store.save, job)
            for old in self.queue.ended(self._clock.wall()):
                await asyncio.to_thread(self._store.forget, old)
        except OSError as exc:
            self._known.discard(job.id)
            self._runner.log.warning("the state of a job of mempalace's can't be kept: %s", exc)
            return False
        return True
