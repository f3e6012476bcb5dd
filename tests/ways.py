"""Every way into the palace but mp-shim, as a `Load` of tests/load.py uses one: MCP over HTTP, and stock servers.

And what saves beside them: `mempalace mine` and hooks, which remember what they were told.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from mempalace_broker import errors
from mempalace_broker.broker.http.machine.hub_record import RECORD, key_of
from mempalace_broker.protocol.jsonrpc import load_object
from tests.background import Background
from tests.harness import NoAnswer, RpcError, RpcProcess, World, eventually, payload
from tests.hooks import run_hook, transcript
from tests.rpcproc import full_name

PROXY_FAILED = -32000  # of a stock server: its hub broke off, and may have run the call
PEER_WRITES = -32001  # of a stock server that found no hub: another process has the write lock


def hub_record(world: World, home: Path | None = None) -> dict[str, Any]:
    """The record by which stock servers find the broker, {} while there is none. Without it they open the palace.

    Args:
        home: of the agent that starts them, if it is not the world's own.
    """
    path = (home or world.home) / ".mempalace" / "server" / key_of(str(world.palace.resolve())) / RECORD
    return load_object(path.read_bytes()) if path.exists() else {}


class HttpAgent:
    """A client over HTTP with a session of its own; a connection that breaks is made anew, as an SDK does."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.token = world.cli("token", "--http").stdout.strip()
        self.session = ""
        self.connection: http.client.HTTPConnection | None = None
        self.port = 0

    def initialize(self, timeout: float = 30.0) -> None:
        """Wait for a listener and greet."""
        self.port = eventually(self._port, timeout, "a listener for HTTP")
        self._post({"id": 1, "method": "initialize", "params": {"clientInfo": {"name": "http"}}}, timeout)

    def call_tool(self, tool: str, /, timeout: float = 30.0, **arguments: Any) -> Any:
        """Call a tool; RpcError for an error answer. What a broken connection leaves open counts as unknown."""
        params = {"name": full_name(tool), "arguments": arguments}
        try:
            return payload(self._post({"id": 2, "method": "tools/call", "params": params}, timeout))
        except (OSError, http.client.HTTPException, ValueError) as exc:
            self._drop()
            raise RpcError({"code": errors.OUTCOME_UNKNOWN, "message": repr(exc)}) from exc

    def untaken(self) -> list[dict[str, Any]]:
        """Nothing: over HTTP an answer has a request."""
        return []

    def release(self) -> None:
        """Close the connection."""
        self._drop()

    def _port(self) -> int:
        with contextlib.suppress(OSError, AssertionError):
            return self.world.broker(1.0).http_port()
        return 0

    def _drop(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def _post(self, body: dict[str, Any], timeout: float) -> dict[str, Any]:
        if self.connection is None:
            self.connection = http.client.HTTPConnection("127.0.0.1", self._port() or self.port, timeout=timeout)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"}
        headers |= {"Mcp-Session-Id": self.session} if self.session else {}
        self.connection.request("POST", "/mcp", json.dumps({"jsonrpc": "2.0", **body}).encode(), headers)
        with self.connection.getresponse() as answer:  # a killed broker's answer ends in the middle, and stays open
            self.session = answer.getheader("Mcp-Session-Id") or self.session
            told: dict[str, Any] = json.loads(answer.read())
        return told


class HttpAgents:
    """Starts clients over HTTP; `release` closes their connections."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.agents: list[HttpAgent] = []

    def shim(self, *, env: Mapping[str, str] | None = None) -> RpcProcess:
        """Another client; it has all of an RpcProcess that a Load uses."""
        self.agents.append(HttpAgent(self.world))
        return cast(RpcProcess, self.agents[-1])

    def release(self) -> None:
        """Close all connections."""
        for agent in self.agents:
            agent.release()

    def log(self) -> str:
        """The broker's."""
        return self.world.log()


class StockAgent:
    """A stock `mempalace-mcp`, which is started again when it has ended. It only writes: see below."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.process: RpcProcess = world.bare()

    def initialize(self, timeout: float = 30.0) -> None:
        """The handshake."""
        self.process.initialize(timeout)

    def call_tool(self, tool: str, /, timeout: float = 30.0, **arguments: Any) -> Any:
        """Call a tool. Errors are counted as the broker's: not executed, or unknown.

        Nothing is read: where its hub breaks off in the middle of a read, a stock server opens the palace beside the
        next engine and reads by itself.
        """
        if tool == "search":
            return {}
        try:
            return self.process.call_tool(tool, timeout, **arguments)
        except RpcError as exc:
            known = {PROXY_FAILED: errors.OUTCOME_UNKNOWN, PEER_WRITES: errors.NOT_EXECUTED}
            raise RpcError({"code": known.get(exc.code, exc.code), "message": exc.message}) from exc
        except (NoAnswer, OSError) as exc:  # it has ended
            self.process = self.world.bare()
            self.process.initialize(timeout)
            raise RpcError({"code": errors.OUTCOME_UNKNOWN, "message": repr(exc)}) from exc

    def untaken(self) -> list[dict[str, Any]]:
        """Answers that nobody waited for."""
        return self.process.untaken()


class StockAgents:
    """Starts stock servers."""

    def __init__(self, world: World) -> None:
        self.world = world

    def shim(self, *, env: Mapping[str, str] | None = None) -> RpcProcess:
        """Another server; it has all of an RpcProcess that a Load uses."""
        return cast(RpcProcess, StockAgent(self.world))

    def log(self) -> str:
        """The broker's."""
        return self.world.log()


class BareAgents:
    """A fresh engine without a broker, which verifies."""

    def __init__(self, world: World) -> None:
        self.world = world

    def shim(self, *, env: Mapping[str, str] | None = None) -> RpcProcess:
        """A bare server."""
        return self.world.bare()

    def log(self) -> str:
        """The broker's."""
        return self.world.log()


class Repeated(Background):
    """Does one thing again and again.

    Args:
        step: gets the number of the run. pause_s: between two.
    """

    end_s = 200.0

    def __init__(self, name: str, step: Callable[[int], None], pause_s: float) -> None:
        self.name = name
        self._step, self._pause_s = step, pause_s
        self._ending = threading.Event()

    def run(self) -> None:
        for n in itertools.count():
            if self._ending.wait(self._pause_s):
                return
            self._step(n)

    def end(self) -> None:
        self._ending.set()


class Savers:
    """`mempalace mine` and hooks. `mined`, `saved`: words of what they said is stored."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.mined: list[str] = []
        self.saved: list[str] = []
        self.not_saved = 0

    def mine(self, n: int) -> None:
        """Mine one new file; it may be refused, and says so."""
        notes = self.world.cwd / f"notes{n}"
        notes.mkdir()
        (notes / "mempalace.yaml").write_text(f"wing: notes{n}\nrooms: []\n")
        (notes / "n.md").write_text(f"# note minetok{n}e\n" + "herons and rivers and stones. " * 8)
        done = self.world.mempalace("mine", str(notes), timeout=180)
        if done.returncode == 0 and "Files processed: 1" in done.stdout:
            self.mined.append(f"notes{n}")
        else:
            self.not_saved += 1

    def hook(self, n: int) -> None:
        """Run the stop hook of one new session."""
        told = run_hook(self.world, "stop", transcript(self.world, f"t{n}", f"hooktok{n}e"), f"s{n}")
        if "woven into the palace" in told.get("systemMessage", ""):
            self.saved.append(f"s{n}")
        else:
            self.not_saved += 1

    def verify(self, reader: RpcProcess) -> None:
        """Compare with what a fresh engine finds."""
        wings = reader.call_tool("list_wings")["wings"]
        lost = [wing for wing in self.mined if not wings.get(wing)]
        assert not lost, f"mined, and lost: {lost}"
        entries = self._diary(reader)
        for session in self.saved:
            found = [entry for entry in entries if f"session:{session}|" in entry]
            assert len(found) == 1, f"saved by a hook: {session}: {len(found)} times"

    def _diary(self, reader: RpcProcess) -> list[str]:
        told = reader.call_tool("diary_read", agent_name="claude", last_n=100)
        assert len(told["entries"]) < 100, "more hooks than a diary shows"
        return [str(entry["content"]) for entry in told["entries"]]
