"""A process that speaks newline-delimited JSON-RPC on stdin and stdout, as an agent sees it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tests import proctools

PATIENCE_S = 30.0


class RpcError(AssertionError):
    """An answer that is an error, where a result was wanted. An AssertionError: tests need not expect it."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(json.dumps(error)[:2000])
        self.code: int = error.get("code", 0)
        self.message: str = error.get("message", "")
        self.data = error.get("data")


class NoAnswer(AssertionError):
    """No answer within the time that the test allowed."""


class RpcProcess:
    """One running MCP server over stdio: an mp-shim, or a bare mempalace-mcp.

    Args:
        argv: the command. env: its whole environment. cwd: its working directory.
        log: file that takes its stderr.
    """

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: str | Path, log: Path) -> None:
        self.argv = list(argv)
        self.log = log
        self.started = time.monotonic()
        with log.open("ab") as stderr:
            self.process = subprocess.Popen(
                self.argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=dict(env),
                cwd=cwd,
                bufsize=0,
                start_new_session=True,  # a Ctrl-C on the test run is ours to handle
            )
        self.lines: list[str] = []
        self.eof = False
        self._answers: dict[str, deque[dict[str, Any]]] = {}
        self._changed = threading.Condition()
        self._next_id = 0
        self._reader = threading.Thread(target=self._read, name=f"rpc-{self.pid}", daemon=True)
        self._reader.start()

    # --- what it says

    def _read(self) -> None:
        assert self.process.stdout is not None
        buffer = b""
        while chunk := os.read(self.process.stdout.fileno(), 1 << 16):
            *whole, buffer = (buffer + chunk).split(b"\n")
            with self._changed:
                for line in whole:
                    self._take(line.decode("utf-8", "replace"))
                self._changed.notify_all()
        with self._changed:
            if buffer:
                self.lines.append(buffer.decode("utf-8", "replace"))
            self.eof = True
            self._changed.notify_all()

    def _take(self, line: str) -> None:
        self.lines.append(line)
        try:
            message = json.loads(line)
        except ValueError:
            return
        if isinstance(message, dict) and "id" in message and "method" not in message:
            self._answers.setdefault(_key(message["id"]), deque()).append(message)

    def wait_response(self, id_: Any, timeout: float = PATIENCE_S) -> dict[str, Any]:
        """The oldest answer with that id that nobody has taken yet."""
        end = time.monotonic() + timeout
        key = _key(id_)
        with self._changed:
            while not self._answers.get(key):
                left = end - time.monotonic()
                if left <= 0 or self.eof:
                    why = "its stdout ended" if self.eof else f"not within {timeout:g} s"
                    raise NoAnswer(f"no answer to id {key} from {self.argv[0]}: {why}\n{self.stderr()[-2000:]}")
                self._changed.wait(left)
            return self._answers[key].popleft()

    def untaken(self) -> list[dict[str, Any]]:
        """Answers that nobody waited for: a test of "exactly one answer" wants this empty."""
        with self._changed:
            return [message for queue in self._answers.values() for message in queue]

    def wait_lines(self, count: int, timeout: float = PATIENCE_S) -> list[str]:
        """All lines so far, once there are at least `count`."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.lines) >= count, timeout):
                raise NoAnswer(f"{len(self.lines)} of {count} lines within {timeout:g} s: {self.lines[-3:]}")
            return list(self.lines)

    def stderr(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    # --- what it is told

    def send_bytes(self, data: bytes) -> None:
        assert self.process.stdin is not None
        view = memoryview(data)
        while view:
            view = view[self.process.stdin.write(view) :]

    def send(self, message: Any) -> None:
        self.send_bytes(json.dumps(message, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")

    def start_request(self, method: str, params: Any = None, *, id_: Any = None) -> Any:
        """Send a request without waiting; returns its id."""
        if id_ is None:
            self._next_id += 1
            id_ = self._next_id
        message = {"jsonrpc": "2.0", "id": id_, "method": method}
        if params is not None:
            message["params"] = params
        self.send(message)
        return id_

    def request(
        self, method: str, params: Any = None, timeout: float = PATIENCE_S, *, id_: Any = None
    ) -> dict[str, Any]:
        """Send a request and return its whole answer, result or error."""
        return self.wait_response(self.start_request(method, params, id_=id_), timeout)

    def notify(self, method: str, params: Any = None) -> None:
        self.send({"jsonrpc": "2.0", "method": method} | ({} if params is None else {"params": params}))

    def initialize(self, timeout: float = PATIENCE_S, *, client: str = "harness") -> dict[str, Any]:
        """The handshake of an agent; returns the result of `initialize`."""
        params = {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": client, "version": "1"},
        }
        result = _result(self.request("initialize", params, timeout))
        self.notify("notifications/initialized")
        return result

    def tools(self, timeout: float = PATIENCE_S) -> list[dict[str, Any]]:
        tools: list[dict[str, Any]] = _result(self.request("tools/list", {}, timeout))["tools"]
        return tools

    def start_call(self, tool: str, /, **arguments: Any) -> Any:
        """Send a tools/call without waiting; `tool` with or without its prefix. Returns the id."""
        return self.start_request("tools/call", {"name": full_name(tool), "arguments": arguments})

    def call_tool(self, tool: str, /, timeout: float = PATIENCE_S, **arguments: Any) -> Any:
        """Call a tool; what its text says, parsed where it is JSON. RpcError for an error answer."""
        return payload(self.wait_response(self.start_call(tool, **arguments), timeout))

    # --- its life

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def stop(self) -> None:
        """SIGSTOP, seen through: it no longer runs when this returns."""
        self.signal(signal.SIGSTOP)
        proctools.eventually(lambda: proctools.state_of(self.pid) in {"T", "Z"}, what="stopped by SIGSTOP")

    def cont(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL and reap."""
        if self.running:
            self.signal(signal.SIGKILL)
        self.wait(10)

    def close_stdin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def wait(self, timeout: float = PATIENCE_S) -> int:
        """Its exit status, once it has ended and its last words are read."""
        status = self.process.wait(timeout)
        self._reader.join(timeout)
        return status

    def finish(self, timeout: float = PATIENCE_S) -> int:
        """End it as an agent does, by EOF; its exit status."""
        self.close_stdin()
        return self.wait(timeout)

    def memory_kb(self) -> dict[str, int]:
        return proctools.memory_kb(self.pid)

    def release(self) -> None:
        """Kill what still runs and close every descriptor."""
        self.kill()
        self._reader.join(10)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def full_name(tool: str) -> str:
    return tool if tool.startswith("mempalace_") else f"mempalace_{tool}"


def payload(answer: dict[str, Any]) -> Any:
    """What a tools/call answer says: parsed JSON where it is JSON, else text. RpcError for an error."""
    text = _result(answer)["content"][0]["text"]
    try:
        return json.loads(text)
    except ValueError:
        return text


def _result(answer: dict[str, Any]) -> dict[str, Any]:
    if "error" in answer:
        raise RpcError(answer["error"])
    result: dict[str, Any] = answer["result"]
    return result


def _key(id_: Any) -> str:
    return json.dumps(id_)  # "7" and 7 are different ids
