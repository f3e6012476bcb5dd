"""A broker by script: a unix socket that says what the test wants, in threads of the test's own process."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from mempalace_broker.system.private import VARIABLE as PRIVATE

Message = dict[str, Any]
LIMITS = {"wait_s": 60, "run_s": 60, "init_s": 120}


def answer(message: Message) -> Message | None:
    """What a friendly broker answers: hello, constants, and the name and arguments of a tool as its result."""
    method, params = message.get("method"), message.get("params") or {}
    if "id" not in message:
        return None
    reply: Message = {"jsonrpc": "2.0", "id": message["id"]}
    if method == "broker/hello":
        return reply | {"result": {"wire": 1, "capabilities": ["outcomes"], "limits": LIMITS}}
    if method == "broker/outcomes":
        states = {str(n): {"state": "not_started"} for n in params["lines"]}
        return reply | {"result": {"outcomes": states}}
    if method == "initialize":
        info = {"name": "mempalace", "version": "fake"}
        return reply | {"result": {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": info}}
    if method == "tools/list":
        return reply | {"result": {"tools": [{"name": "mempalace_status", "inputSchema": {"type": "object"}}]}}
    if method == "tools/call":
        return reply | {"result": {"content": [{"type": "text", "text": json.dumps(params)}]}}
    return reply | {"error": {"code": -32601, "message": f"Unknown method: {method}"}}


def environment(folder: Path, **more: str) -> dict[str, str]:
    """For a program that finds the broker at b.sock in `folder`, and keeps its own files there."""
    return {
        "HOME": str(folder), "PATH": os.environ["PATH"], "MEMPALACE_BROKER": f"unix:{folder}/b.sock",
        PRIVATE: str(folder / "private"), **more,
    }  # fmt: skip


class FakeBroker:
    """Listens while entered. `script(message)` returns an answer, None for silence, or a Drop/bytes.

    Attributes:
        script: called for each line that comes; may be replaced at any time.
        seen: (connection number, message), in order of arrival.
    """

    def __init__(self, path: str, script: Callable[[Message], Message | bytes | None] = answer) -> None:
        self.path = path
        self.script = script
        self.seen: list[tuple[int, Message]] = []
        self._changed = threading.Condition()
        self._peers: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._count = 0

    def __enter__(self) -> FakeBroker:
        self._listener.bind(self.path)
        self._listener.listen(64)
        self._spawn(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.die()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive(), "a thread of the fake broker hangs"

    def die(self) -> None:
        """As after kill -9: no listener, no connection, only the name stays."""
        with contextlib.suppress(OSError):  # dead already
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()

    def drop(self) -> None:
        """Cut all connections."""
        with self._changed:
            peers, self._peers = self._peers, []
        for peer in peers:
            with contextlib.suppress(OSError):  # gone already
                peer.shutdown(socket.SHUT_RDWR)

    def messages(self, method: str) -> list[Message]:
        """All messages of one method so far."""
        with self._changed:
            return [message for _, message in self.seen if message.get("method") == method]

    def wait_for(self, method: str, count: int = 1, timeout: float = 20.0) -> list[Message]:
        """Wait until `count` messages of `method` have come."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                found = [message for _, message in self.seen if message.get("method") == method]
                if len(found) >= count:
                    return found
                left = deadline - time.monotonic()
                assert left > 0, f"{method} came {len(found)} times, not {count}; seen: {self.seen}"
                self._changed.wait(left)

    def send(self, line: bytes) -> None:
        """Say something unasked on the newest connection."""
        self._peers[-1].sendall(line)

    def _spawn(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            with self._changed:
                self._count += 1
                self._peers.append(peer)
            self._spawn(self._serve, peer, self._count)

    def _serve(self, peer: socket.socket, number: int) -> None:
        with peer, peer.makefile("rb") as lines:
            try:
                for line in lines:
                    message = json.loads(line)
                    with self._changed:
                        self.seen.append((number, message))
                        self._changed.notify_all()
                    reply = self.script(message)
                    if reply is not None:
                        peer.sendall(reply if isinstance(reply, bytes) else json.dumps(reply).encode() + b"\n")
            except OSError:
                return  # cut off by the test or by the shim
