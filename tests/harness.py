"""Real processes for tests, each in a world of its own: HOME, palace, shims, broker, engine, and nothing left
over.

    def test_two_agents(world):                  # runs once per engine version
        one, two = world.shim(), world.shim()
        one.initialize(); two.initialize()
        one.call_tool("add_drawer", wing="w", room="r", content="hello")

A World marks every process that it starts, directly or not, with MPB_TEST_WORLD=<its id>. `close` ends them
the way a user would (EOF or SIGKILL for agents, SIGTERM for brokers) and fails if anything is left: process,
socket or file.

Locations: MPB_ENGINE_340, MPB_ENGINE_NEWEST, MPB_ENGINE_DATABASES (virtual environment or interpreter), MPB_MODEL_HOME
(a HOME with the embedding model), MPB_BIN (directory of an installed mp-shim and mempalace-broker); defaults are what
dev.py makes.
"""

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
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import pytest

from mempalace_broker.system.private import SETTINGS, state_folder
from mempalace_broker.system.private import VARIABLE as PRIVATE
from tests import proctools
from tests.proctools import OwnerSampler, eventually, is_running
from tests.rpcproc import NoAnswer, RpcError, RpcProcess, payload

__all__ = ["PRIVATE", "Broker", "NoAnswer", "OwnerSampler", "RpcError", "RpcProcess", "World", "eventually", "payload"]

REPO = Path(__file__).resolve().parent.parent
PROGRAMS = {"mp-shim": ("mempalace_broker.shim.main", "entry"), "mempalace-broker": ("mempalace_broker.cli", "main")}
VERSIONS = ("3.4.0", "newest")
BETWEEN = ("3.5.0", "3.6.0", "3.7.1", "3.8.0", "3.9.0", "3.10.0")  # `python3 dev.py slow` makes these
WITH_HUB = BETWEEN[3:]  # mempalace's own server, which others look for, came with 3.8
_ENGINE_ENV = {
    "3.4.0": ("MPB_ENGINE_340", "engine-3.4.0"),
    "newest": ("MPB_ENGINE_NEWEST", "engine-newest"),
    "databases": ("MPB_ENGINE_DATABASES", "engine-databases"),  # the newest, with what tests/postgres.py needs
    **{version: (f"MPB_ENGINE_{version.replace('.', '')}", f"engine-{version}") for version in BETWEEN},
}
MODEL = ".cache/chroma/onnx_models/all-MiniLM-L6-v2"
MARK = "MPB_TEST_WORLD"
SELF_DESTRUCT_S = 60  # brokers of a killed test run leave by themselves, but not while a test waits for them to
END_S = proctools.PATIENCE_S  # from SIGTERM until broker and engine are gone; a drain takes up to 3 s of it


def engine_python(version: str) -> Path:
    """Interpreter of the engine "3.4.0", "newest" or "databases"; it need not exist."""
    variable, folder = _ENGINE_ENV[version]
    path = Path(os.environ.get(variable) or REPO / ".dev" / folder)
    return path / "bin" / "python" if path.is_dir() else path


def model_home() -> Path:
    """A HOME-like directory that holds the embedding model; it need not exist."""
    return Path(os.environ.get("MPB_MODEL_HOME") or REPO / ".dev" / "model-home")


def missing(version: str) -> str:
    """What is not set up for tests with that engine; empty when all is there."""
    python = engine_python(version)
    if not (python.parent / "mempalace-mcp").exists():
        return f"no mempalace {version} at {python.parent}"
    if not (model_home() / MODEL / "onnx" / "model.onnx").exists():
        return f"no embedding model in {model_home()}"
    return ""


def require_engine(version: str) -> None:
    """Skip the test where the engine is not set up; in CI that is a failure."""
    if lack := missing(version):
        message = f"{lack}; run `python3 dev.py setup`"
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail(message)
        pytest.skip(message)


def versions(usual: Sequence[str], slow: Sequence[str] = BETWEEN) -> list[Any]:
    """Parameters for a fixture: the usual engines, and in the slow run those between oldest and newest."""
    return [
        *(pytest.param(version, marks=pytest.mark.engine) for version in usual),
        *(pytest.param(version, marks=[pytest.mark.engine, pytest.mark.slow]) for version in slow),
    ]


def repeated(name: str, times: int, slow: int) -> pytest.MarkDecorator:
    """Parametrize a test by its number of rounds: a few, and many in the slow run."""
    many = pytest.param(slow, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])
    return pytest.mark.parametrize(name, [times, many])


class Broker:
    """The broker that a world's record names.

    Attributes: pid, record (the parsed broker.json).
    """

    def __init__(self, record: dict[str, Any]) -> None:
        self.record = record
        self.pid: int = record["pid"]

    def admin(self, method: str, params: Any = None, timeout: float = 10.0) -> Any:
        """Result of an admin method such as "broker/status". OSError where it does not answer."""
        endpoint = next(e for e in self.record["endpoints"] if e.startswith("unix:"))
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(timeout)
            sock.connect(endpoint.removeprefix("unix:"))
            request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}
            sock.sendall(json.dumps(request).encode() + b"\n")
            with sock.makefile("rb") as file:
                line = file.readline()
        if not line:
            raise OSError(f"{method}: the broker closed the connection")
        answer = json.loads(line)
        if "error" in answer:
            raise RpcError(answer["error"])
        return answer["result"]

    def status(self, timeout: float = 10.0) -> dict[str, Any]:
        status: dict[str, Any] = self.admin("broker/status", timeout=timeout)
        return status

    def http_port(self, timeout: float = 10.0) -> int:
        """Port of its listener for HTTP, 0 while there is none."""
        return urlsplit(self.status(timeout)["http"]["url"] or "").port or 0

    def engine_pid(self, timeout: float = 30.0) -> int:
        """Pid of an engine that is ready."""

        def ready() -> int:
            engine = self.status()["engine"]
            return int(engine["pid"] or 0) if engine["state"] == "ready" else 0

        return eventually(ready, timeout, "an engine that is ready")

    @property
    def running(self) -> bool:
        return is_running(self.pid)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, seen through."""
        kill_pid(self.pid)

    def stop(self) -> None:
        """SIGSTOP, seen through."""
        self.signal(signal.SIGSTOP)
        eventually(lambda: proctools.state_of(self.pid) == "T", what="broker stopped by SIGSTOP")

    def cont(self) -> None:
        self.signal(signal.SIGCONT)


def kill_pid(pid: int) -> None:
    """SIGKILL a process and wait until it is gone (or a zombie of somebody else)."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not is_running(pid), what=f"the end of {pid}")


class World:
    """A private HOME with a palace, and all processes that work on it.

    Args:
        engine: "3.4.0", "newest", "databases", one of BETWEEN, or None where no engine is wanted.
        by: how agents name the palace: "config" (HOME/.mempalace/config.json, what `mempalace init` leaves),
            "flag" (--palace) or "env" (MEMPALACE_PALACE_PATH).
        env: more environment for everything. parent: the directory that gets its temporary directory.

    Attributes:
        root: short temporary directory, removed at the end. home, palace, state_root: below it.
        private: the user's private folder, below it too. settings: config.toml there, absent at first.
        cwd: working directory of what it starts. id: its mark. server: the command of a bare mempalace-mcp.
    """

    def __init__(
        self,
        engine: str | None = "newest",
        *,
        by: str = "config",
        env: Mapping[str, str] | None = None,
        parent: str | Path = "/tmp",  # AF_UNIX paths are short
    ) -> None:
        self.engine = engine
        self.by = by
        self.id = uuid.uuid4().hex
        self.root = Path(tempfile.mkdtemp(prefix="mpb-", dir=parent))
        self.home = self.root / "h"
        self.state_root = self.home / ".mempalace"
        self.palace = self.state_root / "palace"
        self.private = self.root / "p"
        self.settings = self.private / SETTINGS
        self.cwd = self.root / "w"
        self.server = [str(engine_python(engine).parent / "mempalace-mcp")] if engine else []
        self.processes: list[RpcProcess] = []
        self._logs = 0
        self._make_home()
        self.env = self._environment() | dict(env or {})

    def _make_home(self) -> None:
        for folder in (self.home, self.state_root, self.private, self.cwd, self.root / "t", self.root / "bin"):
            folder.mkdir()
        (self.home / MODEL).parent.mkdir(parents=True)
        if (model_home() / MODEL).is_dir():
            (self.home / MODEL).symlink_to(model_home() / MODEL)
        if self.by == "config":
            config = {"palace_path": str(self.palace)}
            (self.state_root / "config.json").write_text(json.dumps(config), encoding="utf-8")

    def _environment(self) -> dict[str, str]:
        env = {
            "HOME": str(self.home),
            "PATH": f"{_bin(self.root)}:/usr/local/bin:/usr/bin:/bin",
            "USER": "tester",
            "SHELL": "/bin/sh",
            "TERM": "dumb",
            "LANG": "C.UTF-8",
            "TMPDIR": str(self.root / "t"),
            MARK: self.id,
            PRIVATE: str(self.private),
            "MEMPALACE_BROKER_IDLE_S": str(SELF_DESTRUCT_S),
            "MEMPALACE_BROKER_DRAIN_S": "3",
            "MEMPALACE_BROKER_PARK_S": "0",  # a test finds its engine as it left it; test_parking turns it on
        }
        if self.engine is not None:
            env["MEMPALACE_BROKER_ENGINE"] = str(engine_python(self.engine))
        if self.by == "env":
            env["MEMPALACE_PALACE_PATH"] = str(self.palace)
        return env

    # --- agents

    @property
    def palace_args(self) -> list[str]:
        """What names the palace on a command line: ["--palace", P] or nothing."""
        return ["--palace", str(self.palace)] if self.by == "flag" else []

    def program(self, name: str) -> str:
        """Path of "mp-shim" or "mempalace-broker"."""
        return str(_bin(self.root) / name)

    def shim(self, *args: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> RpcProcess:
        """An mp-shim, as an agent starts it."""
        return self.spawn([self.program("mp-shim"), *self.palace_args, *args], env=env, cwd=cwd)

    def bare(self, *args: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> RpcProcess:
        """A mempalace-mcp of its own, without any broker: what agents have today."""
        return self.spawn([*self.server, *self.palace_args, *args], env=env, cwd=cwd)

    def spawn(self, argv: list[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> RpcProcess:
        """Any MCP server over stdio, in this world."""
        self._logs += 1
        log = self.root / f"{self._logs}-{Path(argv[0]).name}.stderr"
        process = RpcProcess(argv, env={**self.env, **(env or {})}, cwd=cwd or self.cwd, log=log)
        self.processes.append(process)
        return process

    # --- commands

    def run(
        self, *argv: str, timeout: float = 60.0, env: Mapping[str, str] | None = None, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run any command to its end, in this world."""
        return subprocess.run(
            argv,
            env={**self.env, **(env or {})},
            cwd=self.cwd,
            input=stdin,
            text=True,
            capture_output=True,
            timeout=timeout,
            check=False,
        )

    def cli(
        self, *args: str, timeout: float = 60.0, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `mempalace-broker ...` to its end."""
        return self.run(self.program("mempalace-broker"), *args, timeout=timeout, env=env)

    def mempalace(self, *args: str, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run the engine's own `mempalace ...` to its end."""
        assert self.engine is not None
        return self.run(str(engine_python(self.engine).parent / "mempalace"), *args, timeout=timeout)

    # --- the broker

    def record(self) -> dict[str, Any] | None:
        """broker.json, or None where there is none that can be read."""
        try:
            record: dict[str, Any] = json.loads((self.state_root / "broker.json").read_bytes())
        except (OSError, ValueError):
            return None
        return record

    def broker(self, timeout: float = 20.0) -> Broker:
        """The broker of the record, once there is one that runs."""

        def found() -> Broker | None:
            record = self.record()
            broker = Broker(record) if record else None
            return broker if broker and broker.running else None

        return eventually(found, timeout, "a running broker in the record")

    def brokers(self) -> list[int]:
        """Pids of all brokers of this world, in the record or not."""
        return proctools.running_module("mempalace_broker.broker", self.pids())

    def state(self, name: str) -> Path:
        """A file that the palace's broker keeps in the private folder."""
        return Path(state_folder(str(self.palace.resolve()), self.env).file(name).path)

    def log(self) -> str:
        """broker.log, or nothing."""
        path = self.state("broker.log")
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    # --- observation

    def pids(self) -> list[int]:
        """All running processes of this world."""
        return sorted(set(proctools.marked(f"{MARK}={self.id}")) | set(proctools.marked(str(self.root) + "/")))

    def owners(self) -> set[int]:
        """Pids that have a store of this world open right now."""
        return proctools.owners(self.state_root)

    def watch_owners(self, interval_s: float = 0.05) -> OwnerSampler:
        """Context manager that samples `owners` while its block runs."""
        return OwnerSampler(self.state_root, interval_s)

    # --- the end

    def close(self, end_s: float = END_S) -> None:
        """End everything, remove everything. AssertionError names whatever was left behind after `end_s`."""
        try:
            left = self._end_processes(end_s)
            sockets = self._sockets_left(end_s)
        finally:
            self._destroy()
        assert not left, "processes left behind:\n" + "\n".join(left)
        assert not sockets, f"sockets left behind: {sockets}"
        assert not self.root.exists(), f"files left behind in {self.root}"

    def _end_processes(self, end_s: float) -> list[str]:
        for pid in self.pids():
            if proctools.state_of(pid) == "T":
                _signal(pid, signal.SIGCONT)
        for process in self.processes:
            process.release()
        for pid in self.brokers():
            _signal(pid, signal.SIGTERM)
        try:
            eventually(lambda: not self.pids(), end_s, "the end of all processes")
        except AssertionError:
            return [proctools.describe(pid) for pid in self.pids()] + [self.log()[-3000:]]
        return []

    def _sockets_left(self, end_s: float) -> list[str]:
        """A process that ends loses its environment, by which it is known, before its sockets are closed."""
        with contextlib.suppress(AssertionError):
            eventually(lambda: not proctools.unix_sockets(str(self.root)), end_s, "the end of all sockets")
        return proctools.unix_sockets(str(self.root))

    def _destroy(self) -> None:
        for process in self.processes:
            process.release()
        for _ in range(3):  # what we kill may be about to start another
            for pid in self.pids():
                kill_pid(pid)
        shutil.rmtree(self.root, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if exc is None:
            self.close()
        else:
            self._destroy()  # the test has failed already: its own words count


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _bin(root: Path) -> Path:
    """Directory with mp-shim and mempalace-broker: MPB_BIN, or made of this checkout as an installer would."""
    if given := os.environ.get("MPB_BIN"):
        return Path(given)
    folder = root / "bin"
    for name, (module, function) in PROGRAMS.items():
        script = folder / name
        if not script.exists():
            script.write_text(
                f"#!{sys.executable}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n"
            )
            script.chmod(0o755)
    return folder
