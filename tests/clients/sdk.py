"""The official SDKs as programs that a test can talk to, and what is installed of them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests import harness
from tests.clients import setup_clients
from tests.clients.script import Answer, Arguments, from_result
from tests.harness import RpcProcess, World

HERE = Path(__file__).resolve().parent
ANSWER_S = 60.0

# name: (part of the setup, what else the driver must be told)
SDKS: dict[str, tuple[str, dict[str, Any]]] = {
    "python-old": ("py-old", {}),
    "python-new": ("py-new", {"mode": "auto"}),
    "python-new-legacy": ("py-new", {"mode": "legacy"}),
    "typescript-old": ("node", {"sdk": "sdk-old"}),
    "typescript-new": ("node", {"sdk": "sdk-new"}),
    "typescript-client-legacy": ("node", {"sdk": "client", "mode": "legacy"}),
    "typescript-client-auto": ("node", {"sdk": "client", "mode": "auto"}),
}
NODE_CLIENTS = ("mcp-inspector", "opencode", "claude", "cn", "codex", "pi", "node")


def require(part: str) -> None:
    """Skip where that part is not set up; fail where it had to be (CI=true and MPB_CLIENTS=1)."""
    if not setup_clients.is_made(part):
        message = f"no {part} in {setup_clients.target()}; run `python3 dev.py clients`"
        if os.environ.get("CI", "").lower() in {"1", "true"} and os.environ.get("MPB_CLIENTS") == "1":
            pytest.fail(message)
        pytest.skip(message)


def node_client(name: str) -> str:
    """Path of one of NODE_CLIENTS."""
    return str(setup_clients.target() / "node" / "node_modules" / ".bin" / name)


def server_program(world: World, server: str) -> str:
    """Path of "mp-shim" or of the world's bare "mempalace-mcp"."""
    if server == "mp-shim":
        return world.program(server)
    assert world.engine is not None
    return str(harness.engine_python(world.engine).parent / server)


def config_env(world: World) -> dict[str, str]:
    """What a user would write into the "env" of a client's configuration, so that our tests find the engine."""
    ours = {name: value for name, value in world.env.items() if name.startswith(("MEMPALACE_", "MPB_"))}
    # the oldest TypeScript SDK passes these and nothing else
    return ours | {name: world.env[name] for name in ("HOME", "PATH", "TMPDIR")}


def over_http(world: World) -> dict[str, Any]:
    """What a user would write into a client's configuration to reach the broker over HTTP."""
    token = world.state("http-token").read_text().strip()
    return {"url": world.broker().status()["http"]["url"], "headers": {"Authorization": f"Bearer {token}"}}


class Sdk:
    """One SDK client, connected to a server that it has started.

    Args:
        name: of SDKS. server: "mp-shim", "mempalace-mcp", or "http", which is the broker's own listener.
        env: of the server, beyond what the SDK lets through; `config_env` by default.

    Attributes:
        connected: what the server said of itself: serverInfo, protocolVersion.
    """

    def __init__(
        self, world: World, name: str, server: str = "mp-shim", *, env: Mapping[str, str] | None = None
    ) -> None:
        part, told = SDKS[name]
        require(part)
        start = {
            "args": world.palace_args,
            "env": dict(config_env(world) if env is None else env),
            "cwd": str(world.cwd),
        }
        spec = {
            **(over_http(world) if server == "http" else {"command": server_program(world, server), **start}),
            "root": str(setup_clients.target() / "node"),
            **told,
        }
        if part == "node":
            argv = [shutil.which("node") or "node", str(HERE / "drive.mjs")]
        else:
            argv = [str(setup_clients.target() / part / "bin" / "python"), str(HERE / "drive.py")]
        self.name = name
        self.process: RpcProcess = world.spawn([*argv, json.dumps(spec)])
        self._said = 0
        self.connected: dict[str, Any] = self._next()["connected"]

    def _next(self) -> dict[str, Any]:
        self._said += 1
        message: dict[str, Any] = json.loads(self.process.wait_lines(self._said, ANSWER_S)[self._said - 1])
        return message

    def ask(self, op: str, **more: Any) -> dict[str, Any]:
        """{"result": ..} or {"error": {"code", "message"}} as the SDK hands it out."""
        self.process.send({"op": op, **more})
        return self._next()

    def tools(self) -> list[dict[str, Any]]:
        tools: list[dict[str, Any]] = self.ask("list")["result"]["tools"]
        return tools

    def call(self, tool: str, arguments: Arguments) -> Answer:
        """A tools/call; a `Caller` for `script.play`."""
        answer = self.ask("call", name=tool, args=arguments)
        return from_result(answer["result"]) if "result" in answer else answer["error"]

    def close(self) -> None:
        """End it as its user does, and its server with it."""
        assert self.process.finish(20) == 0, self.process.stderr()
