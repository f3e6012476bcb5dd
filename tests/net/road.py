"""Agents that reach a world's broker over ssh, on this machine: sshd, bridge and shims are real, only the container is
left out. The bridge must behave the same wherever it runs, and here a test can watch and kill every part.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mempalace_broker.route.bridge.files import BridgeFiles
from mempalace_broker.route.bridge.start import bridge_status
from mempalace_broker.route.bridge.wire import DEFAULT_COMMAND, SshTarget
from mempalace_broker.system.clock import Clock, Deadline
from mempalace_broker.system.private import VARIABLE
from tests import proctools
from tests.harness import World
from tests.net.sshd import HOST, Sshd
from tests.proctools import eventually
from tests.rpcproc import RpcProcess

STAYS = {"bridge.lock", "start.lock", "bridge.log"}
_SESSION = ("MEMPALACE_", "MPB_")


def session_env(world: World) -> dict[str, str]:
    """The environment of a login on the world's machine."""
    return {name: value for name, value in world.env.items() if name in {"HOME", "PATH"} or name.startswith(_SESSION)}


def listening(prefix: str) -> list[str]:
    """Paths of listening unix sockets that start with `prefix`; unlike their connections they can be left behind."""
    rows = [row.split() for row in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return [row[7] for row in rows if len(row) == 8 and row[3] == "00010000" and row[7].startswith(prefix)]


class Road:
    """The way from agents to the world's broker. A context manager; at its end nothing may be left behind.

    Args:
        world: where the broker is. master: whether the user has opened a ControlMaster. options, key_options: as Sshd
            has them. env: of sessions, besides. command, state_root: settings of the agents.
    """

    def __init__(
        self,
        world: World,
        *,
        master: bool = False,
        options: Sequence[str] = (),
        key_options: str = "",
        env: Mapping[str, str] | None = None,
        command: str = "",
        state_root: str = "",
    ) -> None:
        self.world = world
        self.master = master
        number = len(list(world.root.glob("s*")))
        session = {**session_env(world), **(env or {})}
        self.sshd = Sshd(world.root / f"s{number}", env=session, options=options, key_options=key_options)
        self.control = self.sshd.folder / "cm"
        if master:
            self.sshd.configure(f"ControlPath {self.control}")
            self.sshd.master()
        self.env = {
            "MEMPALACE_BROKER": f"ssh://{HOST}{state_root}",
            "MEMPALACE_BROKER_SSH_CONFIG": str(self.sshd.config),
        }
        if command:
            self.env["MEMPALACE_BROKER_SSH_COMMAND"] = command
        self.target = SshTarget(
            HOST, config=str(self.sshd.config), command=command or DEFAULT_COMMAND, state_root=state_root
        )
        self.files = BridgeFiles(self.target, {VARIABLE: str(world.private)})
        self.shims: list[RpcProcess] = []

    # --- agents

    def shim(self, *, env: Mapping[str, str] | None = None) -> RpcProcess:
        """An mp-shim that takes this road."""
        shim = self.world.shim(env={**self.env, **(env or {})})
        self.shims.append(shim)
        return shim

    def started(self) -> RpcProcess:
        """A shim that has initialized and called a tool."""
        shim = self.shim()
        shim.initialize()
        shim.call_tool("kg_stats")
        return shim

    def log(self) -> str:
        """The logs of bridge and broker."""
        bridge = Path(self.files.log)
        return (bridge.read_text() if bridge.exists() else "") + self.world.log()[-1500:]

    # --- the bridge

    def status(self) -> dict[str, Any]:
        """The bridge's status; {} where there is no bridge."""
        return bridge_status(self.files, Deadline.after(Clock(), 10.0))

    def bridges(self) -> list[int]:
        """Pids of all bridges of this road."""
        return proctools.running_module("mempalace_broker.route.bridge", proctools.marked(self.files.folder))

    def bridge(self) -> int:
        """Pid of the one bridge, once any that lost the race to start is gone."""
        return eventually(lambda: found[0] if len(found := self.bridges()) == 1 else 0, what="one bridge")

    def forwarded(self) -> str:
        """Name of the one socket that the bridge forwards to the broker, once any before it is gone."""

        def sockets() -> list[str]:
            return [name for name in os.listdir(self.files.folder) if name.startswith("w-")]

        return eventually(lambda: found[0] if len(found := sockets()) == 1 else "", what="one forwarded socket")

    def clients(self) -> list[int]:
        """Pids of all ssh clients of this road but the user's own master."""
        mine = self.sshd.master_pid() if self.master else 0
        return [
            pid
            for pid in proctools.marked(str(self.sshd.config))
            if proctools.cmdline_of(pid)[:1] == ["ssh"] and pid != mine
        ]

    # --- the end

    def finish(self) -> None:
        """End the agents."""
        for shim in self.shims:
            if shim.running:
                assert shim.finish() == 0
        self.shims.clear()

    def nothing_left(self) -> bool:
        """Whether bridge, ssh clients, and sockets are gone."""
        left = set(os.listdir(self.files.folder)) if os.path.isdir(self.files.folder) else set()
        sockets = listening(self.files.folder + "/")
        return not (self.bridges() or self.clients() or left - STAYS or sockets)

    def leavings(self) -> str:
        """The findings of `nothing_left`, in words."""
        files = os.listdir(self.files.folder) if os.path.isdir(self.files.folder) else []
        processes = [proctools.describe(pid) for pid in [*self.bridges(), *self.clients()]]
        return f"{processes} {files} {listening(self.files.folder)} {self.log()}"

    def close(self) -> None:
        """End everything; AssertionError says what a bridge that was told to leave left behind."""
        try:
            self.finish()
            for pid in self.bridges():
                os.kill(pid, signal.SIGTERM)
            try:
                eventually(self.nothing_left, what="nothing left")
            except AssertionError as exc:
                raise AssertionError(self.leavings()) from exc
        finally:
            self.destroy()

    def destroy(self) -> None:
        """Kill every part."""
        for pid in [*self.bridges(), *self.clients()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.sshd.end_connections(signal.SIGCONT)
        if self.master:
            self.sshd.end_master()
        self.sshd.close()
        shutil.rmtree(self.files.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if exc is None:
            self.close()
        else:
            exc.add_note(self.leavings())
            self.destroy()
