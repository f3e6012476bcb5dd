"""A private HOME with a palace, and servers of every kind on it; nothing left over."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import driver
from benchmarks.common import MODEL, Engine, Lacking, model, own_bin
from benchmarks.driver import Session
from mempalace_broker.system.private import VARIABLE as PRIVATE
from tests import proctools
from tests.proctools import eventually

BROKER, BARE, HUB, OTHER = "broker", "bare", "hub", "other broker"
KINDS = (BROKER, BARE, HUB)
AGAINST = "MPB_AGAINST"  # where the programs of the other broker are
MARK = "MPB_BENCHMARK"
END_S = 30.0
LOAD_S = 300.0  # a bare engine reads a large palace from end to end for its first call, on a busy machine too
SEARCH = driver.call(1, "search", {"query": "the palace"})


class World:
    """One palace and the servers on it.

    Args:
        engine: the mempalace. kind: BROKER (mp-shim), BARE (mempalace-mcp alone), HUB (mempalace serve, and
            mempalace-mcp forwarding to it) or OTHER (another version of ours).
        palace: a prepared palace to copy. env: more environment.
        keep: leave the files there at the end.
    """

    def __init__(
        self,
        engine: Engine,
        kind: str,
        *,
        palace: Path | None = None,
        env: Mapping[str, str] | None = None,
        keep: bool = False,
    ) -> None:
        if kind == HUB and not engine.has_hub:
            raise Lacking(f"mempalace {engine.version} has no hub")
        self.engine = engine
        self.kind = kind
        self.keep = keep
        self.mark = uuid.uuid4().hex
        self.root = Path(tempfile.mkdtemp(prefix="mpb-", dir="/tmp"))  # AF_UNIX paths are short
        self.home = self.root / "h"
        self.base = self.home / ".mempalace"
        self.palace = self.base / "palace"
        self.sessions: list[Session] = []
        self.hub: subprocess.Popen[bytes] | None = None
        self._logs = 0
        make_home(self.home)
        if palace is not None:
            shutil.copytree(palace, self.palace)
        self.env = self._environment() | dict(env or {})

    def _environment(self) -> dict[str, str]:
        env = base_env(self.home) | {
            MARK: self.mark,
            "MEMPALACE_BROKER_ENGINE": str(self.engine.python),
            "MEMPALACE_BROKER_IDLE_S": "60",
            "MEMPALACE_BROKER_PARK_S": "0",  # rounds of rivals would count as pauses; park.py measures those
        }
        if self.shims is not None:
            env["PATH"] = f"{self.shims}:{env['PATH']}"
        return env

    @property
    def shims(self) -> Path | None:
        """Where our programs are, None where they aren't measured."""
        return own_bin() if self.kind == BROKER else Path(os.environ[AGAINST]) if self.kind == OTHER else None

    @property
    def argv(self) -> list[str]:
        """What an agent's configuration would start."""
        return [str(self.engine.server if self.shims is None else self.shims / "mp-shim")]

    def start(self) -> Session:
        """One session's server, not initialised."""
        self._logs += 1
        session = Session(self.argv, env=self.env, cwd=self.root, log=self.root / f"{self._logs}.stderr")
        self.sessions.append(session)
        return session

    def ready(self, count: int) -> list[Session]:
        """`count` sessions, all initialised; the hub is started first where there is one."""
        if self.kind == HUB and self.hub is None:
            self.start_hub()
        sessions = [self.start() for _ in range(count)]
        for session in sessions:
            session.initialize()
        return sessions

    def first_search(self) -> tuple[Session, float]:
        """Start a session and search: it, and seconds from its spawn to the answer."""
        begun = time.perf_counter()
        (session,) = self.ready(1)
        session.answer(SEARCH, LOAD_S)
        return session, time.perf_counter() - begun

    # -- owners

    def start_hub(self) -> None:
        """Start `mempalace serve` and wait until it serves."""
        port = proctools.free_port()
        argv = [str(self.engine.python.parent / "mempalace"), "serve", "--port", str(port)]
        with (self.root / "hub.log").open("ab") as log:
            self.hub = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env, start_new_session=True
            )

        def listening() -> bool:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return True
            return False

        eventually(listening, 60, "the hub listens")

    def record(self) -> dict[str, Any]:
        """broker.json, {} where there is none."""
        try:
            record: dict[str, Any] = json.loads((self.base / "broker.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return record

    def status(self) -> dict[str, Any]:
        """The broker's own status. OSError where none answers."""
        endpoint = next(e for e in self.record().get("endpoints", ["unix:/nowhere"]) if e.startswith("unix:"))
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(endpoint.removeprefix("unix:"))
            sock.sendall(b'{"jsonrpc":"2.0","id":1,"method":"broker/status"}\n')
            with sock.makefile("rb") as file:
                result: dict[str, Any] = json.loads(file.readline())["result"]
        return result

    def wait_engine(self) -> dict[str, Any]:
        """Status, once the broker's engine is ready."""

        def ready() -> dict[str, Any] | None:
            try:
                status = self.status()
            except OSError:
                return None
            return status if status["engine"]["state"] in ("ready", "parked") else None

        found: dict[str, Any] = eventually(ready, 60, "an engine that is ready")
        return found

    # -- observation

    def pids(self) -> list[int]:
        """All running processes of this world."""
        return sorted(set(proctools.marked(f"{MARK}={self.mark}")) | set(proctools.marked(f"{self.root}/")))

    def brokers(self) -> list[int]:
        """Pids of running brokers, in the record or not."""
        return proctools.running_module("mempalace_broker.broker", self.pids())

    def engines(self) -> list[int]:
        """Pids of the brokers' engines, ready or not, orphans included."""
        others = {session.pid for session in self.sessions} | set(self.brokers())
        return [pid for pid in self.pids() if pid not in others]

    def owners(self) -> set[int]:
        """Pids that have a store open."""
        return proctools.owners(self.base)

    def memory_mb(self) -> dict[str, float]:
        """RSS and PSS of everything that serves this palace, in MB."""
        rows = [proctools.memory_kb(pid) for pid in self.pids()]
        return {name: round(sum(row[name] for row in rows) / 1024, 1) for name in ("rss", "pss")}

    def cpu_s(self) -> float:
        """Processor time, in seconds, that all running processes of this world have taken so far."""
        total = 0.0
        for pid in self.pids():
            with contextlib.suppress(OSError):  # it ended meanwhile
                total += time.clock_gettime((~pid << 3) | 2)  # the clock of a process: see clock_getcpuclockid(3)
        return total

    # -- the end

    def end_servers(self) -> None:
        """End all sessions by EOF and their owner by SIGTERM; whatever stays is killed."""
        for session in self.sessions:
            session.end()
        for pid in self.pids():
            line = " ".join(proctools.cmdline_of(pid))
            if "mempalace_broker.broker" in line or (self.hub is not None and pid == self.hub.pid):
                _signal(pid, signal.SIGTERM)
        with contextlib.suppress(AssertionError):
            eventually(self._all_ended, END_S, "the end of all processes")
        self.kill_all()
        self.sessions.clear()

    def _all_ended(self) -> bool:
        if self.hub is not None:
            self.hub.poll()
        return not self.pids()

    def kill_all(self) -> None:
        """SIGKILL everything that is left."""
        for _ in range(3):  # what we kill may be about to start another
            for pid in self.pids():
                _signal(pid, signal.SIGKILL)
            eventually(self._all_ended, 10, "the end of killed processes")
        for session in self.sessions:
            session.end(1.0)
        if self.hub is not None:
            self.hub.wait(10)
            self.hub = None

    def close(self) -> None:
        self.end_servers()
        if self.keep:
            print(f"kept: {self.root}", file=sys.stderr)
        else:
            shutil.rmtree(self.root, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.kill_all()
        self.close()


def make_home(home: Path) -> None:
    """A HOME with the model and a config.json that names HOME/.mempalace/palace."""
    base = home / ".mempalace"
    base.mkdir(parents=True)
    (home / MODEL).parent.mkdir(parents=True)
    (home / MODEL).symlink_to(model())
    (base / "config.json").write_text(json.dumps({"palace_path": str(base / "palace")}), encoding="utf-8")


def base_env(home: Path) -> dict[str, str]:
    """What an agent passes on."""
    return {
        "HOME": str(home),
        PRIVATE: str(home / ".private"),
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "USER": "benchmark",
        "SHELL": "/bin/sh",
        "TERM": "dumb",
        "LANG": "C.UTF-8",
    }


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
