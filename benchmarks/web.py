"""MCP over HTTP: the cost of a call compared with the unix socket, and 32 sessions compared with upstream's hub.

One small client speaks to both servers, over connections that stay open where the server keeps them.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import driver
from benchmarks.common import fmt, median, percentile
from benchmarks.load import MANY, trivial
from benchmarks.palaces import prepared
from benchmarks.suite import Options, Report, label, main, worlds
from benchmarks.world import BROKER, HUB, World
from tests.proctools import eventually

MORE_MS, TIMES = 1.0, 5.0
KG_QUERY = driver.call(1, "kg_query", {"entity": "palace"})


class Gate:
    """Return where a world is served over HTTP, from the record that mempalace's own clients read."""

    def __init__(self, world: World) -> None:
        (path,) = eventually(lambda: list((world.base / "server").glob("*/serverinfo.json")), 60, "the record of a hub")
        self.port = int(json.loads(path.read_bytes())["port"])
        token = path.parent / "token"  # the hub asks for none on 127.0.0.1
        self.token = token.read_text(encoding="utf-8").strip() if token.exists() else ""

    def request(self, line: bytes) -> bytes:
        """A POST."""
        head = (
            f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nAuthorization: Bearer {self.token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(line)}\r\n\r\n"
        )
        return head.encode() + line


class Caller:
    """One session: a connection, opened again if the server has closed it."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.sock = socket.create_connection(("127.0.0.1", gate.port), 60)
        self.calls = self.bad = 0
        self.begun = 0.0
        self.took: list[float] = []
        self._buffer = b""

    def ask(self, line: bytes) -> None:
        self.begun = time.perf_counter()
        self.sock.sendall(self.gate.request(line))

    def answered(self) -> bool:
        """Read the bytes that have come; return whether the answer is complete."""
        self._buffer += self.sock.recv(1 << 16)
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        lower = head.lower()
        length = lower.partition(b"content-length:")[2].split(b"\r\n")[0].strip()
        if not end or len(body) < int(length or 0):
            return False
        self.took.append(time.perf_counter() - self.begun)
        self.calls += 1
        self.bad += driver.failed(body) or not head.startswith(b"HTTP/1.1 200")
        self._buffer = b""
        return True

    @property
    def closing(self) -> bool:
        """Whether the server hangs up after each answer: looked at once, after the first."""
        self.sock.settimeout(0.2)
        try:
            return self.sock.recv(1, socket.MSG_PEEK) == b""
        except TimeoutError:
            return False
        finally:
            self.sock.settimeout(60)

    def call(self, line: bytes) -> float:
        """One call, to its end."""
        self.ask(line)
        while not self.answered():
            pass
        return self.took[-1]


def serial_unix(world: World, lines: int, rounds: int, gate: Gate) -> tuple[list[float], list[float]]:
    """Medians of rounds of one call after the other, in seconds: over the unix socket, over HTTP."""
    endpoint = next(e for e in world.record()["endpoints"] if e.startswith("unix:")).removeprefix("unix:")
    unix, web, caller = [], [], Caller(gate)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(endpoint)
        with sock.makefile("rb") as file:
            for number in range(rounds + 1):
                took = []
                for _ in range(lines):
                    begun = time.perf_counter()
                    sock.sendall(KG_QUERY)
                    file.readline()
                    took.append(time.perf_counter() - begun)
                both = median(took), median(caller.call(KG_QUERY) for _ in range(lines))
                if number:  # the first round warms up
                    unix.append(both[0])
                    web.append(both[1])
    caller.sock.close()
    return unix, web


def throng(gate: Gate, seconds: float) -> tuple[float, float, int]:
    """MANY sessions with trivial calls: calls per second, p99 in seconds, failed calls."""
    callers = [Caller(gate) for _ in range(MANY)]
    callers[0].call(trivial(0, 0))
    again = callers[0].closing
    if again:
        callers[0] = Caller(gate)
    readers = selectors.DefaultSelector()
    for index, caller in enumerate(callers):
        readers.register(caller.sock, selectors.EVENT_READ, index)
        caller.ask(trivial(index, 0))
    begun = time.monotonic()
    while time.monotonic() < begun + seconds:
        for key, _ in readers.select(1.0):
            caller = callers[key.data]
            if not caller.answered():
                continue
            if again:
                readers.unregister(caller.sock)
                caller.sock.close()
                caller.sock = socket.create_connection(("127.0.0.1", gate.port), 60)
                readers.register(caller.sock, selectors.EVENT_READ, key.data)
            caller.ask(trivial(key.data, caller.calls))
    took = time.monotonic() - begun
    for caller in callers:
        caller.sock.close()
    readers.close()
    calls = sum(caller.calls for caller in callers)
    return calls / took, percentile([one for caller in callers for one in caller.took], 99), sum(c.bad for c in callers)


def measure(options: Options) -> Report:
    """Both questions, with the newest mempalace."""
    report = Report("Over HTTP")
    which = options.newest
    pairs = [(BROKER, which), *([(HUB, which)] if which.has_hub else [])]
    rows: list[list[str]] = []
    rate: dict[str, list[tuple[float, float, int]]] = {}
    with worlds(pairs, lambda engine: prepared(engine, 1000)) as by_label:
        gates = {}
        for name, world in by_label.items():
            world.ready(1)[0].tool("kg_add", subject="palace", predicate="has", object="rooms")
            gates[name] = Gate(world)
        ours = label(BROKER, which)
        unix, web = serial_unix(by_label[ours], options.rounds(400, 150), options.rounds(11, 5), gates[ours])
        for _ in range(options.rounds(3, 2)):
            for name, gate in gates.items():
                rate.setdefault(name, []).append(throng(gate, options.rounds(10, 5)))
    for name, found in rate.items():
        cells = (median(one[0] for one in found), median(one[1] for one in found) * 1e3, sum(one[2] for one in found))
        rows.append([name, *map(fmt, cells)])
    report.add(f"{MANY} sessions over HTTP, trivial calls:", ["", "calls/s", "p99, ms", "failed"], rows)
    more = (median(web) - median(unix)) * 1e3
    note = f"{fmt(median(web) * 1e3)} against {fmt(median(unix) * 1e3)} ms"
    report.check("kg_query p50 over HTTP beyond the unix socket", more, MORE_MS, " ms", note)
    least = (min(web) - min(unix)) * 1e3
    report.check("the same, of the quietest round of each", least, MORE_MS, " ms", f"{fmt(min(web) * 1e3)} ms")
    if len(rate) > 1:
        high, low = (median(one[0] for one in rate[label(kind, which)]) for kind in (BROKER, HUB))
        report.check(f"{MANY} sessions over HTTP beside the hub", high / low, TIMES, " x", least=True)
    return report


if __name__ == "__main__":
    sys.exit(main((measure,), __doc__))
