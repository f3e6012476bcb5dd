"""A small MCP client: one agent session on one real mp-shim. Requests one at a time, each timed."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from typing import TYPE_CHECKING, Any

from ...errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

ANSWER_S = 90.0


class CallFailed(BrokerError):
    """A call was answered with an error, or not at all; `code` is the JSON-RPC code, 0 without one."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class Agent:
    """One session. Not for several threads at once, except `kill`.

    Attributes:
        name: for people. timings: seconds of every answered call, by tool. start_s: spawn to initialize's answer.
    """

    def __init__(self, name: str, argv: Sequence[str], env: Mapping[str, str], cwd: Path) -> None:
        self.name = name
        self.timings: dict[str, list[float]] = {}
        self._n = 0
        self._buf = b""
        self._log = cwd / f"{name}.stderr"
        self.server: dict[str, Any] = {}
        self.start_s = 0.0
        self._begun = time.monotonic()
        with self._log.open("ab") as stderr:
            self.process = subprocess.Popen(
                list(argv),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,  # a Ctrl-C is the demo's to handle
            )

    def initialize(self) -> None:
        """The handshake. Raises CallFailed as `call`."""
        info = {"name": f"demo-{self.name}", "version": "1"}
        params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": info}
        self.server = self.request("initialize", params)
        self.start_s = time.monotonic() - self._begun
        self._send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    @property
    def pid(self) -> int:
        """The mp-shim's."""
        return self.process.pid

    def tools(self) -> list[str]:
        """The names of the tools that it offers."""
        return [tool["name"] for tool in self.request("tools/list", {})["tools"]]

    def call(self, tool: str, **arguments: Any) -> Any:
        """Call a tool (without the prefix mempalace_): what its text says, parsed where it is JSON.

        Raises:
            CallFailed: an error for an answer, or none in time.
        """
        begun = time.monotonic()
        result = self.request("tools/call", {"name": f"mempalace_{tool}", "arguments": arguments})
        self.timings.setdefault(tool, []).append(time.monotonic() - begun)
        text = "".join(part.get("text", "") for part in result.get("content", []))
        if result.get("isError"):
            raise CallFailed(f"{tool}: {text[:300]}")
        try:
            return json.loads(text)
        except ValueError:
            return text

    def request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """One request, its result. Raises CallFailed as `call`."""
        self._n += 1
        self._send({"jsonrpc": "2.0", "id": self._n, "method": method, "params": params})
        deadline = time.monotonic() + ANSWER_S
        while True:
            message = json.loads(self._line(deadline, method))
            if message.get("id") != self._n:
                continue
            if "error" in message:
                error = message["error"]
                raise CallFailed(f"{self.name}: {method}: {error.get('message')}", int(error.get("code", 0)))
            result: dict[str, Any] = message["result"]
            return result

    def kill(self) -> None:
        """End it at once; a call that waits for it in another thread fails."""
        self.process.kill()
        self.process.wait()

    def _send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
        except OSError as exc:
            raise CallFailed(f"{self.name}: mp-shim is gone: {exc}. {self._last_output()}") from exc

    def _line(self, deadline: float, method: str) -> bytes:
        assert self.process.stdout is not None
        while b"\n" not in self._buf:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise CallFailed(f"{self.name}: no answer to {method} within {ANSWER_S:g} s. {self._last_output()}")
            data = os.read(self.process.stdout.fileno(), 1 << 16)
            if not data:
                raise CallFailed(f"{self.name}: mp-shim ended during {method}. {self._last_output()}")
            self._buf += data
        line, _, self._buf = self._buf.partition(b"\n")
        return line

    def _last_output(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return " | ".join(lines[-3:])
