"""A cheap MCP client for many servers at once: raw pipes, one poll loop, no JSON unless a caller wants it.

It shares the machine with what it measures, so it must cost little: `floor` says how much.
"""

from __future__ import annotations

import json
import os
import select
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

READY_S = 60.0
INITIALIZE = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "benchmark", "version": "1"},
}


def request(id_: int, method: str, params: object = None) -> bytes:
    """A request line."""
    body: dict[str, object] = {"jsonrpc": "2.0", "id": id_, "method": method}
    if params is not None:
        body["params"] = params
    return json.dumps(body).encode() + b"\n"


def call(id_: int, tool: str, arguments: Mapping[str, object]) -> bytes:
    """A tools/call line; `tool` without its prefix."""
    return request(id_, "tools/call", {"name": f"mempalace_{tool}", "arguments": arguments})


def call_template(tool: str, **arguments: object) -> tuple[bytes, bytes]:
    """Head and tail of a tools/call line, to go before and after the id."""
    head, tail = call(987654321, tool, arguments).split(b"987654321")
    return head, tail


def failed(line: bytes) -> bool:
    """Whether an answer is an error, of the protocol or of the tool; looks at its head only."""
    head = line[:400]
    return (
        b'"result"' not in head[:120]
        or b'\\"error\\":' in head
        or b'\\"success\\": false' in head
        or b'"isError":true' in head
        or b'"isError": true' in head
    )


class Gone(Exception):
    """The server's stdout ended."""


class Session:
    """One server process over stdio.

    Attributes:
        pid. alive: until its stdout ends. sent_at: of the request under way, 0.0 when none is.
    """

    def __init__(self, argv: Sequence[str | Path], *, env: Mapping[str, str], cwd: Path, log: Path) -> None:
        with log.open("ab") as stderr:
            self.process = subprocess.Popen(
                [str(word) for word in argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=dict(env),
                cwd=cwd,
                bufsize=0,
                start_new_session=True,
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.pid = self.process.pid
        self.stdin = self.process.stdin.fileno()
        self.stdout = self.process.stdout.fileno()
        self.alive = True
        self.sent_at = 0.0
        self._part = b""
        self._lines: list[bytes] = []
        self._next_id = 1_000_000_000

    def send(self, data: bytes) -> None:
        """Write a line whole. OSError when the server is gone."""
        while data:
            data = data[os.write(self.stdin, data) :]

    def receive(self) -> list[bytes]:
        """What stdout has, as whole lines; blocks when it has nothing. Gone at its end."""
        data = os.read(self.stdout, 1 << 18)
        if not data:
            self.alive = False
            raise Gone
        lines = (self._part + data).split(b"\n")
        self._part = lines.pop()
        return lines

    def line(self, timeout: float = READY_S) -> bytes:
        """The next line. TimeoutError, Gone."""
        end = time.monotonic() + timeout
        while not self._lines:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.stdout], [], [], left)[0]:
                raise TimeoutError(f"no answer of {self.pid} within {timeout:g} s")
            self._lines += self.receive()
        return self._lines.pop(0)

    def answer(self, line: bytes, timeout: float = READY_S) -> bytes:
        """Send a request line; the answer, which must not be an error. TimeoutError, Gone."""
        self.send(line)
        answer = self.line(timeout)
        assert not failed(answer), answer[:300]
        return answer

    def ask(self, method: str, params: object = None, timeout: float = READY_S) -> dict[str, Any]:
        """One request, one whole answer. TimeoutError, Gone."""
        self._next_id += 1
        self.send(request(self._next_id, method, params))
        answer: dict[str, Any] = json.loads(self.line(timeout))
        return answer

    def initialize(self, timeout: float = READY_S) -> None:
        self.ask("initialize", INITIALIZE, timeout)
        self.send(b'{"jsonrpc": "2.0", "method": "notifications/initialized"}\n')

    def tool(self, name: str, timeout: float = READY_S, /, **arguments: object) -> Any:
        """What a tool says, parsed; {"error": ...} also where the answer is an error."""
        answer = self.ask("tools/call", {"name": f"mempalace_{name}", "arguments": arguments}, timeout)
        return said(answer)

    def kill(self) -> None:
        """SIGKILL and reap."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)
        self.alive = False

    def end(self, timeout: float = 10.0) -> None:
        """End it by EOF, or by SIGKILL when that does not do; close both pipes."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None and pipe is self.process.stdin:
                pipe.close()
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.alive = False


def said(answer: Mapping[str, Any]) -> Any:
    """The payload of a tools/call answer: parsed JSON where it is JSON."""
    if "error" in answer:
        return {"error": answer["error"].get("message", ""), "code": answer["error"].get("code", 0)}
    text = answer["result"]["content"][0]["text"]
    try:
        return json.loads(text)
    except ValueError:
        return text


class Outcome:
    """What a run of calls came to.

    Attributes:
        latencies: seconds, per session. failures: heads of bad answers. seconds: the whole run, less stragglers.
        timely: good answers within that time.
        unanswered: calls that got no answer within the grace time. rates: of each round, where several were joined.
    """

    def __init__(self, sessions: int) -> None:
        self.latencies: list[list[float]] = [[] for _ in range(sessions)]
        self.failures: list[bytes] = []
        self.unanswered = 0
        self.seconds = 0.0
        self.timely = 0
        self.rates: list[float] = []

    def join(self, other: Outcome) -> None:
        """Add another round of the same sessions."""
        self.rates.append(other.rate)
        for mine, theirs in zip(self.latencies, other.latencies, strict=True):
            mine.extend(theirs)
        self.failures += other.failures
        self.unanswered += other.unanswered
        self.seconds += other.seconds
        self.timely += other.timely

    @property
    def all(self) -> list[float]:
        return [value for session in self.latencies for value in session]

    @property
    def rate(self) -> float:
        """Good answers per second, those within the time only: one straggler must not dilute it."""
        return self.timely / self.seconds if self.seconds else 0.0

    @property
    def bad(self) -> int:
        return len(self.failures) + self.unanswered


def serial(session: Session, lines: Sequence[bytes], outcome: Outcome | None = None) -> Outcome:
    """Send one line after the other on one session, the next when the last is answered; the least overhead."""
    outcome = outcome or Outcome(1)
    latencies = outcome.latencies[0]
    clock = time.perf_counter
    begun = clock()
    for line in lines:
        start = clock()
        os.write(session.stdin, line)
        answer = os.read(session.stdout, 1 << 18)
        while answer and answer[-1] != 10:
            answer += os.read(session.stdout, 1 << 18)
        latencies.append(clock() - start)
        if failed(answer):
            outcome.failures.append(answer[:300])
    outcome.seconds += clock() - begun
    return outcome


def closed_loop(
    sessions: Sequence[Session], make: Callable[[int, int], bytes], seconds: float, *, grace_s: float = 60.0
) -> Outcome:
    """Each session sends its next call as soon as the last is answered, for `seconds`.

    Args:
        make: (index of the session, number of the call) -> line.
    """
    outcome = Outcome(len(sessions))
    clock = time.perf_counter
    readable = selectors.DefaultSelector()
    by_fd = {session.stdout: index for index, session in enumerate(sessions)}
    for fd in by_fd:
        readable.register(fd, selectors.EVENT_READ)
    counts = [0] * len(sessions)
    begun = clock()
    end = begun + seconds
    for index, session in enumerate(sessions):
        session.sent_at = clock()
        os.write(session.stdin, make(index, 0))
    open_calls = len(sessions)
    while open_calls and clock() < end + grace_s:
        for key, _ in readable.select(1.0):
            index = by_fd[key.fd]
            session = sessions[index]
            try:
                lines = session.receive()
            except Gone:
                readable.unregister(key.fd)
                open_calls -= 1
                outcome.unanswered += 1
                continue
            for line in lines:
                now = clock()
                outcome.latencies[index].append(now - session.sent_at)
                if failed(line):
                    outcome.failures.append(line[:300])
                elif now < end:
                    outcome.timely += 1
                counts[index] += 1
                if now >= end:
                    open_calls -= 1
                    continue
                session.sent_at = clock()
                os.write(session.stdin, make(index, counts[index]))
    readable.close()
    outcome.unanswered += open_calls
    outcome.seconds = seconds
    return outcome


_ECHO = """
import os
a = b'{"jsonrpc":"2.0","id":1,"result":{}}\\n'
while d := os.read(0, 65536):
    os.write(1, a)
"""


def echo_server(*, env: Mapping[str, str], cwd: Path, log: Path) -> Session:
    """The cheapest server there is: what the driver measures on it is the driver's own."""
    return Session([sys.executable, "-I", "-S", "-c", _ECHO], env=env, cwd=cwd, log=log)
