"""The model of the engine: lanes, journal and frames as engine/worker.py has them, and death between any two steps."""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, Any

from mempalace_broker.broker.machine.replay import STALE_LIBRARY
from mempalace_broker.broker.machine.scheduler import MINE
from mempalace_broker.protocol import journal
from mempalace_broker.protocol.engine_frames import Frame, FrameDecoder

from .clockwork import Actor
from .palace import LIST, response

if TYPE_CHECKING:
    from .broker import Broker
    from .world import World

STEPS = ("before S", "after S", "after the effect", "after E", "in mid-frame")


class Job:
    """One call frame inside the engine."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.lane = frame.lane
        request: dict[str, Any] = json.loads(frame.payload)
        self.id = request["id"]
        self.tool: str = request["params"]["name"]
        self.token: str = request["params"].get("arguments", {}).get("token", "")
        self.body = b""
        self.waited = False


class Engine(Actor):
    """One generation. Holds engine.lock from `__init__` until `die`."""

    def __init__(self, world: World, broker: Broker, pid: int) -> None:
        super().__init__(world.loop)
        self.world = world
        self.pid = pid
        self.ready = False
        self.has_palace = True  # or is about to
        self._broker: Broker | None = broker
        self._decoder = FrameDecoder()
        self._lines: dict[str, deque[Job]] = {"palace": deque(), "free": deque()}
        self._busy: dict[str, Job] = {}
        self._waiting = 0
        self._inside: dict[str, int] = {"palace": 0, "free": 0, "wait": 0}
        self._leaving = False
        self._stale = world.upgraded
        self._begin()

    def _begin(self) -> None:
        faults, rng = self.world.faults, self.world.rng
        if rng.random() < faults.start_hang:
            return
        if rng.random() < faults.start_crash:
            self.after(rng.random() * 0.3, lambda: self.die("exit status 1"))
            return
        if rng.random() < faults.start_fail or self.world.stranger:
            fault = {"reason": "write_lock_held", "message": "another process writes directly", "hint": "end it"}
            self.after(0.1, lambda: self._tell(Frame("fail", tag="75", payload=json.dumps(fault).encode())))
            self.after(0.15, lambda: self.die("exit status 75"))
            return
        hello = {"version": "3.11.0", "tools": LIST, "mine_yields": self.world.yields}
        self.after(0.05 + rng.random() * 0.2, lambda: self._tell(Frame("hello", payload=json.dumps(hello).encode())))
        self.after(0.3 + rng.random() * (0.3 + faults.start_s), self._opened)

    def _opened(self) -> None:
        self.ready = True
        self._tell(Frame("ready", payload=b"{}"))
        self._next()

    # -- the pipes

    def feed(self, data: bytes) -> None:
        """Bytes of the broker."""
        for frame in self._decoder.feed(data):
            if frame.verb == "call":
                self._take(Job(frame))
            elif frame.verb == "park":
                self.after(self.world.rng.random() * 0.1, self._park)
            elif frame.verb == "unpark":
                self.after(self.world.rng.random() * 0.1, self._unpark)

    def eof(self) -> None:
        """The broker closed its end, or died: finish what runs, begin nothing more."""
        self._leaving = True
        if not self._busy:
            self.die("exit status 0")

    def forget_broker(self) -> None:
        """Nobody reads any more."""
        self._broker = None

    def _tell(self, frame: Frame) -> None:
        if self.alive and self._broker is not None:
            self._broker.pipe(self, frame.encode())

    # -- parking

    def _park(self) -> None:
        world = self.world
        assert not any(self._inside.values()), "parked under a call"
        if world.rng.random() < world.faults.start_hang:
            return
        problem = "a file stays open" if world.rng.random() < world.faults.park_fail else ""
        self.has_palace = bool(problem)
        world.parks += not problem
        self._tell(Frame("parked", payload=json.dumps({"problem": problem}).encode()))

    def _unpark(self, holder: str = "") -> None:
        world, rng = self.world, self.world.rng
        if self._leaving or rng.random() < world.faults.start_hang:
            return
        if world.stranger != holder:
            self._tell(Frame("waiting", payload=json.dumps({"holder": world.stranger}).encode()))
        if world.stranger:
            self.after(0.05, lambda: self._unpark(world.stranger or holder))
        elif rng.random() < world.faults.start_crash:
            self.die("exit status 1")
        else:
            self.has_palace = True
            self.after(rng.random() * 0.2, lambda: self._tell(Frame("ready", payload=b"{}")))

    # -- lanes

    def _take(self, job: Job) -> None:
        assert self.has_palace, "a call for a parked engine"
        self._inside[job.lane] += 1
        self.world.history.inside(self._inside, job.tool, self.world.loop.now, 1 + self.world.yields)
        if job.lane == "wait":
            self.after(self.world.rng.random() * 1.5, lambda: self._finish(job))
            return
        job.waited = job.lane in self._busy
        self._lines[job.lane].append(job)
        self._next()
        busy = self._busy.get("palace")
        if self.world.yields and job.waited and busy is not None and busy.tool == MINE:
            self.after(self.world.rng.random() * 0.5, lambda: self._between_files(busy, job))

    def _between_files(self, mine: Job, job: Job) -> None:
        """A mine under way lets a waiting call in."""
        if self._busy.get("palace") is mine and job in self._lines["palace"] and not self._leaving:
            self._lines["palace"].remove(job)
            self._start(job)

    def _next(self) -> None:
        if self._leaving and not self._busy:
            self.die("exit status 0")
        if not self.ready or self._leaving:
            return
        for lane, line in self._lines.items():
            if lane not in self._busy and line:
                self._busy[lane] = job = line.popleft()
                self._start(job)

    def _crashes(self, step: str) -> bool:
        faults = self.world.faults
        if self.world.rng.random() < faults.engine_crash / len(STEPS):
            self.die(f"signal 9 ({step})")
            return True
        return False

    def _start(self, job: Job) -> None:
        rng, faults = self.world.rng, self.world.faults
        if job.waited:
            self._tell(Frame("begun", job.frame.n))
        if self._crashes("before S"):
            return
        if job.frame.tag != "-" and not faults.forget_s:
            self.world.disk.journal += journal.started(job.frame.tag)
        if self._crashes("after S"):
            return
        if rng.random() < faults.engine_hang and job.tool != MINE:
            return
        if rng.random() < faults.garble:
            self._garble()
        if self._stale != self.world.upgraded:
            error = {"code": STALE_LIBRARY, "message": "upgraded"}
            job.body = json.dumps({"jsonrpc": "2.0", "id": job.id, "error": error}).encode()
            self._journal_end(job, str(STALE_LIBRARY))
            return
        slow = rng.random() < faults.slow
        self.world.history.executes(job.tool, job.token, self.loop.now)
        if faults.early_answer and job.frame.tag != "-":
            job.body = response(job.id, {"success": True})
            self._tell(Frame("done", job.frame.n, tag="0", payload=job.body))
        span = faults.slow_s if slow else 0.02
        self.after(rng.random() * span, lambda: self._effect(job, span))

    def _garble(self) -> None:
        if self._broker is not None:
            self._broker.pipe(self, b"Segmentation fault (core dumped)\n")

    def _effect(self, job: Job, span: float) -> None:
        if self._crashes("before the effect"):
            return
        told = self.world.disk.run(job.tool, job.token)
        job.body = response(job.id, told)
        if self._crashes("after the effect"):
            return
        self.after(self.world.rng.random() * span / 3, lambda: self._journal_end(job, "0"))

    def _journal_end(self, job: Job, code: str) -> None:
        if job.frame.tag != "-":
            entry = journal.ended(job.frame.tag, job.body)
            if self._crashes("in mid-E"):
                cut = self.world.rng.randrange(len(entry))
                self.world.disk.journal += entry[:cut]
                return
            self.world.disk.journal += entry
        if self._crashes("after E"):
            return
        frame = Frame("done", job.frame.n, tag=code, payload=job.body)
        if self._broker is not None and self._crashes("in mid-frame"):
            return
        self._inside[job.lane] -= 1
        self._tell(frame)
        if self._busy.get(job.lane) is job:  # not a call between two files of a mine
            del self._busy[job.lane]
        self._next()

    def _finish(self, job: Job) -> None:
        self._inside[job.lane] -= 1
        told = self.world.disk.run(job.tool, job.token)
        self._tell(Frame("done", job.frame.n, tag="0", payload=response(job.id, told)))

    # -- signals and the end

    def term(self) -> None:
        """SIGTERM; a hung engine does not hear it."""
        if self.world.rng.random() < 0.7:
            self.deliver(lambda: self.die("signal 15"))

    def die(self, how: str) -> None:
        """The process is gone, its lock free; half a frame may be the last the broker hears."""
        if not self.alive:
            return
        if self._broker is not None and self.world.rng.random() < 0.3:
            self._broker.pipe(self, b"done 1 - 0 20\n{half a fra")
        self.alive = False
        self.world.engine_gone(self)
        if self._broker is not None:
            self._broker.reaped(self, how)
